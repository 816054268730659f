"""What accuracy costs: the error, and how likely the trajectories are, against network calls."""

__all__ = ["calls_per_state", "draw"]

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    TRUTH,
    axis_label,
    house_style,
    legend_below,
    look,
    panels,
    spaced,
)
from priorflow.stages.figures.sweeps import curves, interval_bars, per_case, variants
from priorflow.stages.statistics import bootstrap_interval
from priorflow.stages.vocabulary import measure

WIDE_RANGE = 500.0  # a log-density that spans more than so many nats gets a symmetric log axis


def calls_per_state(table: pd.DataFrame, method: str, states: int) -> float:
    """Forward network evaluations of a member for each observed state.

    A method with the exact law of the next state calls the simulator in the place of a network.
    """
    calls = per_case(table, method, "nfe").mean()
    calls = calls if calls > 0 else per_case(table, method, "simulator_evals").mean()
    return float(calls) / states


@house_style
def draw(
    results: Results,
    field: str = "steps",
    metric: str = "crps",
    second: str = "log_prior",
    truth: float | None = None,
    exact: str = "exact",
) -> Figure:
    """Two panels, one line for every method and model; the limit, if it is shown, is a line across.

    Args:
        results: Needs metrics and observations of an ablation; of the tasks the first is shown.
        field: The hyper-parameter that is swept.
        metric: The error in the first panel.
        second: The metric in the second panel.
        truth: What the truth itself has of the second.
        exact: The model that is no network; it is drawn dashed and hollow.
    """
    task, facts = results.tasks[0], results.facts
    states = results.observations(task).sizes["time"]
    table = results.metrics()
    table = table[table.task == task]
    found = variants(results, field)
    models = {v.base: {w.model for w in found if w.base == v.base} for v in found}
    figure, axes = panels(1, 2, height=8.2)
    handles, labels, cases = [], [], set()
    for (base, model, others), group in curves(found).items():
        style = look(base, facts)
        settings = {
            "color": style.colour,
            "marker": style.marker,
            "linestyle": "--" if model == exact else "-",
            "markerfacecolor": "white" if model == exact else style.colour,
        }
        calls = [calls_per_state(table, v.method, states) for v in group]
        for axis, name in zip(axes[0], (metric, second), strict=True):
            series = [per_case(table, v.method, name) for v in group]
            value, lengths = interval_bars(series)
            axis.errorbar(calls, value, lengths, elinewidth=0.9, capsize=1.8, **settings)
            cases |= {len(s) for s in series}
        named = f", {'exact law' if model == exact else model}" if len(models[base]) > 1 else ""
        handles.append(Line2D([], [], **settings))
        labels.append(f"{results.label(base)}{named}{f', {others}' if others else ''}")
    first = table[table.method == found[0].method].case.unique()
    if facts["limit"] in results.methods:
        for axis, name in zip(axes[0], (metric, second), strict=True):
            values = per_case(table[table.case.isin(first)], facts["limit"], name)
            axis.axhline(bootstrap_interval(values).value, color="black", lw=1)
        handles.append(Line2D([], [], color="black", lw=1))
        labels.append(f"{results.label(facts['limit'])} (limit)")
    if truth is not None:
        axes[0, 1].axhline(truth, color=TRUTH, lw=1, ls=":")
        handles.append(Line2D([], [], color=TRUTH, lw=1, ls=":"))
        labels.append(f"truth ({truth:g})")
    for axis, name in zip(axes[0], (metric, second), strict=True):
        _finish(axis, name)
    size = "–".join(map(str, sorted({min(cases), max(cases)})))
    figure.suptitle(f"{results.label(task)}; {size} cases", fontsize=8)
    legend_below(figure, handles, labels)
    return figure


def _finish(axis: Axes, metric: str) -> None:
    axis.set(xscale="log", xlabel="network evaluations per observed state (each member)")
    axis.set_ylabel(axis_label(measure(metric).label, measure(metric).unit))
    low, high = axis.get_ylim()
    if measure(metric).direction == "lower":
        lines = [line.get_ydata() for line in axis.lines]
        spaced(axis, [value for line in lines for value in line], "y")
    elif high - low > WIDE_RANGE:
        axis.set_yscale("symlog", linthresh=50)
