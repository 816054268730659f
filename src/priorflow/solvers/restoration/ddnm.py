"""Denoising diffusion null-space model: what A sees of x̂0 is replaced, the rest is the prior's.

In the coordinates of A = U diag(s) Vᵀ, with c = Vᵀx̂0 and d = Uᵀy / s, a step to level s' is

    c' = c + λ (d - c),    Vᵀx_s' = a c' + φ Vᵀn + κ Vᵀε̂,    n ~ N(0, I),

where a = √ᾱ_s', σ = √(1 - ᾱ_s'), ε̂ belongs to x̂0, and τ = a γ / s is the noise of a d:

    unseen, s = 0       λ = 0                   φ = η σ             κ = √(1-η²) σ
    seen, γ = 0         λ = 1                   φ = η σ             κ = √(1-η²) σ
    seen, τ ≤ σ         λ = 1                   φ = √(σ² - τ²)      κ = 0
    seen, τ > σ         λ = √(1-η²) σ / τ       φ = η σ             κ = 0

so that with the noise of y in it, λ τ, x_s' has noise of the variance σ² in every coordinate. The
time travel of the paper, which the released settings switch off, is left out.

Reference:
    Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model (Wang et al., 2023),
    algorithm 1, DDNM+ (section 3.3, appendix I) and released code, arXiv 2212.00490
"""

__all__ = ["DDNM"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.decomposed import Decomposed
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import levels, require, require_levels
from priorflow.solvers.restoration.ddpm import alpha_bar, epsilon_of, tweedie


@dataclass(frozen=True)
class DDNM:
    """Draw images given y through a linear operator: DDNM where its γ is 0, else DDNM+.

    Attributes:
        eta: η in [0, 1], the share of fresh noise.
        steps: Network calls: t = `start`, …, 0, evenly spaced, at most `start` + 1 of them.
        start: The first t, where x ~ N(0, I). Published: 100 steps of 10 from 990.
        clip: Clip x̂0 to [-1, 1]; the released code does not.
        cutoff: Singular values up to it count as zero. None: the operator's. Released: 0.03.
    """

    eta: float = 0.85
    steps: int = 100
    start: int = 990
    clip: bool = False
    cutoff: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "eta", self.eta, "0 to 1")
        require_levels(self.start, self.steps)
        if self.cutoff is not None:
            require(0 <= self.cutoff < math.inf, "cutoff", self.cutoff, "finite and not negative")

    def __call__(
        self, y: Tensor, operator: Decomposed, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is t.
        """
        singular = operator.singular_values.to(y)
        cutoff = operator.cutoff if self.cutoff is None else self.cutoff
        inverse = torch.where(singular > cutoff, 1 / singular, 0)
        d = inverse * operator.to_left(y.unsqueeze(1))
        x = rng.normal(members, *prior.shape).to(y)
        for t, s in levels(self.start, self.steps):
            x0 = tweedie(prior, x, t, self.clip)
            n = rng.normal(*x.shape[1:]).to(x)
            c = operator.to_right(x0)
            gain, fresh, kept = self.weights(inverse, operator.noise_std, s)
            noise = fresh * operator.to_right(n) + kept * operator.to_right(epsilon_of(x, x0, t))
            x = operator.from_right(math.sqrt(alpha_bar(s)) * (c + gain * (d - c)) + noise)
            require_finite(x, t)
        return Posterior(x)

    def weights(self, inverse: Tensor, noise_std: float, s: int) -> tuple[Tensor, Tensor, Tensor]:
        """λ, φ and κ of every coordinate on the way to level s, from 1 / s, 0 for unseen ones."""
        seen = inverse > 0
        a, sigma = math.sqrt(alpha_bar(s)), math.sqrt(1 - alpha_bar(s))
        fresh = torch.full_like(inverse, self.eta * sigma)
        kept = torch.full_like(inverse, math.sqrt(1 - self.eta**2) * sigma)
        if noise_std == 0:
            return seen.to(inverse), fresh, kept
        tau = a * noise_std * inverse
        clear = tau <= sigma
        gain = torch.where(clear, 1, kept / tau)
        fresh = torch.where(seen & clear, (sigma**2 - tau**2).clamp(min=0).sqrt(), fresh)
        return torch.where(seen, gain, 0), fresh, torch.where(seen, 0, kept)
