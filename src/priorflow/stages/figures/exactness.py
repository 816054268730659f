"""How far every method is from the exact posterior, and what its intervals hold."""

__all__ = ["draw", "ranked"]

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.components import BadInput
from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    LIMIT,
    MARKERS,
    OTHERS,
    axis_label,
    house_style,
    legend_below,
    panels,
    plain_log,
    span,
    wrapped,
)
from priorflow.stages.figures.sweeps import bar_lengths, per_case
from priorflow.stages.statistics import Estimate, bootstrap_interval
from priorflow.stages.vocabulary import measure

Found = Mapping[tuple[str, str, str], Estimate]  # by method, task and metric
NEAREST = 0.1  # of the distance of exact draws, that is drawn
FILL = 0.7  # of the height of a row
STRIPE = {"color": "#f3f3f3", "lw": 0, "zorder": 0}
DOT = {"ms": 3.4, "mew": 0.9, "elinewidth": 0.8}


@house_style
def draw(
    results: Results,
    distances: Sequence[str] = ("mean_error", "sliced_w2"),
    coverages: Sequence[str] = ("coverage_50", "coverage_90"),
) -> Figure:
    """A row for every method, the limit first and then the closest to it; a mark for every task.

    There is a panel for each distance, and one for all coverages. From each distance a line leads
    to that of the limit: as far from zero are as many draws of the exact posterior itself. What is
    nearer than a tenth of that stands there.

    Args:
        results: Needs metrics; the limit is among the methods.
        distances: Metrics that are lower for a law closer to the exact posterior; by the last of
            them the methods are sorted.
        coverages: Metrics with a target between 0 and 1.

    Raises:
        BadInput: The experiment has no limit, or the figure does not show it.
    """
    limit = results.facts["limit"]
    if limit not in results.methods:
        raise BadInput(f"figures: exactness needs the limit among {results.methods}")
    table = results.metrics()
    found = {}
    for task in results.tasks:
        rows = table[table.task == task]
        for method in results.shown(task):
            for metric in (*distances, *coverages):
                found[method, task, metric] = bootstrap_interval(per_case(rows, method, metric))
    methods = ranked(found, distances[-1], limit)
    count = len(results.tasks)
    height = 3.0 + (0.25 + 0.12 * count) * len(methods)
    shares = [*[1] * len(distances), 1.2]
    figure, axes = panels(1, len(shares), height=height, sharey=True, width_ratios=shares)
    *first, last = axes[0]
    offsets = FILL * ((np.arange(count) + 0.5) / count - 0.5)
    for y, method in enumerate(methods):
        if y % 2:
            for axis in axes[0]:
                axis.axhspan(y - 0.5, y + 0.5, **STRIPE)
        for i, task in enumerate(results.tasks):
            if not results.ran(method, task):
                continue
            place = y + offsets[i]
            for axis, metric in zip(first, distances, strict=True):
                exact = found[limit, task, metric].value
                estimate = _at_least(NEAREST * exact, found[method, task, metric])
                axis.plot([exact, estimate.value], [place] * 2, lw=0.8, alpha=0.5, **_colour(i))
                _dot(axis, estimate, place, i)
            for j, metric in enumerate(coverages):
                _dot(last, found[method, task, metric], place, i, hollow=j % 2 == 1)
    for axis, metric in zip(first, distances, strict=True):
        what = measure(metric)
        axis.set_xlabel(axis_label(what.label, what.unit))
        plain_log(axis, "x", decades=2)
    for metric in coverages:
        last.axvline(measure(metric).target, color=LIMIT, lw=0.9, zorder=1)
    last.set(xlim=(-0.03, 1.03), xlabel="share of the truth")
    last.set_title("inside the members’ intervals")
    first[0].set_title("distance from the exact posterior", loc="left")
    for axis in axes[0]:
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", length=0)
    last.set_ylim(len(methods) - 0.5, -0.5)
    axes[0, 0].set_yticks(range(len(methods)), [wrapped(results.label(m), 22) for m in methods])
    handles = [Line2D([], [], ls="", **_mark(i)) for i in range(count)]
    labels = [results.label(task) for task in results.tasks]
    for j, metric in enumerate(coverages):
        face = "white" if j % 2 else LIMIT
        handles.append(Line2D([], [], ls="", color=LIMIT, marker="o", markerfacecolor=face))
        labels.append(f"{measure(metric).target:.0%} interval".replace("%", " %"))
    handles.append(Line2D([], [], color=LIMIT, lw=0.8, alpha=0.5))
    labels.append("down to exact draws")
    legend_below(figure, handles, labels)
    figure.suptitle(f"{span({e.n for e in found.values()})} cases", fontsize=8)
    return figure


def _at_least(bound: float, estimate: Estimate) -> Estimate:
    """An estimate whose numbers are raised to a bound, for a logarithmic axis."""
    numbers = (max(bound, x) for x in (estimate.value, estimate.low, estimate.high))
    return Estimate(*numbers, estimate.n)


def ranked(found: Found, metric: str, limit: str) -> list[str]:
    """The limit, then the methods by the geometric mean over tasks of the ratio to its distance.

    Draws that are compared with themselves have the distance zero; they are left out.
    """
    ratios: dict[str, list[float]] = {}
    for (method, task, name), estimate in found.items():
        if name == metric and estimate.value > 0:
            ratios.setdefault(method, []).append(estimate.value / found[limit, task, name].value)
    return sorted(ratios, key=lambda m: (m != limit, np.log(ratios[m]).mean()))


def _dot(axis: Axes, estimate: Estimate, y: float, i: int, hollow: bool = False) -> None:
    mark = _mark(i) | ({"markerfacecolor": "white"} if hollow else {})
    axis.errorbar(estimate.value, y, xerr=bar_lengths([estimate]), ls="", **DOT, **mark)


def _colour(i: int) -> dict[str, str]:
    return {"color": OTHERS[i % len(OTHERS)]}


def _mark(i: int) -> dict[str, str]:
    """The colour and the marker of a task."""
    return {**_colour(i), "marker": MARKERS[i % len(MARKERS)]}
