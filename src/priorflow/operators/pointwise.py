"""Operators that look at single components of a state vector (…, d)."""

__all__ = ["Arctan", "Components", "Cube"]

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arctan:
    """y = arctan(x_i) + γ η: saturating, so that large states are hardly told apart.

    Applied to standardised states, with i = 0 and γ = 0.25, it is the observation of Lorenz-63 in
    FlowDAS (arXiv 2501.16642, section 4.1).
    """

    noise_std: float = 0.25
    component: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """States (…, d) to observations (…, 1)."""
        return x[..., self.component, None].atan()


@dataclass(frozen=True)
class Cube:
    """y = x³ + γ η, component by component: the observation of the double well in FlowDAS (D.1)."""

    noise_std: float = 0.2

    def __call__(self, x: Tensor) -> Tensor:
        """States (…, d) to observations (…, d)."""
        return x**3


@dataclass(frozen=True)
class Components:
    """y = x[start::stride] + γ η: every `stride`-th component of a vector of length `size`.

    Linear: also has the transpose, the pseudo-inverse (here the same) and the matrix.
    """

    size: int
    noise_std: float = 0.1
    start: int = 0
    stride: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """States (…, d) to observations (…, m)."""
        return x[..., self.start :: self.stride]

    def adjoint(self, y: Tensor) -> Tensor:
        """Observations (…, m) to states (…, d), zero where nothing is observed."""
        x = y.new_zeros(*y.shape[:-1], self.size)
        x[..., self.start :: self.stride] = y
        return x

    pinv = adjoint

    def matrix(self) -> Tensor:
        """The matrix A, shape (m, d)."""
        return self(torch.eye(self.size)).T
