"""How fast the networks train: the validation loss over seconds and over steps."""

__all__ = ["draw", "remaining"]

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import house_style, legend_below, look, panels

LOWEST = 1e-3  # below, the curve shows the noise around its least value
METHODS = {"drift": "flowdas", "endpoint": "flowdas_bridge", "score": "sda"}


def remaining(loss: ArrayLike) -> np.ndarray:
    """(loss - least) / (greatest - least): the share of the fall that is still to come.

    Losses of different kinds differ by a factor and by what no network could explain; this share is
    the same whatever both are. NaN for a curve that is flat.
    """
    loss = np.asarray(loss, dtype=float)
    room = loss.max() - loss.min()
    return (loss - loss.min()) / room if room > 0 else np.full_like(loss, np.nan)


@house_style
def draw(results: Results, methods: Mapping[str, str] | None = None) -> Figure:
    """Seconds on the left, steps on the right; parameters and seconds in the legend.

    Args:
        results: Needs the curves and records of `models`.
        methods: Per model the method that it is for, which gives it colour and label.
    """
    methods = METHODS if methods is None else methods
    figure, axes = panels(1, 2, height=7.2, sharey=True)
    handles, labels = [], []
    for model in results.models:
        method = methods.get(model, model)
        style = look(method, results.facts)
        curve, record = results.curve(model), results.record(model)
        share = remaining(curve.valid_loss).clip(LOWEST / 10)  # leaves the axes at the bottom
        line = {"color": style.colour, "marker": style.marker, "markersize": 3}
        for axis, column in zip(axes[0], ("seconds", "step"), strict=True):
            axis.plot(curve[column], share, **line)
        handles.append(Line2D([], [], **line))
        labels.append(
            f"{results.label(method)} ({model}): {record['parameters'] / 1000:,.0f} k parameters, "
            f"{record['seconds']:,.0f} s"
        )
    axes[0, 0].set(yscale="log", ylim=(LOWEST, 1.3), xlabel="training time (s)")
    axes[0, 0].set_ylabel("validation loss\nabove its least value\n(share of its range)")
    axes[0, 1].set_xlabel("optimiser steps")
    for axis in axes[0]:
        axis.set_xlim(left=0)
    legend_below(figure, handles, labels)
    return figure
