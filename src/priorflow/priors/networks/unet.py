"""A U-Net for periodic fields, and for images, on azula's.

Space-to-depth folds patches of p × p pixels into channels, so that the convolutions run on a grid
p times coarser; depth-to-space unfolds the output. Time modulates every residual block.

References:
    | U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015),
      arXiv 1505.04597
    | Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), section 3.2 (modulation),
      arXiv 2212.09748
"""

__all__ = ["PeriodicUNet"]

import math
from collections.abc import Sequence
from typing import Any

import torch
from azula.nn.layers import SineEncoding
from azula.nn.unet import UNet
from torch import Tensor, nn

FREQUENCY = 64.0  # radians over the unit of time, of the fastest sine of the embedding


class PeriodicUNet(nn.Module):
    """Residual blocks of two 3 × 3 convolutions on a periodic grid, at `len(channels)` resolutions.

    The input is x and the context, on channels; the output begins at zero. It commutes with shifts
    by multiples of the total stride, `patch` · 2^(`len(channels)` - 1).

    At 64², with a context of 2, the defaults have 1.43 million parameters. The size published for
    FlowDAS (128², context 10, 30.0 million parameters) is met by patch=1, channels=(128, 256, 256,
    256), blocks=3, embedding=128: 29.8 million.

    Args:
        shape: The shape of x and of the output, (…, H, W); dimensions before the last two count as
            channels.
        context: The number of past states L in the context; 0 without.
        channels: Channels at every resolution, each half as fine as the one before.
        blocks: Residual blocks at every resolution on the way down, and as many on the way up; one
            number for all, or one for each.
        patch: p, the pixels per side that are folded into channels.
        embedding: Features of the time embedding; even.
        groups: Groups of the normalisation; they divide the channels.
        periodic: Whether opposite borders meet; otherwise, for images, zeros lie beyond them.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int = 0,
        channels: Sequence[int] = (32, 64, 96),
        blocks: int | Sequence[int] = 2,
        patch: int = 2,
        embedding: int = 64,
        groups: int = 16,
        periodic: bool = True,
    ) -> None:
        super().__init__()
        self.shape, self.context, self.patch = tuple(shape), context, patch
        if isinstance(blocks, int):
            blocks = [blocks] * len(channels)
        if len(blocks) != len(channels):
            raise ValueError(f"blocks: value {list(blocks)}, allowed: one for each of {channels}")
        stride = patch * 2 ** (len(channels) - 1)
        if any(size % stride for size in self.shape[-2:]):
            raise ValueError(
                f"shape: value {self.shape}, allowed: (…, H, W), multiples of {stride}"
            )
        if any(width % groups for width in channels):
            raise ValueError(f"channels: value {list(channels)}, allowed: multiples of {groups}")
        fields = math.prod(self.shape[:-2])
        self.time = SineEncoding(embedding, omega=FREQUENCY)
        self.unet = UNet(
            in_channels=fields * (1 + context) * patch**2,
            out_channels=fields * patch**2,
            hid_channels=channels,
            hid_blocks=blocks,
            periodic=periodic,
            norm="group",
            groups=groups,
            mod_features=embedding,
        ).to(memory_format=torch.channels_last)
        for module in self.unet.modules():
            if periodic and isinstance(module, nn.Conv2d):
                # Its own circular padding would copy to another memory layout, and back.
                module.padding, module.padding_mode = (0, 0), "zeros"
                module.register_forward_pre_hook(_wrap)
        outlet = self.unet.ascent[-1][-1]
        nn.init.zeros_(outlet.weight)
        nn.init.zeros_(outlet.bias)

    def forward(self, x: Tensor, t: Tensor, history: Tensor | None = None) -> Tensor:
        """(…, \\*shape), (…), (…, L, \\*shape) to (…, \\*shape)."""
        lead, grid = x.shape[: x.ndim - len(self.shape)], self.shape[-2:]
        parts = [x] if history is None else [x, history]
        h = torch.cat([part.reshape(lead.numel(), -1, *grid) for part in parts], dim=1)
        h = nn.functional.pixel_unshuffle(h, self.patch)
        h = h.contiguous(memory_format=torch.channels_last)
        h = self.unet(h, self.time(FREQUENCY * t.expand(lead).reshape(-1)))
        return nn.functional.pixel_shuffle(h, self.patch).reshape(*lead, *self.shape)


class _Halo(torch.autograd.Function):
    """A periodic border of one pixel, which keeps channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        out = torch.empty(
            (n, channels, height + 2, width + 2),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        out[..., 1:-1, 1:-1] = x
        out[..., 0, 1:-1], out[..., -1, 1:-1] = x[..., -1, :], x[..., 0, :]
        out[..., 0], out[..., -1] = out[..., -2], out[..., 1]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        columns = grad[..., 1:-1].clone(memory_format=torch.channels_last)
        columns[..., -1] += grad[..., 0]
        columns[..., 0] += grad[..., -1]
        out = columns[..., 1:-1, :].clone(memory_format=torch.channels_last)
        out[..., -1, :] += columns[..., 0, :]
        out[..., 0, :] += columns[..., -1, :]
        return out


def _wrap(module: nn.Module, args: tuple[Tensor]) -> Tensor:
    return _Halo.apply(*args)
