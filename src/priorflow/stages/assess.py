"""Assess: what a prior of images is worth, before anything is observed.

Of a denoiser, and of a consistency map, the error at every level of the noise, beside that of the
best affine filter (Wiener's), which knows the mean μ and the covariance C of the training images
and nothing else,

    W(x, σ) = μ + C (C + σ² I)⁻¹ (x - μ),

of a latent prior the error of images that its codec has encoded and decoded, and of all of them
images drawn along the probability flow dx/dσ = (x - D(x, σ)) / σ, from N(0, σ_max² I) to σ_min by
Heun's method, which a last call of D takes to 0. The 18 levels of the paper leave the least
variances of a Gaussian 19 % too large, 36 leave 4 %. A consistency map f draws in one call,
f(σ_max n, σ_max), and in two, with fresh noise between them.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
      eq. 1, eq. 5 and algorithm 1, arXiv 2206.00364
    | Consistency Models (Song et al., 2023), algorithm 1, arXiv 2303.01469
    | Consistency Models Made Easy (Geng et al., 2024), appendix (second level), arXiv 2406.14548
    | Extrapolation, Interpolation, and Smoothing of Stationary Time Series (Wiener, 1949)
"""

__all__ = ["LEVELS", "Wiener", "assess", "draws", "flow", "square_error"]

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from azula.noise import Schedule
from azula.sample import HeunSampler
from torch import Tensor

from priorflow import store
from priorflow.components import BadInput, build
from priorflow.priors.consistency import ConsistencyMap
from priorflow.priors.denoiser import AsAzula, Denoiser
from priorflow.priors.latent import LatentPrior
from priorflow.rng import Streams
from priorflow.stages.models import device_of, load_prior
from priorflow.stages.progress import log, track
from priorflow.systems.base import Standardised

LEVELS = torch.logspace(-1.69897, 1, 10)  # σ from 0.02 to 10, on the scale of images in [-1, 1]
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7  # of the sampler, by Karras et al.
SECOND = 0.821  # σ of the second call of a consistency map
BATCH = 16  # images that are denoised together, at all levels
LARGEST = 4096  # components of an image whose covariance fits in memory, with its eigenvectors


class Wiener:
    """The best affine denoiser of images with the mean and the covariance of these, W(x, σ).

    Args:
        images: Shape (n, C, H, W).

    Attributes:
        mean: μ, shape (components,).
        variances: The eigenvalues of C, shape (components,).
        basis: Its eigenvectors as columns, shape (components, components).
    """

    def __init__(self, images: Tensor) -> None:
        self.shape = images.shape[1:]
        x = images.flatten(1)
        self.mean = x.mean(0, dtype=torch.float64)
        parts = (part - self.mean for part in x.split(4096))  # in float64 all would be large
        covariance = sum(part.T @ part for part in parts) / (len(x) - 1)
        variances, self.basis = torch.linalg.eigh(covariance)
        self.variances = variances.clamp(min=0)

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Noisy images (…, C, H, W) to images; σ is a number or broadcasts with (…)."""
        mean, variances, basis = (v.to(x) for v in (self.mean, self.variances, self.basis))
        gain = variances / (variances + torch.as_tensor(sigma).to(x).unsqueeze(-1).square())
        return (mean + gain * ((x.flatten(-3) - mean) @ basis) @ basis.T).view_as(x)


def square_error(denoiser: Denoiser, images: Tensor, rng: Streams) -> Tensor:
    """|D(x + σ n, σ) - x|² / components of images x (n, C, H, W) at all levels, (n, levels).

    Args:
        denoiser: D.
        images: x.
        rng: A stream for every image: who has the same streams sees the same noise.
    """
    sigma, noise = LEVELS.to(images), rng.normal(len(LEVELS), *images.shape[1:])
    noisy = images.unsqueeze(1) + sigma.view(-1, 1, 1, 1) * noise.to(images)
    parts = track(noisy.split(BATCH), "denoise")
    denoised = torch.cat([denoiser(part, sigma) for part in parts])
    return (denoised - images.unsqueeze(1)).square().flatten(2).mean(2)


def flow(prior: Denoiser, noise: Tensor, steps: int) -> Tensor:
    """Images that the probability flow makes of noise n ~ N(0, I).

    Args:
        prior: D.
        noise: n, shape (…, C, H, W).
        steps: Levels of σ; D is called 2 steps - 1 times.
    """
    sampler = HeunSampler(
        AsAzula(prior, KarrasSchedule()), steps=steps - 1, dtype=noise.dtype, silent=True
    )
    return prior(sampler(SIGMA_MAX * noise), SIGMA_MIN)


def draws(prior: Denoiser, rng: Streams, steps: int) -> dict[int, Tensor]:
    """Images of a prior, one for each stream, by the network calls that each took.

    Args:
        prior: A denoiser, of images or latents, or a consistency map.
        rng: The streams.
        steps: Levels of σ of the flow.
    """
    noise = rng.normal(*prior.shape)
    if isinstance(prior, ConsistencyMap):
        first = prior(SIGMA_MAX * noise, SIGMA_MAX)
        again = (SECOND**2 - prior.epsilon**2) ** 0.5 * rng.normal(*prior.shape)
        return {1: first, 2: prior(first + again, SECOND)}
    samples = flow(prior, noise, steps)
    if isinstance(prior, LatentPrior):
        samples = prior.codec.decode(samples)
    return {2 * steps - 1: samples}


class KarrasSchedule(Schedule):
    """σ at equal steps of σ^(1/ρ): σ_min at time 0 and σ_max at time 1."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1 and σ, of the shape of t."""
        low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
        return torch.ones_like(t), (low + t * (high - low)) ** RHO


@torch.no_grad()
def assess(
    data: Path,
    output: Path,
    model: Mapping[str, Any],
    weights: Path | None,
    *,
    system: Mapping[str, Any],
    rows: range,
    settings: Mapping[str, int],
    experiment: str,
    name: str,
    seed: int,
    device: str,
    base: Path,
) -> None:
    """Write the errors and the draws of one prior.

    Args:
        data: The store of the test images, of which the first ones are used.
        output: The store to write: `learned` and, of images of up to `LARGEST` components,
            `wiener`, the square errors (image, sigma), or of a latent prior `reconstruction`, those
            of its codec (image), and `reconstructions` (picture, \\*space); `samples` (calls,
            sample, \\*space); `pictures` (picture, \\*space), as many test images.
        model: The `Model` section of the prior.
        weights: The file of its weights; None if it has none.
        system: The system's component.
        rows: The training images, whose mean and covariance Wiener's filter knows.
        settings: The `Assessment` section: `images`, `samples` and `steps`.
        experiment, name: The experiment's and the model's name.
        seed: The master seed.
        device: Where to compute.
        base: The folder of the experiment file.
    """
    device = device_of(device)
    source = Standardised(build(system, base))
    prior = load_prior(model, source, weights, device, base)
    test = store.read(data).state.isel(time=0)
    test = test.isel(trajectory=slice(max(settings["images"], settings["samples"]))).load()
    assessed = test[: settings["images"]]
    images = torch.from_numpy(assessed.values).to(device)

    def streams(use: str, cases: Sequence[int]) -> Streams:
        return Streams(seed, experiment, "assess", name, use, cases=cases, device=device)

    cases = assessed.trajectory.values.tolist()
    found: dict[str, Any] = {}
    if isinstance(prior, LatentPrior):
        decoded = torch.cat(
            [prior.codec.decode(prior.codec.encode(x)) for x in images.split(BATCH)]
        )
        errors = (decoded - images).square().flatten(1).mean(1)
        shown = decoded[: settings["samples"]]
        found["reconstruction"] = ("image", errors.cpu().numpy())
        found["reconstructions"] = (("picture", *test.dims[1:]), shown.cpu().numpy())
    else:
        denoisers = {"learned": prior}
        if (components := math.prod(prior.shape)) > LARGEST:
            log(f"assess: no Wiener filter of {components} components, at most {LARGEST} fit")
        else:
            log(f"assess: the Wiener filter of {len(rows)} training images")
            denoisers["wiener"] = Wiener(_training_images(source, rows, experiment, seed))
        for kind, denoiser in denoisers.items():
            errors = square_error(denoiser, images, streams("denoise", cases))
            found[kind] = (("image", "sigma"), errors.cpu().numpy())
    log(f"assess: {settings['samples']} draws of {settings['steps']} steps")
    samples = draws(prior, streams("draw", range(settings["samples"])), settings["steps"])
    stacked = torch.stack(list(samples.values())).cpu().numpy()
    found["samples"] = (("calls", "sample", *test.dims[1:]), stacked)
    for what, (_, values) in found.items():
        if not np.isfinite(values).all():
            raise BadInput(f"assess: {experiment}/{name}: {what}: not finite")
    found["pictures"] = (("picture", *test.dims[1:]), test.values[: settings["samples"]])
    dataset = xr.Dataset(
        found,
        coords={"image": cases, "sigma": LEVELS.numpy(), "calls": list(samples)},
        attrs={
            "fitted": len(rows),
            "numbers": math.prod(prior.shape),
            "seed": seed,
            "device": str(device),
            "threads": torch.get_num_threads(),
        },
    )
    store.write(dataset, output)


def _training_images(source: Standardised, rows: range, experiment: str, seed: int) -> Tensor:
    """The training images again, which with shipped weights no store has: as `simulate` does."""
    if hasattr(source.system, "read"):
        return source.encode(source.system.read(rows))
    rng = Streams(seed, experiment, "simulate", cases=rows)
    return source.encode(source.system.initial(1, rng)[:, 0])
