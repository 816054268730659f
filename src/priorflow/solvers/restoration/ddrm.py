"""Denoising diffusion restoration model: a diffusion in the coordinates of A, which y joins.

In the coordinates of A = U diag(s) Vᵀ, with x̂0 = D(x_t, σ_t), c = Vᵀx_t, c0 = Vᵀx̂0, d = Uᵀy / s and
its noise τ = γ / s, a step from the noise σ_t to σ_s is

    Vᵀx_s = c0 + λ (d - c0) + κ (c - c0) + φ Vᵀn,    n ~ N(0, I),

    unseen          λ = 0                       κ = √(1-η²) σ_s / σ_t   φ = η σ_s
    seen, τ > σ_s   λ = √(1-η²) σ_s / τ         κ = 0                   φ = η σ_s
    seen, τ ≤ σ_s   λ = η_b                     κ = 0                   φ = √(σ_s² - η_b² τ²)

Images are those of a variance-exploding diffusion, x0 + σ n. It starts at c = d + √(σ² - τ²) Vᵀn,
where unseen coordinates have d = τ = 0. The paper wants τ ≤ σ of all seen coordinates at the start,
so those of a larger τ, which have next to nothing to say, are unseen here. That of deepinv, which
`library` wraps, takes all of s ≤ γ for unseen, and leaves out the last step, from σ_0 to 0, in
which y without noise is met exactly; apart from that the two are the same.

Reference:
    Denoising Diffusion Restoration Models (Kawar et al., 2022), eq. 7 and 8, arXiv 2201.11793
"""

__all__ = ["DDRM"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.decomposed import Decomposed
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import levels, require, require_levels
from priorflow.solvers.restoration.ddpm import sigma_of


@dataclass(frozen=True)
class DDRM:
    """Draw images given y through a linear operator.

    Attributes:
        steps: Network calls: t = `start`, …, 0, evenly spaced, at most `start` + 1 of them.
        eta: η in [0, 1], the share of fresh noise.
        eta_b: η_b in [0, 1], the weight of y in coordinates that are seen better than the level.
        start: The first t.
        clip: Clip x̂0 to [-1, 1]; the paper does not.
        cutoff: Singular values up to it count as zero. None: the operator's.
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0
    start: int = 999
    clip: bool = False
    cutoff: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "eta", self.eta, "0 to 1")
        require(0 <= self.eta_b <= 1, "eta_b", self.eta_b, "0 to 1")
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
        singular, sigma = operator.singular_values.to(y), sigma_of(self.start)
        cutoff = operator.cutoff if self.cutoff is None else self.cutoff
        seen = (singular > cutoff) & (operator.noise_std <= sigma * singular)
        inverse = torch.where(seen, 1 / singular, 0)
        tau, d = operator.noise_std * inverse, inverse * operator.to_left(y.unsqueeze(1))
        n = rng.normal(members, *prior.shape).to(y)
        c = d + (sigma**2 - tau.square()).sqrt() * operator.to_right(n)
        for t, s in levels(self.start, self.steps):
            x0 = prior(operator.from_right(c), sigma_of(t))
            c0 = operator.to_right(x0.clamp(-1, 1) if self.clip else x0)
            gain, kept, fresh = self.weights(seen, tau, t, s)
            n = rng.normal(members, *prior.shape).to(y)
            c = c0 + gain * (d - c0) + kept * (c - c0) + fresh * operator.to_right(n)
            require_finite(c, t)
        return Posterior(operator.from_right(c))

    def weights(self, seen: Tensor, tau: Tensor, t: int, s: int) -> tuple[Tensor, Tensor, Tensor]:
        """λ, κ and φ of every coordinate, which is seen or not with the noise τ."""
        sigma = sigma_of(s)
        kept, fresh = math.sqrt(1 - self.eta**2) * sigma, self.eta * sigma
        clear = seen & (tau <= sigma)
        gain = torch.where(clear, self.eta_b, torch.where(seen, kept / tau, 0))
        spread = (sigma**2 - (self.eta_b * tau).square()).clamp(min=0).sqrt()
        return gain, torch.where(seen, 0, kept / sigma_of(t)), torch.where(clear, spread, fresh)
