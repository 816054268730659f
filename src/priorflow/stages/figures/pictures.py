"""Restored pictures: the truth, what is observed of it, and what every method makes of it."""

__all__ = ["Row", "central", "draw", "picked"]

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from priorflow.components import build
from priorflow.metrics.base import Case
from priorflow.metrics.images import psnr
from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import SMALLEST, WIDE, house_style, panels, wrapped
from priorflow.stages.observe import at

LABELS = 2.6  # cm for the names of the rows
NARROWEST = 1.8  # cm of a picture above which its title fits if it lies


@dataclass(frozen=True)
class Row:
    """A case of one task; pictures have the shape (C, H, W) and values in [-1, 1].

    Attributes:
        task: Its task.
        case: Its index.
        truth: What was observed.
        observation: What is observed, as a picture of any size; None if there is none.
        states: The first member of every method.
        decibels: The peak signal-to-noise ratio of that member.
    """

    task: str
    case: int
    truth: np.ndarray
    observation: np.ndarray | None
    states: Mapping[str, np.ndarray]
    decibels: Mapping[str, float]


@house_style
def draw(results: Results, cases: int = 1) -> Figure:
    """A row for every task and case; columns are truth, observation and methods.

    Args:
        results: Needs posteriors and observations of pictures.
        cases: Their number, for each task; see `picked` for which.
    """
    rows = [row for task in results.tasks for row in picked(results, task, cases)]
    methods = [m for m in results.methods if any(m in row.states for row in rows)]
    names = ["truth", "observation", *map(results.label, methods)]
    side = (WIDE - LABELS) / len(names)  # of a picture, in centimetres
    lying = side > NARROWEST
    height = 3 + (side + 0.5) * len(rows)
    figure, axes = panels(len(rows), len(names), height=height, subplot_kw={"box_aspect": 1})
    figure.set_layout_engine("compressed", w_pad=0.01, h_pad=0.02, wspace=0, hspace=0)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(wrapped(name, int(6 * side) if lying else 20), rotation=0 if lying else 90)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    small = {"fontsize": SMALLEST, "labelpad": 1.5}
    for row, (first, second, *others) in zip(rows, axes, strict=True):
        parts = f"{results.label(row.task)}, case {row.case}".replace(", ", ",\n").split("\n")
        label = "\n".join(wrapped(part, 20) for part in parts)
        first.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=SMALLEST)
        second.set_xlabel("PSNR (dB)", loc="right", **small)
        _show(first, row.truth)
        _show(second, row.observation, "no picture")
        for method, axis in zip(methods, others, strict=True):
            _show(axis, row.states.get(method), "not run")
            if method in row.states:
                axis.set_xlabel(f"{row.decibels[method]:.1f}".replace("-", "−"), **small)
    figure.draw_without_rendering()
    figure.set_figheight(figure.get_tightbbox().height + 0.06)  # of what the titles leave
    return figure


def picked(results: Results, task: str, cases: int) -> list[Row]:
    """The cases of a task that nobody has picked: see `central`.

    They are ordered by what the limit (or, where it is not shown, the first method) makes of them,
    among the cases that all methods have.

    Args:
        results: Needs posteriors and observations of pictures.
        task: Of which.
        cases: Their number at most.
    """
    found = {m: results.posterior(m, task)[["state"]].isel(member=[0]) for m in results.shown(task)}
    count = min(posterior.sizes["case"] for posterior in found.values())
    found = {m: posterior.isel(case=slice(count)) for m, posterior in found.items()}
    observations = results.observations(task).isel(case=slice(count))
    judged = Case(truth=observations.truth, y=observations.y, operator=None)
    decibels = {m: psnr(posterior, judged).values for m, posterior in found.items()}
    limit = results.facts["limit"]
    reference = decibels[limit if limit in decibels else next(iter(decibels))]
    return [
        Row(
            task=task,
            case=case,
            truth=observations.truth.values[case],
            observation=_observed(results, task, observations.isel(case=[case])),
            states={m: posterior.state.values[case, 0] for m, posterior in found.items()},
            decibels={m: float(values[case]) for m, values in decibels.items()},
        )
        for case in central(reference, cases)
    ]


def central(values: np.ndarray, count: int) -> list[int]:
    """Where the quantiles (i + 1/2) / count of some values stand; of one, where the median does.

    Args:
        values: One number per case, shape (n,).
        count: Of quantiles; with fewer values there is one for each.
    """
    order, n = np.argsort(values, kind="stable"), len(values)
    count = min(count, n)
    return [int(order[(2 * i + 1) * n // (2 * count)]) for i in range(count)]


def _observed(results: Results, task: str, observations: xr.Dataset) -> np.ndarray | None:
    """The picture of the only case, (C, h, w), if its operator knows how to make one."""
    shape = observations.truth.shape[1:]
    spec, base = results.facts["operators"][task], results.facts["base"]
    operator = at(build(spec, base, shape=shape), observations.trajectory.values.tolist())
    if not hasattr(operator, "picture"):
        return None
    return operator.picture(torch.from_numpy(observations.y.values).unsqueeze(1))[0, 0].numpy()


def _show(axis: Axes, picture: np.ndarray | None, nothing: str = "") -> None:
    """A picture (C, H, W), in grey if it has one channel; what lies beyond [-1, 1] is cut off."""
    if picture is None:
        style = {"ha": "center", "va": "center", "color": "#6b6b6b", "fontsize": SMALLEST}
        axis.text(0.5, 0.5, nothing.replace(" ", "\n"), in_layout=False, **style)
        return
    image = np.moveaxis(picture, 0, -1).clip(-1, 1) / 2 + 0.5
    axis.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
