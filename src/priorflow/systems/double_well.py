"""A particle in a double-well potential, as in FlowDAS (D.1)."""

__all__ = ["DoubleWell"]

from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.rng import Streams
from priorflow.systems.base import GaussianSystem


@dataclass(frozen=True)
class DoubleWell(GaussianSystem):
    """Euler-Maruyama steps of dX = -U'(X) dt + s dB with U(x) = x⁴ - 2x² and wells at ±1.

    Reference:
        FlowDAS (Chen et al., 2025), D.1, arXiv 2501.16642: dt = 0.1, s = 0.2, X_0 ~ U[-2, 2].
    """

    noise: float = 0.2
    dt: float = 0.1

    shape = (1,)
    mean = torch.zeros(1)
    std = torch.ones(1)

    @property
    def noise_std(self) -> Tensor:
        """Standard deviation of the noise of one transition, shape (1,)."""
        return torch.full((1,), self.noise * self.dt**0.5)

    def initial(self, members: int, rng: Streams) -> Tensor:
        """Draws from U[-2, 2]."""
        return 4 * rng.uniform(members, 1) - 2

    def advance(self, x: Tensor) -> Tensor:
        """One Euler step down the potential, shape (…, 1)."""
        return x - self.dt * (4 * x**3 - 4 * x)
