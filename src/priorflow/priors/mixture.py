"""The exact denoiser and the exact consistency map of a mixture of low-rank Gaussians.

In the eigenbasis of component k, C_k = U_k diag(λ_k) U_kᵀ + δ² (I - U_k U_kᵀ), both are a gain h
along every eigenvector, weighted by how likely the component is:

    Σ_k w_k(x) [μ_k + U_k diag h(λ_k) U_kᵀ (x - μ_k) + h(δ²) (I - U_k U_kᵀ) (x - μ_k)],
    w_k(x) ∝ π_k N(x; μ_k, C_k + σ² I),

with h(λ) = λ / (λ + σ²) for the denoiser, E[x0 | x0 + σ n = x], and h(λ) = √((λ + ε²) / (λ + σ²))
for the consistency map of a single Gaussian, which goes down the probability flow
dx/dσ = (x - D(x, σ)) / σ to the level ε.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
      eq. 1 and 3, arXiv 2206.00364
    | Consistency Models (Song et al., 2023), arXiv 2303.01469
"""

__all__ = ["ExactConsistency", "ExactDenoiser"]

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class MixtureFilter(nn.Module, ABC):
    """What the denoiser and the consistency map share; a subclass gives h as `gain`.

    Args:
        system: A `GaussianMixture`, in natural or standardised units, which are the same.

    Attributes:
        shape: (C, H, W); n is its product.
        weights: π, shape (K,).
        means: μ, shape (K, n).
        basis: U, orthonormal columns, shape (K, n, r).
        excess: λ - δ² ≥ 0, the eigenvalues of L Lᵀ, shape (K, r).
        residual_std: δ.
    """

    def __init__(self, system: Any) -> None:
        super().__init__()
        law = getattr(system, "system", system)
        self.shape, self.residual_std = tuple(law.shape), law.residual_std
        factors = law.factors.double().flatten(2).mT
        basis, singular, _ = torch.linalg.svd(factors, full_matrices=False)
        self.register_buffer("weights", law.weights.double())
        self.register_buffer("means", law.means.double().flatten(1))
        self.register_buffer("basis", basis)
        self.register_buffer("excess", singular.square())

    @property
    def network(self) -> nn.Module:
        """Itself: what is counted as one network evaluation per image."""
        return self

    @property
    def factors(self) -> Tensor:
        """L, shape (K, n, r)."""
        return self.basis * self.excess.sqrt().unsqueeze(1)

    @abstractmethod
    def gain(self, variance: Tensor, sigma: Tensor) -> Tensor:
        """h(λ), for variances λ and noise levels σ that broadcast."""

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Noisy images (…, C, H, W) to images; σ is a number or broadcasts with (…)."""
        sigma, inside, outside = self._split(x, sigma)
        basis, excess = self.basis.to(x), self.excess.to(x)
        variance = torch.tensor(self.residual_std**2).to(x)
        inside_gain, outside_gain = (self.gain(v, sigma) for v in (excess + variance, variance))
        images = torch.einsum("...kr,knr->...kn", inside_gain * inside, basis)
        images = self.means.to(x) + images + outside_gain * outside
        weights = self._log_joint(sigma, inside, outside).softmax(-1)
        return torch.einsum("...k,...kn->...n", weights, images).view_as(x)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log p(x0 + σ n = x) of images (…, C, H, W), shape (…)."""
        constant = self.means.shape[1] / 2 * math.log(2 * math.pi)
        return self._log_joint(*self._split(x, sigma)).logsumexp(-1) - constant

    def _split(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """σ (…, 1, 1), and x - μ_k as its coefficients (…, K, r) in U_k and what they leave."""
        residual = x.flatten(-3).unsqueeze(-2) - self.means.to(x)
        basis = self.basis.to(x)
        inside = torch.einsum("...kn,knr->...kr", residual, basis)
        outside = residual - torch.einsum("...kr,knr->...kn", inside, basis)
        return torch.as_tensor(sigma).to(x)[..., None, None], inside, outside

    def _log_joint(self, sigma: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
        """log π_k N(x; μ_k, C_k + σ² I), but for a constant, shape (…, K)."""
        size, rank = self.basis.shape[1:]
        rest = self.residual_std**2 + sigma.square()
        variance = self.excess.to(inside) + rest
        distance = (inside.square() / variance).sum(-1) + (outside.square() / rest).sum(-1)
        log_det = variance.log().sum(-1) + (size - rank) * rest.log().squeeze(-1)
        return self.weights.log().to(inside) - (distance + log_det) / 2


class ExactDenoiser(MixtureFilter):
    """D(x, σ) = E[x0 | x0 + σ n = x] of a mixture, a `Denoiser` without parameters."""

    def gain(self, variance: Tensor, sigma: Tensor) -> Tensor:
        """λ / (λ + σ²)."""
        return variance / (variance + sigma.square())


class ExactConsistency(MixtureFilter):
    """f(x, σ): from the level σ to the level ε, in one step; of a single Gaussian.

    Args:
        system: A `GaussianMixture` with K = 1.
        epsilon: ε ≥ 0, the level at which f(x, ε) = x.
    """

    def __init__(self, system: Any, epsilon: float = 0.002) -> None:
        super().__init__(system)
        if len(self.weights) != 1:
            raise ValueError(f"system: {len(self.weights)} components, allowed: one")
        if not 0 <= epsilon < math.inf:
            raise ValueError(f"epsilon: value {epsilon}, allowed: finite and not negative")
        self.epsilon = epsilon

    def gain(self, variance: Tensor, sigma: Tensor) -> Tensor:
        """√((λ + ε²) / (λ + σ²))."""
        return ((variance + self.epsilon**2) / (variance + sigma.square())).sqrt()
