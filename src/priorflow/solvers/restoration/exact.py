"""The exact posterior of a linear observation, for a prior that is a mixture of Gaussians.

Prior and observation are x = μ_k + L_k z + δ e and y = A x + γ η, with z, e, η standard normal and
k drawn from π. With A = U diag(s) Vᵀ the part δ e is found first, for all components alike:

    x | z, k, y:  c + δ² V s q (Uᵀ y - s Vᵀ c) with c = μ_k + L_k z,   q = 1 / (δ² s² + γ²),

and what is left to find has the rank r of L_k. With G_k = s Vᵀ L_k and t_k = Uᵀ y - s Vᵀ μ_k,

    z | k, y ~ N(P_k⁻¹ b_k, P_k⁻¹),   P_k = I + G_kᵀ q G_k,   b_k = G_kᵀ q t_k,
    log p(k | y) = log π_k - (t_kᵀ q t_k - b_kᵀ P_k⁻¹ b_k + log |P_k|) / 2 + constant.

So the posterior is a mixture of low-rank Gaussians again: around the means
x(P_k⁻¹ b_k) with covariances δ² M + M L_k P_k⁻¹ L_kᵀ M, M = I - V δ² s² q Vᵀ. A draw takes k, z and
then x from a draw e of the prior and the perturbed observation y + γ η (Matheron's rule).

Members m + t (x - m) around the mean m, with t from 0 to 1, are a frontier: with Σ the covariance
of p(x | y) their squared error is tr Σ (1 + t²), and no law that is within W2 = (1 - t) √(tr Σ) of
p(x | y) has a smaller one, since m itself is √(tr Σ) away.

References:
    | Pattern Recognition and Machine Learning (Bishop, 2006), section 2.3.3
    | Efficiently Sampling Functions from Gaussian Process Posteriors (Wilson et al., 2020),
      arXiv 2002.09309: Matheron's rule
    | A Theory of the Distortion-Perception Tradeoff in Wasserstein Space (Freirich, Michaeli &
      Meir, 2021), arXiv 2107.02555: the frontier
"""

__all__ = ["ExactPosterior"]

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorflow.operators.base import LinearOperator
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite

NEEDED = ("weights", "means", "factors", "residual_std")


@dataclass(frozen=True)
class ExactPosterior:
    """Independent draws of p(x | y), with its mean and variance; computed in float64.

    Needs `weights` (K,), `means` (K, n), `factors` (K, n, r) and `residual_std` of the prior, as
    `ExactDenoiser` has them. A is made dense from n evaluations of the operator, and the SVD of it
    is what this costs: one to two seconds for every operator at n = 1024.

    Attributes:
        floor: γ is at least this, in the units of y. Observations that are free of noise come in
            single precision, which no exact condition A x = y would survive where s is small; the
            floor lies above that rounding. Where A without noise can be inverted, the variance is
            that of the floor and means nothing.
        spread: t: 1 draws from the posterior, 0 answers with its mean; see above.
    """

    floor: float = 1e-5
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread: value {self.spread}, allowed: 0 to 1")
        if not 0 < self.floor < math.inf:
            raise ValueError(f"floor: value {self.floor}, allowed: positive")

    def __call__(
        self, y: Tensor, operator: LinearOperator, prior: Any, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Diagnostics:
            mean, variance: Of every pixel, float64, shape (cases, C, H, W).

        Raises:
            ValueError: The prior is no mixture or the operator is not linear.
            Diverged: A sample is not finite.
        """
        missing = [name for name in NEEDED if not hasattr(prior, name)]
        if missing:
            raise ValueError(f"prior: no {', '.join(missing)}, allowed: a mixture of Gaussians")
        if not hasattr(operator, "adjoint"):
            raise ValueError("operator: no adjoint, allowed: linear")
        weights, means, factors = (
            getattr(prior, name).to(y.device, torch.float64) for name in NEEDED[:3]
        )
        delta, gamma = prior.residual_std, max(float(operator.noise_std), self.floor)
        size, rank = factors.shape[1:]

        # Leading dimensions (1,) or, where every image has an operator of its own, (cases,).
        identity = torch.eye(size).to(means).view(1, size, *prior.shape)
        u, s, vh = torch.linalg.svd(operator(identity).flatten(2).mT, full_matrices=False)
        s = s.unsqueeze(1)
        q = 1 / (delta**2 * s.square() + gamma**2)
        seen = y.to(means).flatten(1).unsqueeze(1) @ u  # (cases, 1, d)

        def condition(c: Tensor, seen: Tensor | float) -> Tensor:
            """The mean of x given its part c (cases, rows, n) and the observation in U."""
            return c + delta**2 * ((seen - s * (c @ vh.mT)) * s * q) @ vh

        g = s.unsqueeze(-1) * (vh.unsqueeze(1) @ factors)  # (·, K, d, r)
        t = seen - s * (means @ vh.mT)  # (cases, K, d)
        precision = torch.eye(rank).to(g) + g.mT @ (q.unsqueeze(-1) * g)
        root = torch.linalg.cholesky(precision)
        b = g.mT @ (q * t).unsqueeze(-1)
        z = torch.cholesky_solve(b, root).squeeze(-1)
        misfit = (q * t.square()).sum(-1) - (b.squeeze(-1) * z).sum(-1)
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        posterior = (weights.log() - (misfit + log_det) / 2).softmax(-1)  # (cases, K)

        parts = means + torch.einsum("knr,bkr->bkn", factors, z)
        roots = torch.linalg.solve_triangular(root, factors.mT, upper=False)  # (·, K, r, n)
        centres = condition(parts, seen)
        mean = torch.einsum("bk,bkn->bn", posterior, centres)
        common = delta**2 * (1 - (delta**2 * s.square() * q) @ vh.square())  # (·, 1, n)
        spread = condition(roots.flatten(1, 2), 0.0).view_as(roots).square().sum(2)
        spread = common + spread + (centres - mean.unsqueeze(1)).square()
        variance = torch.einsum("bk,bkn->bn", posterior, spread)

        draws = (rng.uniform(members), *(rng.normal(members, i) for i in (rank, size, s.shape[-1])))
        k, zeta, e, eta = (draw.to(means) for draw in draws)
        k = torch.searchsorted(posterior.cumsum(-1), k, right=True).clamp(max=len(weights) - 1)
        chosen = torch.nn.functional.one_hot(k, len(weights)).to(means)
        x = torch.einsum("bmk,bkn->bmn", chosen, parts) + delta * e
        x = x + torch.einsum("bmk,bmr,bkrn->bmn", chosen, zeta, roots.expand(len(y), -1, -1, -1))
        x = condition(x, seen + gamma * eta)
        samples = mean.unsqueeze(1).lerp(x, self.spread).unflatten(-1, prior.shape).to(y.dtype)
        require_finite(samples, 0)
        diagnostics = {"mean": mean, "variance": variance}
        return Posterior(
            samples,
            diagnostics={name: v.unflatten(-1, prior.shape) for name, v in diagnostics.items()},
        )
