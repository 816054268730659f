"""Rank histograms: where the truth lies among the members.

Where truth and members are exchangeable, the truth has every rank equally often. A histogram like a
cup says that the ensemble is too narrow, one like a hill that it is too wide, a slope that it is
biased.
"""

__all__ = ["BINS", "Ranks", "draw", "rank_histogram"]

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from priorflow.rng import seed_of
from priorflow.stages.figures.base import Results, natural
from priorflow.stages.figures.style import (
    TRUTH,
    house_style,
    legend_below,
    look,
    panels,
    wrapped,
)
from priorflow.stages.statistics import Estimate, bootstrap_interval, pooled_ratio

BINS = 20  # at most so many bars: neighbouring ranks of a large ensemble are joined


@dataclass(frozen=True)
class Ranks:
    """A rank histogram.

    Attributes:
        density: Frequency of every bin relative to a uniform one, shape (bins,).
        low, high: Ends of the 95 % band in which a uniform one would lie, shape (bins,).
        share: The share of all ranks that each bin has, shape (bins,).
        spread_skill: Spread over skill, pooled over cases.
    """

    density: np.ndarray
    low: np.ndarray
    high: np.ndarray
    share: np.ndarray
    spread_skill: Estimate


def rank_histogram(state: np.ndarray, truth: np.ndarray, bins: int = BINS) -> Ranks:
    """Ranks of the truth, pooled over cases, times and components.

    Ranks within a case are correlated. The band therefore is the bootstrap interval, over cases, of
    the frequency of each bin, moved to the frequency of a uniform one.

    Ties are broken at random. Where all members equal the truth there is nothing to rank: such
    places are left out, and cases that have no others.

    Args:
        state: Members, shape (cases, members, …).
        truth: Shape (cases, …).
        bins: At most so many bins.
    """
    cases, members = state.shape[:2]
    below = (state < truth[:, None]).sum(1).reshape(cases, -1)
    ties = (state == truth[:, None]).sum(1).reshape(cases, -1)
    chance = np.random.default_rng(seed_of(0, "ranks")).random(ties.shape)
    ranks = below + np.floor(chance * (ties + 1)).astype(int)
    kept = ties < members
    told = kept.any(1)
    ranks, kept = ranks[told], kept[told]
    groups = np.array_split(np.arange(members + 1), min(bins, members + 1))
    share = np.array([len(group) for group in groups]) / (members + 1)
    frequency = np.stack(
        [((ranks >= g[0]) & (ranks <= g[-1])).mean(1, where=kept) for g in groups], axis=1
    )  # (cases, bins)
    relative = frequency / share
    found = [bootstrap_interval(column) for column in relative.T]
    square = (state.mean(1) - truth) ** 2
    variance = state.var(1, ddof=1) * (members + 1) / members
    axes = tuple(range(1, truth.ndim))
    return Ranks(
        density=np.array([e.value for e in found]),
        low=np.array([1 + e.low - e.value for e in found]),
        high=np.array([1 + e.high - e.value for e in found]),
        share=share,
        spread_skill=pooled_ratio(pd.Series(variance.mean(axes)), pd.Series(square.mean(axes))),
    )


@house_style
def draw(
    results: Results, bins: int = BINS, highest: float = 4.0, encoded: int | None = None
) -> Figure:
    """Rows are tasks and columns methods.

    Args:
        results: Needs posteriors and observations.
        bins: At most so many bars.
        highest: Where the vertical axis ends; what is higher has its value above the bar.
        encoded: The greatest integer of an encoding of 0 to 1, in natural units: values are clipped
            and rounded to it before they are ranked. None for values as they are.
    """
    rows, columns = len(results.tasks), len(results.methods)
    figure, axes = panels(rows, columns, height=2.2 + 3.3 * rows, sharex=True, sharey=True)
    for i, task in enumerate(results.tasks):
        for j, method in enumerate(results.methods):
            axis = axes[i, j]
            if not results.ran(method, task):
                axis.text(
                    0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="#777777"
                )
                continue
            posterior, observations = results.matched(method, task)
            state, truth = posterior.state.values, observations.truth.values
            if encoded is not None:
                shares = (natural(x, observations).clip(0, 1) for x in (state, truth))
                state, truth = (np.round(share * encoded) for share in shares)
            found = rank_histogram(state, truth, bins)
            edges = np.concatenate([[0], np.cumsum(found.share)])
            bars = np.minimum(found.density, highest)
            axis.bar(
                edges[:-1],
                bars,
                np.diff(edges),
                align="edge",
                color=look(method, results.facts).colour,
                alpha=0.75,
                ec="white",
                lw=0.4,
            )
            axis.stairs(
                found.high, edges, baseline=found.low, fill=True, color="#444444", alpha=0.25, lw=0
            )
            axis.axhline(1, color=TRUTH, lw=0.8)
            for x, height in ((0.02, found.density[0]), (0.98, found.density[-1])):
                if height > highest:
                    axis.text(
                        x,
                        highest,
                        f"{height:.1f}",
                        fontsize=7,
                        va="bottom",
                        ha="left" if x < 0.5 else "right",
                    )
            ratio = found.spread_skill
            axis.text(
                0.5,
                0.97,
                f"spread/skill {ratio.value:.2f}\n[{ratio.low:.2f}, {ratio.high:.2f}]",
                transform=axis.transAxes,
                ha="center",
                va="top",
                fontsize=7,
            )
    for axis, method in zip(axes[0], results.methods, strict=True):
        axis.set_title(wrapped(results.label(method), 46 // columns + 6), pad=9)
    for axis, task in zip(axes[:, 0], results.tasks, strict=True):
        axis.set_ylabel(wrapped(results.label(task), 20) if rows > 1 else "")
    figure.supylabel("frequency (uniform = 1)", fontsize=8)
    for axis in axes[-1]:
        axis.set(ylim=(0, highest), xlim=(0, 1), xticks=(0, 0.5, 1))
        axis.set_xlabel("rank of the truth (share)" if columns < 5 else "rank (share)")
    legend_below(
        figure,
        [Line2D([], [], color=TRUTH, lw=0.8), Patch(color="#444444", alpha=0.25)],
        ["truth and members exchangeable", "95 % band of that, from the spread between cases"],
    )
    return figure
