"""What a solver costs: evaluations counted from outside, so that no solver counts by itself."""

__all__ = ["Cost"]

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# The share of an evaluation: A = U diag(s) Vᵀ is two changes of coordinates and a product.
OPERATOR = {
    **dict.fromkeys(("__call__", "adjoint", "pinv", "prox"), 1.0),
    **dict.fromkeys(("to_left", "to_right", "from_left", "from_right"), 0.5),
}
SIMULATOR = dict.fromkeys(("step", "advance"), 1.0)
RETURNING = ("adjoint", "pinv", "prox", "to_left", "from_right")  # these return states


class Cost:
    """Counts evaluations of networks, operators and simulators, in single states.

    An evaluation of an operator is an application of A, Aᵀ, A† or the proximal map, whatever that
    takes inside, or the product with a Jacobian's transpose that a gradient through A needs. A
    change to the coordinates of its singular vectors, or back, is half of one. A codec's encoder
    and decoder count likewise: once for what they give, and once for a gradient through them.

    Attributes:
        counts: `nfe` and `nfe_backward` (networks), `operator_evals`, `simulator_evals`,
            `encoder_evals`, `decoder_evals`.
    """

    KINDS = (
        "nfe",
        "nfe_backward",
        "operator_evals",
        "simulator_evals",
        "encoder_evals",
        "decoder_evals",
    )

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def network(self, network: nn.Module) -> None:
        """Count what passes through a network from now on."""
        size = math.prod(network.shape)

        def forward(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            rows = output.numel() // size
            self.counts["nfe"] += rows
            on_gradient(output, lambda: self.counts.update(nfe_backward=rows))

        network.register_forward_hook(forward)

    def operator(self, operator: Any, shape: tuple[int, ...]) -> "Counted":
        """An operator that counts the states it is applied to."""
        return Counted(operator, self.counts, "operator_evals", OPERATOR, len(shape))

    def simulator(self, system: Any) -> "Counted":
        """A system that counts its transitions."""
        return Counted(system, self.counts, "simulator_evals", SIMULATOR, len(system.shape))

    def latent(self, prior: Any) -> "Coded":
        """A prior of latents whose codec counts the images that it encodes and decodes."""
        codec = prior.codec
        for name in ("encode", "decode"):
            codec = Counted(codec, self.counts, f"{name}r_evals", {name: 1.0}, len(codec.shape))
        return Coded(prior, codec)


class Coded:
    """Stands for `inner`, with another codec."""

    def __init__(self, inner: Any, codec: Any) -> None:
        self._inner, self.codec = inner, codec

    def __call__(self, *args: Any) -> Any:
        return self._inner(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Counted:
    """Stands for `inner`; the methods named in `shares` count states, of `ndim` dimensions."""

    def __init__(
        self, inner: Any, counts: Counter, kind: str, shares: dict[str, float], ndim: int
    ) -> None:
        self._inner, self._counts, self._kind = inner, counts, kind
        self._shares, self._ndim = shares, ndim

    def _counting(self, name: str, function: Any) -> Any:
        def counted(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            output = function(x, *args, **kwargs)
            states = output if name in RETURNING else x
            number = self._shares[name] * math.prod(states.shape[: states.ndim - self._ndim])
            self._counts[self._kind] += number
            on_gradient(output, lambda: self._counts.update({self._kind: number}))
            return output

        return counted

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._counting("__call__", self._inner)(x)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._counting(name, value) if name in self._shares else value


def on_gradient(output: torch.Tensor, count: Callable[[], None]) -> None:
    """Count whenever a gradient comes back to what an evaluation gave."""
    if output.requires_grad:
        output.register_hook(lambda gradient: count())
