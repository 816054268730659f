"""The velocity at particles as a camera measures it: two pictures, particles found and tracked.

To a solver it is the operator of `RandomParticles`, the velocity at places with Gaussian noise of
standard deviation γ. What is observed does not come from that model: particles are rendered in two
exposures, found in both and paired, so that errors grow where images overlap and where the flow
turns between the exposures. γ should be the root mean square of y - A x on flows of that kind.

Reference:
    FlowDAS (Chen et al., 2025), D.4, arXiv 2501.16642: locate, match, sparse velocity
"""

__all__ = ["Tracked", "TrackedParticles", "at_places"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from priorflow.operators.spectral import velocity
from priorflow.operators.velocity import RandomParticles, VelocityOperator
from priorflow.rng import Streams
from priorflow.systems.camera import Camera, carried_by
from priorflow.systems.velocimetry import Vectors, detect, track

BORDER = 24  # pixels beyond an edge in which the other side is seen again
NEAR = 1.5  # pixels from a place within which its own vector lies


@dataclass(frozen=True)
class TrackedParticles:
    """The particles of `RandomParticles`, seen by a camera.

    Attributes:
        size: Pixels of a field along each side.
        density: Particles per pixel of the field.
        noise_std: γ, in the units of the velocity: the rms of what the camera adds.
        seed: Which places.
        pixels: Of a picture along each side.
        interval: The time between the exposures. If states are vorticities over their rms, it is in
            units of the inverse of that.
        diameter: Of the image of a particle, in pixels of the picture.
        pixel_noise: Noise of a pixel, in grey levels; the brightest has 255.
        reach: Longest displacement that is tracked, in pixels of the picture.
    """

    size: int
    density: float = 0.03
    noise_std: float = 0.026
    seed: int = 0
    pixels: int = 128
    interval: float = 0.3
    diameter: float = 3.0
    pixel_noise: float = 0.0
    reach: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.reach < BORDER / 2:
            raise ValueError(f"reach: value {self.reach}, allowed: positive, below {BORDER // 2}")
        _ = self.particles, self.camera  # they check the others

    @property
    def particles(self) -> RandomParticles:
        """Where they are half way between the exposures."""
        return RandomParticles(
            self.size, density=self.density, noise_std=self.noise_std, seed=self.seed
        )

    @property
    def camera(self) -> Camera:
        """Its pictures wrap round, as the flow does."""
        return Camera(
            self.pixels,
            self.interval,
            diameter=self.diameter,
            noise_std=self.pixel_noise,
            periodic=True,
        )

    def at(self, cases: Sequence[int]) -> "Tracked":
        """The operator of these cases: fields (cases, …, size, size) to y (cases, …, 2, m)."""
        places = self.particles.at(cases).places
        return Tracked(places, self.size, self.noise_std, self.camera, self.reach)


@dataclass(frozen=True, eq=False)
class Tracked(VelocityOperator):
    """Velocities at places, and how they are measured.

    Attributes:
        places, size, noise_std: As those of `Velocities`, every case with its own places.
        camera: Takes the pictures.
        reach: Longest displacement that is tracked, in pixels.
    """

    places: Tensor
    size: int
    noise_std: float
    camera: Camera
    reach: float

    def observe(self, x: Tensor, rng: Streams) -> Tensor:
        """Fields (cases, time, size, size) to measured velocities (cases, time, 2, m)."""
        return torch.stack([self.measure(x[:, k], rng)[0] for k in range(x.shape[1])], dim=1)

    def measure(self, x: Tensor, rng: Streams) -> tuple[Tensor, Tensor, Tensor]:
        """Take pictures of fields (cases, size, size) and track what is in them.

        Returns:
            Velocities, shape (cases, 2, m); the pictures, shape (cases, 2, pixels, pixels); and
            whether a vector was found at a place, or else interpolated, bool (cases, m).
        """
        middle = self.places.double() * self.camera.scale
        flow = velocity(x.double().cpu())
        pictures = self.camera.expose(carried_by(flow), middle, rng).pictures
        cases = [
            at_places(places, self._vectors(*shots))
            for places, shots in zip(middle.numpy(), pictures.numpy(), strict=True)
        ]
        moved, found = (torch.from_numpy(np.stack(part)) for part in zip(*cases, strict=True))
        return self.camera.velocities(moved).to(x), pictures, found

    def _vectors(self, *shots: np.ndarray) -> Vectors:
        """Vectors in pictures that go on beyond their edges.

        Neighbours need not move alike, as the flow may vary from one particle to the next: what
        decides is how short the displacement is beside the distance between particles.
        """
        found = [detect(np.pad(shot, BORDER, mode="wrap")) - BORDER for shot in shots]
        return track(*found, reach=self.reach, tolerance=self.reach, outlier=np.inf)


def at_places(places: np.ndarray, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """The valid vector at every place, or one that is interpolated between others.

    Args:
        places: (y, x) in pixels, shape (m, 2).
        vectors: What was measured, all around the places.

    Returns:
        Displacements, shape (m, 2), and whether there was a vector, shape (m,).
    """
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import cKDTree

    positions, moved = vectors.positions[vectors.valid], vectors.displacements[vectors.valid]
    distance, nearest = cKDTree(positions).query(places)
    between = LinearNDInterpolator(positions, moved)(places)
    found = (distance < NEAR) | np.isnan(between).any(1)
    return np.where(found[:, None], moved[nearest], between), distance < NEAR
