"""Reliability diagrams: do events come as often as the members say?

Where k of M members are at or above a threshold, the probability of that is forecast as k / M. It
is reliable if the truth is there just as often: then the points lie on the diagonal. A line that is
flatter belongs to an ensemble that is too sure. Of exchangeable members it is a little flatter too,
since k / M of few members is itself uncertain (Richardson, 2001).

References:
    | Increasing the reliability of reliability diagrams (Bröcker & Smith, 2007),
      doi 10.1175/WAF993.1
    | Measures of skill and value of ensemble prediction systems (Richardson, 2001),
      doi 10.1002/qj.49712757715
"""

__all__ = ["Reliability", "draw", "reliability"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results, standardised
from priorflow.stages.figures.style import (
    TRUTH,
    house_style,
    legend_below,
    lines_of,
    look,
    panels,
    span,
    wrapped,
)
from priorflow.stages.figures.sweeps import bar_lengths
from priorflow.stages.statistics import Estimate, pooled_share

RARE = 1e-4  # a share of forecasts that says nothing of how reliable they are
BINS = 11  # at most so many probabilities: neighbours of a large ensemble are joined
BASE = {"color": "#8c8c8c", "lw": 0.8, "ls": "--"}
DIAGONAL = {"color": TRUTH, "lw": 0.8}


@dataclass(frozen=True)
class Reliability:
    """How often events come, by the probability that was forecast.

    Attributes:
        forecast: The mean forecast in every bin, shape (bins,).
        observed: The share of events in every bin, pooled over the cases that have such a forecast,
            with its interval over them.
        share: The share of all forecasts that every bin has, shape (bins,).
    """

    forecast: np.ndarray
    observed: Sequence[Estimate]
    share: np.ndarray


def reliability(
    state: np.ndarray, truth: np.ndarray, threshold: float, bins: int = BINS
) -> Reliability:
    """How reliable the probability to be at or above a threshold is; rare forecasts are left out.

    Args:
        state: Members, shape (cases, members, …).
        truth: Shape (cases, …).
        threshold: In the same units.
        bins: At most so many bins.
    """
    cases, members = state.shape[:2]
    votes = (state >= threshold).sum(1).reshape(cases, -1)
    events = (truth >= threshold).reshape(cases, -1)
    forecast, observed, share = [], [], []
    for group in np.array_split(np.arange(members + 1), min(bins, members + 1)):
        inside = (votes >= group[0]) & (votes <= group[-1])
        kept = inside.any(1)
        if inside.mean() < RARE:
            continue
        forecast.append(votes[inside].mean() / members)
        share.append(inside.mean())
        counts = (pd.Series(x[kept].sum(1)) for x in (inside & events, inside))
        observed.append(pooled_share(*counts))
    return Reliability(np.array(forecast), observed, np.array(share))


@house_style
def draw(results: Results, thresholds: Sequence[float] = (0.3, 0.5), bins: int = BINS) -> Figure:
    """The diagram above, the share of the forecasts below; a column for every task and threshold.

    Args:
        results: Needs posteriors and observations.
        thresholds: In the natural units of the system.
        bins: At most so many points.
    """
    pairs = [(task, threshold) for task in results.tasks for threshold in thresholds]
    columns = len(pairs)
    figure, axes = panels(2, columns, height=11, sharex=True, sharey="row", height_ratios=(2.4, 1))
    methods = []
    for (above, below), (task, threshold) in zip(axes.T, pairs, strict=True):
        whole = results.observations(task)
        scaled = standardised(threshold, whole)
        above.plot([0, 1], [0, 1], **DIAGONAL)
        above.axhline(float((whole.truth >= scaled).mean()), **BASE)
        counts, shown = set(), results.shown(task)
        for i, method in enumerate(shown):
            posterior, observations = results.matched(method, task)
            found = reliability(posterior.state.values, observations.truth.values, scaled, bins)
            beside = found.forecast + 0.008 * (i - (len(shown) - 1) / 2)  # bars do not overlap
            style = look(method, results.facts)
            line = {"marker": style.marker, "ms": 3, "lw": 1, **style.line()}
            values = [e.value for e in found.observed]
            above.errorbar(beside, values, bar_lengths(found.observed), elinewidth=0.8, **line)
            below.plot(beside, found.share, **line)
            counts.add(len(posterior.case))
            methods.append(method)
        event = f"at least {threshold:g}; {span(counts)} cases"
        above.set_title(f"{wrapped(results.label(task), 92 // columns)}\n{event}")
        below.set_xlabel("forecast probability")
        above.set(xlim=(-0.05, 1.05), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1))
    axes[0, 0].set_ylabel("observed frequency")
    axes[1, 0].set(yscale="log", ylabel="share of forecasts")
    methods = list(dict.fromkeys(methods))
    handles = [Line2D([], [], **DIAGONAL), Line2D([], [], **BASE)]
    handles += lines_of(methods, results.facts, markers=True, ms=3, lw=1)
    labels = ["reliable", "share of events", *map(results.label, methods)]
    legend_below(figure, handles, labels)
    return figure
