"""Predictor-based assimilation against the exact minimum and against Kalman's formula."""

import math
from dataclasses import dataclass

import pytest
import torch

from priorflow.operators.fields import Downsample, Points
from priorflow.operators.pointwise import Arctan, Cube
from priorflow.priors.base import Known, StateSpace
from priorflow.rng import Streams
from priorflow.solvers.assimilation.predictor import PredictorDA
from priorflow.solvers.base import Diverged

OPERATORS = [Downsample(8, 2), Points(8, count=20)]
RNG = Streams(0, cases=range(2))


@dataclass(frozen=True)
class Damped:
    """A predictor of two past states, unlike one another, that moves and shrinks the field."""

    shape: tuple[int, int] = (8, 8)
    context: int = 2

    def predict(self, history):
        return 0.9 * history[..., -1, :, :].roll(1, -1) + 0.3 * history[..., 0, :, :]


def problem(operator, cases=2, time=3, dtype=torch.float64):
    """Observations and a prior."""
    torch.manual_seed(0)
    prior = StateSpace(Known(torch.randn(cases, 2, 8, 8, dtype=dtype)), Damped())
    return torch.randn_like(operator(torch.zeros(cases, time, 8, 8, dtype=dtype))), prior


@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
@pytest.mark.parametrize("alpha", [0.1, 2.0])
def test_exact_is_the_minimum(operator, alpha):
    """By gradient descent on α |x - x'|² + |y - A x|², fed back three times."""
    y, prior = problem(operator)
    x = PredictorDA(alpha, "exact")(y, operator, prior, RNG).samples
    history = prior.initial.history
    for k in range(3):
        predicted = prior.transition.predict(history)
        z = predicted.clone().requires_grad_()
        for _ in range(500):
            misfit = alpha * (z - predicted).square().sum()
            misfit = misfit + (y[:, k] - operator(z)).square().sum()
            (gradient,) = torch.autograd.grad(misfit, z)
            z = (z - 0.4 / (alpha + 1) * gradient).detach().requires_grad_()
        torch.testing.assert_close(x[:, 0, k], z.detach())
        history = torch.stack((history[:, 1], z.detach()), dim=1)


def test_exact_is_the_kalman_update():
    """With the variance γ²/α for the prediction; at α = 1 observed pixels are the mean of both."""
    operator = OPERATORS[1]
    y, prior = problem(operator, time=1)
    predicted = prior.transition.predict(prior.initial.history)
    x = PredictorDA(1.0, "exact")(y, operator, prior, RNG).samples[:, 0, 0]
    torch.testing.assert_close(operator(x), (y[:, 0] + operator(predicted)) / 2)
    unseen = operator.adjoint(torch.ones(20)) == 0
    torch.testing.assert_close(x[:, unseen], predicted[:, unseen])


@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
def test_adamw_reaches_the_minimum_in_the_end(operator):
    """With steps that are large enough for the distance."""
    y, prior = problem(operator)
    exact = PredictorDA(0.5, "exact")(y, operator, prior, RNG).samples
    solver = PredictorDA(0.5, learning_rate=1e-2, iterations=800, weight_decay=0.0)
    x = solver(y, operator, prior, RNG).samples
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-3)


def test_adamw_goes_no_further_than_its_steps():
    """The published setting stops at about 0.2 from the prediction, on its way to y."""
    operator = OPERATORS[1]
    y, prior = problem(operator, time=1)
    predicted = prior.transition.predict(prior.initial.history)
    y = (operator(predicted) + 3.0)[:, None]
    x = PredictorDA(0.1)(y, operator, prior, RNG).samples[:, 0, 0]
    moved = operator(x) - operator(predicted)
    assert (moved > 0.15).all()
    assert (moved < 0.21).all()
    unseen = operator.adjoint(torch.ones(20)) == 0
    # The decay alone: a factor (1 - 1e-6)^2000, against which the prediction pulls.
    assert ((x - predicted)[:, unseen].abs() <= 0.003 * predicted[:, unseen].abs()).all()


@pytest.mark.parametrize("optimiser", ["adamw", "exact"])
def test_cases_do_not_depend_on_their_batch(optimiser):
    operator = OPERATORS[0]
    y, prior = problem(operator, cases=3, dtype=torch.float32)
    solver = PredictorDA(0.5, optimiser, learning_rate=1e-2, iterations=100)
    whole = solver(y, operator, prior, RNG).samples
    for i in range(3):
        one = StateSpace(Known(prior.initial.history[i : i + 1]), Damped())
        alone = solver(y[i : i + 1], operator, one, RNG).samples
        torch.testing.assert_close(alone[0], whole[i])


@pytest.mark.parametrize("optimiser", ["adamw", "exact"])
def test_members_are_equal_and_carry_no_graph(optimiser):
    operator = OPERATORS[0]
    y, prior = problem(operator, dtype=torch.float32)
    x = PredictorDA(0.5, optimiser, iterations=5)(y, operator, prior, RNG, members=4).samples
    assert x.shape == (2, 4, 3, 8, 8)
    assert x.dtype == torch.float32
    assert not x.requires_grad
    assert (x == x[:, :1]).all()


def test_nonlinear_operators_are_fitted_by_adamw_alone():
    y, prior = problem(Cube(), time=1)
    predicted = prior.transition.predict(prior.initial.history)
    solver = PredictorDA(0.1, learning_rate=1e-2, iterations=500)
    x = solver(y, Cube(), prior, RNG).samples[:, 0, 0]
    assert (x**3 - y[:, 0]).square().sum() < (predicted**3 - y[:, 0]).square().sum() / 2
    with pytest.raises(ValueError, match="optimiser: value 'exact', allowed: 'adamw'"):
        PredictorDA(0.1, "exact")(y, Arctan(), prior, RNG)
    with pytest.raises(ValueError, match="optimiser: value 'exact', allowed: 'adamw'"):
        PredictorDA(0.1, "exact")(y, Points(8, count=5, noise_std=0.0), prior, RNG)


@pytest.mark.parametrize("optimiser", ["adamw", "exact"])
def test_divergence_names_case_and_step(optimiser):
    operator = OPERATORS[0]
    y, prior = problem(operator)
    y[1, 2] = math.inf
    with pytest.raises(Diverged) as caught:
        PredictorDA(0.5, optimiser, iterations=5)(y, operator, prior, RNG)
    assert (caught.value.cases, caught.value.step) == ([1], 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 0.0),
        ("alpha", math.inf),
        ("optimiser", "adam"),
        ("learning_rate", -1e-4),
        ("iterations", 0),
        ("weight_decay", -0.1),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}: value .*, allowed: "):
        PredictorDA(**{"alpha": 1.0, name: value})
