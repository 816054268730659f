"""Linear operators on images whose singular value decomposition is known, A = U diag(s) Vᵀ.

The decomposition gives the pseudo-inverse and the proximal map in closed form, and the solvers that
are written in its coordinates (DDNM, DDRM) run on any of these operators.
"""

__all__ = ["Decomposed"]

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

CUTOFF = 3e-2  # of noisy observations, as in DDNM's released code
ROUNDING = 1e-5  # without noise: what single precision can invert


class Decomposed(ABC):
    """A = U diag(s) Vᵀ with orthonormal (unitary) U and V.

    Coefficients have the shape of an image (…, C, H, W), or of its half-spectrum where they are
    complex; those that no observation sees have s = 0, and `to_left` leaves a zero there. V is
    square, so that `from_right(to_right(x))` is x. White noise in coefficients is the transform of
    white noise in images.

    Attributes:
        shape: (C, H, W).
        noise_std: γ, on the scale of the images, [-1, 1].
    """

    shape: Sequence[int]
    noise_std: float

    @property
    @abstractmethod
    def singular_values(self) -> Tensor:
        """s ≥ 0, real, of a shape that broadcasts with coefficients."""

    @abstractmethod
    def to_right(self, x: Tensor) -> Tensor:
        """Vᵀ x: images (…, C, H, W) to coefficients."""

    @abstractmethod
    def from_right(self, c: Tensor) -> Tensor:
        """V c: coefficients to images."""

    @abstractmethod
    def to_left(self, y: Tensor) -> Tensor:
        """Uᵀ y: observations (…, \\*obs) to coefficients."""

    @abstractmethod
    def from_left(self, c: Tensor) -> Tensor:
        """U c: coefficients to observations; what lies where s = 0 is dropped."""

    def __call__(self, x: Tensor) -> Tensor:
        """A x: images (…, C, H, W) to observations (…, \\*obs)."""
        return self.from_left(self.singular_values.to(x) * self.to_right(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y: observations to images."""
        return self.from_right(self.singular_values.to(y) * self.to_left(y))

    @property
    def cutoff(self) -> float:
        """The singular values up to which those that invert A take s for zero.

        0.03 where y has noise, which smaller ones would amplify; else 1e-5, as there is none.
        """
        return CUTOFF if self.noise_std else ROUNDING

    def pinv(self, y: Tensor, cutoff: float | None = None) -> Tensor:
        """The least image that is observed as y, from the singular values above `cutoff`."""
        s = self.singular_values.to(y)
        cutoff = self.cutoff if cutoff is None else cutoff
        inverse = torch.where(s > cutoff, 1 / s.clamp(min=cutoff), 0)
        return self.from_right(inverse * self.to_left(y))

    def prox(
        self,
        z0: Tensor,
        y: Tensor,
        variance: float | Tensor,
        noise_std: float | None = None,
    ) -> Tensor:
        """argmin_z |y - A z|² / 2γ² + |z - z0|² / 2c = V (γ² Vᵀz0 + c s Uᵀy) / (γ² + c s²).

        Args:
            z0: Images, shape (…, C, H, W).
            y: Observations, shape (…, \\*obs).
            variance: c > 0, a number or a tensor that broadcasts with coefficients.
            noise_std: γ in the place of the operator's own; positive where some s is zero.
        """
        s = self.singular_values.to(z0)
        g = (self.noise_std if noise_std is None else noise_std) ** 2
        numerator = g * self.to_right(z0) + variance * s * self.to_left(y)
        return self.from_right(numerator / (g + variance * s.square()))

    @property
    def condition(self) -> float:
        """The largest singular value over the smallest; infinite where A is not invertible."""
        s = self.singular_values
        return float(s.max() / s.min()) if s.min() > 0 else float("inf")

    def conditioning(self) -> tuple[Tensor, Tensor]:
        """κ and the rank deficiency of A, each of shape (images,), or (1,) where all share A.

        Returns:
            The largest singular value over the smallest that is not zero, and how many of the
            C H W are zero: the dimensions of what no observation sees.
        """
        (channels, height, width), s = self.shape, self.singular_values.double()
        if s.shape[-1] == width // 2 + 1 < width:  # half of a spectrum: the rest mirrors it
            column = torch.arange(width, device=s.device)
            s = s[..., torch.minimum(column, width - column)]
        s = s.reshape(-1, height * width)
        seen = s > 0
        condition = s.amax(1) / s.where(seen, torch.inf).amin(1)
        return condition, channels * (~seen).sum(1)
