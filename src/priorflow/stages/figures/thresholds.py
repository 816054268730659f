"""The critical success index (CSI) against the threshold of an event.

    CSI = Σ_cases hits / Σ_cases (hits + misses + false alarms),

counts of pixels and states that are summed over all cases before they are divided, as for SEVIR: a
storm counts by its size, and false alarms count where there is no event too. The metric `csi` is
that of each case instead.

References:
    | SEVIR (Veillette et al., 2020), NeurIPS, and its radar nowcasting challenge
    | Earthformer (Gao et al., 2022), arXiv 2207.05833
"""

__all__ = ["draw", "pooled_csi"]

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from priorflow.metrics.base import Case
from priorflow.metrics.csi import contingency
from priorflow.stages.figures.base import Results, standardised
from priorflow.stages.figures.style import (
    case_title,
    house_style,
    legend_below,
    lines_of,
    look,
    panels,
)
from priorflow.stages.figures.vil import FULL
from priorflow.stages.statistics import Estimate, pooled_share
from priorflow.systems.storms import THRESHOLDS

ROWS = {"CSI of the ensemble mean": True, "CSI of single members": False}


def pooled_csi(
    posterior: xr.Dataset, observations: xr.Dataset, threshold: float, mean: bool = False
) -> Estimate:
    """The pooled CSI with its interval over cases.

    Args:
        posterior: `state` (case, member, time or lead, height, width). Cases that have an event
            neither there nor in the truth are left out.
        observations: The `truth` of the same cases.
        threshold: In the units of the states.
        mean: Whether to take the mean of the members; else their counts are summed.
    """
    if mean:
        posterior = posterior[["state"]].mean("member", keepdims=True)
    counts = contingency(posterior, Case(observations.truth, observations.y, None), threshold)
    counts = counts.sum([dim for dim in counts.dims if dim != "case"]).to_pandas()
    counts = counts[counts.sum(axis=1) > 0]  # with the others alone a resample would be 0 / 0
    return pooled_share(counts.hits, counts.sum(axis=1))


@house_style
def draw(results: Results, levels: Sequence[int] = THRESHOLDS) -> Figure:
    """The mean above, members below; a column for every task, a line for every method.

    Args:
        results: Needs posteriors and observations of images of VIL.
        levels: Thresholds of the encoded VIL, 1 to 255. A value is encoded as the nearest integer,
            so that it is at or above a level from half an integer below it.
    """
    columns = len(results.tasks)
    figure, axes = panels(2, columns, height=13, sharex="col", sharey=True)
    methods = [m for m in results.methods if any(results.ran(m, t) for t in results.tasks)]
    for column, task in zip(axes.T, results.tasks, strict=True):
        whole = results.observations(task)
        thresholds = [standardised((level - 0.5) / FULL, whole) for level in levels]
        counts = set()
        for method in results.shown(task):
            posterior, observations = results.matched(method, task)
            style = look(method, results.facts)
            for axis, of_mean in zip(column, ROWS.values(), strict=True):
                found = [pooled_csi(posterior, observations, t, of_mean) for t in thresholds]
                value, low, high = np.array([(e.value, e.low, e.high) for e in found]).T
                axis.plot(levels, value, marker=style.marker, ms=3, lw=1, **style.line())
                axis.fill_between(levels, low, high, color=style.colour, alpha=0.12, lw=0)
            counts.add(posterior.sizes["case"])
        column[0].set_title(case_title(results.label(task), counts, 92 // columns))
        shares = [float((whole.truth >= t).mean()) for t in thresholds]
        ticks = [f"{level}\n{_percent(s)}" for level, s in zip(levels, shares, strict=True)]
        column[-1].set_xticks(levels, ticks)
        column[-1].set_xlabel("threshold (of 255), and share of the pixels (%)")
    for axis, label in zip(axes[:, 0], ROWS, strict=True):
        axis.set(ylim=(0, 1), ylabel=label)
    handles = lines_of(methods, results.facts, markers=True, ms=3, lw=1)
    legend_below(figure, handles, [results.label(m) for m in methods])
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"
