"""Systems against what is known of them."""

import pytest
import torch

from priorflow.rng import Streams
from priorflow.systems.base import Standardised
from priorflow.systems.damped_spring import DampedSpring
from priorflow.systems.double_well import DoubleWell
from priorflow.systems.lorenz63 import Lorenz63

ALL = [Lorenz63(), DoubleWell(), DampedSpring(), DampedSpring(copies=3)]


@pytest.mark.parametrize("system", ALL, ids=str)
def test_shapes_and_log_density(system):
    rng = Streams(0, "s", cases=range(4))
    x = system.initial(5, rng)
    x_next = system.step(x, rng)
    assert x.shape == x_next.shape == (4, 5, *system.shape)
    residual = (x_next - system.advance(x)) / system.noise_std
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(residual).sum(-1)
    expected = normal - system.noise_std.log().sum()
    torch.testing.assert_close(system.log_transition(x, x_next), expected)


@pytest.mark.parametrize("system", ALL, ids=str)
def test_standardised_is_the_same_system(system):
    standard = Standardised(system)
    a, b = Streams(1, "s", cases=range(3)), Streams(1, "s", cases=range(3))
    x, z = system.initial(2, a), standard.initial(2, b)
    torch.testing.assert_close(standard.decode(z), x)
    torch.testing.assert_close(standard.decode(standard.step(z, b)), system.step(x, a))


def test_lorenz63_converges_at_fourth_order():
    """Halving the step divides the error of Runge-Kutta by sixteen."""
    x = torch.tensor([[1.0, 2.0, 20.0], [-5.0, -3.0, 25.0]], dtype=torch.float64)

    def run(n):
        y = x
        for _ in range(n):
            y = Lorenz63(dt=0.1 / n).advance(y)
        return y

    reference = run(4096)
    ratio = (run(16) - reference).norm() / (run(32) - reference).norm()
    assert 14 < ratio < 18


def test_lorenz63_fixed_points():
    r = (8 / 3 * 27) ** 0.5
    x = torch.tensor([r, r, 27.0], dtype=torch.float64)
    torch.testing.assert_close(Lorenz63().advance(x), x)


def test_double_well_rests_in_its_wells():
    x = torch.tensor([[-1.0], [0.0], [1.0]])
    torch.testing.assert_close(DoubleWell().advance(x), x)


def test_damped_spring_matrix_and_copies():
    x = torch.randn(5, 12)
    system = DampedSpring(copies=3)
    one = DampedSpring().advance(x.unflatten(-1, (3, 4))).flatten(-2)
    torch.testing.assert_close(system.advance(x), one)
    torch.testing.assert_close(system.advance(x), x @ system.matrix.T)


def test_standardised_linear_system_keeps_its_matrix():
    system = DampedSpring()
    scaled = Standardised(system, std=torch.tensor([1.0, 2.0, 4.0, 0.5]))
    x = torch.randn(6, 4)
    torch.testing.assert_close(x @ scaled.matrix.T, scaled.advance(x))
