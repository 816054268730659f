"""One case as pictures: the truth, what is observed of it, and what every method makes of it."""

__all__ = ["Row", "arrows", "draw", "lay_out", "picked"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cmocean
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from priorflow.stages.figures import vil
from priorflow.stages.figures.base import Results, natural, units
from priorflow.stages.figures.style import (
    SMALLEST,
    TRUTH,
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
        case: Its index.
        truth: Shape (time, size, size).
        y: Its observations, shape (time, rows, columns) of an image, (time, m) at points, or the
            velocities (time, 2, m) at places.
        pixels: Where points or places are, (y, x) in pixels, shape (m, 2); None for an image.
        states: What is shown of every method, shape (time, size, size).
    """

    case: int
    truth: np.ndarray
    y: np.ndarray
    pixels: np.ndarray | None
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
    name: str = "vorticity",
    colours: Literal["signed", "vil"] = "signed",
) -> Figure:
    """Two rows for every task, states and errors; columns are truth, observation and methods.

    Of several observed states the last is shown.

    Args:
        results: Needs posteriors and observations of states (size, size) on the torus [0, 2π)².
        case: Its index; the last if there are fewer. None for the one on which the limit (or, where
            it is not shown, the first method) has the median error in the first task.
        member: The member that is shown; None for the mean of all.
        name: What the states are.
        colours: `signed` about zero, in standardised units, or `vil` of radar images, in theirs.

    Raises:
        ValueError: The colours are neither.
    """
    rows, observations = picked(results, case, member)
    figure, show = lay_out(results, rows, observations, name, colours)
    show(-1)
    return figure


def picked(
    results: Results, case: int | None, member: int | None
) -> tuple[dict[str, Row], xr.Dataset]:
    """A row for every task, and the observations of the last; arguments as in `draw`."""
    rows: dict[str, Row] = {}
    for task in results.tasks:
        found = {}
        for method in results.shown(task):
            posterior = results.posterior(method, task)[["state"]]
            found[method] = (
                posterior.mean("member", keepdims=True)
                if member is None
                else posterior.isel(member=[member])
            )
        count = min(posterior.sizes["case"] for posterior in found.values())
        observations = results.observations(task).isel(case=slice(count))
        if case is None:
            limit = results.facts["limit"]
            reference = found[limit if limit in found else next(iter(found))]
            case = median_case(reference.isel(case=slice(count)), observations)
        index = min(case, count - 1)
        truth, y = (observations[name].values[index] for name in ("truth", "y"))
        operator = results.operator(task)
        if hasattr(operator, "at"):
            operator = operator.at([int(observations.trajectory[index])])
        pixels = _pixels(operator, y, truth.shape[-1])
        states = {m: posterior.state.values[index, 0] for m, posterior in found.items()}
        rows[task] = Row(index, truth, y, pixels, states)
    return rows, observations


def _pixels(operator: Any, y: np.ndarray, size: int) -> np.ndarray | None:
    """Where a case is observed, see `Row`, by its own operator."""
    if hasattr(operator, "places"):
        places = np.asarray(operator.places).reshape(-1, 2)  # perhaps with an axis of one case
    elif y.ndim == 2:
        places = np.asarray(operator.positions)
    else:
        return None
    return places * (size / math.tau)


def lay_out(
    results: Results,
    rows: Mapping[str, Row],
    observations: xr.Dataset,
    name: str,
    colours: Literal["signed", "vil"] = "signed",
    time_unit: str = "",
) -> tuple[Figure, Callable[[int], None]]:
    """A figure that waits for its data, and what makes it show the states of an index in time.

    All states share one scale of colours, all errors another. Both are symmetric but that of VIL,
    and the few values beyond their ends have the colour of the end. That of the errors is never
    wider than that of the states: a method that has failed leaves the others in sight.

    Args:
        results: Labels.
        rows: By task.
        observations: Units.
        name, colours: As in `draw`.
        time_unit: In which the system has its time.
    """
    if colours not in ("signed", "vil"):
        raise ValueError(f"colours: value {colours!r}, allowed: 'signed', 'vil'")
    if colours == "vil":
        rows = {task: _natural(row, observations) for task, row in rows.items()}
    unit = units(observations, standardised=colours != "vil")
    methods = [m for m in results.methods if any(m in row.states for row in rows.values())]
    columns = FIRST + len(methods)
    side = (WIDE - 0.6) / columns  # of a picture, in centimetres
    height = 2 * len(rows) * (side + 0.05) + 2.6
    figure, axes = panels(2 * len(rows), columns, height=height, subplot_kw={"box_aspect": 1})
    figure.set_layout_engine("compressed", w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    widest = _limit([row.truth for row in rows.values()], STATE_SHARE)
    errors = _limit([e for row in rows.values() for e in row.errors.values()], ERROR_SHARE)
    state = vil.scale() if colours == "vil" else _signed(widest)
    error = _signed(min(errors, widest))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for axis, title in zip(
        axes[0], ["truth", "observation", *map(results.label, methods)], strict=True
    ):
        axis.set_title(wrapped(title, int(6.5 * side)))
    updates: list[Callable[[int], None]] = []
    for (task, row), above, below in zip(rows.items(), axes[::2], axes[1::2], strict=True):
        above[0].set_ylabel(wrapped(results.label(task), 30), loc="top")
        updates += [_image(above[0], row.truth, state), _observed(above[1], row, state, side)]
        updates.append(_which(below[0], row, float(observations.attrs["dt"]), time_unit))
        settings = {"transform": below[1].transAxes, "ha": "right", "va": "center"}
        below[1].text(0.95, 0.5, "error\n(RMSE)", **settings)
        for method, upper, lower in zip(methods, above[FIRST:], below[FIRST:], strict=True):
            if method not in row.states:
                upper.text(0.5, 0.5, "not run", ha="center", va="center", color="#777777")
                continue
            updates.append(_image(upper, row.states[method], state))
            updates.append(_image(lower, row.errors[method], error))
            updates.append(_rmse(lower, row.errors[method]))
    half = columns // 2
    if colours == "vil":
        _bar(figure, axes[:, :half], state, f"{name} (0 to {vil.FULL})", **vil.bar())
    else:
        _bar(figure, axes[:, :half], state, axis_label(name, unit))
    _bar(figure, axes[:, half:], error, axis_label(f"error of {name}", unit))

    def show(time: int) -> None:
        for update in updates:
            update(time)

    show(0)
    return figure, show


def _natural(row: Row, observations: xr.Dataset) -> Row:
    """A row in natural units."""
    states = {method: natural(state, observations) for method, state in row.states.items()}
    truth, y = (natural(x, observations) for x in (row.truth, row.y))
    return replace(row, truth=truth, y=y, states=states)


def _signed(limit: float) -> ScalarMappable:
    return ScalarMappable(Normalize(-limit, limit), COLOURS.with_extremes(bad=GROUND))


def _limit(fields: Sequence[np.ndarray], share: float) -> float:
    """What all but the largest values lie below."""
    return float(np.quantile(np.abs(np.concatenate([f.ravel() for f in fields])), share))


def _image(axis: Axes, fields: np.ndarray, scale: ScalarMappable) -> Callable[[int], None]:
    image = axis.imshow(
        fields[0], norm=scale.norm, cmap=scale.cmap, origin="lower", interpolation="nearest"
    )
    return lambda time: image.set_data(fields[time])


def _observed(axis: Axes, row: Row, scale: ScalarMappable, side: float) -> Callable[[int], None]:
    """A small image, a dot for every observed point, or an arrow for every velocity."""
    if row.pixels is None:
        return _image(axis, row.y, scale)
    size = row.truth.shape[-1]
    if row.y.ndim == 3:
        return arrows(axis, row.pixels, row.y, size)
    # dots of neighbours touch where points are evenly spread
    area = (side * POINT) ** 2 / len(row.pixels)
    dots = axis.scatter(
        *row.pixels.T[::-1],
        c=row.y[0],
        s=0.5 * area,
        norm=scale.norm,
        cmap=scale.cmap,
        linewidths=0,
    )
    axis.set(xlim=(-0.5, size - 0.5), ylim=(-0.5, size - 0.5), facecolor=scale.cmap.get_bad())
    return lambda time: dots.set_array(row.y[time])


def arrows(axis: Axes, pixels: np.ndarray, flow: np.ndarray, size: int) -> Callable[[int], None]:
    """Velocities (time, 2, m) at pixels; one of the rms speed is as long as places are apart."""
    length = size / math.sqrt(len(pixels))
    rms = np.sqrt((flow**2).sum(1).mean())
    drawn = axis.quiver(
        *pixels.T[::-1],
        *flow[0],
        color=TRUTH,
        angles="xy",
        scale_units="xy",
        scale=rms / length,
        width=0.006,
        headwidth=3.5,
        headlength=4,
        headaxislength=3.5,
    )
    axis.set(xlim=(-0.5, size - 0.5), ylim=(-0.5, size - 0.5), facecolor=GROUND)
    return lambda time: drawn.set_UVC(*flow[time])


def _which(axis: Axes, row: Row, dt: float, unit: str) -> Callable[[int], None]:
    """Which case it is, and of several states which one."""
    text = axis.text(0, 0.5, f"case {row.case}", transform=axis.transAxes, va="center")
    count = len(row.truth)

    def update(time: int) -> None:
        k = time % count + 1
        text.set_text(f"case {row.case}\nstate {k} of {count}\ntime {dt * k:g} {unit}".strip())

    return update if count > 1 else lambda time: None


def _rmse(axis: Axes, errors: np.ndarray) -> Callable[[int], None]:
    """The root-mean-square error in a corner."""
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    text = axis.text(
        0.04, 0.04, "", transform=axis.transAxes, fontsize=SMALLEST, va="bottom", bbox=paper
    )

    def update(time: int) -> None:
        value = np.sqrt((errors[time] ** 2).mean())
        text.set_text(f"{value:{'.3f' if value < 1000 else '.0e'}}")

    return update


def _bar(
    figure: Figure, axes: np.ndarray, scale: ScalarMappable, label: str, **settings: Any
) -> None:
    """A bar of colours below some panels."""
    shape = {"location": "bottom", "aspect": 28, "shrink": 0.8, "pad": 0.02, "extend": "both"}
    bar = figure.colorbar(scale, ax=axes, **shape | settings)
    bar.set_label(label)
    bar.outline.set_visible(False)
