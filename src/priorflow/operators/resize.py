"""Down-sampling by the cubic kernel of Keys with a = -1/2, widened against aliasing."""

__all__ = ["BicubicDownsample"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from priorflow.operators.checks import check_noise, check_shape
from priorflow.operators.separable import Separable, windows


@dataclass(frozen=True, eq=False)
class BicubicDownsample(Separable):
    """y = the image on every `factor`-th pixel of both axes, + γ η.

    As MATLAB's `imresize`, and as the resizer that DPS and DCDP use (Assaf Shocher's), the image is
    continued by mirroring it at its edges, …, x_1, x_0 | x_0, x_1, …; torch's and PIL's `bicubic`,
    equal to it elsewhere, cut the kernel off there. The published task is 256² to 64².

    Attributes:
        shape: (C, H, W).
        factor: A common divisor of H and W, at least 2.
        noise_std: γ, on the scale of the images, [-1, 1].

    References:
        | Cubic Convolution Interpolation for Digital Image Processing (Keys, 1981)
    """

    shape: Sequence[int]
    factor: int = 4
    noise_std: float = 0.05

    def __post_init__(self) -> None:
        check_shape(self.shape)
        if self.factor < 2 or any(side % self.factor for side in self.shape[1:]):
            raise ValueError(
                f"factor: value {self.factor}, allowed: divisors of {tuple(self.shape[1:])} from 2"
            )
        check_noise(self.noise_std)

    @cached_property
    def matrices(self) -> tuple[Tensor, Tensor]:
        return self._matrix(self.shape[1]), self._matrix(self.shape[2])

    def _matrix(self, n: int) -> Tensor:
        f = self.factor
        taps = torch.arange(4 * f) - 3 * f // 2  # around (f - 1) / 2, the centre of f pixels
        weights = _cubic((taps - (f - 1) / 2).double() / f)
        p = (torch.arange(n // f).unsqueeze(1) * f + taps) % (2 * n)
        return windows(weights / weights.sum(), torch.minimum(p, 2 * n - 1 - p), n)


def _cubic(t: Tensor) -> Tensor:
    """Keys's kernel: 1 at 0, zero at the other integers and beyond 2."""
    t = t.abs()
    inner = (1.5 * t - 2.5) * t**2 + 1
    outer = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t <= 1, inner, outer.where(t < 2, 0))
