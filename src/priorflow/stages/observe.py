"""Observe: the cases of a task, with the observations that all methods share."""

__all__ = ["observe"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from priorflow import store
from priorflow.components import build
from priorflow.rng import Streams


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

    Returns:
        y (case, time or lead, \\*obs), truth (case, time or lead, \\*space), history (case, past,
        \\*space), and the index of each case's trajectory.
    """
    built = build(operator, base)
    shape = tuple(build(system, base).shape)
    first = start - context + 1
    if first < 0:
        raise ValueError(f"start: {start} leaves less than the {context} states of context")
    window = store.read(data).isel(trajectory=slice(cases), time=slice(first, start + steps + 1))
    states = torch.from_numpy(np.ascontiguousarray(window.state.values))
    states = states[..., : shape[-1]] if len(shape) == 1 else states
    rng = Streams(seed, *names, "observe", cases=window.trajectory.values.tolist())
    clean = built(states[:, context:])
    y = clean + built.noise_std * rng.normal(*clean.shape[1:])
    space, time = window.state.dims[2:], "lead" if rollout else "time"
    return xr.Dataset(
        {
            "y": (("case", time, *(f"obs_{i}" for i in range(y.ndim - 2))), y.numpy()),
            "truth": (("case", time, *space), states[:, context:].numpy()),
            "history": (("case", "past", *space), states[:, :context].numpy()),
            "trajectory": ("case", window.trajectory.values),
        },
        coords={"case": np.arange(len(y)), time: np.arange(1, steps + 1)},
        attrs={
            "operator": str(dict(operator)),
            "noise_std": float(built.noise_std),
            "seed": seed,
            **{key: window.attrs[key] for key in ("dt", "mean", "std", "natural_units")},
        },
    )
