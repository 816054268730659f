"""A mixture of low-rank Gaussians on images: a prior of which everything is known exactly.

    p(x) = Σ_k π_k N(x; μ_k, C_k),   C_k = L_k L_kᵀ + δ² I,   L_k of rank r.

Fitted to pictures it is probabilistic PCA of every class: from the leading eigenvalues λ_i and
eigenvectors v_i of the covariance of a class come the columns √(λ_i - δ²) v_i of L_k, and δ² is the
variance that they leave, per remaining dimension, averaged over the classes.

References:
    | Mixtures of Probabilistic Principal Component Analyzers (Tipping & Bishop, 1999),
      doi 10.1162/089976699300016728
    | Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998), doi 10.24432/C50P49
"""

__all__ = ["GaussianMixture", "digits", "fit"]

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from priorflow.rng import Streams


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Independent images, drawn from a mixture; a `System` without dynamics.

    Attributes:
        weights: π, positive, of sum 1, shape (K,).
        means: μ, on the scale of the images, [-1, 1], shape (K, C, H, W).
        factors: The columns of every L_k as images, shape (K, r, C, H, W).
        residual_std: δ > 0.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    residual_std: float

    dt = 1.0
    mean = torch.tensor(0.0)  # images are on the scale of the networks already
    std = torch.tensor(1.0)
    units = "1"

    def __post_init__(self) -> None:
        if not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise ValueError(f"weights: value {self.weights.tolist()}, allowed: positive, of sum 1")
        expected = (len(self.weights), *self.shape)
        if self.means.shape != expected or self.factors[:, 0].shape != expected:
            raise ValueError(
                f"means, factors: shapes {tuple(self.means.shape)}, {tuple(self.factors.shape)}, "
                f"allowed: (K, C, H, W), (K, r, C, H, W) with K = {len(self.weights)}"
            )
        if not self.residual_std > 0:
            raise ValueError(f"residual_std: value {self.residual_std}, allowed: positive")

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.means.shape[1:])

    def initial(self, members: int, rng: Streams) -> Tensor:
        """Independent draws of p(x), shape (cases, members, C, H, W)."""
        u, z = rng.uniform(members), rng.normal(members, self.factors.shape[1])
        k = torch.searchsorted(self.weights.cumsum(0).to(u), u, right=True)
        chosen = torch.nn.functional.one_hot(k.clamp(max=len(self.weights) - 1), len(self.weights))
        centre = torch.einsum("bmk,kchw->bmchw", chosen.to(z), self.means.to(z))
        offset = torch.einsum("bmk,bmr,krchw->bmchw", chosen.to(z), z, self.factors.to(z))
        return centre + offset + self.residual_std * rng.normal(members, *self.shape)

    def step(self, x: Tensor, rng: Streams) -> NoReturn:
        """Refused: there is no next image."""
        raise NotImplementedError("images are independent: a trajectory has one state, no burn-in")

    def log_transition(self, x: Tensor, x_next: Tensor) -> NoReturn:
        """Refused, as `step` is."""
        raise NotImplementedError("images are independent: there is no transition")


def fit(pictures: Tensor, labels: Tensor, rank: int) -> GaussianMixture:
    """The mixture of pictures (n, C, H, W) with one component per label, in float64.

    Args:
        pictures: On the scale [-1, 1].
        labels: A class or a cluster for every picture, shape (n,).
        rank: r, less than the pictures of a class and the pixels.
    """
    from sklearn.decomposition import PCA

    size = pictures[0].numel()
    smallest = int(labels.unique(return_counts=True)[1].min())
    if not 1 <= rank < min(size, smallest):
        raise ValueError(f"rank: value {rank}, allowed: 1 to {min(size, smallest) - 1}")
    classes = [pictures[labels == k].flatten(1).double() for k in labels.unique()]
    weights = torch.tensor([len(x) for x in classes], dtype=torch.float64) / len(pictures)
    models = [PCA(rank, svd_solver="full").fit(x.numpy()) for x in classes]
    values = torch.stack([torch.from_numpy(model.explained_variance_) for model in models])
    vectors = torch.stack([torch.from_numpy(model.components_) for model in models])
    total = torch.stack([x.var(0).sum() for x in classes])
    residual = (weights @ (total - values.sum(1)) / (size - rank)).clamp(min=1e-12)
    factors = (values - residual).clamp(min=0).sqrt().unsqueeze(2) * vectors
    means = torch.stack([x.mean(0) for x in classes])
    return GaussianMixture(
        weights,
        means.unflatten(1, pictures.shape[1:]),
        factors.unflatten(2, pictures.shape[1:]),
        float(residual.sqrt()),
    )


def digits(rank: int = 16, size: int = 16) -> GaussianMixture:
    """The mixture of handwritten digits: ten components, images (1, size, size).

    The 1,797 pictures of 8 × 8 pixels that are part of scikit-learn, resized bicubically. Gaussians
    have no bounds: draws leave [-1, 1], so that solvers must not clip to it.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = torch.from_numpy(data.images).unsqueeze(1) / 8 - 1
    pictures = torch.nn.functional.interpolate(pictures, size=(size, size), mode="bicubic")
    return fit(pictures, torch.from_numpy(data.target), rank)
