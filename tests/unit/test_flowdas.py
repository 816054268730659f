"""FlowDAS against Gaussian problems that are solved exactly."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from priorflow.operators.pointwise import Arctan, Components, Cube
from priorflow.priors.base import Known, StateSpace
from priorflow.priors.interpolant import ExactInterpolant, Interpolant
from priorflow.priors.networks.mlp import ResidualMLP
from priorflow.rng import Streams
from priorflow.solvers.assimilation.flowdas import FlowDAS, noise_of_endpoint
from priorflow.solvers.base import Diverged
from priorflow.systems.base import GaussianSystem, Standardised
from priorflow.systems.lorenz63 import Lorenz63

Q2, GAMMA2, Y = 0.5, 0.1, 0.8  # x1 | x0 = 0 is N(0, Q2): the posterior is N(2/3, 1/12)
MEAN, VARIANCE = 2 / 3, 1 / 12


class Walk(GaussianSystem):
    """x_{k+1} = x_k + N(0, Q2)."""

    shape, dt = (1,), 1.0
    mean, std, noise_std = torch.zeros(1), torch.ones(1), torch.full((1,), Q2**0.5).double()

    def advance(self, x):
        return x

    def initial(self, members, rng):
        return rng.normal(members, 1)


class Quadrature:
    """Streams with exact moments, so that no Monte-Carlo error blurs a test to 1 %.

    Noise is orthonormal over the members, with zero mean: for a linear chain the moments over the
    members are then those of the law. The J draws are Gaussian quantiles with unit variance.
    """

    def __init__(self, members, calls):
        g = torch.Generator().manual_seed(0)
        noise = torch.randn(members, calls, generator=g, dtype=torch.float64)
        self.noise = torch.linalg.qr(noise - noise.mean(0))[0] * members**0.5
        self.calls = 0

    def normal(self, *shape):
        if len(shape) == 3:
            p = (torch.arange(shape[1], dtype=torch.float64) + 0.5) / shape[1]
            z = math.sqrt(2) * torch.erfinv(2 * p - 1)
            return (z / z.square().mean().sqrt()).view(1, 1, -1, 1).expand(1, *shape)
        self.calls += 1
        return self.noise[:, self.calls - 1].view(1, -1, 1)


# The drift of the interpolant of the walk from 0 is a_s X, so its SDE carries X_s to Φ_s X_s, with
# Φ_s = exp ∫_s^1 a_u du, plus noise. a_1 = 2.
GRID = np.linspace(0, 1, 100_001)
K = GRID * Q2 / (GRID**3 * Q2 + (1 - GRID) ** 2)
A = 2 * GRID * K - np.append((1 - GRID**2 * K)[:-1] / (1 - GRID[:-1]), 0)
LOG_PHI = np.append(np.cumsum(((A[1:] + A[:-1]) / 2 * np.diff(GRID))[::-1])[::-1], 0)


@dataclass(frozen=True)
class ExactEndpoints(FlowDAS):
    """SDE endpoints without the error of order 1 and 2: N(Φ_s X, Q2 - Φ_s² Var X_s)."""

    def draw_endpoints(self, x, s, b, transition, history, rng):
        assert torch.allclose(b.detach(), np.interp(s, GRID, A) * x.detach(), atol=1e-3)
        phi = math.exp(np.interp(s, GRID, LOG_PHI))
        variance = Q2 - phi**2 * (s**4 * Q2 + s * (1 - s) ** 2)
        return phi * x.unsqueeze(2) + math.sqrt(variance) * rng.normal(x.shape[1], self.draws, 1)


def swapped(solver):
    """The same solver with the κ that belongs to the other endpoint law."""

    class Swapped(type(solver)):
        def kappa(self, s, epsilon):
            other = "interpolant" if self.endpoint == "sde" else "sde"
            return FlowDAS(endpoint=other).kappa(s, epsilon)

    return Swapped(**vars(solver))


def moments(solver, members=None, rng=None):
    prior = StateSpace(Known(torch.zeros(1, 1, 1, dtype=torch.float64)), ExactInterpolant(Walk()))
    calls = solver.steps * solver.order
    members = members or calls + 8
    rng = rng or Quadrature(members, calls)
    y = torch.full((1, 1, 1), Y, dtype=torch.float64)
    x = solver(y, Components(1, GAMMA2**0.5), prior, rng, members).samples
    return x.mean().item(), x.var(correction=0).item()


EXACT = FlowDAS(steps=400, draws=256, guidance="exact", order=1)


@pytest.mark.parametrize(
    "solver", [replace(EXACT, endpoint="interpolant"), ExactEndpoints(**vars(EXACT))]
)
def test_each_endpoint_law_with_its_own_kappa_gives_the_posterior(solver):
    mean, variance = moments(solver)
    assert mean == pytest.approx(MEAN, rel=0.01)
    assert variance == pytest.approx(VARIANCE, rel=0.01)


@pytest.mark.parametrize(
    ("solver", "mean", "variance"),
    [
        (swapped(ExactEndpoints(**vars(EXACT))), 0.797, 0.0091),
        (swapped(replace(EXACT, endpoint="interpolant")), 0.262, 0.338),
    ],
)
def test_the_kappa_of_the_other_law_does_not(solver, mean, variance):
    assert moments(replace(solver, steps=300)) == pytest.approx((mean, variance), rel=0.02)


@pytest.mark.parametrize(("order", "mean", "variance"), [(1, 0.488, 0.243), (2, 0.742, 0.115)])
def test_the_bias_of_the_approximate_sde_endpoints(order, mean, variance):
    assert moments(replace(EXACT, steps=200, order=order)) == pytest.approx(
        (mean, variance), rel=0.02
    )


def test_a_hundred_random_draws_suffice():
    solver = replace(EXACT, steps=100, draws=100, endpoint="interpolant")
    mean, variance = moments(solver, 2000, Streams(0))
    assert mean == pytest.approx(MEAN, abs=4 * (VARIANCE / 2000) ** 0.5)
    assert variance == pytest.approx(VARIANCE, rel=4 * (2 / 2000) ** 0.5)


@pytest.mark.parametrize("endpoint", ["sde", "interpolant"])
def test_paper_is_exact_with_a_constant_step(endpoint):
    class Constant(FlowDAS):
        def kappa(self, s, epsilon):
            return 0.7

    settings = {"steps": 10, "draws": 8, "endpoint": endpoint}
    exact = moments(Constant(guidance="exact", **settings))
    paper = moments(FlowDAS(guidance="paper", zeta=0.7 / 10 / (2 * GAMMA2), **settings))
    free = moments(FlowDAS(zeta=0, **settings))
    assert paper == pytest.approx(exact, rel=1e-9)
    assert paper != pytest.approx(free, rel=0.1)


def test_released_pulls_by_the_sign_of_the_mean_residual():
    # Two steps of order 1: ∂X1/∂X = 1 + (1 - s) a_s vanishes at s = 0, since b_0 = -x0 + f - X.
    settings = {"steps": 2, "draws": 8, "order": 1, "guidance": "released"}
    prior = StateSpace(Known(torch.zeros(1, 1, 1)), ExactInterpolant(Walk()))
    y, operator = torch.full((1, 1, 1), 5.0), Components(1, GAMMA2**0.5)
    free, guided = (
        FlowDAS(zeta=zeta, **settings)(y, operator, prior, Streams(0), 100).samples
        for zeta in (0.0, 0.01)
    )
    s = 0.5
    k = s * Q2 / (s**3 * Q2 + (1 - s) ** 2)
    jacobian = 1 + (1 - s) * (2 * s * k - (1 - s * s * k) / (1 - s))
    assert guided - free == pytest.approx(torch.full_like(free, 0.01 * jacobian), abs=1e-6)


def test_objectives():
    residual = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    squares = residual.square().sum(-1)
    weights = torch.softmax(-squares / (2 * 0.3**2), dim=2)
    expected = {
        "released": residual.mean(2).square().sum(-1).sqrt(),
        "paper": (weights * squares).sum(2),
        "exact": -(-squares / (2 * 0.3**2)).exp().sum(2).log(),
    }
    for guidance, value in expected.items():
        torch.testing.assert_close(FlowDAS(guidance=guidance).objective(residual, 0.3), value)


@pytest.mark.parametrize("s", [0.0, 0.1, 0.5, 0.98])
def test_the_exact_endpoint_noise_is_the_ito_integral(s):
    u = np.linspace(s, 1, 100_001)
    assert noise_of_endpoint(s) == pytest.approx(math.sqrt(np.trapezoid((1 - u) ** 2, u)), 1e-6)


@pytest.mark.parametrize(
    ("s", "ratio"),
    [(0, 1.155), (0.1, 0.73), (0.25, 0.556), (0.5, 0.379), (0.75, 0.238), (0.9, 0.142)],
)
def test_the_published_endpoint_noise(s, ratio):
    assert noise_of_endpoint(s, "published") / noise_of_endpoint(s) == pytest.approx(
        ratio, rel=5e-3
    )


def test_the_endpoint_noise_is_used():
    exact = replace(EXACT, steps=100)
    assert moments(replace(exact, endpoint_noise="published"))[1] < 0.95 * moments(exact)[1]


def test_euler_maruyama_converges_from_above():
    system = Standardised(Lorenz63())
    x0 = system.initial(1, Streams(0, cases=range(20)))
    prior = StateSpace(Known(x0), ExactInterpolant(system))
    y = torch.zeros(20, 1, 1)
    density = []
    for steps in (50, 200, 600):
        solver = FlowDAS(steps=steps, draws=1, zeta=0, order=1)
        x = solver(y, Arctan(), prior, Streams(1, cases=range(20)), 100).samples[:, :, 0]
        density.append(system.log_transition(x0.expand_as(x), x).mean().item())
    truth = 17.87 / 14  # of one transition
    assert density[0] > density[1] + 0.2 > density[2] + 0.3
    assert density[2] == pytest.approx(truth, abs=0.1)


def learned(parametrisation="endpoint"):
    torch.manual_seed(0)
    network = ResidualMLP((3,), 1, width=16, depth=1)
    torch.nn.init.normal_(network.outlet.weight, std=0.1)
    return Interpolant(network, (3,), 1, parametrisation)


@pytest.mark.parametrize("guidance", ["paper", "released", "exact"])
@pytest.mark.parametrize("endpoint", ["sde", "interpolant"])
def test_a_batch_equals_its_cases(guidance, endpoint):
    solver = FlowDAS(steps=4, draws=3, zeta=0.01, guidance=guidance, endpoint=endpoint)
    history, y = torch.randn(3, 1, 3).double(), torch.randn(3, 2, 1).double()

    def run(cases):
        prior = StateSpace(Known(history[cases]), learned().double())
        return solver(y[cases], Arctan(), prior, Streams(0, cases=cases), 2).samples

    together = run([0, 1, 2])
    assert (together.shape, together.dtype) == ((3, 2, 2, 3), torch.float64)
    torch.testing.assert_close(together, torch.cat([run([c]) for c in range(3)]))


def test_gradients_stay_inside():
    transition = learned()
    prior = StateSpace(Known(torch.zeros(1, 1, 3)), transition)
    solver, y = FlowDAS(steps=5, draws=3, zeta=0.1), torch.ones(1, 2, 1)
    x = solver(y, Arctan(), prior, Streams(0), 2).samples
    assert not x.requires_grad
    assert all(p.grad is None and p.requires_grad for p in transition.parameters())
    with torch.no_grad():
        assert torch.equal(solver(y, Arctan(), prior, Streams(0), 2).samples, x)
    free = replace(solver, zeta=0.0)(y, Arctan(), prior, Streams(0), 2).samples
    assert (x - free).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "calls"),
    [({"order": 1}, 5), ({"order": 2}, 10), ({"endpoint": "interpolant"}, 5)],
)
@pytest.mark.parametrize("draws", [1, 50])
def test_draws_cost_no_network_call(settings, calls, draws):
    transition, seen = learned("drift"), []
    transition.network.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    prior = StateSpace(Known(torch.zeros(1, 1, 3)), transition)
    FlowDAS(steps=5, draws=draws, **settings)(torch.ones(1, 1, 1), Arctan(), prior, Streams(0), 2)
    assert seen == [(1, 2, 3)] * calls


@pytest.mark.parametrize("parametrisation", ["endpoint", "drift"])
def test_interpolant_endpoints_are_those_of_the_transition(parametrisation):
    transition = learned(parametrisation)
    transition.endpoint_stds.uniform_(0.1, 0.2)
    x, history = torch.randn(1, 2, 3), torch.randn(1, 2, 1, 3)
    solver = FlowDAS(draws=2000, endpoint="interpolant")
    with torch.no_grad():
        b = transition.drift(x, 0.3, history)
        x1 = solver.draw_endpoints(x, 0.3, b, transition, history, Streams(0))
        m, std = transition.endpoint(x, 0.3, history), transition.endpoint_std(0.3)
    assert ((x1.mean(2) - m) / std).abs().max() < 5 / math.sqrt(2000)
    torch.testing.assert_close(x1.std(2), std.expand_as(m), rtol=0.1, atol=0)


def test_divergence_names_the_case_and_the_step():
    prior = StateSpace(Known(torch.tensor([[[1.0]], [[30.0]]])), ExactInterpolant(Walk()))
    solver = FlowDAS(steps=20, draws=2, zeta=1.0)
    y = torch.ones(2, 3, 1)
    with pytest.raises(Diverged) as error:
        solver(y, Cube(), prior, Streams(0, cases=range(2)), 2)
    assert 1 in error.value.cases
    assert error.value.step == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("draws", 0),
        ("zeta", -1.0),
        ("zeta", math.nan),
        ("guidance", "dps"),
        ("endpoint", "bridge"),
        ("order", 3),
        ("endpoint_noise", "none"),
    ],
)
def test_bad_settings_are_refused_in_one_line(name, value):
    with pytest.raises(ValueError, match=f"^{name}: value .*, allowed: .*$") as error:
        FlowDAS(**{name: value})
    assert "\n" not in str(error.value)
