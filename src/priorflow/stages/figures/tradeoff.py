"""The error, or the score, of every method against what it costs."""

__all__ = ["draw"]

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results, units
from priorflow.stages.figures.plane import Pair, name_points
from priorflow.stages.figures.style import (
    axis_label,
    case_title,
    house_style,
    legend_below,
    look,
    panels,
    plain_log,
    wrapped,
)
from priorflow.stages.figures.sweeps import bar_lengths, per_case, shared_cases
from priorflow.stages.statistics import Estimate, bootstrap_interval
from priorflow.stages.vocabulary import UNITS, measure

BARS = {"elinewidth": 0.9, "capsize": 1.8}
MANY = 10  # methods that a legend can tell apart
NOTHING = 0.5  # the width of the axis from no cost at all to 1, in decades


@house_style
def draw(
    results: Results, metric: str = "crps", costs: Sequence[str] = ("nfe", "seconds")
) -> Figure:
    """A row for every cost and a column for every task; bars are 95 % intervals over cases.

    All points of a panel are means over the cases that they share. Of many methods each has its
    name beside its point, and those whose score is below the floor stand on the edge, with it.

    Args:
        results: Needs metrics and observations.
        metric: The error, on a logarithmic axis, or a score that is higher for better methods.
        costs: What is counted, per member and observed state, or image.
    """
    table, what = results.metrics(), measure(metric)
    methods = [m for m in results.methods if any(results.ran(m, task) for task in results.tasks)]
    many = len(methods) > MANY
    rows, columns = len(costs), len(results.tasks)
    height = 2.6 + (7.0 if many else 4.3) * rows
    figure, axes = panels(rows, columns, height=height, sharex="row", sharey="all")
    named: list[tuple[Axes, dict[str, Pair]]] = []
    for j, task in enumerate(results.tasks):
        observations = results.observations(task)
        times = {"time", "lead"} & observations.sizes.keys()  # pictures have none
        states = math.prod(observations.sizes[name] for name in times)
        shown = results.shown(task)
        found = shared_cases(table[table.task == task], shown)
        errors = {m: bootstrap_interval(per_case(found, m, metric)) for m in shown}
        floor = errors.get(results.facts.get("floor"))
        lowest = floor.value if many and floor and what.direction == "higher" else -math.inf
        for axis, cost in zip(axes[:, j], costs, strict=True):
            points = {}
            for method, error in errors.items():
                label, price = results.label(method), per_case(found, method, cost).mean() / states
                if error.value < lowest:
                    label = f"{label} at {error.value:.{what.digits - 2}f}"
                    error = Estimate(lowest, lowest, lowest, error.n)
                points[label] = (Estimate(price, price, price, error.n), error)
                value, lengths = [error.value], bar_lengths([error])
                axis.errorbar(price, value, lengths, **BARS, **_marker(method, results))
            named.append((axis, points))
        counts = {error.n for error in errors.values()}
        axes[0, j].set_title(case_title(results.label(task), counts, 96 // columns))
    if what.direction != "higher":  # scores may be zero, and decibels are logarithms
        plain_log(axes[0, 0])
    for axis in axes[:, 0]:
        unit = units(observations) if what.unit == UNITS else what.unit
        axis.set_ylabel(axis_label(what.label, unit))
    each = "per member and state" if times else "per image"
    for row, cost in zip(axes, costs, strict=True):
        what = measure(cost)
        label = axis_label(what.description or cost, what.unit)
        for axis in row:
            axis.set_xlabel(wrapped(label, 84 // columns) + f"\n{each}")
        _price(row[0], [line.get_xdata()[0] for axis in row for line in axis.lines])
    if many:
        figure.draw_without_rendering()  # axes find their places
        for axis, points in named:
            name_points(axis, points)
    else:
        handles = [Line2D([], [], **_marker(m, results)) for m in methods]
        legend_below(figure, handles, [results.label(m) for m in methods])
    return figure


def _price(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis, on which there is a place for what is free."""
    if min(values) > 0:
        plain_log(axis, "x", decades=2)
        return
    axis.set_xscale("symlog", linthresh=1, linscale=NOTHING)
    decades = [10**i for i in range(math.ceil(math.log10(max(*values, 1))) + 1)]
    axis.set_xticks([0, *decades], ["0", *(f"{decade:,}" for decade in decades)])
    axis.set_xlim(-0.4, 1.5 * max(*values, 1))


def _marker(method: str, results: Results) -> dict[str, str]:
    """The marker of the family, hollow for a variant."""
    style = look(method, results.facts)
    face = "white" if "." in method else style.colour
    return {"color": style.colour, "marker": style.marker, "ls": "", "markerfacecolor": face}
