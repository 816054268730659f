"""Wavelet sparsity: of the images that explain y, the one with the least sum of details.

    argmin_x |y - A x|² / 2 + λ Σ_details |W x|

with the orthonormal, periodic transform W of Daubechies' wavelet with four taps (`db2` of
PyWavelets, mode `periodization`); the coarse rest of W x is free.

References:
    | An Iterative Thresholding Algorithm for Linear Inverse Problems with a Sparsity Constraint
      (Daubechies, Defrise and De Mol, 2004), arXiv math/0307152
    | Ten Lectures on Wavelets (Daubechies, 1992), section 6.4: the wavelet
"""

__all__ = ["Wavelet"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.decomposed import Decomposed
from priorflow.operators.separable import windows
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import require
from priorflow.solvers.restoration.primal_dual import primal_dual


@dataclass(frozen=True)
class Wavelet:
    """One estimate, the same for all members.

    Attributes:
        lam: λ. It has to be tuned; for denoising (A = I) about 2 γ.
        scales: Octaves of details; H and W have to be multiples of 2^scales.
        steps: Of the primal-dual algorithm.
    """

    lam: float = 0.02
    scales: int = 3
    steps: int = 300

    def __post_init__(self) -> None:
        require(0 < self.lam < math.inf, "lam", self.lam, "finite and positive")
        require(self.scales >= 1, "scales", self.scales, "at least 1")
        require(self.steps >= 1, "steps", self.steps, "at least 1")

    def __call__(
        self, y: Tensor, operator: Decomposed, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W).

        Raises:
            Diverged: An image is not finite; `step` is the number of steps.
            ValueError: The sides of the images are not multiples of 2^scales.
        """
        height, width = prior.shape[-2:]
        fits = height % 2**self.scales == 0 and width % 2**self.scales == 0
        require(fits, "scales", self.scales, f"those that halve {height} × {width} evenly")
        bound = torch.full((height, width), self.lam).to(y)
        bound[: height >> self.scales, : width >> self.scales] = 0
        x = primal_dual(
            y,
            operator,
            prior.shape,
            analyse=lambda x: analyse(x, self.scales),
            synthesise=lambda c: synthesise(c, self.scales),
            project=lambda p: p.clamp(-bound, bound),
            norm=1.0,
            tau=0.1 / self.lam,
            steps=self.steps,
        )
        require_finite(x, self.steps)
        return Posterior(x.expand(-1, members, *prior.shape))


def analyse(x: Tensor, scales: int) -> Tensor:
    """W x: images (…, H, W) to coefficients of the same shape, the coarse ones in the corner."""
    c = x.clone()
    for k in range(scales):
        part = c[..., : x.shape[-2] >> k, : x.shape[-1] >> k]
        rows, columns = (split(n).to(x) for n in part.shape[-2:])
        part.copy_(rows @ part @ columns.mT)
    return c


def synthesise(c: Tensor, scales: int) -> Tensor:
    """Wᵀ c = W⁻¹ c: coefficients to images."""
    x = c.clone()
    for k in reversed(range(scales)):
        part = x[..., : c.shape[-2] >> k, : c.shape[-1] >> k]
        rows, columns = (split(n).to(c) for n in part.shape[-2:])
        part.copy_(rows.mT @ part @ columns)
    return x


def split(n: int) -> Tensor:
    """The orthonormal matrix that splits a signal of even length n into its means and details."""
    root = math.sqrt(3)
    taps = torch.tensor([1 + root, 3 + root, 3 - root, 1 - root], dtype=torch.float64)
    low = taps / (4 * math.sqrt(2))
    high = low.flip(0) * torch.tensor([1, -1, 1, -1])
    positions = (2 * torch.arange(n // 2).unsqueeze(1) + torch.arange(-1, 3)) % n
    return torch.cat([windows(low, positions, n), windows(high, positions, n)])
