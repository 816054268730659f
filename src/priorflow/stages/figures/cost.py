"""What accuracy costs: the error, and how likely the trajectories are, against network calls."""

__all__ = ["calls_per_state", "draw"]

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    LIMIT,
    TRUTH,
    axis_label,
    house_style,
    legend_below,
    look,
    panels,
    spaced,
    span,
)
from priorflow.stages.figures.sweeps import curves, interval_bars, per_case, variants
from priorflow.stages.vocabulary import measure

WIDE_RANGE = 200.0  # what spans more, but has both signs, is linear around 0 and logarithmic beyond
LINEAR = 20.0
SIGNED_DECADES = [*(-(10**i) for i in range(9, 0, -1)), 0, *(10**i for i in range(1, 10))]


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

    Cases differ far more than methods do. With the limit in the figure, bars are intervals of the
    paired difference to it.

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
    limit = facts["limit"] if facts["limit"] in results.methods else None
    across = {name: per_case(table, limit, name) for name in (metric, second) if limit}
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
            value, lengths = interval_bars(series, across.get(name))
            axis.errorbar(calls, value, lengths, elinewidth=0.9, capsize=1.8, **settings)
            cases |= {len(s) for s in series}
        named = f", {'exact law' if model == exact else model}" if len(models[base]) > 1 else ""
        handles.append(Line2D([], [], **settings))
        labels.append(f"{results.label(base)}{named}{f', {others}' if others else ''}")
    first = table[table.method == found[0].method].case.unique()
    if limit:
        for axis, name in zip(axes[0], (metric, second), strict=True):
            values = across[name]
            axis.axhline(values[values.index.isin(first)].mean(), color=LIMIT, lw=1)
        handles.append(Line2D([], [], color=LIMIT, lw=1))
        labels.append(f"{results.label(limit)} (limit)")
    if truth is not None:
        axes[0, 1].axhline(truth, color=TRUTH, lw=1, ls=":")
        handles.append(Line2D([], [], color=TRUTH, lw=1, ls=":"))
        labels.append(f"truth ({truth:g})")
    for axis, name in zip(axes[0], (metric, second), strict=True):
        _finish(axis, name)
    figure.suptitle(f"{results.label(task)}; {span(cases)} cases", fontsize=8)
    legend_below(figure, handles, labels)
    return figure


def _finish(axis: Axes, metric: str) -> None:
    axis.set(xscale="log", xlabel="network evaluations per observed state")
    axis.set_ylabel(axis_label(measure(metric).label, measure(metric).unit))
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines])
    low, high = np.nanmin(values), np.nanmax(values)
    if measure(metric).direction == "lower":
        spaced(axis, values, "y")
    elif high - low > WIDE_RANGE:
        axis.set_yscale("asinh", linear_width=LINEAR)
        ends = np.arcsinh(np.array([low, high]) / LINEAR)
        low, high = LINEAR * np.sinh(ends + np.array([-0.5, 0.5]))
        ticks = [t for t in SIGNED_DECADES if low <= t <= high]
        axis.set_yticks(ticks, [f"{t:,d}".replace("-", "−") for t in ticks])
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_ylim(low, high)
