"""Simulate: trajectories of a system, or pictures of an archive, one shard of a split at a time."""

__all__ = ["SPACE", "part", "rows_of", "simulate"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from priorflow import store
from priorflow.components import BadInput, build
from priorflow.rng import Streams
from priorflow.stages.progress import track

SPACE = {1: ("component",), 2: ("y", "x"), 3: ("channel", "y", "x")}


def part(items: range, shard: int, shards: int, block: int = 1) -> range:
    """The `shard`-th of `shards` nearly equal runs of whole blocks of `items`."""
    blocks = -(-len(items) // block)
    first, last = (round(blocks * i / shards) * block for i in (shard, shard + 1))
    return items[first:last]


def rows_of(system: Mapping[str, Any], rows: range, split: str, base: Path) -> range:
    """The trajectories of a split: `rows`, or as many of an archive that has a split of its own.

    Args:
        system: The system's component.
        rows: Those of the experiment's data section.
        split: train, valid or test.
        base: The folder of the experiment file.

    Returns:
        Their indices; an archive gives its first ones, or all that it has.
    """
    built = build(system, base)
    return built.rows(split)[: len(rows)] if hasattr(built, "rows") else rows


def simulate(
    system: Mapping[str, Any],
    rows: range,
    output: Path,
    *,
    steps: int,
    burn_in: int,
    names: tuple[str, ...],
    seed: int,
    base: Path,
    workers: int = 1,
    dask: str = "local",
) -> None:
    """Write the trajectories `rows` in natural units: state (trajectory, time, \\*space).

    Args:
        system: The system's component. An archive has `read(rows)` in the place of a law: pictures
            (rows, *shape), which are trajectories of one state. One with `events` is ingested.
        rows: Indices of the trajectories; each draws from a stream of its own.
        output: The store to write.
        steps: States per trajectory.
        burn_in: Transitions dropped before the first state.
        names: The names of the random streams.
        seed: The master seed.
        base: The folder of the experiment file.
        workers, dask: How an archive is ingested, see `priorflow.stages.ingest`.
    """
    built = build(system, base)
    if hasattr(built, "events"):
        from priorflow.stages.ingest import ingest

        attrs = {"seed": seed, "system": str(dict(system))}
        ingest(built, rows, output, workers=workers, dask=dask, attrs=attrs)
        return
    if hasattr(built, "read"):
        _write(built.read(rows).unsqueeze(1), built, system, rows, output, seed)
        return
    rng = Streams(seed, *names, cases=rows)
    x = built.initial(1, rng)
    states = torch.empty(len(rows), steps, *built.shape)
    for k in track(range(-burn_in, steps), "simulate"):
        x = built.step(x, rng) if k > -burn_in else x
        if not x.isfinite().all():
            lost = [rows[i] for i in (~x.isfinite()).flatten(1).any(1).nonzero().flatten()]
            raise BadInput(
                f"{system['class']}: not finite after {k + burn_in} transitions in trajectories "
                f"{', '.join(map(str, lost))}; a smaller time step may help"
            )
        if k >= 0:
            states[:, k] = x[:, 0]
    _write(states, built, system, rows, output, seed)


def _write(
    states: torch.Tensor,
    built: Any,
    system: Mapping[str, Any],
    rows: range,
    output: Path,
    seed: int,
) -> None:
    dims = ("trajectory", "time", *SPACE[len(built.shape)])
    dataset = xr.Dataset(
        {"state": (dims, states.numpy(), {"units": built.units})},
        coords={"trajectory": list(rows)},
        attrs={"dt": built.dt, "seed": seed, "system": str(dict(system))},
    )
    store.write(dataset, output)
