"""Errors in the natural units of the system, for comparison with what was published in them.

Where one number scales all components they are the standardised errors times that number.
"""

__all__ = ["crps", "rmse", "rmse_mean"]

from dataclasses import replace

import xarray as xr

from priorflow.metrics import crps as scores
from priorflow.metrics import errors
from priorflow.metrics.base import Case
from priorflow.metrics.csi import natural


def rmse(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """As `errors.rmse`: (case,) or (case, lead)."""
    return errors.rmse(*_decoded(posterior, case))


def rmse_mean(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """As `errors.rmse_mean`: (case,) or (case, lead)."""
    return errors.rmse_mean(*_decoded(posterior, case))


def crps(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """As `crps.crps`: (case,) or (case, lead)."""
    return scores.crps(*_decoded(posterior, case))


def _decoded(posterior: xr.Dataset, case: Case) -> tuple[xr.Dataset, Case]:
    """The states and the truth in natural units."""
    state, truth = (natural(x, case) for x in (posterior["state"], case.truth))
    return state.to_dataset(name="state"), replace(case, truth=truth)
