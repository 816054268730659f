"""Assimilation by a deterministic predictor: FNO-DA and Transolver-DA.

With x' = f(x_{k-L}, …, x_{k-1}) the prediction of a network, the state is

    x_k = argmin_x α |x - x'|² + |y_k - A(x)|²,

which for linear A is the mode of p(x | y_k) when x ~ N(x', γ²/α I). The published optimiser is
AdamW from x', with a step of 1e-4 at most 2000 times. No pixel moves by more than about their
product, 0.2, so that it stops far from the minimum wherever the prediction is worse than that:
`exact` takes the minimum itself.

Reference:
    FlowDAS (Chen et al., 2025), section D.3.4, arXiv 2501.16642
"""

__all__ = ["PredictorDA"]

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from priorflow.priors.base import StateSpace, advance
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite

OPTIMISERS = ("adamw", "exact")


@dataclass(frozen=True)
class PredictorDA:
    """Predict, then fit the observation; the fit is the past of the next prediction.

    `prior.transition` has `predict`: histories (cases, members, L, \\*shape) to next states
    (cases, members, \\*shape). All members are equal, so the spread is 0 and the CRPS is the
    absolute error.

    Attributes:
        alpha: α, the weight of the prediction against that of the observation, which is 1.
        optimiser: `adamw` for any differentiable A; `exact` for an operator that has `prox`.
        learning_rate: The step of AdamW; unused by `exact`, as are those below.
        iterations: Steps of AdamW, all of which are taken.
        weight_decay: Of AdamW. Not published: the default of PyTorch, which takes 0.2 % off an
            unobserved pixel in 2000 steps.
    """

    alpha: float
    optimiser: Literal["adamw", "exact"] = "adamw"
    learning_rate: float = 1e-4
    iterations: int = 2000
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("alpha", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name}: value {getattr(self, name)}, allowed: finite and positive"
                )
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser: value {self.optimiser!r}, allowed: {OPTIMISERS}")
        if self.iterations < 1:
            raise ValueError(f"iterations: value {self.iterations}, allowed: at least 1")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"weight_decay: value {self.weight_decay}, allowed: finite and not negative"
            )

    @torch.no_grad()
    def __call__(
        self, y: Tensor, operator: Any, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to states (cases, members, time, \\*shape).

        Raises:
            ValueError: The minimum is not known in closed form.
            Diverged: A state is not finite.
        """
        if self.optimiser == "exact" and not (hasattr(operator, "prox") and operator.noise_std > 0):
            raise ValueError(
                "optimiser: value 'exact', allowed: 'adamw', as the operator has no prox or noise"
            )
        history = prior.initial(1, rng)
        states = []
        for k in range(y.shape[1]):
            x = self._fit(prior.transition.predict(history), y[:, k, None], operator)
            require_finite(x, k)
            history = advance(history, x)
            states.append(x)
        return Posterior(torch.stack(states, dim=2).repeat_interleave(members, 1))

    def _fit(self, prediction: Tensor, y: Tensor, operator: Any) -> Tensor:
        """The state given its prediction (cases, 1, \\*shape) and y (cases, 1, \\*obs)."""
        if self.optimiser == "exact":
            return operator.prox(prediction, y, operator.noise_std**2 / self.alpha)
        x = prediction.detach().clone().requires_grad_()
        optimiser = torch.optim.AdamW(
            [x], lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        with torch.enable_grad():
            for _ in range(self.iterations):
                prior_misfit = (x - prediction).square().sum()
                misfit = self.alpha * prior_misfit + (y - operator(x)).square().sum()
                (x.grad,) = torch.autograd.grad(misfit, x)
                optimiser.step()
        return x.detach()
