"""A convolutional autoencoder of images, on azula's blocks.

Space-to-depth first, as in `unet`: at 32² the convolutions run on 16² and 8², which takes a quarter
of the time of an encoder that begins at full resolution, such as that of latent diffusion, and the
solvers of latent priors spend most of theirs in the decoder.

Reference:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022),
    arXiv 2112.10752
"""

__all__ = ["Autoencoder"]

from collections.abc import Sequence
from itertools import pairwise

import torch
from azula.nn.layers import ConvNd
from azula.nn.unet import UNetBlock
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Residual blocks at `len(channels)` resolutions down to the latents, and back.

    The latents are `patch` · 2^(`len(channels)` - 1) times coarser than the images. The encoder
    gives the mean and the log-variance of a Gaussian.

    Args:
        shape: The shape of an image, (C, H, W).
        latent: Channels of the latents.
        channels: Channels at every resolution, each half as fine as the one before.
        blocks: Residual blocks at every resolution, in each direction.
        patch: Pixels per side that are folded into channels.
        groups: Groups of the normalisation; they divide the channels.

    Attributes:
        shape: (C, H, W).
        latent_shape: (c, h, w).
        encoder: Images to means and log-variances, (n, 2c, h, w).
        decoder: Latents to images.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int = 4,
        channels: Sequence[int] = (48, 96),
        blocks: int = 1,
        patch: int = 2,
        groups: int = 16,
    ) -> None:
        super().__init__()
        stride = patch * 2 ** (len(channels) - 1)
        if any(size % stride for size in shape[-2:]):
            raise ValueError(
                f"shape: value {tuple(shape)}, allowed: (C, H, W), H and W multiples of {stride}"
            )
        if any(width % groups for width in channels):
            raise ValueError(f"channels: value {list(channels)}, allowed: multiples of {groups}")
        self.shape = tuple(shape)
        self.latent_shape = (latent, shape[-2] // stride, shape[-1] // stride)
        folded = shape[0] * patch**2

        def stage(width: int) -> list[nn.Module]:
            return [UNetBlock(width, norm="group", groups=groups, **kernel) for _ in range(blocks)]

        kernel = {"kernel_size": 3, "padding": 1}
        down = [
            nn.PixelUnshuffle(patch),
            ConvNd(folded, channels[0], **kernel),
            *stage(channels[0]),
        ]
        for fine, coarse in pairwise(channels):
            down += [ConvNd(fine, coarse, stride=2, **kernel), *stage(coarse)]
        up = [ConvNd(latent, channels[-1], **kernel), *stage(channels[-1])]
        for coarse, fine in pairwise(reversed(channels)):
            up += [nn.Upsample(scale_factor=2), ConvNd(coarse, fine, **kernel), *stage(fine)]
        self.encoder = nn.Sequential(*down, ConvNd(channels[-1], 2 * latent, **kernel))
        self.decoder = nn.Sequential(
            *up, ConvNd(channels[0], folded, **kernel), nn.PixelShuffle(patch)
        )
        self.to(memory_format=torch.channels_last)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) to mean and log-variance, each (n, c, h, w)."""
        return self.encoder(x.contiguous(memory_format=torch.channels_last)).chunk(2, dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (n, c, h, w) to images (n, C, H, W)."""
        return self.decoder(z.contiguous(memory_format=torch.channels_last))
