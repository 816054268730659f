"""Public ADM networks as denoisers: the priors of the published experiments at 256².

The networks predict the noise of DDPM's discrete levels, x_t = √ᾱ_t x0 + √(1 - ᾱ_t) ε. With
σ_t = √((1 - ᾱ_t) / ᾱ_t) and x = x_t / √ᾱ_t,

    D(x, σ) = x - σ ε(x / √(1 + σ²), t),    t the level whose σ_t is the nearest to σ, in log σ,

which is exact where σ is one of the σ_t, as it is for all solvers written in DDPM's steps. Their
second output, the variance of an ancestral step, is left: a denoiser is a mean. Nor is the mean
clipped, as solvers clip it themselves.

Architectures and weights come from azula's plug-in, which says where these are.

References:
    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), arXiv 2105.05233
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv 2006.11239
"""

__all__ = ["ADM", "NoiseDenoiser", "dtype_of", "first_line", "require_shape"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class NoiseDenoiser(nn.Module):
    """A `Denoiser` by a network that predicts the noise of discrete levels.

    Args:
        network: ε(x, t), from images (n, C, H, W) and steps (n) to noise (n, C, H, W); its `shape`
            is (C, H, W). It is frozen.
        levels: σ_t of the network's steps, ascending.
        dtype: Of the network's convolutions and products, by autocast, or None.

    Attributes:
        shape: (C, H, W).
    """

    def __init__(self, network: nn.Module, levels: Tensor, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network, self.dtype = network.eval().requires_grad_(False), dtype
        self.shape = tuple(network.shape)
        self.register_buffer("levels", levels.double())

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """D(x, σ): noisy images (…, C, H, W) to images; σ is a number or broadcasts with (…)."""
        lead = x.shape[: x.ndim - len(self.shape)]
        sigma = torch.as_tensor(sigma).to(x).expand(lead).reshape(-1)
        images, std = x.reshape(-1, *self.shape), sigma.view(-1, 1, 1, 1)
        scaled = (images * (1 + std.square()).rsqrt()).float()
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not None):
            noise = self.network(scaled, self.level(sigma))
        return (images - std * noise.to(x)).view_as(x)

    def level(self, sigma: Tensor) -> Tensor:
        """The nearest t in log σ, the last one above all σ_t; shape of `sigma`."""
        edges = (self.levels[1:] * self.levels[:-1]).sqrt()
        return torch.bucketize(sigma.to(edges).contiguous(), edges)


class ADM(NoiseDenoiser):
    """A `Denoiser` by a network that is public, and never trained here.

    Args:
        shape: The shape of one image, (3, H, W), with H and W multiples of 32 where the network has
            six resolutions. The network has seen 256² only.
        name: Which: `ffhq_256x256` (faces), `imagenet_256x256`, or another unconditional one of
            azula's cards.
        weights: A file of the same weights, or of others in the format of guided-diffusion. Empty:
            azula's download, once, into its cache (0.4 and 2.2 GB).
        architecture: What differs in the network of such a file, as in azula's cards:
            `channel_mult`, `num_channels`, …
        precision: Of convolutions and products: `float32`, or by autocast `bfloat16` or `float16`,
            as in DCDP's released code; σ, x and the mean stay as they are.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        name: str = "ffhq_256x256",
        weights: str = "",
        architecture: Mapping[str, Any] | None = None,
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        dtype = dtype_of(precision)
        denoiser = _denoiser(name, weights, dict(architecture or {}))
        scale = denoiser.sigmas.double()  # azula's are √(1 - ᾱ_t)
        levels = scale / (1 - scale.square()).sqrt()
        super().__init__(Noise(denoiser.backbone, tuple(shape)), levels, dtype)


class Noise(nn.Module):
    """ε(x, t): the first half of the output, so that one pass counts as one image.

    Args:
        backbone: A `UNetModel` of azula's plug-in.
        shape: The shape of one image, (C, H, W).
    """

    def __init__(self, backbone: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        require_shape(shape, backbone.in_channels, 2 ** (len(backbone.channel_mult) - 1))
        self.backbone, self.shape = backbone, shape

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Images (n, C, H, W) and steps (n) to noise (n, C, H, W)."""
        return self.backbone(x, t)[:, : self.shape[0]]


def dtype_of(precision: str) -> torch.dtype | None:
    """What autocast needs for a `precision`, None for `float32`.

    Raises:
        ValueError: There is no such precision.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision: value {precision!r}, allowed: {', '.join(DTYPES)}")
    return DTYPES[precision]


def require_shape(shape: tuple[int, ...], channels: int, stride: int, name: str = "shape") -> None:
    """Check that a network takes images of a shape (C, H, W); `name` is for the message.

    Raises:
        ValueError: C is not `channels`, or H or W is not a multiple of `stride`.
    """
    if len(shape) != 3 or shape[0] != channels or any(side % stride for side in shape[1:]):
        raise ValueError(
            f"{name}: value {tuple(shape)}, allowed: ({channels}, H, W), multiples of {stride}"
        )


def _denoiser(name: str, weights: str, architecture: Mapping[str, Any]) -> nn.Module:
    """The denoiser of azula's plug-in, with its weights.

    Raises:
        ValueError: There is no such network, or its weights cannot be had.
    """
    from azula.plugins import adm
    from azula.plugins.utils import load_cards

    cards = {k: card for k, card in load_cards(adm).items() if card.config["num_classes"] is None}
    if name not in cards:
        raise ValueError(f"name: value {name!r}, allowed: {', '.join(cards)}")
    if architecture and not weights:
        raise ValueError("architecture: allowed: only with a file of weights")
    if not weights:
        try:
            return adm.load_model(name)
        except Exception as error:  # of three libraries, over several lines
            raise ValueError(
                f"the weights of {name} cannot be had ({first_line(error)}); download "
                f"{cards[name].url} and name the file as `weights`"
            ) from error
    denoiser = adm.make_model(**{**cards[name].config, **architecture})
    try:
        state = torch.load(Path(weights).expanduser(), map_location="cpu", weights_only=True)
        denoiser.backbone.load_state_dict(state)
    except Exception as error:
        raise ValueError(f"weights: value {weights!r}: {first_line(error)}") from error
    return denoiser


def first_line(error: Exception) -> str:
    """The first line of an error's message that says something."""
    lines = (line.strip(" .:") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
