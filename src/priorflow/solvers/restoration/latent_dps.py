"""Latent-DPS: diffusion posterior sampling in the latents of an autoencoder.

    z_s = DDIM(z_t, ẑ0) - ζ ∇_{z_t} |y - A(D(ẑ0(z_t)))|,    ẑ0 = E[z0 | z_t],    x = D(z)

The gradient goes through the decoder D and the network; the norm is not squared, and every image
has one of its own. The steps of the diffusion have no noise: apart from z_T ~ N(0, I) the method
is deterministic. It is PSLD with γ = 0; the latents of our priors have the unit variance that
DDPM's levels are made for, so that its β replace those of the published autoencoder's network.

References:
    | Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models
      (Rout et al., 2023), algorithm 2 with γ = 0, arXiv 2307.00619
    | Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023),
      arXiv 2209.14687
"""

__all__ = ["LatentDPS"]

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import levels, require, require_levels
from priorflow.solvers.restoration.latent import Decoded, descend, misfit

if TYPE_CHECKING:
    from priorflow.priors.latent import LatentPrior


@dataclass(frozen=True)
class LatentDPS:
    """Draw images given y through any differentiable operator.

    Attributes:
        zeta: ζ. No value is published for it as a method of its own; ReSample has 0.5 ᾱ_t.
        steps: Network calls, each with its gradient: t = `start`, …, 0, evenly spaced, at most
            `start` + 1 of them.
        start: The first t, where z ~ N(0, I).
    """

    zeta: float = 0.5
    steps: int = 1000
    start: int = 999

    def __post_init__(self) -> None:
        require(0 <= self.zeta < math.inf, "zeta", self.zeta, "finite and not negative")
        require_levels(self.start, self.steps)

    def __call__(
        self, y: Tensor, operator: Operator, prior: "LatentPrior", rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is t.
        """
        decoded = Decoded(operator, prior.codec)

        def loss(z0: Tensor) -> Tensor:
            return self.zeta * misfit(z0, y, decoded)

        z = rng.normal(members, *prior.shape).to(y)
        for t, s in levels(self.start, self.steps):
            z = descend(z, t, s, loss, prior)
            require_finite(z, t)
        return Posterior(prior.codec.decode(z))
