"""The error of every method against what it costs."""

__all__ = ["draw"]

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import (
    axis_label,
    house_style,
    legend_below,
    look,
    panels,
    wrapped,
)
from priorflow.stages.figures.sweeps import interval_bars, per_case
from priorflow.stages.vocabulary import measure
