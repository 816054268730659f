"""A damped spring under a random force: linear and Gaussian, so everything is known exactly."""

__all__ = ["DampedSpring"]

from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.rng import Streams
from priorflow.systems.base import GaussianSystem


@dataclass(frozen=True)
class DampedSpring(GaussianSystem):
    """Position, velocity, acceleration and wind of `copies` independent springs, d = 4 copies.

    x_{k+1} = A x_k + q ⊙ z with x_0 ~ N(initial_mean, I). Stacking copies keeps the problem exactly
    solvable in any dimension, which is what shows the curse of dimensionality of particle filters.

    Reference:
        Score-based Data Assimilation (Rozet & Louppe, 2023), released code, `DampedSpring`.
    """

    copies: int = 1
    dt: float = 0.01

    @property
    def shape(self) -> tuple[int, ...]:
        """(4 copies,)."""
        return (4 * self.copies,)

    @property
    def mean(self) -> Tensor:
        """No standardisation: the components are of order one."""
        return torch.zeros(self.shape)

    @property
    def std(self) -> Tensor:
        """No standardisation: the components are of order one."""
        return torch.ones(self.shape)

    @property
    def matrix(self) -> Tensor:
        """The transition matrix A, shape (d, d), block-diagonal."""
        dt = self.dt
        block = torch.tensor(
            [[1, dt, dt**2 / 2, 0], [0, 1, dt, 0], [-0.5, -0.1, 0, 0.2], [0, 0, 0, 0.99]]
        )
        return torch.block_diag(*[block] * self.copies)

    @property
    def noise_std(self) -> Tensor:
        """Standard deviation of the noise of one transition, shape (d,)."""
        variance = torch.tensor([0.1, 0.1, 0.1, 1.0]) * self.dt
        return variance.sqrt().repeat(self.copies)

    @property
    def initial_mean(self) -> Tensor:
        """Mean of x_0, shape (d,)."""
        return torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(self.copies)

    @property
    def initial_covariance(self) -> Tensor:
        """Covariance of x_0, shape (d, d)."""
        return torch.eye(4 * self.copies)

    def initial(self, members: int, rng: Streams) -> Tensor:
        """Draws from N(initial_mean, I)."""
        z = rng.normal(members, 4 * self.copies)
        return self.initial_mean.to(z) + z

    def advance(self, x: Tensor) -> Tensor:
        """A x, shape (…, d)."""
        return x @ self.matrix.to(x).T
