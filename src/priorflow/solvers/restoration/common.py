"""What several methods of restoration share."""

__all__ = [
    "LEAST_NOISE",
    "data_gradient",
    "data_step",
    "levels",
    "misfit_gradient",
    "require",
    "require_levels",
]

from itertools import pairwise

import torch
from torch import Tensor

from priorflow.operators.base import LinearOperator, Operator
from priorflow.priors.denoiser import Denoiser
from priorflow.solvers.restoration.ddpm import spaced, tweedie

LEAST_NOISE = 2e-3  # γ of noise-free observations: 0.001 in units of [0, 1], as DiffPIR has it


def require(valid: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a setting of a solver in one line.

    Raises:
        ValueError: `valid` is false.
    """
    if not valid:
        raise ValueError(f"{name}: value {value!r}, allowed: {allowed}")


def require_levels(start: int, steps: int) -> None:
    """Refuse what `levels` cannot make.

    Raises:
        ValueError: `start` is not in 1, …, 999, or `steps` is below 2.
    """
    require(1 <= start <= 999, "start", start, "1 to 999")
    require(steps >= 2, "steps", steps, "at least 2")


def levels(start: int, steps: int) -> list[tuple[int, int]]:
    """Steps (t, s) from t = `start` to 0, evenly spaced, and from there to -1, the clean image.

    There are no more than `start` + 1 steps.
    """
    return list(pairwise([*spaced(start, steps), -1]))


def misfit_gradient(
    x: Tensor, t: int, y: Tensor, operator: Operator, prior: Denoiser, clip: bool
) -> tuple[Tensor, Tensor]:
    """x̂0(x) and ∇_x |y - A(x̂0(x))|, through the network, of every image by its own norm.

    Args:
        x: Images at level t, shape (cases, members, C, H, W).
        y: Observations, shape (cases, \\*obs).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = tweedie(prior, x, t, clip)
        misfit = torch.linalg.vector_norm((y.unsqueeze(1) - operator(x0)).flatten(2), dim=-1)
        (gradient,) = torch.autograd.grad(misfit.sum(), x)
    return x0.detach(), gradient


def data_gradient(x: Tensor, y: Tensor, operator: Operator) -> Tensor:
    """∇_x |y - A(x)|² / 2, without any network.

    Args:
        x: Images, shape (cases, members, C, H, W).
        y: Observations, shape (cases, \\*obs).
    """
    if isinstance(operator, LinearOperator):
        return operator.adjoint(operator(x) - y.unsqueeze(1))
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = (y.unsqueeze(1) - operator(x)).square().sum() / 2
        return torch.autograd.grad(loss, x)[0]


def data_step(
    z0: Tensor,
    y: Tensor,
    operator: Operator,
    variance: float,
    noise_std: float,
    descent: int,
    rate: float,
) -> Tensor:
    """argmin_z |y - A(z)|² / 2γ² + |z - z0|² / 2c by `operator.prox`, or towards it from z0.

    Args:
        z0: Images, shape (cases, members, C, H, W).
        y: Observations, shape (cases, \\*obs).
        variance: c.
        noise_std: γ > 0.
        descent: Gradient steps where the operator has no `prox`, of the size
        rate: over 1 + γ² / c; stable below 2 over the largest squared slope of A.
    """
    if hasattr(operator, "prox"):
        return operator.prox(z0, y.unsqueeze(1), variance, noise_std)
    z, rho = z0, noise_std**2 / variance
    for _ in range(descent):
        z = z - rate / (1 + rho) * (data_gradient(z, y, operator) + rho * (z - z0))
    return z
