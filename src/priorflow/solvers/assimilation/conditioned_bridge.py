"""FlowDAS without its SDE, for linear observations: the endpoint is conditioned in closed form.

For every observation y_k = A x_k + γ η the bridge of the interpolant is walked from X_0 = x_{k-1}
to X_1 = x_k. With the endpoint law p(x1 | X_s, x0) = N(m, C_s), which a network and its residuals
on validation data give, the endpoint given y is Gaussian, too. At every level s it is drawn by
Matheron's rule and the bridge goes on to the next level u, without step-size error:

    z0 = m + C_s^(1/2) z,    x1 = z0 + K_s (y + γ η' - A z0),    K_s = C_s Aᵀ (A C_s Aᵀ + γ² I)⁻¹,
    X_u = α_u x0 + β_u x1 + σ_u W_u,    W_u = W_s + N(0, u - s).

Since y tells nothing of X_u once x1 is given, (X_u, x1) then is a draw of p(X_u, x1 | x0, y), and
so on by induction: the last x1 has the law p(x_k | x_{k-1}, y_k) wherever the endpoint law is
right. What the levels are for: N(m, C_0) is poor; N(m, C_s) gets better and narrower as s grows.

C_s is that of `Interpolant`: for homogeneous fields diagonal in Fourier space, so that K_s is the
optimal interpolation of the residuals and carries a correction from where A looks to what lies
around. K_s does not depend on the case or the member: it is found once for each level. No gradient
passes through the network, and there is no guidance scale.

References:
    | FlowDAS (Chen et al., 2025), arXiv 2501.16642
    | Efficiently Sampling Functions from Gaussian Process Posteriors (Wilson et al., 2020),
      arXiv 2002.09309: Matheron's rule
    | Objective Analysis of Meteorological Fields (Gandin, 1963): optimal interpolation
"""

__all__ = ["ConditionedBridge"]

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
        steps: N, levels of the bridge, and network calls of a member, for each observation.
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
        gains = [gain(transition, operator, y[0, 0], s) for s in levels]
        history = prior.initial(members, rng)
        states = []
        for k in range(y.shape[1]):
            x0 = x = x1 = last(history, transition.shape)
            for i, s in enumerate(levels):
                if i > 0:
                    z = rng.normal(*x.shape[1:]).to(x)
                    x = transition.bridge(x, x1, levels[i - 1], s, x0, z)
                z = rng.normal(*x.shape[1:]).to(x)
                x1 = transition.endpoint(x, s, history) + transition.colour(z, s)
                noise = operator.noise_std * rng.normal(members, *y.shape[2:]).to(y)
                innovation = y[:, k, None] + noise - operator(x1)
                x1 = x1 + (innovation.flatten(2) @ gains[i]).view_as(x1)
            require_finite(x1, k)
            history = advance(history, x1)
            states.append(x1)
        return Posterior(torch.stack(states, dim=2))


def gain(
    transition: StochasticInterpolant, operator: LinearOperator, y: Tensor, s: float
) -> Tensor:
    """K_sᵀ, shape (observations, components of a state).

    Args:
        y: One observation, for its shape and its device.
    """
    size = y.numel()
    rows = operator.adjoint(torch.eye(size).to(y).view(size, *y.shape))
    rows = transition.colour(transition.colour(rows, s), s)
    gram = operator(rows).flatten(1).double()  # its condition is a squared signal-to-noise ratio
    gram = gram + operator.noise_std**2 * torch.eye(size).to(gram)
    factor = torch.linalg.cholesky(gram)
    return torch.cholesky_solve(rows.flatten(1).double(), factor).to(y)
