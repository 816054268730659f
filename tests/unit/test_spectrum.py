"""The energy spectrum of vorticity against single modes, and its error against known ratios."""

import numpy as np
import pytest
import xarray as xr

from priorflow.metrics.base import Case
from priorflow.metrics.spectrum import energy_spectrum, spectrum_error

SIZE = 32
DIMS = ("case", "member", "time", "y", "x")
AXIS = 2 * np.pi * np.arange(SIZE) / SIZE
Y, X = np.meshgrid(AXIS, AXIS, indexing="ij")


def as_metric(state, truth):
    """Arrays (case, member, time, y, x) and (case, time, y, x) as the metric takes them."""
    truth = xr.DataArray(truth, dims=("case", *DIMS[2:]))
    return xr.Dataset({"state": (DIMS, state)}), Case(truth, truth, None)


def noise(*shape, seed=0):
    """Fields with energy at all wavenumbers."""
    return np.random.default_rng(seed).normal(size=(*shape, SIZE, SIZE))


@pytest.mark.parametrize(
    ("ky", "kx", "ring"), [(0, 3, 3), (5, 0, 5), (3, -4, 5), (2, 2, 3), (1, 1, 1), (0, 16, 16)]
)
def test_energy_of_a_single_mode(ky, kx, ring):
    """ω = 3 cos(k·x) has the stream function ω/k² and so the energy 9/4k²; cos(16x) twice that."""
    spectrum = energy_spectrum(3 * np.cos(ky * Y + kx * X))
    expected = np.zeros(SIZE // 2)
    expected[ring - 1] = 9 / (4 * (kx**2 + ky**2)) * (2 if kx == SIZE // 2 else 1)
    np.testing.assert_allclose(spectrum, expected, atol=1e-15)


def test_energy_is_that_of_the_velocity():
    """A sum of modes whose velocity is known; the mean vorticity has no part in it."""
    rng = np.random.default_rng(1)
    vorticity, u, v = 0.7, 0, 0
    for ky, kx in rng.integers(-10, 11, size=(20, 2)):
        if ky or kx:
            amplitude, phase = rng.normal(), rng.uniform(0, 6)
            angle = ky * Y + kx * X + phase
            vorticity = vorticity + amplitude * np.cos(angle)
            stream = -amplitude * np.sin(angle) / (kx**2 + ky**2)  # derivative in the angle
            u, v = u + ky * stream, v - kx * stream
    energy = (u**2 + v**2).mean() / 2
    np.testing.assert_allclose(energy_spectrum(vorticity).sum(), energy)


def test_batches_are_singles():
    fields = noise(2, 3)
    spectra = energy_spectrum(fields)
    assert spectra.shape == (2, 3, SIZE // 2)
    np.testing.assert_allclose(spectra[1, 2], energy_spectrum(fields[1, 2]))
    np.testing.assert_allclose(energy_spectrum(fields.astype("float32")), spectra, rtol=1e-5)


def test_error_of_a_factor():
    """Fields that are too weak by a half have a quarter of the energy: an error of 3/4."""
    truth = noise(2, 4)
    score = spectrum_error(*as_metric(np.repeat(truth[:, None], 3, 1) / 2, truth))
    assert score.dims == ("case",)
    np.testing.assert_allclose(score, 0.75)
    twice = np.stack((truth[0], np.sqrt(3) * truth[1]))[:, None]
    np.testing.assert_allclose(spectrum_error(*as_metric(twice, truth)), [0, 2], atol=1e-12)


def test_energies_are_averaged_before_they_are_compared():
    """Members and times of 1/2 and 3/2 of the energy are right on average, their mean is not."""
    truth = np.repeat(noise(1, 1), 2, axis=1)
    weak, strong = np.sqrt(0.5), np.sqrt(1.5)
    state = np.stack((weak * truth, strong * truth), axis=1)
    np.testing.assert_allclose(spectrum_error(*as_metric(state, truth)), 0, atol=1e-12)
    state = truth[:, None] * np.array([weak, strong])[:, None, None]
    np.testing.assert_allclose(spectrum_error(*as_metric(state, truth)), 0, atol=1e-12)


def test_bands_count_alike_and_wavenumbers_within_them():
    """Twice the amplitude at wavenumbers above 7.5: an error of 3 for n = 8, 9, 10 alone."""
    truth = noise(1, 1)
    k = np.fft.fftfreq(SIZE, 1 / SIZE)
    high = np.hypot(k[:, None], k) > 7.5
    modes = np.fft.fft2(truth)
    state = np.fft.ifft2(np.where(high, 2 * modes, modes)).real[:, None]
    posterior, case = as_metric(state, truth)
    for bands, expected in (
        (None, 1),  # [1/2, 4), [4, 8), [8, 32/3)
        ([(0.5, 4), (4, 8)], 0),
        ([(8, 16)], 3),
        ([(6, 10), (1, 2)], 0.75),  # 8 and 9 of 6, …, 9, in one of two bands
    ):
        score = spectrum_error(posterior, case, bands=bands)
        np.testing.assert_allclose(score, expected, atol=1e-12)


def test_a_rollout_keeps_its_leads():
    truth = noise(2, 3)
    factor = np.sqrt([1, 2, 3])[:, None, None]
    posterior, case = as_metric(np.repeat((factor * truth)[:, None], 2, 1), truth)
    case = Case(case.truth.rename(time="lead"), case.y, None)
    score = spectrum_error(posterior.rename(time="lead"), case)
    assert score.dims == ("case", "lead")
    np.testing.assert_allclose(score, [[0, 1, 2]] * 2, atol=1e-12)


@pytest.mark.parametrize("band", [(4.2, 4.8), (8, 33), (20, 30)])
def test_bands_without_wavenumbers_are_refused(band):
    with pytest.raises(ValueError, match=r"bands: value .*, allowed: wavenumbers of 1 to 16"):
        spectrum_error(*as_metric(noise(1, 1, 1), noise(1, 1)), bands=[(1, 4), band])
