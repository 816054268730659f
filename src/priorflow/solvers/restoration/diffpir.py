"""DiffPIR: half-quadratic splitting with the denoiser of a diffusion, and its noise in between.

    x̂0 = D(x_t / √ᾱ_t, σ_t)
    z  = argmin_z |y - A(z)|² / 2γ² + |z - x̂0|² / 2c,    c = 4 σ_t² / λ
    ε̂  = (x_t - √ᾱ_t z) / √(1 - ᾱ_t)
    x_s = √ᾱ_s z + √(1 - ᾱ_s) (√(1-ζ) ε̂ + √ζ n),    n ~ N(0, I)

on levels that are dense near t = 0; the answer is x̂0 at t = 0. The 4 is that of the released code,
which solves for z in units of [0, 1] but has σ_t in those of [-1, 1]: so λ is as published. For a
nonlinear A the minimum is approached by gradient steps from x̂0. x starts as N(0, I), to which the
released code adds √ᾱ_999 = 0.6 % of the observation.

Reference:
    Denoising Diffusion Models for Plug-and-Play Image Restoration (Zhu et al., 2023), algorithm 1
    and released code, arXiv 2305.08995
"""

__all__ = ["DiffPIR", "quadratic"]

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import LEAST_NOISE, data_step, require, require_levels
from priorflow.solvers.restoration.ddpm import alpha_bar, epsilon_of, sigma_of, tweedie


@dataclass(frozen=True)
class DiffPIR:
    """Draw images given y; the data step is closed for an operator with `prox`.

    Attributes:
        lam: λ, how much the denoiser weighs against y.
        zeta: ζ in [0, 1], the share of fresh noise. Published: 0.1 for deblurring, 0.25 for
            super-resolution, 1 for inpainting (20 steps).
        steps: Network calls, forward only; fewer where levels would coincide.
        start: The first t, where x ~ N(0, I).
        clip: Clip x̂0 to [-1, 1].
        project: End with x + A†(y - A x), which copies the known pixels in inpainting, as the
            released code does. For observations without noise.
        descent: Gradient steps of a nonlinear data step, of the size
        rate: over 1 + γ² / c; stable below 2 over the largest squared slope of A.
    """

    lam: float = 1.0
    zeta: float = 0.1
    steps: int = 100
    start: int = 999
    clip: bool = True
    project: bool = False
    descent: int = 5
    rate: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.lam < math.inf, "lam", self.lam, "finite and positive")
        require(0 <= self.zeta <= 1, "zeta", self.zeta, "0 to 1")
        require_levels(self.start, self.steps)
        require(self.descent >= 1, "descent", self.descent, "at least 1")
        require(0 < self.rate < math.inf, "rate", self.rate, "finite and positive")

    def __call__(
        self, y: Tensor, operator: Operator, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is t.
        """
        noise_std = max(operator.noise_std, LEAST_NOISE)
        x = rng.normal(members, *prior.shape).to(y)
        for t, s in pairwise([*quadratic(self.start, self.steps), -1]):
            z = tweedie(prior, x, t, self.clip)
            if s >= 0:
                variance = 4 * sigma_of(t) ** 2 / self.lam
                z = data_step(z, y, operator, variance, noise_std, self.descent, self.rate)
            n = rng.normal(*x.shape[1:]).to(x)
            noise = math.sqrt(1 - self.zeta) * epsilon_of(x, z, t) + math.sqrt(self.zeta) * n
            x = math.sqrt(alpha_bar(s)) * z + math.sqrt(1 - alpha_bar(s)) * noise
            require_finite(x, t)
        if self.project:
            x = x + operator.pinv(y.unsqueeze(1) - operator(x))
        return Posterior(x)


def quadratic(start: int, steps: int) -> list[int]:
    """The released levels, t = `start`, …, 0 with ever smaller steps; without repetition."""
    passed = torch.linspace(0, (start + 1) ** 2, steps, dtype=torch.float64).sqrt().int().tolist()
    return sorted({start - min(i, start) for i in passed}, reverse=True)
