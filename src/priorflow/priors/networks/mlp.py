"""Fully connected networks for states that are vectors.

Interface of all networks of this package: `network(x, t, history)` with x (…, \\*shape), the time
t (…) of the interpolant or of the diffusion, in [0, 1], and the context (…, L, \\*shape) or None.
"""

__all__ = ["FourierMLP", "ResidualMLP"]

import math

import torch
from torch import Tensor, nn


def _features(x: Tensor, t: Tensor, history: Tensor | None, ndim: int) -> Tensor:
    parts = [x.flatten(-ndim), t.expand(x.shape[:-ndim]).unsqueeze(-1)]
    if history is not None:
        parts.append(history.flatten(-ndim - 1))
    return torch.cat(parts, dim=-1)


class ResidualMLP(nn.Module):
    """Residual blocks Linear-SiLU-Linear with layer norm; time enters by sines and cosines.

    Args:
        shape: The shape of x and of the output.
        context: The number of past states L in the context; 0 without.
        width: Neurons per layer.
        depth: The number of residual blocks.
        frequencies: Octaves of the sines and cosines of the time.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int = 0,
        width: int = 128,
        depth: int = 3,
        frequencies: int = 4,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        size = math.prod(shape)
        self.register_buffer(
            "octaves", math.pi * 2.0 ** torch.arange(frequencies), persistent=False
        )
        self.inlet = nn.Linear(size * (1 + context) + 1 + 2 * frequencies, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.outlet = nn.Linear(width, size)
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)

    def forward(self, x: Tensor, t: Tensor, history: Tensor | None = None) -> Tensor:
        """(…, \\*shape), (…), (…, L, \\*shape) to (…, \\*shape)."""
        ndim = len(self.shape)
        angles = t.expand(x.shape[:-ndim]).unsqueeze(-1) * self.octaves
        h = self.inlet(
            torch.cat((_features(x, t, history, ndim), angles.sin(), angles.cos()), dim=-1)
        )
        for block in self.blocks:
            h = h + block(h)
        return self.outlet(h).unflatten(-1, self.shape)


class FourierMLP(nn.Module):
    """The network of FlowDAS for Lorenz-63: fixed Fourier features of (s, x_k) in every layer.

    Each of the scalars in (s, x_k) is embedded by `frequencies` random frequencies ~ N(0, scale²);
    h ← h + SiLU(Linear(h)) + e, with e = SiLU(Linear(features)). 593,155 trainable parameters at
    the published size (width 256, depth 5, 128 frequencies, scale 30).

    Reference:
        FlowDAS (Chen et al., 2025), released code, experiments/lorenz, arXiv 2501.16642
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int = 1,
        width: int = 256,
        depth: int = 5,
        frequencies: int = 128,
        scale: float = 30.0,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        size = math.prod(shape)
        scalars = 1 + context * size
        g = torch.Generator().manual_seed(0)
        self.register_buffer(
            "frequencies", 2 * math.pi * scale * torch.randn(scalars, frequencies, generator=g)
        )
        self.embedding = nn.Linear(2 * scalars * frequencies, width)
        self.inlet = nn.Linear(size, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.outlet = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor, history: Tensor | None = None) -> Tensor:
        """(…, \\*shape), (…), (…, L, \\*shape) to (…, \\*shape)."""
        ndim = len(self.shape)
        scalars = _features(x, t, history, ndim)[..., math.prod(self.shape) :]
        angles = (scalars.unsqueeze(-1) * self.frequencies).flatten(-2)
        e = nn.functional.silu(self.embedding(torch.cat((angles.sin(), angles.cos()), -1)))
        h = self.inlet(x.flatten(-ndim))
        for layer in self.layers:
            h = h + nn.functional.silu(layer(h)) + e
        return self.outlet(h).unflatten(-1, self.shape)
