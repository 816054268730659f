"""The Kalman filter and smoother: the exact posterior of a linear-Gaussian model.

    x_k = F x_{k-1} + q ⊙ z,   y_k = A x_k + γ η,   x_0 ~ N(m_0, P_0).

Filter, with M and V the mean and covariance of x_k given y_1, …, y_{k-1}:

    M = F m_{k-1},  V = F P_{k-1} Fᵀ + diag q²,  K = V Aᵀ (A V Aᵀ + γ² I)⁻¹,
    m_k = M + K (y_k - A M),  P_k = (I - K A) V (I - K A)ᵀ + γ² K Kᵀ.

Backwards, with G = P_{k-1} Fᵀ V⁻¹ and C = (I - G F) P_{k-1} (I - G F)ᵀ + G diag q² Gᵀ:

    x_{k-1} | x_k, y_1, …, y_{k-1} ~ N(m_{k-1} + G (x_k - F m_{k-1}), C),

where y_k, …, y_K say nothing more about x_{k-1} once x_k is known. The smoother's mean and
covariance pass through the same law.

References:
    | A New Approach to Linear Filtering and Prediction Problems (Kalman, 1960)
    | Maximum Likelihood Estimates of Linear Dynamic Systems (Rauch, Tung & Striebel, 1965)
"""

__all__ = ["KalmanFilter"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorflow.priors.base import Known, StateSpace
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class KalmanFilter:
    """Sample the exact posterior of a linear-Gaussian model; computed in float64.

    Needs `matrix` (F), `noise_std` (q > 0), `initial_mean` and `initial_covariance` of the
    transition, and `matrix()` (A) of the operator. The last two of the transition are not used when
    the initial state is `Known`.

    Attributes:
        smooth: Condition every state on all observations, past and future, and draw whole
            trajectories; otherwise on the past ones, time by time.
    """

    smooth: bool = False

    def __call__(
        self, y: Tensor, operator: Any, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to samples (cases, members, time, \\*shape).

        `previous` is a draw of p(x_{k-1} | x_k, y_1, …, y_k) for the filter; a trajectory of the
        smoother is its own past.

        Diagnostics:
            mean, covariance: Of every state, float64, shapes (cases, time, d), (cases, time, d, d).

        Raises:
            ValueError: The model is not linear-Gaussian.
            Diverged: A sample is not finite.
        """
        f, q, a, mean, cov = _model(operator, prior, y)
        noise = operator.noise_std**2 * torch.eye(len(a)).to(a)
        identity = torch.eye(len(f)).to(f)
        means, covs, backward = [], [], []
        for k in range(y.shape[1]):
            # Covariances do not depend on the data: one for all cases.
            forecast, v = mean @ f.T, f @ cov @ f.T + q
            g = torch.linalg.solve(v, f @ cov).T
            backward.append((mean, g, forecast, _joseph(identity - g @ f, cov, g, q)))
            gain = torch.linalg.solve(a @ v @ a.T + noise, a @ v).T
            mean = forecast + (y[:, k].flatten(1).to(a) - forecast @ a.T) @ gain.T
            cov = _joseph(identity - gain @ a, v, gain, noise)
            means.append(mean)
            covs.append(cov)

        def past(x: Tensor, k: int) -> Tensor:
            center, g, forecast, conditional = backward[k]
            return _draw(center[:, None] + (x - forecast[:, None]) @ g.T, conditional, rng)

        last = y.shape[1] - 1
        if self.smooth:
            xs = [_draw(means[-1][:, None].expand(-1, members, -1), covs[-1], rng)]
            for k in range(last, 0, -1):
                xs.insert(0, past(xs[0], k))
                center, g, forecast, conditional = backward[k]
                means[k - 1] = center + (means[k] - forecast) @ g.T
                covs[k - 1] = conditional + g @ covs[k] @ g.T
            previous = None
        else:
            xs = [
                _draw(m[:, None].expand(-1, members, -1), c, rng)
                for m, c in zip(means, covs, strict=True)
            ]
            previous = _states([past(x, k) for k, x in enumerate(xs)], prior, y)
        samples = _states(xs, prior, y)
        for k in range(last + 1):
            require_finite(samples[:, :, k], k)
        covariance = torch.stack(covs).expand(len(y), -1, -1, -1)
        return Posterior(
            samples, previous, {"mean": torch.stack(means, dim=1), "covariance": covariance}
        )


def _model(operator: Any, prior: StateSpace, y: Tensor) -> tuple[Tensor, ...]:
    """F, diag q², A, and the mean (cases, d) and covariance (d, d) of the initial state."""
    transition = prior.transition
    known = isinstance(prior.initial, Known)
    needed = ["matrix", "noise_std", *([] if known else ["initial_mean", "initial_covariance"])]
    missing = [name for name in needed if not hasattr(transition, name)]
    if missing:
        raise ValueError(f"transition: no {', '.join(missing)}, allowed: linear-Gaussian")
    if not hasattr(operator, "matrix"):
        raise ValueError("operator: no matrix, allowed: linear")

    def array(x: Tensor) -> Tensor:
        return x.to(y.device, torch.float64)

    f = array(transition.matrix)
    q = array(transition.noise_std).flatten().square().diag()
    if known:
        mean = array(prior.initial.history[:, -1]).flatten(1)
        cov = torch.zeros_like(f)
    else:
        mean = array(transition.initial_mean).flatten().expand(len(y), -1)
        cov = array(transition.initial_covariance)
    return f, q, array(operator.matrix()), mean, cov


def _joseph(left: Tensor, p: Tensor, gain: Tensor, noise: Tensor) -> Tensor:
    """L P Lᵀ + K R Kᵀ: the updated covariance, positive semi-definite whatever the rounding."""
    return left @ p @ left.T + gain @ noise @ gain.T


def _draw(mean: Tensor, covariance: Tensor, rng: Streams) -> Tensor:
    """Draws around means (cases, members, d), of a covariance that may be singular."""
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt()
    return mean + rng.normal(*mean.shape[1:]).to(mean) @ root.T


def _states(xs: list[Tensor], prior: StateSpace, y: Tensor) -> Tensor:
    """States (cases, members, d) of every time to (cases, members, time, \\*shape)."""
    return torch.stack(xs, dim=2).unflatten(-1, prior.shape).to(y.dtype)
