"""How well displacements are measured in pictures of particles whose displacement is known."""

__all__ = ["draw", "measured"]

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from priorflow.rng import Streams
from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import axis_label, house_style, legend_below, panels, plain_log
from priorflow.stages.figures.sweeps import bar_lengths
from priorflow.stages.statistics import bootstrap_interval
from priorflow.systems.camera import Camera
from priorflow.systems.velocimetry import Vectors, correlate, detect, track

DIRECTION = (0.6, 0.8)  # of the shifts, (y, x)
LOOKS = {
    "correlation": ("correlation of 32² windows (OpenPIV)", "#0072B2", "s"),
    "tracking": ("tracking of particles", "#D55E00", "o"),
}
MISSING = "OpenPIV is not installed: pip install priorflow[piv]"
TARGET = 0.1  # pixels


def _correlated(first: np.ndarray, second: np.ndarray) -> Vectors:
    return correlate(first, second, windows=(32, 32))


def _tracked(first: np.ndarray, second: np.ndarray) -> Vectors:
    return track(detect(first), detect(second), reach=4.0)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], Vectors]] = {
    "correlation": _correlated,
    "tracking": _tracked,
}


def measured(camera: Camera, shift: float, method: str, cases: int) -> np.ndarray:
    """Errors along the shift, measured minus true, in pixels.

    Args:
        camera: Takes the pictures.
        shift: The same displacement everywhere, in pixels.
        method: `correlation` or `tracking`.
        cases: Pairs of pictures, each with other particles.

    Returns:
        Per pair the mean error along the shift, the root mean square of a component of valid
        vectors, and its median: shape (3, cases).
    """
    true = shift * np.array(DIRECTION)
    speed = torch.from_numpy(true) / (camera.scale * camera.interval)
    pair = camera.pair(lambda places: speed.expand_as(places), Streams(0, cases=range(cases)))
    found = []
    for shots in pair.pictures.numpy():
        vectors = METHODS[method](*shots)
        off = (vectors.displacements - true)[vectors.valid]
        along = off @ np.array(DIRECTION)
        found.append((along.mean(), np.sqrt((off**2).mean()), np.median(np.abs(off))))
    return np.array(found).T


@house_style
def draw(
    results: Results,
    shifts: Sequence[float] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0),
    densities: Sequence[float] = (0.01, 0.03, 0.1),
    pixels: int = 128,
    noise_std: float = 5.0,
    cases: int = 4,
) -> Figure:
    """Bias and rms against the shift, at the published density, and rms against the density.

    Args:
        results: Not used: the pictures are made here.
        shifts: True displacements, in pixels, the same everywhere.
        densities: Particles per pixel of the picture.
        pixels: Of a picture along each side.
        noise_std: Noise of a pixel, in grey levels of 255.
        cases: Pairs of pictures of every setting.
    """
    figure, (axes,) = panels(1, 3, height=7.0)
    absent = ""
    for name, (_, colour, marker) in LOOKS.items():
        style = {"color": colour, "marker": marker, "elinewidth": 0.9, "capsize": 1.8}

        def camera(density: float) -> Camera:
            return Camera(pixels, interval=1.0, density=density, noise_std=noise_std)

        try:
            along = [measured(camera(0.03), shift, name, cases) for shift in shifts]
            dense = [measured(camera(density), 0.6, name, cases) for density in densities]
        except ModuleNotFoundError:
            absent = MISSING
            continue
        for axis, x, values, i, dash in (
            (axes[0], shifts, along, 0, "-"),
            (axes[1], shifts, along, 1, "-"),
            (axes[1], shifts, along, 2, (0, (1, 1))),
            (axes[2], densities, dense, 1, "-"),
            (axes[2], densities, dense, 2, (0, (1, 1))),
        ):
            found = [bootstrap_interval(v[i]) for v in values]
            axis.errorbar(x, [e.value for e in found], bar_lengths(found), ls=dash, **style)
    axes[0].axhline(0, color="#8c8c8c", lw=0.8)
    axes[0].set_ylabel(axis_label("bias along the shift", "pixels"))
    axes[0].locator_params(axis="y", nbins=5)
    axes[0].yaxis.set_major_formatter("{x:g}")
    for axis in axes[:2]:
        axis.set_xlabel(axis_label("true shift", "pixels"))
    for axis in axes[1:]:
        axis.axhline(TARGET, color="#8c8c8c", lw=0.8)
        axis.set_ylabel(axis_label("error of a component", "pixels"))
        plain_log(axis)
    axes[2].set_xscale("log")
    axes[2].set_xticks(densities, [f"{density:g}" for density in densities])
    axes[2].minorticks_off()
    axes[2].set_xlabel("particles per pixel")
    if absent:
        axes[0].set_title(absent, loc="left")
    handles = [Line2D([], [], color=c, marker=m) for _, c, m in LOOKS.values()]
    names = [label for label, _, _ in LOOKS.values()]
    handles += [Line2D([], [], color="#444444", ls=ls) for ls in ("-", (0, (1, 1)))]
    legend_below(figure, handles, [*names, "rms", "median"])
    return figure
