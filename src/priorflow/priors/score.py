"""Scores of trajectories, composed of the scores of short windows.

A state x is noised as x_t = α_t x + σ_t z, z ~ N(0, I), and a network learns the noise z of windows
of 2k + 1 consecutive states. For a Markov chain the score of the noised trajectory at state i is
nearly that of the window around it alone, so that the noise prediction of a whole trajectory is

    ε(x_{0:T-1})_i = ε(x_{i-k:i+k})_k,      k ≤ i < T - k,

and the first and the last k states take theirs from the first and the last window. This is exact
for t → 0, and in general for k large enough.

Reference:
    Score-based Data Assimilation (Rozet & Louppe, 2023), section 3.1, arXiv 2306.10574
"""

__all__ = ["SquaredCosineSchedule", "WindowScore"]

import math
from typing import Any

import torch
from azula.noise import Schedule
from torch import Tensor, nn


class SquaredCosineSchedule(Schedule):
    """The variance-preserving schedule of SDA.

    α_t = cos²(ω t) with ω = arccos(√η), and σ_t² = 1 - α_t² + η²: α falls from 1 to η while σ
    rises from η to 1. σ uses 1 - cos⁴ = sin² (1 + cos²), which does not cancel where t → 0.

    Args:
        eta: η in (0, 1).
    """

    def __init__(self, eta: float = 1e-3) -> None:
        if not 0 < eta < 1:
            raise ValueError(f"eta: value {eta}, allowed: 0 < eta < 1")
        self.eta = eta
        self.omega = math.acos(math.sqrt(eta))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(α_t, σ_t), each of the shape of t."""
        cos2, sin2 = (self.omega * t).cos().square(), (self.omega * t).sin().square()
        return cos2, (sin2 * (1 + cos2) + self.eta**2).sqrt()


class WindowScore(nn.Module):
    """The noise prediction of windows, and of trajectories of any length composed of them.

    Args:
        network: Maps (windows, t, None) to the noise of windows (…, 2k + 1, \\*shape), with t (…);
            built with the arguments that `network_arguments` gives.
        shape: The shape of one state.
        context: The number of states L before the first observation.
        order: k, the number of neighbours on either side.
        eta: η of the schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        context: int = 1,
        order: int = 1,
        eta: float = 1e-3,
    ) -> None:
        super().__init__()
        if order < 1:
            raise ValueError(f"order: value {order}, allowed: >= 1")
        self.network = network
        self.shape, self.context, self.order = tuple(shape), context, order
        self.window = 2 * order + 1
        self.schedule = SquaredCosineSchedule(eta)

    @staticmethod
    def network_arguments(
        shape: tuple[int, ...], context: int = 1, order: int = 1, **settings: Any
    ) -> dict[str, Any]:
        """What a network must be built with: it sees whole windows and no context.

        Args:
            shape: The shape of one state.
            context: Not used: the past is part of the window.
            order: k.
            settings: Further settings of the prior, which do not matter to the network.
        """
        return {"shape": (2 * order + 1, *shape), "context": 0}

    def epsilon(self, trajectory: Tensor, t: float | Tensor) -> Tensor:
        """The noise in a trajectory (…, T, \\*shape) at the time t of the diffusion, a scalar.

        Raises:
            ValueError: The trajectory is shorter than a window.
        """
        axis = trajectory.ndim - len(self.shape) - 1
        if trajectory.shape[axis] < self.window:
            raise ValueError(
                f"trajectory: {trajectory.shape[axis]} states, allowed: >= {self.window} "
                f"(2 order + 1)"
            )
        windows = trajectory.unfold(axis, self.window, 1).movedim(-1, axis + 1)
        t = torch.as_tensor(t, dtype=windows.dtype, device=windows.device)
        noise = self.network(windows, t.expand(windows.shape[: axis + 1]), None)
        return torch.cat(
            (
                noise.select(axis, 0).narrow(axis, 0, self.order),
                noise.select(axis + 1, self.order),
                noise.select(axis, -1).narrow(axis, self.order + 1, self.order),
            ),
            dim=axis,
        )

    def prepare(self, windows: Tensor) -> None:
        """Nothing to set: the schedule supposes standardised states."""

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """|ε(α_t x + σ_t z, t) - z|² of every window (n, 2k + 1, \\*shape), with t ~ U[0, 1)."""
        like = {"generator": rng, "dtype": windows.dtype, "device": windows.device}
        t = torch.rand(len(windows), **like)
        z = torch.randn(windows.shape, **like)
        alpha, sigma = (c.view(-1, *(1,) * (windows.ndim - 1)) for c in self.schedule(t))
        return (self.network(alpha * windows + sigma * z, t, None) - z).square().flatten(1).sum(1)

    def calibrate(self, windows: Tensor, rng: torch.Generator) -> None:
        """Nothing to estimate."""
