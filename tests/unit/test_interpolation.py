"""The interpolation floor against splines, bilinear resampling and known fields."""

import math
from dataclasses import dataclass

import pytest
import torch
from scipy.interpolate import CubicSpline

from priorflow.operators.fields import Downsample, Points
from priorflow.priors.base import StateSpace
from priorflow.rng import Streams
from priorflow.solvers.assimilation.interpolation import Interpolation
from priorflow.solvers.base import Diverged

SIZE = 32


@dataclass(frozen=True)
class Shape:
    """All that is asked of a transition."""

    shape: tuple[int, int] = (SIZE, SIZE)


@dataclass(frozen=True)
class At:
    """An operator of which only the positions are known."""

    positions: torch.Tensor


PRIOR = StateSpace(None, Shape())
FINE, DOWN, POINTS = Downsample(SIZE, 2), Downsample(SIZE, 4), Points(SIZE, count=300)


def estimate(y, operator, order=3, members=1, prior=PRIOR, periodic=True):
    """States (cases, members, time, height, width)."""
    rng = Streams(0, cases=range(len(y)))
    solver = Interpolation(order, periodic)
    return solver(y, operator, prior, rng, members=members).samples


def wave(positions, ky=1, kx=2):
    """sin(ky y + kx x + 1) at positions (…, 2): rows are told from columns, left from right."""
    return (positions @ torch.tensor([float(ky), float(kx)]) + 1).sin()


def grid(size=SIZE):
    axis = torch.arange(size) * 2 * math.pi / size
    return torch.cartesian_prod(axis, axis).view(size, size, 2)


@pytest.mark.parametrize("operator", [DOWN, POINTS], ids=repr)
@pytest.mark.parametrize("order", [1, 3])
def test_constants_are_kept(operator, order):
    y = torch.full_like(operator(torch.zeros(1, 1, SIZE, SIZE)), 2.5)
    torch.testing.assert_close(estimate(y, operator, order), torch.full((1, 1, 1, SIZE, SIZE), 2.5))


@pytest.mark.parametrize(
    ("operator", "order", "error"), [(FINE, 1, 0.07), (FINE, 3, 0.003), (POINTS, 3, 0.02)]
)
def test_a_smooth_wave_is_found(operator, order, error):
    """Values at the positions, the wave beyond them; half a pixel of shift would give 0.15."""
    y = wave(operator.positions).view(1, 1, -1)
    x = estimate(y, operator, order)
    assert (x[0, 0, 0] - wave(grid())).square().mean().sqrt() < error


def test_cubic_on_triangles_beats_linear():
    y = wave(POINTS.positions).view(1, 1, -1)
    error = [(estimate(y, POINTS, o)[0, 0, 0] - wave(grid())).square().mean() for o in (1, 3)]
    assert error[1] < error[0] / 10


def test_grid_of_order_three_is_the_periodic_spline():
    """Of a product of functions, the product of SciPy's splines."""
    y = torch.randn(2, 1, 8, dtype=torch.float64)
    centres = torch.arange(8) * 2 * math.pi / 8 + 1.5 * 2 * math.pi / SIZE
    axis = torch.arange(SIZE).double() * 2 * math.pi / SIZE
    curves = [
        CubicSpline([*centres, centres[0] + 2 * math.pi], [*v, v[0]], bc_type="periodic")(axis)
        for v in y[:, 0]
    ]
    x = estimate((y[0, :, :, None] * y[1, :, None])[None], DOWN)
    expected = torch.outer(*map(torch.as_tensor, curves))
    torch.testing.assert_close(x[0, 0, 0], expected, rtol=1e-4, atol=1e-5)


def test_grid_of_order_one_is_bilinear():
    """What PyTorch makes of the observations and their periodic copies."""
    y = torch.randn(1, 1, 8, 8)
    copies = torch.nn.functional.pad(y, (1, 1, 1, 1), mode="circular")
    expected = torch.nn.functional.interpolate(copies, scale_factor=4, mode="bilinear")
    x = estimate(y, DOWN, order=1)
    torch.testing.assert_close(x[0, 0], expected[0, :, 4:-4, 4:-4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [1, 3])
def test_scattered_observations_are_met(order):
    """At the observed pixels the estimate is the observation."""
    y = torch.randn(2, 3, 300)
    torch.testing.assert_close(POINTS(estimate(y, POINTS, order)[:, 0]), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [1, 3])
def test_scattered_estimates_turn_with_their_positions(order):
    """The field is a torus: moving all positions across the edges moves the estimate."""
    rng = Streams(3)
    positions, y = rng.uniform(200, 2)[0] * 2 * math.pi, rng.normal(1, 200)
    step = 2 * math.pi / SIZE
    moved = (positions + step * torch.tensor([9, 20])) % (2 * math.pi)
    x, turned = estimate(y, At(positions), order), estimate(y, At(moved), order)
    torch.testing.assert_close(turned, x.roll((9, 20), (-2, -1)), rtol=0, atol=2e-3)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("operator", [DOWN, POINTS], ids=repr)
def test_a_bounded_field_does_not_go_on_at_its_opposite_edge(operator, order):
    """A ramp is found between the observations; a periodic field would jump."""
    slope = torch.tensor([0.5, -2.0])
    x = estimate((operator.positions @ slope).view(1, 1, -1), operator, order, periodic=False)
    ramp = grid() @ slope
    inside = (slice(4, -4),) * 2
    torch.testing.assert_close(x[0, 0, 0][inside], ramp[inside], rtol=0, atol=1e-3)


@pytest.mark.parametrize("order", [1, 3])
def test_beyond_all_triangles_a_bounded_field_is_the_nearest_observation(order):
    """One triangle in the middle of the square, and values at its corners."""
    corners = torch.tensor([[2.0, 2.0], [2.0, 4.0], [4.0, 3.0]])
    values = torch.tensor([1.0, 5.0, 9.0])
    x = estimate(values.view(1, 1, -1), At(corners), order, periodic=False)[0, 0, 0]
    nearest = values[torch.cdist(grid().flatten(0, 1), corners).argmin(1)].view(SIZE, SIZE)
    y, z = grid().unbind(-1)
    outside = (y < 2) | (y > 4) | (z < 2) | (z > 4)
    assert (x[outside] == nearest[outside]).all()
    weights = torch.linalg.solve(
        torch.cat([corners.T, torch.ones(1, 3)]), torch.tensor([*grid()[12, 15], 1.0])
    )
    assert (weights > 0).all()
    torch.testing.assert_close(x[12, 15], weights @ values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [1, 3])
def test_a_bounded_field_meets_its_observations(order):
    y = torch.randn(2, 3, 300)
    x = estimate(y, POINTS, order, periodic=False)
    torch.testing.assert_close(POINTS(x[:, 0]), y, rtol=1e-4, atol=1e-4)


def test_two_places_are_enough_for_triangles():
    x = estimate(torch.full((1, 1, 2), 4.0), At(torch.tensor([[6.0, 0.1], [5.0, 3.0]])), order=1)
    torch.testing.assert_close(x, torch.full_like(x, 4.0))


def test_members_are_equal_and_states_independent():
    """Cases and times are estimated one by one, on fields that are not square too."""
    prior = StateSpace(None, Shape((16, 24)))
    y = torch.randn(2, 3, 300)
    x = estimate(y, POINTS, members=4, prior=prior)
    assert x.shape == (2, 4, 3, 16, 24)
    assert (x == x[:, :1]).all()
    alone = estimate(y[1:, 2:], POINTS, prior=prior)
    torch.testing.assert_close(alone[0, 0, 0], x[1, 0, 2], rtol=1e-4, atol=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="order: value 2, allowed: "):
        Interpolation(order=2)
    with pytest.raises(ValueError, match="operator: no positions"):
        estimate(torch.zeros(1, 1, 1), object())
    corner = torch.rand(2000, 2)
    with pytest.raises(ValueError, match="positions: 2000 leave a hole"):
        estimate(torch.zeros(1, 1, 2000), At(corner), order=1)
    y = torch.zeros(2, 3, 300)
    y[1, 2, 0] = math.nan
    with pytest.raises(Diverged) as caught:
        estimate(y, POINTS)
    assert (caught.value.cases, caught.value.step) == ([1], 2)
