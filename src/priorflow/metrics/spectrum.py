"""The kinetic-energy spectrum of vorticity, and how far an ensemble is from that of the truth.

    E(n) = Σ_{n - 1/2 ≤ |k| < n + 1/2} |ω̂_k|² / 2|k|²,   ω̂_k = mean over the grid of ω e^{-ik·x},

on the torus [0, 2π)², so that wavenumbers are whole and Σ_n E(n) is the mean of |v|²/2, but for the
corners |k| ≥ size / 2 + 1/2 of the square of wavenumbers. In a band of whole wavenumbers, with the
mean energies E_p of the posterior and E_g of the truth,

    error = mean_n |E_p(n) - E_g(n)| / max(E_g(n), 1e-12 max E_g).

References:
    FlowDAS and ForcingDAS, released code (the definition is not in the papers).
"""

__all__ = ["energy_spectrum", "spectrum_error"]

from collections.abc import Sequence

import numpy as np
import xarray as xr

from priorflow.metrics.base import Case, aligned


def energy_spectrum(vorticity: np.ndarray) -> np.ndarray:
    """E(1), …, E(size / 2) of fields (…, size, size): shape (…, size / 2)."""
    size = vorticity.shape[-1]
    x, y = np.arange(size // 2 + 1), np.fft.fftfreq(size, 1 / size)[:, None]
    square = x**2 + y**2
    # A real field has each mode with 0 < x < size / 2 twice; the half-plane keeps one of them.
    weight = np.where((x == 0) | (2 * x == size), 1, 2) / (2 * np.maximum(square, 1) * size**4)
    ring = np.floor(np.sqrt(square) + 0.5).astype(int).ravel()
    rings = (ring[:, None] == np.arange(1, size // 2 + 1)) * weight.reshape(-1, 1)
    modes = np.fft.rfft2(vorticity).reshape(*vorticity.shape[:-2], -1)
    return (modes.real**2 + modes.imag**2) @ rings


def spectrum_error(
    posterior: xr.Dataset, case: Case, bands: Sequence[Sequence[float]] | None = None
) -> xr.DataArray:
    """The mean over bands of the relative error of the energy spectrum: (case,).

    Energies are averaged over members and times before they are compared. The fields are square
    and periodic; their unit does not matter.

    Args:
        posterior: States (case, member, time, \\*space).
        case: The truth.
        bands: The wavenumbers n of each band, from ≤ n < to. They have to leave out wavenumbers
            without energy, where any error is endless: a solver with 2/3 dealiasing has some up to
            size / 3. By default [1/2, size / 8), [size / 8, size / 4), [size / 4, size / 3), for 64
            up to 8, 16 and 21; published for 128, from a solver of 256, up to 8, 32 and 64.

    Raises:
        ValueError: A band has no wavenumber of the grid, or goes beyond them.
    """
    state, truth = aligned(posterior, case)
    size = truth.shape[-1]
    bands = bands or ((0.5, size / 8), (size / 8, size / 4), (size / 4, size / 3))
    n = np.arange(1, size // 2 + 1)
    inside = np.array([(start <= n) & (n < stop) for start, stop in bands])
    for band, mask in zip(bands, inside, strict=True):
        if not mask.any() or band[1] > size // 2 + 1:
            raise ValueError(
                f"bands: value {tuple(band)}, allowed: wavenumbers of 1 to {size // 2}"
            )
    mean_over_band = inside / inside.sum(1, keepdims=True)
    space = truth.dims[-2:]
    pooled = [dim for dim in truth.dims[1:-2] if dim != "lead"]

    def energy(fields: xr.DataArray) -> xr.DataArray:
        spectra = xr.apply_ufunc(
            energy_spectrum, fields, input_core_dims=[space], output_core_dims=[["wavenumber"]]
        )
        return spectra.mean([dim for dim in ("member", *pooled) if dim in spectra.dims])

    cases = [energy(state.isel(case=[i])) for i in range(state.sizes["case"])]  # for the memory
    estimate = xr.concat(cases, "case")
    exact = energy(truth)
    floor = 1e-12 * exact.max("wavenumber")
    relative = abs(estimate - exact) / exact.where(exact > floor, floor)
    return relative @ xr.DataArray(mean_over_band.mean(0), dims="wavenumber")
