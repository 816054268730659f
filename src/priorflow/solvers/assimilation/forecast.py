"""The forecast without observations: the floor under every method."""

__all__ = ["Forecast"]

from dataclasses import dataclass

import torch
from torch import Tensor

from priorflow.priors.base import StateSpace, advance
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class Forecast:
    """Sample p(x_1, …, x_K | x_0) and ignore the observations."""

    def __call__(
        self, y: Tensor, operator: object, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Run the transition freely for as many steps as there are observations."""
        history = prior.initial(members, rng)
        states = []
        for k in range(y.shape[1]):
            x = prior.transition.sample(history, rng)
            require_finite(x, k)
            history = advance(history, x)
            states.append(x)
        return Posterior(torch.stack(states, dim=2))
