"""FlowDAS without its SDE, for linear observations: the endpoint is conditioned in closed form.

For every observation y_k = A x_k + γ η, levels s of the interpolant are walked from X_0 = x_{k-1}
to X_1 = x_k. With the endpoint law p(x1 | X_s, x0) = N(m, C_s), which a network and its residuals
on validation data give, the endpoint given y is Gaussian, too. At every level s it is drawn by
Matheron's rule and noised again to the next level u, without step-size error:

    z0 = m + C_s^(1/2) z,    x1 = z0 + K_s (y + γ η' - A z0),    K_s = C_s Aᵀ (A C_s Aᵀ + γ² I)⁻¹,
    X_u = α_u x0 + β_u x1 + σ_u √u z'.

If x1 has the law p(x_k | x_{k-1}, y_k), then so has every later one, wherever the endpoint law is
right: y tells nothing of X_u once x1 is given. What the levels are for: N(m, C_0) is poor, and
N(m, C_s) gets better and narrower as s grows. Noise drawn afresh, instead of the bridge from X_s to
X_u, forgets what earlier levels got wrong (DAPS).

C_s is that of `Interpolant`: for homogeneous fields diagonal in Fourier space, so that K_s is the
optimal interpolation of the residuals and carries a correction from where A looks to what lies
around. K_s does not depend on the member, nor on the case unless A does: it is found once for each
level. No gradient passes through the network, and there is no guidance scale.

References:
    | FlowDAS (Chen et al., 2025), arXiv 2501.16642
    | Efficiently Sampling Functions from Gaussian Process Posteriors (Wilson et al., 2020),
      arXiv 2002.09309: Matheron's rule
    | Decoupled Annealing Posterior Sampling (Zhang et al., 2025), section 3, arXiv 2407.01521
    | Objective Analysis of Meteorological Fields (Gandin, 1963): optimal interpolation
"""

__all__ = ["ConditionedBridge", "Gain", "condition", "covariance", "noised"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.operators.base import LinearOperator
from priorflow.priors.base import StateSpace, advance
from priorflow.priors.interpolant import StochasticInterpolant, last
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class ConditionedBridge:
    """Draw x_k given x_{k-1} and y_k, member by member: y_k never weighs x_{k-1}.

    Attributes:
        steps: N, levels, and network calls of a member, for each observation.
        power: The levels are s_i = 1 - (1 - i / N)^power: beyond 1 they crowd towards s = 1.
    """

    steps: int = 10
    power: float = 2.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: value {self.steps}, allowed: at least 1")
        if not 0 < self.power < math.inf:
            raise ValueError(f"power: value {self.power}, allowed: positive")

    @torch.no_grad()
    def __call__(
        self, y: Tensor, operator: LinearOperator, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to samples (cases, members, time, \\*shape).

        Raises:
            Diverged: A state is not finite.
        """
        transition = prior.transition
        levels = [1 - (1 - i / self.steps) ** self.power for i in range(self.steps)]
        gains = [Gain.of(operator, covariance(transition, operator, y[0, 0], s)) for s in levels]
        history = prior.initial(members, rng)
        states = []
        for k in range(y.shape[1]):
            x = x0 = last(history, transition.shape)
            for s, k_s in zip(levels, gains, strict=True):
                if s > 0:
                    x = noised(x, x0, s, transition, rng)
                z0 = transition.endpoint(x, s, history)
                z0 = z0 + transition.colour(rng.normal(*x.shape[1:]).to(x), s)
                x = condition(z0, y[:, k, None], operator, k_s, rng)
            require_finite(x, k)
            history = advance(history, x)
            states.append(x)
        return Posterior(torch.stack(states, dim=2))


def noised(
    x1: Tensor, x0: Tensor, s: float, transition: StochasticInterpolant, rng: Streams
) -> Tensor:
    """A draw of X_s given both ends, α_s x0 + β_s x1 + σ_s √s z: (cases, members, \\*shape)."""
    alpha, beta, sigma = transition.coefficients(s)
    z = rng.normal(*x1.shape[1:]).to(x1)
    return alpha * x0 + beta * x1 + sigma * math.sqrt(s) * z


@dataclass(frozen=True)
class Gain:
    """K = P Aᵀ (A P Aᵀ + γ² I)⁻¹ of a covariance P, found once and applied to many innovations.

    Attributes:
        ap: A P, shape (1 or cases, observations, components of a state).
        factor: The Cholesky factor of A P Aᵀ + γ² I, in double precision: its condition is a
            squared signal-to-noise ratio.
    """

    ap: Tensor
    factor: Tensor

    @classmethod
    def of(cls, operator: LinearOperator, rows: Tensor, anomalies: Tensor | None = None) -> "Gain":
        """The gain of P = C, or of P = C + Mᵀ M.

        Args:
            rows: A C, shape (1 or cases, observations, \\*shape).
            anomalies: M, shape (cases, members, \\*shape).
        """
        gram, ap = operator(rows).flatten(2), rows.flatten(2)
        if anomalies is not None:
            seen = operator(anomalies).flatten(2)
            gram, ap = gram + seen.mT @ seen, ap + seen.mT @ anomalies.flatten(2)
        gram = gram.double() + operator.noise_std**2 * torch.eye(gram.shape[-1]).to(gram.double())
        return cls(ap, torch.linalg.cholesky(gram))

    def __call__(self, innovation: Tensor) -> Tensor:
        """K d for innovations d (cases, members, observations)."""
        return torch.cholesky_solve(innovation.mT.double(), self.factor).mT.to(self.ap) @ self.ap


def condition(z0: Tensor, y: Tensor, operator: LinearOperator, gain: Gain, rng: Streams) -> Tensor:
    """Matheron's rule: z0 + K (y + γ η - A z0) for z0 (cases, members, \\*shape).

    Args:
        y: Observations, shape (cases, 1, \\*obs).
        gain: K.
    """
    noise = rng.normal(z0.shape[1], *y.shape[2:]).to(y)
    innovation = y + operator.noise_std * noise - operator(z0)
    return z0 + gain(innovation.flatten(2)).view_as(z0)


def covariance(
    transition: StochasticInterpolant, operator: LinearOperator, y: Tensor, s: float
) -> Tensor:
    """A C_s, shape (1, observations, \\*shape), or (cases, …) where cases have their own A.

    Args:
        y: One observation, for its shape and its device.
    """
    size = y.numel()
    rows = operator.adjoint(torch.eye(size).to(y).view(1, size, *y.shape))
    return transition.colour(transition.colour(rows, s), s)
