"""Two metrics of every method against each other, such as distortion and perception.

Reference:
    The Perception-Distortion Tradeoff (Blau & Michaeli, 2018), arXiv 1711.06077
"""

__all__ = ["draw", "name_points"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    MARK,
    SMALLEST,
    axis_label,
    case_title,
    house_style,
    look,
    panels,
    plain_log,
)
from priorflow.stages.figures.sweeps import (
    Variant,
    bar_lengths,
    curve_styles,
    curves,
    per_case,
    shared_cases,
    variants,
)
from priorflow.stages.statistics import Estimate, bootstrap_interval
from priorflow.stages.vocabulary import measure

COLUMNS = 2
WIDE_RANGE = 5.0  # what spans more has a logarithmic axis
LEADER = {"arrowstyle": "-", "color": "#8c8c8c", "lw": 0.5, "shrinkA": 0, "shrinkB": 1}
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4}  # where lines pass
MARKER = 3.0  # half of the room that a marker takes, in points of print
# how far a label may stand from its point, in points of print; the first ones need no line to it
DISTANCES, NEAR = (4, 7, 11, 16, 22, 29, 37, 46, 56, 68), 2
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
TURN = np.stack((np.cos(ANGLES), np.sin(ANGLES)), axis=1)
FAR = 0.4  # what a point of distance counts, in square points of a bar that is covered
NEIGHBOURS = 4  # that say how crowded a place is
CURVE = {"markersize": 2.5, "lw": 0.8, "elinewidth": 0.5}
AVERAGE = {"markerfacecolor": "white", "elinewidth": 0.5, "zorder": 1.8}  # below single members

Pair = tuple[Estimate, Estimate]  # x and y


@house_style
def draw(results: Results, x: str, y: str, curve: str = "", averages: Sequence[str] = ()) -> Figure:
    """A panel for every task, a point with its name for every method; bars are 95 % intervals.

    All points of a panel are means over the cases that they share.

    Dotted lines mark the target of a metric, and for `consistency` the noise γ of the task. Axes of
    what is better when it is higher are linear, others logarithmic where that is needed. Methods
    that have no value stay away, as do draws that are compared with themselves, with the distance
    zero.

    Args:
        results: Needs metrics and observations.
        x, y: The metrics.
        curve: A hyper-parameter. Methods that sweep it are joined by a line in the order of their
            values, and only its two ends have names.
        averages: The same two metrics of the average of a method's members, a hollow marker that a
            line joins to the point of single members.
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
        groups = curves(variants(results, curve, task)) if curve else {}
        found = shared_cases(found, results.shown(task))
        points = _points(results.shown(task), found, (x, y))
        means = _points(points, found, averages) if averages else {}
        groups = {key: [v for v in g if v.method in points] for key, g in groups.items()}
        groups = {key: group for key, group in groups.items() if group}
        swept = {v.method: v for group in groups.values() for v in group}
        for method, pair in points.items():
            if method not in swept:
                style = look(method, results.facts)
                mark = {"color": style.colour, "marker": style.marker, "elinewidth": 0.8}
                _bars(axis, [pair], **mark)
        styles = curve_styles(groups, results.facts)
        for group, style in zip(groups.values(), styles, strict=True):
            _bars(axis, [points[v.method] for v in group], **style, **CURVE)
        for method, pair in means.items():
            style = look(swept[method].base if method in swept else method, results.facts)
            mark = {"color": style.colour, "marker": style.marker}
            size = {"markersize": CURVE["markersize"]} if method in swept else {}
            ends = [[estimate.value for estimate in end] for end in (points[method], pair)]
            axis.plot(*zip(*ends, strict=True), color=style.colour, lw=0.6, zorder=1.7)
            _bars(axis, [pair], **mark, **size, **AVERAGE)
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
                (axis.axvline if side == "x" else axis.axhline)(target, **MARK)
            if metric == "consistency" and side == "x":
                axis.text(noise, 1, " γ", transform=axis.get_xaxis_transform(), va="top")
            values = [pair[k].value for pair in (*points.values(), *means.values())]
            if values and what.direction != "higher" and max(values) > WIDE_RANGE * min(values) > 0:
                plain_log(axis, side, decades=2)
            label = axis_label(what.label, what.unit)
            axis.set(**{f"{side}label": f"{label} {what.arrow}".strip()})
        names = {m: results.label(m) for m in points if m not in swept}
        names |= _names_of_ends(groups, curve, results)
        labelled = {names[m]: pair for m, pair in points.items() if m in names}
        others = [pair for m, pair in points.items() if m not in names]
        named.append((axis, labelled, [*others, *means.values()]))
    figure.draw_without_rendering()  # axes find their places
    for axis, labelled, others in named:
        if labelled:
            name_points(axis, labelled, others)
    return figure


def name_points(axes: Axes, points: Mapping[str, Pair], others: Sequence[Pair] = ()) -> None:
    """Write names beside points such that they cover neither points nor one another, and few bars.

    One after the other, the most crowded first, they take the nearest place where they do not. Axes
    must have their final limits and places.

    Args:
        axes: Where the points are.
        points: x and y of each, by its name.
        others: x and y of points without a name, which are not to be covered either.
    """
    scale = axes.figure.dpi / 72
    pairs = (*points.values(), *others)
    ends = np.array([[(e.value, e.low, e.high) for e in pair] for pair in pairs])
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
    for i in np.argsort(gaps[: len(names), :NEIGHBOURS].sum(1), kind="stable"):
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


def _points(methods: Sequence[str], table: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Pair]:
    """x and y of the methods that have both."""
    points = {}
    for method in methods:
        across, up = (bootstrap_interval(per_case(table, method, metric)) for metric in metrics)
        if all(map(_visible, (across, up), metrics)):
            points[method] = (across, up)
    return points


def _bars(axis: Axes, pairs: Sequence[Pair], **settings: Any) -> None:
    """Points with their intervals, joined in their order."""
    across, up = zip(*pairs, strict=True)
    values = [[e.value for e in across], [e.value for e in up]]
    axis.errorbar(*values, xerr=bar_lengths(across), yerr=bar_lengths(up), **settings)


def _names_of_ends(
    groups: Mapping[tuple[str, str, str], Sequence[Variant]], field: str, results: Results
) -> dict[str, str]:
    """By method the names of the first and the last point of every curve.

    They say of the settings only what tells curves of the same base apart.
    """
    names = {}
    for (base, model, others), group in groups.items():
        alike = [key for key in groups if key[0] == base]
        parts = [results.label(base)]
        for i, part in ((1, model), (2, others)):
            if part and len({key[i] for key in alike}) > 1:
                parts.append(part)
        for variant in (*group[:1], *group[-1:]):
            value = f"{field.replace('_', ' ')} = {variant.value}"
            names[variant.method] = ", ".join((*parts, value))
    return names


def _visible(estimate: Estimate, metric: str) -> bool:
    return np.isfinite(estimate.value) and (
        estimate.value > 0 or measure(metric).direction != "lower"
    )


def _overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The area that boxes (n, 4) of left, bottom, right and top share with another."""
    low = np.maximum(boxes[:, :2], other[:2])
    high = np.minimum(boxes[:, 2:], other[2:])
    return (high - low).clip(min=0).prod(1)
