"""The ensemble bridge against the exact posterior of a field with white noise."""

import pytest
import torch

from priorflow.operators.fields import Downsample, Points
from priorflow.priors.base import Known, StateSpace
from priorflow.priors.interpolant import ExactInterpolant
from priorflow.rng import Streams
from priorflow.solvers.assimilation.kalman_bridge import KalmanBridge
from priorflow.systems.base import GaussianSystem

SIZE, DECAY, NOISE = 4, 0.5, 0.4


class Field(GaussianSystem):
    """x_{k+1} = x_k / 2 + q z on a small grid."""

    mean, std, dt, shape = torch.zeros(()), torch.ones(()), 1.0, (SIZE, SIZE)
    noise_std = torch.full((SIZE, SIZE), NOISE)

    def initial(self, members, rng):
        return rng.normal(members, *self.shape)

    def advance(self, x):
        return DECAY * x


class Flawed(ExactInterpolant):
    """An interpolant whose endpoint is right, and whose forecast is biased."""

    def sample(self, history, rng, steps=5):
        return super().sample(history, rng, steps) + 0.3


def exact(operator, y, x0):
    """Mean (cases, n) and covariance (n, n) of p(x1 | x0, y)."""
    a = operator(torch.eye(SIZE**2).view(-1, SIZE, SIZE)).flatten(1).T
    prior = NOISE**2 * torch.eye(SIZE**2)
    gain = (
        prior @ a.T @ torch.linalg.inv(a @ prior @ a.T + operator.noise_std**2 * torch.eye(len(a)))
    )
    mean = DECAY * x0.flatten(1)
    return mean + (y.flatten(1) - mean @ a.T) @ gain.T, prior - gain @ a @ prior


def problem(operator, transition, cases=3):
    rng = Streams(0, "kalman bridge", cases=range(cases))
    x0 = rng.normal(SIZE, SIZE)
    y = operator(DECAY * x0 + NOISE * rng.normal(SIZE, SIZE))
    y = y + operator.noise_std * rng.normal(*y.shape[1:])
    return x0, y, StateSpace(Known(x0.unsqueeze(1)), transition), rng


OPERATORS = [Points(SIZE, count=6, noise_std=0.2), Downsample(SIZE, 2, noise_std=0.1)]
MEMBERS = 4000


@pytest.mark.parametrize("operator", OPERATORS, ids=["points", "means"])
@pytest.mark.parametrize(
    "settings",
    [{"levels": 0}, {"levels": 3, "start": 0.4}, {"levels": 1, "start": 0.0}],
    ids=["update", "purified", "from nothing"],
)
def test_samples_have_the_exact_posterior(operator, settings):
    """Mean and covariance within what 4000 members allow, whose gain is an estimate itself."""
    x0, y, prior, rng = problem(operator, ExactInterpolant(Field()))
    solver = KalmanBridge(steps=1, ensemble=MEMBERS, **settings)
    samples = solver(y.unsqueeze(1), operator, prior, rng, members=MEMBERS).samples
    assert samples.shape == (3, MEMBERS, 1, SIZE, SIZE)
    mean, covariance = exact(operator, y, x0)
    draws = samples.flatten(2)
    assert (draws.mean(1) - mean).abs().max() < 8 * NOISE / MEMBERS**0.5
    for case in draws:
        assert (torch.cov(case.T) - covariance).abs().max() < 6 * NOISE**2 / MEMBERS**0.5


def test_purification_mends_a_biased_forecast():
    """Its first level at s = 0 forgets the update; a late one keeps most of it."""
    operator = Points(SIZE, count=6, noise_std=0.2)
    x0, y, prior, rng = problem(operator, Flawed(Field()))
    mean, _ = exact(operator, y, x0)

    def bias(**settings):
        solver = KalmanBridge(steps=1, ensemble=1000, **settings)
        samples = solver(y.unsqueeze(1), operator, prior, rng, members=1000).samples
        return float((samples.flatten(2).mean(1) - mean).square().mean().sqrt())

    plain, late, early = bias(levels=0), bias(levels=2, start=0.9), bias(levels=2, start=0.0)
    assert plain > 0.15
    assert late < 0.95 * plain
    assert early < 0.2 * plain


def test_only_the_reported_members_are_purified_at_the_end():
    operator = OPERATORS[0]
    _, y, prior, rng = problem(operator, ExactInterpolant(Field()))
    calls = []
    endpoint = prior.transition.endpoint
    prior.transition.endpoint = lambda x, s, h: calls.append((s, x.shape[1])) or endpoint(x, s, h)
    solver = KalmanBridge(steps=2, ensemble=12, levels=2, start=0.5)
    posterior = solver(torch.stack((y, y), 1), operator, prior, rng, members=4)
    assert posterior.samples.shape == (3, 4, 2, SIZE, SIZE)
    first = [(0.0, 12), (0.5, 12)]
    assert calls == [*first, (0.5, 12), (0.75, 12), *first, (0.5, 4), (0.75, 4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: value 0"),
        ({"ensemble": 1}, "ensemble: value 1"),
        ({"inflation": 0.0}, "inflation: value 0.0"),
        ({"model_std": -1.0}, "model_std: value -1.0"),
        ({"localisation": 0.0}, "localisation: value 0.0"),
        ({"start": 1.0}, "start: value 1.0"),
        ({"levels": -1}, "levels: value -1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        KalmanBridge(**settings)
