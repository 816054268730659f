"""Pictures that a denoiser draws when nothing is observed, beside real ones."""

__all__ = ["draw", "mosaic"]

import math

import numpy as np
from matplotlib.figure import Figure

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import WIDE, house_style, panels

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
    """A panel for the draws of every model, and one for as many test pictures.

    Args:
        results: Needs assessments of the models.
    """
    pages = []
    for model in results.models:
        found = results.assessment(model)
        title = f"{results.label(model)}: {found.sizes['sample']} draws"
        pages.append((f"{title}, {found.attrs['calls']} network calls each", found.samples.values))
    pages.append((f"{found.sizes['picture']} test pictures", found.pictures.values))
    columns = math.ceil(math.sqrt(2 * found.sizes["sample"]))
    images = [(title, mosaic(pictures, columns)) for title, pictures in pages]
    high, wide = images[0][1].shape[:2]
    figure, axes = panels(1, len(images), height=0.7 + (WIDE / len(images) - 0.3) * high / wide)
    for axis, (title, image) in zip(axes[0], images, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    return figure
