"""What a solver costs: evaluations counted from outside, so that no solver counts by itself."""

__all__ = ["Cost"]

import math
from collections import Counter
from typing import Any

import torch
from torch import nn


class Cost:
    """Counts evaluations of networks, operators and simulators, in single states.

    Attributes:
        counts: `nfe` and `nfe_backward` (networks), `operator_evals`, `simulator_evals`.
    """

    KINDS = ("nfe", "nfe_backward", "operator_evals", "simulator_evals")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def network(self, network: nn.Module) -> None:
        """Count what passes through a network from now on."""
        size = math.prod(network.shape)

        def forward(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self.counts["nfe"] += output.numel() // size
            if output.requires_grad:
                output.register_hook(self._backward(output.numel() // size))

        network.register_forward_hook(forward)

    def _backward(self, rows: int) -> Any:
        def hook(gradient: torch.Tensor) -> None:
            self.counts["nfe_backward"] += rows

        return hook

    def operator(self, operator: Any, shape: tuple[int, ...]) -> "Counted":
        """An operator that counts the states it is applied to."""
        return Counted(operator, self.counts, "operator_evals", ("__call__",), shape)

    def simulator(self, system: Any) -> "Counted":
        """A system that counts its transitions."""
        names = ("step", "advance")
        return Counted(system, self.counts, "simulator_evals", names, tuple(system.shape))


class Counted:
    """Stands for `inner`; the methods `names` count the states in their first argument."""

    def __init__(
        self, inner: Any, counts: Counter, kind: str, names: tuple[str, ...], shape: tuple[int, ...]
    ) -> None:
        self._inner, self._counts, self._kind = inner, counts, kind
        self._names, self._size = names, math.prod(shape)

    def _counting(self, function: Any) -> Any:
        def counted(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._counts[self._kind] += x.numel() // self._size
            return function(x, *args, **kwargs)

        return counted

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._counting(self._inner)(x)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._counting(value) if name in self._names else value
