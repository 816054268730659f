"""Latent priors: a denoiser of latents, with the codec that makes images of them.

Reference:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022),
    section 3.2, arXiv 2112.10752
"""

__all__ = ["LatentDenoiser", "LatentPrior"]

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from priorflow.priors.codec import Codec
from priorflow.priors.denoiser import LearnedDenoiser


@runtime_checkable
class LatentPrior(Protocol):
    """A `Denoiser` of latents, E[z0 | z0 + σ n = z].

    Attributes:
        shape: The shape of the latents of one image, (c, h, w).
        codec: What makes images of them.
    """

    shape: tuple[int, ...]
    codec: Codec

    def __call__(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """D(z, σ), shape (…, c, h, w), for σ > 0, a number or a tensor that broadcasts with (…)."""
        ...


class LatentDenoiser(LearnedDenoiser):
    """A denoiser that is learned on the latents of a codec, which stays as it is.

    Args:
        network: F, see `LearnedDenoiser`; its shape is that of the latents.
        parent: The codec.
        log_sigma_mean: P_mean. Latents have variance 1.
        log_sigma_std: P_std > 0.
    """

    def __init__(
        self,
        network: nn.Module,
        parent: Any,
        log_sigma_mean: float = -0.6,
        log_sigma_std: float = 1.8,
    ) -> None:
        super().__init__(network, parent.latent_shape, 0, log_sigma_mean, log_sigma_std)
        self.codec = parent.requires_grad_(False)

    @classmethod
    def network_arguments(cls, parent: Any, **settings: Any) -> dict[str, Any]:
        """What its network is built with: the shape of the latents."""
        return {"shape": parent.latent_shape, "context": 0}

    def prepare(self, windows: Tensor) -> None:
        """Measure mean and standard deviation of the latents of windows (n, 1, C, H, W)."""
        super().prepare(self._encode(windows))

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """The loss of the latents of every window (n, 1, C, H, W), a mean over components: (n,)."""
        return super().loss(self._encode(windows), rng)

    def _encode(self, windows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.codec.encode(windows)
