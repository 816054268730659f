"""The kinetic-energy spectrum of every method against that of the truth.

    E_p / E_g = mean_{cases} E_p(k) / mean_{cases} E_g(k),

with the energies of each case averaged over members and times.
"""

__all__ = ["draw", "energies", "energy_ratio"]

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from priorflow.metrics.spectrum import energy_spectrum
from priorflow.stages.figures.base import Results, units
from priorflow.stages.figures.style import (
    TRUTH,
    axis_label,
    case_title,
    house_style,
    legend_below,
    lines_of,
    look,
    panels,
    plain_log,
)
from priorflow.stages.statistics import Estimate, pooled_ratio

SHADOW = {"color": TRUTH, "lw": 4, "alpha": 0.25, "zorder": 0.9}  # the truth lies below all lines
FORCED = {"color": "#bdbdbd", "lw": 0.8, "zorder": 0.8}
CUTOFF = {"color": "#555555", "lw": 0.9, "ls": ":", "zorder": 0.8}
FAR = 10.0  # the greatest ratio, and the inverse of the least, that is shown


def energies(fields: xr.DataArray) -> np.ndarray:
    """E(1), …, E(size / 2) of states (case, …, size, size), the mean of each case: (case, k)."""
    # case by case: the transform needs several times the memory of the fields
    spectra = [energy_spectrum(values) for values in fields.transpose("case", ...).values]
    return np.array([s.reshape(-1, s.shape[-1]).mean(0) for s in spectra])


def energy_ratio(state: np.ndarray, truth: np.ndarray) -> list[Estimate]:
    """E_p / E_g at every wavenumber, with its interval over cases, from energies (case, k)."""
    roots = [
        pooled_ratio(pd.Series(a), pd.Series(b)) for a, b in zip(state.T, truth.T, strict=True)
    ]
    return [Estimate(e.value**2, e.low**2, e.high**2, e.n) for e in roots]


@house_style
def draw(
    results: Results, forced: Sequence[float] = (), cutoff: float | None = None, bands: bool = True
) -> Figure:
    """The spectrum above, its ratio to that of the truth below; a column for every task.

    Args:
        results: Needs posteriors and observations of states (size, size) on the torus [0, 2π)².
        forced: Wavenumbers |k| at which the flow is forced.
        cutoff: Where dealiasing cuts off each component of the wavenumber, as a share of the size;
            None if the grid of the states does not show it.
        bands: Whether to draw 95 % intervals of the ratio.
    """
    figure, axes = panels(
        2, len(results.tasks), height=12.2, sharex=True, sharey="row", height_ratios=(1.3, 1)
    )
    ends, methods = [], []
    for (above, below), task in zip(axes.T, results.tasks, strict=True):
        whole = results.observations(task)
        size = whole.truth.shape[-1]
        mean = energies(whole.truth).mean(0)
        k = np.arange(1, len(mean) + 1)
        last = size / 2 if cutoff is None else cutoff * size
        inside = k <= last
        ends.append((mean[inside].min(), mean.max()))
        above.plot(k, mean, **SHADOW)
        below.axhline(1, **SHADOW)
        counts = set()
        for method in results.shown(task):
            posterior, observations = results.matched(method, task)
            state, truth = energies(posterior.state), energies(observations.truth)
            found = energy_ratio(state[:, inside], truth[:, inside])
            value, low, high = np.array([(e.value, e.low, e.high) for e in found]).T
            line = look(method, results.facts).line()
            above.plot(k, state.mean(0), lw=1, **line)
            below.plot(k[inside], value, lw=1, **line)
            if bands:
                below.fill_between(k[inside], low, high, color=line["color"], alpha=0.15, lw=0)
            counts.add(len(state))
            methods.append(method)
        for axis in (above, below):
            for wavenumber in forced:
                axis.axvline(wavenumber, **FORCED)
            if cutoff is not None:
                axis.axvline(last, **CUTOFF)
        above.set_title(case_title(results.label(task), counts, 80 // len(results.tasks)))
        octaves = [2**i for i in range(int(np.log2(k[-1])) + 1)]
        below.set(xscale="log", xlabel="wavenumber k", xlim=(1, k[-1]))
        below.set_xticks(octaves, [f"{octave}" for octave in octaves])
        below.xaxis.set_minor_locator(NullLocator())
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    axes[0, 0].set(yscale="log", ylim=(lowest / 8, 3 * highest))
    axes[0, 0].set_ylabel(axis_label("kinetic energy E(k)", units(whole)))
    ratios = np.concatenate([line.get_ydata() for axis in axes[1] for line in axis.lines])
    end = min(1.2 * np.exp(np.abs(np.log(ratios[ratios > 0])).max()), FAR)
    axes[1, 0].set_ylim(1 / end, end)
    plain_log(axes[1, 0])
    axes[1, 0].set_ylabel("E(k) / that of the truth")
    methods = list(dict.fromkeys(methods))
    handles = [Line2D([], [], **SHADOW)]
    handles += lines_of(methods, results.facts)
    labels = ["truth", *map(results.label, methods)]
    if forced:
        handles.append(Line2D([], [], **FORCED))
        labels.append("forced wavenumbers")
    if cutoff is not None:
        handles.append(Line2D([], [], **CUTOFF))
        labels.append("dealiasing cut-off")
    legend_below(figure, handles, labels)
    return figure
