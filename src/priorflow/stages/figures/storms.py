"""Synthetic storms, which are not observations, beside what is published of SEVIR."""

__all__ = ["PUBLISHED", "draw", "events_of"]

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from priorflow.components import BadInput
from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import OTHERS, TRUTH, house_style, legend_below, panels
from priorflow.systems.storms import LAGS, THRESHOLDS, statistics

PUBLISHED = {"mean": 33.44, "std": 47.54}  # of encoded VIL; no more was found for SEVIR
GROUPS = 10
COLOUR = OTHERS[0]


def events_of(folder: Path, count: int) -> list[np.ndarray]:
    """At most so many events, evenly spread over the files of an archive: (size, size, 49) each.

    Raises:
        BadInput: The folder has no files of synthetic storms.
    """
    import h5py

    paths = sorted(folder.glob("vil/*/SEVIR_VIL_SYNTHETIC_*.h5"))
    if not paths:
        raise BadInput(f"{folder}: no synthetic storms; the figure shows nothing else")
    sizes = []
    for path in paths:
        with h5py.File(path) as file:
            sizes.append(len(file["id"]))
    starts = np.cumsum([0, *sizes])
    chosen = np.unique(np.linspace(0, starts[-1] - 1, min(count, starts[-1])).round().astype(int))
    events = []
    for path, start, size in zip(paths, starts, sizes, strict=False):
        with h5py.File(path) as file:
            inside = chosen[(chosen >= start) & (chosen < start + size)] - start
            events += [file["vil"][row] for row in inside]
    return events


@house_style
def draw(results: Results, events: int = 100) -> Figure:
    """Mean and deviation, shares above the thresholds, and correlation in time of encoded VIL.

    A band or a bar reaches from the least to the greatest of ten parts of the events.

    Args:
        results: Its folder has the archive that `priorflow storms` wrote.
        events: At most so many.
    """
    chosen = events_of(results.folder / "archive", events)
    whole = statistics(chosen)
    count = min(GROUPS, len(chosen))
    parts = [statistics(chosen[i::count]) for i in range(count)]
    figure, axes = panels(1, 3, height=7.4, width_ratios=(0.7, 1.5, 1.1))
    first, second, third = axes[0]
    for x, (name, value) in enumerate(PUBLISHED.items()):
        found = [part[name] for part in parts]
        first.plot([x, x], [min(found), max(found)], color=COLOUR, lw=5, alpha=0.25)
        first.plot(x, whole[name], "o", color=COLOUR)
        first.plot(x, value, marker="_", ms=16, mew=1.6, color=TRUTH, ls="")
    first.set(xlim=(-0.6, 1.6), ylabel="encoded VIL (0 to 254)")
    first.set_xticks([0, 1], ["mean", "standard\ndeviation"])
    first.set_ylim(bottom=0)
    first.grid(False, axis="x")
    shares = [f"above_{threshold}" for threshold in THRESHOLDS]
    _band(second, THRESHOLDS, shares, whole, parts, 100)
    second.set(yscale="log", xlabel="threshold (of 255)", ylabel="pixels at or above it (%)")
    second.set_xticks(THRESHOLDS)
    second.yaxis.set_major_formatter("{x:g}")
    said = f"dry pixels {100 * whole['dry']:.0f} %\nspectral slope {whole['slope']:.2f}"
    second.text(0.04, 0.04, said, transform=second.transAxes)
    lags = [lag for lag in LAGS if f"correlation_{lag}" in whole]
    _band(third, lags, [f"correlation_{lag}" for lag in lags], whole, parts)
    third.set(ylim=(0, 1), xlabel="lag at a fixed place (min)", ylabel="correlation")
    third.xaxis.set_major_locator(MultipleLocator(30))
    pixels = len(chosen[0])
    figure.suptitle(
        f"{len(chosen)} synthetic storms of {pixels}² pixels: no observations", fontsize=8
    )
    handles = [
        Line2D([], [], color=COLOUR, marker="o"),
        Patch(color=COLOUR, alpha=0.25),
        Line2D([], [], color=TRUTH, marker="_", ms=10, mew=1.6, ls=""),
    ]
    labels = ["synthetic storms", f"range of {count} parts of them", "published for SEVIR"]
    legend_below(figure, handles, labels)
    return figure


def _band(
    axis: Axes,
    x: tuple[int, ...] | list[int],
    names: list[str],
    whole: dict[str, float],
    parts: list[dict[str, float]],
    factor: float = 1,
) -> None:
    """A line of all events, and a band from the least to the greatest of their parts."""
    found = factor * np.array([[part[name] for name in names] for part in parts])
    axis.fill_between(x, found.min(0), found.max(0), color=COLOUR, alpha=0.25, lw=0)
    axis.plot(x, [factor * whole[name] for name in names], marker="o", color=COLOUR)
