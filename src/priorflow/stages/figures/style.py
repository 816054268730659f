"""The house style: sizes, fonts, and colours, markers and dashes that mean the same everywhere.

A method has the colour and the marker of its family (`flowdas.released` that of `flowdas`), and its
variant a dash; the limit of an experiment is black and its floor grey, whatever methods they are.
The colours are those of Okabe & Ito and of seaborn's `colorblind` palette.

Figures are made at the width at which they are printed, `NARROW` or `WIDE`, so that no font is
smaller than `SMALLEST` points on paper.

Reference:
    Color Universal Design (Okabe & Ito, 2008), https://jfly.uni-koeln.de/color/
"""

__all__ = [
    "FLOOR",
    "LIMIT",
    "MARK",
    "NARROW",
    "SMALLEST",
    "TRUTH",
    "WIDE",
    "Look",
    "axis_label",
    "case_title",
    "house_style",
    "legend_below",
    "look",
    "mark_noise",
    "panels",
    "plain_log",
    "spaced",
    "span",
    "wrapped",
]

import textwrap
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from priorflow.stages.vocabulary import METHODS

NARROW, WIDE = 8.0, 16.0  # cm
SMALLEST = 7.0  # points
INCH = 2.54  # cm

TRUTH, LIMIT, FLOOR = "#1a1a2e", "#000000", "#8c8c8c"

MARK = {"color": LIMIT, "lw": 0.9, "ls": ":", "zorder": 1}  # of what values are compared with

FAMILIES = {
    "flowdas": ("#D55E00", "o"),
    "flowdas_bridge": ("#0072B2", "s"),
    "sda": ("#009E73", "^"),
    "bpf": ("#CC79A7", "D"),
    "enkf": ("#E69F00", "v"),
    "ensf": ("#56B4E9", "P"),
    "kalman": ("#7A4FA3", "X"),
    "fno_da": ("#A6761D", "<"),
    "transolver_da": ("#B8A600", ">"),
    "forecast": ("#882255", "d"),
    "persistence": ("#4d5866", "p"),
    "extrapolation": ("#CC79A7", "h"),
    "steps": ("#56B4E9", "*"),
    "interpolation": ("#7A4FA3", "8"),
}
OTHERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A6761D", "#7A4FA3")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
VARIANTS = {
    "": 0,
    "released": 1,
    "learned": 1,
    "exact": 2,
    "endpoint": 3,
    "single": 1,
    "square_root": 1,
}

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "figure.dpi": 200,  # as it is saved: text is wider than at 100, and a legend has to fit
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": SMALLEST,
    "ytick.labelsize": SMALLEST,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

Drawn = TypeVar("Drawn")  # a Figure, or what has one


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        colour: Of its family, black for the limit, grey for the floor.
        marker: Of its family.
        dash: Of its variant.
    """

    colour: str
    marker: str
    dash: Any

    def line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot` without markers."""
        return {"color": self.colour, "linestyle": self.dash}


def look(method: str, facts: Mapping[str, Any]) -> Look:
    """How a method is drawn in every figure of an experiment.

    Args:
        method: Its name, perhaps `family.variant`.
        facts: `floor` and `limit` are the methods with these roles.
    """
    family, _, variant = method.partition(".")
    if family in FAMILIES:
        colour, marker = FAMILIES[family]
    else:
        known = list(METHODS)
        i = known.index(family) if family in known else zlib.crc32(family.encode())
        colour, marker = OTHERS[i % len(OTHERS)], MARKERS[i % len(MARKERS)]
    if method == facts.get("limit"):
        colour = LIMIT
    elif method == facts.get("floor"):
        colour = FLOOR
    dash = DASHES[VARIANTS.get(variant, zlib.crc32(variant.encode())) % len(DASHES)]
    return Look(colour, marker, dash)


def house_style(draw: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """Let a drawing function work in the house style, whatever the user's own settings are."""

    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Drawn:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            drawn = draw(*args, **kwargs)
            # ticks are made when they are first drawn: do it while the style holds
            drawn.figure.draw_without_rendering()  # the figure of a figure is itself
            return drawn

    return styled


def panels(
    rows: int, columns: int, *, width: float = WIDE, height: float, **settings: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of so many centimetres, and its axes (rows, columns).

    It does not belong to pyplot, so that nothing has to be closed.
    """
    figure = Figure(figsize=(width / INCH, height / INCH), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **settings)
    return figure, axes


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend for the whole figure, below its axes, in as few rows as fit its width."""
    width = figure.get_window_extent().width
    for columns in range(len(labels), 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4
        )
        figure.draw_without_rendering()
        rows = -(-len(labels) // columns)
        even = rows == 1 or columns == -(-len(labels) // rows)  # no row with a single leftover
        if (legend.get_window_extent().width <= 0.98 * width and even) or columns == 1:
            return
        legend.remove()


def lines_of(
    methods: Sequence[str], facts: Mapping[str, Any], markers: bool = False, **settings: Any
) -> list[Line2D]:
    """The lines of methods for a legend, with the markers of their families or without."""
    looks = [look(method, facts) for method in methods]
    return [
        Line2D([], [], **{"marker": x.marker if markers else "", **settings, **x.line()})
        for x in looks
    ]


def mark_noise(axis: Axes, noise: float) -> None:
    """A dotted line across at the noise γ, if there is any."""
    if noise > 0:
        axis.axhline(noise, **MARK)
        place = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        axis.text(1, noise, "γ", **place)


def axis_label(name: str, unit: str = "") -> str:
    """`name (unit)`, as on every axis; a pure number has no brackets."""
    return f"{name} ({unit})" if unit else name


def wrapped(text: str, width: int) -> str:
    """A title in lines of at most so many characters."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))


def case_title(label: str, cases: Collection[int], width: int) -> str:
    """A task in lines of at most so many characters, and below it the number of its cases."""
    return f"{wrapped(label, width)}\n{span(cases)} cases"


def spaced(axes: Axes, values: Sequence[float], axis: str = "x") -> None:
    """Logarithmic along an axis if the values are positive and span more than a factor 5.

    Along x every value becomes a tick, where they do not stand too close to be read.
    """
    finite = np.asarray(values, dtype=float)
    finite = np.unique(finite[np.isfinite(finite)])
    if not len(finite) or finite[0] <= 0 or finite[-1] <= 5 * finite[0]:
        return
    axes.set(**{f"{axis}scale": "log"})
    if axis == "x" and np.diff(np.log(finite)).min() > np.log(finite[-1] / finite[0]) / 9:
        axes.set_xticks(finite, [f"{value:g}" for value in finite])
        axes.minorticks_off()


def span(numbers: Collection[int]) -> str:
    """The least and the greatest of some numbers, "20–50"; one number if they are the same."""
    return "–".join(map(str, sorted({min(numbers), max(numbers)})))


def plain_log(axes: Axes, axis: str = "y", decades: int = 3) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 times a power of ten, written in full.

    Args:
        axes: Of which.
        axis: `x` or `y`.
        decades: Beyond so many it has powers of ten.
    """
    axes.set(**{f"{axis}scale": "log"})
    low, high = getattr(axes, f"get_{axis}lim")()
    if high < 10**decades * low:
        lines = getattr(axes, f"{axis}axis")
        lines.set_major_locator(LogLocator(subs=(1, 2, 5)))
        lines.set_major_formatter("{x:g}")
        lines.set_minor_locator(NullLocator())
