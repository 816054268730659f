"""The error of every method over the window, with bands over the cases."""

__all__ = ["draw", "error_by_lead", "error_by_time"]

from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results, time_label, units
from priorflow.stages.figures.style import (
    WIDE,
    axis_label,
    case_title,
    house_style,
    legend_below,
    lines_of,
    look,
    panels,
    plain_log,
)
from priorflow.stages.statistics import Estimate, bootstrap_interval
from priorflow.stages.vocabulary import UNITS, measure

ERRORS = ("crps", "rmse_mean")


def error_by_time(
    posterior: xr.Dataset, observations: xr.Dataset, metric: Literal["crps", "rmse_mean"] = "crps"
) -> list[Estimate]:
    """The error at every time with its interval over cases.

    `crps` is the fair one, averaged over the components; the square of `rmse_mean` is averaged over
    components and cases.
    """
    state, truth = xr.align(posterior.state, observations.truth, join="exact")
    if metric == "crps":
        from scores.probability import crps_for_ensemble

        method = "fair" if state.sizes["member"] > 1 else "ecdf"
        error = crps_for_ensemble(
            state, truth, "member", method=method, preserve_dims=["case", "time"]
        )
        return [bootstrap_interval(column) for column in error.transpose("time", "case").values]
    square = (state.mean("member") - truth) ** 2
    square = square.mean([d for d in square.dims if d not in ("case", "time")])
    return _roots(
        [bootstrap_interval(column) for column in square.transpose("time", "case").values]
    )


def error_by_lead(table: pd.DataFrame, metric: str = "crps") -> list[Estimate]:
    """As `error_by_time`, of a rollout, whose metrics have the states apart.

    Args:
        table: Tidy metrics of one method on one task.
        metric: Which of them. A case that has no value of a score at some lead, since there is no
            event, is left out at that lead.
    """
    rows = table[table.metric == metric].pivot(index="lead", columns="case", values="value")
    if metric == "rmse_mean":
        return _roots([bootstrap_interval(row) for row in rows.values**2])
    return [bootstrap_interval(row) for row in rows.values]


def _roots(squares: list[Estimate]) -> list[Estimate]:
    # of n < 2 cases there are no ends: the root of NaN is NaN
    return [
        Estimate(*(float(np.sqrt(max(x, 0))) for x in (e.value, e.low, e.high)), e.n)
        for e in squares
    ]


@house_style
def draw(
    results: Results,
    metric: str = "crps",
    width: float = WIDE,
    log: bool = False,
    time_unit: str = "",
) -> Figure:
    """One panel for every task, one line with its 95 % band for every method.

    Args:
        results: Needs observations, and posteriors; of rollouts metrics instead of these.
        metric: `crps` or `rmse_mean`; of rollouts any.
        width: Of the figure, in centimetres.
        log: Whether the error has a logarithmic axis.
        time_unit: In which the system has its time.

    Raises:
        ValueError: The metric is neither, and a task is no rollout.
    """
    what = measure(metric)
    columns = len(results.tasks)
    figure, axes = panels(1, columns, width=width, height=7.6, sharey=True)
    methods = []
    for axis, task in zip(axes[0], results.tasks, strict=True):
        sizes = set()
        observations = results.observations(task)
        time = observations[observations.truth.dims[1]]
        table = results.metrics() if time.name == "lead" else None
        if table is None and metric not in ERRORS:
            raise ValueError(f"metric: value {metric!r}, allowed: {list(ERRORS)}")
        for method in results.shown(task):
            if table is not None:
                rows = table[(table.task == task) & (table.method == method)]
                found = error_by_lead(rows, metric)
            else:
                found = error_by_time(*results.matched(method, task), metric)
            value, low, high = np.array([(e.value, e.low, e.high) for e in found]).T
            style = look(method, results.facts)
            axis.plot(time, value, **style.line())
            axis.fill_between(time, low, high, color=style.colour, alpha=0.15, lw=0)
            sizes |= {e.n for e in found}
            methods.append(method)
        axis.set_title(case_title(results.label(task), sizes, int(5 * width / columns)))
        axis.set_xlabel(time_label(observations, time_unit))
        axis.xaxis.get_major_locator().set_params(integer=True)
        if not log:
            axis.set_ylim(0, 1 if what.direction == "higher" and not what.unit else None)
    if log:
        plain_log(axes[0, 0])
    unit = units(observations) if what.unit == UNITS else what.unit
    axes[0, 0].set_ylabel(axis_label(what.label, unit))
    methods = list(dict.fromkeys(methods))
    handles = lines_of(methods, results.facts)
    legend_below(figure, handles, [results.label(m) for m in methods])
    return figure
