"""How far a posterior is from the exact one, and whether its intervals hold what they promise.

    mean_error = √(Σ_i (mean_m x_{m,i} - m_i)² / Σ_i v_i),   m, v the exact mean and variance
    sliced_w2  = √(mean_θ W₂²(law of θ·x, law of θ·x*)),     θ uniform on the sphere, x* exact draws
    coverage   = the share of the truth inside the central interval of the members, by its rank

References:
    | Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015),
      doi 10.1007/s10851-014-0506-3
    | Interpretation of Rank Histograms for Verifying Ensemble Forecasts (Hamill, 2001),
      doi 10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2
"""

__all__ = ["coverage", "mean_error", "sliced_w2"]

import numpy as np
import torch
import xarray as xr

from priorflow.metrics.base import Case, aligned, averaged
from priorflow.rng import generator


def mean_error(posterior: xr.Dataset, case: Case, exact: xr.Dataset) -> xr.DataArray:
    """The error of the ensemble mean, in standard deviations of the exact posterior: (case,).

    Its square is 1/M on average for M draws of the exact posterior, and 0 for its mean. Where y
    determines x there is no such scale, and it grows without bound.

    Args:
        exact: `mean` and `variance` of the exact posterior, with the dimensions of the truth.
    """
    state, truth = aligned(posterior, case)
    mean, variance, _ = xr.align(exact["mean"], exact["variance"], truth, join="exact")
    square = (state.mean("member") - mean) ** 2
    over = averaged(square)
    return (square.mean(over, skipna=False) / variance.mean(over, skipna=False)) ** 0.5


def sliced_w2(
    posterior: xr.Dataset, case: Case, exact: xr.Dataset, projections: int = 256, seed: int = 0
) -> xr.DataArray:
    """Sliced Wasserstein-2 distance between the members and exact draws, in units of x: (case,).

    A shift by d costs about |d|/√n over n pixels, as in a root-mean-square error. Not zero for two
    finite samples of one law: draws of the exact solver from another stream show how far from zero.

    Args:
        exact: Draws of the exact posterior as `state` (case, member, …); any number of members.
        projections: Directions θ, the same for all cases and methods.
        seed: Which directions.
    """
    import ot

    state, truth = aligned(posterior, case)
    reference, _ = aligned(exact, case)
    x, z = (a.values.reshape(*a.shape[:2], -1).astype(float) for a in (state, reference))
    directions = torch.randn(
        x.shape[2], projections, generator=generator(seed, "sliced_w2"), dtype=torch.float64
    )
    directions = (directions / directions.norm(dim=0)).numpy()
    values = [
        ot.sliced_wasserstein_distance(a, b, projections=directions)
        for a, b in zip(x, z, strict=True)
    ]
    out = truth.isel({dim: 0 for dim in truth.dims if dim != "case"}, drop=True)
    return out.copy(data=np.asarray(values, dtype=out.dtype))


def coverage(posterior: xr.Dataset, case: Case, level: float = 0.9) -> xr.DataArray:
    """The share of the truth inside the central `level` interval of the members: (case,).

    `level` on average where members and truth are exchangeable, at any number of members; below it
    where the ensemble is too sure. M members cut the line into M + 1 cells of equal probability,
    the truth counts by the share of its cell that lies in the interval, and members that equal it
    join their cells. The price of that fairness: with few members no cell lies outside, and the
    share cannot fall below 1 - (M + 1) (1 - level) / 2. NaN for a single member, of which it would
    always be `level`.

    Args:
        level: The probability of the interval, between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: value {level}, allowed: between 0 and 1")
    state, truth = aligned(posterior, case)
    cells, tail = state.sizes["member"] + 1, (1 - level) / 2
    low = (state < truth).sum("member") / cells
    high = ((state <= truth).sum("member") + 1) / cells
    share = (high.clip(max=1 - tail) - low.clip(min=tail)).clip(min=0) / (high - low)
    out = share.mean(averaged(share), skipna=False)
    return out if cells > 2 else xr.full_like(out, np.nan)
