"""Log-densities of samples under the true dynamics and under the observations.

    log_prior      = mean_m Σ_{k=2..K} log p(x_{m,k} | x_{m,k-1})
    log_likelihood = mean_m Σ_{k=1..K} log N(y_k; A(x_{m,k}), γ² I)

Neither is better when higher: samples that are too smooth, or that fit the noise, exceed the truth.
They are good when they match what the truth itself has. On Lorenz-63 with K = 15 that is 17.87 for
the 14 transitions and -0.49 for the 15 observations of arctan with γ = 0.25.

Reference:
    Score-based Data Assimilation (Rozet & Louppe, 2023), section 4.1, arXiv 2306.10574
"""

__all__ = ["log_likelihood", "log_prior"]

import math

import torch
import xarray as xr
from torch import Tensor

from priorflow.metrics.base import Case, aligned


@torch.no_grad()
def log_prior(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """Log-density of the K - 1 transitions within the window, in natural units: (case,).

    The states come from `previous` where the posterior has it, otherwise each member at time k came
    from the same member at time k - 1. The transition into the first state is left out, as the
    published numbers do.
    """
    state, _ = aligned(posterior, case)
    x = torch.as_tensor(state.values)
    x_next, x_last = x[:, :, 1:], x[:, :, :-1]
    if "previous" in posterior:
        previous, _ = xr.align(posterior["previous"], state, join="exact")
        x_last = torch.as_tensor(previous.transpose(*state.dims).values)[:, :, 1:]
    return _per_case(case.system.log_transition(x_last, x_next).sum(-1), state)


@torch.no_grad()
def log_likelihood(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """Log-density of all observations of the window: (case,).

    Raises:
        ValueError: The observations are free of noise, so that there is no density.
    """
    gamma = float(case.operator.noise_std)
    if not gamma > 0:
        raise ValueError(f"noise_std: value {gamma:g}, allowed: > 0")
    state, _ = aligned(posterior, case)
    y, _ = xr.align(case.y, state, join="exact", exclude=set(case.y.dims) - {"case", "time"})
    prediction = case.operator(torch.as_tensor(state.values))
    residual = (torch.as_tensor(y.transpose("case", ...).values).unsqueeze(1) - prediction) / gamma
    constant = math.log(gamma) + 0.5 * math.log(2 * math.pi)
    return _per_case(-(residual.square() / 2 + constant).flatten(2).sum(-1), state)


def _per_case(values: Tensor, state: xr.DataArray) -> xr.DataArray:
    """The mean over members of values (case, member), labelled by the cases."""
    one = state.isel({dim: 0 for dim in state.dims if dim != "case"}, drop=True)
    return one.copy(data=values.mean(1).numpy())
