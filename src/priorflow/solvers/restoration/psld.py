"""PSLD: Latent-DPS that also holds ẑ0 to the encoding of an image which is observed as y.

    z_s = DDIM(z_t, ẑ0) - ∇_{z_t} (ω |y - A x̂| + γ |ẑ0 - E(x̂ + B (y - A x̂))|),    x̂ = D(ẑ0)

With B = Aᵀ this is the paper's "gluing", Aᵀy + (I - AᵀA) x̂. Its theory wants I - AᵀA to be a
projection, which it is where A Aᵀ = I (inpainting), but not for a blur or a downsampling: there
B = A† does what is meant, and what is encoded is observed as y. A† amplifies the noise in y, though
(by up to 33, where singular values are cut off), while x̂ + Aᵀ (y - A x̂) is a step of descent and
does not. Both leave alone an x̂ for which Aᵀ (y - A x̂) = 0.

The released code takes the identity for the adjoint of a blur and nearest-neighbour upsampling for
that of a downsampling; and it adds noise to its predictions A x̂ before they are compared with y.
Neither is done here. Norms are of every image by itself.

Reference:
    Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models
    (Rout et al., 2023), algorithm 2 and released code, arXiv 2307.00619
"""

__all__ = ["PSLD"]

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from priorflow.operators.base import LinearOperator
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import levels, require, require_levels
from priorflow.solvers.restoration.latent import descend

if TYPE_CHECKING:
    from priorflow.priors.latent import LatentPrior

GLUES = ("pinv", "adjoint")


@dataclass(frozen=True)
class PSLD:
    """Draw images given y through a linear operator.

    Attributes:
        omega: ω. Published for faces: 0.1; 0.9 for super-resolution.
        gamma: γ. Published: 0.1.
        steps: Network calls, each with its gradient: t = `start`, …, 0, evenly spaced, at most
            `start` + 1 of them.
        start: The first t, where z ~ N(0, I).
        glue: B: `pinv`, A†, which is Aᵀ for an operator that has no `pinv`, or `adjoint`.
    """

    omega: float = 0.1
    gamma: float = 0.1
    steps: int = 1000
    start: int = 999
    glue: Literal["pinv", "adjoint"] = "pinv"

    def __post_init__(self) -> None:
        require(0 <= self.omega < math.inf, "omega", self.omega, "finite and not negative")
        require(0 <= self.gamma < math.inf, "gamma", self.gamma, "finite and not negative")
        require_levels(self.start, self.steps)
        require(self.glue in GLUES, "glue", self.glue, str(GLUES))

    def __call__(
        self,
        y: Tensor,
        operator: LinearOperator,
        prior: "LatentPrior",
        rng: Streams,
        members: int = 1,
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is t.
            ValueError: The operator is not linear.
        """
        if not hasattr(operator, "adjoint"):
            raise ValueError("operator: no adjoint, allowed: linear")
        inverse = self.glue == "pinv" and hasattr(operator, "pinv")
        back = operator.pinv if inverse else operator.adjoint
        codec = prior.codec

        def loss(z0: Tensor) -> Tensor:
            x0 = codec.decode(z0)
            residual = y.unsqueeze(1) - operator(x0)
            glued = codec.encode(x0 + back(residual))
            misfit, distance = (v.flatten(2).norm(dim=-1) for v in (residual, z0 - glued))
            return self.omega * misfit + self.gamma * distance

        z = rng.normal(members, *prior.shape).to(y)
        for t, s in levels(self.start, self.steps):
            z = descend(z, t, s, loss, prior)
            require_finite(z, t)
        return Posterior(codec.decode(z))
