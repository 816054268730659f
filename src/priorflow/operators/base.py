"""The forward model A of an observation y = A(x) + γ η, η ~ N(0, I)."""

__all__ = ["LinearOperator", "Operator", "log_likelihood"]

import math
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Operator(Protocol):
    """A forward model.

    Attributes:
        noise_std: The standard deviation γ of the observation noise, in the units of y.
    """

    noise_std: float

    def __call__(self, x: Tensor) -> Tensor:
        """A(x): states (…, \\*state) to noise-free observations (…, \\*obs)."""
        ...


@runtime_checkable
class LinearOperator(Operator, Protocol):
    """A linear forward model, which also has a transpose."""

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀy: observations (…, \\*obs) to states (…, \\*state)."""
        ...


def log_likelihood(y: Tensor, prediction: Tensor, noise_std: float, ndim: int = 1) -> Tensor:
    """log N(y; prediction, γ² I), summed over the last `ndim` dimensions.

    Args:
        y: Observations, any shape that broadcasts with `prediction`.
        prediction: A(x), shape (…, \\*obs).
        noise_std: γ > 0.
        ndim: The number of dimensions of one observation.
    """
    residual = (y - prediction) / noise_std
    constant = math.log(noise_std) + 0.5 * math.log(2 * math.pi)
    return -(residual.square() / 2 + constant).flatten(-ndim).sum(-1)
