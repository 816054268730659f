"""Infer: posterior samples of one method on one task, in fixed blocks of cases."""

__all__ = ["infer", "sample"]

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from priorflow import store
from priorflow.components import BadInput, build
from priorflow.priors.base import Climate, Known, StateSpace
from priorflow.rng import Streams
from priorflow.solvers.base import Diverged, Posterior
from priorflow.stages.cost import Cost
from priorflow.stages.models import device_of, load_prior
from priorflow.stages.observe import at, operator_of
from priorflow.stages.progress import track
from priorflow.stages.simulate import part
from priorflow.systems.base import Standardised


def sample(
    observations: xr.Dataset,
    run: Mapping[str, Any],
    model: Mapping[str, Any],
    weights: Path | None,
    *,
    cases: range,
    device: str,
    base: Path,
) -> xr.Dataset:
    """Draw from the posterior of the given cases.

    Inference runs in blocks of `run["block"]` cases and the last block is padded, since the last
    digits of a matrix product depend on the size of the batch: the results are then the same
    whatever cases are asked for.

    Args:
        observations: What the observe stage made.
        run: A `priorflow.config.Run` as a mapping.
        model: The `Model` section of the prior that the method uses.
        weights: The file of its weights; None if it has none.
        cases: Positions of the cases; whole blocks, but for the last.
        device: Where to compute.
        base: The folder of the experiment file.

    Returns:
        state (case, member, time, \\*space), perhaps `previous` of the same dimensions, diagnostics
        (case, time, …), and the cost per case and member; pictures have no time.
    """
    device = device_of(device)
    cost = Cost()
    solver = build(run["solver"], base)
    system = Standardised(build(run["system"], base))
    operator = operator_of(run["operator"], system, base)
    prior = load_prior(model, cost.simulator(system), weights, device, base)
    if isinstance(prior, torch.nn.Module):
        cost.network(getattr(prior, "network", prior))  # an exact denoiser stands for a network
    if hasattr(prior, "codec"):
        prior = cost.latent(prior)
    results, counts, seconds = [], [], []
    names = (run["experiment"], run["task"], run["method"])
    blocks = range(cases.start, cases.stop, run["block"])
    for first in track(blocks, f"{run['method']} on {run['task']}"):
        index = [min(i, cases.stop - 1) for i in range(first, first + run["block"])]
        block = observations.isel(case=index)
        rng = Streams(run["seed"], *names, cases=index, device=device)
        seen = at(operator, block.trajectory.values.tolist())
        cost.counts.clear()
        begin = time.perf_counter()
        try:
            with torch.no_grad():  # a solver that needs gradients asks for them
                posterior = solver(
                    _tensor(block.y, device),
                    cost.operator(seen, system.shape),
                    _prior(run, model, prior, system, block, device),
                    rng,
                    members=run["members"],
                )
        except Diverged as error:
            lost = sorted({index[i] for i in error.cases})
            raise BadInput(
                f"{run['method']} on {run['task']}: diverged at step {error.step} in case(s) "
                f"{', '.join(map(str, lost))}; smaller steps or weaker guidance may help"
            ) from None
        rows = len(index) * run["members"]
        counts.append([[cost.counts[kind] / rows for kind in Cost.KINDS]] * len(index))
        seconds.append([(time.perf_counter() - begin) / rows] * len(index))
        results.append(posterior)
    dataset = _dataset(results, observations, cases)
    for kind, values in zip(Cost.KINDS, np.concatenate(counts).T, strict=True):
        dataset[kind] = ("case", values[: len(cases)])
    dataset["seconds"] = ("case", np.concatenate(seconds)[: len(cases)])
    dataset.attrs = {
        "solver": str(run["solver"]),
        "model": run["model"],
        "seed": run["seed"],
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    return dataset


def infer(
    observations: Path,
    output: Path,
    run: Mapping[str, Any],
    model: Mapping[str, Any],
    weights: Path | None,
    *,
    shard: int,
    shards: int,
    device: str,
    base: Path,
) -> None:
    """Write the posterior of one shard of the cases; see `sample`."""
    opened = store.read(observations)
    cases = part(range(min(run["cases"], opened.sizes["case"])), shard, shards, run["block"])
    if not cases:
        raise BadInput(f"shards: {shards} is more than there are blocks of {run['block']} cases")
    dataset = sample(opened.load(), run, model, weights, cases=cases, device=device, base=base)
    store.write(dataset, output)


def _prior(
    run: Mapping[str, Any],
    model: Mapping[str, Any],
    prior: Any,
    system: Standardised,
    block: xr.Dataset,
    device: torch.device,
) -> Any:
    """What a solver is given: the prior of a picture, or of a trajectory with its beginning."""
    if run["initial"] == "none":
        return prior
    initial = Climate(system.initial)
    if run["initial"] == "known":
        initial = Known(_tensor(block.history, device)[:, -model["context"] :])
    return StateSpace(initial, prior, system.positions, system.period)


def _dataset(parts: list[Posterior], observations: xr.Dataset, cases: range) -> xr.Dataset:
    dims = ("case", "member", *observations.truth.dims[1:])
    time = next((str(d) for d in dims if d in ("time", "lead")), None)

    def join(tensors: list[torch.Tensor]) -> np.ndarray:
        return torch.cat(tensors)[: len(cases)].cpu().numpy()

    arrays = {"state": (dims, join([p.samples for p in parts]).astype("float32"))}
    if parts[0].previous is not None:
        arrays["previous"] = (dims, join([p.previous for p in parts]).astype("float32"))
    for name in parts[0].diagnostics:
        values = join([p.diagnostics[name] for p in parts]).astype("float32")
        lead = ("case",) if time is None else ("case", time)
        extra = [f"{name}_{i}" for i in range(values.ndim - len(lead))]
        if values.shape[len(lead) :] == parts[0].samples.shape[len(lead) + 1 :]:
            extra = list(dims[len(lead) + 1 :])  # a number for every component of a state
        arrays[name] = ((*lead, *extra), values)
    coordinates = {} if time is None else {time: observations[time]}
    return xr.Dataset(arrays, coords={"case": list(cases), **coordinates})


def _tensor(array: xr.DataArray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.values)).to(device)
