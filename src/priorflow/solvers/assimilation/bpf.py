"""The bootstrap particle filter: propose by the prior's own transition, weigh by the likelihood.

    x_k^i ~ p(x_k | x_{k-1}^i),   w_k^i ∝ p(y_k | x_k^i),   then resample N particles by w_k.

Exact in the limit of many particles whatever the operator and the transition: with the simulator as
the transition it is the reference of low-dimensional systems.

References:
    | Novel Approach to Nonlinear/Non-Gaussian Bayesian State Estimation (Gordon, Salmond & Smith,
      1993), doi 10.1049/ip-f-2.1993.0015
    | Score-based Data Assimilation (Rozet & Louppe, 2023), released code: 16,384 particles,
      multinomial resampling after every observation
"""

__all__ = ["BootstrapParticleFilter"]

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from priorflow.operators.base import Operator, log_likelihood
from priorflow.priors.base import StateSpace, advance
from priorflow.rng import Streams
from priorflow.solvers.assimilation.resampling import (
    effective_sample_size,
    multinomial,
    systematic,
)
from priorflow.solvers.base import Posterior, require_finite

SCHEMES = {"systematic": systematic, "multinomial": multinomial}


@dataclass(frozen=True)
class BootstrapParticleFilter:
    """Sample p(x_k | y_1, …, y_k) with weighted particles.

    Attributes:
        particles: N, the number of particles of a case.
        resampling: `systematic` has the smaller variance, `multinomial` is the published one.
    """

    particles: int = 16384
    resampling: Literal["systematic", "multinomial"] = "systematic"

    def __post_init__(self) -> None:
        if self.particles < 1:
            raise ValueError(f"particles: value {self.particles}, allowed: at least 1")
        if self.resampling not in SCHEMES:
            raise ValueError(f"resampling: value {self.resampling!r}, allowed: {list(SCHEMES)}")

    def __call__(
        self, y: Tensor, operator: Operator, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to samples (cases, members, time, \\*shape).

        The members are a systematic draw of the weighted particles, together with the states that
        they were propagated from (`previous`). Only the present particles are kept in memory.

        Diagnostics:
            ess: The effective sample size of the weights, shape (cases, time).

        Raises:
            Diverged: A particle is not finite, or no particle of a case has any weight.
        """
        history = prior.initial(self.particles, rng)
        samples, previous, ess = [], [], []
        for k in range(y.shape[1]):
            x = prior.transition.sample(history, rng)
            require_finite(x, k)
            log_weights = log_likelihood(
                y[:, k, None], operator(x), operator.noise_std, ndim=y.ndim - 2
            )
            require_finite(log_weights.logsumexp(1, keepdim=True), k)
            drawn = systematic(log_weights, members, rng)
            samples.append(_take(x, drawn))
            previous.append(_take(history[:, :, -1], drawn))
            ess.append(effective_sample_size(log_weights))
            kept = SCHEMES[self.resampling](log_weights, self.particles, rng)
            history = _take(advance(history, x), kept)
        return Posterior(
            torch.stack(samples, dim=2),
            torch.stack(previous, dim=2),
            {"ess": torch.stack(ess, dim=1)},
        )


def _take(x: Tensor, index: Tensor) -> Tensor:
    """The particles `index` (cases, n) of x (cases, N, …), shape (cases, n, …)."""
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), index]
