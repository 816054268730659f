"""Metrics and cost against one swept hyper-parameter."""

__all__ = ["draw"]

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    axis_label,
    house_style,
    legend_below,
    mark_noise,
    panels,
    spaced,
    wrapped,
)
from priorflow.stages.figures.sweeps import (
    curve_styles,
    curves,
    interval_bars,
    per_case,
    shared_cases,
    variants,
)
from priorflow.stages.vocabulary import COSTS, measure


@house_style
def draw(
    results: Results,
    field: str | Sequence[str],
    label: str = "",
    metrics: Sequence[str] = ("crps", "rmse_mean", "seconds"),
    against: str = "",
) -> Figure:
    """One panel for every metric, one line for every method, model and further setting.

    The points of a line are means over the cases that all its runs have, bars 95 % intervals. In a
    panel of `consistency` a dotted line marks the noise γ of the task.

    Args:
        results: Needs metrics of an ablation, and observations for `against` and for `consistency`;
            of the tasks the first is shown.
        field: The hyper-parameter that is swept, or several of which every method sweeps one.
        label: What it is called on the axis; default its name.
        metrics: Metrics and costs, `seconds` among them.
        against: The cost that stands on the x axis in the place of the hyper-parameter, per member
            and observed state, or image: its mean over the cases.
    """
    fields = [field] if isinstance(field, str) else list(field)
    task = results.tasks[0]
    table = results.metrics()
    table = table[table.task == task]
    label = label or " or ".join(fields).replace("_", " ")
    if against or "consistency" in metrics:
        observations = results.observations(task)
    if against:
        times = {"time", "lead"} & observations.sizes.keys()  # pictures have none
        states = math.prod(observations.sizes[name] for name in times)
        what = measure(against)
        label = wrapped(axis_label(what.description or against, what.unit), 84 // len(metrics))
        label += "\nper member and state" if times else "\nper image"
    groups = curves([v for name in fields for v in variants(results, name)])
    figure, axes = panels(1, len(metrics), height=6.6)
    handles, labels, swept, cases = [], [], [], 0
    styles = curve_styles(groups, results.facts)
    for ((base, model, others), group), style in zip(groups.items(), styles, strict=True):
        found = shared_cases(table, [variant.method for variant in group])
        values = [v.value for v in group]
        if against:
            values = [per_case(found, v.method, against).mean() / states for v in group]
        swept += values
        for axis, metric in zip(axes[0], metrics, strict=True):
            series = [per_case(found, v.method, metric) for v in group]
            mean, lengths = interval_bars(series)
            axis.errorbar(values, mean, lengths, elinewidth=0.9, capsize=1.8, **style)
            cases = max(cases, *map(len, series))
        handles.append(Line2D([], [], **style))
        labels.append(", ".join(filter(None, (results.label(base), model, others))))
    for axis, metric in zip(axes[0], metrics, strict=True):
        axis.set_xlabel(label)
        what = measure(metric)
        per = "\nper case and member" if metric in COSTS else ""
        axis.set_ylabel(axis_label(what.label, what.unit) + per)
        if all(isinstance(value, int | float) for value in swept):
            spaced(axis, swept)
        if metric == "consistency":
            mark_noise(axis, float(observations.attrs["noise_std"]))
    figure.suptitle(f"{results.label(task)}; {cases} cases", fontsize=8)
    legend_below(figure, handles, labels)
    return figure
