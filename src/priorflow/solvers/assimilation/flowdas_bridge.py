"""FlowDAS without its SDE: a particle filter that walks the bridge of an interpolant.

The members of a case are N particles. For every observation y_k, with p(x1 | X_s, x0) = N(m, C_s):

1. s = 0: J endpoints x1^(ij) ~ N(m, C_0) of every particle i, with likelihoods l_ij of y_k.
   As long as the weights W_i mean_j l_ij are even enough, each particle picks one of its own
   endpoints and carries its weight on. Else N pairs (x0, x1) are drawn from the pool of all N J
   endpoints with the weights W_i l_ij, by systematic resampling, and the weights begin anew. With
   `steps=1` this is all: the particle filter with the optimal proposal, as J → ∞. Draws are free
   (one network call for all J) and take the last transition's noise out of the weights, but they
   do not stand in for particles: the past is represented by N states.
2. At every further level u of the bridge: X_u given X_s and x1, exactly (`bridge`); then J new
   endpoints from N(m, C_u), and x1 becomes one of these or of itself, drawn by likelihood.
3. The last x1 is x_k.

Why no further weights. If x1 ~ p(x1 | X_s, x0, y), then X_u ~ p(X_u | X_s, x1, x0) makes (X_u, x1)
a draw of p(X_u, x1 | x0, y), because y tells nothing of X_u once x1 is given. A pick among J new
endpoints *and* the present x1 leaves p(x1 | X_u, x0, y) invariant, whatever J (iterated sampling
importance resampling). By induction x1 has the law p(x1 | x0, y) at every level, and the only
weights are those of step 1: mean_j l_ij estimates p(y | x0) without bias. A pick among new
endpoints alone would be right as J → ∞ only. What the levels are for: N(m, C_0) is a poor law of a
next state that is far from Gaussian; N(m, C_s) gets better, and narrower, with every level.

No step-size error, no gradient, no guidance scale.

References:
    | FlowDAS (Chen et al., 2025), arXiv 2501.16642
    | Particle Markov chain Monte Carlo (Andrieu, Doucet & Holenstein, 2010), JRSS B 72
    | Uniform ergodicity of the iterated conditional SMC (Andrieu, Lee & Vihola, 2018), Bernoulli 24
"""

__all__ = ["FlowDASBridge"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorflow.operators.base import log_likelihood
from priorflow.priors.base import StateSpace, advance
from priorflow.priors.interpolant import StochasticInterpolant, last
from priorflow.rng import Streams
from priorflow.solvers.assimilation.resampling import effective_sample_size, systematic
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class FlowDASBridge:
    """Bridge sampling and filtering in one.

    Attributes:
        steps: Levels of the bridge, and network calls of a particle, for each observation.
        draws: J, endpoints of a particle at each level.
        particles: N of a case; None for as many as members are asked for.
        resample: Whether y_k weighs x_{k-1}. Without, every particle goes on by itself, as in
            FlowDAS: it samples Π_k p(x_k | x_{k-1}, y_k), which is not the filter.
        ess_threshold: Resample when the effective sample size falls below this part of N.
    """

    steps: int = 1
    draws: int = 64
    particles: int | None = None
    resample: bool = True
    ess_threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("steps", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: at least 1")
        if not 0 <= self.ess_threshold <= 1:
            raise ValueError(f"ess_threshold: value {self.ess_threshold}, allowed: 0 to 1")
        if self.particles is not None and self.particles < 1:
            raise ValueError(f"particles: value {self.particles}, allowed: None or at least 1")

    @torch.no_grad()
    def __call__(
        self, y: Tensor, operator: Any, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Draw x_k given y_1, …, y_k for every member and time.

        Args:
            y: Observations, shape (cases, time, \\*obs).
            operator: A, with its γ as `noise_std`.
            prior: Its transition is a `StochasticInterpolant`.
            rng: One stream per case.
            members: Samples per case, a systematic draw from the particles.

        Returns:
            Samples with the state that each came from, and the diagnostic `ess`: the effective
            sample size of the weights of the N particles, before resampling.

        Raises:
            Diverged: A state is not finite.
        """
        count = self.particles or members
        history = prior.initial(count, rng)
        log_weights = history.new_zeros(len(y), count)
        states, previous, ess = [], [], []
        for k in range(y.shape[1]):
            y_k, x0 = y[:, k, None, None], last(history, prior.shape)
            x1 = draw_endpoints(x0, 0.0, prior.transition, history, self.draws, rng)
            log_p = log_likelihood(y_k, operator(x1), operator.noise_std, y.ndim - 2)
            pool = log_weights.unsqueeze(2) + log_p
            log_total = pool.logsumexp(2)
            require_finite(log_total.logsumexp(1, keepdim=True), k)
            ess.append(effective_sample_size(log_total))
            chosen = pick(log_p, rng) + self.draws * torch.arange(count, device=y.device)
            if self.resample:
                drawn = systematic(pool.flatten(1), count, rng)
                degenerate = (ess[-1] < self.ess_threshold * count).unsqueeze(1)
                chosen = torch.where(degenerate, drawn, chosen)
                log_weights = torch.where(degenerate, 0, log_total - log_total.logsumexp(1, True))
            history = take(history, chosen // self.draws)
            x1 = take(x1.flatten(1, 2), chosen)
            x1 = self._walk(x1, y_k, operator, prior.transition, history, rng)
            require_finite(x1, k)
            shown = systematic(log_weights, members, rng)
            states.append(take(x1, shown))
            previous.append(take(last(history, prior.shape), shown))
            history = advance(history, x1)
        return Posterior(
            torch.stack(states, 2), torch.stack(previous, 2), {"ess": torch.stack(ess, 1)}
        )

    def _walk(
        self,
        x1: Tensor,
        y: Tensor,
        operator: Any,
        transition: StochasticInterpolant,
        history: Tensor,
        rng: Streams,
    ) -> Tensor:
        """Renew the endpoints x1 (cases, N, \\*shape) at every level above s = 0."""
        x0 = x = last(history, transition.shape)
        for i in range(1, self.steps):
            s, u = (i - 1) / self.steps, i / self.steps
            x = transition.bridge(x, x1, s, u, x0, rng.normal(*x.shape[1:]).to(x))
            fresh = draw_endpoints(x, u, transition, history, self.draws, rng)
            candidates = torch.cat((x1.unsqueeze(2), fresh), 2)
            log_p = log_likelihood(y, operator(candidates), operator.noise_std, y.ndim - 3)
            x1 = take(candidates.flatten(0, 1), pick(log_p, rng).view(-1, 1)).view_as(x1)
        return x1


def draw_endpoints(
    x: Tensor,
    s: float,
    transition: StochasticInterpolant,
    history: Tensor,
    draws: int,
    rng: Streams,
) -> Tensor:
    """J draws of N(m, C_s) given X_s = x, shape (cases, N, J, \\*shape)."""
    m = transition.endpoint(x, s, history)
    z = rng.normal(x.shape[1], draws, *x.shape[2:]).to(x)
    return m.unsqueeze(2) + transition.endpoint_std(s).to(x) * z


def pick(log_weights: Tensor, rng: Streams) -> Tensor:
    """For every particle an index j ≤ J by its own weights: (cases, N, J) to (cases, N)."""
    cumulative = log_weights.softmax(-1).cumsum(-1)
    u = rng.uniform(log_weights.shape[1], 1).to(cumulative) * cumulative[..., -1:]
    return (cumulative <= u).sum(-1).clamp(max=log_weights.shape[2] - 1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """x[c, index[c]] for every case c: (cases, N, …) to (cases, n, …)."""
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), index]
