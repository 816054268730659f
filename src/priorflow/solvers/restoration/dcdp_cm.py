"""DCDP-CM: data consistency in turn with purification by a consistency map.

From x = 0, for the levels t_1 ≥ … ≥ t_K of DCDP and their σ = √((1 - ᾱ_t) / ᾱ_t):

    fit       descent on |y - A(x)|² / 2 from the last x
    purify    x ← f(x + √(σ² - ε²) n, σ),  n ~ N(0, I)

f takes an image from the level σ to the level ε in one network call, along the probability flow
that DCDP-DDIM follows in many. There is no released code: the levels are DCDP's, the noise is that
of multistep consistency sampling (Song et al., algorithm 1), where images have the level ε already.

References:
    | Decoupled Data Consistency with Diffusion Purification for Image Restoration (Li et al.,
      2024), arXiv 2403.06054
    | Consistency Models (Song et al., 2023), arXiv 2303.01469
"""

__all__ = ["DCDPCM"]

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior
from priorflow.solvers.restoration.common import require
from priorflow.solvers.restoration.dcdp import alternate, require_settings, schedule
from priorflow.solvers.restoration.ddpm import sigma_of

if TYPE_CHECKING:
    from priorflow.priors.consistency import ConsistencyMap


@dataclass(frozen=True)
class DCDPCM:
    """Restore through any differentiable operator, with a consistency map.

    Attributes:
        iterations: K: as many network calls, or one less.
        descent: Steps of a fit.
        rate: η; a linear A needs η s² < 2 (1 + β).
        momentum: β in [0, 1).
        start: t_1, counted from 1 as in `DCDP`: at most 1000.
        stop: t_K; 0 counts as 1, which is σ = 0.01.
        power: How t_k falls, as in `DCDP`.
        final: Whether the last iteration purifies, too. None: where y has noise.
        clip: Clip what f gives to [-1, 1].
    """

    iterations: int = 10
    descent: int = 100
    rate: float = 1.0
    momentum: float = 0.9
    start: int = 400
    stop: int = 0
    power: float = 1.0
    final: bool | None = None
    clip: bool = True

    def __post_init__(self) -> None:
        require_settings(self)

    def __call__(
        self, y: Tensor, operator: Operator, prior: "ConsistencyMap", rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W).

        Returns:
            The images, and as `misfit` |y - A(x_k)| / √M at the end of every iteration, shape
            (cases, K, members).

        Raises:
            Diverged: An image is not finite; `step` is k - 1.
            ValueError: ε is above the last σ.
        """
        least = sigma_of(self.levels()[-1] - 1)
        require(prior.epsilon <= least, "epsilon", prior.epsilon, f"at most {least:.3g}, by `stop`")

        def purified(x: Tensor, t: int) -> Tensor:
            sigma = sigma_of(t - 1)
            n = rng.normal(*x.shape[1:]).to(x)
            x = prior(x + math.sqrt(sigma**2 - prior.epsilon**2) * n, sigma)
            return x.clamp(-1, 1) if self.clip else x

        x = y.new_zeros(len(y), members, *prior.shape)
        return alternate(self, x, y, operator, purified)

    def levels(self) -> list[int]:
        """t_1, …, t_K."""
        return schedule(self)
