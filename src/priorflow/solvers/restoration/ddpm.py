"""The diffusion that the published solvers are written in: DDPM's 1000 variance-preserving steps.

x_t = √ᾱ_t x0 + √(1 - ᾱ_t) n,  ᾱ_t = ∏_{i ≤ t} (1 - β_i),  β from 1e-4 to 0.02 in equal steps, for
t = 0, …, 999. In the notation of a denoiser D(x, σ): x = x_t / √ᾱ_t, σ_t = √((1 - ᾱ_t) / ᾱ_t).

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv 2006.11239
    | Denoising Diffusion Implicit Models (Song et al., 2021), arXiv 2010.02502
"""

__all__ = ["STEPS", "alpha_bar", "ancestral", "ddim", "epsilon_of", "sigma_of", "spaced", "tweedie"]

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from priorflow.priors.denoiser import Denoiser

STEPS = 1000


@cache
def _alphas() -> tuple[float, ...]:
    return tuple(np.cumprod(1 - np.linspace(1e-4, 0.02, STEPS)).tolist())


def alpha_bar(t: int) -> float:
    """ᾱ_t for t in 0, …, 999; ᾱ_{-1} = 1 is the clean image."""
    return _alphas()[t] if t >= 0 else 1.0


def sigma_of(t: int) -> float:
    """σ_t = √((1 - ᾱ_t) / ᾱ_t): the noise that a denoiser is told."""
    return math.sqrt((1 - alpha_bar(t)) / alpha_bar(t))


def tweedie(prior: Denoiser, x: Tensor, t: int, clip: bool = True) -> Tensor:
    """x̂0 = E[x0 | x_t = x], clipped to [-1, 1] as all released codes do."""
    x0 = prior(x / math.sqrt(alpha_bar(t)), sigma_of(t))
    return x0.clamp(-1, 1) if clip else x0


def epsilon_of(x: Tensor, x0: Tensor, t: int) -> Tensor:
    """ε̂ = (x_t - √ᾱ_t x̂0) / √(1 - ᾱ_t), the noise that belongs to an estimate."""
    return (x - math.sqrt(alpha_bar(t)) * x0) / math.sqrt(1 - alpha_bar(t))


def ddim(
    x: Tensor, x0: Tensor, t: int, s: int, eta: float = 0.0, z: Tensor | None = None
) -> Tensor:
    """x_s from x_t and the estimate x̂0, for s < t (s = -1: the clean image).

    Args:
        eta: 0 is deterministic, 1 is ancestral (Song et al., eq. 12 and 16).
        z: Standard normal noise of the shape of x; needed where eta > 0.
    """
    a, b = alpha_bar(t), alpha_bar(s)
    std = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
    mean = math.sqrt(b) * x0 + math.sqrt(max(0.0, 1 - b - std**2)) * epsilon_of(x, x0, t)
    return mean if std == 0 else mean + std * z


def ancestral(x: Tensor, x0: Tensor, t: int, s: int, z: Tensor) -> Tensor:
    """A draw of p(x_s | x_t, x̂0): DDPM's step with the posterior variance β̃ (Ho et al., eq. 7)."""
    return ddim(x, x0, t, s, 1.0, z)


def spaced(first: int, steps: int) -> list[int]:
    """`steps` time indices, evenly spaced and descending from `first` to 0, without repetition.

    A single one is `first`: where the noise is, there a denoiser is needed.
    """
    if steps == 1:
        return [first]
    return sorted({int(i) for i in torch.linspace(0, first, steps).round()}, reverse=True)
