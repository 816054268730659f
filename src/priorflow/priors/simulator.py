"""The system's own simulator as a transition: the exact model."""

__all__ = ["Simulator"]

from typing import Any

from torch import Tensor

from priorflow.rng import Streams


class Simulator:
    """p(x_k | x_{k-1}) by simulation.

    Args:
        system: A `System`, in the units of the assimilation. Its further attributes (`matrix` and
            `noise_std` of a linear-Gaussian system, …) are there as attributes of the transition.
    """

    context = 1

    def __init__(self, system: Any) -> None:
        self.system = system
        self.shape = tuple(system.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["system"], name)

    def sample(self, history: Tensor, rng: Streams) -> Tensor:
        """Histories (cases, members, 1, \\*shape) to next states (cases, members, \\*shape)."""
        return self.system.step(history[:, :, -1], rng)
