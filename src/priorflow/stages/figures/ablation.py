"""Metrics and cost against one swept hyper-parameter."""

__all__ = ["draw"]

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    DASHES,
    axis_label,
    house_style,
    legend_below,
    look,
    panels,
    spaced,
)
from priorflow.stages.figures.sweeps import curves, interval_bars, per_case, variants
from priorflow.stages.vocabulary import COSTS, measure


@house_style
def draw(
    results: Results,
    field: str,
    label: str = "",
    metrics: Sequence[str] = ("crps", "rmse_mean", "seconds"),
) -> Figure:
    """One panel for every metric, one line for every method, model and further setting.

    Args:
        results: Needs metrics of an ablation; of the tasks the first is shown.
        field: The hyper-parameter that is swept.
        label: What it is called on the axis; default its name.
        metrics: Metrics and costs, `seconds` among them.
    """
    task = results.tasks[0]
    table = results.metrics()
    table = table[table.task == task]
    groups = curves(variants(results, field))
    figure, axes = panels(1, len(metrics), height=6.6)
    handles, labels, cases = [], [], 0
    for k, ((base, model, others), group) in enumerate(groups.items()):
        style = look(base, results.facts)
        # colour and marker tell the base, the dash what else differs
        same = [key for key in list(groups)[:k] if key[0] == base]
        settings = {
            "color": style.colour,
            "marker": style.marker,
            "linestyle": DASHES[len(same) % len(DASHES)],
        }
        values = [v.value for v in group]
        for axis, metric in zip(axes[0], metrics, strict=True):
            series = [per_case(table, v.method, metric) for v in group]
            mean, lengths = interval_bars(series)
            axis.errorbar(values, mean, lengths, elinewidth=0.9, capsize=1.8, **settings)
            cases = max(cases, *map(len, series))
        handles.append(Line2D([], [], **settings))
        labels.append(", ".join(filter(None, (results.label(base), model, others))))
    swept = [v.value for group in groups.values() for v in group]
    for axis, metric in zip(axes[0], metrics, strict=True):
        axis.set_xlabel(label or field.replace("_", " "))
        what = measure(metric)
        per = "\nper case and member" if metric in COSTS else ""
        axis.set_ylabel(axis_label(what.label, what.unit) + per)
        if all(isinstance(value, int | float) for value in swept):
            spaced(axis, swept)
    figure.suptitle(f"{results.label(task)}; {cases} cases", fontsize=8)
    legend_below(figure, handles, labels)
    return figure
