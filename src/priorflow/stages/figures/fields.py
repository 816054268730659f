"""One case as pictures: the truth, what is observed of it, and what every method makes of it."""

__all__ = ["Row", "draw", "lay_out", "picked"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cmocean
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results, units
from priorflow.stages.figures.style import (
    SMALLEST,
    WIDE,
    axis_label,
    house_style,
    panels,
    wrapped,
)
from priorflow.stages.figures.trajectories import median_case

COLOURS = cmocean.cm.balance
GROUND = "#efefef"  # where nothing is observed
FIRST = 2  # columns before those of the methods
STATE_SHARE, ERROR_SHARE = 0.998, 0.99  # of the pixels whose values the colours tell apart
POINT = 72 / 2.54  # per centimetre


@dataclass(frozen=True)
class Row:
    """A case of one task.

    Attributes:
        truth: Shape (time, size, size).
        y: Its observations, shape (time, \\*obs): an image, or values at points.
        pixels: Where they are, (y, x) in pixels, shape (m, 2).
        states: What is shown of every method, shape (time, size, size).
    """

    truth: np.ndarray
    y: np.ndarray
    pixels: np.ndarray
    states: Mapping[str, np.ndarray]

    @property
    def errors(self) -> dict[str, np.ndarray]:
        """State minus truth of every method, shape (time, size, size)."""
        return {method: state - self.truth for method, state in self.states.items()}


@house_style
def draw(
    results: Results,
    case: int | None = None,
    member: int | None = 0,
    time: int = -1,
    name: str = "vorticity",
) -> Figure:
    """Two rows for every task, states and errors; columns are truth, observation and methods.

    Args:
        results: Needs posteriors and observations of states (size, size) on the torus [0, 2π)².
        case: Its index; the last if there are fewer. None for the one on which the limit (or, where
            it is not shown, the first method) has the median error in the first task.
        member: The member that is shown; None for the mean of all.
        time: Which of the observed states, from 0; negative from the end.
        name: What the states are.
    """
    rows, observations = picked(results, case, member)
    figure, show = lay_out(results, rows, observations, name)
    show(time)
    return figure


def picked(
    results: Results, case: int | None, member: int | None
) -> tuple[dict[str, Row], xr.Dataset]:
    """A row for every task, and the observations of the last; arguments as in `draw`."""
    rows: dict[str, Row] = {}
    for task in results.tasks:
        states = {}
        for method in results.shown(task):
            state = results.posterior(method, task).state
            state = state.isel(member=[member]) if member is not None else state.mean("member")
            states[method] = state if "member" in state.dims else state.expand_dims("member", 1)
        whole = results.observations(task)
        count = min(state.sizes["case"] for state in states.values())
        observations = whole.isel(case=slice(count))
        if case is None:
            limit = results.facts["limit"]
            reference = states[limit if limit in states else next(iter(states))]
            case = median_case(
                xr.Dataset({"state": reference.isel(case=slice(count))}), observations
            )
        index = min(case, count - 1)
        size = observations.truth.shape[-1]
        rows[task] = Row(
            observations.truth.values[index],
            observations.y.values[index],
            np.asarray(results.operator(task).positions) * size / math.tau,
            {method: state.values[index, 0] for method, state in states.items()},
        )
    return rows, observations


def lay_out(
    results: Results, rows: Mapping[str, Row], observations: xr.Dataset, name: str
) -> tuple[Figure, Callable[[int], None]]:
    """A figure that waits for its data, and what makes it show the states of an index in time.

    All states share one scale of colours, all errors another. Both are symmetric, and the few
    values beyond their ends have the colour of the end.

    Args:
        results: Labels.
        rows: By task.
        observations: Units.
        name: What the states are.
    """
    methods = [m for m in results.methods if any(m in row.states for row in rows.values())]
    columns = FIRST + len(methods)
    side = (WIDE - 0.6) / columns  # of a picture, in centimetres
    height = 2 * len(rows) * (side + 0.05) + 2.6
    figure, axes = panels(2 * len(rows), columns, height=height, subplot_kw={"box_aspect": 1})
    figure.set_layout_engine("compressed", w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    state = _scale([row.truth for row in rows.values()], STATE_SHARE)
    error = _scale([e for row in rows.values() for e in row.errors.values()], ERROR_SHARE)
    updates: list[Callable[[int], None]] = []
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for i, (task, row) in enumerate(rows.items()):
        above, below = axes[2 * i], axes[2 * i + 1]
        updates += [_image(above[0], row.truth, state), _observed(above[1], row, state, side)]
        above[0].set_ylabel(wrapped(results.label(task), 30), loc="top")
        updates.append(_time(below[0], row, float(observations.attrs["dt"])))
        below[1].text(
            0.95, 0.5, "error\n(RMSE)", transform=below[1].transAxes, ha="right", va="center"
        )
        for method, upper, lower in zip(methods, above[FIRST:], below[FIRST:], strict=True):
            if method in row.states:
                updates.append(_image(upper, row.states[method], state))
                updates.append(_image(lower, row.errors[method], error))
                updates.append(_rmse(lower, row.errors[method]))
            else:
                lower.set_axis_off()
                upper.text(0.5, 0.5, "not run", transform=upper.transAxes, ha="center", va="center")
    titles = ["truth", "observation", *map(results.label, methods)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(wrapped(title, int(6.5 * side)))
    half = columns // 2
    for part, scale, what in (
        (axes[:, :half], state, name),
        (axes[:, half:], error, f"error of {name}"),
    ):
        bar = figure.colorbar(
            ScalarMappable(scale, COLOURS),
            ax=part,
            location="bottom",
            aspect=28,
            shrink=0.8,
            extend="both",
            pad=0.02,
        )
        bar.set_label(axis_label(what, units(observations)))
        bar.outline.set_visible(False)

    def show(time: int) -> None:
        for update in updates:
            update(time)

    show(0)
    return figure, show


def _scale(fields: Sequence[np.ndarray], share: float) -> Normalize:
    """A symmetric scale for all but the largest values."""
    limit = np.quantile(np.abs(np.concatenate([field.ravel() for field in fields])), share)
    return Normalize(-limit, limit)


def _image(axis: Axes, fields: np.ndarray, scale: Normalize) -> Callable[[int], None]:
    image = axis.imshow(
        fields[0], norm=scale, cmap=COLOURS, origin="lower", interpolation="nearest"
    )
    return lambda time: image.set_data(fields[time])


def _observed(axis: Axes, row: Row, scale: Normalize, side: float) -> Callable[[int], None]:
    """A small image, or a dot for every observed point."""
    if row.y.ndim == 3:
        return _image(axis, row.y, scale)
    size = row.truth.shape[-1]
    # dots of neighbours touch where points are evenly spread
    area = (side * POINT) ** 2 / len(row.pixels)
    dots = axis.scatter(
        *row.pixels.T[::-1], c=row.y[0], s=0.5 * area, norm=scale, cmap=COLOURS, linewidths=0
    )
    axis.set(xlim=(-0.5, size - 0.5), ylim=(-0.5, size - 0.5), facecolor=GROUND)
    return lambda time: dots.set_array(row.y[time])


def _time(axis: Axes, row: Row, dt: float) -> Callable[[int], None]:
    """Which of the observed states it is, where there are several."""
    text = axis.text(0, 0.5, "", transform=axis.transAxes, va="center")
    count = len(row.truth)

    def update(time: int) -> None:
        k = time % count + 1
        text.set_text(f"state {k} of {count}\ntime {dt * k:g}" if count > 1 else "")

    return update


def _rmse(axis: Axes, errors: np.ndarray) -> Callable[[int], None]:
    """The root-mean-square error in a corner."""
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    text = axis.text(
        0.04, 0.04, "", transform=axis.transAxes, fontsize=SMALLEST, va="bottom", bbox=paper
    )
    return lambda time: text.set_text(f"{np.sqrt((errors[time] ** 2).mean()):.3f}")
