"""What a solver may ask of a prior over trajectories: p(x_0) and p(x_k | x_{k-L}, …, x_{k-1})."""

__all__ = ["Climate", "Initial", "Known", "StateSpace", "Trainable", "Transition", "advance"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from priorflow.rng import Streams


@runtime_checkable
class Transition(Protocol):
    """The law of the next state given the last L states, learned or simulated.

    Attributes:
        shape: The shape of one state.
        context: L, the number of past states that it sees.
    """

    shape: tuple[int, ...]
    context: int

    def sample(self, history: Tensor, rng: Streams) -> Tensor:
        """Histories (cases, members, L, \\*shape) to next states (cases, members, \\*shape)."""
        ...


class Initial(Protocol):
    """The law of the states before the first observation."""

    def __call__(self, members: int, rng: Streams) -> Tensor:
        """Draws of histories, shape (cases, members, L, \\*shape)."""
        ...


@dataclass(frozen=True)
class Known:
    """The initial history is known exactly.

    Attributes:
        history: Shape (cases, L, \\*shape).
    """

    history: Tensor

    def __call__(self, members: int, rng: Streams) -> Tensor:
        """The same history for every member, shape (cases, members, L, \\*shape)."""
        return self.history.unsqueeze(1).repeat_interleave(members, 1)


@dataclass(frozen=True)
class Climate:
    """The initial state is a draw of the system's own initial law (L = 1).

    Attributes:
        draw: `System.initial`: (members, rng) to states (cases, members, \\*shape).
    """

    draw: Callable[[int, Streams], Tensor]

    def __call__(self, members: int, rng: Streams) -> Tensor:
        """Independent draws, shape (cases, members, 1, \\*shape)."""
        return self.draw(members, rng).unsqueeze(2)


@dataclass(frozen=True)
class StateSpace:
    """The prior of an assimilation: where trajectories begin, and how they go on.

    Attributes:
        initial: The law of the history before the first observation.
        transition: The law of the next state; a method names what else it needs of it.
        positions: Where the components of a state are, shape (components, dimensions); None where
            they have no place.
        period: The period of these places, if they lie on a circle or a torus.
    """

    initial: Initial
    transition: Any
    positions: Tensor | None = None
    period: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one state."""
        return self.transition.shape


class Trainable(Protocol):
    """A prior that has parameters: what the train stage asks of it.

    Attributes:
        window: The number of consecutive states in one training example.
        progress: Set to the share of the steps that are done before each loss; 1 in validation.
    """

    window: int
    progress: float

    def prepare(self, windows: Tensor) -> None:
        """Set scaling constants from training windows (n, window, \\*shape), once."""
        ...

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """The loss of every training window, shape (n,)."""
        ...

    def calibrate(self, windows: Tensor, rng: torch.Generator) -> None:
        """Set what is estimated on validation windows, after training."""
        ...


def advance(history: Tensor, x_next: Tensor) -> Tensor:
    """Drop the oldest state of histories (cases, members, L, \\*shape), append the newest."""
    return torch.cat((history[:, :, 1:], x_next.unsqueeze(2)), dim=2)
