"""Score-based data assimilation against closed forms: everything here is linear and Gaussian.

The process is x_{k+1} = m + M (x_k - m) + q z with M = ρ R(θ) a damped rotation and q² = 1 - ρ², so
that every state has covariance I and the covariance of two states is a power of M.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from priorflow.operators.pointwise import Components
from priorflow.priors.base import Known, StateSpace
from priorflow.priors.networks.mlp import ResidualMLP
from priorflow.priors.score import SquaredCosineSchedule, WindowScore
from priorflow.rng import Streams
from priorflow.solvers.assimilation.sda import SDA
from priorflow.solvers.base import Diverged

F64 = torch.float64
RHO, THETA = 0.9, 0.4
MEAN = torch.tensor([0.5, -0.3], dtype=F64)
MATRIX = RHO * torch.tensor(
    [[math.cos(THETA), -math.sin(THETA)], [math.sin(THETA), math.cos(THETA)]], dtype=F64
)


def covariance(states: int) -> Tensor:
    """Covariance of `states` consecutive states, shape (2 states, 2 states)."""
    powers = [torch.linalg.matrix_power(MATRIX, j) for j in range(states)]
    blocks = [
        [powers[i - j] if i >= j else powers[j - i].T for j in range(states)] for i in range(states)
    ]
    return torch.cat([torch.cat(row, 1) for row in blocks])


def draw(n: int, states: int, seed: int = 0) -> Tensor:
    """Trajectories, shape (n, states, 2)."""
    z = torch.randn(n, 2 * states, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return MEAN + (z @ torch.linalg.cholesky(covariance(states)).T).view(n, states, 2)


class ExactNoise(nn.Module):
    """E[z | x_t] = σ (α² C + σ² I)⁻¹ (x_t - α m), for one t or one t per window."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.schedule = SquaredCosineSchedule()
        self.variances, self.axes = torch.linalg.eigh(covariance(states))

    def forward(self, x: Tensor, t: Tensor, history: None = None) -> Tensor:
        alpha, sigma = (c.unsqueeze(-1) for c in self.schedule(t))
        r = (x - alpha.unsqueeze(-1) * MEAN.to(x)).flatten(-2)
        gain = sigma / (alpha**2 * self.variances.to(x) + sigma**2)
        return ((r @ self.axes.to(x) * gain) @ self.axes.T.to(x)).unflatten(-1, x.shape[-2:])


class Function(nn.Module):
    """A network from a function of (windows, t, None)."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.forward = function


def exact_score(order: int) -> WindowScore:
    return WindowScore(ExactNoise(2 * order + 1), (2,), order=order)


def exact_posterior(y: Tensor, noise_std: float, x0: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x_1, …, x_K given y (K, 1), each of shape (K, 2)."""
    states = len(y) + 1
    C, eye = covariance(states), torch.eye(2 * states, dtype=F64)
    H = eye[2::2]
    values, noise = y[:, 0] - MEAN[0], torch.full((len(y),), noise_std**2, dtype=F64)
    if x0 is not None:
        H, values = torch.cat((H, eye[:2])), torch.cat((values, x0 - MEAN))
        noise = torch.cat((noise, torch.zeros(2, dtype=F64)))
    gain = C @ H.T @ torch.linalg.inv(H @ C @ H.T + noise.diag())
    mean, variance = MEAN + (gain @ values).view(-1, 2), (C - gain @ H @ C).diag().view(-1, 2)
    return mean[1:], variance[1:].sqrt()


def unknown(members: int, rng: Streams) -> Tensor:
    raise AssertionError("an initial law that is not Known is left to the score")


def problem(
    known: bool, order: int, noise_std: float = 0.25, cases: int = 4, states: int = 5
) -> tuple[Tensor, Tensor, Components, StateSpace]:
    """Truth (cases, states, 2), observations of the first component, operator, prior."""
    x, operator = draw(cases, states, seed=1), Components(2, noise_std=noise_std, stride=2)
    g = torch.Generator().manual_seed(2)
    y = operator(x[:, 1:]) + noise_std * torch.randn(cases, states - 1, 1, generator=g, dtype=F64)
    return x, y, operator, StateSpace(Known(x[:, :1]) if known else unknown, exact_score(order))


# --- schedule ------------------------------------------------------------------------------------


def test_schedule_limits_and_identity():
    t = torch.linspace(0, 1, 101, dtype=F64)
    alpha, sigma = SquaredCosineSchedule(1e-3)(t)
    assert alpha[0] == 1
    assert alpha[-1].item() == pytest.approx(1e-3, rel=1e-10)
    assert sigma[0].item() == pytest.approx(1e-3, rel=1e-10)
    assert sigma[-1].item() == pytest.approx(1, rel=1e-10)
    torch.testing.assert_close(sigma**2, 1 - alpha**2 + 1e-6)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()


def test_schedule_keeps_single_precision_at_small_times():
    t = torch.logspace(-5, 0, 50, dtype=F64)
    for double, single in zip(
        SquaredCosineSchedule()(t), SquaredCosineSchedule()(t.float()), strict=True
    ):
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=0)


# --- composition ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3])
def test_one_window_is_exact(order):
    score, x = exact_score(order), draw(6, 2 * order + 1)
    t = torch.tensor(0.4, dtype=F64)
    torch.testing.assert_close(score.epsilon(x, t), score.network(x, t.expand(6)))


@pytest.mark.parametrize(("order", "tolerance"), [(1, 0.01), (2, 1e-4), (3, 1e-6)])
def test_composition_error_falls_as_sigma_to_the_2k(order, tolerance):
    score, exact, x = exact_score(order), ExactNoise(9), draw(200, 9)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
    errors, sigmas = [], []
    for t in torch.tensor([0.01, 0.02], dtype=F64):
        alpha, sigma = score.schedule(t)
        noised = alpha * x + sigma * z
        truth = exact(noised, t.expand(200))
        errors.append((score.epsilon(noised, t) - truth).norm() / truth.norm())
        sigmas.append(sigma)
    assert errors[1] < tolerance
    rate = (errors[1] / errors[0]).log() / (sigmas[1] / sigmas[0]).log()
    assert rate.item() == pytest.approx(2 * order, abs=0.2)


class Positions(nn.Module):
    """Returns the position of each state in its window, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.shape, self.times = 0, None, None

    def forward(self, x: Tensor, t: Tensor, history: None) -> Tensor:
        self.calls, self.shape, self.times = self.calls + 1, x.shape, t
        index = torch.arange(x.shape[3], dtype=x.dtype)
        return index.view(-1, *(1,) * (x.ndim - 4)).expand(x.shape)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_edges_and_shapes_in_one_network_call(shape):
    network = Positions()
    x = torch.zeros(2, 5, 8, *shape)
    noise = WindowScore(network, shape, order=2).epsilon(x, 0.5)
    assert noise.shape == x.shape
    assert network.calls == 1
    assert network.shape == (2, 5, 4, 5, *shape)
    assert network.times.shape == (2, 5, 4)
    assert (network.times == 0.5).all()
    states = noise.flatten(3)[0, 0, :, 0]
    assert states.tolist() == [0, 1, 2, 2, 2, 2, 3, 4]


def test_composition_keeps_states_in_order():
    score = WindowScore(Function(lambda windows, t, history: windows), (2,), order=2)
    x = draw(3, 9)
    assert torch.equal(score.epsilon(x, 0.1), x)


def test_short_trajectory_is_refused():
    with pytest.raises(ValueError, match="trajectory: 4 states, allowed: >= 5"):
        exact_score(2).epsilon(draw(3, 4), 0.5)


def test_network_arguments_build_the_network_of_a_window():
    arguments = WindowScore.network_arguments((3,), 1, order=2, eta=1e-3)
    assert arguments == {"shape": (5, 3), "context": 0}
    score = WindowScore(ResidualMLP(**arguments, width=8, depth=1), (3,), order=2)
    assert score.window == 5
    assert score.epsilon(torch.randn(2, 4, 7, 3), 0.3).shape == (2, 4, 7, 3)


# --- sampling ------------------------------------------------------------------------------------


def test_samples_without_observations_have_the_law_of_the_process():
    # 4 x 1000 trajectories: the standard error of a mean is 0.016, that of a covariance at most
    # 0.022; observations of x_1, …, x_4 with noise 1e6 say nothing.
    _, y, operator, prior = problem(known=False, order=2, noise_std=1e6)
    posterior = SDA(steps=128, corrections=0)(
        y, operator, prior, Streams(0, cases=range(4)), members=1000
    )
    x = posterior.samples.flatten(0, 1).flatten(1)
    assert posterior.samples.shape == (4, 1000, 4, 2)
    torch.testing.assert_close(x.mean(0), MEAN.repeat(4), atol=0.06, rtol=0)
    torch.testing.assert_close(x.T.cov(), covariance(4), atol=0.06, rtol=0)


@pytest.mark.parametrize(
    ("known", "order", "z_limit", "low", "high"),
    [(True, 2, 0.15, 0.95, 1.12), (False, 2, 0.12, 1.07, 1.24), (True, 1, 0.18, 0.95, 1.15)],
)
def test_posterior_is_near_the_exact_one(known, order, z_limit, low, high):
    # With order 2 the five states are one window, and what is left is the guidance and the Langevin
    # step. Tolerances: the root mean square error of the mean in units of the exact standard
    # deviation (0.05 of it is sampling noise), and the mean ratio of standard deviations.
    x, y, operator, prior = problem(known, order)
    solver = SDA(steps=128, corrections=4, gamma=0.1)
    samples = solver(y, operator, prior, Streams(0, cases=range(4)), 400).samples
    exact = [exact_posterior(y[c], 0.25, x[c, 0] if known else None) for c in range(4)]
    mean, std = (torch.stack(parts) for parts in zip(*exact, strict=True))
    error = ((samples.mean(1) - mean) / std).square().mean().sqrt()
    ratio = (samples.std(1) / std).mean()
    from_prior = ((MEAN - mean) / std).square().mean().sqrt()
    assert from_prior > 1  # else a solver that ignores y would pass
    assert error < z_limit
    assert low < ratio < high


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("detach", [False, True])
def test_one_step_is_the_formula(known, detach):
    # One step from t = 1 to 0, with the Jacobian of the exact noise prediction by hand.
    x, y, operator, prior = problem(known, order=2)
    solver = SDA(
        steps=1, corrections=0, gamma=1e-6, initial_gamma=1e-5, initial_std=0.1, detach=detach
    )
    result = solver(y, operator, prior, Streams(0, cases=range(4)), members=3).samples

    t = torch.ones((), dtype=F64)
    (a1, s1), (a0, s0) = prior.transition.schedule(t), prior.transition.schedule(0 * t)
    xt = Streams(0, cases=range(4)).normal(3, 5, 2).double().flatten(2)
    gain = s1 * torch.linalg.inv(a1**2 * covariance(5) + s1**2 * torch.eye(10, dtype=F64))
    noise = (xt - a1 * MEAN.repeat(5)) @ gain
    estimate = (xt - s1 * noise) / a1
    jacobian = (torch.eye(10, dtype=F64) - (0 if detach else s1 * gain)) / a1
    pull = torch.zeros_like(xt)
    pull[..., 2::2] = (y[:, None, :, 0] - estimate[..., 2::2]) / (0.25**2 + 1e-6 * (s1 / a1) ** 2)
    if known:
        pull[..., :2] = (x[:, None, 0] - estimate[..., :2]) / (0.1**2 + 1e-5 * (s1 / a1) ** 2)
    expected = a0 / a1 * xt + (s0 - a0 / a1 * s1) * (noise - s1 * pull @ jacobian)
    torch.testing.assert_close(result.flatten(2), expected[..., 2:], rtol=1e-6, atol=1e-6)


def test_known_initial_state_is_respected():
    # Nothing is observed, so that x_1 ~ N(m + M (x_0 - m), q²) from the known x_0.
    _, y, operator, _ = problem(known=True, order=1, noise_std=1e6, cases=2)
    x0 = MEAN + torch.tensor([[[2.0, 0.0]], [[-1.0, 1.5]]], dtype=F64)
    prior = StateSpace(Known(x0), exact_score(1))
    solver = SDA(steps=128, corrections=4)
    samples = solver(y, operator, prior, Streams(0, cases=range(2)), 500).samples
    expected = MEAN + (x0[:, 0] - MEAN) @ MATRIX.T
    q = math.sqrt(1 - RHO**2)
    torch.testing.assert_close(samples[:, :, 0].mean(1), expected, atol=0.3 * q, rtol=0)
    torch.testing.assert_close(
        samples[:, :, 0].std(1), torch.full((2, 2), q, dtype=F64), atol=0.15 * q, rtol=0
    )


class MemberStreams(Streams):
    """One stream per case and member, so that a member draws the same in any company."""

    def __init__(self, cases: list[int], members: list[int]) -> None:
        self.streams = [Streams(0, member, cases=cases) for member in members]

    def normal(self, *shape: int) -> Tensor:
        return torch.cat([stream.normal(1, *shape[1:]) for stream in self.streams], dim=1)


def test_a_batch_is_its_singles():
    _, y, operator, prior = problem(known=True, order=1)
    solver = SDA(steps=8, corrections=2)
    batch = solver(y, operator, prior, MemberStreams([0, 1, 2, 3], [0, 1, 2]), 3).samples
    for case in range(4):
        for member in range(3):
            alone = StateSpace(Known(prior.initial.history[case, None]), prior.transition)
            single = solver(y[case, None], operator, alone, MemberStreams([case], [member]), 1)
            torch.testing.assert_close(batch[case, member], single.samples[0, 0])


def test_chunks_change_nothing():
    _, y, operator, prior = problem(known=False, order=1)
    whole, parts = (
        SDA(steps=8, chunk=chunk)(y, operator, prior, Streams(0, cases=range(4)), 5).samples
        for chunk in (0, 2)
    )
    torch.testing.assert_close(whole, parts)


def test_single_precision_agrees_with_double():
    _, y, operator, prior = problem(known=True, order=1)
    solver, rng = SDA(steps=64, gamma=0.1), lambda: Streams(0, cases=range(4))
    double = solver(y, operator, prior, rng(), 4).samples
    single = solver(y.float(), operator, prior, rng(), 4).samples
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)


def test_longer_history_is_cut_off():
    _, y, operator, _ = problem(known=False, order=1, states=4)
    score = WindowScore(ExactNoise(3), (2,), context=2)
    prior = StateSpace(Known(draw(4, 2)), score)
    samples = SDA(steps=8)(y, operator, prior, Streams(0, cases=range(4)), 2).samples
    assert samples.shape == (4, 2, 3, 2)


def test_divergence_names_case_and_step():
    _, y, operator, prior = problem(known=False, order=1)
    y[2] = float("nan")
    with pytest.raises(Diverged) as caught:
        SDA(steps=4)(y, operator, prior, Streams(0, cases=range(4)), 2)
    assert (caught.value.cases, caught.value.step) == ([2], 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("corrections", -1),
        ("tau", 0.0),
        ("gamma", -0.1),
        ("initial_std", 0.0),
        ("initial_gamma", -0.1),
        ("chunk", -1),
    ],
)
def test_bad_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field}: value {value}, allowed: "):
        SDA(**{field: value})


# --- training ------------------------------------------------------------------------------------


def test_exact_noise_attains_the_least_loss():
    # E|E[z | x_t] - z|² = Σ α² λ / (α² λ + σ²) over the eigenvalues λ of C, on average over t.
    score, x = exact_score(1), draw(20_000, 3)
    alpha, sigma = score.schedule(torch.linspace(0, 1, 20_001, dtype=F64).unsqueeze(1))
    signal = alpha**2 * score.network.variances
    least = (signal / (signal + sigma**2)).sum(1).mean()
    losses = score.loss(x, torch.Generator().manual_seed(0))
    assert losses.shape == (20_000,)
    assert losses.mean().item() == pytest.approx(least.item(), rel=0.02)
    exact = score.network
    for factor in (0.8, 1.2):
        score.network = Function(lambda x, t, h, factor=factor: factor * exact(x, t))
        assert score.loss(x, torch.Generator().manual_seed(0)).mean() > 1.05 * least


def test_training_finds_the_exact_noise():
    # Scalar states with correlation 0.8 between neighbours.
    C = 0.8 ** (torch.arange(3.0)[:, None] - torch.arange(3.0)).abs()
    factor = torch.linalg.cholesky(C)
    torch.manual_seed(0)
    network = ResidualMLP(**WindowScore.network_arguments((1,)), width=32, depth=2)
    score, g = WindowScore(network, (1,)), torch.Generator().manual_seed(1)
    steps = 800
    optimiser = torch.optim.Adam(score.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.01, steps)
    losses = []
    for _ in range(steps):
        windows = (torch.randn(512, 3, generator=g) @ factor.T).unsqueeze(-1)
        loss = score.loss(windows, g).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    assert sum(losses[-50:]) / 50 < 0.6 * sum(losses[:10]) / 10
    x, z = torch.randn(1000, 3, generator=g) @ factor.T, torch.randn(1000, 3, generator=g)
    for t in (0.1, 0.3, 0.6, 0.9):
        alpha, sigma = score.schedule(torch.tensor(t))
        noised = alpha * x + sigma * z
        exact = noised @ (sigma * torch.linalg.inv(alpha**2 * C + sigma**2 * torch.eye(3)))
        learned = score.epsilon(noised.unsqueeze(-1), t).squeeze(-1).detach()
        assert (learned - exact).square().mean().sqrt() < 0.07
