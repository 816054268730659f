"""Interpolation of the observations in space: the floor for fields, without dynamics or prior."""

__all__ = ["Interpolation"]

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from priorflow.priors.base import StateSpace
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite

PERIOD = 2 * math.pi
SPACINGS = 8  # copies of the observations reach so many mean distances beyond the square


@dataclass(frozen=True)
class Interpolation:
    """Every state from its own observation y_k alone, as values at `operator.positions`.

    Where the positions (m, 2) in [0, 2π)² are a grid, by a periodic spline along rows and columns;
    where they are scattered, on the triangles between them and their periodic copies. Both are
    linear in y, and go through it, noise included. An operator that averages is taken to look at
    the point of its position. A field that is not periodic is on triangles always, and beyond those
    it is the nearest observation.

    All members are equal, so the spread is 0 and the CRPS is the absolute error.

    Attributes:
        order: 1 for (bi)linear, 3 for (bi)cubic: on triangles the scheme of Clough and Tocher.
        periodic: Whether the field goes on at its opposite edge.
    """

    order: Literal[1, 3] = 3
    periodic: bool = True

    def __post_init__(self) -> None:
        if self.order not in (1, 3):
            raise ValueError(f"order: value {self.order!r}, allowed: (1, 3)")

    def __call__(
        self, y: Tensor, operator: Any, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to states (cases, members, time, height, width).

        Raises:
            ValueError: The operator has no positions, or they leave a hole.
            Diverged: A state is not finite.
        """
        positions = getattr(operator, "positions", None)
        if positions is None:
            raise ValueError("operator: no positions, allowed: one with positions (m, 2)")
        places = tuple(map(tuple, positions.tolist()))
        weights = _weights(places, tuple(prior.shape), self.order, self.periodic).to(y)
        x = (y.flatten(2) @ weights.T).unflatten(-1, prior.shape)
        for k in range(y.shape[1]):
            require_finite(x[:, k], k)
        return Posterior(x.unsqueeze(1).repeat_interleave(members, 1))


@lru_cache(maxsize=4)
def _weights(
    places: tuple[tuple[float, float], ...], shape: tuple[int, int], order: int, periodic: bool
) -> Tensor:
    """The matrix (height width, m) from values at the places to the field."""
    observed = np.array(places)
    rows, columns = np.unique(observed[:, 0]), np.unique(observed[:, 1])
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    targets = [np.arange(n) * PERIOD / n for n in shape]
    if not periodic:
        matrix = _bounded(observed, targets, order)
    elif np.array_equal(grid, observed):
        along = [_spline(*axis, order) for axis in zip((rows, columns), targets, strict=True)]
        matrix = np.kron(*along)
    else:
        matrix = _scattered(observed, targets, order)
    return torch.from_numpy(matrix).float()


def _spline(knots: np.ndarray, targets: np.ndarray, order: int) -> np.ndarray:
    """The matrix (targets, knots) of the periodic spline through values at the knots."""
    from scipy.interpolate import make_interp_spline

    once_round = np.append(knots, knots[0] + PERIOD)
    values = np.eye(len(knots))[np.r_[: len(knots), 0]]
    spline = make_interp_spline(once_round, values, k=order, bc_type="periodic")
    return spline(np.where(targets < knots[0], targets + PERIOD, targets))


def _scattered(observed: np.ndarray, targets: list[np.ndarray], order: int) -> np.ndarray:
    """The matrix (targets, m) on the triangles between observed places and their copies."""
    m = len(observed)
    turns = np.stack(np.meshgrid(*[(-PERIOD, 0, PERIOD)] * 2), axis=-1).reshape(-1, 1, 2)
    copies, of = (observed + turns).reshape(-1, 2), np.tile(np.arange(m), len(turns))
    margin = PERIOD * min(1, SPACINGS / math.sqrt(m))
    near = ((copies >= -margin) & (copies <= PERIOD + margin)).all(1)
    matrix = _on_triangles(copies[near], np.eye(m)[of[near]], _points(targets), order)
    if np.isnan(matrix).any():
        raise ValueError(f"positions: {m} leave a hole, allowed: places all over the square")
    return matrix


def _bounded(observed: np.ndarray, targets: list[np.ndarray], order: int) -> np.ndarray:
    """The matrix (targets, m) on the triangles between observed places, elsewhere the nearest."""
    from scipy.spatial import KDTree

    each, points = np.eye(len(observed)), _points(targets)
    matrix = _on_triangles(observed, each, points, order)
    _, nearest = KDTree(observed).query(points)
    return np.where(np.isnan(matrix), each[nearest], matrix)


def _points(targets: list[np.ndarray]) -> np.ndarray:
    return np.stack(np.meshgrid(*targets, indexing="ij"), axis=-1).reshape(-1, 2)


def _on_triangles(
    places: np.ndarray, values: np.ndarray, points: np.ndarray, order: int
) -> np.ndarray:
    """Values (places, m) at other points; NaN outside the triangles."""
    from scipy.interpolate import CloughTocher2DInterpolator, LinearNDInterpolator

    method = LinearNDInterpolator if order == 1 else CloughTocher2DInterpolator
    return method(places, values)(points)
