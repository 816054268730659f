"""Correlation and tracking of pictures whose displacements are known, and a real pair."""

import math

import numpy as np
import pytest
import torch

from priorflow.rng import Streams
from priorflow.systems.camera import Camera
from priorflow.systems.velocimetry import Vectors, correlate, detect, error, example, track

PIXELS = 128
CAMERA = Camera(pixels=PIXELS, interval=1.0)


def shift(*displacement):
    v = torch.tensor(displacement, dtype=torch.float64) / CAMERA.scale
    return lambda places: v.expand_as(places)


def strain(places):
    """A shear and a turn about a point off the centre, asymmetric in y and x: up to 3 pixels."""
    y, x = (places - torch.tensor([2.5, 3.5], dtype=torch.float64)).unbind(-1)
    return torch.stack((0.04 * x, -0.015 * y), dim=-1)


def seen(motion, camera=CAMERA, case=0):
    pair = camera.pair(motion, Streams(0, cases=[case]))
    return pair.pictures[0].numpy(), pair.particles[0].numpy()


def truth(motion, vectors, camera=CAMERA):
    middle = torch.from_numpy(vectors.positions).unsqueeze(0)
    return camera.displacements(motion, middle)[0].numpy()


def inside(particles, border=4):
    """Which of the particles are well within the frame."""
    return ((particles > border) & (particles < PIXELS - 1 - border)).all(-1)


@pytest.mark.parametrize("displacement", [(0.0, 0.0), (0.3, -0.7), (-2.4, 3.35)])
def test_correlation_of_a_uniform_shift(displacement):
    """A tenth of a pixel is the target; by OpenPIV, windows of 32 pixels with 31 particles."""
    pytest.importorskip("openpiv")
    (first, second), _ = seen(shift(*displacement))
    vectors = correlate(first, second, windows=(32, 32))
    assert vectors.positions.shape == vectors.displacements.shape == (49, 2)
    found = error(vectors, np.broadcast_to(displacement, (49, 2)))
    assert found.valid > 0.9
    assert found.rms < 0.1
    assert max(map(abs, found.bias)) < 0.05


def test_correlation_knows_its_axes_and_places():
    """A strain has one displacement at each place: a wrong sign or axis, or half a pixel, shows."""
    pytest.importorskip("openpiv")
    (first, second), _ = seen(strain)
    vectors = correlate(first, second, windows=(32, 32))
    expected = truth(strain, vectors)
    assert np.abs(expected).max(0) == pytest.approx([2.5, 0.8], abs=0.3)
    assert error(vectors, expected).rms < 0.12
    assert vectors.positions[0].tolist() == [15.5, 15.5]
    assert vectors.positions[1].tolist() == [15.5, 31.5]


def test_detection_of_particles_that_stand_apart():
    """The three-point fit of a Gaussian that pixels have averaged is off by some hundredths."""
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*[np.arange(8, 121, 8.0)] * 2), -1).reshape(-1, 2)
    places = places + rng.uniform(-1, 1, places.shape)
    picture = CAMERA.render(torch.from_numpy(places)).numpy()
    found = detect(picture.round())
    assert len(found) == len(places)
    distance = np.linalg.norm(found[:, None] - places, axis=-1).min(0)
    assert distance.max() < 0.05


def test_detection_counts_a_plateau_once():
    picture = np.zeros((9, 9))
    picture[4, 4:6] = 200.0
    picture[4, 3] = picture[4, 6] = 20.0
    assert detect(picture) == pytest.approx(np.array([[4.0, 4.5]]), abs=0.01)
    assert len(detect(np.zeros((9, 9)))) == 0


@pytest.mark.parametrize("motion", [shift(2.4, -3.3), strain], ids=["shift", "strain"])
def test_tracking_of_known_particles(motion):
    """Displacements beyond the distance to the nearest neighbour, here 2.9 pixels on average."""
    _, (before, after) = seen(motion)
    first, second = before[inside(before)], after[inside(after)]
    second = second[np.random.default_rng(0).permutation(len(second))]
    vectors = track(first, second)
    found = error(vectors, truth(motion, vectors))
    assert vectors.valid.sum() > 0.9 * len(first)
    assert found.rms < 0.01


def test_tracking_of_detected_particles():
    """Overlapping images are what is left: their maxima are not where particles are."""
    (first, second), _ = seen(strain)
    vectors = track(detect(first), detect(second))
    found = error(vectors, truth(strain, vectors))
    assert vectors.valid.sum() > 0.6 * 0.03 * PIXELS**2
    assert found.median < 0.05
    assert found.rms < 0.35


def test_tracking_goes_by_the_guess():
    """Displacements of 12 pixels are out of reach, but not of one who expects them."""
    _, (before, after) = seen(shift(12.0, 0.0))
    first, second = before[inside(before, 14)], after[inside(after, 2)]
    guess = np.broadcast_to([11.0, 0.5], first.shape)
    vectors = track(first, second, reach=3.0, guess=guess)
    assert vectors.displacements[vectors.valid] == pytest.approx(
        np.broadcast_to([12.0, 0.0], (vectors.valid.sum(), 2))
    )
    assert vectors.valid.mean() > 0.95


def test_no_particle_has_two_partners():
    _, (before, after) = seen(strain)
    vectors = track(before, after, reach=12.0)
    half = vectors.displacements / 2
    for ends in (vectors.positions - half, vectors.positions + half):
        assert len(np.unique(ends.round(6), axis=0)) == len(ends)


def test_errors_by_hand():
    vectors = Vectors(
        np.zeros((3, 2)), np.array([[1.0, 2.0], [3.0, 2.0], [9.0, 9.0]]), np.ones(3) > 0
    )
    vectors.valid[2] = False
    found = error(vectors, np.zeros((3, 2)))
    assert found.bias == (2.0, 2.0)
    assert found.rms == pytest.approx(math.sqrt(18 / 4))
    assert found.median == 2.0
    assert found.valid == pytest.approx(2 / 3)
    vectors.valid[:] = False
    with pytest.raises(ValueError, match="none is valid"):
        error(vectors, np.zeros((3, 2)))


def test_a_real_pair():
    """Independently: a window of 64 pixels at the centre of the pictures, by its spectrum."""
    pytest.importorskip("openpiv")
    first, second, vectors = example()
    assert first.shape == second.shape == (369, 511)
    assert first.dtype == np.uint8
    assert vectors.valid.mean() > 0.8
    window = (slice(160, 224), slice(224, 288))
    a, b = (np.fft.rfft2(p[window] - p[window].mean()) for p in (first, second))
    peak = np.unravel_index(np.fft.irfft2(a.conj() * b).argmax(), (64, 64))
    whole = (np.array(peak) + 32) % 64 - 32
    near = np.abs(vectors.positions - [191.5, 255.5]).max(1) < 16
    assert np.abs(np.median(vectors.displacements[near], axis=0) - whole).max() < 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"windows": (32, 16)}, "windows"),
        ({"windows": (32, 2)}, "windows"),
        ({"overlap": 1.0}, "overlap"),
    ],
)
def test_bad_settings_are_refused(settings, named):
    with pytest.raises(ValueError, match=f"^{named}: value.*, allowed: "):
        correlate(np.zeros((64, 64)), np.zeros((64, 64)), **settings)


def test_too_few_particles_are_refused():
    with pytest.raises(ValueError, match=r"^first, second: 3 and 5 particles, allowed: "):
        track(np.zeros((3, 2)), np.zeros((5, 2)))
