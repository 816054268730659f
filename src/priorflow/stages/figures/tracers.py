"""From pictures of particles to sparse velocities to a dense field, for one case."""

__all__ = ["draw", "overlay"]

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from priorflow.components import BadInput
from priorflow.rng import Streams
from priorflow.stages.figures.base import Results, units
from priorflow.stages.figures.fields import COLOURS, STATE_SHARE, arrows, picked
from priorflow.stages.figures.style import (
    SMALLEST,
    TRUTH,
    WIDE,
    axis_label,
    house_style,
    panels,
    wrapped,
)

BRIGHTEST = 255
PART = 3  # the enlarged part is this fraction of a side


@house_style
def draw(results: Results, case: int | None = None, name: str = "vorticity") -> Figure:
    """Above what is measured and the truth, below two estimates and their errors.

    The pictures are taken again, of the same particles and with other noise of the pixels.

    Args:
        results: Needs posteriors and observations of a task whose operator has a camera. First
            members of two methods are shown, of those that were run on it.
        case: Its index; None for the one on which the limit, or else the first method, has the
            median error.
        name: What the states are.

    Raises:
        BadInput: The operator has no camera.
    """
    task = results.tasks[0]
    operator = results.operator(task)
    if not hasattr(operator, "camera"):
        raise BadInput(f"figures: tracers needs a task that a camera sees, {task} is not")
    rows, observations = picked(results, case, 0)
    row = rows[task]
    seen = operator.at([int(observations.trajectory[row.case])])
    _, (shots,), _ = seen.measure(torch.from_numpy(row.truth[-1:]), Streams(0))
    moved = row.y[-1] * operator.camera.scale * operator.camera.interval

    figure, axes = panels(2, 4, height=WIDE / 2 + 2, subplot_kw={"box_aspect": 1})
    figure.set_layout_engine("compressed", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    _picture(axes[0, 0], shots[0].numpy())
    scale = operator.camera.pixels / row.truth.shape[-1]
    _enlarged(axes[0, 1], shots.numpy(), row.pixels * scale, moved)
    arrows(axes[0, 2], row.pixels, row.y[-1:], row.truth.shape[-1])
    axes[0, 2].set_title(f"{len(row.pixels)} velocities")

    widest = float(np.quantile(np.abs(row.truth), STATE_SHARE))
    norm = Normalize(-widest, widest)
    image = {"norm": norm, "cmap": COLOURS, "origin": "lower", "interpolation": "nearest"}
    axes[0, 3].imshow(row.truth[-1], **image)
    axes[0, 3].set_title(f"true {name}")
    for (method, errors), pair in zip(row.errors.items(), axes[1].reshape(2, 2), strict=False):
        for axis, field in zip(pair, (row.states[method], errors), strict=True):
            axis.imshow(field[-1], **image)
        pair[0].set_title(wrapped(results.label(method), 24))
        pair[1].set_title(f"its error (RMSE {np.sqrt((errors[-1] ** 2).mean()):.3f})")
    bar = figure.colorbar(
        ScalarMappable(norm, COLOURS), ax=axes, location="bottom", aspect=40, shrink=0.5, pad=0.02
    )
    bar.set_label(axis_label(f"{name} and its error", units(observations)))
    bar.outline.set_visible(False)
    return figure


def overlay(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two exposures in one picture: red and blue ink on white, dark where both are.

    Args:
        first, second: Grey levels up to 255, shape (rows, columns).

    Returns:
        Red, green and blue between 0 and 1, shape (rows, columns, 3).
    """
    red, blue = (np.clip(shot / BRIGHTEST, 0, 1) for shot in (first, second))
    return np.stack((1 - blue, (1 - red) * (1 - blue), 1 - red), axis=-1)


def _picture(axis: Axes, shot: np.ndarray) -> None:
    """The first exposure, with the part that is enlarged."""
    pixels = len(shot)
    axis.imshow(shot, cmap="gray", vmin=0, vmax=BRIGHTEST, origin="lower")
    edge = pixels // PART
    axis.plot(
        np.array([0, edge, edge, 0, 0]) - 0.5,
        np.array([0, 0, edge, edge, 0]) - 0.5,
        color="#E69F00",
        lw=1,
        clip_on=False,
    )
    axis.set_title(f"first picture, {pixels}²")


def _enlarged(axis: Axes, shots: np.ndarray, places: np.ndarray, moved: np.ndarray) -> None:
    """A corner of both exposures, and the displacements (2, m) that were measured, in pixels."""
    edge = shots.shape[-1] // PART
    axis.imshow(overlay(*shots[:, :edge, :edge]), origin="lower", interpolation="nearest")
    near = (places < edge - 0.5).all(1)
    start = places[near].T[::-1] - moved[:, near] / 2
    settings = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008, "color": TRUTH}
    axis.quiver(*start, *moved[:, near], headwidth=3, headlength=3.5, headaxislength=3, **settings)
    axis.set(xlim=(-0.5, edge - 0.5), ylim=(-0.5, edge - 0.5))
    axis.set_title("a part of both, tracked")
    for x, text, colour in ((0.03, "first", "#c02020"), (0.97, "second", "#2020c0")):
        paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
        place = {"transform": axis.transAxes, "ha": "left" if x < 0.5 else "right", "va": "bottom"}
        axis.text(x, 0.03, text, color=colour, fontsize=SMALLEST, bbox=paper, **place)
