"""Persistence: nothing changes. The floor under every nowcast."""

__all__ = ["Persistence"]

from dataclasses import dataclass

from torch import Tensor

from priorflow.priors.base import StateSpace
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class Persistence:
    """Every state is the last known one, x_k = x_0; the observations are ignored.

    Where the initial history is known all members are equal, so the spread is 0 and the CRPS is the
    absolute error.
    """

    def __call__(
        self, y: Tensor, operator: object, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Repeat the last state of the history for as many steps as there are observations.

        Raises:
            Diverged: The history is not finite.
        """
        last = prior.initial(members, rng)[:, :, -1]
        require_finite(last, 0)
        return Posterior(last.unsqueeze(2).repeat_interleave(y.shape[1], 2))
