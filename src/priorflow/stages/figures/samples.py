"""Pictures that a denoiser draws when nothing is observed, beside real ones."""

__all__ = ["draw", "mosaic", "pages_of"]

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import WIDE, house_style, panels, wrapped

COLUMNS = 3
GAP = 1  # white pixels between two pictures


def mosaic(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Pictures (n, C, H, W) in [-1, 1] as one of three channels in [0, 1], row by row.

    What lies beyond [-1, 1] has the colour of its end; where there is no picture it is white.
    """
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    page = np.ones((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3))
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        page[y : y + height, x : x + width] = np.moveaxis(picture, 0, -1).clip(-1, 1) / 2 + 0.5
    return page


@house_style
def draw(results: Results) -> Figure:
    """A panel for the draws of every model by its network calls, and one for as many test pictures.

    Args:
        results: Needs assessments of the models.
    """
    pages = []
    for model in results.models:
        found = results.assessment(model)
        for calls, samples in zip(found.calls.values, found.samples.values, strict=True):
            each = "one network call" if calls == 1 else f"{calls} network calls"
            pages.append((f"{results.label(model)}, {each} each", samples))
    pages.append((f"{found.sizes['picture']} test pictures", found.pictures.values))
    return pages_of(pages)


def pages_of(pages: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """A figure of panels with a title and pictures (n, C, H, W) each, at most three in a row."""
    wide = min(COLUMNS, len(pages))
    rows = -(-len(pages) // wide)
    columns = math.ceil(math.sqrt(2 * len(pages[0][1])))
    images = [(title, mosaic(pictures, columns)) for title, pictures in pages]
    ratio = images[0][1].shape[0] / images[0][1].shape[1]
    figure, axes = panels(rows, wide, height=rows * (0.7 + (WIDE / wide - 0.3) * ratio))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, image) in zip(axes.flat, images, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(wrapped(title, 96 // wide))
    return figure
