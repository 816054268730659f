"""Blur: every pixel of y is a mean of the pixels around it, y[p] = Σ_d k[d] x[p + d - r].

The kernel has size × size = (2r + 1)² weights; it is applied without a flip, as convolutions of
networks are, which is how all released codes blur. Beyond the border the image is continued either
periodically (`circular`: A is diagonal in Fourier space) or mirrored at the centres of the border's
pixels (`reflect`: as most released codes do; DiffPIR's, whose proximal map is a Fourier formula,
blurs circularly).
"""

__all__ = ["CircularBlur", "GaussianBlur", "ReflectedBlur"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional

from priorflow.operators.checks import check_dense, check_kernel, check_noise, check_shape
from priorflow.operators.decomposed import Decomposed
from priorflow.operators.separable import Separable, decompose, windows


@dataclass(frozen=True, eq=False)
class GaussianBlur(Separable):
    """y = the image under a Gaussian window, + γ η.

    The published kernel, for images of 256², is 61 × 61 with a standard deviation of 3 pixels:
    scipy's filter of a single bright pixel, which ends at four standard deviations (DPS, arXiv
    2209.14687; DCDP, arXiv 2403.06054). For 32² we take 9 × 9 and 1 to 1.25 pixels.

    Attributes:
        shape: (C, H, W).
        size: Pixels of the kernel along each side, odd.
        std: Its standard deviation, in pixels.
        boundary: `circular` or `reflect`.
        noise_std: γ, on the scale of the images, [-1, 1].
    """

    shape: Sequence[int]
    size: int = 61
    std: float = 3.0
    boundary: str = "circular"
    noise_std: float = 0.05

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_kernel(self.size, self.shape, self.boundary)
        if not 0 < self.std < float("inf"):
            raise ValueError(f"std: value {self.std}, allowed: positive")
        check_noise(self.noise_std)

    @cached_property
    def kernel(self) -> Tensor:
        """The window along one side, shape (size,); its sum is 1."""
        delta = torch.zeros(self.size, dtype=torch.float64)
        delta[self.size // 2] = 1
        return torch.from_numpy(gaussian_filter1d(delta.numpy(), self.std))

    @cached_property
    def matrices(self) -> tuple[Tensor, Tensor]:
        return self._matrix(self.shape[1]), self._matrix(self.shape[2])

    def _matrix(self, n: int) -> Tensor:
        p = torch.arange(n).unsqueeze(1) + torch.arange(self.size) - self.size // 2
        mirrored = (n - 1) - (p.abs() - (n - 1)).abs()
        return windows(self.kernel, p % n if self.boundary == "circular" else mirrored, n)


@dataclass(frozen=True, eq=False)
class CircularBlur(Decomposed):
    """Blur of periodic images by any kernel, A = F⁻¹ diag(λ) F with the Fourier transform F.

    With λ = s e^(iφ), V is F⁻¹ and U is F⁻¹ diag(e^(iφ)). Coefficients are the half of the spectrum
    that `rfft2` gives; the other half is conjugate to it.

    Attributes:
        kernel: Shape (…, size, size), where … broadcasts with the images' (…, C).
        shape: (C, H, W).
        noise_std: γ.
    """

    kernel: Tensor
    shape: Sequence[int]
    noise_std: float = 0.05

    def __post_init__(self) -> None:
        check_kernel(self.kernel.shape[-1], self.shape, "circular")

    @cached_property
    def _eigenvalues(self) -> Tensor:
        """λ, shape (…, H, W // 2 + 1); what is zero but for rounding is zero."""
        (height, width), size = self.shape[1:], self.kernel.shape[-1]
        kernel = functional.pad(self.kernel.double(), (0, width - size, 0, height - size))
        centred = kernel.roll((-(size // 2), -(size // 2)), dims=(-2, -1))
        values = torch.fft.rfft2(centred).conj()  # conjugate: the kernel is not flipped
        rounding = max(height, width) * torch.finfo(torch.float64).eps
        return values.where(values.abs() > rounding * kernel.abs().sum((-2, -1), True), 0)

    @cached_property
    def singular_values(self) -> Tensor:
        """|λ|, shape (…, H, W // 2 + 1)."""
        return self._eigenvalues.abs()

    @cached_property
    def _phase(self) -> Tensor:
        """e^(iφ), zero where λ is."""
        return self._eigenvalues.sgn()

    def to_right(self, x: Tensor) -> Tensor:
        """F x, shape (…, C, H, W // 2 + 1)."""
        return torch.fft.rfft2(x, norm="ortho")

    def from_right(self, c: Tensor) -> Tensor:
        """F⁻¹ c."""
        return torch.fft.irfft2(c, s=tuple(self.shape[1:]), norm="ortho")

    def to_left(self, y: Tensor) -> Tensor:
        """e^(-iφ) F y."""
        c = self.to_right(y)
        return self._phase.to(c).conj() * c

    def from_left(self, c: Tensor) -> Tensor:
        """F⁻¹ e^(iφ) c."""
        return self.from_right(self._phase.to(c) * c)

    def picture(self, y: Tensor) -> Tensor:
        """Observations as a figure shows them: they are images, shape (…, C, H, W)."""
        return y


@dataclass(frozen=True, eq=False)
class ReflectedBlur(Decomposed):
    """Blur of mirrored images by any kernel. A is dense, of shape (H W, H W): for small images.

    Attributes:
        kernel: Shape (…, size, size), where … broadcasts with the images' (…, C).
        shape: (C, H, W), with H W up to 4096.
        noise_std: γ.
    """

    kernel: Tensor
    shape: Sequence[int]
    noise_std: float = 0.05

    def __post_init__(self) -> None:
        check_kernel(self.kernel.shape[-1], self.shape, "reflect")
        check_dense(self.shape)

    @cached_property
    def _matrix(self) -> Tensor:
        """A, shape (…, H W, H W), from its columns: the images with one bright pixel."""
        (height, width), size = self.shape[1:], self.kernel.shape[-1]
        pixels = torch.eye(height * width).to(self.kernel).view(-1, 1, height, width)
        padded = functional.pad(pixels, (size // 2,) * 4, mode="reflect")
        columns = functional.conv2d(padded, self.kernel.reshape(-1, 1, size, size))
        matrix = columns.flatten(2).permute(1, 2, 0)
        return matrix.reshape(*self.kernel.shape[:-2], *matrix.shape[1:])

    @cached_property
    def _svd(self) -> tuple[Tensor, ...]:
        return tuple(factor.to(self.kernel) for factor in decompose(self._matrix))

    @cached_property
    def singular_values(self) -> Tensor:
        """Shape (…, H, W), descending in rows."""
        return self._svd[1].unflatten(-1, tuple(self.shape[1:]))

    def __call__(self, x: Tensor) -> Tensor:
        """Images to observations, both of shape (…, C, H, W)."""
        return self._apply(self._matrix, x)  # does not need the decomposition

    def adjoint(self, y: Tensor) -> Tensor:
        """Observations to images."""
        return self._apply(self._matrix.mT, y)

    def to_right(self, x: Tensor) -> Tensor:
        """Vᵀ x."""
        return self._apply(self._svd[2].mT, x)

    def from_right(self, c: Tensor) -> Tensor:
        """V c."""
        return self._apply(self._svd[2], c)

    def to_left(self, y: Tensor) -> Tensor:
        """Uᵀ y."""
        return self._apply(self._svd[0].mT, y)

    def from_left(self, c: Tensor) -> Tensor:
        """U c."""
        return self._apply(self._svd[0], c)

    def picture(self, y: Tensor) -> Tensor:
        """Observations as a figure shows them: they are images, shape (…, C, H, W)."""
        return y

    def _apply(self, matrix: Tensor, x: Tensor) -> Tensor:
        """A matrix (…, H W, H W) times images (…, C, H, W)."""
        product = torch.einsum("...ij,...j->...i", matrix.to(x), x.flatten(-2))
        return product.unflatten(-1, tuple(self.shape[1:]))
