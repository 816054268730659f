"""Two-dimensional turbulence under a random force, as in FlowDAS (D.3)."""

__all__ = ["NavierStokes"]

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from priorflow.operators.spectral import (
    cutoff,
    dealiasing_mask,
    from_band,
    resample,
    to_band,
    wavenumbers,
)
from priorflow.rng import Streams

# Wavenumbers (k_y, k_x) of the force, and which of W₁ … W₈ (from 0) is their cosine and their sine.
FORCED = ((0, 6), (0, 7), (5, 5), (8, 8))
COSINES = [4, 1, 6, 3]
SINES = [0, 5, 2, 7]


@dataclass(frozen=True)
class NavierStokes:
    """The vorticity of a stochastically forced flow on the torus [0, 2π]².

        dω + v·∇ω dt = ν ∇²ω dt - α ω dt + ε dξ
        ξ = W₁ sin 6x + W₂ cos 7x + W₃ sin 5(x+y) + W₄ cos 8(x+y)
          + W₅ cos 6x + W₆ sin 7x + W₇ cos 5(x+y) + W₈ sin 8(x+y)

    with independent Wiener processes. Pseudo-spectral, free of aliases by the 2/3 rule, with
    advection in the form (∂²/∂x² - ∂²/∂y²)(uv) + ∂²/∂x∂y (v² - u²), which takes four transforms.

    A step of length h is a Strang splitting: half of the linear part, exactly; advection by the
    classical Runge-Kutta method; the other half. The force enters the advection as a constant,
    scaled so that a forced mode by itself is the exact Ornstein-Uhlenbeck process, between two
    opposite jumps by the mean deviation of the Wiener path from its chord, H ~ N(0, h/12): so
    advection sees the right mean of the path, and the error along a path is of order h^1.5, not h.

    A step is stable while K (|u| + |v|) h < 2.8, K = size / 3: halve `time_step` when the grid is
    doubled. Along a path, one of 0.025 on 64² is as accurate as Euler-Maruyama with the published
    step of 1e-4 (tests/benchmarks/navier_stokes.py). Spin-up: the two gravest modes take 20 units
    of time to fill, the others 5.

    Attributes:
        size: Grid points of a state along each axis.
        viscosity: ν. The published 1e-3 needs a solver grid of 256; 4e-3 is resolved by 64.
        drag: α.
        forcing: ε.
        lag: The time between two states.
        time_step: The largest time step of the solver; it takes ⌈lag / time_step⌉ equal ones.
        rms: The scale of standardised states: the stationary root mean square of ω.
        burn_in: Transitions from a random field to a draw of `initial`.
        subsample: The solver's grid is this much finer than that of the states. Between transitions
            a state is what its own grid holds, |k| < size / 2, so that states are a Markov chain
            and `step` is its exact simulator. The published data are every second point of a flow
            on 256² that keeps its finer modes: not Markov, strictly, and no simulator that begins
            at such a state is exact. The two differ by 0.1 % after a lag along the same path.

    References:
        | FlowDAS (Chen et al., 2025), D.3.1, arXiv 2501.16642
        | Probabilistic Forecasting with Stochastic Interpolants and Föllmer Processes (Chen et al.,
          2024), arXiv 2403.13724: the force
        | High Order Splitting Methods for SDEs Satisfying a Commutativity Condition (Foster, dos
          Reis & Strange, 2023), arXiv 2210.17543: the jumps
    """

    size: int = 64
    viscosity: float = 4e-3
    drag: float = 0.1
    forcing: float = 1.0
    lag: float = 0.5
    time_step: float = 0.025
    rms: float = 2.38
    burn_in: int = 40
    subsample: int = 1

    units = "1"
    period = 2 * math.pi
    mean = torch.tensor(0.0)

    def __post_init__(self) -> None:
        if self.size < 26 or self.size % 2:
            raise ValueError(f"size: value {self.size}, allowed: even, at least 26")
        for name in ("viscosity", "drag", "forcing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: not negative")
        for name in ("lag", "time_step", "rms"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: positive")
        if self.burn_in < 0:
            raise ValueError(f"burn_in: value {self.burn_in}, allowed: at least 0")
        if self.subsample < 1:
            raise ValueError(f"subsample: value {self.subsample}, allowed: at least 1")

    @property
    def shape(self) -> tuple[int, int]:
        """(size, size): y and x."""
        return (self.size, self.size)

    @property
    def dt(self) -> float:
        """The time between two states."""
        return self.lag

    @property
    def std(self) -> Tensor:
        """The scale of standardised states, shape ()."""
        return torch.tensor(self.rms)

    @property
    def steps(self) -> int:
        """Time steps of the solver from one state to the next."""
        return math.ceil(self.lag / self.time_step - 1e-9)

    @cached_property
    def positions(self) -> Tensor:
        """(y, x) of every grid point in [0, 2π)², shape (size², 2)."""
        axis = torch.arange(self.size) * (2 * math.pi / self.size)
        return torch.cartesian_prod(axis, axis)

    def initial(self, members: int, rng: Streams) -> Tensor:
        """Draws of the climate: Gaussian fields, run for `burn_in` transitions.

        The energy of the Gaussian fields peaks at wavenumber 6 and their root mean square is `rms`.
        """
        z = rng.normal(members, *self.shape)
        ky, kx = wavenumbers(self.size)
        square = (ky**2 + kx**2).to(z)
        response = square * torch.exp(-square / 7**2)
        x = torch.fft.irfft2(response * torch.fft.rfft2(z), s=self.shape)
        x = x * (self.rms / torch.fft.irfft2(response, s=self.shape).norm())
        for _ in range(self.burn_in):
            x = self.step(x, rng)
        return x

    def step(self, x: Tensor, rng: Streams) -> Tensor:
        """One transition of the states (cases, …, size, size)."""
        z = rng.normal(self.steps, *x.shape[1:-2], 2, 8).to(x)
        z = z.movedim(1, 0).reshape(self.steps, -1, 2, 8)
        fields = x.reshape(-1, *self.shape)
        grid = self.size * self.subsample
        # As many fields at a time as stay in the cache.
        count = max(1, (2**16 if x.device.type == "cpu" else 2**24) // grid**2)
        out = [
            self.integrate(part, *noise.unbind(2))
            for part, noise in zip(fields.split(count), z.split(count, dim=1), strict=True)
        ]
        return torch.cat(out).view(x.shape)

    def integrate(self, x: Tensor, increments: Tensor, deviations: Tensor) -> Tensor:
        """The states one lag later, along given paths of the force.

        Step n of the solver sees of the Wiener path W_j of its interval [0, h], with the damping
        λ_j = ν |k_j|² + α of the forced mode, two independent Gaussians: the increment of the
        Ornstein-Uhlenbeck process, ∫ exp(-λ_j (h - s)) dW_j(s), and the mean deviation of the path
        from its chord, ∫ (W_j(s) - W_j(h) s / h) ds / h. They are passed standardised, over
        √((1 - exp(-2 λ_j h)) / 2 λ_j) and √(h / 12).

        Args:
            x: Shape (n, size, size).
            increments, deviations: Standard normal, shape (steps, n, 8): the order of W₁ … W₈.
        """
        if self.subsample > 1:
            x = resample(x, self.size * self.subsample)
        solver = _solver(self, len(increments), x.device, x.dtype)
        x = solver(x, increments, deviations)
        return resample(x, self.size) if self.subsample > 1 else x

    def damping(self, wavenumber_squared: Tensor) -> Tensor:
        """λ = ν |k|² + α, the rate at which a mode decays."""
        return self.viscosity * wavenumber_squared + self.drag

    def log_transition(self, x: Tensor, x_next: Tensor) -> Tensor:
        """Not known: eight Wiener processes drive thousands of modes.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("NavierStokes: the law of a transition has no density")


class _Solver:
    """Solver steps of length h on one grid, with all constants at hand.

    Spectra are those of `to_band` up to K = `cutoff`, and zero where |k_y| > K.
    """

    def __init__(self, system: NavierStokes, steps: int, device: torch.device, dtype: torch.dtype):
        size = system.size * system.subsample
        h = system.lag / steps
        self.band = cutoff(size)
        ky, kx = (k.mT for k in wavenumbers(size))
        kx = kx[: self.band + 1]
        square = kx**2 + ky**2
        mask = dealiasing_mask(size).mT[: self.band + 1].to(square)

        # Complex, even where real: products of both kinds would convert them every time.
        def put(x: Tensor) -> Tensor:
            return x.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)

        inverse = mask / square.where(square > 0, torch.inf)
        self.to_velocity = put(1j * torch.stack((ky * inverse, -kx * inverse)).unsqueeze(1))
        self.of_product = put(h * mask * (kx**2 - ky**2))
        self.of_difference = put(h * mask * kx * ky)
        decay = torch.exp(-system.damping(square) * h / 2) * mask
        self.half_decay, self.decay = put(decay), put(decay**2)

        row, column = torch.tensor(FORCED).T
        self.index = (column * size + row).to(device)
        rate = system.damping(square[column, row])
        # A wave of amplitude one, cos or sin, has the coefficient size² / 2 or -i size² / 2.
        amplitude = system.forcing * size**2 / 2
        variance = torch.where(rate > 0, -torch.expm1(-2 * rate * h) / (2 * rate), h)
        self.increment = put(amplitude * variance.sqrt() * torch.exp(rate * h / 2))
        self.deviation = amplitude * (h / 12) ** 0.5
        self.forced_decay = put(torch.exp(-rate * h / 2))

    def __call__(self, x: Tensor, increments: Tensor, deviations: Tensor) -> Tensor:
        """Fields (n, size, size) after a step for each of the increments (steps, n, 8)."""
        push = _waves(increments) * (self.increment / 2)
        jump = _waves(deviations) * self.deviation
        # The jump back decays with the rest before it meets the next jump.
        jumps = torch.cat((jump, torch.zeros_like(jump[:1])))
        jumps[1:-1] -= jump[:-1] * self.forced_decay**2
        jumps[-1] -= jump[-1] * self.forced_decay
        w = to_band(x, self.band).mul_(self.half_decay)
        self._add(w, jumps[0])
        work = _Work(
            half=torch.empty_like(w),
            full=torch.empty_like(w),
            spectra=w.new_empty(2, *w.shape),
            products=x.new_empty(2, *x.shape),
        )
        for n in range(len(push)):
            self._advect(w, push[n], work)
            w *= self.decay if n + 1 < len(push) else self.half_decay
            self._add(w, jumps[n + 1])
        return from_band(w)

    def _advect(self, w: Tensor, push: Tensor, work: "_Work") -> None:
        """A step of advection and force, in place; the force adds `push` (n, 4) in half of it."""
        k = self._tendency(w, work)
        self._add(w, push)
        half = work.half.copy_(w)
        self._add(w, push)
        full = work.full.copy_(w)
        w.add_(k, alpha=1 / 6)
        k = self._tendency(k.mul_(1 / 2).add_(half), work)
        w.add_(k, alpha=1 / 3)
        k = self._tendency(half.add_(k, alpha=1 / 2), work)
        w.add_(k, alpha=1 / 3)
        k = self._tendency(full.add_(k), work)
        w.add_(k, alpha=1 / 6)

    def _tendency(self, w: Tensor, work: "_Work") -> Tensor:
        """-h v·∇ω of spectra (n, K + 1, size)."""
        u, v = from_band(torch.mul(w, self.to_velocity, out=work.spectra))
        torch.mul(u, v, out=work.products[0])
        torch.mul(v, v, out=work.products[1]).addcmul_(u, u, value=-1)
        product, difference = to_band(work.products, self.band)
        return product.mul_(self.of_product).addcmul_(difference, self.of_difference)

    def _add(self, w: Tensor, waves: Tensor) -> None:
        """Add waves (n, 4) to spectra, in place."""
        w.flatten(1).index_add_(1, self.index, waves)


class _Work(NamedTuple):
    """Memory that all steps share: fresh memory costs as much as the arithmetic."""

    half: Tensor
    full: Tensor
    spectra: Tensor
    products: Tensor


@lru_cache(maxsize=8)
def _solver(system: NavierStokes, steps: int, device: torch.device, dtype: torch.dtype) -> _Solver:
    return _Solver(system, steps, device, dtype)


def _waves(z: Tensor) -> Tensor:
    """Amplitudes of W₁ … W₈ (…, 8) as complex ones of the four waves (…, 4)."""
    return torch.complex(z[..., COSINES], -z[..., SINES])
