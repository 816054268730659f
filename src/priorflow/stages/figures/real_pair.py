"""A real pair of pictures of particles, processed."""

__all__ = ["draw"]

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import axis_label, house_style, panels
from priorflow.systems.velocimetry import example

MISSING = "OpenPIV, which brings the pictures, is not installed: pip install priorflow[piv]"


@house_style
def draw(results: Results, windows: tuple[int, ...] = (64, 32)) -> Figure:
    """The first picture, an arrow for every window; on the right without the mean displacement.

    Without the optional library the figure says in one line what is missing.

    Args:
        results: Not used: these are not results of the experiment.
        windows: Sides of the windows of each pass of the correlation, in pixels.
    """
    try:
        first, _, vectors = example(tuple(windows))
    except ModuleNotFoundError:
        figure, ((axis,),) = panels(1, 1, height=2)
        axis.set_axis_off()
        axis.text(0.5, 0.5, MISSING, ha="center", va="center")
        return figure
    figure, (axes,) = panels(1, 2, height=7.2, sharey=True)
    rows, columns = first.shape
    valid = vectors.valid
    mean = vectors.displacements[valid].mean(0)
    found = f"{valid.sum()} of {len(valid)} windows of {windows[-1]}² pixels valid"
    title = f"mean ({mean[1]:.1f}, {mean[0]:.1f}) pixels subtracted"
    for axis, off, text in zip(axes, (0, mean), (found, title), strict=True):
        axis.imshow(first, cmap="gray_r", vmin=0, vmax=2 * float(np.quantile(first, 0.999)))
        moved = vectors.displacements[valid] - off
        speed = np.linalg.norm(moved, axis=1)
        norm = Normalize(speed.min(), speed.max())
        # rows of a picture run downwards, and so do first components
        axis.quiver(
            *vectors.positions[valid].T[::-1],
            *moved.T[::-1],
            speed,
            norm=norm,
            cmap="viridis",
            pivot="mid",
            angles="xy",
            scale_units="xy",
            scale=np.quantile(speed, 0.9) / (0.45 * windows[-1]),
            width=0.004,
        )
        axis.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        axis.set_xlabel(axis_label("x", "pixels"))
        axis.grid(False)
        axis.set_title(text)
        shape = {"location": "bottom", "aspect": 30, "shrink": 0.8}
        bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=axis, **shape)
        bar.set_label(axis_label("displacement", "pixels"))
        bar.outline.set_visible(False)
    axes[0].set_ylabel(axis_label("y", "pixels"))
    return figure
