"""Consistency maps: from any level of noise to a clean image in one step.

f(x, σ) is where the probability flow dx/dσ = (x - D(x, σ)) / σ of a denoiser D takes x from σ to
ε: a sample of p(x0 | x), the same wherever on one path of the flow it is asked, with f(x, ε) = x.

It is learned by consistency tuning, from the weights of the denoiser, which is consistency tuning
at r = 0: on pairs of levels t > r of the same image and noise,

    loss = |f(x0 + t n, t) - sg f(x0 + r n, r)| / (t - r),      ln t ~ N(P_mean, P_std²),
    r    = t max(0, 1 - q^-(s+1) (1 + k sigmoid(-b t))),        k = 8, b = 1,

where sg stops the gradient and the stage s = 0, 1, …, S - 1 brings r towards t as training goes on.

References:
    | Consistency Models (Song et al., 2023), definition 1, arXiv 2303.01469
    | Consistency Models Made Easy (Geng et al., 2024), eq. 14 and algorithm 1, arXiv 2406.14548
"""

__all__ = ["ConsistencyMap", "LearnedConsistency"]

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from priorflow.priors.denoiser import LearnedDenoiser

NEAR, SLOPE = 8.0, 1.0  # k and b


@runtime_checkable
class ConsistencyMap(Protocol):
    """A map to the beginning of the probability flow, learned or exact.

    Attributes:
        shape: The shape of one image, (C, H, W).
        epsilon: ε, the level at which f(x, ε) = x.
    """

    shape: tuple[int, ...]
    epsilon: float

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """f(x, σ), shape (…, C, H, W), for σ > ε, a number or a tensor that broadcasts with (…)."""
        ...


class LearnedConsistency(LearnedDenoiser):
    """A consistency map of the form of a `LearnedDenoiser`, whose f(x, 0) = x as it stands.

    In the units of that class, x is in standard deviations, as are t and r; the paper's are half
    as large (σ_data = 0.5), and its P_mean = -1.1 is -0.4 here. The paper tunes with dropout, which
    a network that has learned without does not have.

    Args:
        network: F, of the same architecture as the denoiser's.
        parent: The denoiser, whose weights it starts from.
        shape: The shape of one image, (C, H, W).
        log_sigma_mean: P_mean, in standard deviations.
        log_sigma_std: P_std > 0.
        ratio: q > 1.
        stages: S.

    Attributes:
        progress: The share of the training that is done, which the stage follows; 1 is the last.
    """

    epsilon = 0.0

    def __init__(
        self,
        network: nn.Module,
        parent: Any,
        shape: tuple[int, ...],
        log_sigma_mean: float = -0.4,
        log_sigma_std: float = 2.0,
        ratio: float = 4.0,
        stages: int = 4,
    ) -> None:
        super().__init__(network, shape, 0, log_sigma_mean, log_sigma_std)
        if not ratio > 1:
            raise ValueError(f"ratio: value {ratio}, allowed: above 1")
        if stages < 1:
            raise ValueError(f"stages: value {stages}, allowed: at least 1")
        self.ratio, self.stages, self.progress = ratio, stages, 1.0
        self.load_state_dict(parent.state_dict())

    def prepare(self, windows: Tensor) -> None:
        """Nothing to measure: the units are the denoiser's."""

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """The loss of every window (n, 1, C, H, W), by root mean squares over components: (n,)."""
        x, std = windows[:, 0], self.std.to(windows)
        t = self.draw_levels(len(x), rng)
        r = self.lower(t)
        noise = std * torch.randn(x.shape, dtype=x.dtype, generator=rng, device=x.device)
        with torch.no_grad():  # at r = 0 the preconditioning alone gives f(x, 0) = x
            target = self(x + r.view(-1, 1, 1, 1) * noise, (std * r).clamp(min=1e-6))
        error = (self(x + t.view(-1, 1, 1, 1) * noise, std * t) - target) / std
        # a mean of roots, whose gradient at 0 must stay finite
        return (error.square().flatten(1).mean(1) + 1e-8).sqrt() / (t - r)

    def lower(self, t: Tensor) -> Tensor:
        """r(t) at the present stage."""
        stage = min(int(self.progress * self.stages), self.stages - 1)
        gap = self.ratio ** -(stage + 1) * (1 + NEAR * torch.sigmoid(-SLOPE * t))
        return t * (1 - gap).clamp(min=0)
