"""Spectral calculus against single modes, known vortices and full transforms."""

import math

import pytest
import torch

from priorflow.metrics import spectrum
from priorflow.operators.spectral import (
    curl,
    cutoff,
    dealiasing_mask,
    from_band,
    resample,
    to_band,
    velocity,
    wavenumbers,
)


def grid(size):
    axis = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    return axis.unsqueeze(1), axis.unsqueeze(0)


def noise(*shape, size, seed=0):
    """Random fields without mean and without wavenumbers of the Nyquist and above."""
    x = torch.randn(*shape, size, size, dtype=torch.float64, generator=generator(seed))
    x = resample(resample(x, size - 2), size)
    return x - x.mean((-2, -1), keepdim=True)


def energy_spectrum(vorticity):
    return torch.from_numpy(spectrum.energy_spectrum(vorticity.numpy()))


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [24, 27])
@pytest.mark.parametrize(("m", "n"), [(1, 0), (0, 3), (4, -2), (5, 7)])
def test_velocity_and_curl_of_one_mode(size, m, n):
    """ψ = sin(m x + n y): u = ∂ψ/∂y, v = -∂ψ/∂x, ω = (m² + n²) ψ."""
    y, x = grid(size)
    phase = m * x + n * y
    flow = torch.stack((n * phase.cos(), -m * phase.cos()))
    vorticity = (m**2 + n**2) * phase.sin()
    torch.testing.assert_close(velocity(vorticity), flow)
    torch.testing.assert_close(curl(flow), vorticity)


def test_a_positive_vortex_turns_anticlockwise():
    y, x = grid(32)
    vortex = torch.exp(-4 * ((x - math.pi) ** 2 + (y - math.pi) ** 2))
    u, v = velocity(vortex)
    assert v[16, 20] > 0.01 > -0.01 > v[16, 12]
    assert u[12, 16] > 0.01 > -0.01 > u[20, 16]


def test_curl_undoes_velocity():
    x = noise(2, 3, size=20)
    torch.testing.assert_close(curl(velocity(x)), x)


def test_velocity_of_single_precision_and_mean():
    x = noise(size=16)
    single = velocity(x.float() + 3)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, velocity(x).float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [26, 27, 64, 96, 128])
def test_products_within_the_cutoff_are_free_of_aliases(size):
    """The sum of two kept wavenumbers comes back as one that is dropped; K + 1 would not do."""
    k = cutoff(size)
    assert size - 2 * k > k
    assert size - 2 * (k + 1) <= k + 1
    ky, kx = wavenumbers(size)
    mask = dealiasing_mask(size)
    assert mask.sum() == (2 * k + 1) * (k + 1)
    assert ky.expand_as(mask)[mask].abs().max() == kx.expand_as(mask)[mask].max() == k


def test_band_is_part_of_the_full_transform():
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=generator(0))
    torch.testing.assert_close(to_band(x, 5), torch.fft.rfft2(x)[..., :6].mT)
    torch.testing.assert_close(from_band(to_band(x, 8)), x)


def test_energy_spectrum_of_one_mode():
    """ω = a cos(3x + 4y) has the energy a² / (4 · 25), all of it in the bin of |k| = 5."""
    y, x = grid(32)
    energy = energy_spectrum(3 * torch.cos(3 * x + 4 * y))
    expected = torch.zeros(16, dtype=torch.float64)
    expected[4] = 9 / 100
    torch.testing.assert_close(energy, expected)


def test_energy_spectrum_is_the_published_one():
    """Sums over full transforms in [n - ½, n + ½), up to the factor size⁴."""
    size = 16
    w = torch.randn(2, size, size, dtype=torch.float64, generator=generator(1))
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    ky, kx = torch.meshgrid(k, k, indexing="ij")
    square = kx**2 + ky**2
    psi = torch.fft.fft2(w) / square.clamp(min=1)
    density = 0.5 * ((-1j * ky * psi).abs() ** 2 + (1j * kx * psi).abs() ** 2)
    expected = torch.stack(
        [
            density[:, (square.sqrt() >= n - 0.5) & (square.sqrt() < n + 0.5)].sum(-1)
            for n in range(1, size // 2 + 1)
        ],
        dim=-1,
    )
    torch.testing.assert_close(energy_spectrum(w), expected / size**4)


def test_energy_spectrum_sums_to_the_mean_energy():
    x = resample(noise(3, size=18), 40)
    energy = velocity(x).square().sum(-3).mean((-2, -1)) / 2
    torch.testing.assert_close(energy_spectrum(x).sum(-1), energy)


def test_resample_is_exact_for_what_both_grids_hold():
    def field(size):
        y, x = grid(size)
        return 2 + torch.sin(3 * x - 5 * y) + torch.cos(7 * y) + torch.cos(6 * x + 7 * y)

    torch.testing.assert_close(resample(field(16), 40), field(40))
    torch.testing.assert_close(resample(field(40), 16), field(16))
    torch.testing.assert_close(resample(field(16), 17), field(17))
    y, x = grid(40)
    torch.testing.assert_close(
        resample(torch.cos(8 * x) + torch.cos(9 * y - x), 16), torch.zeros(16, 16).double()
    )
