"""The conditioned bridge with covariances of the flow of the day, from an ensemble.

For every observation y_k, in the notation of `ConditionedBridge`:

1. Forecast. E members x1 ~ p(x1 | x0) by the bridge sampler, without the observation, at levels
   s = 0, …, r of the interpolant: at the last one x1 ~ N(m, C_r), and the means m differ. Members
   that have one past, as a known one, share the call at s = 0, where X_s = x0.
2. Update of all members by Matheron's rule, with the covariance of the forecast,

       P = a (cov(m) + C_r) + (1 - a) C_0:

   the spread of the means knows where the flow is uncertain, but has the rank of E; C_0, the
   covariance of all forecasts of all days, is smooth and of full rank (a hybrid covariance).
3. Purification. The update is linear; its members need not look like states. At a few levels
   s → 1 each is noised again and its endpoint conditioned anew. The first of these levels decides
   how much of the update is kept.

No gradient passes through the network. Members at time k come from member i at time k - 1.

References:
    | FlowDAS (Chen et al., 2025), arXiv 2501.16642
    | A Hybrid Ensemble Kalman Filter-3D Variational Analysis Scheme (Hamill & Snyder, 2000)
    | Decoupled Data Consistency with Diffusion Purification (Li et al., 2024), arXiv 2403.06054
"""

__all__ = ["KalmanBridge"]

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.base import LinearOperator
from priorflow.priors.base import StateSpace, advance
from priorflow.priors.interpolant import StochasticInterpolant, last
from priorflow.rng import Streams
from priorflow.solvers.assimilation.conditioned_bridge import Gain, condition, covariance, noised
from priorflow.solvers.assimilation.ensemble import ensemble_size
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class KalmanBridge:
    """Sample p(x_k | y_1, …, y_k) with an ensemble, for linear operators.

    Attributes:
        steps: Levels of the forecast: its network calls per member.
        reach: r, the last of them.
        ensemble: E, the members that are propagated, of which the first `members` are reported;
            None for as many as are asked for.
        share: a, the weight of the ensemble's own covariance.
        start: s of the first level of purification; further ones lie evenly between it and 1.
        levels: Levels of purification: more network calls per member; 0 for none.
    """

    steps: int = 4
    reach: float = 0.7
    ensemble: int | None = None
    share: float = 0.8
    start: float = 0.9
    levels: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: value {self.steps}, allowed: at least 1")
        if self.ensemble is not None and self.ensemble < 2:
            raise ValueError(f"ensemble: value {self.ensemble}, allowed: at least 2, or None")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: value {self.share}, allowed: 0 to 1")
        for name in ("reach", "start"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: 0 to 1, without 1")
        if self.levels < 0:
            raise ValueError(f"levels: value {self.levels}, allowed: at least 0")

    @torch.no_grad()
    def __call__(
        self, y: Tensor, operator: LinearOperator, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to samples (cases, members, time, \\*shape).

        Raises:
            ValueError: The ensemble is smaller than `members` or than 2.
            Diverged: A member is not finite.
        """
        size, transition = ensemble_size(self.ensemble, members), prior.transition
        reach = self.reach if self.steps > 1 else 0.0
        late = [self.start + (1 - self.start) * i / self.levels for i in range(self.levels)]
        rows = {s: covariance(transition, operator, y[0, 0], s) for s in {0.0, reach, *late}}
        fixed = self.share * rows[reach] + (1 - self.share) * rows[0.0]
        gains = [Gain.of(operator, rows[s]) for s in late]
        history = prior.initial(size, rng)
        states = []
        for k in range(y.shape[1]):
            m = self.forecast(transition, history, reach, rng)
            anomalies = (m - m.mean(1, keepdim=True)) * math.sqrt(self.share / (size - 1))
            update = Gain.of(operator, fixed, anomalies)
            if k + 1 == y.shape[1]:  # no forecast follows that would need the others
                m, history = m[:, :members], history[:, :members]
            x0 = last(history, transition.shape)
            z0 = m + transition.colour(rng.normal(*m.shape[1:]).to(m), reach)
            x = condition(z0, y[:, k, None], operator, update, rng)
            for s, k_s in zip(late, gains, strict=True):
                z0 = transition.endpoint(noised(x, x0, s, transition, rng), s, history)
                z0 = z0 + transition.colour(rng.normal(*x.shape[1:]).to(x), s)
                x = condition(z0, y[:, k, None], operator, k_s, rng)
            require_finite(x, k)
            states.append(x[:, :members])
            history = advance(history, x)
        return Posterior(torch.stack(states, dim=2))

    def forecast(
        self, transition: StochasticInterpolant, history: Tensor, reach: float, rng: Streams
    ) -> Tensor:
        """Means m of the endpoint at the last level, (cases, members, \\*shape)."""
        levels = [reach * i / max(1, self.steps - 1) for i in range(self.steps)]
        x0 = x = last(history, transition.shape)
        if (history == history[:, :1]).all():  # members with one past share this call
            m = transition.endpoint(x[:, :1], 0.0, history[:, :1]).expand_as(x)
        else:
            m = transition.endpoint(x, 0.0, history)
        for s, u in itertools.pairwise(levels):
            x1 = m + transition.colour(rng.normal(*x.shape[1:]).to(x), s)
            x = transition.bridge(x, x1, s, u, x0, rng.normal(*x.shape[1:]).to(x))
            m = transition.endpoint(x, u, history)
        return m
