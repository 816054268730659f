"""DPS, MCG, DDNM, DiffPIR and RED-diff against Gaussian posteriors and against public libraries."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from azula.denoise import Denoiser as AzulaDenoiser
from azula.denoise import DiracPosterior
from azula.guidance.dps import DPSSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from priorflow.operators.blur import GaussianBlur
from priorflow.operators.inpainting import BoxInpainting, RandomInpainting
from priorflow.operators.motion import MotionBlur
from priorflow.operators.nonlinear import HighDynamicRange
from priorflow.operators.resize import BicubicDownsample
from priorflow.rng import Streams
from priorflow.solvers.base import Diverged
from priorflow.solvers.restoration.common import data_step, misfit_gradient
from priorflow.solvers.restoration.dcdp import DCDP
from priorflow.solvers.restoration.ddnm import DDNM
from priorflow.solvers.restoration.ddpm import alpha_bar, sigma_of, spaced, tweedie
from priorflow.solvers.restoration.ddrm import DDRM
from priorflow.solvers.restoration.diffpir import DiffPIR, quadratic
from priorflow.solvers.restoration.dps import DPS
from priorflow.solvers.restoration.mcg import MCG
from priorflow.solvers.restoration.red_diff import REDDiff
from priorflow.stages.cost import Cost

SHAPE, PIXELS = (1, 8, 8), 64
METHODS = [DPS(steps=20), MCG(steps=20), DDNM(steps=20), DiffPIR(steps=20), REDDiff(steps=20)]


def names(value):
    return type(value).__name__


class GaussianImages:
    """x ~ N(μ, C), smooth: D(x; σ) = μ + C (C + σ² I)⁻¹ (x - μ). It notes what it is asked."""

    shape = SHAPE

    def __init__(self, std=0.3):
        axis = torch.arange(8, dtype=torch.float64)
        places = torch.cartesian_prod(axis, axis)
        distance = torch.cdist(places, places)
        self.covariance = std**2 * (torch.exp(-(distance**2) / 8) + 0.01 * torch.eye(PIXELS))
        self.variances, self.basis = torch.linalg.eigh(self.covariance)
        self.mean = std * torch.sin(0.7 * places[:, 0])
        self.asked = []

    def __call__(self, x, sigma):
        self.asked.append((x.detach(), sigma, torch.is_grad_enabled()))
        gain = (self.variances / (self.variances + sigma**2)).to(x)
        basis, mean = self.basis.to(x), self.mean.to(x)
        return (mean + (x.flatten(-3) - mean) @ basis * gain @ basis.T).unflatten(-1, SHAPE)

    def draw(self, *shape):
        z = Streams(0, "images", cases=range(shape[0])).normal(*shape[1:], PIXELS).double()
        return (self.mean + z * self.variances.sqrt() @ self.basis.T).unflatten(-1, SHAPE)

    def posterior(self, y, operator, matrix=None):
        """Mean (cases, pixels) and covariance by dense algebra."""
        eye = torch.eye(PIXELS, dtype=torch.float64).view(-1, *SHAPE)
        a = operator(eye).flatten(1).T if matrix is None else matrix
        gram = a @ self.covariance @ a.T + operator.noise_std**2 * torch.eye(len(a))
        gain = torch.linalg.solve(gram, a @ self.covariance).T
        mean = self.mean + (y.flatten(1) - self.mean @ a.T) @ gain.T
        return mean, self.covariance - gain @ a @ self.covariance


class KnownImages:
    """A perfect denoiser: it knows the truth (cases, C, H, W)."""

    shape = SHAPE

    def __init__(self, truth):
        self.truth, self.asked = truth.unsqueeze(1), []

    def __call__(self, x, sigma):
        self.asked.append((x.detach(), sigma))
        return self.truth + 0 * x


class Replay:
    """The streams of one member of a run: its share of the draws of all members."""

    def __init__(self, rng):
        self.rng, self.drawn, self.member = rng, [], None

    def normal(self, *shape):
        if self.member is None:
            self.drawn.append(self.rng.normal(*shape))
            return self.drawn[-1]
        return self.drawn.pop(0)[:, self.member, None]


class Unseen:
    """An operator of which nothing is known but its values: no adjoint, no closed form."""

    def __init__(self, operator):
        self.operator, self.noise_std = operator, operator.noise_std

    def __call__(self, x):
        return self.operator(x)


def hole(noise_std=0.05):
    return BoxInpainting(SHAPE, (2, 6), (3, 6), noise_std)


def blur(noise_std=0.05):
    return GaussianBlur(SHAPE, 5, 0.7, noise_std=noise_std)


def small(noise_std=0.05):
    return BicubicDownsample(SHAPE, 2, noise_std)


def observe(x, operator):
    y = operator(x.unsqueeze(1)).squeeze(1)
    noise = Streams(0, "noise", cases=range(len(y))).normal(*y.shape[1:])
    return y + operator.noise_std * noise.to(y)


def streams(cases):
    return Streams(0, "solver", cases=range(cases) if isinstance(cases, int) else cases)


def solve(solver, y, operator, prior, members=1, rng=None):
    with torch.no_grad():
        return solver(y, operator, prior, rng or streams(len(y)), members).samples


# Root mean square of what the mean of 100 members is off the exact posterior mean, in exact
# posterior standard deviations: a third above what was measured. None of the methods is exact.
DISTANCES = [
    (DPS(zeta=0.3, steps=100), hole(), 0.9),
    (DPS(zeta=0.5, steps=100), blur(), 0.36),
    (DPS(zeta=0.5, steps=100), small(), 0.36),
    (MCG(steps=100), hole(), 1.1),
    (MCG(steps=100), small(), 0.55),
    (DDNM(), hole(), 0.6),
    (DDNM(), blur(), 0.25),
    (DDNM(), small(), 0.11),
    (DiffPIR(), hole(), 0.97),
    (DiffPIR(), small(), 0.36),
    (DiffPIR(lam=4, zeta=1), hole(), 0.4),
    (DiffPIR(lam=4, zeta=1), blur(), 0.17),
    (DiffPIR(lam=4, zeta=1), small(), 0.1),
    (REDDiff(steps=200), hole(), 1.08),
    (REDDiff(steps=200), blur(), 0.85),
    (REDDiff(steps=200), small(), 0.54),
]


def distance(samples, exact):
    mean, covariance = exact
    error = samples.mean(1).flatten(1) - mean
    return (error / covariance.diagonal().sqrt()).square().mean().sqrt()


@pytest.mark.parametrize(("solver", "operator", "bound"), DISTANCES)
def test_means_are_near_the_exact_posterior_mean(solver, operator, bound):
    prior = GaussianImages()
    y = observe(prior.draw(3), operator)
    samples = solve(solver, y, operator, prior, members=100)
    assert distance(samples, prior.posterior(y, operator)) < bound


@pytest.mark.parametrize(
    ("solver", "bound"),
    [
        (DPS(zeta=0.1, steps=100), 0.5),
        (DiffPIR(lam=4, zeta=1, rate=0.25), 0.32),
        (REDDiff(lam=5, steps=200, initial="zeros"), 0.82),
    ],
    ids=["DPS", "DiffPIR", "REDDiff"],
)
def test_an_operator_needs_no_closed_form(solver, bound):
    """A clipped image of which nothing is clipped is a linear observation, y = 2 x."""
    prior, operator = GaussianImages(std=0.1), HighDynamicRange(2.0, 0.05)
    x = prior.draw(3)
    assert x.abs().max() < 0.5
    y = observe(x, operator)
    samples = solve(solver, y, operator, prior, members=100)
    exact = prior.posterior(y, operator, 2 * torch.eye(PIXELS, dtype=torch.float64))
    assert distance(samples, exact) < bound


@pytest.mark.parametrize(
    ("solver", "operator"),
    [
        (DPS(zeta=0, steps=10), blur()),
        (MCG(zeta=0, steps=10), blur(0)),
        (MCG(zeta=0, steps=10), hole(0)),
        (DDNM(steps=10), blur(0)),
        (DDNM(steps=10), blur()),
        (DDNM(steps=10, eta=0.3), hole()),
        (DDNM(steps=10), small(0.2)),
        (DDRM(steps=10), blur(0)),
        (DDRM(steps=10), blur()),
        (DDRM(steps=10, eta=0.3, eta_b=0.5), hole()),
        (DDRM(steps=10, eta_b=0.7), small(0.2)),
        (DiffPIR(steps=10), blur(0)),
        (DiffPIR(steps=10, zeta=0.6), small(0)),
    ],
)
def test_noise_has_the_size_of_the_level_in_every_direction(solver, operator):
    """With a perfect denoiser x_t is the truth and N(0, 1 - ᾱ_t), y's noise being part of it."""
    cases = 500
    truth = GaussianImages().draw(cases)
    prior = KnownImages(truth)
    solve(replace(solver, clip=False), observe(truth, operator), operator, prior)
    for x, sigma in prior.asked[1:]:
        noise = operator.to_right(x[:, 0] - truth).flatten(1) / sigma
        assert noise.mean(0).abs().max() < 5 / math.sqrt(cases)
        assert (noise.var(0) - 1).abs().max() < 5 * math.sqrt(2 / cases)


@pytest.mark.parametrize("solver", METHODS, ids=names)
def test_one_call_per_step_for_the_whole_batch(solver):
    """From the level `start`; only DPS and MCG go through the network with gradients."""
    prior, operator = GaussianImages(), hole()
    y = observe(prior.draw(2), operator).float()
    samples = solve(replace(solver, start=700), y, operator, prior, members=3)
    assert samples.shape == (2, 3, *SHAPE)
    assert samples.dtype == torch.float32
    inputs, sigmas, grads = zip(*prior.asked, strict=True)
    assert all(x.shape == samples.shape for x in inputs)
    assert len(sigmas) == 20
    assert (sigmas[0], sigmas[-1]) == (sigma_of(700), sigma_of(0))
    assert set(grads) == {isinstance(solver, DPS | MCG)}


@pytest.mark.parametrize("solver", METHODS, ids=names)
def test_a_batch_gives_what_single_images_give(solver):
    """Every case by its own operator and norm, and every member by its own norm."""
    prior, masks = GaussianImages(), RandomInpainting(SHAPE, 0.4)
    y = observe(prior.draw(3), masks.at(range(3)))
    rng = Replay(streams(3))
    samples = solve(solver, y, masks.at(range(3)), prior, 2, rng)
    for case in range(3):
        single = solve(solver, y[case, None], masks.at([case]), prior, 2, streams([case]))
        torch.testing.assert_close(single, samples[case, None], rtol=0, atol=1e-7)
    for member in range(2):
        replay = Replay(None)
        replay.drawn, replay.member = list(rng.drawn), member
        single = solve(solver, y, masks.at(range(3)), prior, 1, replay)
        torch.testing.assert_close(single, samples[:, member, None], rtol=0, atol=1e-7)


@pytest.mark.parametrize("clip", [True, False])
def test_the_gradient_of_the_misfit(clip):
    """Finite differences of |y - A(x̂0(x))|; without clipping also Jᵀ Aᵀ (A x̂0 - y) / |y - A x̂0|."""
    prior, operator, t = GaussianImages(std=0.6), blur(), 300
    truth = prior.draw(2)
    y = observe(truth, operator)
    z = Streams(1, "z", cases=range(2)).normal(4, *SHAPE).double()
    x = math.sqrt(alpha_bar(t)) * truth.unsqueeze(1) + math.sqrt(1 - alpha_bar(t)) * z
    x0, gradient = misfit_gradient(x, t, y, operator, prior, clip)
    assert (x0.abs() == 1).any() == clip

    def misfit(x):
        residual = y.unsqueeze(1) - operator(tweedie(prior, x, t, clip))
        return residual.flatten(2).norm(dim=-1)

    h, direction = 1e-6, z.flip(0)
    slope = (misfit(x + h * direction) - misfit(x - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).flatten(2).sum(-1), slope)
    if not clip:
        eye = torch.eye(PIXELS, dtype=torch.float64)
        jacobian = torch.linalg.solve(prior.covariance + sigma_of(t) ** 2 * eye, prior.covariance)
        residual = operator(x0) - y.unsqueeze(1)
        pull = operator.adjoint(residual / residual.flatten(2).norm(dim=-1)[..., None, None, None])
        expected = pull.flatten(2) @ jacobian / math.sqrt(alpha_bar(t))
        torch.testing.assert_close(gradient.flatten(2), expected)


def test_dps_is_that_of_azula(monkeypatch):
    """One image, as azula takes one norm of the batch, and without clipping, which it does not."""
    prior, operator, indices = GaussianImages(), blur(), [*spaced(999, 50), -1]
    y = observe(prior.draw(1), operator)
    rng = Replay(streams(1))
    ours = solve(DPS(steps=50, clip=False), y, operator, prior, rng=rng)

    class Denoiser(AzulaDenoiser):
        def schedule(self, t):
            a = torch.tensor(alpha_bar(int(t)), dtype=torch.float64)
            return a.sqrt(), (1 - a).sqrt()

        def forward(self, x_t, t):
            alpha, sigma = self.schedule(t)
            return DiracPosterior(prior(x_t / alpha, sigma / alpha))

    class Sampler(DPSSampler):
        timesteps = torch.tensor(indices, dtype=torch.float64)

    first, *noise = rng.drawn
    monkeypatch.setattr(torch, "randn_like", lambda x: noise.pop(0).to(x))
    theirs = Sampler(Denoiser(), y.unsqueeze(1), operator, zeta=0.3, silent=True)(first.double())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_diffpir_is_that_of_deepinv(monkeypatch):
    """deepinv halves λ, has images in [0, 1] and ᾱ in 32 bits, and leaves the last x noisy."""
    deepinv = pytest.importorskip("deepinv")
    prior, operator = GaussianImages(), hole()
    y = observe(prior.draw(1), operator)
    rng = Replay(streams(1))
    ours = solve(DiffPIR(lam=14, zeta=0.3, steps=50), y, operator, prior, rng=rng)

    noise = [n[0] for n in rng.drawn]
    monkeypatch.setattr(torch, "randn_like", lambda x: noise.pop(0).to(x))
    theirs = deepinv.sampling.DiffPIR(
        lambda x, sigma: (prior(2 * x - 1, 2 * sigma) + 1) / 2,
        deepinv.optim.data_fidelity.L2(),
        sigma=operator.noise_std / 2,
        max_iter=50,
        zeta=0.3,
        lambda_=7.0,
    )
    mask = operator.to_left(torch.ones_like(y))
    physics = deepinv.physics.Inpainting(SHAPE, mask[0])
    image = operator.to_left((y + 1) / 2)
    x = 2 * theirs(image, physics, x_init=torch.full_like(image, 0.5)) - 1
    x = tweedie(prior, x, 0)
    torch.testing.assert_close(ours[:, 0], x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("operator", [blur(), hole(), small()], ids=names)
def test_descent_ends_in_the_closed_form(operator):
    """The data step of an operator of which only values are known, with many steps."""
    prior = GaussianImages()
    y, z0 = observe(prior.draw(2), operator), prior.draw(2, 3)
    closed = data_step(z0, y, operator, 0.04, 0.1, 1, 1.0)
    reached = data_step(z0, y, Unseen(operator), 0.04, 0.1, 200, 1.0)
    torch.testing.assert_close(reached, closed, rtol=0, atol=1e-8)


def test_red_diff_descends_the_published_loss():
    """Its noise form, by automatic differentiation, where ours has the denoised image."""
    prior, operator = GaussianImages(), small()
    y = observe(prior.draw(1), operator)
    rng = Replay(streams(1))
    ours = solve(REDDiff(lam=0.7, steps=30), y, operator, prior, rng=rng)

    mu = operator.pinv(y.unsqueeze(1)).requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.1, betas=(0.9, 0.99))
    for t, n in zip(spaced(999, 30), rng.drawn, strict=True):
        a, n = alpha_bar(t), n.double()
        x = (math.sqrt(a) * mu + math.sqrt(1 - a) * n).detach()
        epsilon = (x - math.sqrt(a) * prior(x / math.sqrt(a), sigma_of(t))) / math.sqrt(1 - a)
        fit = (y - operator(mu)).square().mean() / 2
        loss = fit + 0.7 * math.sqrt((1 - a) / a) * ((epsilon - n) * mu).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(ours, mu.detach(), rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="initial: value 'pinv', allowed: zeros"):
        solve(REDDiff(), y, Unseen(operator), prior)


@pytest.mark.parametrize(
    ("solver", "operator"),
    [
        (MCG(steps=20), hole()),
        (MCG(steps=20), blur()),
        (DDNM(steps=20), hole(0)),
        (DiffPIR(steps=20, project=True), hole(0)),
        (DDRM(), hole(0)),
        (DDRM(), small(0)),
    ],
)
def test_the_end_is_observed_as_y(solver, operator):
    prior = GaussianImages()
    y = observe(prior.draw(2), operator)
    samples = solve(solver, y, operator, prior, members=2)
    torch.testing.assert_close(operator(samples), y.unsqueeze(1).expand(2, 2, *y.shape[1:]))


def after_one_step(solver, y, operator, members=1):
    """√ᾱ x_s of the first of two steps from t = 300, of the same draws for all solvers."""
    prior = GaussianImages()
    solve(replace(solver, start=300, steps=2), y, operator, prior, members)
    return math.sqrt(alpha_bar(0)) * prior.asked[1][0]


def test_mcg_projects_a_step_of_dps():
    """What A does not see is left as DPS has it."""
    operator = hole()
    y = observe(GaussianImages().draw(2), operator)
    before, after = (after_one_step(solver, y, operator) for solver in (DPS(zeta=1), MCG()))
    change = (after - before).abs()
    hidden = operator.singular_values == 0
    assert change[..., hidden].max() < 1e-12
    assert change[..., ~hidden].min() > 1e-4


def test_the_released_projection_of_mcg():
    """E[x_s + A x'] = √ᾱ_t (I - A) y, where x' is a step of DPS."""
    operator, members, solver = blur(), 4000, MCG(projection="released")
    y = observe(GaussianImages().draw(1), operator)
    before = after_one_step(DPS(zeta=1), y, operator, members)
    rest = after_one_step(solver, y, operator, members) + operator(before)
    expected = math.sqrt(alpha_bar(300)) * (y - operator(y))
    error = (rest.mean(1) - expected) / (rest.std(1) / math.sqrt(members))
    assert error.abs().max() < 4.5
    with pytest.raises(ValueError, match="projection: value 'released'"):
        solve(solver, y[..., :3], operator, GaussianImages())


@pytest.mark.parametrize("operator", [hole(0), blur(0), small(0)], ids=names)
def test_ddnm_without_noise_is_the_published_recursion(operator):
    """x̂0 - A†(A x̂0 - y) in the space of images, where ours is in coordinates of A."""
    prior, eta = GaussianImages(), 0.6
    y = observe(prior.draw(1), operator)
    rng = Replay(streams(1))
    ours = solve(DDNM(eta, steps=20), y, operator, prior, rng=rng)

    x, *noise = (n.double() for n in rng.drawn)
    times = pairwise([*spaced(990, 20), -1])
    for (t, s), n in zip(times, noise, strict=True):
        a, b = alpha_bar(t), alpha_bar(s)
        x0 = prior(x / math.sqrt(a), sigma_of(t))
        epsilon = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
        x0 = x0 - operator.pinv(operator(x0) - y)
        x = math.sqrt(b) * x0 + math.sqrt(1 - b) * (eta * n + math.sqrt(1 - eta**2) * epsilon)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-9)


@settings(deadline=None)
@given(
    singular=st.floats(0.04, 1.0),
    noise_std=st.floats(1e-3, 1.0),
    eta=st.floats(0.0, 1.0),
    s=st.integers(-1, 990),
)
def test_ddnm_keeps_the_variance_and_trusts_clear_observations(singular, noise_std, eta, s):
    inverse = torch.tensor([1 / singular, 0.0], dtype=torch.float64)
    gain, fresh, kept = DDNM(eta).weights(inverse, noise_std, s)
    sigma, tau = math.sqrt(1 - alpha_bar(s)), math.sqrt(alpha_bar(s)) * noise_std * inverse
    variance = (gain * tau).square() + fresh.square() + kept.square()
    torch.testing.assert_close(variance, torch.full_like(variance, sigma**2))
    assert gain[1] == 0
    assert (gain[0] == 1) == bool(tau[0] <= sigma)


def test_evenly_spaced_levels():
    assert spaced(999, 1) == [999]
    assert spaced(999, 2) == [999, 0]
    assert spaced(100, 5) == [100, 75, 50, 25, 0]
    assert spaced(2, 10) == [2, 1, 0]


def test_the_released_levels_of_diffpir():
    times = quadratic(999, 100)
    assert times[:4] == [999, 899, 857, 825]
    assert (len(times), times[-1]) == (100, 0)
    times = quadratic(930, 1000)
    assert (times[0], times[-1]) == (930, 0)
    assert times == sorted(set(times), reverse=True)


def test_evaluations_of_an_operator_are_counted():
    """A, Aᵀ, A†, the proximal map and Jᵀ are one each, a change of coordinates is half of one."""
    cost, motion = Cost(), MotionBlur(SHAPE, 3).at([0])
    operator = cost.operator(motion, SHAPE)
    x = torch.zeros(11, 3, *SHAPE)
    y = operator(x)
    assert cost.counts.pop("operator_evals") == 33
    c = operator.to_right(x)
    assert c.is_complex()  # half a spectrum: it is not of the size of an image
    for name, z, evaluations in (
        ("adjoint", y, 33),
        ("pinv", y, 33),
        ("from_right", c, 16.5),
        ("to_left", y, 16.5),
        ("from_left", c, 16.5),
    ):
        cost.counts.clear()
        getattr(operator, name)(z)
        assert cost.counts == {"operator_evals": evaluations}, name
    cost.counts.clear()
    operator.prox(x, y[:, :1], 0.1)
    assert cost.counts == {"operator_evals": 33}
    with torch.enable_grad():
        seen = operator(x.requires_grad_()).sum()
    assert cost.counts == {"operator_evals": 66}
    seen.backward()
    assert cost.counts == {"operator_evals": 99}
    assert operator.noise_std == motion.noise_std


@pytest.mark.parametrize(
    ("solver", "known", "evaluations"),
    [
        (DPS(steps=20), True, 20 * 2),
        (DiffPIR(steps=20), True, 19),
        (DiffPIR(steps=20, descent=5), False, 19 * 5 * 2),
        (MCG(steps=20), True, 20 * 2 + 19 * 2 + 2),
        (DDNM(steps=20), True, 20 * 2 + 0.5 / 3),
        (DDRM(steps=20), True, 20 * 1.5 + 0.5 + 0.5 / 3 + 0.5),
        (REDDiff(steps=20), True, 20 * 2 + 1 / 3),
        (DCDP(iterations=5), True, 5 * (1 + 0.5 / 3 + 1)),
    ],
)
def test_what_solvers_cost(solver, known, evaluations):
    """In evaluations per member; what is made of y alone is shared by all members of a case."""
    prior, operator, cost = GaussianImages(), hole(), Cost()
    y = observe(prior.draw(2), operator)
    counted = cost.operator(operator if known else Unseen(operator), SHAPE)
    solve(solver, y, counted, prior, members=3)
    assert cost.counts["operator_evals"] / 6 == pytest.approx(evaluations)


@pytest.mark.parametrize("solver", METHODS, ids=names)
def test_divergence_names_the_case(solver):
    prior = GaussianImages()
    y = observe(prior.draw(3), hole())
    y[1] = torch.nan
    with pytest.raises(Diverged) as caught:
        solve(solver, y, hole(), prior)
    assert caught.value.cases == [1]


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        *[(type(m), {"steps": 1}, "steps: value 1, allowed: at least 2") for m in METHODS],
        *[(type(m), {"start": 1000}, "start: value 1000, allowed: 1 to 999") for m in METHODS],
        (DPS, {"zeta": -1.0}, "zeta: value -1.0"),
        (MCG, {"zeta": math.inf}, "zeta: value inf"),
        (MCG, {"projection": "none"}, "projection: value 'none'"),
        (DDNM, {"eta": 1.1}, "eta: value 1.1"),
        (DDNM, {"cutoff": -0.1}, "cutoff: value -0.1"),
        (DiffPIR, {"lam": 0.0}, "lam: value 0.0"),
        (DiffPIR, {"zeta": 1.1}, "zeta: value 1.1"),
        (DiffPIR, {"descent": 0}, "descent: value 0"),
        (DiffPIR, {"rate": 0.0}, "rate: value 0.0"),
        (REDDiff, {"lam": -1.0}, "lam: value -1.0"),
        (REDDiff, {"rate": 0.0}, "rate: value 0.0"),
        (REDDiff, {"initial": "noise"}, "initial: value 'noise'"),
    ],
)
def test_bad_settings_are_refused(method, values, message):
    with pytest.raises(ValueError, match=message):
        method(**values)
