"""FlowDAS without its SDE, for fields: a generative forecast, a Kalman update, purification.

For every observation y_k, with the interpolant X_s = α_s x0 + β_s x1 + σ_s W_s and the endpoint law
p(x1 | X_s, x0) ≈ N(m, C_s) that its network gives:

1. Forecast. E members x1 ~ p(x1 | x0) by the bridge sampler: no observation, no step-size error.
2. Update. The ensemble Kalman update of all members with the covariance of the forecast, which
   carries the correction from where A looks to everywhere else. The network errs, so that its
   ensemble is too sure: the noise of the observations counts as √(γ² + δ²).
3. Purification. The update is linear; its members need not look like states. At a few levels
   s → 1 each member is noised again, X_s = α_s x0 + β_s x1 + σ_s √s z, and its endpoint is drawn
   given the observation, exactly for linear A (perturb and optimise):

       z0 ~ N(m, C_s),  y' = y + γ η,  x1 = argmin_z |y' - A z|² / 2γ² + |z - z0|²_{C_s⁻¹} / 2.

   Noise drawn afresh forgets the errors of earlier levels (DAPS, DCDP). The first level decides
   how much of the update is kept.

No gradient passes through the network. Members at time k come from member i at time k - 1.

References:
    | FlowDAS (Chen et al., 2025), arXiv 2501.16642
    | Analysis Scheme in the Ensemble Kalman Filter (Burgers, van Leeuwen & Evensen, 1998)
    | Decoupled Annealing Posterior Sampling (Zhang et al., 2025), section 3,
      arXiv 2407.01521
    | Decoupled Data Consistency with Diffusion Purification (Li et al., 2024), arXiv 2403.06054
"""

__all__ = ["KalmanBridge"]

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorflow.priors.base import StateSpace, advance
from priorflow.priors.interpolant import StochasticInterpolant, last
from priorflow.rng import Streams
from priorflow.solvers.assimilation.enkf import kalman_increments, tapers
from priorflow.solvers.assimilation.ensemble import ensemble_size
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class KalmanBridge:
    """Sample p(x_k | y_1, …, y_k) with an ensemble, for linear operators that have `prox`.

    Attributes:
        steps: Levels of the bridge in the forecast: its network calls per member.
        ensemble: E, the members that are propagated, of which the first `members` are reported;
            None for as many as are asked for.
        inflation: Factor of the deviations of the forecast from its mean.
        model_std: δ, what the observations of the forecast are off by beyond its spread.
        localisation: Distance from which covariances are zero; see `EnsembleKalmanFilter`.
        start: s of the first level of purification; further ones lie evenly between it and 1.
        levels: Levels of purification: more network calls per member; 0 for none.
    """

    steps: int = 5
    ensemble: int | None = None
    inflation: float = 1.0
    model_std: float = 0.0
    localisation: float | None = None
    start: float = 0.8
    levels: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: value {self.steps}, allowed: at least 1")
        if self.ensemble is not None and self.ensemble < 2:
            raise ValueError(f"ensemble: value {self.ensemble}, allowed: at least 2, or None")
        if not 0 < self.inflation < math.inf:
            raise ValueError(f"inflation: value {self.inflation}, allowed: positive")
        if not 0 <= self.model_std < math.inf:
            raise ValueError(f"model_std: value {self.model_std}, allowed: not negative")
        if self.localisation is not None and not self.localisation > 0:
            raise ValueError(f"localisation: value {self.localisation}, allowed: positive, or None")
        if not 0 <= self.start < 1:
            raise ValueError(f"start: value {self.start}, allowed: 0 to 1, without 1")
        if self.levels < 0:
            raise ValueError(f"levels: value {self.levels}, allowed: at least 0")

    @torch.no_grad()
    def __call__(
        self, y: Tensor, operator: Any, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to samples (cases, members, time, \\*shape).

        Raises:
            ValueError: The ensemble is smaller than `members` or than 2, or positions are missing.
            Diverged: A member is not finite.
        """
        size = ensemble_size(self.ensemble, members)
        taper = None if self.localisation is None else tapers(self.localisation, operator, prior)
        noise_std = math.hypot(operator.noise_std, self.model_std)
        history = prior.initial(size, rng)
        states = []
        for k in range(y.shape[1]):
            x = prior.transition.sample(history, rng, self.steps)
            x = x.mean(1, keepdim=True).lerp(x, self.inflation)
            predicted, y_k = operator(x).flatten(2), y[:, k, None]
            x = x + kalman_increments(
                x.flatten(2), predicted, y_k.flatten(2), noise_std, rng, taper=taper
            ).view_as(x)
            if k + 1 == y.shape[1]:  # no forecast follows that would need the others
                x, history = x[:, :members], history[:, :members]
            x = self.purify(x, y_k, operator, prior.transition, history, rng)
            require_finite(x, k)
            states.append(x[:, :members])
            history = advance(history, x)
        return Posterior(torch.stack(states, dim=2))

    def purify(
        self,
        x1: Tensor,
        y: Tensor,
        operator: Any,
        transition: StochasticInterpolant,
        history: Tensor,
        rng: Streams,
    ) -> Tensor:
        """Draw the endpoints x1 (cases, members, \\*shape) anew, from `start` on, given y.

        Args:
            y: Shape (cases, 1, \\*obs).
        """
        x0 = last(history, transition.shape)
        for i in range(self.levels):
            s = self.start + (1 - self.start) * i / self.levels
            alpha, beta, sigma = transition.coefficients(s)
            z = rng.normal(*x1.shape[1:]).to(x1)
            x = alpha * x0 + beta * x1 + sigma * math.sqrt(s) * z
            std = transition.endpoint_std(s).to(x)
            z0 = transition.endpoint(x, s, history) + std * rng.normal(*x1.shape[1:]).to(x1)
            noise = rng.normal(x1.shape[1], *y.shape[2:]).to(y)
            x1 = operator.prox(z0, y + operator.noise_std * noise, std**2)
        return x1
