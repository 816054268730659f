"""Wasserstein-1 distance between the places that an ensemble and the truth visit."""

__all__ = ["POINTS", "w1"]

import numpy as np
import xarray as xr

from priorflow.metrics.base import Case, aligned

POINTS = 4096  # at most so many points of the ensemble per case: the cost matrix is POINTS x time


def w1(posterior: xr.Dataset, case: Case) -> xr.DataArray:
    """Earth mover's distance in state space, in standardised units: (case,).

    For one case: the distance between the uniform law on the M K points x_{m,k} that the members
    visit over the window and the uniform law on the K points of the truth, with the Euclidean
    distance between states as cost. Of more than `POINTS` points, evenly spaced members are kept.
    A shift of all states by a vector d costs exactly |d|.

    The order of the points in time does not matter, so this is not the distance between laws of
    trajectories. It is not comparable with the published 0.106 (FlowDAS, table 1), whose definition
    is not given. That one cannot be a distance between laws of trajectories: next to an RMSE of
    0.202 over 15 states of 3 components such a distance is about √45 · 0.202 = 1.36.
    """
    import ot

    state, truth = aligned(posterior, case)
    members, times = state.sizes["member"], truth[0].shape[0]
    kept = max(1, min(members, POINTS // times))
    state = state.isel(member=np.linspace(0, members - 1, kept).round().astype(int))
    out = truth.isel({dim: 0 for dim in truth.dims if dim != "case"}, drop=True)
    x = state.values.reshape(len(truth), kept * times, -1).astype(float)
    z = truth.values.reshape(len(truth), times, -1).astype(float)
    values = [
        ot.emd2([], [], ot.dist(a, b, metric="euclidean"), numItermax=10_000_000)
        for a, b in zip(x, z, strict=True)
    ]
    return out.copy(data=np.asarray(values, dtype=out.dtype))
