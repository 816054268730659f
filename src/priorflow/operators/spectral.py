"""Spectral calculus of periodic fields on [0, 2π]².

A field on size × size points is f(y, x) = Σ_k f̂_k exp(i (k_y y + k_x x)) with integer wavenumbers;
its last axis is x, the one before is y. Vorticity ω, stream function ψ and velocity (u, v) are tied
by

    ω = ∂v/∂x - ∂u/∂y,   -∇²ψ = ω,   u = ∂ψ/∂y,   v = -∂ψ/∂x,

so that a positive vortex turns anticlockwise. Derivatives of the Nyquist wavenumber are zero.
"""

__all__ = [
    "curl",
    "cutoff",
    "dealiasing_mask",
    "from_band",
    "resample",
    "to_band",
    "velocity",
    "wavenumbers",
]

import torch
from torch import Tensor


def wavenumbers(size: int) -> tuple[Tensor, Tensor]:
    """k_y of shape (size, 1) and k_x of shape (1, size // 2 + 1), as `rfft2` orders them."""
    ky = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64).unsqueeze(1)
    kx = torch.fft.rfftfreq(size, 1 / size, dtype=torch.float64).unsqueeze(0)
    return ky, kx


def cutoff(size: int) -> int:
    """K, the largest wavenumber that the 2/3 rule keeps: K < size / 3.

    Products of two fields without wavenumbers beyond K are then free of aliases within K.
    """
    return (size - 1) // 3


def dealiasing_mask(size: int) -> Tensor:
    """Where |k_y| and |k_x| are at most `cutoff`: bool, shape (size, size // 2 + 1)."""
    ky, kx = wavenumbers(size)
    return (ky.abs() <= cutoff(size)) & (kx <= cutoff(size))


def to_band(x: Tensor, band: int) -> Tensor:
    """The wavenumbers 0 ≤ k_x ≤ band of `rfft2`, transposed.

    Cheaper than `rfft2`, whose second pass would transform the other k_x as well, in strides.

    Args:
        x: Shape (…, size, size).
        band: At most size // 2.

    Returns:
        Shape (…, band + 1, size): k_x before k_y.
    """
    return torch.fft.fft(torch.fft.rfft(x)[..., : band + 1].mT)


def from_band(spectrum: Tensor) -> Tensor:
    """The fields (…, size, size) of spectra (…, band + 1, size): the inverse of `to_band`."""
    return torch.fft.irfft(torch.fft.ifft(spectrum).mT, n=spectrum.shape[-1])


def velocity(vorticity: Tensor) -> Tensor:
    """(u, v) of a vorticity (…, size, size), shape (…, 2, size, size); their mean is zero."""
    ky, kx = _derivatives(vorticity)
    square = ky.abs().square() + kx.abs().square()
    psi = torch.fft.rfft2(vorticity) / square.where(square > 0, torch.inf)
    return torch.fft.irfft2(torch.stack((ky * psi, -kx * psi), dim=-3), s=vorticity.shape[-2:])


def curl(flow: Tensor) -> Tensor:
    """The vorticity ∂v/∂x - ∂u/∂y of velocities (…, 2, size, size), shape (…, size, size)."""
    ky, kx = _derivatives(flow)
    u, v = torch.fft.rfft2(flow).unbind(-3)
    return torch.fft.irfft2(kx * v - ky * u, s=flow.shape[-2:])


def resample(x: Tensor, size: int) -> Tensor:
    """The same field on another grid, (…, n, n) to (…, size, size), by its Fourier series.

    Exact for wavenumbers below half of the smaller of the two grids; others are dropped.
    """
    n = x.shape[-1]
    band = (min(n, size) - 1) // 2
    spectrum = to_band(x, band)
    out = spectrum.new_zeros(*x.shape[:-2], band + 1, size)
    out[..., : band + 1] = spectrum[..., : band + 1]
    out[..., size - band :] = spectrum[..., n - band :]
    return from_band(out) * (size / n) ** 2


def _derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
    """The multipliers i k_y and i k_x for fields like x."""
    size = x.shape[-1]
    ky, kx = (1j * k.where(2 * k.abs() < size, 0) for k in wavenumbers(size))
    dtype = torch.complex128 if x.dtype == torch.float64 else torch.complex64
    return ky.to(x.device, dtype), kx.to(x.device, dtype)
