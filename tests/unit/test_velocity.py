"""Velocities at places against closed forms, dense matrices and transposes; the curl floor."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from priorflow.operators.base import LinearOperator
from priorflow.operators.spectral import velocity
from priorflow.operators.velocity import Particles, RandomParticles, Velocities, Windows, sample
from priorflow.priors.base import StateSpace
from priorflow.rng import Streams
from priorflow.solvers.assimilation.curl import Curl
from priorflow.solvers.assimilation.enkf import tapers

SIZE = 16
PARTICLES = Particles(SIZE, count=40, noise_std=0.3)
WINDOWS = Windows(SIZE, side=4, width=0.5, noise_std=0.3)


def grid(size=SIZE):
    axis = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    return torch.meshgrid(axis, axis, indexing="ij")


def taylor_green(y, x):
    """ω = 2 sin 2x sin y / 5 + cos 3x and its velocities, by hand."""
    vorticity = 2 * (2 * x).sin() * y.sin() + (3 * x).cos()
    u = 2 / 5 * (2 * x).sin() * y.cos()
    v = -4 / 5 * (2 * x).cos() * y.sin() + (3 * x).sin() / 3
    return vorticity, torch.stack((u, v))


@pytest.mark.parametrize("operator", [PARTICLES, Windows(SIZE, side=5)], ids=repr)
def test_velocities_of_a_known_flow(operator):
    omega, _ = taylor_green(*grid())
    _, exact = taylor_green(*operator.places.unbind(-1))
    torch.testing.assert_close(operator(omega), exact, atol=2e-6, rtol=0)


def test_a_positive_vortex_turns_anticlockwise():
    y, x = grid(32)
    vortex = (4 * ((x - math.pi).cos() + (y - math.pi).cos())).exp()
    at = torch.tensor([[0.0, 0.4], [0.0, -0.4], [0.4, 0.0], [-0.4, 0.0]]) + math.pi
    u, v = Velocities(at, 32)(vortex)
    assert v[0] > 0 > v[1]
    assert u[3] > 0 > u[2]


def test_windows_take_the_mean():
    """Against a mean of many points; sin 3x over a width w shrinks by sin(3w/2) / (3w/2)."""
    operator = Windows(SIZE, side=3, width=0.8)
    axis = (torch.arange(200, dtype=torch.float64) + 0.5) / 200 * 0.8 - 0.4
    around = operator.places.unsqueeze(1) + torch.cartesian_prod(axis, axis)
    omega, _ = taylor_green(*grid())
    _, exact = taylor_green(*around.unbind(-1))
    torch.testing.assert_close(operator(omega), exact.mean(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [8, 9])
def test_sample_is_the_fourier_series(size):
    """At the points of the grid it is the field, white noise and its shortest wave included."""
    fields = torch.randn(2, 3, size, size, dtype=torch.float64)
    y, x = grid(size)
    places = torch.stack((y, x), dim=-1).view(1, -1, 2)
    torch.testing.assert_close(sample(fields, places), fields.flatten(-2))
    wave = (2 * y - x + 0.3).sin().view(1, size, size)
    between = 7 * torch.rand(5, 2, dtype=torch.float64)
    exact = (2 * between[:, 0] - between[:, 1] + 0.3).sin().unsqueeze(0)
    torch.testing.assert_close(sample(wave, between), exact)


@given(
    half=st.integers(2, 6),
    count=st.integers(1, 9),
    width=st.floats(0, 3),
    cases=st.integers(1, 3),
    lead=st.lists(st.integers(1, 3), max_size=3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_transposes(half, count, width, cases, lead, seed):
    size = 2 * half
    random = RandomParticles(size, count=count, seed=seed).at(range(cases))
    for operator, shape in (
        (Particles(size, count=count, seed=seed), lead),
        (Windows(size, side=count % 4 + 1, width=width), lead),
        (random, [cases, *lead]),
    ):
        x = torch.randn(*shape, size, size, dtype=torch.float64)
        y = torch.randn_like(operator(x))
        assert y.shape[:-2] == tuple(shape)
        assert y.shape[-2] == 2
        torch.testing.assert_close((operator(x) * y).sum(), (x * operator.adjoint(y)).sum())
        assert isinstance(operator, LinearOperator)


def test_every_case_has_its_own_particles():
    operator = RandomParticles(SIZE, density=0.1)
    both, second = operator.at([3, 7]), operator.at([7])
    assert both.places.shape == (2, 26, 2)
    assert (both.places[1] == second.places[0]).all()
    assert not torch.isin(both.places[0], both.places[1]).any()
    x = torch.randn(2, 3, 4, SIZE, SIZE)
    y = both(x)
    assert y.shape == (2, 3, 4, 2, 26)
    torch.testing.assert_close(y[1:], second(x[1:]))
    for case in range(2):
        flow = velocity(x[case, 1, 2])
        torch.testing.assert_close(
            y[case, 1, 2], sample(flow, both.places[case]), atol=1e-5, rtol=1e-5
        )
    # One case's worth of leading axis stands for all of them.
    torch.testing.assert_close(both(x[:1])[1], second(x[:1])[0])


def test_places_are_fixed_by_the_seed():
    few, many = Particles(64, density=0.01), Particles(64, density=0.03)
    assert len(few.places) == 41
    assert len(many.places) == 123
    assert (many.places[:41] == few.places).all()
    assert (Particles(64, density=0.03, seed=1).places != many.places).any()
    assert (many.places >= 0).all()
    assert (many.places < 2 * math.pi).all()
    assert Particles(64, count=2000).places.mean().item() == pytest.approx(math.pi, abs=0.15)


@pytest.mark.parametrize("cases", [None, 2])
def test_prox_is_the_dense_solution(cases):
    operator = PARTICLES
    if cases:
        operator = RandomParticles(SIZE, count=9, noise_std=0.3).at(range(cases))
    z0 = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    y = torch.randn(2, 1, *operator(z0).shape[2:], dtype=torch.float64)
    z = operator.prox(z0, y, 0.7)
    a = operator.matrix.double()
    hessian = a.mT @ a / 0.3**2 + torch.eye(SIZE**2) / 0.7
    right = z0.flatten(2) / 0.7 + y.flatten(2).expand(2, 3, -1) @ a / 0.3**2
    exact = torch.linalg.solve(hessian, right.mT).mT
    torch.testing.assert_close(z.flatten(2), exact, atol=1e-6, rtol=1e-6)


def test_positions_are_those_of_every_number():
    """For localisation: (y, x) of u at all places, then of v."""

    class Prior:
        positions, period = torch.rand(7, 2), 2 * math.pi

    operator = WINDOWS
    assert (operator.positions[:16] == operator.places).all()
    assert (operator.positions[16:] == operator.places).all()
    among, towards = tapers(2.0, operator, Prior)
    assert among.shape == (32, 32)
    assert towards.shape == (32, 7)
    assert RandomParticles(SIZE, count=3).at([0]).positions is None


@pytest.mark.parametrize("operator", [PARTICLES, WINDOWS], ids=repr)
def test_gradients(operator):
    x = torch.randn(1, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(operator(x))
    (gradient,) = torch.autograd.grad((operator(x) * weight).sum(), x)
    torch.testing.assert_close(gradient, operator.adjoint(weight))


class Shape:
    """All that is asked of a transition."""

    def __init__(self, size):
        self.shape = (size, size)


@pytest.mark.parametrize("random", [False, True])
def test_curl_of_dense_velocities_is_the_vorticity(random):
    """Interpolation errors of order h³ of a flow with waves up to 3, rms 1.2."""
    size, count = 32, 1500
    operator = (RandomParticles if random else Particles)(size, count=count)
    operator = operator.at([0, 1]) if random else operator
    omega = taylor_green(*grid(size))[0].float().expand(2, 1, size, size)
    prior = StateSpace(None, Shape(size))
    x = Curl()(operator(omega), operator, prior, Streams(0), members=3).samples
    assert x.shape == (2, 3, 1, size, size)
    assert (x == x[:, :1]).all()
    error = (x[:, 0] - omega).square().mean((-1, -2)).sqrt()
    assert (error < 0.1).all()


def test_curl_on_windows_and_its_filter():
    """Of one wave, on whose grid cubic splines are nearly exact, exp(-|k|² s² / 2) is left."""
    y, x = grid(32)
    omega = (2 * y + x).sin().float().view(1, 1, 32, 32)
    operator = Windows(32, side=32)
    prior = StateSpace(None, Shape(32))
    estimate = Curl(smoothing=0.3)(operator(omega), operator, prior, Streams(0)).samples[0]
    expected = omega[0] * math.exp(-5 * 0.3**2 / 2)
    torch.testing.assert_close(estimate[0], expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("method", "fields", "named"),
    [
        (Windows, {"size": 8, "side": 0}, "side"),
        (Windows, {"size": 8, "side": 4, "width": 7.0}, "width"),
        (Windows, {"size": 8, "side": 4, "noise_std": -1.0}, "noise_std"),
        (Particles, {"size": 8}, "count, density"),
        (Particles, {"size": 8, "count": 5, "density": 0.5}, "count, density"),
        (Particles, {"size": 8, "count": 0}, "count"),
        (Particles, {"size": 8, "density": 1e-3}, "density"),
        (Particles, {"size": 8, "density": math.inf}, "density"),
        (Particles, {"size": 8, "count": 5, "noise_std": math.nan}, "noise_std"),
        (Curl, {"order": 2}, "order"),
        (Curl, {"smoothing": -1.0}, "smoothing"),
    ],
)
def test_bad_settings_are_refused(method, fields, named):
    with pytest.raises(ValueError, match=f"^{named}: value.*, allowed: "):
        method(**fields)


def test_curl_needs_places():
    with pytest.raises(ValueError, match="no places"):
        Curl()(torch.zeros(1, 1, 2, 3), object(), StateSpace(None, Shape(8)), Streams(0))
