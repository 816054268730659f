"""Root-mean-square errors, in standardised units.

    rmse      = mean_m √(mean_{k,i} (x_{m,k,i} - truth_{k,i})²)
    rmse_mean = √(mean_{k,i} (mean_m x_{m,k,i} - truth_{k,i})²)

A draw from the exact posterior has an rmse of about √2 times that of the posterior mean, so `rmse`
rewards ensembles that collapse to a point; it is there because it is what was published.
"""

__all__ = ["rmse", "rmse_mean"]

import xarray as xr

from priorflow.metrics.base import Case, aligned, averaged


def rmse(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """The error of single members over time and space, then the mean over members: (case,)."""
    state, truth = aligned(posterior, case)
    square = (state - truth) ** 2
    return (square.mean(averaged(square), skipna=False) ** 0.5).mean("member")


def rmse_mean(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """The error of the ensemble mean over time and space: (case,)."""
    state, truth = aligned(posterior, case)
    square = (state.mean("member") - truth) ** 2
    return square.mean(averaged(square), skipna=False) ** 0.5
