"""The conditioned bridge and that with an ensemble against exact posteriors of Gaussian fields."""

import math

import pytest
import torch

from priorflow.operators.fields import Downsample, Points
from priorflow.operators.velocity import Velocities
from priorflow.priors.base import Known, StateSpace
from priorflow.priors.interpolant import StochasticInterpolant, last
from priorflow.rng import Streams
from priorflow.solvers.assimilation.conditioned_bridge import (
    ConditionedBridge,
    Gain,
    covariance,
)
from priorflow.solvers.assimilation.kalman_bridge import KalmanBridge
from priorflow.solvers.base import Diverged

SIZE, DECAY, CASES, MEMBERS = 4, 0.5, 3, 4000


def forecast_covariance():
    """Neighbours on the torus are alike: exp(-distance)."""
    axis = torch.arange(SIZE).float()
    places = torch.cartesian_prod(axis, axis)
    offset = (places[:, None] - places).abs()
    offset = torch.minimum(offset, SIZE - offset)
    return 0.2 * torch.exp(-offset.square().sum(-1).sqrt()) + 0.02 * torch.eye(SIZE**2)


class ExactField(StochasticInterpolant):
    """x1 = x0 / 2 + N(0, Q), Q diagonal in Fourier space: the endpoint law in closed form."""

    shape = (SIZE, SIZE)

    def __init__(self, flaw=0.0):
        self.spectrum = torch.fft.rfft2(forecast_covariance()[0].view(SIZE, SIZE)).real
        self.flaw = flaw

    def _filter(self, x, factor):
        return torch.fft.irfft2(factor * torch.fft.rfft2(x), s=self.shape)

    def _ratio(self, s):
        alpha, beta, sigma = self.coefficients(s)
        return alpha, beta, self.spectrum / (beta**2 * self.spectrum + max(s, 1e-12) * sigma**2)

    def endpoint(self, x, s, history):
        alpha, beta, ratio = self._ratio(s)
        x0 = last(history, self.shape)
        f = DECAY * x0
        return f + self._filter(x - alpha * x0 - beta * f, beta * ratio) + self.flaw

    def colour(self, z, s):
        sigma = self.coefficients(s)[2]
        variance = self._ratio(s)[2] * s * sigma**2 if s > 0 else self.spectrum
        return self._filter(z, variance.sqrt())

    def endpoint_std(self, s):
        raise NotImplementedError


def exact(operator, y, x0):
    """Mean (cases, n) and covariance (n, n) of p(x1 | x0, y), by dense algebra."""
    a, prior = operator(torch.eye(SIZE**2).view(-1, SIZE, SIZE)).flatten(1).T, forecast_covariance()
    gram = a @ prior @ a.T + operator.noise_std**2 * torch.eye(len(a))
    k = prior @ a.T @ torch.linalg.inv(gram)
    mean = DECAY * x0.flatten(1)
    return mean + (y.flatten(1) - mean @ a.T) @ k.T, prior - k @ a @ prior


def problem(operator, transition):
    rng = Streams(0, "conditioned bridge", cases=range(CASES))
    x0 = rng.normal(SIZE, SIZE)
    x1 = DECAY * x0 + transition.colour(rng.normal(SIZE, SIZE), 0.0)
    y = operator(x1)
    y = y + operator.noise_std * rng.normal(*y.shape[1:])
    return x0, y, StateSpace(Known(x0.unsqueeze(1)), transition), rng


OPERATORS = [Points(SIZE, count=5, noise_std=0.1), Downsample(SIZE, 2, noise_std=0.05)]


@pytest.mark.parametrize("operator", OPERATORS, ids=["points", "means"])
@pytest.mark.parametrize(
    ("solver", "sampled"),
    [
        (ConditionedBridge(1), 0),
        (ConditionedBridge(2), 0),
        (ConditionedBridge(6), 0),
        (KalmanBridge(steps=1, levels=0), 0),
        (KalmanBridge(steps=3, levels=0), 1),
        (KalmanBridge(steps=3, levels=0, share=1.0, reach=0.9), 1),
        (KalmanBridge(steps=2, levels=2, start=0.4), 1),
    ],
    ids=str,
)
def test_samples_have_the_exact_posterior(operator, solver, sampled):
    """At any number of levels: where nothing is observed, too. A gain may be `sampled` itself."""
    x0, y, prior, rng = problem(operator, ExactField())
    samples = solver(y.unsqueeze(1), operator, prior, rng, MEMBERS).samples
    assert samples.shape == (CASES, MEMBERS, 1, SIZE, SIZE)
    mean, posterior = exact(operator, y, x0)
    draws = samples.flatten(2)
    error = (draws.mean(1) - mean) / (posterior.diagonal() / MEMBERS).sqrt()
    assert error.abs().max() < 4.5 * (1 + sampled)
    allowed = 6 * posterior.diagonal().max() / math.sqrt(MEMBERS)
    for case in draws:
        assert (torch.cov(case.T) - posterior).abs().max() < allowed


@pytest.mark.parametrize("solver", [ConditionedBridge(2), KalmanBridge(steps=1, levels=1)], ids=str)
def test_every_case_may_have_an_operator_of_its_own(solver):
    places = 2 * math.pi * torch.rand(CASES, 3, 2, generator=torch.Generator().manual_seed(0))
    x0, y, prior, rng = problem(Velocities(places, SIZE, 0.1), ExactField())
    operator = Velocities(places, SIZE, 0.1)
    samples = solver(y.unsqueeze(1), operator, prior, rng, MEMBERS).samples
    for i, draws in enumerate(samples.flatten(2)):
        one = slice(i, i + 1)
        mean, posterior = exact(Velocities(places[i], SIZE, 0.1), y[one], x0[one])
        error = (draws.mean(0) - mean[0]) / (posterior.diagonal() / MEMBERS).sqrt()
        assert error.abs().max() < 9
        allowed = 6 * posterior.diagonal().max() / math.sqrt(MEMBERS)
        assert (torch.cov(draws.T) - posterior).abs().max() < allowed


def test_the_gain_is_that_of_dense_algebra():
    operator, transition, s = OPERATORS[1], ExactField(), 0.3
    _, beta, sigma = transition.coefficients(s)
    prior = torch.linalg.inv(
        torch.linalg.inv(forecast_covariance()) + beta**2 / (s * sigma**2) * torch.eye(SIZE**2)
    )
    a = operator(torch.eye(SIZE**2).view(-1, SIZE, SIZE)).flatten(1).T
    gram = a @ prior @ a.T + operator.noise_std**2 * torch.eye(len(a))
    expected = torch.linalg.inv(gram) @ a @ prior
    found = Gain.of(operator, covariance(transition, operator, torch.zeros(2, 2), s))
    torch.testing.assert_close(found(torch.eye(4)[None])[0], expected, atol=1e-5, rtol=1e-4)


class Flawed(ExactField):
    """Its endpoint is right from s = 0.5 on, and biased before."""

    def endpoint(self, x, s, history):
        return super().endpoint(x, s, history) + (0.3 if s < 0.5 else 0.0)


def test_purification_mends_a_biased_forecast():
    """Between observed points; a late level keeps most of the update, an early one less."""
    operator = OPERATORS[0]
    x0, y, prior, rng = problem(operator, Flawed())
    mean, _ = exact(operator, y, x0)

    def bias(levels, start):
        solver = KalmanBridge(steps=2, reach=0.4, levels=levels, start=start)
        samples = solver(y.unsqueeze(1), operator, prior, rng, members=1000).samples
        return float((samples.flatten(2).mean(1) - mean).square().mean().sqrt())

    plain, late, early = bias(0, 0.0), bias(1, 0.9), bias(1, 0.5)
    assert plain > 0.1
    assert early < 0.5 * plain < late < plain


def test_calls_that_members_share_and_those_that_the_end_does_not_need():
    """One call for all members where their past is one; at the end only reported ones purify."""
    operator = OPERATORS[0]
    _, y, prior, rng = problem(operator, ExactField())
    calls = []
    endpoint = prior.transition.endpoint
    prior.transition.endpoint = lambda x, s, h: calls.append((s, x.shape[1])) or endpoint(x, s, h)
    solver = KalmanBridge(steps=2, reach=0.5, ensemble=12, levels=2, start=0.5)
    posterior = solver(torch.stack((y, y), 1), operator, prior, rng, members=4)
    assert posterior.samples.shape == (CASES, 4, 2, SIZE, SIZE)
    begin = [(0.0, 1), (0.5, 12), (0.5, 12), (0.75, 12)]
    assert calls == [*begin, (0.0, 12), (0.5, 12), (0.5, 4), (0.75, 4)]


def test_a_filter_goes_on_from_its_own_states():
    """Two observed states: the second is drawn from where the first went."""
    operator = OPERATORS[0]
    _, y, prior, rng = problem(operator, ExactField())
    both = torch.stack((y, -y), 1)
    samples = ConditionedBridge(2)(both, operator, prior, rng, members=2000).samples
    mean, _ = exact(operator, -y, samples[:, :, 0].mean(1))
    assert (samples[:, :, 1].mean(1).flatten(1) - mean).abs().max() < 0.05


def test_divergence_names_the_case():
    operator = OPERATORS[0]
    _, y, prior, rng = problem(operator, ExactField())
    y[1] = torch.nan
    with pytest.raises(Diverged) as caught:
        ConditionedBridge(1)(y.unsqueeze(1), operator, prior, rng, members=2)
    assert caught.value.cases == [1]


@pytest.mark.parametrize(
    ("solver", "settings", "message"),
    [
        (ConditionedBridge, {"steps": 0}, "steps: value 0"),
        (ConditionedBridge, {"power": 0.0}, "power: value 0.0"),
        (KalmanBridge, {"steps": 0}, "steps: value 0"),
        (KalmanBridge, {"ensemble": 1}, "ensemble: value 1"),
        (KalmanBridge, {"share": 1.5}, "share: value 1.5"),
        (KalmanBridge, {"reach": 1.0}, "reach: value 1.0"),
        (KalmanBridge, {"start": 1.0}, "start: value 1.0"),
        (KalmanBridge, {"levels": -1}, "levels: value -1"),
    ],
)
def test_bad_settings_are_refused(solver, settings, message):
    with pytest.raises(ValueError, match=message):
        solver(**settings)
