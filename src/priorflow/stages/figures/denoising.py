"""What a denoiser gains over the best affine filter at every level of the noise."""

__all__ = ["draw", "gain", "root_mean_square"]

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import FLOOR, OTHERS, house_style, legend_below, panels
from priorflow.stages.statistics import pooled_ratio


def root_mean_square(square: xr.DataArray) -> np.ndarray:
    """√ mean over images with its 95 % interval, shape (3, levels), of squares (image, sigma)."""
    return _roots(square, xr.ones_like(square))


def gain(wiener: xr.DataArray, learned: xr.DataArray) -> np.ndarray:
    """10 log10 of the ratio of mean squares, in dB with its interval, of squares (image, sigma).

    Shape (3, levels); images are paired.
    """
    return 20 * np.log10(_roots(wiener, learned))


def _roots(numerator: xr.DataArray, denominator: xr.DataArray) -> np.ndarray:
    found = [
        pooled_ratio(pd.Series(a), pd.Series(b))
        for a, b in zip(numerator.values.T, denominator.values.T, strict=True)
    ]
    return np.array([(e.value, e.low, e.high) for e in found]).T


@house_style
def draw(results: Results) -> Figure:
    """The error on the left, what the models gain over Wiener's filter, if there is one, right.

    Args:
        results: Needs assessments of the models.
    """
    judged = "wiener" in results.assessment(results.models[0])
    figure, axes = panels(1, 1 + judged, height=7.2)
    error, better = axes[0, 0], axes[0, -1]
    handles, labels = [], []

    def entry(label: str, **line: object) -> None:
        handles.append(Line2D([], [], **line))
        labels.append(label)

    for i, model in enumerate(results.models):
        found = results.assessment(model)
        sigma = found.sigma.values
        if i == 0:  # Wiener's filter knows the same images whatever the model is
            plain = {"color": FLOOR, "ls": ":"}
            error.plot(sigma, sigma, **plain)
            entry("noisy picture", **plain)
        if i == 0 and judged:
            line = {"color": FLOOR, "marker": "s", "ls": "--"}
            _band(error, sigma, root_mean_square(found.wiener), line)
            entry("Wiener filter", **line)
            better.axhline(0, color=FLOOR, ls="--")
        line = {"color": OTHERS[i % len(OTHERS)], "marker": "o"}
        _band(error, sigma, root_mean_square(found.learned), line)
        if judged:
            _band(better, sigma, gain(found.wiener, found.learned), line)
        entry(results.label(model), **line)
    error.set_title(f"{found.sizes['image']} test pictures")
    error.set(xscale="log", yscale="log", xlabel="σ of the noise", ylabel="RMSE")
    if judged:
        better.set(xscale="log", xlabel="σ of the noise", ylabel="gain over the Wiener filter (dB)")
        better.set_ylim(bottom=min(0, better.get_ylim()[0]))
    legend_below(figure, handles, labels)
    return figure


def _band(axis: Axes, sigma: ArrayLike, found: np.ndarray, line: dict[str, object]) -> None:
    value, low, high = found
    axis.plot(sigma, value, markersize=3, **line)
    axis.fill_between(sigma, low, high, color=line["color"], alpha=0.2, lw=0)
