"""The share of the skill, between the floor and the limit, that every method recovers."""

__all__ = ["draw", "shares"]

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from priorflow.components import BadInput
from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import FLOOR, LIMIT, Look, house_style, look, panels, wrapped
from priorflow.stages.figures.sweeps import bar_lengths, per_case
from priorflow.stages.statistics import Estimate, skill_recovered
from priorflow.stages.vocabulary import measure

GREY = {"ha": "left", "va": "center", "color": "#6b6b6b", "fontsize": 7}
NOTHING = "floor is\nat the limit"
LEFT, RIGHT = -0.5, 1.25  # what lies beyond is an arrow with its value beside it


def shares(
    table: pd.DataFrame, task: str, metric: str, floor: str, limit: str
) -> dict[str, Estimate]:
    """The share of skill of every method of a task but its floor and its limit.

    Args:
        table: Tidy metrics.
        task, metric: Of which.
        floor, limit: The methods with the shares 0 and 1.
    """
    rows = table[table.task == task]
    ends = [per_case(rows, method, metric) for method in (floor, limit)]
    methods = [m for m in rows.method.unique() if m not in (floor, limit)]
    return {m: skill_recovered(per_case(rows, m, metric), *ends) for m in methods}


@house_style
def draw(results: Results, metric: str = "crps") -> Figure:
    """One panel for every task, one row for every method, best first.

    Args:
        results: Needs metrics; floor and limit are among the methods.
        metric: Of which the skill is.

    Raises:
        BadInput: The experiment has no limit, or the figure does not show it or the floor.
    """
    floor, limit = results.facts["floor"], results.facts["limit"]
    if not {floor, limit} <= set(results.methods):
        raise BadInput(f"figures: skill needs the floor and the limit among {results.methods}")
    table = results.metrics()
    found = {t: shares(table, t, metric, floor, limit) for t in results.tasks}
    methods = [m for m in results.methods if m not in (floor, limit)]

    def mean_share(method: str) -> float:
        values = [found[t][method].value for t in results.tasks if method in found[t]]
        values = [value for value in values if not np.isnan(value)]
        return float(np.mean(values)) if values else -np.inf

    methods.sort(key=mean_share)
    columns = len(results.tasks)
    height = 2.6 + 0.75 * len(methods)
    figure, axes = panels(1, columns, height=height, sharey=True)
    for axis, task in zip(axes[0], results.tasks, strict=True):
        known = [share for share in found[task].values() if not np.isnan(share.value)]
        for y, method in enumerate(methods if known else ()):
            _row(axis, y, found[task].get(method), look(method, results.facts))
        if not known:
            axis.text(0.5, (len(methods) - 1) / 2, NOTHING, **GREY | {"ha": "center"})
        axis.axvline(0, color=FLOOR, lw=1.2)
        axis.axvline(1, color=LIMIT, lw=1.2)
        n = max((e.n for e in found[task].values()), default=0)
        title = wrapped(results.label(task), 68 // columns)
        axis.set_title(f"{title}\n{n} cases", pad=14)
        at = axis.get_xaxis_transform()
        for x, name, colour in ((0, "floor", "#6b6b6b"), (1, "limit", LIMIT)):
            axis.text(
                x, 1.01, name, transform=at, ha="center", va="bottom", color=colour, fontsize=7
            )
        axis.set(xlim=(LEFT, RIGHT), xticks=(-0.5, 0, 0.5, 1), ylim=(-0.6, len(methods) - 0.3))
        axis.set_xlabel(wrapped(f"skill recovered ({measure(metric).label})", 68 // columns))
        axis.grid(False, axis="y")
    wide = 30 if columns < 3 else 22
    axes[0, 0].set_yticks(
        range(len(methods)), [wrapped(results.label(m), wide) for m in methods], fontsize=7.5
    )
    return figure


def _row(axis: Axes, y: int, share: Estimate | None, style: Look) -> None:
    if share is None:
        axis.text(0.05, y, "not run", **GREY)
    elif np.isnan(share.value):
        axis.text(0.05, y, NOTHING, **GREY)
    elif not LEFT <= share.value <= RIGHT:
        end, sign = (LEFT, 1) if share.value < LEFT else (RIGHT, -1)
        axis.plot(end + sign * 0.05, y, marker="<" if sign > 0 else ">", color=style.colour)
        side = {"color": style.colour, "ha": "left" if sign > 0 else "right"}
        axis.text(end + sign * 0.13, y, _number(share.value), **GREY | side)
    else:
        axis.errorbar(
            share.value,
            y,
            xerr=bar_lengths([share]),
            marker=style.marker,
            color=style.colour,
            capsize=2,
            elinewidth=1,
        )
        above = {"ha": "center", "va": "bottom", "fontsize": 7, "zorder": 2.2}
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # where the limit passes
        axis.text(share.value, y + 0.22, _number(share.value), bbox=paper, **above)


def _number(value: float) -> str:
    return f"{value:{'.2f' if abs(value) < 1000 else '.0e'}}".replace("-", "−")
