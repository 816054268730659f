"""Operators that look at a field (…, size, size) on the periodic square [0, 2π)², rows first.

Every observation is the mean of 1/w pixels of its own, which no other observation sees. So A has
the entries 0 and w, A Aᵀ = w I, and for a diagonal covariance C

    A C Aᵀ = w diag(A c),   c = diag C,

is diagonal too: the pseudo-inverse and the proximal map need no solver.
"""

__all__ = ["Downsample", "Points", "SeparateMeans"]

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from priorflow.operators.checks import check_noise
from priorflow.rng import generator


class SeparateMeans(ABC):
    """A linear operator of that kind; a subclass gives A, Aᵀ, w as `weight`, and `noise_std`."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x: fields (…, size, size) to observations (…, \\*obs)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y: observations (…, \\*obs) to fields (…, size, size)."""

    def pinv(self, y: Tensor) -> Tensor:
        """The least field that is observed as y, shape (…, size, size)."""
        return self.adjoint(y) / self.weight

    def prox(self, z0: Tensor, y: Tensor, variance: float | Tensor) -> Tensor:
        """argmin_z |y - A z|² / 2γ² + |z - z0|² / 2c, in closed form:

            z0 + C Aᵀ (A C Aᵀ + γ² I)⁻¹ (y - A z0).

        Args:
            z0: Fields, shape (…, size, size).
            y: Observations, shape (…, \\*obs).
            variance: c, a number or a tensor that broadcasts with `z0`, positive where γ = 0.
        """
        variance = torch.as_tensor(variance).to(z0)
        fields = variance.expand(torch.broadcast_shapes(variance.shape, z0.shape[-2:]))
        gain = (y - self(z0)) / (self.weight * self(fields) + self.noise_std**2)
        return z0 + variance * self.adjoint(gain)


@dataclass(frozen=True)
class Downsample(SeparateMeans):
    """y = the mean of the central 2 × 2 pixels of every block of factor × factor, + γ η.

    The published down-sampling: bilinear interpolation without anti-aliasing, which for a factor
    of 2 is the block mean (FlowDAS, arXiv 2501.16642, section 4.2 and released code).

    Attributes:
        size: Pixels of a field along each side.
        factor: Pixels of a block along each side: even, and a divisor of `size`.
        noise_std: γ.
    """

    size: int
    factor: int
    noise_std: float = 0.05

    weight = 0.25

    def __post_init__(self) -> None:
        if self.factor < 2 or self.factor % 2 or self.size % self.factor:
            raise ValueError(
                f"factor: value {self.factor}, allowed: even divisors of the size {self.size}"
            )
        check_noise(self.noise_std)

    @property
    def positions(self) -> Tensor:
        """Where the centres of the blocks are, (y, x), shape ((size / factor)², 2)."""
        first = (self.factor - 1) / 2
        centres = torch.arange(self.size // self.factor) * self.factor + first
        return torch.cartesian_prod(centres, centres) * (2 * math.pi / self.size)

    def __call__(self, x: Tensor) -> Tensor:
        """Fields (…, size, size) to observations (…, size / factor, size / factor)."""
        centres = self._centres(x)
        upper, lower = centres[..., 0, :, :], centres[..., 1, :, :]  # ten times as fast as `mean`
        return (upper[..., 0] + upper[..., 1] + lower[..., 0] + lower[..., 1]) * self.weight

    def adjoint(self, y: Tensor) -> Tensor:
        """Observations to fields, zero outside the central pixels."""
        x = y.new_zeros(*y.shape[:-2], self.size, self.size)
        self._centres(x).copy_(y[..., :, None, :, None] * self.weight)
        return x

    def _centres(self, x: Tensor) -> Tensor:
        """The central pixels of all blocks, a view of shape (…, rows, 2, columns, 2)."""
        blocks = (self.size // self.factor, self.factor)
        centre = slice(self.factor // 2 - 1, self.factor // 2 + 1)
        return x.unflatten(-1, blocks).unflatten(-3, blocks)[..., :, centre, :, centre]


@dataclass(frozen=True)
class Points(SeparateMeans):
    """y = the field at a fixed random choice of pixels, + γ η on those only.

    FlowDAS draws every pixel with probability 5 % or 1.5625 % of 128²: 819 and 256 on average.
    Here their number is exact; of two masks with one seed the smaller is part of the larger.

    Attributes:
        size: Pixels of a field along each side.
        count: Observed pixels; or else
        share: observed pixels per pixel of the field.
        noise_std: γ.
        seed: Which pixels: one mask for all cases and times.
    """

    size: int
    count: int | None = None
    share: float | None = None
    noise_std: float = 0.05
    seed: int = 0

    weight = 1.0

    def __post_init__(self) -> None:
        if (self.count is None) == (self.share is None):
            raise ValueError(
                f"count, share: values {self.count}, {self.share}, allowed: exactly one of them"
            )
        if self.count is not None and not 1 <= self.count <= self.size**2:
            raise ValueError(f"count: value {self.count}, allowed: 1 to {self.size**2}")
        if self.share is not None and not 0.5 < self.share * self.size**2 <= self.size**2:
            raise ValueError(f"share: value {self.share}, allowed: at least one pixel, up to 1")
        check_noise(self.noise_std)

    @cached_property
    def index(self) -> Tensor:
        """The observed pixels in ascending order, as positions in the flattened field."""
        count = self.count or round(self.share * self.size**2)
        order = torch.randperm(self.size**2, generator=generator(self.seed, "points", self.size))
        return order[:count].sort().values

    @property
    def positions(self) -> Tensor:
        """Where the observed pixels are, (y, x), shape (count, 2)."""
        pixels = torch.stack((self.index // self.size, self.index % self.size), dim=1)
        return pixels * (2 * math.pi / self.size)

    def __call__(self, x: Tensor) -> Tensor:
        """Fields (…, size, size) to observations (…, count)."""
        return x.flatten(-2).index_select(-1, self.index.to(x.device))

    def adjoint(self, y: Tensor) -> Tensor:
        """Observations to fields, zero where nothing is observed."""
        x = y.new_zeros(*y.shape[:-1], self.size**2)
        return x.index_copy(-1, self.index.to(y.device), y).unflatten(-1, (self.size, self.size))
