"""DCDP: data consistency without the network in turn with purification without the data.

From x = 0, for the levels t_1 ≥ … ≥ t_K:

    fit       descent steps  v ← β v + ∇|y - A(x)|² / 2,  x ← x - η v,  from the last x and v = 0
    purify    x_t = √ᾱ_t x + √(1 - ᾱ_t) n,  n ~ N(0, I);  x ← DDIM without noise from x_t to t = 0

One DDIM step is Tweedie's formula, x ← E[x0 | x_t]: the paper's second version; its first one takes
20. No gradient passes through the network, and only the gradient sees A.

For A = U diag(s) Vᵀ the descent does not have to be walked: it multiplies every coordinate of the
residual by a number that depends on s alone, the place c which the same descent reaches from 0 for
the scalar observation 1 = s c.

The released code steps along the gradient of the *mean* of (y - A(x))² with a learning rate lr; so
η = 2 lr / M for M numbers in y, and η, unlike lr, means the same at every size of the images.

Reference:
    Decoupled Data Consistency with Diffusion Purification for Image Restoration (Li et al., 2024),
    algorithm 1 and released code, arXiv 2403.06054
"""

__all__ = ["DCDP", "alternate", "fit", "purifies_last", "purify", "require_settings", "schedule"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.priors.denoiser import Denoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import data_gradient, require
from priorflow.solvers.restoration.ddpm import alpha_bar, ddim, spaced, tweedie


@dataclass(frozen=True)
class DCDP:
    """Restore through any differentiable operator.

    Published: 10 iterations of 100 descent steps from t = 400 with η = 1.017 (lr 1e5) for blurs and
    0.163 (lr 1e3) for super-resolution; 20 of 50 from 700 with η = 0.0102 (lr 1e3) for inpainting;
    200 of 100 from 1000, to 50 with η = 0.00305 (lr 300) for nonlinear blur and to 20 with η =
    0.00226 (lr 500) for phase retrieval. The linear ones are for y without noise: so long a fit
    would fit the noise, too; fewer steps of descent and a `stop` above 0 then do much better.

    Attributes:
        iterations: K.
        descent: Steps of a fit.
        rate: η; a linear A needs η s² < 2 (1 + β).
        momentum: β in [0, 1).
        start: t_1, counted from 1 as published: at most 1000.
        stop: t_K; 0 counts as 1.
        power: t_k = stop + (start - stop) (1 - (k-1) / (K-1))^power: 1 falls evenly, 0 stays at
            `start`, more than 1 hurries to `stop`.
        ddim_steps: Network calls of a purification, at most t: 20 is DCDP-DDIM, 1 DCDP-Tweedie.
        final: Whether the last iteration purifies, too. None: where y has noise, as published.
        clip: Clip x̂0 to [-1, 1].
    """

    iterations: int = 10
    descent: int = 100
    rate: float = 1.0
    momentum: float = 0.9
    start: int = 400
    stop: int = 0
    power: float = 1.0
    ddim_steps: int = 20
    final: bool | None = None
    clip: bool = True

    def __post_init__(self) -> None:
        require_settings(self)
        require(self.ddim_steps >= 1, "ddim_steps", self.ddim_steps, "at least 1")

    def __call__(
        self, y: Tensor, operator: Operator, prior: Denoiser, rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W).

        Returns:
            The images, and as `misfit` |y - A(x_k)| / √M at the end of every iteration, shape
            (cases, K, members): near γ where x_k fits y as the truth does.

        Raises:
            Diverged: An image is not finite; `step` is k - 1.
        """

        def purified(x: Tensor, t: int) -> Tensor:
            n = rng.normal(*x.shape[1:]).to(x)
            return purify(x, n, t, prior, self.ddim_steps, self.clip)

        x = y.new_zeros(len(y), members, *prior.shape)
        return alternate(self, x, y, operator, purified)

    def levels(self) -> list[int]:
        """t_1, …, t_K."""
        return schedule(self)


def require_settings(solver: Any) -> None:
    """Refuse bad settings of the fit and of the levels, which all versions of DCDP share.

    Raises:
        ValueError: A setting is not allowed.
    """
    require(solver.iterations >= 1, "iterations", solver.iterations, "at least 1")
    require(solver.descent >= 1, "descent", solver.descent, "at least 1")
    require(0 < solver.rate < math.inf, "rate", solver.rate, "finite and positive")
    require(0 <= solver.momentum < 1, "momentum", solver.momentum, "0 to below 1")
    require(1 <= solver.start <= 1000, "start", solver.start, "1 to 1000")
    require(0 <= solver.stop <= solver.start, "stop", solver.stop, "0 to `start`")
    require(0 <= solver.power < math.inf, "power", solver.power, "finite and not negative")


def schedule(solver: Any) -> list[int]:
    """t_1, …, t_K of a solver with the settings `iterations`, `start`, `stop` and `power`."""
    left = (1 - k / max(1, solver.iterations - 1) for k in range(solver.iterations))
    span = solver.start - solver.stop
    return [max(1, solver.stop + math.floor(span * u**solver.power + 0.5)) for u in left]


def purifies_last(solver: Any, operator: Operator) -> bool:
    """Whether the last iteration purifies, too: the setting `final`."""
    return operator.noise_std > 0 if solver.final is None else solver.final


def alternate(
    solver: Any,
    x: Tensor,
    y: Tensor,
    operator: Operator,
    purified: Callable[[Tensor, int], Tensor],
) -> Posterior:
    """Fits in turn with purifications, as the settings of a version of DCDP have it.

    Args:
        solver: A version of DCDP.
        x: Where it starts, shape (cases, members, C, H, W).
        y: Observations, shape (cases, \\*obs).
        operator: A, of x.
        purified: The purification of x at a level t.
    """
    final = purifies_last(solver, operator)
    misfits = []
    for k, t in enumerate(schedule(solver)):
        x = fit(x, y, operator, solver.descent, solver.rate, solver.momentum)
        if final or k + 1 < solver.iterations:
            x = purified(x, t)
        require_finite(x, k)
        residual = (y.unsqueeze(1) - operator(x)).flatten(2)
        misfits.append(residual.square().mean(-1).sqrt())
    return Posterior(x, diagnostics={"misfit": torch.stack(misfits, dim=1)})


def fit(
    x: Tensor, y: Tensor, operator: Operator, steps: int, rate: float, momentum: float
) -> Tensor:
    """The descent on |y - A(x)|² / 2 by every image for itself.

    Args:
        x: Where it starts, shape (cases, members, C, H, W).
        y: Observations, shape (cases, \\*obs).
    """
    if hasattr(operator, "singular_values"):
        s = operator.singular_values.to(x)
        c = v = torch.zeros_like(s)
        for _ in range(steps):
            v = momentum * v - s * (1 - s * c)
            c = c - rate * v
        residual = operator.to_left(y.unsqueeze(1)) - s * operator.to_right(x)
        return x + operator.from_right(c * residual)
    v = torch.zeros_like(x)
    for _ in range(steps):
        v = momentum * v + data_gradient(x, y, operator)
        x = x - rate * v
    return x


def purify(x: Tensor, n: Tensor, t: int, prior: Denoiser, steps: int, clip: bool) -> Tensor:
    """Images with the noise of level t, brought back by at most `steps` DDIM steps.

    Args:
        x: Images, shape (…, C, H, W).
        n: Standard normal noise of the same shape.
        t: 1 to 1000, which is the index t - 1 of ᾱ. Noise of t = 1 is taken for that of t = 2, as
            in the released code.
    """
    a = alpha_bar(t - 1)
    x = math.sqrt(a) * x + math.sqrt(1 - a) * n
    t = max(t, 2)
    for i, j in pairwise([*spaced(t - 1, min(steps, t)), -1]):
        x = ddim(x, tweedie(prior, x, i, clip), i, j)
    return x
