"""The fractions skill score: do events cover the right share of every neighbourhood?

    FSS = 1 - Σ (f - o)² / (Σ f² + Σ o²),

f and o the shares of pixels at or above a threshold in a square window, in forecast and truth, and
sums over all windows inside the image and all times. One for equal fields; unlike the CSI it does
not punish twice what is displaced by less than the window.

Reference:
    Scale-selective verification of rainfall accumulations from high-resolution forecasts of
    convective events (Roberts & Lean, 2008), doi 10.1175/2007MWR2123.1
"""

__all__ = ["fss"]

import numpy as np
import xarray as xr

from priorflow.metrics.base import Case, aligned
from priorflow.metrics.csi import natural


def fss(posterior: xr.Dataset, case: Case, threshold: float = 0.3, window: int = 9) -> xr.DataArray:
    """The FSS of single members, then the mean over members: (case,) or (case, lead).

    NaN for a case without an event in the truth, whatever the forecast, as for the CSI.

    Args:
        posterior: States (case, member, time, height, width).
        case: The truth and, for the units, the system.
        threshold: In the natural units of the system; in those of the states without one.
        window: The side of the neighbourhoods in pixels.

    Raises:
        ValueError: The window does not fit into the image.
    """
    from scores.spatial import fss_2d_binary

    state, truth = (natural(x, case) >= threshold for x in aligned(posterior, case))
    space = tuple(str(dim) for dim in truth.dims[-2:])
    if not 1 <= window <= min(truth.sizes[dim] for dim in space):
        raise ValueError(f"window: value {window}, allowed: 1 to the size of the image")
    kept = [dim for dim in state.dims if dim in ("case", "member", "lead")]
    score = fss_2d_binary(
        state.astype(np.float64),
        truth.astype(np.float64),
        window_size=(window, window),
        spatial_dims=space,
        preserve_dims=kept,
        check_boolean=False,
    )
    pooled = [dim for dim in truth.dims if dim not in ("case", "lead")]
    return score.mean("member", skipna=False).where(truth.any(pooled))
