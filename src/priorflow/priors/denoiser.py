"""Denoisers: the prior of image restoration, seen through its posterior means.

A denoiser is D(x, σ) = E[x0 | x0 + σ n = x] with n ~ N(0, I) and x0 ~ p(x0); by Tweedie's formula
the score of the noisy images is (D(x, σ) - x) / σ². Every solver uses this one form: an image of a
variance-preserving diffusion, x_t = √ᾱ x0 + √(1 - ᾱ) n, is x = x_t / √ᾱ with σ = √((1 - ᾱ) / ᾱ).

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
      arXiv 2206.00364
    | Tweedie's Formula and Selection Bias (Efron, 2011)
    | Variational Diffusion Models (Kingma et al., 2021), appendix I.1, arXiv 2107.00630
"""

__all__ = ["AsAzula", "Denoiser", "LearnedDenoiser"]

import math
from typing import Any, Protocol, runtime_checkable

import torch
from azula.denoise import Denoiser as AzulaDenoiser
from azula.denoise import DiracPosterior, KarrasDenoiser
from azula.noise import Schedule, VESchedule
from torch import Tensor, nn


@runtime_checkable
class Denoiser(Protocol):
    """The posterior mean of an image in white noise, learned or exact.

    Attributes:
        shape: The shape of one image, (C, H, W).
    """

    shape: tuple[int, ...]

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """D(x, σ), shape (…, C, H, W).

        Args:
            x: Noisy images, shape (…, C, H, W).
            sigma: σ > 0, a number or a tensor that broadcasts with (…).
        """
        ...


class AsAzula(AzulaDenoiser):
    """A denoiser D(x, σ) as azula's E[x0 | x_t] at a time t, for azula's samplers.

    Args:
        prior: D.
        schedule: Time t to α and σ of x_t = α x0 + σ n.
        clip: Clip x̂0 to [-1, 1].
    """

    def __init__(self, prior: Denoiser, schedule: Schedule, clip: bool = False) -> None:
        super().__init__()
        self.prior, self.schedule, self.clip = prior, schedule, clip

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """One time t for all x_t, shape (…, C, H, W)."""
        alpha, sigma = self.schedule(t)
        x0 = self.prior(x_t / alpha, sigma / alpha)
        return DiracPosterior(x0.clamp(-1, 1) if self.clip else x0)


class LearnedDenoiser(nn.Module):
    """A denoiser that is learned, with the preconditioning and the loss of Karras et al. (table 1).

    In units in which images have mean 0 and variance 1,

        D(x, σ) = x / (1 + σ²) + σ / √(1 + σ²) F(x / √(1 + σ²), ¼ ln σ),
        loss    = E (1 + 1/σ²) |D(x0 + σ n, σ) - x0|² / components,     ln σ ~ N(P_mean, P_std²)

    so that F has inputs and targets of variance 1 at every σ, and F = 0 is the best linear filter
    of white images, with a loss of 1. (Karras et al. write σ / σ_data for σ, and do not centre.)

    Restoration asks for D from the σ ≈ 0.01 at which the steps of all methods end to the σ ≈ 80 at
    which some begin. Under the default law of σ, 1.3 % lie below and 0.3 % above; under that of
    Karras et al., N(-1.2, 1.2²), only one in 600,000 lies above.

    Args:
        network: F, which maps (x, t, None) to the shape of x; t is ¼ ln σ.
        shape: The shape of one image, (C, H, W).
        context: 0: an image has no past.
        log_sigma_mean: P_mean, for σ in the units of the images.
        log_sigma_std: P_std > 0.
    """

    window = 1

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        context: int = 0,
        log_sigma_mean: float = -0.6,
        log_sigma_std: float = 1.8,
    ) -> None:
        super().__init__()
        if context != 0:
            raise ValueError(f"context: value {context}, allowed: 0")
        if not log_sigma_std > 0:
            raise ValueError(f"log_sigma_std: value {log_sigma_std}, allowed: positive")
        self.shape = tuple(shape)
        self.log_sigma_mean, self.log_sigma_std = log_sigma_mean, log_sigma_std
        self.denoiser = KarrasDenoiser(_Backbone(network), VESchedule(1.0, math.e))  # σ_t = e^t
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    @property
    def network(self) -> nn.Module:
        """F."""
        return self.denoiser.backbone.network

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """D(x, σ): noisy images (…, C, H, W) to images; σ is a number or broadcasts with (…)."""
        lead, (mean, std) = x.shape[: x.ndim - len(self.shape)], self._units(x)
        log_sigma = (torch.as_tensor(sigma).to(x) / std).log().expand(lead).reshape(-1)
        posterior = self.denoiser((x.reshape(-1, *self.shape) - mean) / std, log_sigma)
        return (mean + std * posterior.mean).view_as(x)

    def prepare(self, windows: Tensor) -> None:
        """Measure mean and standard deviation on windows (n, 1, C, H, W): two numbers."""
        self.mean.copy_(windows.mean())
        self.std.copy_(windows.std())

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """The loss of every window (n, 1, C, H, W), a mean over components: (n,)."""
        x = windows[:, 0]
        sigma = self.draw_levels(len(x), rng).view(-1, 1, 1, 1)
        noisy = x + sigma * torch.randn(x.shape, dtype=x.dtype, generator=rng, device=x.device)
        error = self(noisy, sigma.flatten()) - x
        weight = self._units(x)[1].pow(-2) + sigma.pow(-2)
        return (weight * error.square()).flatten(1).mean(1)

    def draw_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """n levels of noise of the training law, shape (n,).

        Their quantiles are spread evenly over the batch, which makes its mean less noisy.
        """
        u = torch.rand(1, generator=rng, device=rng.device)
        u = (u + torch.arange(n, device=rng.device) / n) % 1
        z = torch.special.ndtri(u.clamp(min=1e-6))
        return (self.log_sigma_mean + self.log_sigma_std * z).exp()

    def calibrate(self, windows: Tensor, rng: torch.Generator) -> None:
        """Nothing to estimate."""

    def _units(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.to(x), self.std.to(x)


class _Backbone(nn.Module):
    """The network as azula calls it, with ln σ."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        return self.network(x, log_sigma / 4, None)
