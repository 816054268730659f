"""DCDP, SITCOM, ADMM, floors and methods of libraries, held against an exact Gaussian prior."""

import math

import pytest
import torch
from scipy.optimize import minimize

from priorflow.operators.blur import GaussianBlur
from priorflow.operators.inpainting import BoxInpainting, Pixels
from priorflow.operators.motion import MotionBlur
from priorflow.priors.denoiser import AsAzula
from priorflow.rng import Streams
from priorflow.solvers.restoration import library
from priorflow.solvers.restoration.admm_pnp import ADMMPnP
from priorflow.solvers.restoration.common import data_step
from priorflow.solvers.restoration.dcdp import DCDP, fit, purify
from priorflow.solvers.restoration.ddpm import alpha_bar, sigma_of
from priorflow.solvers.restoration.ddrm import DDRM
from priorflow.solvers.restoration.library import MMPS, PGDM, DDPMSchedule
from priorflow.solvers.restoration.pinv import PseudoInverse
from priorflow.solvers.restoration.sitcom import SITCOM
from priorflow.solvers.restoration.tv import TotalVariation
from priorflow.solvers.restoration.wavelet import Wavelet, analyse, split, synthesise

SIZE, CASES, NOISE = 8, 3, 0.1
SHAPE, N = (1, SIZE, SIZE), SIZE**2


class GaussianPrior:
    """D(x, σ) = μ + C (C + σ² I)⁻¹ (x - μ) of N(μ, C), neighbours alike."""

    shape = SHAPE

    def __init__(self):
        axis = torch.arange(SIZE, dtype=torch.float64)
        line = torch.exp(-(axis[:, None] - axis).square() / 8)
        self.covariance = 0.1 * torch.kron(line, line) + 0.002 * torch.eye(N)
        self.mean = 0.2 * torch.kron(torch.cos(axis), torch.ones(SIZE, dtype=torch.float64))
        self.variances, self.basis = torch.linalg.eigh(self.covariance)
        self.calls = 0

    def filter(self, x, gain):
        residual = (x.flatten(-3) - self.mean.to(x)) @ self.basis.to(x)
        return (self.mean.to(x) + (gain.to(x) * residual) @ self.basis.to(x).T).view_as(x)

    def __call__(self, x, sigma):
        self.calls += 1
        return self.filter(x, self.variances / (self.variances + sigma**2))

    def draw(self, cases):
        z = Streams(0, "truth", cases=range(cases)).normal(N).double()
        return (self.mean + (z * self.variances.sqrt()) @ self.basis.T).view(-1, *SHAPE)

    def posterior(self, operator, y):
        """Mean (cases, *SHAPE) and standard deviations (N,) of p(x | y)."""
        a = dense(operator)
        gram = a @ self.covariance @ a.T + operator.noise_std**2 * torch.eye(len(a))
        gain = torch.linalg.solve(gram, a @ self.covariance).T
        mean = self.mean + (y.flatten(1) - a @ self.mean) @ gain.T
        return mean.view(-1, *SHAPE), (self.covariance - gain @ a @ self.covariance).diag().sqrt()


class Hidden:
    """An operator of which only some things are known."""

    def __init__(self, operator, *names):
        self.operator, self.noise_std = operator, operator.noise_std
        for name in names:
            setattr(self, name, getattr(operator, name))

    def __call__(self, x):
        return self.operator(x)


def dense(operator):
    return operator(torch.eye(N, dtype=torch.float64).view(N, *SHAPE)).flatten(1).T


def observe(operator, x, noise_std=None):
    y = operator(x)
    noise = Streams(1, "noise", cases=range(len(x))).normal(*y.shape[1:]).to(y)
    return y + (operator.noise_std if noise_std is None else noise_std) * noise


def rms(x):
    return x.square().mean().sqrt().item()


PRIOR = GaussianPrior()
TRUTH = PRIOR.draw(CASES)
BLUR = GaussianBlur(SHAPE, 5, 1.0, noise_std=NOISE)
BOX = BoxInpainting(SHAPE, (2, 5), (3, 6), noise_std=NOISE)
OPERATORS = pytest.mark.parametrize("operator", [BLUR, BOX], ids=["blur", "box"])


def streams(cases=range(CASES)):
    return Streams(2, "solver", cases=cases)


# DCDP


@OPERATORS
@pytest.mark.parametrize("names", [None, ("adjoint",), ()], ids=["svd", "linear", "autograd"])
def test_fit_is_torchs_momentum_descent_on_the_mean_square(operator, names):
    y = observe(operator, TRUTH)
    x = torch.zeros(CASES, 2, *SHAPE, dtype=torch.float64) + torch.tensor([0.1, -0.3]).view(
        2, 1, 1, 1
    )
    rate, momentum, steps = 0.7, 0.9, 12
    expected = x.clone().requires_grad_()
    learning_rate = rate * y[0].numel() / 2
    sgd = torch.optim.SGD([expected], lr=learning_rate, momentum=momentum)
    for _ in range(steps):
        residual = y.flatten(1).unsqueeze(1) - expected.flatten(2) @ dense(operator).T
        expected.grad = torch.autograd.grad(residual.square().mean(-1).sum(), expected)[0]
        sgd.step()
    known = operator if names is None else Hidden(operator, *names)
    actual = fit(x, y, known, steps, rate, momentum)
    torch.testing.assert_close(actual, expected.detach(), rtol=0, atol=1e-6)
    assert rms(actual - x) > 0.1


def test_levels_are_the_published_ones():
    published = [400, 356, 311, 267, 222, 178, 133, 89, 44, 1]
    assert DCDP().levels() == published
    assert DCDP(iterations=3, start=1000, stop=50).levels() == [1000, 525, 50]
    assert DCDP(iterations=3, power=0).levels() == [400] * 3
    assert DCDP(iterations=3, power=2).levels() == [400, 100, 1]
    assert DCDP(iterations=1).levels() == [400]


def test_one_step_is_tweedies_formula_and_many_are_the_probability_flow():
    t = 300
    n = streams().normal(*SHAPE).double()
    sigma = sigma_of(t - 1)
    noisy = TRUTH + sigma * n
    one = purify(TRUTH, n, t, PRIOR, 1, clip=False)
    torch.testing.assert_close(one, PRIOR(noisy, sigma))
    flow = PRIOR.filter(noisy, (PRIOR.variances / (PRIOR.variances + sigma**2)).sqrt())
    errors = [rms(purify(TRUTH, n, t, PRIOR, steps, clip=False) - flow) for steps in (20, 300)]
    assert errors[0] < 0.15 * rms(one - flow)
    assert errors[1] < 0.02 * rms(one - flow)
    for steps in (1, 20):
        assert purify(TRUTH, 100 * n, t, PRIOR, steps, clip=True).abs().max() <= 1
        assert purify(TRUTH, 100 * n, t, PRIOR, steps, clip=False).abs().max() > 1


@OPERATORS
def test_dcdp_tweedie_is_a_linear_recursion(operator):
    solver = DCDP(iterations=4, descent=7, rate=0.9, start=600, stop=100, ddim_steps=1, clip=False)
    y = observe(operator, TRUTH)
    actual = solver(y, operator, PRIOR, streams()).samples[:, 0].flatten(1)
    a, rng, x = dense(operator), streams(), torch.zeros(CASES, N, dtype=torch.float64)
    for t in (600, 433, 267, 100):
        v = torch.zeros_like(x)
        for _ in range(7):
            v = 0.9 * v + (x @ a.T - y.flatten(1)) @ a
            x = x - 0.9 * v
        bar = alpha_bar(t - 1)
        noisy = math.sqrt(bar) * x + math.sqrt(1 - bar) * rng.normal(1, N)[:, 0].double()
        gain = (
            math.sqrt(bar)
            * PRIOR.covariance
            @ torch.linalg.inv(bar * PRIOR.covariance + (1 - bar) * torch.eye(N))
        )
        x = PRIOR.mean + (noisy - math.sqrt(bar) * PRIOR.mean) @ gain.T
    torch.testing.assert_close(actual, x, rtol=0, atol=1e-6)


def test_dcdp_purifies_last_only_where_there_is_noise():
    calls = {}
    for noise_std in (0.0, 0.1):
        operator = GaussianBlur(SHAPE, 5, 1.0, noise_std=noise_std)
        y = observe(operator, TRUTH)
        for steps in (1, 20):
            PRIOR.calls = 0
            solver = DCDP(ddim_steps=steps)
            posterior = solver(y, operator, PRIOR, streams(), members=2)
            calls[noise_std, steps] = PRIOR.calls
            misfit = posterior.diagnostics["misfit"]
            assert misfit.shape == (CASES, 10, 2)
            last = (y.unsqueeze(1) - operator(posterior.samples)).flatten(2)
            torch.testing.assert_close(misfit[:, -1], last.square().mean(-1).sqrt())
            assert posterior.samples.shape == (CASES, 2, *SHAPE)
            if noise_std == 0:
                assert misfit[:, -1].max() < 0.02 < misfit[:, 0].min()
    assert calls == {(0.1, 20): 182, (0.1, 1): 10, (0.0, 20): 180, (0.0, 1): 9}


# SITCOM


def test_first_adam_step_goes_down_the_misfit():
    y, t = observe(BLUR, TRUTH), 400
    x = streams().normal(2, *SHAPE).double()
    solver = SITCOM(rate=0.05, descent=2, clip=False)
    actual = solver.consistent(x, t, y, BLUR, PRIOR)
    a = alpha_bar(t)
    moments = PRIOR.covariance @ torch.linalg.inv(a * PRIOR.covariance + (1 - a) * torch.eye(N))
    moments = math.sqrt(a) * moments  # E[x0 | x_t] = μ + moments (x_t - √ᾱ μ)
    x0 = PRIOR.mean + (x.flatten(2) - math.sqrt(a) * PRIOR.mean) @ moments.T
    gradient = -2 * (y.flatten(1).unsqueeze(1) - x0 @ dense(BLUR).T) @ dense(BLUR) @ moments
    expected = x0 - 0.05 * gradient.sign() @ moments.T
    torch.testing.assert_close(actual.flatten(2), expected, rtol=0, atol=1e-5)


def test_sitcom_finds_the_minimum_with_its_penalty():
    y, t, lam = observe(BLUR, TRUTH), 300, 0.5
    x = streams().normal(1, *SHAPE).double()
    solver = SITCOM(lam=lam, rate=0.05, descent=150, clip=False)
    actual = solver.consistent(x, t, y, Hidden(BLUR), PRIOR)  # noise_std: far below the misfit
    a = alpha_bar(t)
    moments = PRIOR.covariance @ torch.linalg.inv(a * PRIOR.covariance + (1 - a) * torch.eye(N))
    moments = math.sqrt(a) * moments
    x0 = PRIOR.mean + (x.flatten(2) - math.sqrt(a) * PRIOR.mean) @ moments.T
    seen = dense(BLUR) @ moments
    residual = y.flatten(1).unsqueeze(1) - x0 @ dense(BLUR).T
    shift = torch.linalg.solve(seen.T @ seen + lam * torch.eye(N), seen.T @ residual.mT).mT
    torch.testing.assert_close(actual.flatten(2), x0 + shift @ moments.T, rtol=0, atol=2e-3)


def test_every_image_of_sitcom_stops_for_itself():
    noise = torch.tensor([0.01, 0.05, 0.3]).view(CASES, 1, 1, 1)
    y = BLUR(TRUTH) + noise * streams().normal(*SHAPE).double()
    x = math.sqrt(alpha_bar(100)) * PRIOR.draw(9)[CASES:].view(CASES, 2, *SHAPE)
    solver = SITCOM(descent=80)
    together = solver.consistent(x, 100, y, BLUR, PRIOR)
    for i in range(CASES):
        for j in range(2):
            single = solver.consistent(x[i : i + 1, j : j + 1], 100, y[i : i + 1], BLUR, PRIOR)
            torch.testing.assert_close(together[i, j], single[0, 0])
    misfit = (y.unsqueeze(1) - BLUR(together)).flatten(2).square().mean(-1).sqrt()
    assert (misfit[:2] < NOISE + 0.001).all()
    assert (misfit[:2] > 0.8 * NOISE).all()  # and not much further than that
    assert (misfit[2] > NOISE + 0.001).all()
    PRIOR.calls = 0
    solver.consistent(x[:2], 100, y[:2], BLUR, PRIOR)
    assert PRIOR.calls < 80


# ADMM


@OPERATORS
@pytest.mark.parametrize("last", [0.3, 0.1], ids=["one level", "falling"])
def test_admm_finds_the_exact_posterior_mean(operator, last):
    y = observe(operator, TRUTH)
    solver = ADMMPnP(lam=1.0, steps=30, first=0.3, last=last, clip=False)
    samples = solver(y, operator, PRIOR, streams(), members=2).samples
    mean, std = PRIOR.posterior(operator, y)
    assert samples.shape == (CASES, 2, *SHAPE)
    assert rms(samples - mean.unsqueeze(1)) < 0.01 * rms(std)


def test_data_step_of_an_operator_without_prox_tends_to_the_same():
    y = observe(BLUR, TRUTH)
    z0 = 0.5 * TRUTH.unsqueeze(1)
    exact = BLUR.prox(z0, y.unsqueeze(1), 0.02, NOISE)
    for names in ((), ("adjoint",)):
        actual = data_step(z0, y, Hidden(BLUR, *names), 0.02, NOISE, 60, 1.0)
        torch.testing.assert_close(actual, exact, rtol=0, atol=1e-6)
    assert rms(exact - z0) > 0.05


# Floors

IDENTITY = Pixels(torch.arange(N), SHAPE, NOISE)


def test_pinv_and_wiener_filter():
    blur = GaussianBlur(SHAPE, 3, 0.5, noise_std=0.0)
    y = observe(blur, TRUTH)
    x = PseudoInverse()(y, blur, PRIOR, streams(), members=2).samples
    torch.testing.assert_close(x, TRUTH.unsqueeze(1).expand_as(x))
    y = observe(BOX, TRUTH)
    a, mean = dense(BOX), torch.full((N,), 0.25, dtype=torch.float64)
    gram = 0.6**2 * a @ a.T + NOISE**2 * torch.eye(len(a))
    gain = 0.6**2 * torch.linalg.solve(gram, a).T
    expected = mean + (y.flatten(1) - a @ mean) @ gain.T
    x = PseudoInverse(mean=0.25, std=0.6)(y, BOX, PRIOR, streams()).samples
    torch.testing.assert_close(x.flatten(1), expected)
    x = PseudoInverse(std=None)(y, BOX, PRIOR, streams()).samples
    torch.testing.assert_close(x.flatten(1), y.flatten(1) @ a)


def least(objective, start):
    """The minimum of a smooth function, by another algorithm."""

    def both(x):
        x = torch.from_numpy(x).requires_grad_()
        value = objective(x.view(SHAPE))
        value.backward()
        return value.item(), x.grad.numpy()

    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    result = minimize(both, start.flatten().numpy(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(result.x).view(SHAPE)


def total_variation(x, smoothing):
    down = torch.nn.functional.pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 1))
    right = torch.nn.functional.pad(x[:, :, 1:] - x[:, :, :-1], (0, 1))
    return (down.square() + right.square() + smoothing**2).sqrt().sum()


def details(x, smoothing):
    c = (analyse(x, 2).square() + smoothing**2).sqrt()
    return c.sum() - c[..., :2, :2].sum()


@OPERATORS
@pytest.mark.parametrize(
    ("solver", "penalty"),
    [(TotalVariation(lam=0.05), total_variation), (Wavelet(lam=0.05, scales=2), details)],
    ids=["tv", "wavelet"],
)
def test_convex_floors_find_the_minimum(operator, solver, penalty):
    y = observe(operator, TRUTH)[0]

    def objective(x, smoothing=1e-4):
        return (y - operator(x)).square().sum() / 2 + 0.05 * penalty(x, smoothing)

    x = solver(y.unsqueeze(0), operator, PRIOR, streams([0])).samples[0, 0]
    reference = least(objective, x)
    assert objective(x, 0.0) < objective(reference, 0.0) + 5e-5
    assert rms(operator(x - reference)) < 0.01
    assert objective(1.1 * x, 0.0) > objective(x, 0.0) + 1e-3


def test_wavelet_denoising_is_soft_thresholding():
    y = observe(IDENTITY, TRUTH)
    c = analyse(y.view(CASES, *SHAPE), 2)
    soft = c.sign() * (c.abs() - 0.1).clamp(min=0)
    soft[..., :2, :2] = c[..., :2, :2]
    x = Wavelet(lam=0.1, scales=2)(y, IDENTITY, PRIOR, streams()).samples[:, 0]
    torch.testing.assert_close(x, synthesise(soft, 2), rtol=0, atol=1e-6)


def test_wavelet_is_daubechies():
    torch.testing.assert_close(split(2) @ split(2).T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(split(16) @ split(16).T, torch.eye(16, dtype=torch.float64))
    ramp = torch.arange(16, dtype=torch.float64)
    means, detail = (split(16) @ ramp).chunk(2)
    assert detail[1:-1].abs().max() < 1e-12 < detail[-1].abs()  # but for the jump at the end
    assert (means[1:-1].diff() - 2 * math.sqrt(2)).abs().max() < 1e-12
    torch.testing.assert_close(synthesise(analyse(TRUTH, 3), 3), TRUTH)


@pytest.mark.filterwarnings("ignore:Level value")
def test_wavelet_agrees_with_pywavelets():
    pywt = pytest.importorskip("pywt")
    c = pywt.wavedec2(TRUTH.numpy(), "db2", mode="periodization", level=2, axes=(-2, -1))
    expected, _ = pywt.coeffs_to_array(c, axes=(-2, -1))
    torch.testing.assert_close(analyse(TRUTH, 2), torch.from_numpy(expected))


# Libraries and what all have in common

PER_IMAGE = MotionBlur(SHAPE, 5, noise_std=NOISE)
SAMPLERS = [
    DCDP(iterations=4, descent=20, ddim_steps=4),
    DCDP(iterations=4, descent=20, ddim_steps=1),
    SITCOM(steps=4, descent=5),
    PGDM(steps=5),
    MMPS(steps=5, iterations=2),
    DDRM(steps=5),
    library.DDRM(steps=5),
]
ESTIMATORS = [
    ADMMPnP(steps=4),
    PseudoInverse(),
    TotalVariation(steps=5),
    Wavelet(steps=5, scales=2),
]


@pytest.mark.parametrize(("time", "t"), [(0.1, 99), (0.5, 499), (1.0, 999)])
def test_azulas_denoiser_is_ours(time, t):
    adapted, x = AsAzula(PRIOR, DDPMSchedule(999), clip=False), TRUTH.unsqueeze(1)
    time = torch.tensor(time, dtype=torch.float64)
    alpha, sigma = adapted.schedule(time)
    assert alpha.item() == pytest.approx(math.sqrt(alpha_bar(t)))
    assert sigma.item() == pytest.approx(math.sqrt(1 - alpha_bar(t)))
    torch.testing.assert_close(adapted(x, time).mean, PRIOR(x / alpha, sigma_of(t)))
    assert AsAzula(PRIOR, DDPMSchedule(999), clip=True)(100 * x, time).mean.abs().max() <= 1
    assert adapted.schedule(torch.tensor(0.0)) == (1, 0)


def available(solver):
    if isinstance(solver, library.DDRM):
        pytest.importorskip("deepinv")
    return solver


@pytest.mark.parametrize("solver", SAMPLERS + ESTIMATORS, ids=lambda s: type(s).__name__)
def test_batch_equals_singles_and_no_global_state_is_used(solver):
    available(solver)
    y = observe(PER_IMAGE.at(range(CASES)), TRUTH.unsqueeze(1))[:, 0]
    state = torch.get_rng_state()
    together = solver(y, PER_IMAGE.at(range(CASES)), PRIOR, streams(), members=2).samples
    assert torch.equal(torch.get_rng_state(), state)
    assert together.shape == (CASES, 2, *SHAPE)
    for i in range(CASES):
        single = solver(y[i : i + 1], PER_IMAGE.at([i]), PRIOR, streams([i]), members=2).samples
        torch.testing.assert_close(together[i : i + 1], single, rtol=0, atol=1e-6)
    assert torch.equal(together[:, 0], together[:, 1]) == (solver in ESTIMATORS)
    single = solver(y[:1].float(), PER_IMAGE.at([0]), PRIOR, streams([0])).samples
    assert single.dtype == torch.float32


@OPERATORS
@pytest.mark.parametrize(
    ("solver", "error", "spread"),
    [
        (DCDP(descent=3, rate=0.3, stop=50, clip=False), 0.4, (0.9, 1.7)),
        (DCDP(descent=3, stop=50, ddim_steps=1, clip=False), 0.4, (0.9, 2.2)),
        (SITCOM(clip=False), 0.5, (0.4, 0.9)),
        (PGDM(clip=False), 0.35, (0.45, 0.85)),
        (MMPS(steps=50, iterations=4, solver="cg"), 0.2, (0.55, 1.0)),
        (DDRM(steps=50), 0.4, (0.5, 0.95)),
        (library.DDRM(steps=50), 0.35, (0.5, 0.95)),
    ],
    ids=["dcdp_ddim", "dcdp_tweedie", "sitcom", "pgdm", "mmps", "ddrm", "ddrm of deepinv"],
)
def test_samples_are_near_the_exact_posterior(operator, solver, error, spread):
    available(solver)
    y = observe(operator, TRUTH[:1])
    samples = solver(y, operator, PRIOR, streams([0]), members=64).samples[0].flatten(1)
    mean, std = PRIOR.posterior(operator, y)
    measured = rms((samples.mean(0) - mean.flatten()) / std), rms(samples.std(0) / std)
    assert rms((PRIOR.mean - mean.flatten()) / std) > 1.9  # as far as the prior mean is
    assert measured[0] < error
    assert spread[0] < measured[1] < spread[1]


@pytest.mark.parametrize("noise_std", [0.0, 0.025, 0.2])
@pytest.mark.parametrize("kind", ["blur", "box"])
def test_ddrm_is_that_of_deepinv(kind, noise_std):
    """But where s ≤ γ, and for the last step without noise, in which what A sees becomes y."""
    pytest.importorskip("deepinv")
    operator = {
        "blur": GaussianBlur(SHAPE, 5, 1.0, noise_std=noise_std),
        "box": BoxInpainting(SHAPE, (2, 5), (3, 6), noise_std=noise_std),
    }[kind]
    y = observe(operator, TRUTH)
    settings = {"steps": 20, "eta": 0.6, "eta_b": 0.8}
    ours = DDRM(**settings)(y, operator, PRIOR, streams(), members=2).samples
    theirs = library.DDRM(**settings)(y, operator, PRIOR, streams(), members=2).samples
    if noise_std == 0:
        theirs = theirs + 0.8 * operator.pinv(y.unsqueeze(1) - operator(theirs))
    s = operator.singular_values
    same = not ((s > 0.03) & (s <= noise_std)).any()
    assert same == (kind == "box" or noise_std < 0.1)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-3) == same


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (DCDP, {"iterations": 0}),
        (DCDP, {"rate": 0.0}),
        (DCDP, {"momentum": 1.0}),
        (DCDP, {"start": 1001}),
        (DCDP, {"stop": 401}),
        (DCDP, {"power": -1.0}),
        (DCDP, {"ddim_steps": 0}),
        (SITCOM, {"lam": -1.0}),
        (SITCOM, {"steps": 1}),
        (SITCOM, {"start": 1000}),
        (ADMMPnP, {"lam": 0.0}),
        (ADMMPnP, {"last": 1.0}),
        (PseudoInverse, {"std": 0.0}),
        (TotalVariation, {"lam": math.inf}),
        (Wavelet, {"scales": 0}),
        (PGDM, {"eta": 1.5}),
        (MMPS, {"solver": "lu"}),
        (DDRM, {"eta": 1.5}),
        (DDRM, {"eta_b": -0.5}),
        (DDRM, {"start": 1000}),
        (DDRM, {"cutoff": -0.1}),
        (library.DDRM, {"eta_b": -0.5}),
    ],
)
def test_bad_settings_are_refused(method, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name}: value .*, allowed: "):
        method(**settings)


def test_images_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match="scales"):
        Wavelet(scales=4)(observe(BLUR, TRUTH), BLUR, PRIOR, streams())
