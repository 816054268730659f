"""The noisy Lorenz system (Lorenz, 1963), as in SDA and FlowDAS."""

__all__ = ["Lorenz63"]

from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.rng import Streams
from priorflow.systems.base import GaussianSystem


@dataclass(frozen=True)
class Lorenz63(GaussianSystem):
    """One Runge-Kutta step of Lorenz-63 of length dt, then noise of variance dt per component.

        a' = σ (b - a),   b' = a (ρ - c) - b,   c' = a b - β c

    The noise variance is dt = 0.025 (standard deviation 0.158): the prose of FlowDAS gives 0.025 as
    the standard deviation, but its table holds only for the variance (the expected log-density of
    14 transitions is 17.87 for the variance, 95.3 for the standard deviation).

    References:
        | Score-based Data Assimilation (Rozet & Louppe, 2023), section 4.1
        | FlowDAS (Chen et al., 2025), section 4.1 and D.2, arXiv 2501.16642
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    dt: float = 0.025
    burn_in: int = 64

    shape = (3,)
    mean = torch.tensor([0.0, 0.0, 25.0])
    std = torch.tensor([8.0, 9.0, 8.6])

    @property
    def noise_std(self) -> Tensor:
        """Standard deviation of the noise of one transition, shape (3,)."""
        return torch.full((3,), self.dt**0.5)

    def initial(self, members: int, rng: Streams) -> Tensor:
        """Draws of the climate: a broad Gaussian, run for `burn_in` transitions."""
        covariance = torch.tensor([[64.0, 50.0, 0.0], [50.0, 81.0, 0.0], [0.0, 0.0, 75.0]])
        z = rng.normal(members, 3)
        x = self.mean.to(z) + z @ torch.linalg.cholesky(covariance).to(z).T
        for _ in range(self.burn_in):
            x = self.step(x, rng)
        return x

    def tendency(self, x: Tensor) -> Tensor:
        """dx/dt, shape (…, 3)."""
        a, b, c = x.unbind(-1)
        return torch.stack(
            (self.sigma * (b - a), a * (self.rho - c) - b, a * b - self.beta * c), dim=-1
        )

    def advance(self, x: Tensor) -> Tensor:
        """One step of the classical Runge-Kutta method, shape (…, 3)."""
        k1 = self.tendency(x)
        k2 = self.tendency(x + self.dt / 2 * k1)
        k3 = self.tendency(x + self.dt / 2 * k2)
        k4 = self.tendency(x + self.dt * k3)
        return x + self.dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
