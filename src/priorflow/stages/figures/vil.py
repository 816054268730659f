"""Colours of vertically integrated liquid (VIL): a step at each of the levels that SEVIR maps have.

White is dry, then come green, yellow, orange, red and purple, as on any map of VIL, but every level
is darker than the one below: the order is there for all kinds of colour vision, and in grey. In
the colours that SEVIR comes with, the yellow of a storm is brighter than the green around it.

Reference:
    SEVIR: A Storm Event Imagery Dataset for Deep Learning Applications in Radar and Satellite
    Meteorology (Veillette, Samsi & Mattioli, 2020), NeurIPS; levels from its tutorial
"""

__all__ = ["COLOURS", "FULL", "LEVELS", "bar", "scale"]

from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap

FULL = 255  # the encoded value that is 1
LEVELS = (0, 16, 31, 59, 74, 100, 133, 160, 181, 219, 255)  # of encoded values
# lightness L* of 97 down to 22
COLOURS = (
    *("#f4f7f4", "#cdefd8", "#a2e5b3", "#8bd97e", "#b8c433"),
    *("#e2a30f", "#e9760b", "#e03e1b", "#b50134", "#5f0f5a"),
)


GROUND = "#b5b8bd"  # where nothing is observed
EDGES = [level / FULL for level in LEVELS]


def scale() -> ScalarMappable:
    """The colours of VIL / 255; what is below 0 or above 1 has those of the ends."""
    return ScalarMappable(BoundaryNorm(EDGES, len(COLOURS)), ListedColormap(COLOURS, bad=GROUND))


def bar() -> dict[str, Any]:
    """Arguments of `Figure.colorbar`: every level is named, as it is encoded."""
    return {"extend": "neither", "ticks": EDGES, "format": lambda x, _: f"{FULL * x:.0f}"}
