"""What the methods with a latent prior share."""

__all__ = ["Decoded", "descend", "misfit"]

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.solvers.restoration.ddpm import ddim, tweedie

if TYPE_CHECKING:
    from priorflow.priors.codec import Codec
    from priorflow.priors.latent import LatentPrior


class Decoded:
    """A ∘ D, an operator on latents: not linear, even where A is.

    Args:
        operator: A, of images.
        codec: Its decoder D.
    """

    def __init__(self, operator: Operator, codec: "Codec") -> None:
        self.operator, self.codec, self.noise_std = operator, codec, operator.noise_std

    def __call__(self, z: Tensor) -> Tensor:
        """Latents (…, c, h, w) to noise-free observations (…, \\*obs)."""
        return self.operator(self.codec.decode(z))


def descend(
    z: Tensor, t: int, s: int, loss: Callable[[Tensor], Tensor], prior: "LatentPrior"
) -> Tensor:
    """A DDIM step without noise, and a step down the loss, through the network.

    z_s = DDIM(z_t, ẑ0) - ∇_{z_t} loss(ẑ0(z_t)),  ẑ0 = E[z0 | z_t]

    Args:
        z: z_t, shape (cases, members, c, h, w).
        t: The level that is left for
        s: the next one.
        loss: ẑ0 to one number for each of them, shape (cases, members).
        prior: A denoiser of latents. What it gives is not clipped.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        z0 = tweedie(prior, z, t, clip=False)
        (gradient,) = torch.autograd.grad(loss(z0).sum(), z)
    return ddim(z.detach(), z0.detach(), t, s) - gradient


def misfit(x: Tensor, y: Tensor, operator: Operator) -> Tensor:
    """|y - A(x)| of every image by itself, shape (cases, members).

    Args:
        x: Images or latents, shape (cases, members, …).
        y: Observations, shape (cases, \\*obs).
    """
    return torch.linalg.vector_norm((y.unsqueeze(1) - operator(x)).flatten(2), dim=-1)
