"""Scores of ensembles: the continuous ranked probability score, and spread against skill.

    crps         = mean_m |x_m - truth| - 1/(2 M (M - 1)) Σ_{m,m'} |x_m - x_m'|
    spread_skill = √(mean_{k,i} (M + 1)/M s²_{k,i}) / rmse_mean,   s² the unbiased member variance

References:
    | Fair scores for ensemble forecasts (Ferro, 2014), doi 10.1002/qj.2270
    | Why should ensemble spread match the RMSE of the ensemble mean? (Fortin et al., 2014),
      doi 10.1175/JHM-D-14-0008.1
"""

__all__ = ["crps", "spread_skill"]

import numpy as np
import xarray as xr

from priorflow.metrics.base import Case, aligned, averaged
from priorflow.metrics.errors import rmse_mean


def crps(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """The fair CRPS, averaged over time and space: (case,).

    Its expectation does not depend on the number of members, and it is least for the law of the
    truth. Of a single member it is the absolute error.
    """
    from scores.probability import crps_for_ensemble

    state, truth = aligned(posterior, case)
    method = "fair" if state.sizes["member"] > 1 else "ecdf"
    score = crps_for_ensemble(state, truth, "member", method=method, preserve_dims="all")
    return score.mean(averaged(score), skipna=False)


def spread_skill(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """Ensemble spread over the error of the ensemble mean: (case,).

    One where members and truth are exchangeable and time and space are many, below one where the
    ensemble is too sure. A ratio is convex in its denominator, so that the mean over cases of short
    windows lies above one even then (1.26 for exchangeable members on 15 states of Lorenz-63): pool
    the squares of spread and error over the cases instead, as the tables do. NaN for a single
    member, which has no spread.
    """
    state, _ = aligned(posterior, case)
    members = state.sizes["member"]
    skill = rmse_mean(posterior, case)
    if members == 1:
        return xr.full_like(skill, np.nan)
    # so that members that are equal have no spread, and not one of rounding
    apart = state - state.isel(member=0, drop=True)
    variance = apart.var("member", ddof=1) * (members + 1) / members
    return variance.mean(averaged(variance), skipna=False) ** 0.5 / skill
