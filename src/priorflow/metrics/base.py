"""What a metric is given: the posterior of a method and the cases that it is judged on.

A metric is a pure function `metric(posterior, case)` that returns one number per case, with
dimension (case,). The posterior has the variable `state` (case, member, time, \\*space) and, from a
filter that resamples, `previous`: the state at time k - 1 from which each member at time k came.
A rollout names its time axis `lead`; metrics that average over time then keep it, (case, lead).
All states are in standardised units.
"""

__all__ = ["Case", "aligned", "averaged"]

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

KEPT = ("case", "member", "lead")


@dataclass(frozen=True)
class Case:
    """A batch of cases.

    Attributes:
        truth: The states that the observations were made of, dims (case, time, \\*space).
        y: The observations, dims (case, time, \\*obs).
        operator: The forward model, from tensors of states to tensors of observations, with
            `noise_std`.
        system: Where the truth comes from; `log_transition(x, x_next)` takes tensors in the units
            of the truth and gives a density in natural units. None where there is no simulator.
    """

    truth: xr.DataArray
    y: xr.DataArray
    operator: Any
    system: Any = None


def aligned(posterior: xr.Dataset, case: Case) -> tuple[xr.DataArray, xr.DataArray]:
    """The states with leading dims (case, member, …), and the truth, on the same coordinates.

    Raises:
        ValueError: Cases, times or places differ, or a state is not finite: xarray alone would
            compare what is left, and skip what is not a number.
    """
    state, truth = xr.align(posterior["state"], case.truth, join="exact")
    if not np.isfinite(state.values).all():
        raise ValueError("state: value not finite, allowed: finite states")
    return state.transpose("case", "member", *truth.dims[1:]), truth


def averaged(x: xr.DataArray) -> list[str]:
    """The dimensions that a mean over time and space runs over."""
    return [str(dim) for dim in x.dims if dim not in KEPT]
