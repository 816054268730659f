"""RED-diff: a point μ that fits y, pulled to where the denoiser sends its noised copies.

    x_t = √ᾱ_t μ + √(1 - ᾱ_t) n,    μ ← Adam step along  Aᵀ(A μ - y) / M + λ (μ - x̂0(x_t)) / N,

for t from the highest to 0, with M observations and N pixels. No gradient passes through the
network: the published loss is |y - A(μ)|² / 2M + λ σ_t ⟨ε̂ - n, μ⟩ / N, with ε̂ held fixed and the
published weight σ_t, and σ_t (ε̂ - n) = μ - x̂0. γ does not enter: λ stands for it.

Reference:
    A Variational Perspective on Solving Inverse Problems with Diffusion Models (Mardani et al.,
    2024), algorithm 1 and released code, arXiv 2305.04391
"""

__all__ = ["REDDiff"]

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import data_gradient, require, require_levels
from priorflow.solvers.restoration.ddpm import alpha_bar, spaced, tweedie

INITIAL = ("pinv", "zeros")


@dataclass(frozen=True)
class REDDiff:
    """One estimate per member: members differ by the noise of the search, not as samples would.

    Attributes:
        lam: λ.
        rate: Adam's learning rate, for images in [-1, 1].
        steps: Network calls, forward only: t = `start`, …, 0, evenly spaced, at most `start` + 1.
        start: The first t.
        clip: Clip x̂0 to [-1, 1]; the released code does not.
        initial: Where μ starts: `pinv`, A†y, for an operator that has it, or `zeros`.
    """

    lam: float = 0.25
    rate: float = 0.1
    steps: int = 1000
    start: int = 999
    clip: bool = False
    initial: Literal["pinv", "zeros"] = "pinv"

    def __post_init__(self) -> None:
        require(0 <= self.lam < math.inf, "lam", self.lam, "finite and not negative")
        require(0 < self.rate < math.inf, "rate", self.rate, "finite and positive")
        require_levels(self.start, self.steps)
        require(self.initial in INITIAL, "initial", self.initial, str(INITIAL))

    def __call__(
        self, y: Tensor, operator: Operator, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to estimates (cases, members, C, H, W).

        Raises:
            Diverged: An estimate is not finite; `step` is t.
            ValueError: μ is to start at A†y of an operator that has no `pinv`.
        """
        mu = y.new_zeros(len(y), members, *prior.shape)
        if self.initial == "pinv":
            require(hasattr(operator, "pinv"), "initial", "pinv", "zeros for this operator")
            mu += operator.pinv(y.unsqueeze(1))
        adam = torch.optim.Adam([mu], lr=self.rate, betas=(0.9, 0.99))
        for t in spaced(self.start, self.steps):
            n = rng.normal(*mu.shape[1:]).to(mu)
            x = math.sqrt(alpha_bar(t)) * mu + math.sqrt(1 - alpha_bar(t)) * n
            fit = data_gradient(mu, y, operator) / y[0].numel()
            pull = (mu - tweedie(prior, x, t, self.clip)) / mu[0, 0].numel()
            mu.grad = fit + self.lam * pull
            adam.step()
            require_finite(mu, t)
        return Posterior(mu)
