"""What a filter loses with every dimension, where the exact posterior is known.

    error = √ mean_{cases, k, i} (mean_m x_{m,k,i} - μ_{k,i})² / P_{k,ii}

with μ and P the mean and the covariance of the Kalman filter. The mean of M independent exact draws
has the error 1 / √M.
"""

__all__ = ["draw", "relative_error", "weight_share"]

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    FLOOR,
    house_style,
    legend_below,
    look,
    panels,
)
from priorflow.stages.figures.sweeps import bar_lengths
from priorflow.stages.statistics import Estimate, bootstrap_interval, pooled_ratio


def relative_error(posterior: xr.Dataset, exact: xr.Dataset) -> Estimate:
    """The error of the ensemble mean in units of the posterior standard deviation.

    Args:
        posterior: `state` (case, member, time, component).
        exact: Diagnostics of the Kalman filter on at least these cases: `mean` (case, time, d) and
            `covariance` (case, time, d, d).
    """
    exact = exact.sel(case=posterior.case)
    variance = np.diagonal(exact["covariance"].values, axis1=-2, axis2=-1)
    gap = posterior.state.values.mean(1) - exact["mean"].values
    square = pd.Series((gap**2 / variance).mean((1, 2)))
    return pooled_ratio(square, pd.Series(np.ones(len(square))))


def weight_share(posterior: xr.Dataset, particles: int) -> Estimate:
    """The effective sample size over the number of particles, averaged over time."""
    return bootstrap_interval(posterior.ess.values.mean(1) / particles)


@house_style
def draw(results: Results) -> Figure:
    """The error on the left, the effective sample size on the right, against the dimension d.

    Args:
        results: Needs posteriors of the limit, which is a Kalman filter, and of others, and
            observations. Tasks differ in d.
    """
    limit, facts = results.facts["limit"], results.facts
    exact = {task: results.posterior(limit, task) for task in results.tasks}
    sizes = {task: exact[task]["mean"].shape[-1] for task in results.tasks}
    members = exact[results.tasks[0]].sizes["member"]
    figure, axes = panels(1, 2, height=7.6)
    handles, labels = [], []
    for method in results.methods:
        tasks = [task for task in results.tasks if results.ran(method, task)]
        style = look(method, facts)
        line = {**style.line(), "marker": style.marker}
        drawn = {task: results.posterior(method, task) for task in tasks}
        d = [sizes[task] for task in tasks]
        _line(axes[0, 0], d, [relative_error(drawn[t], exact[t]) for t in tasks], line)
        if all("ess" in drawn[task] for task in tasks):
            counts = [
                facts["solvers"][method, t].get("particles") or drawn[t].sizes["member"]
                for t in tasks
            ]
            shares = [weight_share(drawn[t], n) for t, n in zip(tasks, counts, strict=True)]
            _line(axes[0, 1], d, shares, line)
        handles.append(Line2D([], [], **line))
        labels.append(results.label(method))
    floor = 1 / np.sqrt(members)
    axes[0, 0].axhline(floor, color=FLOOR, ls="--", lw=1)
    handles.append(Line2D([], [], color=FLOOR, ls="--", lw=1))
    labels.append(f"mean of {members} independent exact draws")
    ticks = sorted(set(sizes.values()))
    for axis in axes[0]:
        axis.set(yscale="log", xlabel="dimension d of the state")
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes[0, 0].set_ylabel("error of the ensemble mean\n(exact posterior standard deviations)")
    axes[0, 1].set_ylabel("effective sample size\n(share of the particles)")
    if axes[0, 1].has_data():
        axes[0, 1].set_ylim(top=1.3)
    else:
        axes[0, 1].text(
            0.5, 0.5, "no method has particles", transform=axes[0, 1].transAxes, ha="center"
        )
    legend_below(figure, handles, labels)
    return figure


def _line(axis: Axes, x: list[int], found: list[Estimate], settings: dict[str, Any]) -> None:
    values = [estimate.value for estimate in found]
    axis.errorbar(x, values, bar_lengths(found), elinewidth=0.9, capsize=1.8, **settings)
