"""Operators on images that are not linear."""

__all__ = ["HighDynamicRange", "PhaseRetrieval"]

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from priorflow.operators.checks import check_noise


@dataclass(frozen=True)
class PhaseRetrieval:
    """y = |F P x| + γ η: the amplitudes of a Fourier transform; its phases are lost.

    P puts zeros around the image, F is orthonormal and has the wavenumber 0 in the middle. As in
    the released codes of DPS (arXiv 2209.14687) and DCDP (arXiv 2403.06054), x is the image in
    [-1, 1], so that P pads it in grey and y does not tell x from -x (nor from its half turn);
    other codes take it in [0, 1]. There the oversampling 2 means 64 zeros on each side of 256.

    Attributes:
        oversampling: Eighths of a side that are padded, before and after it each.
        noise_std: γ, in the units of y.
    """

    oversampling: float = 2.0
    noise_std: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.oversampling < float("inf"):
            raise ValueError(f"oversampling: value {self.oversampling}, allowed: not negative")
        check_noise(self.noise_std)

    def __call__(self, x: Tensor) -> Tensor:
        """Images (…, C, H, W) to amplitudes (…, C, H + 2p, W + 2q), p = ⌊oversampling H / 8⌋.

        The gradient at an amplitude of zero is zero.
        """
        p, q = (int(self.oversampling / 8 * side) for side in x.shape[-2:])
        spectrum = torch.fft.fft2(functional.pad(x, (q, q, p, p)), norm="ortho")
        return torch.fft.fftshift(spectrum.abs(), dim=(-2, -1))

    def picture(self, y: Tensor) -> Tensor:
        """log(1 + amplitude), each image stretched to [-1, 1], shape (…, C, H + 2p, W + 2q)."""
        logarithm = y.clamp(min=0).log1p()  # noise may make y negative
        return 2 * logarithm / logarithm.amax((-3, -2, -1), keepdim=True) - 1


@dataclass(frozen=True)
class HighDynamicRange:
    """y = clip(gain x, -1, 1) + γ η: an overexposed image, as in SITCOM (arXiv 2410.04479).

    Attributes:
        gain: How much brighter; published: 2.
        noise_std: γ, on the scale of the images, [-1, 1].
    """

    gain: float = 2.0
    noise_std: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.gain < float("inf"):
            raise ValueError(f"gain: value {self.gain}, allowed: positive")
        check_noise(self.noise_std)

    def __call__(self, x: Tensor) -> Tensor:
        """Images to observations, both of shape (…, C, H, W)."""
        return (self.gain * x).clamp(-1, 1)

    def pinv(self, y: Tensor) -> Tensor:
        """y / gain: an image that is observed as y where that is in [-1, 1]."""
        return y / self.gain

    def picture(self, y: Tensor) -> Tensor:
        """Observations as a figure shows them: they are images, shape (…, C, H, W)."""
        return y
