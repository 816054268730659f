"""Diffusion posterior sampling: every ancestral step is followed by a step towards y.

    x_s = ancestral(x_t, x̂0) - ζ ∇_{x_t} |y - A(x̂0(x_t))|

The gradient goes through the network. The norm is not squared: ζ is twice the paper's ζ', whose
step size ζ' / |y - A(x̂0)| belongs to the squared norm. Every image has a norm of its own; the
released code takes one of the whole batch, which is right for one image only. Its networks also
predict the variance of the ancestral step; here it is DDPM's β̃.

Reference:
    Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023),
    algorithm 1, appendix D and released code, arXiv 2209.14687
"""

__all__ = ["DPS"]

import math
from dataclasses import dataclass

from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import levels, misfit_gradient, require, require_levels
from priorflow.solvers.restoration.ddpm import ancestral


@dataclass(frozen=True)
class DPS:
    """Draw images given y through any differentiable operator.

    Attributes:
        zeta: ζ. Published: 0.3; 0.5 for inpainting, 1 for phase retrieval.
        steps: Network calls, each with its gradient: t = `start`, …, 0, evenly spaced, at most
            `start` + 1 of them.
        start: The first t, where x ~ N(0, I).
        clip: Clip x̂0 to [-1, 1].
    """

    zeta: float = 0.3
    steps: int = 1000
    start: int = 999
    clip: bool = True

    def __post_init__(self) -> None:
        require(0 <= self.zeta < math.inf, "zeta", self.zeta, "finite and not negative")
        require_levels(self.start, self.steps)

    def __call__(
        self, y: Tensor, operator: Operator, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is t.
        """
        x = rng.normal(members, *prior.shape).to(y)
        for t, s in levels(self.start, self.steps):
            x0, gradient = misfit_gradient(x, t, y, operator, prior, self.clip)
            x = ancestral(x, x0, t, s, rng.normal(*x.shape[1:]).to(x)) - self.zeta * gradient
            require_finite(x, t)
        return Posterior(x)
