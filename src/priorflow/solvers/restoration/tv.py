"""Total variation: of the images that explain y, the one with the least sum of slopes.

    argmin_x |y - A x|² / 2 + λ Σ_pixels √(|∂_h x|² + |∂_w x|²)

with forward differences, none across the last row and column, for every channel by itself.

Reference:
    Nonlinear Total Variation Based Noise Removal Algorithms (Rudin, Osher and Fatemi, 1992)
"""

__all__ = ["TotalVariation"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.decomposed import Decomposed
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import require
from priorflow.solvers.restoration.primal_dual import primal_dual


@dataclass(frozen=True)
class TotalVariation:
    """One estimate, the same for all members.

    Attributes:
        lam: λ. It has to be tuned; for denoising (A = I) about γ.
        steps: Of the primal-dual algorithm.
    """

    lam: float = 0.02
    steps: int = 300

    def __post_init__(self) -> None:
        require(0 < self.lam < math.inf, "lam", self.lam, "finite and positive")
        require(self.steps >= 1, "steps", self.steps, "at least 1")

    def __call__(
        self, y: Tensor, operator: Decomposed, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W).

        Raises:
            Diverged: An image is not finite; `step` is the number of steps.
        """

        def project(p: Tensor) -> Tensor:
            return p / (torch.linalg.vector_norm(p, dim=0) / self.lam).clamp(min=1)

        x = primal_dual(
            y,
            operator,
            prior.shape,
            analyse=gradient,
            synthesise=gradient_adjoint,
            project=project,
            norm=math.sqrt(8),
            tau=0.1 / self.lam,
            steps=self.steps,
        )
        require_finite(x, self.steps)
        return Posterior(x.expand(-1, members, *prior.shape))


def gradient(x: Tensor) -> Tensor:
    """∇x, forward differences of images (…, H, W) along both axes: shape (2, …, H, W)."""
    slopes = x.new_zeros(2, *x.shape)
    slopes[0, ..., :-1, :] = x.diff(dim=-2)
    slopes[1, ..., :-1] = x.diff(dim=-1)
    return slopes


def gradient_adjoint(p: Tensor) -> Tensor:
    """∇ᵀp: shape (2, …, H, W) to images (…, H, W)."""
    x = torch.zeros_like(p[0])
    x[..., :-1, :] -= p[0, ..., :-1, :]
    x[..., 1:, :] += p[0, ..., :-1, :]
    x[..., :-1] -= p[1, ..., :-1]
    x[..., 1:] += p[1, ..., :-1]
    return x
