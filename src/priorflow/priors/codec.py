"""Codecs: images to latents and back, for priors that know latents only.

A variational autoencoder q(z | x) = N(m(x), s(x)²), x̂ = D(z), with a weak pull of q to N(0, I):

    loss = |x - D(m + s n)|² + β KL(q(z | x) || N(0, I)),    n ~ N(0, I).

β only sets how much noise the decoder has to bear. At a small one the noise adds β / 2 per latent
to the square error of an image, whatever the decoder: the best s is where the two terms balance.

References:
    | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), eq. 10, arXiv 1312.6114
    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022),
      section 3.1 and appendix G, arXiv 2112.10752
"""

__all__ = ["Codec", "LearnedCodec"]

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Codec(Protocol):
    """An encoder and a decoder.

    Attributes:
        shape: The shape of one image, (C, H, W).
        latent_shape: The shape of its latents, (c, h, w).
    """

    shape: tuple[int, ...]
    latent_shape: tuple[int, ...]

    def encode(self, x: Tensor) -> Tensor:
        """Images (…, C, H, W) in [-1, 1] to latents (…, c, h, w) of about mean 0 and variance 1."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Latents (…, c, h, w) to images (…, C, H, W)."""
        ...


class LearnedCodec(nn.Module):
    """A codec that is learned. It is deterministic: an image's latents are the mean m(x).

    The loss has no perceptual and no adversarial term, which need other networks: it buys the least
    square error, and so blurs what does not fit into the latents.

    Args:
        network: E and D; see `networks.autoencoder`.
        shape: The shape of one image, (C, H, W).
        beta: β ≥ 0, for the sum of square errors over an image in [-1, 1].

    Attributes:
        mean: The mean of every channel of m(x) over images, which `encode` takes off, (c, 1, 1).
        std: Its standard deviation, likewise.
    """

    window = 1

    def __init__(self, network: nn.Module, shape: tuple[int, ...], beta: float = 1e-3) -> None:
        super().__init__()
        if not beta >= 0:
            raise ValueError(f"beta: value {beta}, allowed: not negative")
        self.shape, self.latent_shape = tuple(shape), tuple(network.latent_shape)
        self.network, self.beta = network, beta
        self.register_buffer("mean", torch.zeros(self.latent_shape[0], 1, 1))
        self.register_buffer("std", torch.ones(self.latent_shape[0], 1, 1))

    def encode(self, x: Tensor) -> Tensor:
        """Images (…, C, H, W) to latents (…, c, h, w) of mean 0 and variance 1 in every channel."""
        z, _ = self.network.encode(x.reshape(-1, *self.shape))
        z = (z - self.mean.to(z)) / self.std.to(z)
        return z.reshape(*x.shape[: x.ndim - len(self.shape)], *self.latent_shape)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (…, c, h, w) to images (…, C, H, W)."""
        natural = self.mean.to(z) + self.std.to(z) * z.reshape(-1, *self.latent_shape)
        x = self.network.decode(natural)
        return x.reshape(*z.shape[: z.ndim - len(self.latent_shape)], *self.shape)

    def prepare(self, windows: Tensor) -> None:
        """Nothing to measure: images are in [-1, 1]."""

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """The loss of every window (n, 1, C, H, W), per component of the image: (n,)."""
        x = windows[:, 0]
        mean, log_variance = self.network.encode(x)
        log_variance = log_variance.clamp(
            -30, 20
        )  # as latent diffusion has it: exp must stay finite
        noise = torch.randn(mean.shape, generator=rng, device=x.device, dtype=x.dtype)
        error = self.network.decode(mean + (log_variance / 2).exp() * noise) - x
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2
        return (error.square().flatten(1).sum(1) + self.beta * divergence) / x[0].numel()

    def calibrate(self, windows: Tensor, rng: torch.Generator) -> None:
        """Measure mean and standard deviation of the latents of windows (n, 1, C, H, W)."""
        with torch.no_grad():
            z = torch.cat([self.network.encode(part)[0] for part in windows[:, 0].split(256)])
        self.mean.copy_(z.mean((0, 2, 3)).view(-1, 1, 1))
        self.std.copy_(z.transpose(0, 1).flatten(1).std(1).view(-1, 1, 1))
