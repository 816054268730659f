"""Pictures of particles: what a pixel gathers, where particles go, what leaves the frame."""

import math

import pytest
import torch
from scipy.integrate import dblquad

from priorflow.operators.spectral import velocity
from priorflow.rng import Streams
from priorflow.systems.camera import Camera, advect, carried_by


def uniform(*displacement):
    """A motion by so many pixels in a unit of time, for a camera of 64."""
    v = torch.tensor(displacement, dtype=torch.float64) * 2 * math.pi / 64
    return lambda places: v.expand_as(places)


def camera(**fields):
    return Camera(**{"pixels": 64, "interval": 1.0, "levels": None, **fields})


def rotation(places):
    """Solid rotation about (0.3, 0.2) with an angular velocity of 1: (y, x) to (x, -y)."""
    y, x = (places - torch.tensor([0.3, 0.2], dtype=torch.float64)).unbind(-1)
    return torch.stack((x, -y), dim=-1)


def test_a_pixel_gathers_the_integral():
    pictures = camera(pixels=8).render(torch.tensor([[3.3, 4.1]], dtype=torch.float64))

    def intensity(x, y):
        return 255 * math.exp(-8 * ((y - 3.3) ** 2 + (x - 4.1) ** 2) / 9)

    for i, j in ((3, 4), (4, 4), (1, 6)):
        exact = dblquad(intensity, i - 0.5, i + 0.5, j - 0.5, j + 0.5)[0]
        assert pictures[i, j].item() == pytest.approx(exact, rel=1e-6)


def test_light_is_kept_and_centred():
    """A particle within the frame has the light I π d² / 8, and its centroid is its place."""
    place = torch.tensor([20.37, 31.81], dtype=torch.float64)
    picture = camera().render(place.unsqueeze(0))
    assert picture.sum().item() == pytest.approx(255 * math.pi * 9 / 8)
    axis = torch.arange(64, dtype=torch.float64)
    centroid = torch.stack(((picture.sum(1) * axis).sum(), (picture.sum(0) * axis).sum()))
    torch.testing.assert_close(centroid / picture.sum(), place, atol=1e-5, rtol=0)


@pytest.mark.parametrize("periodic", [False, True])
def test_a_uniform_motion_by_whole_pixels_shifts_the_picture(periodic):
    """Round the border if periodic; otherwise what enters is new, and what leaves is gone."""
    pair = camera(periodic=periodic).pair(uniform(3, -5), Streams(0, cases=[0, 1]))
    first, second = pair.pictures.unbind(1)
    shifted = first.roll((3, -5), (-2, -1))
    inside = (slice(None), slice(3, None), slice(None, -5))
    torch.testing.assert_close(second[inside], shifted[inside])
    assert torch.allclose(second, shifted) == periodic
    torch.testing.assert_close(
        pair.particles[:, 1] - pair.particles[:, 0],
        torch.tensor([3.0, -5.0], dtype=torch.float64).expand(2, pair.particles.shape[2], 2),
    )
    assert (first[0] != first[1]).any()


def test_solid_rotation_goes_by_the_angle():
    """Fourth order: a step of 0.5 is off by about h⁵ / 120."""
    start = torch.rand(1, 50, 2, dtype=torch.float64)
    centre = torch.tensor([0.3, 0.2], dtype=torch.float64)
    y, x = (start - centre).unbind(-1)
    c, s = math.cos(0.5), math.sin(0.5)
    exact = torch.stack((c * y + s * x, c * x - s * y), dim=-1) + centre
    once, often = ((advect(start, rotation, 0.5, steps) - exact).abs().max() for steps in (1, 8))
    assert once < 4e-4
    assert often < once / 8**4 * 2
    torch.testing.assert_close(advect(exact, rotation, -0.5, 8), start, atol=1e-6, rtol=0)


def test_exposures_lie_on_both_sides():
    """For a rotation by θ, a chord of 2 r sin(θ/2) at right angles to the radius."""
    middle = torch.tensor([[[10.0, 12.0]]], dtype=torch.float64)
    seen = camera(interval=0.4, steps=4)
    centre = torch.tensor([0.3, 0.2], dtype=torch.float64) * seen.scale
    y, x = (middle - centre).unbind(-1)
    exact = 2 * math.sin(0.2) * torch.stack((x, -y), dim=-1)
    torch.testing.assert_close(seen.displacements(rotation, middle), exact, atol=1e-6, rtol=0)
    u, v = (seen.velocities(exact) / (math.sin(0.2) / 0.2) * seen.scale)[0]
    assert u.item() == pytest.approx(-y.item())
    assert v.item() == pytest.approx(x.item())


def test_particles_go_with_the_flow_of_a_vorticity():
    """ω = cos x + cos y turns about its centre, where it is 2, anticlockwise by 1 in a unit."""
    axis = torch.arange(32, dtype=torch.float64) * 2 * math.pi / 32
    omega = axis.cos().unsqueeze(0) + axis.cos().unsqueeze(1)
    motion = carried_by(velocity(omega.unsqueeze(0)))
    start = torch.tensor([[[0.0, 0.01]]], dtype=torch.float64)
    end = advect(start, motion, math.pi / 2, 50)
    torch.testing.assert_close(end, start.flip(-1), atol=1e-4, rtol=0)


def test_the_particles_are_as_many_as_said():
    pair = camera(density=0.05, margin=8).pair(uniform(1, 0), Streams(0))
    assert pair.particles.shape == (1, 2, 320, 2)
    inside = ((pair.particles > -0.5) & (pair.particles < 63.5)).all(-1).sum(-1)
    assert (inside - 205).abs().max() < 5 * math.sqrt(205 * 0.36)
    assert pair.pictures.mean().item() == pytest.approx(0.05 * 255 * math.pi * 9 / 8, rel=0.2)


def test_cases_do_not_depend_on_their_company():
    seen = camera(noise_std=3.0, levels=255)
    both = seen.pair(uniform(1, 0), Streams(0, cases=[4, 9])).pictures
    one = seen.pair(uniform(1, 0), Streams(0, cases=[9])).pictures
    torch.testing.assert_close(both[1:], one)


def test_noise_and_grey_levels():
    exact = camera().pair(uniform(1, 0), Streams(0)).pictures
    noisy = camera(noise_std=5.0).pair(uniform(1, 0), Streams(0)).pictures
    assert (noisy - exact).std().item() == pytest.approx(5.0, rel=0.05)
    grey = camera(levels=255, density=0.3).pair(uniform(1, 0), Streams(0)).pictures
    assert (grey == grey.round()).all()
    assert grey.min() >= 0
    assert grey.max() == 255


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"pixels": 4}, "pixels"),
        ({"interval": 0.0}, "interval"),
        ({"density": -1.0}, "density"),
        ({"diameter": math.nan}, "diameter"),
        ({"peak": 0.0}, "peak"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"levels": 0}, "levels"),
        ({"margin": -1}, "margin"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_settings_are_refused(fields, named):
    with pytest.raises(ValueError, match=f"^{named}: value.*, allowed: "):
        Camera(**fields)


def test_a_motion_beyond_the_margin_is_refused():
    with pytest.raises(ValueError, match=r"^margin: value 16, .* 18\.0 pixels"):
        camera().pair(uniform(30, 0), Streams(0))
