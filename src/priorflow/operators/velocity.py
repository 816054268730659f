"""Operators that look at the velocity of a flow, where its state is the vorticity ω.

On the torus [0, 2π)² the velocity follows from a Poisson equation, -∇²ψ = ω, u = ∂ψ/∂y,
v = -∂ψ/∂x (see `priorflow.operators.spectral`), and at any place from the Fourier series of u and
v, which is exact for a field that its grid resolves. Both are linear: with w_p the weights that
interpolate at place p, and B_u the map from ω to u, which is skew-symmetric,

    y_p = (w_p · B_u ω, w_p · B_v ω) = -(B_u w_p, B_v w_p) · ω,

so that the rows of A are the velocities, with the other sign, of flows with the vorticity w_p.

Reference:
    FlowDAS (Chen et al., 2025), D.4, arXiv 2501.16642: particle image velocimetry
"""

__all__ = [
    "Particles",
    "RandomParticles",
    "Strewn",
    "Velocities",
    "VelocityOperator",
    "Windows",
    "sample",
]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from priorflow.operators.checks import check_noise
from priorflow.operators.spectral import velocity
from priorflow.rng import generator

PERIOD = 2 * math.pi


class VelocityOperator:
    """y = (u, v) at m places, + γ η: fields (…, size, size) to observations (…, 2, m).

    Of states that are standardised, vorticity over its rms, the velocity is over that rms, too.
    A subclass gives `places`, `size` and `noise_std`, and `width` where it takes means.

    Attributes:
        places: (y, x) in [0, 2π), shape (m, 2); (cases, m, 2) where every case has its own: then
            the first axis of fields and of observations is that of the cases, or of length 1.
        size: Pixels of a field along each side.
        noise_std: γ, in the units of the velocity.
        width: The side of the square around a place of which the mean is seen; 0 for the place.
    """

    places: Tensor
    size: int
    noise_std: float
    width: float = 0.0

    @property
    def positions(self) -> Tensor | None:
        """(y, x) of every number in a flattened y, shape (2 m, 2); None if cases differ."""
        return self.places.repeat(2, 1) if self.places.ndim == 2 else None

    @cached_property
    def matrix(self) -> Tensor:
        """A, shape (2 m, size²) or (cases, 2 m, size²), float32."""
        rows, columns = (_weights(p, self.size, self.width) for p in self.places.unbind(-1))
        seen = rows.unsqueeze(-1) * columns.unsqueeze(-2)
        return -velocity(seen).movedim(-3, -4).flatten(-2).flatten(-3, -2).float()

    @cached_property
    def gram(self) -> Tensor:
        """A Aᵀ, shape (2 m, 2 m) or (cases, 2 m, 2 m), float64."""
        a = self.matrix.double()
        return a @ a.mT

    def __call__(self, x: Tensor) -> Tensor:
        """A x: fields (…, size, size) to observations (…, 2, m)."""
        y = _apply(self.matrix.to(x), x.flatten(-2))
        return y.unflatten(-1, (2, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y: observations (…, 2, m) to fields (…, size, size)."""
        x = _apply(self.matrix.to(y).mT, y.flatten(-2))
        return x.unflatten(-1, (self.size, self.size))

    def prox(self, z0: Tensor, y: Tensor, variance: float) -> Tensor:
        """argmin_z |y - A z|² / 2γ² + |z - z0|² / 2c = z0 + c Aᵀ (c A Aᵀ + γ² I)⁻¹ (y - A z0).

        Args:
            z0: Fields, shape (…, size, size).
            y: Observations, shape (…, 2, m).
            variance: c > 0.
        """
        residual = (y - self(z0)).flatten(-2)
        gram = self.gram.to(z0.device)
        system = variance * gram + self.noise_std**2 * torch.eye(gram.shape[-1]).to(gram)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
        gain = _apply(inverse, residual.double()).to(z0)
        return z0 + variance * self.adjoint(gain.unflatten(-1, (2, -1)))


@dataclass(frozen=True, eq=False)
class Velocities(VelocityOperator):
    """The velocity at given places.

    Attributes:
        places: (y, x) in [0, 2π), shape (m, 2), or (cases, m, 2) for fields (cases, …, size, size).
        size: Pixels of a field along each side.
        noise_std: γ, in the units of the velocity.
    """

    places: Tensor
    size: int
    noise_std: float = 0.25


@dataclass(frozen=True)
class Windows(VelocityOperator):
    """The velocity at the centres of a grid of interrogation windows, or its mean over each.

    Attributes:
        size: Pixels of a field along each side.
        side: Windows along each side.
        width: The side of a window over which it takes the mean, in [0, 2π); 0 for its centre.
        noise_std: γ, in the units of the velocity.
    """

    size: int
    side: int
    width: float = 0.0
    noise_std: float = 0.25

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side: value {self.side}, allowed: at least 1")
        if not 0 <= self.width < PERIOD:
            raise ValueError(f"width: value {self.width}, allowed: 0 to 2π, without 2π")
        check_noise(self.noise_std)

    @property
    def places(self) -> Tensor:
        """(y, x) of the centres, shape (side², 2)."""
        centres = (torch.arange(self.side, dtype=torch.float64) + 0.5) * (PERIOD / self.side)
        return torch.cartesian_prod(centres, centres)


@dataclass(frozen=True)
class Strewn:
    """Particles at random places.

    Attributes:
        size: Pixels of a field along each side.
        count: Particles; or else
        density: particles per pixel of the field.
        noise_std: γ, in the units of the velocity.
        seed: Which places.
    """

    size: int
    count: int | None = None
    density: float | None = None
    noise_std: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.count is None) == (self.density is None):
            raise ValueError(
                f"count, density: values {self.count}, {self.density}, allowed: exactly one of them"
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"count: value {self.count}, allowed: at least 1")
        if self.density is not None and not 0.5 < self.density * self.size**2 < math.inf:
            raise ValueError(f"density: value {self.density}, allowed: at least one particle")
        check_noise(self.noise_std)

    def strewn(self, *names: str | int) -> Tensor:
        """(y, x) of one draw, shape (m, 2), float64; the first of many are those of a few."""
        count = self.count or round(self.density * self.size**2)
        rng = generator(self.seed, "particles", *names)
        return PERIOD * torch.rand(count, 2, generator=rng, dtype=torch.float64)


@dataclass(frozen=True)
class Particles(Strewn, VelocityOperator):
    """The velocity at particles, the same ones for all cases and times; settings of `Strewn`.

    Published: 0.03 particles per pixel of the field and γ = 0.25.
    """

    @cached_property
    def places(self) -> Tensor:
        """(y, x) of the particles, shape (m, 2)."""
        return self.strewn("all")


@dataclass(frozen=True)
class RandomParticles(Strewn):
    """The velocity at particles, others in every case; settings of `Strewn`."""

    def at(self, cases: Sequence[int]) -> Velocities:
        """The operator of these cases: fields (cases, …, size, size) to y (cases, …, 2, m)."""
        places = torch.stack([self.strewn(case) for case in cases])
        return Velocities(places, self.size, self.noise_std)


def sample(fields: Tensor, places: Tensor) -> Tensor:
    """Periodic fields at any places, by their Fourier series.

    Args:
        fields: Shape (…, channels, size, size) on [0, 2π)².
        places: (y, x), shape (…, m, 2).

    Returns:
        Shape (…, channels, m).
    """
    rows, columns = (
        _weights(p, fields.shape[-1]).to(fields).unsqueeze(-3) for p in places.unbind(-1)
    )
    return ((rows @ fields) * columns).sum(-1)


def _weights(places: Tensor, size: int, width: float = 0.0) -> Tensor:
    """Weights of the points of a periodic axis, for the value, or the mean over `width`, at places.

    Args:
        places: Shape (…, m).
        size: Points of the axis.
        width: The length over which the mean is taken.

    Returns:
        Shape (…, m, size), float64.
    """
    k = torch.arange(size // 2 + 1, dtype=torch.float64)
    share = torch.where((k == 0) | (2 * k == size), 1.0, 2.0) / size
    share = share * torch.sinc(k * width / PERIOD)
    phase = places.double().cpu().unsqueeze(-1) * k
    grid = torch.arange(size, dtype=torch.float64).unsqueeze(-1) * (PERIOD / size) * k
    return (share * phase.cos()) @ grid.cos().T + (share * phase.sin()) @ grid.sin().T


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    """Matrices (out, in), or (cases, out, in), times vectors (…, in) or (cases, …, in)."""
    if matrix.ndim == 2:
        return x @ matrix.T
    many = x.unsqueeze(1) if x.ndim == 2 else x.flatten(1, -2)
    y = many @ matrix.mT
    return y.unflatten(1, x.shape[1:-1]) if x.ndim > 2 else y.squeeze(1)
