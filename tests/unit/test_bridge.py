"""The bridge against exact filters, and the algebra of interpolants that it stands on."""

import math
from statistics import median

import pytest
import torch

from priorflow.operators.pointwise import Arctan, Components
from priorflow.priors.base import Climate, Known, StateSpace
from priorflow.priors.interpolant import ExactInterpolant, Interpolant, last
from priorflow.priors.networks.mlp import ResidualMLP
from priorflow.rng import Streams
from priorflow.solvers.assimilation.flowdas_bridge import FlowDASBridge
from priorflow.solvers.base import Diverged
from priorflow.systems.base import GaussianSystem, Standardised
from priorflow.systems.damped_spring import DampedSpring
from priorflow.systems.lorenz63 import Lorenz63


class Sine(GaussianSystem):
    """x_{k+1} = sin(2 x_k) + N(0, q²), from x_0 ~ N(0, 1)."""

    shape, dt = (1,), 1.0
    mean, std = torch.zeros(1), torch.ones(1)

    def __init__(self, variance=0.5):
        self.noise_std = torch.full((1,), variance**0.5)

    def advance(self, x):
        return (2 * x).sin()

    def initial(self, members, rng):
        return rng.normal(members, 1)


# ------------------------------------------------------------------------------ the interpolant


@pytest.mark.parametrize("s", [0.01, 0.3, 0.9])
def test_drift_and_endpoint_invert_each_other(s):
    transition = ExactInterpolant(Standardised(Lorenz63()))
    x, history = torch.randn(5, 3).double(), torch.randn(5, 1, 3).double()
    m, b = transition.endpoint(x, s, history), transition.drift(x, s, history)
    torch.testing.assert_close((x + (1 - s) * b) / (s * (2 - s)), m)


def test_drift_is_the_mean_velocity_of_the_interpolant():
    # E[(b_s - R_s) g(X_s)] = 0 for any g, with R_s = -x0 + 2 s x1 - W_s.
    transition, rng, s = ExactInterpolant(Sine()), Streams(0), 0.4
    x0 = torch.full((1, 400_000, 1), 0.3)
    x1 = transition.system.step(x0, rng)
    w = math.sqrt(s) * rng.normal(400_000, 1)
    x = (1 - s) * x0 + s**2 * x1 + (1 - s) * w
    error = transition.drift(x, s, x0.unsqueeze(2)) - (-x0 + 2 * s * x1 - w)
    for g in (torch.ones_like(x), x, x.sin()):
        moment = error * g
        assert moment.mean().abs() < 4 * moment.std() / math.sqrt(400_000)


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_bridge_sampling_is_exact_at_any_number_of_steps(steps):
    transition = ExactInterpolant(Sine())
    x0 = torch.full((1, 200_000, 1, 1), 0.4)
    x = transition.sample(x0, Streams(1), steps)
    assert x.mean() == pytest.approx(math.sin(0.8), rel=0.01)
    assert x.var() == pytest.approx(0.5, rel=0.01)


LEVELS = (0.3, 0.6, 0.9)


def endpoint_error(transition, system, history, x1):
    """Root-mean-square error of the endpoint mean in units of the exact endpoint std, per level."""
    exact, g = ExactInterpolant(system), torch.Generator().manual_seed(1)
    errors = []
    for s in LEVELS:
        z = torch.randn(x1.shape, generator=g)
        x = (1 - s) * history[:, 0] + s**2 * x1 + (1 - s) * math.sqrt(s) * z
        with torch.no_grad():
            error = transition.endpoint(x, s, history) - exact.endpoint(x, s, history)
        errors.append(error.square().mean().sqrt() / exact.endpoint_std(s))
    return torch.cat(errors)


@pytest.mark.parametrize("parametrisation", ["endpoint", "drift"])
def test_a_learned_interpolant_approaches_the_exact_endpoint(parametrisation):
    system, rng = Sine(0.1), torch.Generator().manual_seed(0)
    x0 = Streams(2).normal(20_000, 1)
    windows = torch.stack((x0, system.step(x0, Streams(3))), 2)[0]
    torch.manual_seed(0)
    transition = Interpolant(ResidualMLP((1,), 1, 32, 2), (1,), 1, parametrisation)
    transition.prepare(windows)
    optimizer = torch.optim.Adam(transition.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    history, x1 = windows[:2000, :1], windows[:2000, 1]
    losses, errors = [], [endpoint_error(transition, system, history, x1)]
    for _ in range(500):
        batch = windows[torch.randint(len(windows), (512,), generator=rng)]
        loss = transition.loss(batch, rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    errors.append(endpoint_error(transition, system, history, x1))
    assert median(losses[-50:]) < 0.5 * median(losses[:5])
    assert (errors[1] < 0.6).all()
    assert (errors[1] < 0.6 * errors[0]).all()
    transition.calibrate(windows, rng)
    for s in LEVELS:
        std = ExactInterpolant(system).endpoint_std(s)
        assert transition.endpoint_std(s) == pytest.approx(std.item(), rel=0.2)


class Silent(torch.nn.Module):
    """A network that has learned nothing: m = x0 + β c² / v r."""

    def forward(self, x, t, history):
        return torch.zeros_like(x)


def test_a_homogeneous_endpoint_has_the_covariance_of_the_field():
    """Increments that are waves along x, and little else: so are the draws of the endpoint."""
    shape, n, rng = (6, 8), 4000, torch.Generator().manual_seed(0)
    phase = torch.randn(2, n, 1, generator=rng)
    angle = 2 * math.pi * torch.arange(8) / 8
    waves = phase[0] * (2 * angle).cos() + phase[1] * (2 * angle).sin()
    increment = waves[:, None] + 0.1 * torch.randn(n, *shape, generator=rng)
    x0 = torch.randn(n, *shape, generator=rng)
    windows = torch.stack((x0, x0 + increment), 1)
    transition = Interpolant(Silent(), shape, homogeneous=True)
    transition.prepare(windows)
    assert transition.increment_std.item() == pytest.approx(1.01**0.5, rel=0.03)
    transition.calibrate(windows, rng)
    expected = torch.full((6, 5), 0.01)
    expected[0, 2] += 24  # half of the 48 points for either of the two modes ± 2
    assert transition.endpoint_stds[0].square() == pytest.approx(expected.numpy(), rel=0.2)
    assert transition.endpoint_std(0.0).item() == pytest.approx(1.01**0.5, rel=0.03)

    drawn = transition.sample(x0[None, :, None], Streams(1), steps=1)[0] - x0
    assert drawn.var() == pytest.approx(1.01, rel=0.05)
    correlation = (drawn * drawn.roll(1, 2)).mean(), (drawn * drawn.roll(1, 1)).mean()
    assert correlation[0] == pytest.approx(0.0, abs=0.05)  # cos(2 · 2π / 8)
    assert correlation[1] == pytest.approx(1.0, rel=0.05)


# ------------------------------------------------------------------------------------ the bridge


@pytest.mark.parametrize("resample", [True, False])
@pytest.mark.parametrize(("steps", "draws"), [(1, 128), (4, 128)])
def test_one_observation_with_many_draws(steps, draws, resample):
    prior = StateSpace(Known(torch.zeros(50, 1, 1)), ExactInterpolant(Sine()))
    solver = FlowDASBridge(steps, draws, resample=resample)
    y = torch.full((50, 1, 1), 0.8)
    x = solver(y, Components(1, 0.1**0.5), prior, Streams(0, cases=range(50)), 800).samples
    assert x.mean() == pytest.approx(2 / 3, rel=0.01)
    assert x.var() == pytest.approx(1 / 12, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_two_draws_are_enough_with_weights(steps, threshold):
    # The present endpoint among the candidates: exact for any J, once there are many particles.
    prior = StateSpace(Known(torch.zeros(1, 1, 1)), ExactInterpolant(Sine()))
    solver = FlowDASBridge(steps, draws=2, ess_threshold=threshold)
    y = torch.full((1, 1, 1), 0.8)
    x = solver(y, Components(1, 0.1**0.5), prior, Streams(0), 200_000).samples
    assert x.mean() == pytest.approx(2 / 3, rel=0.01)
    assert x.var() == pytest.approx(1 / 12, rel=0.01)


def spring(steps, observations, resample, seed, replicates=24, particles=4000):
    """Ensemble mean and variance of every replicate, for the same observations."""
    prior = StateSpace(Climate(DampedSpring().initial), ExactInterpolant(DampedSpring()))
    operator = Components(size=4, stride=4, noise_std=0.1)
    solver = FlowDASBridge(steps, draws=8, resample=resample)
    rng = Streams(seed, cases=range(replicates))
    y = observations.expand(replicates, -1, -1)
    x = solver(y, operator, prior, rng, particles).samples
    return x.mean(1), x.var(1)


def kalman(y, system, operator):
    """Means (time, d) and variances (time, d) of p(x_k | y_1, …, y_k)."""
    A, H, Q = system.matrix.double(), operator.matrix().double(), system.noise_std.double() ** 2
    mean, P = system.initial_mean.double(), system.initial_covariance.double()
    means, variances = [], []
    for y_k in y.double():
        mean, P = A @ mean, A @ P @ A.T + Q.diag()
        gain = P @ H.T @ torch.linalg.inv(H @ P @ H.T + operator.noise_std**2 * torch.eye(len(H)))
        mean, P = mean + gain @ (y_k - H @ mean), P - gain @ H @ P
        means.append(mean)
        variances.append(P.diagonal())
    return torch.stack(means).float(), torch.stack(variances).float()


@pytest.fixture(scope="module")
def springs():
    system, operator, rng = DampedSpring(), Components(4, 0.1, stride=4), Streams(7)
    x, y = system.initial(1, rng), []
    for _ in range(10):
        x = system.step(x, rng)
        y.append(operator(x[0]) + operator.noise_std * rng.normal(1)[0])
    y = torch.stack(y, 1)
    return y, *kalman(y[0], system, operator)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_bridge_is_the_kalman_filter(springs, steps):
    y, mean, variance = springs
    means, variances = spring(steps, y, True, seed=0)
    error = (means.mean(0) - mean) / (means.std(0) / math.sqrt(len(means)))
    assert error.square().mean().sqrt() < 1.5  # in standard errors
    assert error.abs().max() < 4.5
    torch.testing.assert_close(variances.mean(0), variance, rtol=0.05, atol=0)


def test_without_resampling_it_is_not(springs):
    y, mean, variance = springs
    means, variances = spring(1, y, False, seed=0)
    # The position forgets its mistakes; what is not observed never hears of y at all.
    assert (variances.mean(0)[:, 1] > 0.99 * variance[:, 1]).all()
    assert (variances.mean(0)[-1, 1] / variance[-1, 1]) > 1.2
    error = (means.mean(0) - mean) / (means.std(0) / math.sqrt(len(means)))
    assert error.abs().max() > 10


def lorenz(cases, seed=0):
    system, operator, rng = Standardised(Lorenz63()), Arctan(), Streams(seed, cases=cases)
    x = [system.initial(1, rng)]
    for _ in range(15):
        x.append(system.step(x[-1], rng))
    x = torch.cat(x, 1)
    y = operator(x[:, 1:]) + operator.noise_std * rng.normal(15, 1)
    return system, operator, x, y, StateSpace(Known(x[:, :1]), ExactInterpolant(system))


@pytest.mark.parametrize("steps", [1, 5])
def test_transitions_are_as_likely_as_true_ones(steps):
    system, operator, _, y, prior = lorenz(range(40))
    solver = FlowDASBridge(steps, draws=8)
    posterior = solver(y, operator, prior, Streams(1, cases=range(40)), 32)
    density = system.log_transition(posterior.previous[:, :, 1:], posterior.samples[:, :, 1:])
    density = density.sum(2).mean(1)
    error = density.std().item() / math.sqrt(40)
    assert density.mean().item() == pytest.approx(17.87, abs=4 * error)


def test_previous_is_the_ancestor():
    _, operator, x, y, prior = lorenz([0])
    # Threshold 1 resamples always: then the particles, and all of the members, have even weights.
    posterior = FlowDASBridge(2, 4, ess_threshold=1.0)(y, operator, prior, Streams(1), 16)
    samples, previous = posterior.samples[0], posterior.previous[0]
    assert torch.equal(previous[:, 0], x[0, 0].expand(16, 3))
    for k in range(1, 15):
        parents = {tuple(row) for row in samples[:, k - 1].tolist()}
        assert {tuple(row) for row in previous[:, k].tolist()} <= parents
    assert posterior.diagnostics["ess"].shape == (1, 15)
    assert (posterior.diagnostics["ess"] <= 16.001).all()
    assert (posterior.diagnostics["ess"] >= 1).all()


def test_members_and_particles_are_separate():
    _, operator, _, y, prior = lorenz(range(2))
    rng = Streams(1, cases=range(2))
    posterior = FlowDASBridge(1, 4, particles=40)(y, operator, prior, rng, 5)
    assert posterior.samples.shape == posterior.previous.shape == (2, 5, 15, 3)
    assert posterior.diagnostics["ess"].max() > 5


@pytest.mark.parametrize("resample", [True, False])
def test_a_batch_equals_its_cases(resample):
    def run(cases):
        _, operator, _, y, prior = lorenz(cases)
        solver = FlowDASBridge(2, 4, resample=resample)
        return solver(y, operator, prior, Streams(1, cases=cases), 8).samples

    together = run([0, 1, 2])
    torch.testing.assert_close(together, torch.cat([run([c]) for c in range(3)]))
    assert (together[0] - together[1]).abs().max() > 0.1


def test_no_gradient_and_a_network_call_per_level():
    network = ResidualMLP((3,), 1, width=16, depth=1)
    transition, seen = Interpolant(network, (3,), 1), []
    network.register_forward_hook(lambda module, args, out: seen.append(out))
    prior = StateSpace(Known(torch.zeros(1, 1, 3)), transition)
    solver = FlowDASBridge(steps=3, draws=50)
    posterior = solver(torch.zeros(1, 2, 1), Arctan(), prior, Streams(0), 4)
    assert not posterior.samples.requires_grad
    assert [out.shape for out in seen] == [(1, 4, 3)] * 6
    assert not any(out.requires_grad for out in seen)


def test_a_longer_context_moves_with_its_particle():
    class Momentum(ExactInterpolant):
        """x_{k+1} = 2 x_k - x_{k-1} + noise, by a mean that looks at two states."""

        context = 2

        def endpoint(self, x, s, history):
            newest = last(history, self.shape)
            flow = 2 * newest - history[..., 0, :]
            alpha, beta, _ = self.coefficients(s)
            q2, v = self._variance(s)
            return flow + (beta * q2 / v).to(x) * (x - alpha * newest - beta * flow)

    start = torch.tensor([[[0.0], [1.0]]]).double()
    prior = StateSpace(Known(start), Momentum(Sine(1e-10)))
    y = torch.arange(2.0, 7).view(1, 5, 1).double()
    x = FlowDASBridge(3, 4)(y, Components(1, 0.1), prior, Streams(0), 8).samples
    torch.testing.assert_close(x, y.unsqueeze(1).expand_as(x), atol=1e-2, rtol=0)
    assert x.dtype == torch.float64


def test_divergence_names_the_case_and_the_step():
    prior = StateSpace(Known(torch.tensor([[[0.0]], [[math.inf]]])), ExactInterpolant(Sine()))
    with pytest.raises(Diverged, match=r"case\(s\) \[1\] at step 0"):
        FlowDASBridge()(torch.zeros(2, 3, 1), Components(1), prior, Streams(0, cases=range(2)), 2)


@pytest.mark.parametrize(
    ("name", "value"), [("steps", 0), ("draws", 0), ("particles", 0), ("ess_threshold", 1.5)]
)
def test_bad_settings_are_refused_in_one_line(name, value):
    with pytest.raises(ValueError, match=f"^{name}: value {value}, allowed: .*$") as error:
        FlowDASBridge(**{name: value})
    assert "\n" not in str(error.value)
