"""Blur by a camera in motion: another random kernel for every image.

The kernels are those of DPS, DCDP and their successors (the public generator
LeviBorodenko/motionblur). On a canvas of twice the size, with diagonal d and intensity I, a path of
steps of length r_j and direction θ_j has

    Σ r_j ≥ L = 3/4 d (U(0, 1) + U(0, I²)),  r_j < L,  r_j ~ (1.1 - I) d Beta(1, 30),
    |θ_j| ~ Triangular(0, I Θ, Θ + 0.1),  Θ ~ U(0, I π),  |θ_0| ~ U(0, Θ).

The directions change sides with a probability that is drawn from Beta(2, 20). The path is centred
at its mean, turned by U(0, π), drawn as a line of width ⌊d / 150⌋, blurred by a Gaussian of
⌊d / 100⌋ pixels and reduced to the size of the kernel.
"""

__all__ = ["MotionBlur"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from priorflow.operators.blur import CircularBlur, ReflectedBlur
from priorflow.operators.checks import check_dense, check_kernel, check_noise, check_shape
from priorflow.rng import seed_of

DRAWN = 61  # the published size; smaller ones would lose the width of the line or its blur


@dataclass(frozen=True)
class MotionBlur:
    """y = the image under the path of a moving camera, + γ η; see `blur` for the border.

    The published kernels are 61 × 61 with I = 0.5 for images of 256². Smaller ones are drawn like
    those and then reduced.

    Attributes:
        shape: (C, H, W).
        size: Pixels of the kernel along each side, odd.
        intensity: I from 0, straight paths, to 1, bent ones.
        boundary: `circular`, or for images of up to 4096 pixels `reflect`.
        noise_std: γ, on the scale of the images, [-1, 1].
        seed: Which kernels.
    """

    shape: Sequence[int]
    size: int = 61
    intensity: float = 0.5
    boundary: str = "circular"
    noise_std: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_kernel(self.size, self.shape, self.boundary)
        if not 0 <= self.intensity <= 1:
            raise ValueError(f"intensity: value {self.intensity}, allowed: 0 to 1")
        if self.boundary == "reflect":
            check_dense(self.shape)
        check_noise(self.noise_std)

    def at(self, cases: Sequence[int]) -> CircularBlur | ReflectedBlur:
        """The operator of these images: x of shape (cases, members, C, H, W) to y of the same."""
        kernels = torch.stack([self.kernel(case) for case in cases])[:, None, None]
        if self.boundary == "circular":
            return CircularBlur(kernels, self.shape, self.noise_std)
        return ReflectedBlur(kernels.float(), self.shape, self.noise_std)  # dense: half the memory

    def kernel(self, case: int) -> Tensor:
        """The kernel of one image, shape (size, size): not negative, its sum is 1; float64."""
        rng = np.random.default_rng(seed_of(self.seed, "motion", case))
        side = 2 * max(self.size, DRAWN)
        diagonal = math.sqrt(2) * side
        path = diagonal * _path(rng, self.intensity) + side / 2 * (1 + 1j)
        canvas = Image.new("L", (side, side))
        line = [(point.real, point.imag) for point in path]
        ImageDraw.Draw(canvas).line(line, fill=255, width=int(diagonal / 150))
        canvas = canvas.filter(ImageFilter.GaussianBlur(int(diagonal / 100)))
        canvas = canvas.resize((self.size, self.size), Image.Resampling.LANCZOS)
        kernel = torch.from_numpy(np.array(canvas, dtype=np.float64))
        return kernel / kernel.sum()


def _path(rng: np.random.Generator, intensity: float) -> np.ndarray:
    """The points of a path around 0, complex, in units of the diagonal."""
    length = 0.75 * (rng.uniform() + rng.uniform(0, intensity**2))
    steps = []
    while sum(steps) < length:
        step = (1.1 - intensity) * rng.beta(1, 30)
        if step < length:
            steps.append(step)
    widest = rng.uniform(0, intensity * math.pi)
    jitter = rng.beta(2, 20)
    first = rng.uniform(-widest, widest)
    angles = rng.triangular(0, intensity * widest, widest + 0.1, size=len(steps))
    sides = np.where(rng.uniform(size=len(steps)) < jitter, -1, 1)
    angles[0], sides[0] = abs(first), np.sign(first)
    path = np.cumsum(steps * np.exp(1j * angles * np.cumprod(sides)))
    return (path - path.mean()) * np.exp(1j * rng.uniform(0, math.pi))
