"""What a stochastic dynamical system is, and its standardised form."""

__all__ = ["GaussianSystem", "Standardised", "System"]

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from priorflow.rng import Streams


@runtime_checkable
class System(Protocol):
    """A Markov chain x_{k+1} ~ p(x_{k+1} | x_k) that can be simulated.

    Attributes:
        shape: The shape of one state.
        dt: The time between two states.
        mean, std: Constants that standardise a state, (x - mean) / std; broadcast with `shape`.
        units: The units of a state, for axes.

    A system in space also has `positions`, the places of its components (components, dimensions),
    and their `period`, if it has one.
    """

    shape: tuple[int, ...]
    dt: float
    mean: Tensor
    std: Tensor
    units: str

    def initial(self, members: int, rng: Streams) -> Tensor:
        """Draws of the initial law, shape (cases, members, \\*shape)."""
        ...

    def step(self, x: Tensor, rng: Streams) -> Tensor:
        """One transition of the states (cases, …, \\*shape)."""
        ...

    def log_transition(self, x: Tensor, x_next: Tensor) -> Tensor:
        """log p(x_next | x) in natural units, shape (…) for states (…, \\*shape)."""
        ...


class GaussianSystem(ABC):
    """A system whose transition is a deterministic map plus white Gaussian noise.

    x_{k+1} = f(x_k) + q ⊙ z,  z ~ N(0, I). A subclass gives f as `advance` and q as `noise_std`.
    """

    shape: tuple[int, ...]
    dt: float
    units: str = "1"
    mean: Tensor
    std: Tensor
    noise_std: Tensor

    @abstractmethod
    def advance(self, x: Tensor) -> Tensor:
        """f(x), shape (…, \\*shape)."""

    @abstractmethod
    def initial(self, members: int, rng: Streams) -> Tensor:
        """Draws of the initial law, shape (cases, members, \\*shape)."""

    def step(self, x: Tensor, rng: Streams) -> Tensor:
        """One transition of the states (cases, …, \\*shape)."""
        return self.advance(x) + self.noise_std.to(x) * rng.normal(*x.shape[1:])

    def log_transition(self, x: Tensor, x_next: Tensor) -> Tensor:
        """log N(x_next; f(x), q²), summed over the components: (…, \\*shape) to (…)."""
        law = torch.distributions.Normal(self.advance(x), self.noise_std.to(x))
        return law.log_prob(x_next).flatten(-len(self.shape)).sum(-1)


class Standardised:
    """A system seen in the units that networks and observations use, (x - mean) / std.

    `log_transition` stays the density in natural units, as it is published. A linear system whose
    mean is zero stays linear: then `matrix`, `initial_mean` and `initial_covariance` are there too,
    in standardised units.
    """

    def __init__(self, system: System, mean: Tensor | None = None, std: Tensor | None = None):
        self.system = system
        self.mean = system.mean if mean is None else mean
        self.std = system.std if std is None else std
        self.shape, self.dt, self.units = system.shape, system.dt, "standardised"
        self.positions = getattr(system, "positions", None)
        self.period = getattr(system, "period", None)
        if hasattr(system, "noise_std"):
            self.noise_std = system.noise_std / self.std
        if hasattr(system, "matrix") and not self.mean.any():
            scale = self.std.expand(self.shape)
            self.matrix = system.matrix * scale / scale[:, None]
            self.initial_mean = system.initial_mean / scale
            self.initial_covariance = system.initial_covariance / (scale * scale[:, None])

    def encode(self, x: Tensor) -> Tensor:
        """Natural to standardised units."""
        return (x - self.mean.to(x)) / self.std.to(x)

    def decode(self, x: Tensor) -> Tensor:
        """Standardised to natural units."""
        return x * self.std.to(x) + self.mean.to(x)

    def initial(self, members: int, rng: Streams) -> Tensor:
        """Draws of the initial law, shape (cases, members, \\*shape)."""
        return self.encode(self.system.initial(members, rng))

    def advance(self, x: Tensor) -> Tensor:
        """The mean of the next state, shape (…, \\*shape); for a `GaussianSystem` only."""
        return self.encode(self.system.advance(self.decode(x)))

    def step(self, x: Tensor, rng: Streams) -> Tensor:
        """One transition of the states (cases, …, \\*shape)."""
        return self.encode(self.system.step(self.decode(x), rng))

    def log_transition(self, x: Tensor, x_next: Tensor) -> Tensor:
        """log p(x_next | x) in natural units, shape (…)."""
        return self.system.log_transition(self.decode(x), self.decode(x_next))
