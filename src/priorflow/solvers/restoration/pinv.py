"""The floor of restoration: linear inversion, without any knowledge of what images look like.

Where y has no noise, A†y: the least image that explains it. Else the mean of x given y under the
prior N(m, τ² I), Wiener's filter, which in the coordinates of A = U diag(s) Vᵀ damps what A shows
dimly:

    x = m + V τ² s / (τ² s² + γ²) Uᵀ (y - A m)

Reference:
    Discrete Inverse Problems: Insight and Algorithms (Hansen, 2010), chapter 4
"""

__all__ = ["PseudoInverse"]

import math
from dataclasses import dataclass

from torch import Tensor

from priorflow.operators.decomposed import Decomposed
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior
from priorflow.solvers.restoration.common import require


@dataclass(frozen=True)
class PseudoInverse:
    """One estimate, the same for all members.

    Attributes:
        mean: m, the grey of pixels that A does not see where y has noise, in [-1, 1].
        std: τ of pixels. None: A†y even of noisy observations, for an operator with `pinv` only.
    """

    mean: float = 0.0
    std: float | None = 0.5

    def __post_init__(self) -> None:
        require(-1 <= self.mean <= 1, "mean", self.mean, "-1 to 1")
        if self.std is not None:
            require(0 < self.std < math.inf, "std", self.std, "finite and positive")

    def __call__(
        self, y: Tensor, operator: Decomposed, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W)."""
        if self.std is None or operator.noise_std == 0 or not hasattr(operator, "prox"):
            x = operator.pinv(y.unsqueeze(1))
        else:
            mean = y.new_full((1, 1, *prior.shape), self.mean)
            x = operator.prox(mean, y.unsqueeze(1), self.std**2)
        return Posterior(x.expand(-1, members, *prior.shape))
