"""How well the pictures of a method explain the observations after each of its iterations."""

__all__ = ["draw", "quartiles"]

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    case_title,
    house_style,
    legend_below,
    lines_of,
    look,
    mark_noise,
    panels,
    plain_log,
)

COLUMNS = 2
DECADE = 10  # more iterations have a logarithmic axis


def quartiles(posterior: xr.Dataset) -> np.ndarray:
    """Quartiles over cases of |y - A(x_k)| / √M, the mean over members, shape (3, K).

    Args:
        posterior: With `misfit` (case, misfit_0, misfit_1) of iterations and members.
    """
    of_cases = posterior.misfit.mean("misfit_1").transpose("case", "misfit_0").values
    return np.quantile(of_cases, (0.25, 0.5, 0.75), axis=0)


@house_style
def draw(results: Results) -> Figure:
    """A panel for every task: the median over cases, in a band from first to third quartile.

    The band is the spread of the cases, not an interval of the median. A dotted line marks the
    noise γ of the task. Methods that do not store their misfit, or that of a single iteration only,
    are left out.

    Args:
        results: Needs posteriors and observations.
    """
    columns = min(COLUMNS, len(results.tasks))
    rows = -(-len(results.tasks) // columns)
    figure, axes = panels(rows, columns, height=1.6 + 5.6 * rows)
    for axis in axes.flat[len(results.tasks) :]:
        axis.set_axis_off()
    methods = []
    for axis, task in zip(axes.flat, results.tasks, strict=False):
        counts, last = set(), 1
        for method in results.shown(task):
            posterior = results.posterior(method, task)
            if posterior.sizes.get("misfit_0", 1) == 1:
                continue
            low, median, high = quartiles(posterior)
            k = np.arange(1, len(median) + 1)
            style = look(method, results.facts)
            axis.plot(k, median, **style.line())
            axis.fill_between(k, low, high, color=style.colour, alpha=0.15, lw=0)
            counts.add(posterior.sizes["case"])
            last = max(last, len(median))
            methods.append(method)
        if not counts:
            axis.text(0.5, 0.5, "no values", ha="center", transform=axis.transAxes)
        axis.set_title(case_title(results.label(task), counts or {0}, 92 // columns))
        axis.set(xlabel="iteration k", ylabel="|y − A(xₖ)| / √M (units of y)")
        mark_noise(axis, float(results.observations(task).attrs["noise_std"]))
        if last > DECADE:
            plain_log(axis, "x")
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        plain_log(axis)
    methods = list(dict.fromkeys(methods))
    handles = lines_of(methods, results.facts)
    legend_below(figure, handles, [results.label(m) for m in methods])
    return figure
