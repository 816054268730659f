"""Observe: the cases of a task, with the observations that all methods share."""

__all__ = ["at", "observe", "operator_of"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from priorflow import store
from priorflow.components import BadInput, build
from priorflow.operators.base import LinearOperator
from priorflow.rng import Streams


def operator_of(spec: Mapping[str, Any], system: Any, base: Path) -> Any:
    """The operator of a task; it is told the shape of a state, if it asks for it.

    Args:
        spec: The operator's component.
        system: The system, for its shape.
        base: The folder of the experiment file.
    """
    return build(spec, base, shape=tuple(system.shape))


def at(operator: Any, rows: Sequence[int]) -> Any:
    """The operator of these trajectories: the same for all, unless it says `at` itself."""
    return operator.at(rows) if hasattr(operator, "at") else operator


def observe(
    data: Path,
    *,
    operator: Mapping[str, Any],
    system: Mapping[str, Any],
    cases: int,
    steps: int,
    start: int,
    context: int,
    names: tuple[str, ...],
    seed: int,
    base: Path,
    rollout: bool = False,
    past: bool = True,
) -> xr.Dataset:
    """Observations of the first `cases` trajectories of a split.

    Args:
        data: The store of the split.
        operator: The operator's component.
        system: The system's component as the task sees it. If its states are shorter than those of
            the data, the first components are taken: copies that are stacked are independent.
        cases: Cases, one per trajectory.
        steps: Observed states per case.
        start: Index of the last unobserved state, which is known or not.
        context: States kept before the first observed one.
        names: The names of the random streams.
        seed: The master seed.
        base: The folder of the experiment file.
        rollout: Whether the time axis is called `lead`, which metrics do not average over.
        past: Whether states have a past; pictures have none, and no time axis either.

    Returns:
        y (case, time or lead, \\*obs), truth (case, time or lead, \\*space), history (case, past,
        \\*space), and the index of each case's trajectory.
    """
    whole = build(system, base)
    if not past:
        return _pictures(data, operator, whole, cases, names, seed, base)
    shape = tuple(whole.shape)
    first = start - context + 1
    if first < 0:
        raise ValueError(f"start: {start} leaves less than the {context} states of context")
    window, rows = _window(data, cases, slice(first, start + steps + 1))
    built = at(operator_of(operator, whole, base), rows)
    states = torch.from_numpy(window.state.values.astype(np.float32))
    states = states[..., : shape[-1]] if len(shape) == 1 else states
    y = _seen(built, states[:, context:], Streams(seed, *names, "observe", cases=rows))
    space, time = window.state.dims[2:], "lead" if rollout else "time"
    return xr.Dataset(
        {
            "y": (("case", time, *(f"obs_{i}" for i in range(y.ndim - 2))), y.numpy()),
            "truth": (("case", time, *space), states[:, context:].numpy()),
            "history": (("case", "past", *space), states[:, :context].numpy()),
            "trajectory": ("case", rows),
        },
        coords={"case": np.arange(len(y)), time: np.arange(1, steps + 1)},
        attrs=_attributes(window, operator, built, seed),
    )


def _pictures(
    data: Path,
    operator: Mapping[str, Any],
    system: Any,
    cases: int,
    names: tuple[str, ...],
    seed: int,
    base: Path,
) -> xr.Dataset:
    """y (case, \\*obs) and truth (case, \\*space), and in attributes what is known of the operator.

    `linear` says whether it is that; `condition` and `rank_deficiency`, of `dimensions`, are those
    of every case, or one for all, of an operator that has a `conditioning`.
    """
    window, rows = _window(data, cases, 0)
    truth = torch.from_numpy(np.ascontiguousarray(window.state.values))
    built = at(operator_of(operator, system, base), rows)
    rng = Streams(seed, *names, "observe", cases=rows)
    y = _seen(built, truth.unsqueeze(1), rng).squeeze(1)
    return xr.Dataset(
        {
            "y": (("case", *(f"obs_{i}" for i in range(y.ndim - 1))), y.numpy()),
            "truth": (("case", *window.state.dims[1:]), truth.numpy()),
            "trajectory": ("case", rows),
        },
        coords={"case": np.arange(len(y))},
        attrs={**_attributes(window, operator, built, seed), **_conditioning(built, truth[0])},
    )


def _window(data: Path, cases: int, time: slice | int) -> tuple[xr.Dataset, list[int]]:
    """The first `cases` trajectories of a split at some times, and their indices."""
    window = store.read(data).isel(trajectory=slice(cases), time=time)
    rows = window.trajectory.values.tolist()
    if len(rows) < cases:
        raise BadInput(f"{data}: {len(rows)} trajectories for {cases} cases")
    return window, rows


def _seen(built: Any, states: torch.Tensor, rng: Streams) -> torch.Tensor:
    """A x + γ η, unless the operator is a model of an instrument that can `observe` by itself."""
    if hasattr(built, "observe"):
        return built.observe(states, rng)
    clean = built(states)
    return clean + built.noise_std * rng.normal(*clean.shape[1:])


def _conditioning(built: Any, image: torch.Tensor) -> dict[str, Any]:
    """What a table says of an operator of images: how well y determines them."""
    if not isinstance(built, LinearOperator):
        return {"linear": False}
    if not hasattr(built, "conditioning"):
        return {"linear": True}
    condition, deficiency = (values.tolist() for values in built.conditioning())
    return {
        "linear": True,
        "condition": condition,
        "rank_deficiency": deficiency,
        "dimensions": image.numel(),
    }


def _attributes(
    window: xr.Dataset, operator: Mapping[str, Any], built: Any, seed: int
) -> dict[str, Any]:
    return {
        "operator": str(dict(operator)),
        "noise_std": float(built.noise_std),
        "seed": seed,
        **{key: window.attrs[key] for key in ("dt", "mean", "std", "natural_units")},
    }
