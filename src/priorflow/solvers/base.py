"""What a solver returns, and what is checked on the way."""

__all__ = ["Diverged", "Posterior", "Solver", "require_finite"]

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from priorflow.rng import Streams


@dataclass(frozen=True)
class Posterior:
    """Samples of p(x | y) for a batch of cases.

    Attributes:
        samples: Shape (cases, members, time, \\*shape) for assimilation, where the members at time
            k are draws of p(x_k | y_1, …, y_k); (cases, members, \\*shape) for restoration.
        previous: The state at time k - 1 from which each member at time k came, same shape as
            `samples`. None where member i at time k came from member i at time k - 1. A filter that
            resamples has to give it, since the log-density of transitions needs it.
        diagnostics: Further numbers per case and time, each of shape (cases, time, …), such as the
            effective sample size (`ess`) of a particle filter.
    """

    samples: Tensor
    previous: Tensor | None = None
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


class Solver(Protocol):
    """A method: a frozen dataclass whose fields are its hyper-parameters."""

    def __call__(
        self, y: Tensor, operator: Any, prior: Any, rng: Streams, members: int = 1
    ) -> Posterior:
        """Draw `members` samples of p(x | y) for every case.

        Args:
            y: Observations, shape (cases, time, \\*obs) or (cases, \\*obs).
            operator: The forward model.
            prior: The prior; a `StateSpace` for assimilation.
            rng: One stream per case.
            members: Samples per case.

        Raises:
            Diverged: A sample is not finite.
        """
        ...


class Diverged(FloatingPointError):
    """A solver left the finite numbers.

    Attributes:
        cases: Positions, in the batch, of the cases that diverged.
        step: The time index at which it was seen.
    """

    def __init__(self, cases: list[int], step: int) -> None:
        super().__init__(f"diverged in case(s) {cases} at step {step}")
        self.cases, self.step = cases, step


def require_finite(x: Tensor, step: int) -> None:
    """Raise `Diverged` if any of the states (cases, …) is not finite."""
    bad = ~x.isfinite().flatten(1).all(1)
    if bad.any():
        raise Diverged(bad.nonzero().flatten().tolist(), step)
