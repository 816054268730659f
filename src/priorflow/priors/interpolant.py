"""Stochastic interpolants: a generative model of the next state given the last ones.

The interpolant between the last state x0 and the next state x1 is

    X_s = α_s x0 + β_s x1 + σ_s W_s,   α = 1 - s,  β = s²,  σ = ε (1 - s),  W_s ~ N(0, s I).

Given x0 and X_s the endpoint x1 fixes the noise, W_s = (X_s - α x0 - β x1) / σ, so the drift of the
generative SDE dX = b ds + σ dW follows from the endpoint mean m = E[x1 | X_s, x0]:

    b_s = -x0 + 2 s m - (X_s - (1 - s) x0 - s² m) / (1 - s),
    m = (X_s + (1 - s) b_s) / (s (2 - s)).

References:
    | Stochastic Interpolants (Albergo, Boffi & Vanden-Eijnden, 2023), arXiv 2303.08797
    | Probabilistic Forecasting with Stochastic Interpolants (Chen et al., 2024), arXiv 2403.13724
    | FlowDAS (Chen et al., 2025), section 2.2, arXiv 2501.16642
"""

__all__ = ["ExactInterpolant", "Interpolant", "StochasticInterpolant"]

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from priorflow.rng import Streams

S_MIN = 1e-5  # the drift parametrisation has no endpoint at s = 0
LEVELS = 65  # nodes of the table of endpoint standard deviations
CALIBRATED = 1024  # windows in one network call of the calibration


class StochasticInterpolant(ABC):
    """The algebra that all interpolants share; a subclass gives the endpoint law.

    Attributes:
        shape: The shape of one state.
        context: The number of past states L that the endpoint law sees.
        epsilon: ε, the noise of the interpolant at s = 0.
    """

    shape: tuple[int, ...]
    context: int = 1
    epsilon: float = 1.0

    def coefficients(self, s: float) -> tuple[float, float, float]:
        """(α_s, β_s, σ_s)."""
        return 1 - s, s * s, self.epsilon * (1 - s)

    @abstractmethod
    def endpoint(self, x: Tensor, s: float, history: Tensor) -> Tensor:
        """m = E[x1 | X_s = x, history]: (…, \\*shape), (…, L, \\*shape) to (…, \\*shape)."""

    @abstractmethod
    def endpoint_std(self, s: float) -> Tensor:
        """Standard deviation of x1 given X_s, per component, shape \\*shape."""

    def colour(self, z: Tensor, s: float) -> Tensor:
        """C_s^(1/2) z for white noise z (…, \\*shape): what x1 differs from m by, given X_s."""
        return self.endpoint_std(s).to(z) * z

    def drift(self, x: Tensor, s: float, history: Tensor) -> Tensor:
        """b_s(x, history) of the generative SDE, shape (…, \\*shape), for 0 ≤ s ≤ 1."""
        x0 = last(history, self.shape)
        if s == 1:
            return 2 * x - x0  # the limit, whatever the endpoint law
        m = self.endpoint(x, s, history)
        return -x0 + 2 * s * m - (x - (1 - s) * x0 - s * s * m) / (1 - s)

    def bridge(self, x: Tensor, x1: Tensor, s: float, u: float, x0: Tensor, z: Tensor) -> Tensor:
        """X_u given X_s = x and the endpoint x1, for u > s; exact, no step-size error.

        W_u = W_s + √(u - s) z. With s = 0 the state x is x0 and W_0 = 0.

        Args:
            z: Standard normal noise of the shape of x.
        """
        alpha, beta, sigma = self.coefficients(s)
        w = (x - alpha * x0 - beta * x1) / sigma if s > 0 else torch.zeros_like(x)
        alpha, beta, sigma = self.coefficients(u)
        return alpha * x0 + beta * x1 + sigma * (w + math.sqrt(u - s) * z)

    def sample(self, history: Tensor, rng: Streams, steps: int = 5) -> Tensor:
        """Next states without observations, by the bridge sampler on a uniform grid.

        Histories (cases, members, L, \\*shape) to states (cases, members, \\*shape).
        """
        x0 = x = last(history, self.shape)
        for i in range(steps):
            s, u = i / steps, (i + 1) / steps
            z = rng.normal(*x.shape[1:])
            x1 = self.endpoint(x, s, history) + self.colour(z, s)
            x = self.bridge(x, x1, s, u, x0, rng.normal(*x.shape[1:])) if u < 1 else x1
        return x


class Interpolant(nn.Module, StochasticInterpolant):
    """A learned interpolant.

    Args:
        network: Maps (x, s, history) to a tensor of the shape of x; s has the leading shape of x.
        shape: The shape of one state.
        context: The number of past states L.
        parametrisation: What the network learns. `endpoint` regresses x1, preconditioned as Karras
            et al. (2022) do for diffusion: with c² the variance of the increment x1 - x0,
            r = X_s - (α + β) x0 and v = β² c² + s σ²,

                m = x0 + (β c² / v) r + d F(r / √v, s, history),   d² = c² s σ² / v,

            and the loss is |(m - x1) / d|². `drift` is the published one: the network is b_s and
            the loss |b_s - (-x0 + 2 s x1 - ε W_s)|² (FlowDAS, eq. 6).
        start_share: The share of the training examples at s = 0, where a bridge of one level draws
            all its endpoints; the others have s ~ U(0, 1).
        homogeneous: Whether states are fields (height, width) on a torus whose law does not depend
            on the place. Standard deviations are then pooled over the points, and the covariance
            C_s of the endpoint is diagonal in Fourier space, F⁻¹ diag(S_s) F, instead of diagonal.
        epsilon: ε.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        context: int = 1,
        parametrisation: Literal["endpoint", "drift"] = "endpoint",
        start_share: float = 0.0,
        homogeneous: bool = False,
        epsilon: float = 1.0,
    ) -> None:
        super().__init__()
        if parametrisation not in ("endpoint", "drift"):
            raise ValueError(f"parametrisation: {parametrisation!r} is not 'endpoint' or 'drift'")
        if not 0 <= start_share <= 1:
            raise ValueError(f"start_share: value {start_share}, allowed: 0 to 1")
        self.network = network
        self.shape, self.context, self.epsilon = tuple(shape), context, epsilon
        self.start_share = start_share
        self.parametrisation = parametrisation
        self.window = context + 1
        self.homogeneous = homogeneous
        scales = modes = self.shape
        if homogeneous:
            height, width = self.shape
            scales, modes = (1, 1), (height, width // 2 + 1)
        self.register_buffer("increment_std", torch.ones(scales))
        self.register_buffer("endpoint_stds", torch.ones(LEVELS, *modes))

    def _network(self, x: Tensor, s: float | Tensor, history: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(self.shape)]
        return self.network(x, torch.as_tensor(s, dtype=x.dtype).to(x.device).expand(lead), history)

    def _precondition(self, x: Tensor, s: Tensor, history: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(endpoint mean, d, F) for s of shape (…, 1, …, 1)."""
        x0 = last(history, self.shape)
        c2, beta, sigma = self.increment_std**2, s * s, self.epsilon * (1 - s)
        noise = s.clamp(min=1e-6) * sigma.clamp(min=1e-6) ** 2
        v = beta**2 * c2 + noise
        r = x - (1 - s + beta) * x0
        d = (c2 * noise / v).sqrt()  # 1 - β² c² / v would cancel near s = 1
        f = self._network(r / v.sqrt(), flat(s, self.shape), history)
        return x0 + beta * c2 / v * r + d * f, d, f

    def endpoint(self, x: Tensor, s: float, history: Tensor) -> Tensor:
        """m = E[x1 | X_s = x, history], shape (…, \\*shape)."""
        if self.parametrisation == "endpoint":
            s_tensor = torch.full((1,) * x.ndim, s, dtype=x.dtype, device=x.device)
            return self._precondition(x, s_tensor, history)[0]
        s = max(s, S_MIN)
        return (x + (1 - s) * self._network(x, s, history)) / (s * (2 - s))

    def drift(self, x: Tensor, s: float, history: Tensor) -> Tensor:
        """b_s(x, history), shape (…, \\*shape)."""
        if self.parametrisation == "drift":
            return self._network(x, s, history)
        return super().drift(x, s, history)

    def endpoint_std(self, s: float) -> Tensor:
        """What the endpoint mean leaves unexplained, per component, or one number for all."""
        if not self.homogeneous:
            return self._root(s)
        response = torch.fft.irfft2(self._root(s), s=self.shape)  # of C_s^(1/2) to one point
        return response.norm().expand(1, 1)

    def colour(self, z: Tensor, s: float) -> Tensor:
        """C_s^(1/2) z, shape (…, \\*shape)."""
        if not self.homogeneous:
            return self._root(s).to(z) * z
        return torch.fft.irfft2(self._root(s).to(z) * torch.fft.rfft2(z), s=self.shape)

    def _root(self, s: float) -> Tensor:
        """The diagonal of C_s^(1/2), over components or over modes, interpolated in s."""
        position = s * (LEVELS - 1)
        i = min(int(position), LEVELS - 2)
        return torch.lerp(self.endpoint_stds[i], self.endpoint_stds[i + 1], position - i)

    def prepare(self, windows: Tensor) -> None:
        """Measure the standard deviation of the increment on windows (n, L + 1, \\*shape)."""
        self.increment_std.copy_(self._rms(windows[:, -1] - windows[:, -2]))

    def _rms(self, x: Tensor) -> Tensor:
        """Root mean square of x (n, \\*shape), per component or over all of them."""
        mean = x.square().mean(0)
        return (mean.mean().expand_as(self.increment_std) if self.homogeneous else mean).sqrt()

    def loss(self, windows: Tensor, rng: torch.Generator) -> Tensor:
        """The squared error of every window (n, L + 1, \\*shape), summed over the components."""
        history, x1 = windows[:, :-1], windows[:, -1]
        u = torch.rand(len(x1), *(1,) * (x1.ndim - 1), generator=rng, device=x1.device)
        s = ((u - self.start_share) / max(1 - self.start_share, 1e-9)).clamp(min=0)
        z = torch.randn(x1.shape, generator=rng, device=x1.device)
        x = self._interpolate(history, x1, s, z)
        if self.parametrisation == "endpoint":
            m, d, _ = self._precondition(x, s, history)
            return ((m - x1) / d).square().flatten(1).sum(1)
        target = -history[:, -1] + 2 * s * x1 - self.epsilon * s.sqrt() * z
        return (self._network(x, flat(s, self.shape), history) - target).square().flatten(1).sum(1)

    def _interpolate(self, history: Tensor, x1: Tensor, s: Tensor, z: Tensor) -> Tensor:
        x0 = last(history, self.shape)
        return (1 - s) * x0 + s * s * x1 + self.epsilon * (1 - s) * s.sqrt() * z

    @torch.no_grad()
    def calibrate(self, windows: Tensor, rng: torch.Generator) -> None:
        """Estimate the endpoint standard deviations on windows (n, L + 1, \\*shape)."""
        history, x1 = windows[:, :-1], windows[:, -1]
        for i in range(LEVELS):
            s = i / (LEVELS - 1)
            z = torch.randn(x1.shape, generator=rng, device=x1.device)
            x = self._interpolate(history, x1, torch.tensor(s, device=x1.device), z)
            parts = zip(x.split(CALIBRATED), history.split(CALIBRATED), strict=True)
            m = torch.cat([self.endpoint(x_i, s, history_i) for x_i, history_i in parts])
            error = torch.fft.rfft2(m - x1, norm="ortho").abs() if self.homogeneous else m - x1
            self.endpoint_stds[i] = error.square().mean(0).sqrt()


class ExactInterpolant(StochasticInterpolant):
    """The interpolant of a system with white Gaussian noise, in closed form: no network.

    With x1 | x0 ~ N(f(x0), q²) the endpoint given X_s is Gaussian, with
    m = f + β q² / v (X_s - α x0 - β f),  v = β² q² + s σ²,  and variance q² s σ² / v.
    It tells what a sampler does from what a network does.

    Args:
        system: A `GaussianSystem`, in the units of the assimilation.
    """

    def __init__(self, system: Any, epsilon: float = 1.0) -> None:
        self.system, self.epsilon = system, epsilon
        self.shape = tuple(system.shape)

    def _variance(self, s: float) -> tuple[Tensor, Tensor]:
        _, beta, sigma = self.coefficients(s)
        q2 = self.system.noise_std**2
        return q2, beta**2 * q2 + max(s, 1e-12) * sigma**2

    def endpoint(self, x: Tensor, s: float, history: Tensor) -> Tensor:
        """m = E[x1 | X_s = x, history], shape (…, \\*shape)."""
        alpha, beta, _ = self.coefficients(s)
        q2, v = self._variance(s)
        x0 = last(history, self.shape)
        f = self.system.advance(x0)
        return f + (beta * q2 / v).to(x) * (x - alpha * x0 - beta * f)

    def endpoint_std(self, s: float) -> Tensor:
        """Standard deviation of x1 given X_s, shape \\*shape."""
        q2, v = self._variance(s)
        return (q2 * s * self.coefficients(s)[2] ** 2 / v).sqrt() if s > 0 else q2.sqrt()


def last(history: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The newest state of histories (…, L, \\*shape)."""
    return history.select(history.ndim - len(shape) - 1, -1)


def flat(s: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Drop the trailing singleton dimensions of s (…, 1, …, 1) that stand for a state."""
    return s.flatten(s.ndim - len(shape)).squeeze(-1)
