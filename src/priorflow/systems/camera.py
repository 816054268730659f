"""Pictures of particles that a flow carries, as a camera takes them for velocimetry.

A particle at (y, x) has a Gaussian image whose intensity falls to exp(-2) of its peak I at half the
diameter d, and a pixel gathers what falls on its square:

    E_ij = I ∫∫ exp(-8 ((η - y)² + (ξ - x)²) / d²) dη dξ,

a product of two differences of error functions, so that a picture is one product of matrices.

References:
    | Particle Image Velocimetry: A Practical Guide (Raffel et al., 2018), synthetic images
    | FlowDAS (Chen et al., 2025), D.4, arXiv 2501.16642: density, diameter and intensity
"""

__all__ = ["Camera", "Motion", "Pair", "advect", "carried_by"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.velocity import sample
from priorflow.rng import Streams

Motion = Callable[[Tensor], Tensor]  # positions (cases, m, 2) to velocities, both (y, x)
PERIOD = 2 * math.pi


@dataclass(frozen=True)
class Pair:
    """Two pictures and what is in them, in pixels, whose centres are whole numbers.

    Attributes:
        pictures: Grey levels, shape (cases, 2, pixels, pixels).
        particles: (y, x) in both exposures, shape (cases, 2, m, 2); some lie outside the frame.
    """

    pictures: Tensor
    particles: Tensor


@dataclass(frozen=True)
class Camera:
    """Two exposures of the square [0, 2π)², half of `interval` before and after its state.

    The flow stands still between them. A speed U displaces particles by U interval pixels / 2π
    pixels. Correlation wants a few of them, at most a quarter of its first window; but the flow
    should deform little meanwhile, and an rms vorticity times interval of 0.2 is about the limit.
    Density, diameter and peak are the published ones; the interval is not published.

    Attributes:
        pixels: Along each side.
        interval: The time between the exposures.
        density: Particles per pixel.
        diameter: d, in pixels.
        peak: I, in grey levels; a particle in the middle of a pixel of 3 px gives it 0.87 I.
        noise_std: Of the noise of a pixel, in grey levels.
        levels: The largest grey level; values are rounded and cut off there. None for neither.
        periodic: Whether pictures wrap round. Otherwise particles come and go at the border.
        margin: Pixels beyond the frame where there are particles, too, if not periodic.
        steps: Runge-Kutta steps of half an interval.
    """

    pixels: int = 256
    interval: float = 0.1
    density: float = 0.03
    diameter: float = 3.0
    peak: float = 255.0
    noise_std: float = 0.0
    levels: int | None = 255
    periodic: bool = False
    margin: int = 16
    steps: int = 2

    def __post_init__(self) -> None:
        for name in ("interval", "density", "diameter", "peak"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: positive")
        for name, least in (("pixels", 8), ("margin", 0), ("steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: at least {least}")
        if not 0 <= self.noise_std < math.inf:
            raise ValueError(f"noise_std: value {self.noise_std}, allowed: not negative")
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"levels: value {self.levels}, allowed: at least 1, or None")

    @property
    def scale(self) -> float:
        """Pixels per unit of length."""
        return self.pixels / PERIOD

    @property
    def count(self) -> int:
        """Particles of a case, those in the margin included."""
        border = 0 if self.periodic else self.margin
        return max(1, round(self.density * (self.pixels + 2 * border) ** 2))

    def pair(self, motion: Motion, rng: Streams) -> Pair:
        """Strew particles and take two pictures of each case.

        Raises:
            ValueError: Particles could come from beyond the margin.
        """
        border = 0 if self.periodic else self.margin
        u = rng.uniform(self.count, 2).double()
        middle = u * (self.pixels + 2 * border) - border - 0.5
        pair = self.expose(motion, middle, rng)
        travelled = (pair.particles - middle.unsqueeze(1)).abs().max()
        if not self.periodic and travelled + self.diameter > self.margin:
            raise ValueError(
                f"margin: value {self.margin}, allowed: at least the displacement in half an "
                f"interval and the diameter, {travelled + self.diameter:.1f} pixels here"
            )
        return pair

    def expose(self, motion: Motion, middle: Tensor, rng: Streams) -> Pair:
        """Take two pictures of particles that are at `middle` (cases, m, 2), in pixels, between."""
        particles = torch.stack(self.exposures(motion, middle), dim=1)
        pictures = self.render(particles)
        pictures = pictures + self.noise_std * rng.normal(*pictures.shape[1:]).to(pictures)
        if self.levels is not None:
            pictures = pictures.round().clamp(0, self.levels)
        return Pair(pictures, particles)

    def exposures(self, motion: Motion, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Where particles at `middle`, in pixels, are in the first and in the second exposure."""
        places, half = middle / self.scale, self.interval / 2
        return tuple(
            advect(places, motion, time, self.steps) * self.scale for time in (-half, half)
        )

    def displacements(self, motion: Motion, middle: Tensor) -> Tensor:
        """The truth for a vector at `middle` (cases, m, 2), in pixels, (y, x)."""
        before, after = self.exposures(motion, middle)
        return after - before

    def velocities(self, displacements: Tensor) -> Tensor:
        """Displacements in pixels (…, m, 2), (y, x), as velocities (u, v), shape (…, 2, m)."""
        return displacements.flip(-1).mT / (self.scale * self.interval)

    def render(self, particles: Tensor) -> Tensor:
        """Particles (…, m, 2) in pixels to exact intensities (…, pixels, pixels)."""
        rows, columns = (self._gathered(p) for p in particles.unbind(-1))
        return self.peak * (rows.mT @ columns)

    def _gathered(self, centres: Tensor) -> Tensor:
        """What the pixels of an axis gather of Gaussians of height 1, (…, m) to (…, m, pixels)."""
        offset = torch.arange(self.pixels).to(centres) - centres.unsqueeze(-1)
        if self.periodic:
            offset = offset - self.pixels * (offset / self.pixels).round()
        root = math.sqrt(8) / self.diameter
        integral = torch.erf(root * (offset + 0.5)) - torch.erf(root * (offset - 0.5))
        return math.sqrt(math.pi) / (2 * root) * integral


def advect(places: Tensor, motion: Motion, time: float, steps: int = 1) -> Tensor:
    """Places (cases, m, 2) after a time, which may be negative, by the classical Runge-Kutta."""
    h = time / steps
    for _ in range(steps):
        a = motion(places)
        b = motion(places + h / 2 * a)
        c = motion(places + h / 2 * b)
        d = motion(places + h * c)
        places = places + h / 6 * (a + 2 * b + 2 * c + d)
    return places


def carried_by(flow: Tensor) -> Motion:
    """The motion of particles in velocities (u, v) on the grid of the torus.

    Args:
        flow: Shape (cases, 2, size, size).
    """
    return lambda places: sample(flow.double(), places).mT.flip(-1)
