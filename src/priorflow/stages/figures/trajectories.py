"""One case over time: the truth, its observations, and the members of every method."""

__all__ = ["broken", "draw", "median_case", "observed_states", "transitions"]

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from priorflow.stages.figures.base import Results, natural, time_label, units
from priorflow.stages.figures.style import (
    TRUTH,
    Look,
    axis_label,
    house_style,
    legend_below,
    look,
    panels,
    wrapped,
)

INVERSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda y: y,
    "cbrt": np.cbrt,
    # beyond ± π/2 noise has left what arctan can give: no state belongs to it
    "tan": lambda y: np.where(np.abs(y) < np.pi / 2, np.tan(y), np.nan),
}
WRAP = 3  # columns of a system with a single component
MOST = 4  # components of a system that has many


@house_style
def draw(
    results: Results,
    case: int | None = None,
    names: Sequence[str] = (),
    observed: Sequence[int] = (),
    inverse: str = "identity",
    members: int = 4,
) -> Figure:
    """Rows are components and columns methods; of a single component, methods fill a grid.

    Args:
        results: Needs posteriors and observations; of the tasks the first is shown.
        case: Its index; the last if there are fewer. None for the one on which the limit (or, where
            it is not shown, the first method) has the median error, which nobody has picked.
        names: Names of the first components, which are then shown; default the first four.
        observed: The components that the observations see, in their order.
        inverse: What makes the state of an observation: `identity`, `cbrt` or `tan`.
        members: Members that are drawn, beside the band of all.
    """
    task = results.tasks[0]
    methods = results.shown(task)
    drawn = {method: results.matched(method, task) for method in methods}
    if case is None:
        reference = results.facts["limit"]
        case = median_case(*drawn[reference if reference in drawn else methods[0]])
    case = min(case, *(posterior.sizes["case"] - 1 for posterior, _ in drawn.values()))
    whole = results.observations(task)
    size = whole.truth.sizes[whole.truth.dims[-1]]
    count = min(size, len(names) or MOST)
    names = [*names, *(f"component {i + 1}" for i in range(len(names), count))]
    columns = min(len(methods), WRAP) if count == 1 else len(methods)
    rows = -(-len(methods) // columns) if count == 1 else count
    figure, axes = panels(
        rows, columns, height=1.6 + 3.6 * rows, sharex=True, sharey="all" if count == 1 else "row"
    )
    for axis in axes.flat[rows * columns if count > 1 else len(methods) :]:
        axis.set_axis_off()
    ranges = np.empty((len(methods), count, 2))
    for j, method in enumerate(methods):
        posterior, observations = drawn[method]
        column = [axes.flat[j]] if count == 1 else axes[:, j]
        seen = observed_states(observations, case, observed, INVERSES[inverse])
        for i, axis in enumerate(column):
            style = look(method, results.facts)
            ranges[j, i] = _panel(axis, posterior, observations, case, i, members, style)
            if i in seen:
                axis.plot(whole.time, seen[i], "x", color="#555555", ms=2.8, mew=0.7, zorder=1)
        column[0].set_title(wrapped(results.label(method), 46 // columns + 6))
        if count > 1 or j + columns >= len(methods):
            column[-1].set_xlabel(wrapped(time_label(whole), 80 // columns))
            column[-1].tick_params(labelbottom=True)  # also with an empty place below
    # inverted observations may lie far off: the states decide what is shown
    bottom, top = ranges[..., 0].min(0), ranges[..., 1].max(0)
    margin = 0.06 * (top - bottom)
    for i in range(rows):
        k = min(i, count - 1)
        axes[i, 0].set_ylim(bottom[k] - margin[k], top[k] + margin[k])
        axes[i, 0].set_ylabel(axis_label(names[0 if count == 1 else i], units(whole, False)))
    handles = [Line2D([], [], color=TRUTH, lw=1.4)]
    labels = [f"truth (case {case})"]
    if len(observed):
        handles.append(Line2D([], [], color="#555555", marker="x", ms=3.5, mew=0.8, ls=""))
        labels.append("observation" if inverse == "identity" else "observation, inverted")
    handles += [Patch(color="#777777", alpha=0.3), Line2D([], [], color="#777777", lw=0.7)]
    labels += ["5–95 % of the members", "single members, from their past state"]
    legend_below(figure, handles, labels)
    return figure


def median_case(posterior: xr.Dataset, observations: xr.Dataset) -> int:
    """The case whose error of the ensemble mean is the median (of an even number, the upper)."""
    error = (posterior.state.mean("member") - observations.truth) ** 2
    order = np.argsort(error.mean(error.dims[1:]).values, kind="stable")
    return int(order[len(order) // 2])


def observed_states(
    observations: xr.Dataset,
    case: int,
    observed: Sequence[int],
    inverse: Callable[[np.ndarray], np.ndarray],
) -> dict[int, np.ndarray]:
    """What the observations of a case say of the states, in natural units: component to (time,)."""
    y = inverse(observations.y.values[case].reshape(observations.sizes["time"], -1))
    size = observations.truth.shape[-1]
    states = np.full((len(y), size), np.nan)
    for i, component in enumerate(observed):
        states[:, component] = y[:, i]
    states = natural(states, observations)
    return {component: states[:, component] for component in observed}


def transitions(posterior: xr.Dataset, observations: xr.Dataset, case: int) -> np.ndarray:
    """(members, time, 2, d): every state and the one before it, in natural units.

    A filter resamples, so that member i at time k does not go on from member i at time k - 1: then
    the posterior says where each came from. The first state has no past in the window, unless the
    posterior has it: it is NaN.
    """
    state = posterior.state.values[case]
    before = np.full_like(state, np.nan)
    before[:, 1:] = state[:, :-1]
    if "previous" in posterior:
        before = posterior.previous.transpose(*posterior.state.dims).values[case]
    return natural(np.stack((before, state), axis=2), observations)


def broken(pairs: np.ndarray) -> np.ndarray:
    """Pairs (n, 2) as one line (3 n,) that breaks after each: one artist, and a small file."""
    return np.append(pairs, np.full((len(pairs), 1), np.nan), axis=1).ravel()


def _panel(
    axis: Axes,
    posterior: xr.Dataset,
    observations: xr.Dataset,
    case: int,
    component: int,
    members: int,
    style: Look,
) -> tuple[float, float]:
    """Draw one component of one method; returns the least and the greatest value."""
    pairs = transitions(posterior, observations, case)[..., component]
    truth = natural(observations.truth.values[case], observations)[:, component]
    time = observations.time.values
    low, high = np.quantile(pairs[:, :, 1], [0.05, 0.95], axis=0)
    axis.fill_between(time, low, high, color=style.colour, alpha=0.25, lw=0)
    times = np.broadcast_to(np.stack((time - 1, time), axis=-1), pairs.shape)
    for x, y in zip(times[:members], pairs[:members], strict=True):
        axis.plot(broken(x), broken(y), color=style.colour, lw=0.6, alpha=0.55)
    axis.plot(time, truth, color=TRUTH, lw=1.2)
    return min(low.min(), truth.min()), max(high.max(), truth.max())
