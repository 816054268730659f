"""Manifold constrained gradients: a step towards y as in DPS, then a projection onto y.

    x' = ancestral(x_t, x̂0) - ζ ∇_{x_t} |y - A(x̂0(x_t))|
    x_s = (I - A†A) x' + A† y_s,    y_s = √ᾱ_s y + √(1 - ᾱ_s) A n,    n ~ N(0, I)

y_s is what A sees of an image at level s: as n is an image, too, its noise has the right size
whatever the singular values of A are. At the end A x = y: the projection knows of no noise in y,
and A† amplifies it.

The `released` code takes the identity for the adjoint of a blur, so that its projection is none. It
also notes y at the level t that is being left, with the noise n on y itself:

    x_s = y_t - A y_t - A x',    y_t = √ᾱ_t y + √(1 - ᾱ_t) n

References:
    | Improving Diffusion Models for Inverse Problems using Manifold Constraints (Chung et al.,
      2022), algorithm 1, arXiv 2206.00941
    | the released code of arXiv 2209.14687, in which MCG is a baseline
"""

__all__ = ["MCG"]

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from priorflow.operators.decomposed import Decomposed
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import levels, misfit_gradient, require, require_levels
from priorflow.solvers.restoration.ddpm import alpha_bar, ancestral

PROJECTIONS = ("exact", "released")


@dataclass(frozen=True)
class MCG:
    """Draw images given y through a linear operator, as if y had no noise.

    Attributes:
        zeta: ζ.
        steps: Network calls, each with its gradient: t = `start`, …, 0, evenly spaced, at most
            `start` + 1 of them.
        start: The first t, where x ~ N(0, I).
        clip: Clip x̂0 to [-1, 1].
        projection: `exact`, or `released`, which needs observations of the shape of images.
    """

    zeta: float = 1.0
    steps: int = 1000
    start: int = 999
    clip: bool = True
    projection: Literal["exact", "released"] = "exact"

    def __post_init__(self) -> None:
        require(0 <= self.zeta < math.inf, "zeta", self.zeta, "finite and not negative")
        require_levels(self.start, self.steps)
        require(self.projection in PROJECTIONS, "projection", self.projection, str(PROJECTIONS))

    def __call__(
        self, y: Tensor, operator: Decomposed, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is t.
            ValueError: A `released` projection of observations that are not of the images' shape.
        """
        if self.projection == "released":
            fits = y.shape[1:] == prior.shape
            require(fits, "projection", "released", "exact, unless y has the shape of an image")
        x = rng.normal(members, *prior.shape).to(y)
        for t, s in levels(self.start, self.steps):
            x0, gradient = misfit_gradient(x, t, y, operator, prior, self.clip)
            x = ancestral(x, x0, t, s, rng.normal(*x.shape[1:]).to(x)) - self.zeta * gradient
            n = rng.normal(*x.shape[1:]).to(x)
            if self.projection == "exact":
                a = alpha_bar(s)
                seen = operator(x - math.sqrt(1 - a) * n)
                x = x + operator.pinv(math.sqrt(a) * y.unsqueeze(1) - seen)
            else:
                a = alpha_bar(t)
                noisy = math.sqrt(a) * y.unsqueeze(1) + math.sqrt(1 - a) * n
                x = noisy - operator(noisy + x)
            require_finite(x, t)
        return Posterior(x)
