"""Neural operators that predict the next field from the last ones, from NVIDIA PhysicsNeMo.

They see the context alone: x and the time, which all networks are called with, are ignored, unless
the network is `conditional`, as the drift of an interpolant has to be.

References:
    | Fourier Neural Operator for Parametric PDEs (Li et al., 2021), arXiv 2010.08895
    | Transolver: A Fast Transformer Solver for PDEs on General Geometries (Wu et al., 2024),
      arXiv 2402.02366
    | FlowDAS (Chen et al., 2025), appendix D.3.4 (the published sizes), arXiv 2501.16642
"""

__all__ = ["FNO", "Transolver"]

import math

import torch
from torch import Tensor, nn


class FNO(nn.Module):
    """Fourier layers h ← GELU(F⁻¹ R F h + W h), R on the lowest modes and W at every point.

    At 64², with a context of 2, the defaults have 1.26 million parameters; without padding and
    coordinates they commute with shifts. Published, at 128² with a context of 10: width=128,
    modes=6, layers=7, padding=6, coordinates=True, 16.7 million.

    Args:
        shape: The shape of the output, (…, H, W); dimensions before the last two are channels.
        context: The number of past states L that it sees.
        width: Channels of every layer.
        modes: Wavenumbers kept along either axis.
        layers: The number of Fourier layers.
        padding: Zeros appended to either axis, for fields that are not periodic.
        coordinates: Whether the position of a pixel is an input.
        conditional: Whether x and t are inputs, too, as channels, such as an interpolant has them.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int,
        width: int = 20,
        modes: int = 14,
        layers: int = 4,
        padding: int = 0,
        coordinates: bool = False,
        conditional: bool = False,
    ) -> None:
        from physicsnemo.models import fno  # takes seconds to import

        super().__init__()
        self.shape, self.context, self.conditional = tuple(shape), context, conditional
        largest = (min(self.shape[-2:]) + padding) // 2
        if not 1 <= modes <= largest:
            raise ValueError(f"modes: value {modes}, allowed: 1 to {largest}")
        fields = math.prod(self.shape[:-2])
        self.network = fno.FNO(
            in_channels=_inputs(fields, context, conditional),
            out_channels=fields,
            decoder_layer_size=128,
            decoder_activation_fn="gelu",
            latent_channels=width,
            num_fno_layers=layers,
            num_fno_modes=modes,
            padding=padding,
            coord_features=coordinates,
        )

    def forward(self, x: Tensor | None, t: Tensor | None, history: Tensor) -> Tensor:
        """(…, \\*shape), (…), (…, L, \\*shape) to (…, \\*shape); unused, x and t are anything."""
        lead = history.shape[: history.ndim - len(self.shape) - 1]
        fields = _fields(x, t, history, self.shape, self.conditional)
        return self.network(fields).reshape(*lead, *self.shape)


class Transolver(nn.Module):
    """Attention between slices, which are soft groups of tokens that the network learns.

    A token is a patch of p × p pixels. At 64² with p = 1 there are 4096, which a CPU does not
    train in reasonable time: p = 4 makes 256 of them, each with p² L inputs and p² outputs. With a
    context of 2 the defaults have 1.43 million parameters. Published, at 128² with a context of 10:
    width=256, layers=8, heads=8, slices=32, patch=1, positions=8, periodic=False, 11.2 million.

    Args:
        shape: The shape of the output, (…, H, W); dimensions before the last two are channels.
        context: The number of past states L that it sees.
        width: Features of a token.
        layers: The number of blocks.
        heads: Attention heads; they divide the width.
        slices: Slices per head.
        patch: p.
        positions: The distances of a token to positions × positions points of the grid are inputs;
            0 for none.
        periodic: Whether the 3 × 3 convolutions that make slices wrap around, or see zeros.
        conditional: Whether x and t are inputs, too, as channels, such as an interpolant has them.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int,
        width: int = 128,
        layers: int = 4,
        heads: int = 8,
        slices: int = 32,
        patch: int = 4,
        positions: int = 0,
        periodic: bool = True,
        conditional: bool = False,
    ) -> None:
        from physicsnemo.models import transolver  # takes seconds to import

        super().__init__()
        self.shape, self.context, self.patch = tuple(shape), context, patch
        self.conditional = conditional
        if any(size % patch for size in self.shape[-2:]):
            raise ValueError(f"patch: value {patch}, allowed: a divisor of {self.shape[-2:]}")
        if width % heads:
            raise ValueError(f"heads: value {heads}, allowed: a divisor of width = {width}")
        fields = math.prod(self.shape[:-2])
        self.network = transolver.Transolver(
            functional_dim=_inputs(fields, context, conditional, patch**2),
            out_dim=fields * patch**2,
            embedding_dim=0,
            n_layers=layers,
            n_hidden=width,
            n_head=heads,
            mlp_ratio=1,
            slice_num=slices,
            unified_pos=positions > 0,
            ref=positions,
            structured_shape=tuple(size // patch for size in self.shape[-2:]),
            use_te=False,
        )
        if periodic:
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d):
                    module.padding_mode = "circular"

    def forward(self, x: Tensor | None, t: Tensor | None, history: Tensor) -> Tensor:
        """(…, \\*shape), (…), (…, L, \\*shape) to (…, \\*shape); unused, x and t are anything."""
        lead = history.shape[: history.ndim - len(self.shape) - 1]
        fields = _fields(x, t, history, self.shape, self.conditional)
        fields = nn.functional.pixel_unshuffle(fields, self.patch)
        tokens = fields.flatten(2).mT
        tokens = self.network(tokens, embedding=tokens[..., :0])
        fields = tokens.mT.unflatten(2, fields.shape[2:])
        return nn.functional.pixel_shuffle(fields, self.patch).reshape(*lead, *self.shape)


def _inputs(fields: int, context: int, conditional: bool, pixels: int = 1) -> int:
    """The channels of what a network sees, of so many pixels each."""
    if context < 1:
        raise ValueError(f"context: value {context}, allowed: >= 1")
    return (fields * (context + conditional) + conditional) * pixels


def _fields(
    x: Tensor | None, t: Tensor | None, history: Tensor, shape: tuple[int, ...], conditional: bool
) -> Tensor:
    """What a network sees, (n, channels, H, W): the history, and x and t if it is conditional."""
    lead, grid = history.shape[: history.ndim - len(shape) - 1], shape[-2:]
    past = history.reshape(lead.numel(), -1, *grid)
    if not conditional:
        return past
    times = t.expand(lead).reshape(-1, 1, 1, 1).to(past).expand(-1, 1, *grid)
    return torch.cat((past, x.reshape(lead.numel(), -1, *grid), times), dim=1)
