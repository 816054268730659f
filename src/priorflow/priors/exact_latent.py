"""The exact denoiser in the latents of a linear codec, for a mixture of low-rank Gaussians.

The codec is principal component analysis, exact and without samples: μ = Σ_k π_k μ_k and

    C = Σ_k π_k (C_k + (μ_k - μ)(μ_k - μ)ᵀ) = Σ_i λ_i u_i u_iᵀ,   λ_1 ≥ λ_2 ≥ …,

of which r directions are kept, z_i = u_iᵀ (x - μ) / √λ_i, so that latents have mean 0 and variance
1. They are a mixture of Gaussians again, N(S⁻¹ Uᵀ (μ_k - μ), S⁻¹ Uᵀ C_k U S⁻¹) with S = diag √λ_i.

Reference:
    Mixtures of Probabilistic Principal Component Analyzers (Tipping & Bishop, 1999),
    doi 10.1162/089976699300016728
"""

__all__ = ["ExactLatent", "LinearCodec"]

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from priorflow.priors.mixture import ExactDenoiser


class LinearCodec(nn.Module):
    """z = S⁻¹ Uᵀ (x - μ) and x = μ + U S z, a `Codec`.

    Args:
        mean: μ, shape (C, H, W); n is its product.
        basis: U, orthonormal columns, shape (n, r).
        scale: S > 0, shape (r,), or one number.

    Attributes:
        shape: (C, H, W).
        latent_shape: (r, 1, 1).
    """

    def __init__(self, mean: Tensor, basis: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.shape, self.latent_shape = tuple(mean.shape), (basis.shape[1], 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("scale", scale)

    def encode(self, x: Tensor) -> Tensor:
        """Images (…, C, H, W) to latents (…, r, 1, 1)."""
        z = (x - self.mean.to(x)).flatten(-3) @ self.basis.to(x) / self.scale.to(x)
        return z[..., None, None]

    def decode(self, z: Tensor) -> Tensor:
        """Latents (…, r, 1, 1) to images (…, C, H, W)."""
        x = (z.flatten(-3) * self.scale.to(z)) @ self.basis.to(z).T
        return self.mean.to(z) + x.unflatten(-1, self.shape)


class ExactLatent(ExactDenoiser):
    """E[z0 | z0 + σ n = z] of the latents z0 of a mixture, a latent prior without parameters.

    Args:
        system: A `GaussianMixture`, in natural or standardised units, which are the same.
        rank: r, 1 to the number n of pixels and channels.

    Attributes:
        shape: (r, 1, 1).
        codec: The `LinearCodec` of images and latents.
    """

    def __init__(self, system: Any, rank: int) -> None:
        law = getattr(system, "system", system)
        weights, means = law.weights.double(), law.means.double().flatten(1)
        size = means.shape[1]
        if not 1 <= rank <= size:
            raise ValueError(f"rank: value {rank}, allowed: 1 to {size}")
        mean = weights @ means
        offsets = means - mean
        factors = law.factors.double().flatten(2)
        within = factors.mT @ factors + law.residual_std**2 * torch.eye(size).to(means)
        covariance = torch.einsum("k,kij->ij", weights, within) + (offsets.T * weights) @ offsets
        variances, vectors = torch.linalg.eigh(covariance)
        scale, basis = variances.flip(0)[:rank].sqrt(), vectors.flip(1)[:, :rank]

        # What every latent covariance has at least stands for the isotropic part of the mixture;
        # half of it, so that the rest keeps full rank.
        values, axes = torch.linalg.eigh(basis.T @ within @ basis / scale / scale.unsqueeze(1))
        floor = values.min() / 2
        columns = axes * (values - floor).sqrt().unsqueeze(1)
        latents = SimpleNamespace(
            shape=(rank, 1, 1),
            weights=weights,
            means=(offsets @ basis / scale)[..., None, None],
            factors=columns.mT[..., None, None],
            residual_std=math.sqrt(floor),
        )
        super().__init__(latents)
        self.codec = LinearCodec(mean.view(law.shape), basis, scale)
