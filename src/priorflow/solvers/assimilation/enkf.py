"""The ensemble Kalman filter: the Kalman update with the covariances of a forecast ensemble.

With E members x_i of the forecast, Z = (x_i - x̄) / √(E - 1) and, in observation space,
S = (A(x_i) - mean of A(x_j)) / (γ √(E - 1)), rows being members, the gain is

    K = Zᵀ S (Sᵀ S + I)⁻¹ / γ = Zᵀ (S Sᵀ + I)⁻¹ S / γ,

so that a system of min(m, E) equations is solved for m observations. No adjoint of A is needed.

    stochastic:   x_i ← x_i + K (y + γ ξ_i - A(x_i)),  ξ_i ~ N(0, I)
    square root:  x̄ ← x̄ + K (y - mean of A(x_j)),  Z ← (S Sᵀ + I)^(-1/2) Z

Exact for a linear-Gaussian model in the limit of many members.

References:
    | Analysis Scheme in the Ensemble Kalman Filter (Burgers, van Leeuwen & Evensen, 1998)
    | Efficient Data Assimilation for Spatiotemporal Chaos (Hunt, Kostelich & Szunyogh, 2007),
      arXiv physics/0511236: the square root
    | Construction of Correlation Functions in Two and Three Dimensions (Gaspari & Cohn, 1999)
    | Implications of the Form of the Ensemble Transformation in the Ensemble Square Root Filters
      (Sakov & Oke, 2008), doi 10.1175/2007MWR2021.1: the rotation
"""

__all__ = ["EnsembleKalmanFilter", "gaspari_cohn", "kalman_increments", "tapers"]

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.priors.base import StateSpace, advance
from priorflow.rng import Streams
from priorflow.solvers.assimilation.ensemble import ensemble_size
from priorflow.solvers.base import Posterior, require_finite


@dataclass(frozen=True)
class EnsembleKalmanFilter:
    """Sample p(x_k | y_1, …, y_k) with an ensemble, for any transition and operator.

    Attributes:
        ensemble: E, the number of members that are propagated, of which the first `members` are
            reported; None for as many as are asked for.
        variant: `stochastic` perturbs the observations; `square_root` does not, and turns the
            ensemble by a random rotation that keeps its mean and covariance (it would otherwise
            gather into a clump and outliers under a nonlinear model), at O(E³) a step.
        inflation: Factor of the deviations of the forecast from its mean, against their shrinking
            by sampling errors.
        localisation: Distance from which covariances are zero (Gaspari-Cohn taper), in the units of
            `prior.positions` and `operator.positions` (observations, dimensions), with the period
            of the prior. Stochastic variant only. None for no taper.
    """

    ensemble: int | None = None
    variant: Literal["stochastic", "square_root"] = "stochastic"
    inflation: float = 1.0
    localisation: float | None = None

    def __post_init__(self) -> None:
        if self.ensemble is not None and self.ensemble < 2:
            raise ValueError(f"ensemble: value {self.ensemble}, allowed: at least 2, or None")
        if self.variant not in ("stochastic", "square_root"):
            raise ValueError(
                f"variant: value {self.variant!r}, allowed: ['stochastic', 'square_root']"
            )
        if not self.inflation > 0:
            raise ValueError(f"inflation: value {self.inflation}, allowed: positive")
        if self.localisation is not None and not self.localisation > 0:
            raise ValueError(f"localisation: value {self.localisation}, allowed: positive, or None")
        if self.localisation is not None and self.variant != "stochastic":
            raise ValueError(
                f"localisation: value {self.localisation}, allowed: None with {self.variant!r}"
            )

    def __call__(
        self, y: Tensor, operator: Operator, prior: StateSpace, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, time, \\*obs) to samples (cases, members, time, \\*shape).

        `previous` is given for the square root only: the analysis before after its rotation, from
        which the member was propagated.

        Raises:
            ValueError: The ensemble is smaller than `members` or than 2, or positions are missing.
            Diverged: A member, or its prediction of the observations, is not finite.
        """
        size = ensemble_size(self.ensemble, members)
        taper = None if self.localisation is None else tapers(self.localisation, operator, prior)
        history = prior.initial(size, rng)
        samples, previous = [], []
        for k in range(y.shape[1]):
            x = prior.transition.sample(history, rng)
            require_finite(x, k)
            x = x.mean(1, keepdim=True).lerp(x, self.inflation)
            predicted = operator(x).flatten(2)
            require_finite(predicted, k)
            x = x + kalman_increments(
                x.flatten(2),
                predicted,
                y[:, k, None].flatten(2),
                operator.noise_std,
                rng,
                variant=self.variant,
                taper=taper,
            ).view_as(x)
            require_finite(x, k)
            samples.append(x[:, :members])
            previous.append(history[:, :members, -1])
            history = advance(history, x)
            if self.variant == "square_root":
                history = _rotate(history, rng)
        return Posterior(
            torch.stack(samples, dim=2),
            torch.stack(previous, dim=2) if self.variant == "square_root" else None,
        )


def kalman_increments(
    x: Tensor,
    predicted: Tensor,
    y: Tensor,
    noise_std: float,
    rng: Streams,
    *,
    variant: Literal["stochastic", "square_root"] = "stochastic",
    taper: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Analysis minus forecast of every member, as combinations of a few states.

    The small systems are solved in float64: their condition is the squared signal-to-noise ratio
    times m.

    Args:
        x: The forecast, shape (cases, E, n).
        predicted: A(x), shape (cases, E, m).
        y: The observations, shape (cases, 1, m).
        noise_std: γ.
        rng: One stream per case.
        variant: See `EnsembleKalmanFilter`.
        taper: See `tapers`; None for no localisation.
    """
    size, m = predicted.shape[1:]
    root = math.sqrt(size - 1)
    states = (x - x.mean(1, keepdim=True)) / root
    predicted = predicted.double()
    center = predicted.mean(1, keepdim=True)
    deviations = (predicted - center) / (noise_std * root)
    if variant == "stochastic":
        innovations = (y - predicted) / noise_std + rng.normal(size, m).to(predicted)
    else:
        innovations = (y - center) / noise_std

    by_observation = m <= size or taper is not None
    if by_observation:
        gram = deviations.mT @ deviations
        basis = deviations.mT.to(states) @ states
        if taper is not None:
            gram, basis = gram * taper[0].to(gram), basis * taper[1].to(basis)
    else:
        gram, basis = deviations @ deviations.mT, states
        innovations = innovations @ deviations.mT

    if variant == "stochastic":
        factor = torch.linalg.cholesky(gram + torch.eye(gram.shape[-1]).to(gram))
        weights = torch.cholesky_solve(innovations.mT, factor).mT
    else:
        values, vectors = torch.linalg.eigh(gram)
        values = values.clamp(min=0).unsqueeze(1)
        shrink = (1 + values).sqrt()
        weights = innovations @ vectors / (1 + values) @ vectors.mT
        # (1 + λ)^(-1/2) - 1, without the cancellation at small λ; by observations divided by λ,
        # since S on either side supplies that factor.
        if by_observation:
            weights = weights - root * (deviations @ vectors / (shrink * (shrink + 1)) @ vectors.mT)
        else:
            weights = weights - root * (vectors * values / (shrink * (shrink + 1)) @ vectors.mT)
    return weights.to(basis) @ basis


def gaspari_cohn(distance: Tensor, radius: float) -> Tensor:
    """The fifth-order correlation function that is 1 at distance 0 and 0 from `radius` on."""
    r = 2 * distance / radius
    near = 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    far = 4 + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12)))) - 2 / (3 * r)
    return torch.where(r <= 1, near, torch.where(r < 2, far, torch.zeros_like(r)))


def tapers(radius: float, operator: Any, prior: StateSpace) -> tuple[Tensor, Tensor]:
    """Tapers between observations (m, m), and between observations and states (m, n)."""
    observed = getattr(operator, "positions", None)
    for name, places in (("operator", observed), ("prior", prior.positions)):
        if places is None:
            raise ValueError(
                f"localisation: value {radius}, allowed: None, as {name} has no positions"
            )
    states, period = prior.positions, prior.period

    def taper(a: Tensor, b: Tensor) -> Tensor:
        offset = a.unsqueeze(1) - b
        if period is not None:
            length = torch.as_tensor(period).to(offset)
            offset = offset - length * (offset / length).round()
        return gaspari_cohn(offset.square().sum(-1).sqrt(), radius)

    return taper(observed, observed), taper(observed, states)


def _rotate(history: Tensor, rng: Streams) -> Tensor:
    """Turn the ensemble (cases, E, …) by a random rotation that leaves its mean in place.

    Q = F Gᵀ with orthogonal F and G whose first column is constant, so that Q 1 = 1; the others are
    uniformly distributed in F and fixed in G.
    """
    size = history.shape[1]
    z = rng.normal(size, size).to(history)
    z[..., 0] = 1
    fixed = torch.eye(size).to(history)
    fixed[:, 0] = 1
    rotation = _orthogonal(z) @ _orthogonal(fixed).mT
    members = history.flatten(2)
    center = members.mean(1, keepdim=True)
    return (center + rotation @ (members - center)).view_as(history)


def _orthogonal(z: Tensor) -> Tensor:
    """The orthogonal factor of z (…, E, E) that is unique: R has a positive diagonal."""
    q, r = torch.linalg.qr(z)
    return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
