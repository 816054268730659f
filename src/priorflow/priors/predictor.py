"""A deterministic forecast: the next state that a network regresses on the last ones.

    x̂_{k+1} = x_k + c F(x_{k-L+1}, …, x_k),    c² = mean |x_{k+1} - x_k|² per component

minimises |x̂ - x|² / c², so that it tends to the mean of the next state.

Reference:
    FlowDAS (Chen et al., 2025), appendix D.3.4 ("-DA" baselines), arXiv 2501.16642
"""

__all__ = ["Predictor"]

import torch
from torch import Tensor, nn

from priorflow.rng import Streams


class Predictor(nn.Module):
    """A learned deterministic transition.

    Args:
        network: Maps (x, t, history) to a tensor of the shape of x; x is the last state, t is 0.
        shape: The shape of one state.
        context: The number of past states L.
        residual: Whether the network learns the increment. Otherwise it is the next state itself,
            x̂ = F, as published.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        context: int = 1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.residual = network, residual
        self.shape, self.context = tuple(shape), context
        self.window = context + 1
        self.register_buffer("increment_std", torch.ones(()))

    def predict(self, history: Tensor) -> Tensor:
        """Histories (…, L, \\*shape) to next states (…, \\*shape)."""
        x = history.select(history.ndim - len(self.shape) - 1, -1)
        t = x.new_zeros(x.shape[: x.ndim - len(self.shape)])
        f = self.network(x, t, history)
        return x + self.increment_std * f if self.residual else f

    def sample(self, history: Tensor, rng: Streams) -> Tensor:
        """`predict`, which draws nothing: all members that agree on the past stay equal."""
        return self.predict(history)

    def prepare(self, windows: Tensor) -> None:
        """Measure c on windows (n, L + 1, \\*shape): one number, for homogeneous states."""
        self.increment_std.copy_((windows[:, -1] - windows[:, -2]).square().mean().sqrt())

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """|x̂ - x|² / c² of every window (n, L + 1, \\*shape), summed over the components."""
        error = (self.predict(windows[:, :-1]) - windows[:, -1]) / self.increment_std
        return error.square().flatten(1).sum(1)

    def calibrate(self, windows: Tensor, rng: torch.Generator) -> None:
        """Nothing to estimate."""
