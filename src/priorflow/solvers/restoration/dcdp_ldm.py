"""DCDP-LDM: data consistency in turn with purification by a diffusion in latents.

For the levels t_1 ≥ … ≥ t_K of DCDP, in the mode `pixel` from x = 0,

    fit       descent on |y - A(x)|² / 2 from the last x, without network or decoder
    purify    z = E(x);  z_t = √ᾱ_t z + √(1 - ᾱ_t) n;  z ← DDIM from z_t to t = 0;  x = D(z)

or in the mode `latent` from z ~ N(0, I),

    fit       descent on |y - A(D(z))|² / 2 from the last z, through the decoder
    purify    z ← E(D(z)), then the same

One DDIM step is Tweedie's formula, the paper's second version; its first one takes 20. The answer
is always decoded from a latent, as in the released code: where y has no noise, and the last
iteration therefore does not purify, it is D(E(x)) in pixels and D(z) in latents.

The rate η has the meaning of `DCDP` (2 lr / M for the released lr). In the mode `latent` it stands
against the slopes of the decoder, too, so that published values belong to the published decoder.
The latents of our priors have unit variance, and DDPM's β stand for those of the published one.

Reference:
    Decoupled Data Consistency with Diffusion Purification for Image Restoration (Li et al., 2024),
    released code, arXiv 2403.06054
"""

__all__ = ["DCDPLDM"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior
from priorflow.solvers.restoration.common import require
from priorflow.solvers.restoration.dcdp import (
    alternate,
    purifies_last,
    purify,
    require_settings,
    schedule,
)
from priorflow.solvers.restoration.latent import Decoded

if TYPE_CHECKING:
    from priorflow.priors.latent import LatentPrior

MODES = ("pixel", "latent")


@dataclass(frozen=True)
class DCDPLDM:
    """Restore through any differentiable operator, with a latent prior.

    Published, of y without noise, from t = 400 to 0: motion blur in pixels, 10 iterations of 100
    steps with η = 1.017; Gaussian blur in pixels, 4 of 250; super-resolution in latents, 10 of 100
    with η = 0.163; inpainting in latents, 20 of 50 from 500 with η = 0.0102. Nonlinear blur, with
    noise, in latents: 10 of 100 from 1000 to 50 with η = 0.0509.

    Attributes:
        mode: Where the fit is, `pixel` or `latent`.
        iterations: K.
        descent: Steps of a fit.
        rate: η.
        momentum: β in [0, 1).
        start: t_1, counted from 1 as published: at most 1000.
        stop: t_K; 0 counts as 1.
        power: How t_k falls, as in `DCDP`.
        ddim_steps: Network calls of a purification, at most t: 20 is DCDP-LDM-DDIM, 1
            DCDP-LDM-Tweedie.
        final: Whether the last iteration purifies, too. None: where y has noise, as published.
    """

    mode: Literal["pixel", "latent"] = "pixel"
    iterations: int = 10
    descent: int = 100
    rate: float = 1.0
    momentum: float = 0.9
    start: int = 400
    stop: int = 0
    power: float = 1.0
    ddim_steps: int = 20
    final: bool | None = None

    def __post_init__(self) -> None:
        require(self.mode in MODES, "mode", self.mode, str(MODES))
        require_settings(self)
        require(self.ddim_steps >= 1, "ddim_steps", self.ddim_steps, "at least 1")

    def __call__(
        self, y: Tensor, operator: Operator, prior: "LatentPrior", rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W).

        Returns:
            The images, and as `misfit` |y - A(x_k)| / √M at the end of every iteration, shape
            (cases, K, members); where the last one does not purify in pixels, before the codec.

        Raises:
            Diverged: An image or latent is not finite; `step` is k - 1.
        """
        encode, decode = prior.codec.encode, prior.codec.decode

        def purified(x: Tensor, t: int) -> Tensor:
            z = encode(x)
            n = rng.normal(*z.shape[1:]).to(z)
            return purify(z, n, t, prior, self.ddim_steps, clip=False)

        if self.mode == "latent":
            z = rng.normal(members, *prior.shape).to(y)
            decoded = Decoded(operator, prior.codec)
            last = alternate(self, z, y, decoded, lambda z, t: purified(decode(z), t))
            return Posterior(decode(last.samples), diagnostics=last.diagnostics)
        x = y.new_zeros(len(y), members, *prior.codec.shape)
        last = alternate(self, x, y, operator, lambda x, t: decode(purified(x, t)))
        x = last.samples if purifies_last(self, operator) else decode(encode(last.samples))
        return Posterior(x, diagnostics=last.diagnostics)

    def levels(self) -> list[int]:
        """t_1, …, t_K."""
        return schedule(self)
