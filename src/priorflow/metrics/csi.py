"""The critical success index: how well areas above a threshold overlap.

    CSI = hits / (hits + misses + false alarms),

counts of pixels and times where forecast and truth, only the truth, or only the forecast are at or
above the threshold. Thresholds are in the natural units of the system, for SEVIR the encoded VIL
over 255: 0.3 and 0.5 in FlowDAS, and 16, 74, 133, 160, 181 and 219 over 255 in the SEVIR challenge.

A case without an event in the truth has no CSI: NaN, whatever the forecast, so that all methods are
averaged over the same cases. False alarms in such cases go unpunished; `contingency` has them.

Published averages differ. The SEVIR benchmark and those that follow it (Earthformer, PreDiff) sum
the counts over all sequences before they divide, some of them for every lead, then average over
leads; FlowDAS averages the CSI of samples, 0 where there is no event at all. The mean over cases of
`csi` gives all cases the same weight, as FlowDAS does; for the pooled one sum `contingency` over
cases first: large storms then weigh more.

References:
    | SEVIR (Veillette et al., 2020), NeurIPS, and its radar nowcasting challenge
    | FlowDAS (Chen et al., 2025), arXiv 2501.16642, released code
"""

__all__ = ["contingency", "csi", "csi_mean", "natural"]

import numpy as np
import torch
import xarray as xr

from priorflow.metrics.base import Case, aligned, averaged


def csi(posterior: xr.Dataset, case: Case, threshold: float = 0.3) -> xr.DataArray:
    """The CSI of single members, then the mean over members: (case,) or (case, lead).

    Like the rmse of members it rewards ensembles that collapse to a point.

    Args:
        posterior: States (case, member, time, \\*space).
        case: The truth and, for the units, the system.
        threshold: In the natural units of the system; in those of the states without one.
    """
    return _ratio(contingency(posterior, case, threshold)).mean("member", skipna=False)


def csi_mean(posterior: xr.Dataset, case: Case, threshold: float = 0.3) -> xr.DataArray:
    """The CSI of the ensemble mean, which is smooth and so has few strong events.

    Args:
        posterior, case, threshold: As in `csi`.
    """
    mean = posterior[["state"]].mean("member", skipna=False).expand_dims(member=1)
    return csi(mean, case, threshold)


def contingency(posterior: xr.Dataset, case: Case, threshold: float = 0.3) -> xr.Dataset:
    """The counts `hits`, `misses` and `false_alarms`: (case, member) or (case, member, lead).

    Args:
        posterior, case, threshold: As in `csi`.
    """
    state, truth = (natural(x, case) >= threshold for x in aligned(posterior, case))
    counts = {"hits": state & truth, "misses": ~state & truth, "false_alarms": state & ~truth}
    return xr.Dataset({name: events.sum(averaged(events)) for name, events in counts.items()})


def natural(x: xr.DataArray, case: Case) -> xr.DataArray:
    """States in the natural units of the system, or as they are where there is none."""
    if case.system is None:
        return x
    values = torch.from_numpy(np.ascontiguousarray(x.values))
    return x.copy(data=case.system.decode(values).numpy())


def _ratio(counts: xr.Dataset) -> xr.DataArray:
    observed = counts.hits + counts.misses
    return (counts.hits / (observed + counts.false_alarms)).where(observed > 0)
