"""Errors against a number that distinguishes tasks, such as how much is observed."""

__all__ = ["draw"]

from collections.abc import Sequence

from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results, units
from priorflow.stages.figures.style import (
    axis_label,
    house_style,
    legend_below,
    lines_of,
    look,
    panels,
    plain_log,
    span,
)
from priorflow.stages.figures.sweeps import interval_bars, per_case
from priorflow.stages.vocabulary import UNITS, measure


@house_style
def draw(
    results: Results, field: str, label: str = "", metrics: Sequence[str] = ("crps", "rmse_mean")
) -> Figure:
    """A panel for every metric, a line with 95 % intervals over cases for every method.

    Args:
        results: Needs metrics and observations.
        field: The argument of the tasks' operators that is a number, the axis.
        label: What it is called there; default its name.
        metrics: The errors, on logarithmic axes, or scores that are higher for better methods.
    """
    table = results.metrics()
    tasks = sorted(results.tasks, key=lambda task: results.facts["operators"][task][field])
    unit = units(results.observations(tasks[0]))
    figure, axes = panels(1, len(metrics), height=7.4)
    counts: set[int] = set()
    for method in results.methods:
        mine = [task for task in tasks if results.ran(method, task)]
        values = [results.facts["operators"][task][field] for task in mine]
        style = look(method, results.facts)
        for axis, metric in zip(axes[0], metrics, strict=True):
            series = [per_case(table[table.task == task], method, metric) for task in mine]
            mean, lengths = interval_bars(series)
            counts |= {len(s) for s in series}
            bars = {"marker": style.marker, "elinewidth": 0.9, "capsize": 1.8}
            axis.errorbar(values, mean, lengths, **bars, **style.line())
    swept = [results.facts["operators"][task][field] for task in tasks]
    for axis, metric in zip(axes[0], metrics, strict=True):
        what = measure(metric)
        axis.set_ylabel(axis_label(what.label, unit if what.unit == UNITS else what.unit))
        axis.set_xlabel(label or field.replace("_", " "))
        axis.set_xscale("log")
        axis.set_xticks(swept, [f"{value:g}" for value in swept])
        axis.minorticks_off()
        if what.direction != "higher":  # scores may be zero, and decibels are logarithms
            plain_log(axis)
    figure.suptitle(f"{span(counts)} cases", fontsize=8)
    handles = lines_of(results.methods, results.facts, markers=True)
    legend_below(figure, handles, [results.label(m) for m in results.methods])
    return figure
