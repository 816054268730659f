"""Vorticity from velocities at places as a laboratory finds it: interpolate, smooth, differentiate.

Nothing is known of the past or of flows: the floor for particle image velocimetry.
"""

__all__ = ["Curl"]

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from priorflow.operators.spectral import curl, wavenumbers
from priorflow.priors.base import StateSpace
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite

PERIOD = 2 * math.pi
SPACINGS = 8  # copies of the places reach so many mean distances beyond the square


@dataclass(frozen=True)
class Curl:
    """Every state from its own observation alone: ∂v/∂x - ∂u/∂y of the interpolated velocity.

    The velocities are interpolated on the triangles between their places and the periodic copies of
    those; then comes the Gaussian filter exp(-|k|² s² / 2), as the derivative amplifies what noise
    there is; then the spectral derivative. All members are equal, so the spread is 0 and the CRPS
    is the absolute error.

    Attributes:
        order: 1 for linear, 3 for cubic, the scheme of Clough and Tocher.
        smoothing: s, the standard deviation of the filter in space, in units of [0, 2π).
    """

    order: Literal[1, 3] = 3
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.order not in (1, 3):
            raise ValueError(f"order: value {self.order!r}, allowed: (1, 3)")
        if not 0 <= self.smoothing < math.inf:
            raise ValueError(f"smoothing: value {self.smoothing}, allowed: finite, not negative")

    def __call__(
        self, y: Tensor, operator: Any, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, 2, m) to states (cases, members, time, size, size).

        Raises:
            ValueError: The operator has no places of velocities, or they leave a hole.
            Diverged: A state is not finite.
        """
        places = getattr(operator, "places", None)
        if places is None:
            raise ValueError("operator: no places, allowed: one that observes velocities at places")
        places = places.expand(len(y), *places.shape[-2:])
        size = prior.shape[-1]
        flow = torch.stack([self._on_grid(*case, size) for case in zip(y, places, strict=True)])
        ky, kx = wavenumbers(size)
        response = torch.exp(-(ky**2 + kx**2) * self.smoothing**2 / 2).to(flow)
        x = torch.fft.irfft2(response * torch.fft.rfft2(curl(flow)), s=(size, size))
        for k in range(x.shape[1]):
            require_finite(x[:, k], k)
        return Posterior(x.unsqueeze(1).repeat_interleave(members, 1))

    def _on_grid(self, y: Tensor, places: Tensor, size: int) -> Tensor:
        """Velocities (time, 2, m) at places (m, 2) to flows (time, 2, size, size)."""
        from scipy.interpolate import CloughTocher2DInterpolator, LinearNDInterpolator

        places = places.cpu().numpy()
        turns = np.stack(np.meshgrid(*[(-PERIOD, 0, PERIOD)] * 2), axis=-1).reshape(-1, 1, 2)
        copies = (places + turns).reshape(-1, 2)
        margin = PERIOD * min(1, SPACINGS / math.sqrt(len(places)))
        near = ((copies >= -margin) & (copies <= PERIOD + margin)).all(1)
        values = np.tile(y.flatten(0, 1).cpu().numpy().T, (len(turns), 1))
        method = LinearNDInterpolator if self.order == 1 else CloughTocher2DInterpolator
        axis = np.arange(size) * PERIOD / size
        grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
        flow = method(copies[near], values[near])(grid)
        if np.isnan(flow).any():
            raise ValueError(f"places: {len(places)} leave a hole, allowed: all over the square")
        return torch.from_numpy(flow).to(y).movedim(-1, 0).unflatten(0, y.shape[:2])
