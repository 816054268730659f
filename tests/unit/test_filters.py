"""The classical filters against exact posteriors."""

import math
from dataclasses import dataclass

import pytest
import torch

from priorflow.operators.pointwise import Arctan, Components, Cube
from priorflow.priors.base import Climate, Known, StateSpace
from priorflow.priors.simulator import Simulator
from priorflow.rng import Streams
from priorflow.solvers.assimilation.bpf import BootstrapParticleFilter
from priorflow.solvers.assimilation.enkf import EnsembleKalmanFilter, gaspari_cohn
from priorflow.solvers.assimilation.ensf import EnsembleScoreFilter
from priorflow.solvers.assimilation.kalman import KalmanFilter
from priorflow.solvers.assimilation.resampling import (
    effective_sample_size,
    multinomial,
    systematic,
)
from priorflow.solvers.base import Diverged
from priorflow.systems.base import GaussianSystem
from priorflow.systems.damped_spring import DampedSpring
from priorflow.systems.double_well import DoubleWell
from priorflow.systems.lorenz63 import Lorenz63

SPRING = DampedSpring()
PRIOR = StateSpace(Climate(SPRING.initial), Simulator(SPRING))
POSITION = Components(size=4, stride=4, noise_std=0.1)
SOLVERS = [
    BootstrapParticleFilter(particles=256),
    BootstrapParticleFilter(particles=256, resampling="multinomial"),
    EnsembleKalmanFilter(ensemble=8),
    EnsembleKalmanFilter(ensemble=8, variant="square_root"),
    EnsembleScoreFilter(ensemble=8, steps=200),
    EnsembleScoreFilter(ensemble=8, steps=200, score="member"),
    KalmanFilter(),
    KalmanFilter(smooth=True),
]


def observe(system, operator, cases, time):
    """Observations of one trajectory per case, and its initial states."""
    rng = Streams(0, "truth", cases=range(cases))
    start = x = system.initial(1, rng)
    states = []
    for _ in range(time):
        x = system.step(x, rng)
        states.append(x)
    clean = operator(torch.cat(states, 1))
    return clean + operator.noise_std * rng.normal(*clean.shape[1:]), start


def streams(*names, cases):
    return Streams(1, *names, cases=range(cases))


# Resampling


@pytest.mark.parametrize("scheme", [systematic, multinomial])
def test_resampling_is_unbiased(scheme):
    weights = torch.tensor([0.0, 0.35, 0.05, 0.0, 0.6, 0.0])
    cases, n = 4000, 5
    log_weights = (weights.log() - 7).expand(cases, -1)
    index = scheme(log_weights, n, streams("resampling", cases=cases))
    assert index.shape == (cases, n)
    counts = torch.nn.functional.one_hot(index, 6).sum(1).float()
    error = (counts.mean(0) - n * weights) / (counts.std(0) / cases**0.5).clamp(min=1e-6)
    assert error.abs().max() < 4
    if scheme is systematic:
        assert ((counts - n * weights).abs() < 1 + 1e-5).all()
    else:
        torch.testing.assert_close(counts.var(0), n * weights * (1 - weights), rtol=0.1, atol=0)


def test_systematic_draw_of_equal_weights_takes_everyone():
    index = systematic(torch.zeros(3, 16384), 16384, streams("all", cases=3))
    assert (index == torch.arange(16384)).all()


def test_effective_sample_size():
    log_weights = torch.tensor([[0.0] * 8, [0.0] + [-math.inf] * 7, [0.0, 0.0] + [-math.inf] * 6])
    expected = torch.tensor([8.0, 1.0, 2.0])
    torch.testing.assert_close(effective_sample_size(log_weights), expected)
    torch.testing.assert_close(effective_sample_size(log_weights - 1000), expected)


# Kalman filter and smoother


def joint_gaussian(time, initial_covariance):
    """Mean, given the mean of x_0, and covariance of (x_0, …, x_K), as one Gaussian."""
    f, q = SPRING.matrix.double(), SPRING.noise_std.double().square().diag()
    d = len(f)
    powers = [torch.linalg.matrix_power(f, k) for k in range(time + 1)]
    marginal = [initial_covariance]
    for _ in range(time):
        marginal.append(f @ marginal[-1] @ f.T + q)
    covariance = torch.zeros((time + 1) * d, (time + 1) * d, dtype=torch.float64)
    for j in range(time + 1):
        for k in range(j, time + 1):
            block = powers[k - j] @ marginal[j]
            covariance[k * d : (k + 1) * d, j * d : (j + 1) * d] = block
            covariance[j * d : (j + 1) * d, k * d : (k + 1) * d] = block.T
    return torch.cat(powers), covariance


def condition(mean, covariance, y, seen):
    """(x_0, …, x_K) given the first `seen` observations of the position."""
    rows = 4 * torch.arange(1, seen + 1)
    gain = torch.linalg.solve(
        covariance[rows][:, rows] + 0.1**2 * torch.eye(seen).double(), covariance[rows]
    ).T
    return mean + (y[:, :seen, 0] - mean[:, rows]) @ gain.T, covariance - gain @ covariance[rows]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_kalman_is_joint_conditioning(known, smooth):
    cases, time = 3, 7
    y, start = observe(SPRING, POSITION, cases, time)
    y = y.double()
    prior = StateSpace(Known(start), PRIOR.transition) if known else PRIOR
    posterior = KalmanFilter(smooth)(y, POSITION, prior, streams("kf", cases=cases), members=20000)

    initial = start[:, 0].double() if known else SPRING.initial_mean.double().expand(cases, -1)
    initial_covariance = torch.zeros(4, 4) if known else SPRING.initial_covariance
    transfer, covariance = joint_gaussian(time, initial_covariance.double())
    samples = posterior.samples
    for k in range(time):
        m, c = condition(initial @ transfer.T, covariance, y, time if smooth else k + 1)
        now, before = slice(4 * k + 4, 4 * k + 8), slice(4 * k, 4 * k + 4)
        exact = {"rtol": 1e-8, "atol": 1e-9}
        torch.testing.assert_close(posterior.diagnostics["mean"][:, k], m[:, now], **exact)
        torch.testing.assert_close(
            posterior.diagnostics["covariance"][:, k], c[now, now].expand(cases, -1, -1), **exact
        )
        # Samples, jointly with their past: 20000 draws, so 5 standard errors are below 0.05.
        if smooth and k == 0:
            continue
        past = samples[:, :, k - 1] if smooth else posterior.previous[:, :, k]
        pair = torch.cat((past, samples[:, :, k]), -1)
        both = slice(before.start, now.stop)
        std = c[both, both].diagonal().clamp(min=1e-12).sqrt()
        error = (pair.mean(1) - m[:, both]) / std
        assert error.abs().max() < 0.05
        centred = (pair - m[:, None, both]) / std
        correlation = centred.mT @ centred / 20000 - c[both, both] / std / std[:, None]
        assert correlation.abs().max() < 0.05


def test_kalman_refuses_other_models():
    y = torch.zeros(1, 2, 1)
    lorenz = Lorenz63()
    prior = StateSpace(Climate(lorenz.initial), Simulator(lorenz))
    with pytest.raises(ValueError, match=r"transition: no matrix.*linear-Gaussian"):
        KalmanFilter()(y, Components(size=3, stride=3), prior, streams(cases=1))
    with pytest.raises(ValueError, match="operator: no matrix"):
        KalmanFilter()(y, Arctan(), PRIOR, streams(cases=1))


# Ensemble and particle filters against the Kalman filter


@pytest.mark.parametrize(
    ("solver", "members"),
    [
        (BootstrapParticleFilter(), 16384),
        (BootstrapParticleFilter(resampling="multinomial"), 16384),
        (EnsembleKalmanFilter(), 4096),
        (EnsembleKalmanFilter(variant="square_root"), 512),
    ],
)
def test_filters_tend_to_kalman(solver, members):
    cases, time = 8, 10
    y, _ = observe(SPRING, POSITION, cases, time)
    exact = KalmanFilter()(y, POSITION, PRIOR, streams(cases=cases)).diagnostics
    variance = exact["covariance"].diagonal(dim1=-2, dim2=-1)
    posterior = solver(y, POSITION, PRIOR, streams(cases=cases), members=members)
    samples = posterior.samples.double()

    # What the weights leave is what counts: the smallest effective size over time.
    size = posterior.diagnostics["ess"].min(1).values.mean() if posterior.diagnostics else members
    error = (samples.mean(1) - exact["mean"]) / variance.sqrt()
    assert error.square().mean().sqrt() < 3 / size**0.5
    # No bias: the mean over independent cases, by component.
    case_error = error.mean(1)
    assert (case_error.mean(0).abs() < 3 * case_error.std(0) / cases**0.5).all()
    ratio = (samples.var(1) / variance).mean((0, 1))
    torch.testing.assert_close(ratio, torch.ones(4).double(), rtol=0.05, atol=0)


def test_particle_filter_pairs_states_with_their_past():
    cases, time = 4, 5
    y, _ = observe(SPRING, POSITION, cases, time)
    exact = KalmanFilter()(y, POSITION, PRIOR, streams("exact", cases=cases), members=4096)
    posterior = BootstrapParticleFilter(65536)(
        y, POSITION, PRIOR, streams("bpf", cases=cases), members=4096
    )
    difference = posterior.previous.mean(1) - exact.previous.mean(1)
    assert (difference / exact.previous.std(1)).abs().max() < 0.15
    for k in range(time):
        # The residual of the transition has the law of its noise, but for what y says of it.
        residual = posterior.samples[:, :, k] - SPRING.advance(posterior.previous[:, :, k])
        assert ((residual.std(1) / SPRING.noise_std).log().abs() < 0.2).all()


def test_particle_filter_of_a_nonlinear_system_fills_both_wells():
    """From rest at the top of the barrier, an observation of x² cannot tell the wells apart."""

    @dataclass(frozen=True)
    class Square:
        noise_std: float = 0.2

        def __call__(self, x):
            return x**2

    system = DoubleWell(noise=1.0)
    prior = StateSpace(Known(torch.zeros(2, 1, 1)), Simulator(system))
    y = torch.ones(2, 30, 1)
    posterior = BootstrapParticleFilter(4096)(y, Square(), prior, streams(cases=2), members=1024)
    last = posterior.samples[:, :, -1, 0]
    torch.testing.assert_close((last > 0).float().mean(1), torch.full((2,), 0.5), atol=0.1, rtol=0)
    torch.testing.assert_close(last.abs().mean(1), torch.ones(2), atol=0.1, rtol=0)


# The algebra of the ensemble Kalman filter


@dataclass(frozen=True)
class Frozen:
    """States that stay as they are."""

    shape: tuple[int, ...]
    context: int = 1

    def sample(self, history, rng):
        return history[:, :, -1]


@dataclass(frozen=True)
class Given:
    """An initial ensemble (cases, members, 1, *shape)."""

    ensemble: torch.Tensor

    def __call__(self, members, rng):
        return self.ensemble[:, :members]


@pytest.mark.parametrize(("size", "inflation"), [(5, 1.0), (40, 1.0), (5, 1.3)])
def test_square_root_is_the_kalman_update_of_the_ensemble(size, inflation):
    """For 12 observed of 12 components, on either side of the algebra, over three updates."""
    cases, d = 2, 12
    rng = streams("square root", cases=cases)
    ensemble = rng.normal(size, 1, d).double()
    y = rng.normal(3, d).double()
    operator = Components(size=d, noise_std=0.5)
    prior = StateSpace(Given(ensemble), Frozen((d,)))
    solver = EnsembleKalmanFilter(variant="square_root", inflation=inflation)
    samples = solver(y, operator, prior, rng, members=size).samples

    mean = ensemble[:, :, 0].mean(1)
    covariance = torch.stack([torch.cov(e.T) for e in ensemble[:, :, 0]])
    for k in range(3):
        covariance = inflation**2 * covariance
        gain = covariance @ torch.linalg.inv(covariance + 0.25 * torch.eye(d).double())
        mean = mean + (gain @ (y[:, k] - mean).unsqueeze(-1)).squeeze(-1)
        covariance = covariance - gain @ covariance
        torch.testing.assert_close(samples[:, :, k].mean(1), mean)
        found = torch.stack([torch.cov(s.T) for s in samples[:, :, k]])
        torch.testing.assert_close(found, covariance)


def test_square_root_reports_the_origin_of_its_forecasts():
    """A state that does not move and is hardly observed stays with its rotated origin."""
    rng = streams("origin", cases=2)
    prior = StateSpace(Given(rng.normal(6, 1, 3)), Frozen((3,)))
    solver = EnsembleKalmanFilter(variant="square_root")
    operator = Components(size=3, noise_std=1e4)
    posterior = solver(torch.zeros(2, 3, 3), operator, prior, rng, members=6)
    torch.testing.assert_close(posterior.samples, posterior.previous, atol=1e-5, rtol=0)
    moved = posterior.samples[:, :, 1] - posterior.samples[:, :, 0]
    assert moved.abs().mean() > 0.1
    torch.testing.assert_close(moved.mean(1), torch.zeros(2, 3), atol=1e-5, rtol=0)


class Ring(GaussianSystem):
    """Damped transport around a ring of `n` cells."""

    mean, std, dt = torch.zeros(1), torch.ones(1), 1.0

    def __init__(self, n=40):
        self.shape, self.period = (n,), float(n)
        self.positions = torch.arange(n).float().unsqueeze(1)
        self.noise_std = torch.full((n,), 0.3)
        self.matrix = 0.6 * torch.eye(n).roll(1, 0) + 0.35 * torch.eye(n)
        self.initial_mean, self.initial_covariance = torch.zeros(n), torch.eye(n)

    def initial(self, members, rng):
        return rng.normal(members, *self.shape)

    def advance(self, x):
        return x @ self.matrix.to(x).T


class RingComponents(Components):
    @property
    def positions(self):
        return torch.arange(self.start, self.size, self.stride).float().unsqueeze(1)


def test_localisation_helps_a_small_ensemble_and_vanishes_at_large_radius():
    system, cases = Ring(), 8
    operator = RingComponents(size=40, stride=2, noise_std=0.2)
    y, _ = observe(system, operator, cases, 12)
    prior = StateSpace(Climate(system.initial), Simulator(system), system.positions, system.period)
    mean = KalmanFilter()(y, operator, prior, streams(cases=cases)).diagnostics["mean"]

    def run(radius):
        solver = EnsembleKalmanFilter(localisation=radius)
        return solver(y, operator, prior, streams("ring", cases=cases), members=12).samples

    def error(samples):
        return (samples.mean(1) - mean).square().mean((1, 2)).sqrt()

    plain, local = run(None), run(8.0)
    assert (error(local) < 0.7 * error(plain)).all()
    # 20 observations, 12 members: the localised algebra is on the side of the observations, the
    # other on the side of the ensemble.
    torch.testing.assert_close(run(1e7), plain, rtol=1e-3, atol=1e-3)


def test_localisation_is_periodic():
    """An observation at cell 0 moves the last cell, and not those beyond the radius."""
    system = Ring()
    operator = RingComponents(size=40, stride=40, noise_std=0.1)
    rng = streams("periodic", cases=1)
    shared = rng.normal(64, 1, 1)
    ensemble = shared + 0.01 * rng.normal(64, 1, 40)
    y = torch.full((1, 1, 1), 3.0)
    for period, moved in ((40.0, True), (None, False)):
        prior = StateSpace(Given(ensemble), Frozen((40,)), system.positions, period)
        solver = EnsembleKalmanFilter(localisation=5.0)
        x = solver(y, operator, prior, rng, members=64).samples[:, :, 0].mean((0, 1))
        change = x - ensemble.mean((0, 1, 2))
        assert change[0] > 2
        assert (change[39] > 1) == moved
        assert (change[5:36] == 0).all()


def test_localisation_needs_positions():
    solver = EnsembleKalmanFilter(localisation=1.0)
    with pytest.raises(ValueError, match=r"localisation: .* operator has no positions"):
        solver(torch.zeros(1, 1, 1), POSITION, PRIOR, streams(cases=1), members=4)
    operator = RingComponents(size=4, stride=4)
    with pytest.raises(ValueError, match=r"localisation: .* prior has no positions"):
        solver(torch.zeros(1, 1, 1), operator, PRIOR, streams(cases=1), members=4)


def test_gaspari_cohn():
    distance = torch.linspace(0, 3, 301).double()
    value = gaspari_cohn(distance, 2.0)
    assert value[0] == 1
    assert (value[200:] == 0).all()
    assert (value[:199].diff() < 0).all()
    torch.testing.assert_close(value[100].item(), 5 / 24)
    spectrum = torch.linalg.eigvalsh(gaspari_cohn((distance[:, None] - distance).abs(), 2.0))
    assert spectrum.min() > -1e-10


def test_ensemble_filters_take_fields_and_nonlinear_operators():
    @dataclass(frozen=True)
    class Patch:
        noise_std: float = 0.2

        def __call__(self, x):
            return x[..., 0, ::2, :].atan()

    rng = streams("fields", cases=2)
    prior = StateSpace(Given(rng.normal(6, 1, 2, 4, 4)), Frozen((2, 4, 4)))
    y = rng.normal(1, 2, 4).expand(2, 3, 2, 4)
    for solver in (
        EnsembleKalmanFilter(),
        EnsembleKalmanFilter(variant="square_root"),
        BootstrapParticleFilter(particles=6),
        EnsembleScoreFilter(),
    ):
        before = (Patch()(prior.initial(6, rng)[:, :, 0]) - y[:, :1]).square().mean()
        samples = solver(y, Patch(), prior, rng, members=6).samples
        assert samples.shape == (2, 6, 3, 2, 4, 4)
        assert (Patch()(samples[:, :, -1]) - y[:, :1]).square().mean() < before


# Ensemble score filter


def score_filter_limit(mean, std, y, noise_std, score, steps=500, eps=1e-3):
    """Mean and variance that the Euler steps lead to for a forecast N(mean, std²) in one dimension.

    Every step is affine, Z = a x_0 + b + N(0, v) with x_0 the sample's own member.
    """
    a, b, v, dt = 0.0, 0.0, 1.0, 1 / steps
    for i in range(steps):
        t = 1 - i * dt
        alpha, variance = 1 - (1 - eps) * t, eps + (1 - eps) * t
        f = -(1 - eps) / alpha
        g2 = 1 - eps - 2 * f * variance
        own = score == "member"
        pull = 1 / (variance if own else alpha**2 * std**2 + variance)
        keep = 1 - dt * (f + g2 * (pull + (1 - t) / noise_std**2))
        a = keep * a + dt * g2 * pull * alpha * own
        b = keep * b + dt * g2 * (pull * alpha * mean * (not own) + (1 - t) * y / noise_std**2)
        v = keep**2 * v + dt * g2
    return a * mean + b, a**2 * std**2 + v


@pytest.mark.parametrize("score", ["ensemble", "member"])
def test_score_filter_reaches_its_own_limit(score):
    cases, size = 16, 256
    rng = streams("ensf", cases=cases)
    ensemble = 0.5 + rng.normal(size, 1, 1)
    prior = StateSpace(Given(ensemble), Frozen((1,)))
    y = torch.full((cases, 1, 1), 2.6)
    operator = Components(size=1, noise_std=1.0)
    x = EnsembleScoreFilter(score=score)(y, operator, prior, rng, members=size).samples
    mean, variance = score_filter_limit(0.5, 1.0, 2.6, 1.0, score)
    # Standard error of the mean: about 1/√(16 · 256) = 0.016; the kernels widen 256 members by 2 %.
    assert abs(x.mean().item() - mean) < 0.05
    assert x.var(1).mean().item() == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize(
    ("std", "noise_std", "score", "of_forecast", "of_observation", "spread"),
    [
        (1.0, 1.0, "ensemble", 0.64, 0.53, 0.94),
        (1.0, 0.25, "ensemble", 0.07, 0.99, 0.75),
        (0.05, 0.25, "ensemble", 0.85, 0.15, 1.26),
        (1.0, 0.25, "member", 0.93, 0.07, 3.83),
    ],
)
def test_score_filter_is_as_approximate_as_stated(
    std, noise_std, score, of_forecast, of_observation, spread
):
    """The weights of the forecast mean and of y that the module's documentation gives."""
    exact = 1 / (1 / std**2 + 1 / noise_std**2)
    forecast, variance = score_filter_limit(1.0, std, 0.0, noise_std, score)
    observation, _ = score_filter_limit(0.0, std, 1.0, noise_std, score)
    assert forecast == pytest.approx(of_forecast, abs=0.006)
    assert observation == pytest.approx(of_observation, abs=0.006)
    assert (variance / exact) ** 0.5 == pytest.approx(spread, abs=0.006)


def test_score_filter_tracks_the_spring():
    """Within half a posterior standard deviation of Kalman, and 0.8 to 1.6 times its spread."""
    cases, time = 4, 5
    y, _ = observe(SPRING, POSITION, cases, time)
    exact = KalmanFilter()(y, POSITION, PRIOR, streams(cases=cases)).diagnostics
    std = exact["covariance"].diagonal(dim1=-2, dim2=-1).sqrt()
    x = EnsembleScoreFilter()(y, POSITION, PRIOR, streams(cases=cases), members=256).samples
    assert ((x.mean(1) - exact["mean"]) / std).square().mean().sqrt() < 0.5
    ratio = (x.std(1) / std).mean((0, 1))
    assert (ratio > 0.8).all()
    assert (ratio < 1.6).all()


# What all of them promise


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_cases_do_not_depend_on_their_batch(solver):
    y, _ = observe(SPRING, POSITION, 3, 3)
    whole = solver(y, POSITION, PRIOR, Streams(5, "batch", cases=[4, 7, 9]), members=5)
    for i, case in enumerate([4, 7, 9]):
        alone = solver(y[i : i + 1], POSITION, PRIOR, Streams(5, "batch", cases=[case]), members=5)
        torch.testing.assert_close(alone.samples[0], whole.samples[i], rtol=1e-4, atol=1e-4)
        if whole.previous is not None:
            torch.testing.assert_close(alone.previous[0], whole.previous[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_precision(solver, dtype):
    y, start = observe(SPRING, POSITION, 2, 3)
    prior = StateSpace(Known(start.to(dtype)), PRIOR.transition)
    posterior = solver(y.to(dtype), POSITION, prior, streams(cases=2), members=5)
    assert posterior.samples.shape == (2, 5, 3, 4)
    assert posterior.samples.dtype == dtype
    if posterior.previous is not None:
        assert posterior.previous.shape == (2, 5, 3, 4)
        if not isinstance(solver, KalmanFilter):
            assert (posterior.previous[:, :, 0] == start.to(dtype)).all()
    for value in posterior.diagnostics.values():
        assert value.shape[:2] == (2, 3)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_divergence_names_case_and_step(solver):
    y, _ = observe(SPRING, POSITION, 3, 3)
    y[1, 2] = math.nan
    with pytest.raises(Diverged) as caught:
        solver(y, POSITION, PRIOR, streams(cases=3), members=4)
    assert caught.value.cases == [1]
    assert isinstance(solver, KalmanFilter) or caught.value.step == 2


@pytest.mark.parametrize("solver", SOLVERS[:6], ids=repr)
def test_divergence_of_the_forecast(solver):
    prior = StateSpace(Known(torch.tensor([[[1.0]], [[1e30]]])), Simulator(DoubleWell()))
    with pytest.raises(Diverged) as caught:
        solver(torch.zeros(2, 2, 1), Cube(), prior, streams(cases=2), members=4)
    assert (caught.value.cases, caught.value.step) == ([1], 0)


@pytest.mark.parametrize(
    ("method", "fields", "named"),
    [
        (BootstrapParticleFilter, {"particles": 0}, "particles"),
        (BootstrapParticleFilter, {"resampling": "residual"}, "resampling"),
        (EnsembleKalmanFilter, {"ensemble": 1}, "ensemble"),
        (EnsembleKalmanFilter, {"variant": "serial"}, "variant"),
        (EnsembleKalmanFilter, {"inflation": 0.0}, "inflation"),
        (EnsembleKalmanFilter, {"localisation": -1.0}, "localisation"),
        (EnsembleKalmanFilter, {"localisation": 1.0, "variant": "square_root"}, "localisation"),
        (EnsembleScoreFilter, {"ensemble": 1}, "ensemble"),
        (EnsembleScoreFilter, {"steps": 0}, "steps"),
        (EnsembleScoreFilter, {"eps_alpha": 1.0}, "eps_alpha"),
        (EnsembleScoreFilter, {"eps_beta": 0.0}, "eps_beta"),
        (EnsembleScoreFilter, {"inflation": math.nan}, "inflation"),
        (EnsembleScoreFilter, {"score": "network"}, "score"),
    ],
)
def test_bad_settings_are_refused(method, fields, named):
    with pytest.raises(ValueError, match=f"^{named}: value .*, allowed: "):
        method(**fields)


@pytest.mark.parametrize("method", [EnsembleKalmanFilter, EnsembleScoreFilter])
def test_ensembles_smaller_than_the_members_are_refused(method):
    y = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match="ensemble: value 4, allowed: at least 6"):
        method(ensemble=4)(y, POSITION, PRIOR, streams(cases=1), members=6)
    with pytest.raises(ValueError, match="ensemble: value 1, allowed: at least 2"):
        method()(y, POSITION, PRIOR, streams(cases=1), members=1)
