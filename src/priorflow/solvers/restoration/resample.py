"""ReSample: Latent-DPS whose estimates are now and then made to fit y, and noised again.

Every step is one of Latent-DPS with ζ ᾱ_t in the place of ζ. From t = `start_resample` on, every
`interval`-th step, which ends in z' at the level s, is followed by

    estimate   ẑ0 after a few DDIM steps from z'
    fit        argmin |y - A(x)|² from x = D(ẑ0), then ẑ0(y) = E(x); below t = `start_latent`
               argmin |y - A(D(z))|² from z = ẑ0, then ẑ0(y) = z; both by AdamW
    resample   z_s ~ N((v √ᾱ_s ẑ0(y) + (1 - ᾱ_s) z') / (v + 1 - ᾱ_s), v (1 - ᾱ_s) / (v + 1 - ᾱ_s)),
               v = κ (1 - ᾱ_s) / (1 - ᾱ_t) · (1 - ᾱ_t / ᾱ_s)

which is the law of z_s given N(√ᾱ_s ẑ0(y), 1 - ᾱ_s) and the observation z' = z_s + √v n. Last of
all, z is fitted once more, and x = D(z).

A fit stops where |y - A(x)| is below the tolerance times √M, or where it is larger than `patience`
steps earlier. Every image stops for itself. In this we depart from the released code:

- its tolerance is 1e-3 whatever the noise in y; ours is γ where that is larger (discrepancy
  principle), since from there on noise is fitted;
- it looks for a rise in latents only, and takes one more step once it has seen that it should stop;
- its ẑ0 is (z_t - (1 - ᾱ_t) ε̂) / √ᾱ_t, which is Tweedie's formula with ε̂ in the place of minus the
  score; ours has √(1 - ᾱ_t);
- its few DDIM steps tell the network a level below that of the latents; ours do not;
- its β are those of the published autoencoder's network; ours are DDPM's, as latents have unit
  variance.

Reference:
    Solving Inverse Problems with Latent Diffusion Models via Hard Data Consistency (Song et al.,
    2024), algorithm 1, proposition 1 and released code, arXiv 2307.08123
"""

__all__ = ["ReSample", "consistent", "resampled"]

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from priorflow.operators.base import Operator
from priorflow.rng import Streams
from priorflow.solvers.base import Posterior, require_finite
from priorflow.solvers.restoration.common import levels, require, require_levels
from priorflow.solvers.restoration.ddpm import alpha_bar, ddim, tweedie
from priorflow.solvers.restoration.latent import Decoded, descend, misfit

if TYPE_CHECKING:
    from priorflow.priors.latent import LatentPrior


@dataclass(frozen=True)
class ReSample:
    """Restore through any differentiable operator.

    The defaults are published: up to 17 fits of up to 2000 steps in pixels, and of up to 500 in
    latents, which each go through the decoder and back.

    Attributes:
        zeta: ζ.
        steps: Levels: t = `start`, …, 0, evenly spaced, at most `start` + 1 of them. Each is a
            network call with its gradient.
        start: The first t, where z ~ N(0, I).
        start_resample: From this t on estimates are made to fit y.
        start_latent: Fits are in pixels from this t up, in latents below.
        interval: Steps from one resampling to the next; the last step is without.
        ddim_steps: Further network calls of an estimate, without gradients; there may be fewer
            levels left.
        pixel_steps: Steps of a fit in pixels, at most; 0 only encodes.
        pixel_rate: AdamW's learning rate, for images in [-1, 1].
        latent_steps: Steps of a fit in latents, at most.
        latent_rate: AdamW's learning rate, for latents.
        patience: Steps after which a fit must be better than before them.
        kappa: κ: the larger, the closer a latent is drawn to the one that fits y.
        tolerance: On the scale of y. None: γ, but at least 0.001.
    """

    zeta: float = 0.5
    steps: int = 500
    start: int = 999
    start_resample: int = 669
    start_latent: int = 332
    interval: int = 10
    ddim_steps: int = 5
    pixel_steps: int = 2000
    pixel_rate: float = 0.01
    latent_steps: int = 500
    latent_rate: float = 0.005
    patience: int = 200
    kappa: float = 40.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.zeta < math.inf, "zeta", self.zeta, "finite and not negative")
        require_levels(self.start, self.steps)
        for name in ("start_resample", "start_latent", "pixel_steps", "latent_steps"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("interval", "ddim_steps", "patience"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("pixel_rate", "latent_rate", "kappa"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "finite and positive")
        valid = self.tolerance is None or 0 <= self.tolerance < math.inf
        require(valid, "tolerance", self.tolerance, "not negative, or none")

    def __call__(
        self, y: Tensor, operator: Operator, prior: "LatentPrior", rng: Streams, members: int = 1
    ) -> Posterior:
        """Observations (cases, \\*obs) to restored images (cases, members, C, H, W).

        Returns:
            The images, and as `misfit` |y - A(x)| / √M of them, shape (cases, 1, members).

        Raises:
            Diverged: An image or latent is not finite; `step` is t.
        """
        codec, decoded = prior.codec, Decoded(operator, prior.codec)
        tolerance = max(1e-3, operator.noise_std) if self.tolerance is None else self.tolerance

        def fitted(v: Tensor, a: Operator, steps: int, rate: float) -> Tensor:
            return consistent(v, y, a, steps, rate, tolerance, self.patience)

        z = rng.normal(members, *prior.shape).to(y)
        path = levels(self.start, self.steps)
        for i, (t, s) in enumerate(path):
            scale = self.zeta * alpha_bar(t)
            z = descend(z, t, s, lambda z0, scale=scale: scale * misfit(z0, y, decoded), prior)
            left = len(path) - 1 - i
            if left > 0 and left % self.interval == 0 and t <= self.start_resample:
                z0 = estimate(z, path[i + 1 : i + 1 + self.ddim_steps], prior)
                if t >= self.start_latent:
                    x0 = fitted(codec.decode(z0), operator, self.pixel_steps, self.pixel_rate)
                    z0 = codec.encode(x0)
                else:
                    z0 = fitted(z0, decoded, self.latent_steps, self.latent_rate)
                z = resampled(z0, z, t, s, self.kappa, rng.normal(*z.shape[1:]).to(z))
            require_finite(z, t)
        z = fitted(z, decoded, self.latent_steps, self.latent_rate)
        require_finite(z, 0)
        x = codec.decode(z)
        rms = misfit(x, y, operator) / math.sqrt(y[0].numel())
        return Posterior(x, diagnostics={"misfit": rms.unsqueeze(1)})


def estimate(z: Tensor, path: list[tuple[int, int]], prior: "LatentPrior") -> Tensor:
    """ẑ0 at the last of a few levels (t, s), after DDIM steps from z at the first of them."""
    for t, s in path:
        z0 = tweedie(prior, z, t, clip=False)
        z = ddim(z, z0, t, s)
    return z0


def resampled(z0: Tensor, z: Tensor, t: int, s: int, kappa: float, n: Tensor) -> Tensor:
    """A draw of z_s around √ᾱ_s ẑ0(y) and the z' that the step from t to s ≥ 0 has ended in.

    Args:
        z0: ẑ0(y), shape (…, c, h, w).
        z: z', the same shape.
        t: The level that was left.
        s: The level of z'.
        kappa: κ > 0.
        n: Standard normal noise of the same shape.
    """
    a, b = alpha_bar(t), alpha_bar(s)
    v = kappa * (1 - b) / (1 - a) * (1 - a / b)
    mean = (v * math.sqrt(b) * z0 + (1 - b) * z) / (v + 1 - b)
    return mean + math.sqrt(v * (1 - b) / (v + 1 - b)) * n


def consistent(
    x: Tensor,
    y: Tensor,
    operator: Operator,
    steps: int,
    rate: float,
    tolerance: float,
    patience: int,
) -> Tensor:
    """AdamW on the mean square of y - A(x), by every image for itself.

    Args:
        x: Where it starts, shape (cases, members, …).
        y: Observations, shape (cases, \\*obs).
        operator: A.
        steps: At most.
        rate: The learning rate.
        tolerance: The root mean square of y - A(x) below which an image is left as it is.
        patience: An image is left as it is, too, where this many steps have made it worse.
    """
    x = x.detach().clone().requires_grad_()
    adam = torch.optim.AdamW([x], lr=rate)
    active = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    past = []
    for i in range(steps):
        with torch.enable_grad():
            loss = (y.unsqueeze(1) - operator(x)).square().flatten(2).mean(-1)
        past.append(loss.detach())
        active &= past[i] >= tolerance**2
        if i >= patience:
            active &= past[i] <= past[i - patience]
        if not active.any():
            break
        (x.grad,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
        stopped = x.detach().clone()
        adam.step()
        with torch.no_grad():
            x.copy_(torch.where(active[..., None, None, None], x, stopped))
    return x.detach()
