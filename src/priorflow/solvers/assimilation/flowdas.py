"""FlowDAS: guide the generative SDE of an interpolant by the next observation.

For every observation y_k the SDE dX = b_s ds + σ_s dW runs from X_0 = x_{k-1} to X_1 = x_k in
Euler-Maruyama steps, each followed by a gradient step on how badly J draws X1^(j) of the endpoint
fit y_k (Algorithm 2):

    X' = X + b_s(X) Δs + σ_s √Δs z,      X ← X' - ∇_X U(X)

    paper     U = ζ Σ_j w_j |y - A(X1^(j))|²,  w = softmax_j(-|y - A(X1^(j))|² / 2γ²), held fixed
    released  U = ζ |mean_j (y - A(X1^(j)))|
    exact     U = -Δs κ_s log mean_j p(y | X1^(j))

The gradient is taken at X, through the network. κ_s belongs to the law of the endpoint draws:

    sde          X1 as the SDE would reach it                 κ = ε² (1-s)²  (Doob's transform)
    interpolant  X1 ~ N(m, C_s), m = E[x1 | X_s, x0]          κ = ε² (1-s)(2-s)

so `paper` is `exact` with the constant ζ in the place of Δs κ_s / 2γ². The SDE is not run for every
draw: it is approximated to order 1 or 2, which leaves a bias that steps and draws do not remove,

    1    X1 = X + (1-s) b_s(X) + c_s z_j
    2    X1 = X + (1-s) (b_s(X) + b_1(P)) / 2 + c_s z_j,    P = X + (1-s) b_s(X) + c_s z

with one z for all draws, so that J costs no network call, and c_s = ε √((1-s)³ / 3) the standard
deviation of ∫_s^1 σ dW (`exact`) or the `published` ε (2/3 - √s + s^{3/2} / 3), which is too small
beyond s = 0.01.

Reference:
    FlowDAS (Chen et al., 2025), Algorithm 2, appendices B and C, and released code,
    arXiv 2501.16642
"""

__all__ = ["FlowDAS", "noise_of_endpoint"]

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from priorflow.priors.base import StateSpace, advance
from priorflow.priors.interpolant import StochasticInterpolant, last
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite

CHOICES = {
    "guidance": ("paper", "released", "exact"),
    "endpoint": ("sde", "interpolant"),
    "order": (1, 2),
    "endpoint_noise": ("exact", "published"),
}


@dataclass(frozen=True)
class FlowDAS:
    """Algorithm 2, member by member: y_k never weighs x_{k-1}.

    The last step keeps its noise, of standard deviation ε / steps^1.5. `interpolant` draws need one
    network call a step, like `sde` draws of order 1; their ∂m/∂X = β C_s / s σ² vanishes at s = 0,
    where the inversion of the drift does not exist: no gradient is taken there.

    Attributes:
        steps: N, Euler-Maruyama steps for each observation.
        draws: J, endpoint draws in each step.
        zeta: ζ, the step of `paper` and `released`; unused by `exact`.
        guidance: The objective U.
        endpoint: The law of the endpoint draws.
        order: 1 or 2 network calls in each `sde` draw.
        endpoint_noise: The noise of `sde` draws.
    """

    steps: int = 500
    draws: int = 21
    zeta: float = 2e-4
    guidance: Literal["paper", "released", "exact"] = "paper"
    endpoint: Literal["sde", "interpolant"] = "sde"
    order: Literal[1, 2] = 2
    endpoint_noise: Literal["exact", "published"] = "exact"

    def __post_init__(self) -> None:
        for name in ("steps", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: at least 1")
        if not 0 <= self.zeta < math.inf:
            raise ValueError(f"zeta: value {self.zeta}, allowed: finite and not negative")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: value {getattr(self, name)!r}, allowed: {allowed}")

    def __call__(
        self, y: Tensor, operator: Any, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Draw x_k given x_{k-1} and y_k for every member and time.

        Args:
            y: Observations, shape (cases, time, \\*obs).
            operator: A, differentiable, with its γ as `noise_std`.
            prior: Its transition is a `StochasticInterpolant`.
            rng: One stream per case.
            members: Samples per case.

        Raises:
            Diverged: A state is not finite.
        """
        history = prior.initial(members, rng)
        states = []
        for k in range(y.shape[1]):
            x = last(history, prior.shape)
            for i in range(self.steps):
                s = i / self.steps
                x = self._step(x, s, y[:, k, None, None], operator, prior.transition, history, rng)
            require_finite(x, k)
            history = advance(history, x)
            states.append(x)
        return Posterior(torch.stack(states, dim=2))

    def kappa(self, s: float, epsilon: float) -> float:
        """κ_s, the factor of the exact guidance in the drift."""
        return epsilon**2 * (1 - s) * (1 - s if self.endpoint == "sde" else 2 - s)

    def draw_endpoints(
        self,
        x: Tensor,
        s: float,
        b: Tensor,
        transition: StochasticInterpolant,
        history: Tensor,
        rng: Streams,
    ) -> Tensor:
        """X1^(j) given X_s = x and b = b_s(x), shape (cases, members, J, \\*shape)."""
        if self.endpoint == "interpolant":
            mean = (x + (1 - s) * b) / (s * (2 - s))
            std = transition.endpoint_std(s).to(x)
        else:
            mean = x + (1 - s) * b
            std = transition.epsilon * noise_of_endpoint(s, self.endpoint_noise)
            if self.order == 2:
                predictor = mean + std * rng.normal(*x.shape[1:]).to(x)
                b_end = transition.drift(predictor, 1.0, history)
                mean = x + (1 - s) * (b + b_end) / 2
        z = rng.normal(x.shape[1], self.draws, *x.shape[2:]).to(x)
        return mean.unsqueeze(2) + std * z

    def objective(self, residual: Tensor, noise_std: float) -> Tensor:
        """U without its factor: residuals (cases, members, J, \\*obs) to (cases, members)."""
        if self.guidance == "released":
            return torch.linalg.vector_norm(residual.mean(2).flatten(2), dim=-1)
        squares = residual.square().flatten(3).sum(-1)
        log_p = -squares / (2 * noise_std**2)
        if self.guidance == "paper":
            return (log_p.softmax(-1).detach() * squares).sum(-1)
        return -log_p.logsumexp(-1)

    def _step(
        self,
        x: Tensor,
        s: float,
        y: Tensor,
        operator: Any,
        transition: StochasticInterpolant,
        history: Tensor,
        rng: Streams,
    ) -> Tensor:
        ds = 1 / self.steps
        factor = ds * self.kappa(s, transition.epsilon) if self.guidance == "exact" else self.zeta
        guided = s > 0 or self.endpoint == "sde"
        with torch.set_grad_enabled(guided):
            x = x.detach().requires_grad_(guided)
            b = transition.drift(x, s, history)
            pull = torch.zeros_like(x)
            if guided:
                x1 = self.draw_endpoints(x, s, b, transition, history, rng)
                u = self.objective(y - operator(x1), operator.noise_std)
                (pull,) = torch.autograd.grad(u.sum(), x)
        noise = transition.coefficients(s)[2] * math.sqrt(ds) * rng.normal(*x.shape[1:]).to(x)
        return (x + b * ds + noise - factor * pull).detach()


def noise_of_endpoint(s: float, kind: Literal["exact", "published"] = "exact") -> float:
    """The standard deviation of ∫_s^1 (1 - u) dW_u, or what is published in its place.

    `published` is ∫_s^1 (1 - u) d√u: one and the same normal number for the whole path.
    """
    return math.sqrt((1 - s) ** 3 / 3) if kind == "exact" else 2 / 3 - math.sqrt(s) + s**1.5 / 3
