"""Methods of public libraries, for comparison: our operators, denoisers and streams, their solvers.

- ΠGDM and MMPS by azula: y enters through the gradient of the network. ΠGDM takes the covariance of
  x0 given x_t for r² I with r² = 1 - ᾱ_t; MMPS takes the network's own, σ² ∂D / ∂x.
- DDRM by deepinv, which is imported where it is used: DDIM in the coordinates of A = U diag(s) Vᵀ,
  in which every noisy coordinate of y joins at the level of its noise.

References:
    | Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023)
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024),
      arXiv 2405.13712
    | Denoising Diffusion Restoration Models (Kawar et al., 2022), arXiv 2201.11793
"""

__all__ = ["DDRM", "MMPS", "PGDM"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from azula.guidance.mmps import MMPSDenoiser
from azula.guidance.pgdm import PGDMSampler
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import Schedule
from azula.sample import DDIMSampler
from torch import Tensor
from torch.overrides import TorchFunctionMode

from priorflow.operators.base import Operator
from priorflow.operators.decomposed import Decomposed
from priorflow.priors.denoiser import AsAzula, Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import require, require_levels
from priorflow.solvers.restoration.ddpm import alpha_bar, sigma_of, spaced


@dataclass(frozen=True)
class PGDM:
    """ΠGDM: draw images given y through a linear operator.

    Attributes:
        steps: Network calls, each with its gradient.
        eta: η in [0, 1], the share of fresh noise.
        start: The first t, where x ~ N(0, I).
        clip: Clip x̂0 to [-1, 1].
    """

    steps: int = 100
    eta: float = 1.0
    start: int = 999
    clip: bool = True

    def __post_init__(self) -> None:
        _check(self)

    def __call__(
        self, y: Tensor, operator: Decomposed, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is 0.
        """

        class Sampler(PGDMSampler):
            def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs: Any) -> Tensor:
                """With noise in y, A† becomes r² Aᵀ(r² A Aᵀ + γ² I)⁻¹, the paper's eq. 7."""
                if operator.noise_std > 0:
                    alpha, sigma = self.denoiser.schedule(t)
                    r2 = sigma**2 / (alpha**2 + sigma**2)
                    self.A_inv = lambda y: operator.prox(torch.zeros_like(x_t), y, r2)
                return super().step(x_t, t, s, **kwargs)

        denoiser = AsAzula(prior, DDPMSchedule(self.start), self.clip)
        data = {"y": y.unsqueeze(1), "A": operator, "A_inv": operator.pinv}
        settings = {"steps": self.steps, "eta": self.eta, "dtype": y.dtype, "silent": True}
        return _sample(Sampler(denoiser, **data, **settings), y, prior, rng, members)


@dataclass(frozen=True)
class MMPS:
    """Moment matching posterior sampling: draw images given y through any differentiable operator.

    Attributes:
        steps: Network calls, each with `iterations` + 1 gradients.
        eta: η in [0, 1], the share of fresh noise.
        iterations: Of the linear solver.
        solver: `gmres`, or `cg`.
        start: The first t, where x ~ N(0, I).
        clip: Clip x̂0 to [-1, 1].
    """

    steps: int = 100
    eta: float = 1.0
    iterations: int = 1
    solver: Literal["gmres", "cg"] = "gmres"
    start: int = 999
    clip: bool = False

    def __post_init__(self) -> None:
        _check(self)
        require(self.iterations >= 1, "iterations", self.iterations, "at least 1")
        require(self.solver in ("gmres", "cg"), "solver", self.solver, "gmres or cg")

    def __call__(
        self, y: Tensor, operator: Operator, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is 0.
        """
        denoiser = MMPSDenoiser(
            AsAzula(prior, DDPMSchedule(self.start), self.clip),
            y.unsqueeze(1).flatten(2),
            A=lambda x: operator(x).flatten(2),
            cov_y=IsotropicCovariance(operator.noise_std**2),
            solver=self.solver,
            iterations=self.iterations,
        )
        settings = {"steps": self.steps, "eta": self.eta, "dtype": y.dtype, "silent": True}
        return _sample(DDIMSampler(denoiser, **settings), y, prior, rng, members)


@dataclass(frozen=True)
class DDRM:
    """Draw images given y through a linear operator, by deepinv 0.5.

    That release divides all noise by √2, as if every coordinate were half of a complex one, while
    it tells the denoiser σ: we give it draws that are √2 larger, and complex coordinates in halves.
    It repeats singular values along the batch: all images go as one item. It takes coordinates with
    s ≤ γ for unseen, and ends in x̂0, which meets y without noise nearly. Nothing in it depends on
    the scale of the images. `priorflow.solvers.restoration.ddrm` is the paper's method.

    Attributes:
        steps: Network calls: t = `start`, …, 0, evenly spaced, at most `start` + 1 of them.
        eta: η in [0, 1], the share of fresh noise in unseen coordinates.
        eta_b: η_b in [0, 1], the weight of y in coordinates whose noise is below the level.
        start: The first t.
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0
    start: int = 999

    def __post_init__(self) -> None:
        _check(self)
        require(0 <= self.eta_b <= 1, "eta_b", self.eta_b, "0 to 1")

    def __call__(
        self, y: Tensor, operator: Decomposed, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to samples (cases, members, C, H, W).

        Raises:
            Diverged: A sample is not finite; `step` is 0.
        """
        from deepinv import sampling

        c = operator.to_left(y.unsqueeze(1)).unsqueeze(0)
        c = c.expand(1, len(y), members, *c.shape[3:])
        s = operator.singular_values.to(y)
        s = torch.where(s > operator.cutoff, s, 0).expand(c.shape)
        join, halve = _same, _same
        if c.is_complex():
            join, halve = torch.view_as_complex, torch.view_as_real
            s = s.unsqueeze(-1).expand(*s.shape, 2)
        physics = SimpleNamespace(
            noise_model=SimpleNamespace(sigma=operator.noise_std),
            mask=s,
            U_adjoint=torch.clone,
            V=lambda c: operator.from_right(join(c)),
            V_adjoint=lambda x: halve(operator.to_right(x)),
        )
        sigmas = [sigma_of(t) for t in spaced(self.start, self.steps)]
        solver = sampling.DDRM(prior, sigmas, self.eta, self.eta_b)

        def draw(like: Tensor) -> Tensor:
            n = math.sqrt(2) * rng.normal(members, *prior.shape).to(y)
            return halve(operator.to_right(n)).unsqueeze(0)

        with Draws(draw):
            x = solver(halve(c), physics).squeeze(0)
        require_finite(x, 0)
        return Posterior(x)


class DDPMSchedule(Schedule):
    """azula's time 0 is the clean image, its time 1 the index `start` of ᾱ."""

    def __init__(self, start: int) -> None:
        bars = [alpha_bar(t) for t in range(-1, start + 1)]
        self.bars = torch.tensor(bars, dtype=torch.float64)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 - ᾱ), of the shape of t."""
        bar = self.bars[(t.cpu() * (len(self.bars) - 1)).round().long()]
        return bar.sqrt().to(t), (1 - bar).sqrt().to(t)


class Draws(TorchFunctionMode):
    """Where `torch.randn_like` draws from our streams, not from the global state.

    Args:
        draw: From what `randn_like` was given to the draw.
    """

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is torch.randn_like:
            return self.draw(*args)
        return function(*args, **(kwargs or {}))


def _sample(
    sampler: DDIMSampler, y: Tensor, prior: Denoiser, rng: Streams, members: int
) -> Posterior:
    """Run a sampler of azula from x ~ N(0, I)."""

    def draw(like: Tensor) -> Tensor:
        return rng.normal(members, *prior.shape).to(y)

    x = draw(y)
    with Draws(draw):
        x = sampler(x)
    require_finite(x, 0)
    return Posterior(x)


def _same(x: Tensor) -> Tensor:
    return x


def _check(method: PGDM | MMPS | DDRM) -> None:
    require_levels(method.start, method.steps)
    require(0 <= method.eta <= 1, "eta", method.eta, "0 to 1")
