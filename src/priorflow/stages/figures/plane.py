"""Two metrics of every method against each other, such as distortion and perception.

Reference:
    The Perception-Distortion Tradeoff (Blau & Michaeli, 2018), arXiv 1711.06077
"""

__all__ = ["draw", "name_points"]

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    LIMIT,
    SMALLEST,
    axis_label,
    case_title,
    house_style,
    look,
    panels,
    plain_log,
)
from priorflow.stages.figures.sweeps import bar_lengths, per_case
from priorflow.stages.statistics import Estimate, bootstrap_interval
from priorflow.stages.vocabulary import measure

COLUMNS = 2
WIDE_RANGE = 5.0  # what spans more has a logarithmic axis
LINE = {"color": LIMIT, "lw": 0.9, "ls": ":", "zorder": 1}
LEADER = {"arrowstyle": "-", "color": "#8c8c8c", "lw": 0.5, "shrinkA": 0, "shrinkB": 1}
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4}  # where lines pass
MARKER = 3.0  # half of the room that a marker takes, in points of print
# how far a label may stand from its point, in points of print; the first ones need no line to it
DISTANCES, NEAR = (4, 7, 11, 16, 22, 29, 37, 46, 56, 68), 2
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
TURN = np.stack((np.cos(ANGLES), np.sin(ANGLES)), axis=1)
FAR = 0.4  # what a point of distance counts, in square points of a bar that is covered
NEIGHBOURS = 4  # that say how crowded a place is


@house_style
def draw(results: Results, x: str, y: str) -> Figure:
    """A panel for every task, a point with its name for every method; bars are 95 % intervals.

    Dotted lines mark the target of a metric, and for `consistency` the noise γ of the task. Axes of
    what is better when it is higher are linear, others logarithmic where that is needed. Methods
    that have no value stay away, as do draws that are compared with themselves, with the distance
    zero.

    Args:
        results: Needs metrics and observations.
        x, y: The metrics.
    """
    table = results.metrics()
    columns = min(COLUMNS, len(results.tasks))
    rows = -(-len(results.tasks) // columns)
    figure, axes = panels(rows, columns, height=0.5 + 7.0 * rows)
    for axis in axes.flat[len(results.tasks) :]:
        axis.set_axis_off()
    named = []
    for axis, task in zip(axes.flat, results.tasks, strict=False):
        found = table[table.task == task]
        points = {}
        for method in results.shown(task):
            pair = [bootstrap_interval(per_case(found, method, metric)) for metric in (x, y)]
            if all(map(_visible, pair, (x, y))):
                points[method] = pair
        for method, (across, up) in points.items():
            style = look(method, results.facts)
            mark = {"color": style.colour, "marker": style.marker, "elinewidth": 0.8}
            bars = {"xerr": bar_lengths([across]), "yerr": bar_lengths([up])}
            axis.errorbar(across.value, up.value, **bars, **mark)
        if not points:
            axis.text(0.5, 0.5, "no values", ha="center", transform=axis.transAxes)
        counts = {across.n for across, _ in points.values()} or {0}
        axis.set_title(case_title(results.label(task), counts, 92 // columns))
        axis.margins(0.1)
        noise = float(results.observations(task).attrs["noise_std"])
        for k, (side, metric) in enumerate(zip("xy", (x, y), strict=True)):
            what = measure(metric)
            target = noise if metric == "consistency" else what.target
            if target:
                (axis.axvline if side == "x" else axis.axhline)(target, **LINE)
            if metric == "consistency" and side == "x":
                axis.text(noise, 1, " γ", transform=axis.get_xaxis_transform(), va="top")
            values = [pair[k].value for pair in points.values()]
            if values and what.direction != "higher" and max(values) > WIDE_RANGE * min(values) > 0:
                plain_log(axis, side, decades=2)
            label = axis_label(what.label, what.unit)
            axis.set(**{f"{side}label": f"{label} {what.arrow}".strip()})
        named.append((axis, {results.label(m): pair for m, pair in points.items()}))
    figure.draw_without_rendering()  # axes find their places
    for axis, labelled in named:
        if labelled:
            name_points(axis, labelled)
    return figure


def name_points(axes: Axes, points: Mapping[str, tuple[Estimate, Estimate]]) -> None:
    """Write names beside points such that they cover neither points nor one another, and few bars.

    One after the other, the most crowded first, they take the nearest place where they do not. Axes
    must have their final limits and places.

    Args:
        axes: Where the points are.
        points: x and y of each, by its name.
    """
    scale = axes.figure.dpi / 72
    ends = np.array([[(e.value, e.low, e.high) for e in pair] for pair in points.values()])
    ends = np.where(np.isnan(ends), ends[..., :1], ends)  # of one case there is no interval
    at, low, high = (axes.transData.transform(p) / scale for p in np.moveaxis(ends, 2, 0))
    taken = [np.concatenate((a - MARKER, a + MARKER)) for a in at]
    bars = [np.array([b[0], a[1], c[0], a[1] + 1]) for a, b, c in zip(at, low, high, strict=True)]
    bars += [np.array([a[0], b[1], a[0] + 1, c[1]]) for a, b, c in zip(at, low, high, strict=True)]
    canvas = axes.get_window_extent().extents / scale
    gaps = np.sort(np.linalg.norm(at[:, None] - at, axis=-1), axis=1)
    style = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": SMALLEST}
    away = np.repeat(DISTANCES, len(TURN))
    names = list(points)
    for i in np.argsort(gaps[:, :NEIGHBOURS].sum(1), kind="stable"):
        text = axes.annotate(names[i], ends[i, :, 0], (0, 0), **style)
        half = np.array(text.get_window_extent().size) / scale / 2
        text.remove()
        around = np.concatenate([TURN * (half + distance) for distance in DISTANCES])
        boxes = np.concatenate((at[i] + around - half, at[i] + around + half), axis=1)
        covered = sum(_overlap(boxes, other) for other in taken)
        crossed = sum(_overlap(boxes, bar) for bar in bars)
        outside = 4 * half.prod() - _overlap(boxes, canvas)
        best = int(np.argmin(FAR * away + crossed + 50 * (covered + outside)))
        far = best >= NEAR * len(TURN)
        axes.annotate(
            names[i],
            ends[i, :, 0],
            around[best],
            arrowprops=LEADER if far else None,
            bbox=PAPER,
            **style,
        ).set_in_layout(False)
        taken.append(boxes[best])


def _visible(estimate: Estimate, metric: str) -> bool:
    return np.isfinite(estimate.value) and (
        estimate.value > 0 or measure(metric).direction != "lower"
    )


def _overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The area that boxes (n, 4) of left, bottom, right and top share with another."""
    low = np.maximum(boxes[:, :2], other[:2])
    high = np.minimum(boxes[:, 2:], other[2:])
    return (high - low).clip(min=0).prod(1)
