"""Public checkpoints in the format of diffusers: latent diffusion and consistency models at 256².

A checkpoint is a repository of the Hugging Face hub, or a local folder, with one folder for each
network (`config.json` and its weights) and `scheduler/scheduler_config.json`. Weights are read from
safetensors, or where there are none from a file of torch's that may hold nothing but tensors.

Latent diffusion. A codec x = D(z / s), z = s E(x), with s the `scaling_factor` that the codec's
configuration names, and 1 where it names none, as in the first checkpoints of CompVis. (diffusers
fills in 0.18215 there, and its pipeline decodes those wrongly.) E of a variational autoencoder is
the mean of its posterior. That of a vector-quantised one is not quantised; D quantises, and lets
gradients through to the latents as they are. The network predicts the noise of discrete levels, as
in `adm`; the β of CompVis are linear in √β, from 0.0015 to 0.0195.

Consistency models, F with the preconditioning of Karras et al. (2022), such that f(x, ε) = x:

    f(x, σ) = c_skip x + c_out F(x / √(σ² + s²), 250 ln σ),
    c_skip  = s² / ((σ - ε)² + s²),    c_out = s (σ - ε) / √(σ² + s²),    s = 0.5,  ε = 0.002

Nothing is clipped, as solvers clip themselves.

References:
    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022),
      arXiv 2112.10752
    | Neural Discrete Representation Learning (van den Oord et al., 2017), eq. 2, arXiv 1711.00937
    | Consistency Models (Song et al., 2023), appendix C, arXiv 2303.01469
"""

__all__ = ["LatentDiffusion", "PublicCodec", "PublicConsistency"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from priorflow.priors.adm import NoiseDenoiser, dtype_of, first_line, require_shape

CODECS, NETWORKS = ("AutoencoderKL", "VQModel"), ("UNet2DModel",)
# What the schedulers of the two kinds of checkpoints must say; used where there is no scheduler.
DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
}
CONSISTENCY = {"sigma_data": 0.5, "sigma_min": 0.002}


class LatentDiffusion(NoiseDenoiser):
    """A `LatentPrior` by networks that are public, and never trained here.

    Args:
        shape: The shape of one image, (C, H, W). H and W are multiples of the product of the
            strides of codec and network: 32 for the default name, which knows faces of 256².
        name: A repository of the hub, or a folder.
        codec: The folder of the codec in it.
        unet: The folder of the network in it.
        revision: A commit, tag or branch of the repository. None: its newest state.
        precision: Of the network's convolutions and products: `float32`, or by autocast `bfloat16`
            or `float16`. The codec stays as it is.

    Attributes:
        shape: The shape of the latents of one image, (c, h, w).
        codec: What makes images of them.

    Raises:
        ValueError: The checkpoint cannot be had, or is not one of latent diffusion.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        name: str = "CompVis/ldm-celebahq-256",
        codec: str = "vqvae",
        unet: str = "unet",
        revision: str | None = None,
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        dtype = dtype_of(precision)
        images = PublicCodec(shape, name, codec, revision)
        network = Backbone(images.latent_shape, name, unet, revision)
        super().__init__(network, _levels(name, revision), dtype)
        self.codec = images


class PublicCodec(nn.Module):
    """A `Codec` that is public, and never trained here.

    Args:
        shape: The shape of one image, (C, H, W).
        name: A repository of the hub, or a folder.
        folder: The folder of the codec in it.
        revision: A commit, tag or branch of the repository. None: its newest state.

    Attributes:
        latent_shape: The shape of its latents, (c, h, w).
        scale: s.
    """

    def __init__(
        self, shape: tuple[int, ...], name: str, folder: str, revision: str | None = None
    ) -> None:
        super().__init__()
        self.network, given = _load(name, folder, revision, CODECS)
        config = self.network.config
        stride = 2 ** (len(config.block_out_channels) - 1)
        require_shape(shape, config.in_channels, stride, f"{name}: {folder}: shape")
        channels = config.get("vq_embed_dim") or config.latent_channels
        self.shape = tuple(shape)
        self.latent_shape = (channels, *(side // stride for side in shape[1:]))
        self.scale = given.get("scaling_factor") or 1.0

    def encode(self, x: Tensor) -> Tensor:
        """Images (…, C, H, W) to latents (…, c, h, w)."""
        output = self.network.encode(x.reshape(-1, *self.shape).float())
        z = output.latents if "latents" in output else output.latent_dist.mode()
        return self.scale * z.to(x).reshape(*x.shape[: x.ndim - 3], *self.latent_shape)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (…, c, h, w) to images (…, C, H, W)."""
        latents = (z / self.scale).reshape(-1, *self.latent_shape)
        x = self.network.decode(latents.float()).sample
        return x.to(z).reshape(*z.shape[: z.ndim - 3], *self.shape)


class PublicConsistency(nn.Module):
    """A `ConsistencyMap` by a network that is public, and never trained here.

    Args:
        shape: The shape of one image, (C, H, W). H and W are multiples of the network's stride: 32
            for the default name, which knows bedrooms of 256².
        name: A repository of the hub, or a folder.
        unet: The folder of the network in it.
        revision: A commit, tag or branch of the repository. None: its newest state.
        precision: Of convolutions and products: `float32`, or by autocast `bfloat16` or `float16`.

    Attributes:
        epsilon: ε.

    Raises:
        ValueError: The checkpoint cannot be had, or is not one of a consistency model.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        name: str = "openai/diffusers-cd_bedroom256_l2",
        unet: str = "unet",
        revision: str | None = None,
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        super().__init__()
        self.shape, self.dtype = tuple(shape), dtype_of(precision)
        self.network = Backbone(self.shape, name, unet, revision)
        scheduler = _scheduler(name, revision, CONSISTENCY)
        self.epsilon, self.data_std = scheduler["sigma_min"], scheduler["sigma_data"]

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """f(x, σ): noisy images (…, C, H, W) to images; σ is a number or broadcasts with (…)."""
        lead = x.shape[: x.ndim - len(self.shape)]
        sigma = torch.as_tensor(sigma).to(x).expand(lead).reshape(-1)
        images, std = x.reshape(-1, *self.shape), sigma.view(-1, 1, 1, 1)
        total, excess = (std.square() + self.data_std**2).sqrt(), std - self.epsilon
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not None):
            output = self.network((images / total).float(), 250 * sigma.log().float())
        skip = self.data_std**2 / (excess.square() + self.data_std**2)
        return (skip * images + self.data_std * excess / total * output.to(x)).view_as(x)


class Backbone(nn.Module):
    """A U-Net of two arguments, without classes; one pass counts as one image.

    Args:
        shape: The shape of one image or of its latents, (C, H, W).
        name: A repository of the hub, or a folder.
        folder: The folder of the network in it.
        revision: A commit, tag or branch of the repository. None: its newest state.
    """

    def __init__(
        self, shape: tuple[int, ...], name: str, folder: str, revision: str | None
    ) -> None:
        super().__init__()
        self.unet, _ = _load(name, folder, revision, NETWORKS)
        config = self.unet.config
        if config.num_class_embeds is not None:
            raise ValueError(f"{name}: {folder}: depends on a class, allowed: without")
        if config.out_channels != config.in_channels:
            raise ValueError(
                f"{name}: {folder}: out_channels: value {config.out_channels}, "
                f"allowed: {config.in_channels}, as many as in"
            )
        stride = 2 ** (len(config.block_out_channels) - 1)
        require_shape(shape, config.in_channels, stride, f"{name}: {folder}: shape")
        self.shape = tuple(shape)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Images (n, C, H, W) and times (n) to what the network predicts (n, C, H, W)."""
        return self.unet(x, t, return_dict=False)[0]


def _levels(name: str, revision: str | None) -> Tensor:
    """σ_t of a diffusion's steps, ascending."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(_scheduler(name, revision, DIFFUSION))
    if scheduler.config.prediction_type != "epsilon":
        raise ValueError(
            f"{name}: scheduler: prediction_type: value {scheduler.config.prediction_type!r}, "
            "allowed: 'epsilon'"
        )
    alpha_bar = scheduler.alphas_cumprod.double()
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def _scheduler(name: str, revision: str | None, default: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the scheduler, or the default where there is no such file."""
    try:
        file = _file(name, "scheduler", "scheduler_config.json", revision)
    except _Missing:
        return dict(default)
    config = _json(file)
    if missing := default.keys() - config.keys():
        raise ValueError(f"{name}: scheduler/{file.name}: there is no {sorted(missing)[0]}")
    return config


def _load(
    name: str, folder: str, revision: str | None, kinds: tuple[str, ...]
) -> tuple[nn.Module, dict[str, Any]]:
    """A network of one of the kinds, frozen, and its configuration without diffusers' defaults."""
    import diffusers

    file = _file(name, folder, "config.json", revision)
    config = _json(file)
    kind = config.get("_class_name")
    if kind not in kinds:
        raise ValueError(f"{name}: {folder}: class {kind}, allowed: {', '.join(kinds)}")
    safe = _weights(name, folder, revision).suffix == ".safetensors"
    try:
        network, info = getattr(diffusers, kind).from_pretrained(
            str(file.parent),
            use_safetensors=safe,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:  # of three libraries, over several lines
        raise ValueError(f"{name}: {folder}: {first_line(error)}") from error
    if info["missing_keys"]:  # diffusers leaves them at random
        raise ValueError(f"{name}: {folder}: there are no weights {min(info['missing_keys'])}")
    return network.eval().requires_grad_(False), config


def _weights(name: str, folder: str, revision: str | None) -> Path:
    """The file of weights that there is, safetensors first."""
    try:
        return _file(name, folder, "diffusion_pytorch_model.safetensors", revision)
    except ValueError as error:
        try:
            return _file(name, folder, "diffusion_pytorch_model.bin", revision)
        except ValueError:
            raise error from None


class _Missing(ValueError):
    """A checkpoint that is there has no such file."""


def _file(name: str, folder: str, file: str, revision: str | None) -> Path:
    """A file of a checkpoint, from the hub once into its cache."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / folder / file).is_file():
            raise _Missing(f"{name}: there is no file {folder}/{file}")
        return path / folder / file

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, subfolder=folder, revision=revision))
    except RemoteEntryNotFoundError:
        raise _Missing(f"{name}: there is no file {folder}/{file}") from None
    except Exception as error:  # of two libraries, over several lines
        raise ValueError(
            f"{name}: {folder}/{file} cannot be had ({first_line(error)}); download the repository "
            "and name its folder"
        ) from error


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not a readable JSON file: {first_line(error)}") from None
