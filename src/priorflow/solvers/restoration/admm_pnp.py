"""Plug-and-play ADMM: the proximal map of the data in turn with a denoiser.

For levels σ_1 ≥ … ≥ σ_K of the denoiser and ρ_k = λ γ² / σ_k²,

    x = argmin_x |y - A(x)|² / 2 + ρ_k |x - (z - u)|² / 2
    z = D(x + u, σ_k)
    u ← u + x - z

The paper of DPS (arXiv 2209.14687), of which this is a baseline, has one denoiser and ρ = 0.2
throughout. Here the denoiser is that of the diffusion, and ρ_k follows from the level as in DPIR:
then λ = 1 is Bayes' rule, and for a Gaussian prior z tends to the exact posterior mean, whatever
the levels are. With ρ also u changes its unit, u ∝ 1 / ρ, and is rescaled. For a nonlinear A the
minimum is approached by gradient steps.

References:
    | Plug-and-Play Priors for Model Based Reconstruction (Venkatakrishnan et al., 2013)
    | Plug-and-Play Image Restoration with Deep Denoiser Prior (Zhang et al., 2021), section 4,
      arXiv 2008.13751: the levels
"""

__all__ = ["ADMMPnP"]

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import LEAST_NOISE, data_step, require


@dataclass(frozen=True)
class ADMMPnP:
    """Restore: one estimate, the same for all members.

    Attributes:
        lam: λ, how much the denoiser weighs against y.
        steps: K, network calls.
        first: σ_1, on the scale of the images, [-1, 1]. DPIR: 49 / 255 of [0, 1].
        last: σ_K; the levels in between are evenly spaced in log σ. None: max(γ, 0.002), as DPIR.
        clip: Clip z to [-1, 1].
        descent: Gradient steps of a nonlinear data step, of the size
        rate: over 1 + ρ; stable below 2 over the largest squared slope of A.
    """

    lam: float = 0.23
    steps: int = 12
    first: float = 0.4
    last: float | None = None
    clip: bool = True
    descent: int = 20
    rate: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.lam < math.inf, "lam", self.lam, "finite and positive")
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(0 < self.first < math.inf, "first", self.first, "finite and positive")
        if self.last is not None:
            require(0 < self.last <= self.first, "last", self.last, "above 0, up to `first`")
        require(self.descent >= 1, "descent", self.descent, "at least 1")
        require(0 < self.rate < math.inf, "rate", self.rate, "finite and positive")

    def __call__(
        self, y: Tensor, operator: Operator, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W).

        Raises:
            Diverged: An image is not finite; `step` is k - 1.
        """
        noise_std = max(operator.noise_std, LEAST_NOISE)
        last = self.last or min(self.first, noise_std)
        sigmas = np.geomspace(self.first, last, self.steps).tolist()
        z = u = y.new_zeros(len(y), 1, *prior.shape)
        for k, (sigma, following) in enumerate(pairwise([*sigmas, sigmas[-1]])):
            variance = sigma**2 / self.lam
            x = data_step(z - u, y, operator, variance, noise_std, self.descent, self.rate)
            z = prior(x + u, sigma)
            z = z.clamp(-1, 1) if self.clip else z
            u = (u + x - z) * (following / sigma) ** 2
            require_finite(z, k)
        return Posterior(z.expand(-1, members, *z.shape[2:]))
