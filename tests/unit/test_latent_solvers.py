"""Latent-DPS, PSLD, ReSample, DCDP-LDM and DCDP-CM, held against one Gaussian in closed form.

The latents of one Gaussian are N(0, I): E[z0 | z_t] = √ᾱ_t z_t, and a DDIM step from t to s is a
factor cos(φ_t - φ_s) with cos φ = √ᾱ. With a linear codec and operator every method is then a
recursion of matrices, which the tests write down anew.
"""

import math
from dataclasses import replace

import pytest
import torch

from priorflow.operators.blur import GaussianBlur
from priorflow.operators.inpainting import BoxInpainting
from priorflow.operators.motion import MotionBlur
from priorflow.operators.nonlinear import HighDynamicRange, PhaseRetrieval
from priorflow.operators.resize import BicubicDownsample
from priorflow.priors.exact_latent import ExactLatent, LinearCodec
from priorflow.priors.mixture import ExactConsistency, ExactDenoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Diverged
from priorflow.solvers.restoration.common import levels
from priorflow.solvers.restoration.dcdp import DCDP, purify
from priorflow.solvers.restoration.dcdp_cm import DCDPCM
from priorflow.solvers.restoration.dcdp_ldm import DCDPLDM
from priorflow.solvers.restoration.ddpm import alpha_bar, sigma_of
from priorflow.solvers.restoration.latent import Decoded, descend, misfit
from priorflow.solvers.restoration.latent_dps import LatentDPS
from priorflow.solvers.restoration.psld import PSLD
from priorflow.solvers.restoration.resample import ReSample, consistent, estimate, resampled
from priorflow.systems.gaussian_mixture import GaussianMixture

SIZE, CASES, NOISE = 8, 3, 0.1
SHAPE, N, RANK = (1, SIZE, SIZE), SIZE**2, 20


def gaussian(mean=0.2):
    """Smooth images, N(μ, L Lᵀ + 0.05² I)."""
    axis = torch.arange(SIZE, dtype=torch.float64)
    line = torch.exp(-(axis[:, None] - axis).square() / 8)
    values, vectors = torch.linalg.eigh(0.1 * torch.kron(line, line))
    factors = (vectors * values.clamp(min=0).sqrt()).T.view(1, N, *SHAPE)
    means = mean * torch.kron(torch.cos(axis), torch.ones(SIZE, dtype=torch.float64))
    return GaussianMixture(torch.ones(1), means.view(1, *SHAPE), factors, residual_std=0.05)


SYSTEM = gaussian()
PRIORS = {rank: ExactLatent(SYSTEM, rank) for rank in (RANK, N)}
PIXELS = ExactDenoiser(SYSTEM)
MEAN = SYSTEM.means[0].flatten()
COVARIANCE = SYSTEM.factors.flatten(2)[0].T @ SYSTEM.factors.flatten(2)[0] + 0.05**2 * torch.eye(N)
BLUR = GaussianBlur(SHAPE, 5, 1.0, noise_std=NOISE)
BOX = BoxInpainting(SHAPE, (2, 5), (3, 6), noise_std=NOISE)
SMALL = BicubicDownsample(SHAPE, 2, NOISE)
OPERATORS = pytest.mark.parametrize("operator", [BLUR, BOX, SMALL], ids=["blur", "box", "small"])
RANKS = pytest.mark.parametrize("rank", [RANK, N])
TRUTH = SYSTEM.initial(1, Streams(0, "truth", cases=range(CASES)))[:, 0].double()


class Hidden:
    """An operator of which only some things are known."""

    def __init__(self, operator, *names):
        self.operator, self.noise_std = operator, operator.noise_std
        for name in names:
            setattr(self, name, getattr(operator, name))

    def __call__(self, x):
        return self.operator(x)


class Biased:
    """A codec whose encoder is off by 0.1: that it is used, and how often, is seen."""

    def __init__(self, codec):
        self.inner, self.shape, self.latent_shape = codec, codec.shape, codec.latent_shape

    def encode(self, x):
        return self.inner.encode(x) + 0.1

    def decode(self, z):
        return self.inner.decode(z)


class Prior:
    """A prior of latents from any function, with any codec. It notes what it is asked."""

    def __init__(self, denoise, codec):
        self.denoise, self.codec, self.shape, self.asked = denoise, codec, codec.latent_shape, []

    def __call__(self, z, sigma):
        self.asked.append((z.shape, sigma, torch.is_grad_enabled()))
        return self.denoise(z, sigma)


class Replay:
    """The streams of one member of a run: its share of the draws of all members."""

    def __init__(self, rng=None, drawn=None, member=None):
        self.rng, self.drawn, self.member = rng, drawn or [], member

    def normal(self, *shape):
        if self.member is None:
            self.drawn.append(self.rng.normal(*shape))
            return self.drawn[-1]
        return self.drawn.pop(0)[:, self.member, None]


def streams(cases=range(CASES)):
    return Streams(2, "solver", cases=cases)


def observe(operator, x=TRUTH):
    y = operator(x.unsqueeze(1))[:, 0]
    noise = Streams(1, "noise", cases=range(len(x))).normal(*y.shape[1:]).to(y)
    return y + operator.noise_std * noise


def dense(function, shape=SHAPE):
    """The matrix of a linear function."""
    return function(torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)).flatten(1).T


def solve(solver, y, operator, prior, members=1, rng=None):
    with torch.no_grad():
        return solver(y, operator, prior, rng or streams(range(len(y))), members).samples


def rms(x):
    return x.square().mean().sqrt().item()


def latent_matrices(prior, operator):
    """B and b of A(D(z)) = B z + b."""
    codec, a = prior.codec, dense(operator)
    return a @ (codec.basis * codec.scale), a @ codec.mean.flatten()


def turn(t, s):
    return math.cos(math.acos(math.sqrt(alpha_bar(t))) - math.acos(math.sqrt(alpha_bar(s))))


# Latent-DPS and PSLD


@RANKS
@pytest.mark.parametrize("solver", [LatentDPS(zeta=0), PSLD(omega=0, gamma=0)], ids=["dps", "psld"])
def test_without_guidance_the_prior_is_drawn_from(solver, rank):
    """D(c z_T): c is 1 but for the steps, so that the images have the law of the codec's."""
    prior = PRIORS[rank]
    samples = solve(replace(solver, steps=100), observe(BLUR), BLUR, prior, members=2)
    c = math.prod(turn(t, s) for t, s in levels(999, 100))
    z = streams().normal(2, *prior.shape).double()
    torch.testing.assert_close(samples, prior.codec.decode(c * z), rtol=0, atol=1e-6)
    assert 0.98 < c < 1


@OPERATORS
@RANKS
@pytest.mark.parametrize(
    "solver",
    [
        LatentDPS(zeta=0.7),
        PSLD(omega=0.7, gamma=0),
        PSLD(omega=0.3, gamma=0.2),
        PSLD(omega=0, gamma=0.4, glue="adjoint"),
    ],
    ids=["dps", "psld as dps", "psld", "psld adjoint"],
)
def test_guidance_is_the_gradient_of_the_published_loss(operator, solver, rank):
    """ẑ0 = √ᾱ z; with r = y - A D(ẑ0) and the biased encoder, E(x̂ + B r) = ẑ0 + G r + 0.1."""
    inner, y = PRIORS[rank], observe(operator)
    prior = Prior(inner, Biased(inner.codec))
    samples = solve(replace(solver, start=700, steps=12), y, operator, prior, members=2)
    b, offset = latent_matrices(inner, operator)
    back = operator.adjoint if getattr(solver, "glue", None) == "adjoint" else operator.pinv
    g = (inner.codec.basis / inner.codec.scale).T @ dense(back, y.shape[1:])
    omega, gamma = (
        (solver.zeta, 0) if isinstance(solver, LatentDPS) else (solver.omega, solver.gamma)
    )
    z = streams().normal(2, rank).double()
    for t, s in levels(700, 12):
        root = math.sqrt(alpha_bar(t))
        r = y.flatten(1).unsqueeze(1) - offset - root * z @ b.T
        glue = r @ g.T + 0.1
        pull = omega * r / r.norm(dim=-1, keepdim=True)
        pull = pull + gamma * glue / glue.norm(dim=-1, keepdim=True) @ g
        z = turn(t, s) * z + root * pull @ b
    expected = inner.codec.decode(z[..., None, None])
    torch.testing.assert_close(samples, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("operator", [PhaseRetrieval(), HighDynamicRange()])
def test_psld_wants_a_linear_operator(operator):
    with pytest.raises(ValueError, match=r"^operator: no adjoint, allowed: linear$"):
        solve(PSLD(), operator(TRUTH), operator, PRIORS[RANK])


def test_the_step_goes_through_the_network_and_any_decoder():
    """Finite differences of the loss, with a decoder and a denoiser that are not linear."""
    codec = Biased(PRIORS[RANK].codec)
    codec.decode = lambda z: torch.tanh(codec.inner.decode(z))
    prior = Prior(lambda z, sigma: torch.sin(z) / (1 + sigma**2), codec)
    y, t, s = observe(PhaseRetrieval()), 300, 250
    decoded = Decoded(PhaseRetrieval(), codec)
    z = streams().normal(2, *prior.shape).double()

    def loss(z0):
        return 0.6 * misfit(z0, y, decoded)

    def free(z0):
        return 0 * z0.flatten(2).sum(-1)

    def value(z):
        return loss(torch.sin(z / math.sqrt(alpha_bar(t))) / (1 + sigma_of(t) ** 2))

    gradient = descend(z, t, s, free, prior) - descend(z, t, s, loss, prior)
    h, direction = 1e-6, z.flip(0)
    slope = (value(z + h * direction) - value(z - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).flatten(2).sum(-1), slope)


# ReSample


def test_resampling_is_conditioning_of_a_gaussian():
    """z_s ~ N(√ᾱ_s ẑ0, 1 - ᾱ_s), of which z' = z_s + √v n is seen: dense algebra, and draws."""
    t, s, kappa = 400, 390, 40.0
    a, b = alpha_bar(t), alpha_bar(s)
    v = kappa * (1 - b) / (1 - a) * (1 - a / b)
    z0, z = (streams().normal(2, 1, 1, 1).double() for _ in range(2))
    z = z + 1
    joint = torch.tensor([[1 - b, 1 - b], [1 - b, 1 - b + v]]).double()
    gain = joint[0, 1] / joint[1, 1]
    prior_mean = math.sqrt(b) * z0
    mean, variance = prior_mean + gain * (z - prior_mean), joint[0, 0] - gain * joint[0, 1]
    zero = torch.zeros_like(z)
    torch.testing.assert_close(resampled(z0, z, t, s, kappa, zero), mean)
    moved = resampled(z0, z, t, s, kappa, zero + 1) - mean
    torch.testing.assert_close(moved, zero + variance.sqrt())
    assert 0.2 < gain < 0.8  # neither of the two is all


def test_estimates_are_ddim_steps_from_where_the_latents_are():
    path = levels(999, 500)[200:205]
    prior = Prior(PRIORS[N], PRIORS[N].codec)
    z = streams().normal(2, *prior.shape).double()
    expected = z * math.sqrt(alpha_bar(path[-1][0]))
    for t, s in path[:-1]:
        expected = turn(t, s) * expected
    torch.testing.assert_close(estimate(z, path, prior), expected)
    assert [sigma for _, sigma, _ in prior.asked] == [sigma_of(t) for t, _ in path]


def search(x, y, operator, steps, rate, tolerance, patience):
    """torch's AdamW for a single image; it stops where it should."""
    x, past = x.clone().requires_grad_(), []
    adam = torch.optim.AdamW([x], lr=rate)
    for _ in range(steps):
        loss = (y - operator(x)).square().mean()
        past.append(loss.item())
        worse = len(past) > patience and past[-1] > past[-1 - patience]
        if past[-1] < tolerance**2 or worse:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    return x.detach(), past


@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_every_image_is_fitted_until_it_fits(space):
    prior = PRIORS[RANK]
    operator = BLUR if space == "pixel" else Decoded(BLUR, prior.codec)
    noise = torch.tensor([0.01, 0.1, 0.6]).view(CASES, 1, 1, 1)
    y = BLUR(TRUTH) + noise * Streams(3, "noise", cases=range(CASES)).normal(*SHAPE).double()
    start = prior.codec.shape if space == "pixel" else prior.shape
    x = 0.3 * streams().normal(2, *start).double()
    together = consistent(x, y, operator, 80, 0.05, NOISE, 20)
    lengths = set()
    for i in range(CASES):
        for j in range(2):
            single, past = search(x[i, j], y[i], operator, 80, 0.05, NOISE, 20)
            torch.testing.assert_close(together[i, j], single, rtol=0, atol=1e-9)
            lengths.add(len(past))
    assert len(lengths) > 2
    reached = (y.unsqueeze(1) - operator(together)).flatten(2).square().mean(-1).sqrt()
    assert (reached[0] < NOISE).all()
    assert (reached[0] > 0.8 * NOISE).all()  # and not much further than that
    again = consistent(together, y, operator, 80, 0.05, NOISE, 20)
    assert torch.equal(again[0], together[0])


def test_a_fit_that_gets_worse_is_left():
    """A rate that is far too high: the loss goes down, and up again."""
    y, x = observe(BLUR), torch.zeros(CASES, 1, *SHAPE).double()
    together = consistent(x, y, BLUR, 300, 0.4, 0.0, 3)
    for i in range(CASES):
        single, past = search(x[i, 0], y[i], BLUR, 300, 0.4, 0.0, 3)
        assert len(past) < 100
        torch.testing.assert_close(together[i, 0], single, rtol=0, atol=1e-9)


QUICK = ReSample(steps=40, interval=6, pixel_steps=150, latent_steps=150, latent_rate=0.05)


@pytest.mark.parametrize("noise_std", [0.0, NOISE])
@pytest.mark.parametrize("hidden", [False, True], ids=["linear", "unknown"])
def test_resample_ends_at_the_tolerance(noise_std, hidden):
    operator = GaussianBlur(SHAPE, 3, 0.5, noise_std=noise_std)
    y = observe(operator)
    known = Hidden(operator) if hidden else operator
    solver = replace(QUICK, latent_steps=1500)
    with torch.no_grad():
        posterior = solver(y, known, PRIORS[N], streams(), members=2)
    reached = posterior.diagnostics["misfit"]
    assert reached.shape == (CASES, 1, 2)
    residual = (y.unsqueeze(1) - operator(posterior.samples)).flatten(2)
    torch.testing.assert_close(reached[:, 0], residual.square().mean(-1).sqrt())
    assert (reached < max(1e-3, noise_std)).all()
    assert (reached > 0.5 * max(1e-3, noise_std)).all()
    strict = replace(solver, tolerance=0.5 * noise_std, pixel_steps=5)
    if noise_std:
        with torch.no_grad():
            reached = strict(y, known, PRIORS[N], streams(), members=2).diagnostics["misfit"]
        assert (reached < 0.5 * noise_std).all()


def test_resample_is_the_sum_of_its_parts():
    """Where it resamples, how, in which space, and with how many calls of what."""
    counts = {"encode": 0, "decode": 0}
    inner = PRIORS[RANK]

    class Counting(Biased):
        def encode(self, x):
            counts["encode"] += 1
            return super().encode(x)

    prior, y = Prior(inner, Counting(inner.codec)), observe(BLUR)
    solver = ReSample(steps=11, start_resample=599, start_latent=400, interval=2, ddim_steps=3,
                      pixel_steps=4, pixel_rate=0.02, latent_steps=3, latent_rate=0.03, zeta=0.6,
                      kappa=5.0)  # fmt: skip
    samples = solve(solver, y, BLUR, prior, members=2)
    path, rng = levels(999, 11), streams()
    decoded, z = Decoded(BLUR, prior.codec), rng.normal(2, *inner.shape).double()
    rounds = []
    b, offset = latent_matrices(inner, BLUR)
    for i, (t, s) in enumerate(path):
        root = math.sqrt(alpha_bar(t))
        r = y.flatten(1).unsqueeze(1) - offset - root * z.flatten(2) @ b.T
        pull = 0.6 * alpha_bar(t) * root * r / r.norm(dim=-1, keepdim=True) @ b
        z = turn(t, s) * z + pull[..., None, None]
        if i in (4, 6, 8):  # indices 6, 4 and 2 from the end
            rounds.append(t)
            z0 = estimate(z, path[i + 1 : i + 4], inner)
            if t >= 400:
                x = consistent(inner.codec.decode(z0), y, BLUR, 4, 0.02, NOISE, 200)
                z0 = inner.codec.encode(x) + 0.1
            else:
                z0 = consistent(z0, y, decoded, 3, 0.03, NOISE, 200)
            z = resampled(z0, z, t, s, 5.0, rng.normal(2, *inner.shape).double())
    z = consistent(z, y, decoded, 3, 0.03, NOISE, 200)
    torch.testing.assert_close(samples, inner.codec.decode(z), rtol=0, atol=1e-6)
    assert rounds == [599, 400, 200]
    assert counts["encode"] == 2
    grads = [grad for _, _, grad in prior.asked]
    assert (grads.count(True), grads.count(False)) == (11, 3 + 3 + 2)


# DCDP-LDM


@OPERATORS
@pytest.mark.parametrize("noise_std", [0.0, NOISE])
@pytest.mark.parametrize("ddim_steps", [1, 20])
def test_dcdp_in_rotated_pixels_is_dcdp(operator, noise_std, ddim_steps):
    """A codec that turns images and shifts them is no codec, given the same noise.

    But for t = 1, where the noise of one level is taken for another's and the shift matters.
    """
    operator = replace(operator, noise_std=noise_std)
    y = observe(operator)
    settings = {"iterations": 5, "descent": 20, "stop": 20, "ddim_steps": ddim_steps}
    expected = solve(DCDP(**settings, clip=False), y, operator, PIXELS, members=2)
    rotation = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0)))[0]
    codec = LinearCodec(MEAN.view(SHAPE), rotation.double(), torch.ones(()))

    class Turned:
        rng = streams()

        def normal(self, *shape):
            n = self.rng.normal(*shape).double()
            return (n.flatten(2) @ rotation.double()).view_as(n)

    prior = Prior(lambda z, sigma: codec.encode(PIXELS(codec.decode(z), sigma)), codec)
    actual = solve(DCDPLDM(**settings), y, operator, prior, members=2, rng=Turned())
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@OPERATORS
@pytest.mark.parametrize("noise_std", [0.0, NOISE])
@pytest.mark.parametrize("mode", ["pixel", "latent"])
def test_dcdp_ldm_tweedie_is_a_linear_recursion(operator, noise_std, mode):
    """The encoder counts once for a purification, and is the last thing that is done in pixels."""
    operator, inner = replace(operator, noise_std=noise_std), PRIORS[RANK]
    prior, y = Prior(inner, Biased(inner.codec)), observe(operator)
    solver = DCDPLDM(mode, iterations=4, descent=7, rate=0.3, start=600, stop=100, ddim_steps=1)
    samples = solve(solver, y, operator, prior, members=2)
    encoder = (inner.codec.basis / inner.codec.scale).T
    rng, target = streams(), y.flatten(1).unsqueeze(1)
    if mode == "latent":
        (a, offset), x = latent_matrices(inner, operator), rng.normal(2, RANK).double()
    else:
        a, offset, x = dense(operator), 0.0, torch.zeros(CASES, 2, N).double()
    for k, t in enumerate((600, 433, 267, 100)):
        v = torch.zeros_like(x)
        for _ in range(7):
            v = 0.9 * v + (x @ a.T + offset - target) @ a
            x = x - 0.3 * v
        z = 0.1 + (x if mode == "latent" else (x - MEAN) @ encoder.T)
        if noise_std or k < 3:
            bar = alpha_bar(t - 1)
            z = math.sqrt(bar) * z + math.sqrt(1 - bar) * rng.normal(2, RANK).double()
            z = math.sqrt(bar) * z
        elif mode == "latent":
            z = x
        image = MEAN + z @ (inner.codec.basis * inner.codec.scale).T
        x = z if mode == "latent" else image
    torch.testing.assert_close(samples.flatten(2), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["pixel", "latent"])
def test_dcdp_ldm_says_how_well_it_fits(mode):
    y = observe(BLUR)
    posterior = DCDPLDM(mode, descent=5)(y, BLUR, PRIORS[RANK], streams(), members=2)
    reached = posterior.diagnostics["misfit"]
    assert reached.shape == (CASES, 10, 2)
    residual = (y.unsqueeze(1) - BLUR(posterior.samples)).flatten(2)
    torch.testing.assert_close(reached[:, -1], residual.square().mean(-1).sqrt())
    assert DCDPLDM(iterations=3, start=1000, stop=50).levels() == [1000, 525, 50]


def test_dcdp_ldm_calls():
    calls = {}
    for noise_std in (0.0, NOISE):
        operator = replace(BLUR, noise_std=noise_std)
        for steps in (1, 20):
            prior = Prior(PRIORS[RANK], PRIORS[RANK].codec)
            solve(DCDPLDM(descent=2, ddim_steps=steps), observe(operator), operator, prior)
            assert not any(grad for _, _, grad in prior.asked)
            calls[noise_std, steps] = len(prior.asked)
    assert calls == {(NOISE, 20): 182, (NOISE, 1): 10, (0.0, 20): 180, (0.0, 1): 9}


# DCDP-CM


@OPERATORS
@pytest.mark.parametrize("noise_std", [0.0, NOISE])
@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_dcdp_cm_is_a_linear_recursion(operator, noise_std, epsilon):
    """The gain of the flow in the eigenbasis of C, and noise of variance σ² - ε²."""
    operator = replace(operator, noise_std=noise_std)
    y, prior = observe(operator), ExactConsistency(SYSTEM, epsilon)
    solver = DCDPCM(iterations=4, descent=7, rate=0.9, start=600, stop=100, clip=False)
    samples = solve(solver, y, operator, prior, members=2)
    values, vectors = torch.linalg.eigh(COVARIANCE)
    a, rng, x = dense(operator), streams(), torch.zeros(CASES, 2, N).double()
    for k, t in enumerate((600, 433, 267, 100)):
        v = torch.zeros_like(x)
        for _ in range(7):
            v = 0.9 * v + (x @ a.T - y.flatten(1).unsqueeze(1)) @ a
            x = x - 0.9 * v
        if noise_std or k < 3:
            variance = (1 - alpha_bar(t - 1)) / alpha_bar(t - 1)
            noisy = x + math.sqrt(variance - epsilon**2) * rng.normal(2, N).double() - MEAN
            gain = ((values + epsilon**2) / (values + variance)).sqrt()
            x = MEAN + noisy @ vectors * gain @ vectors.T
    torch.testing.assert_close(samples.flatten(2), x, rtol=0, atol=1e-5)


def test_dcdp_cm_is_what_dcdp_ddim_tends_to():
    """Down the same flow from the same noise: the more steps, the nearer."""
    y, settings = observe(BLUR), {"iterations": 3, "descent": 5, "stop": 200, "clip": False}
    limit = solve(DCDPCM(**settings), y, BLUR, ExactConsistency(SYSTEM, 0.0), members=2)
    errors = []
    for steps in (1, 20, 300):
        x = solve(DCDP(**settings, ddim_steps=steps), y, BLUR, PIXELS, members=2)
        errors.append(rms(x - limit))
    assert errors[1] < 0.15 * errors[0]
    assert errors[2] < 0.02 * errors[0]


def test_a_consistency_map_can_be_purified_with():
    """But for ε and the noise of t = 1, a purification of DCDP in one step is the same."""
    prior, x = ExactConsistency(SYSTEM, 0.0), TRUTH.unsqueeze(1)
    settings = {"iterations": 2, "descent": 1, "rate": 1e-12, "momentum": 0.0, "final": False}
    samples = solve(DCDPCM(**settings, clip=False), observe(BLUR), BLUR, prior)
    expected = purify(torch.zeros_like(x), streams().normal(1, *SHAPE), 400, prior, 1, clip=False)
    torch.testing.assert_close(samples, expected, rtol=0, atol=1e-6)


def test_dcdp_cm_clips():
    class Loud(ExactConsistency):
        def forward(self, x, sigma):
            return 10 * super().forward(x, sigma)

    for clip in (True, False):
        solver = DCDPCM(iterations=2, descent=5, clip=clip)
        samples = solve(solver, observe(BLUR), BLUR, Loud(SYSTEM))
        assert (samples.abs().max() <= 1) == clip


def test_dcdp_cm_wants_levels_above_epsilon():
    prior = ExactConsistency(SYSTEM, 0.05)
    with pytest.raises(
        ValueError, match=r"^epsilon: value 0\.05, allowed: at most 0\.01, by `stop`"
    ):
        solve(DCDPCM(), observe(BLUR), BLUR, prior)


# What all have in common

PER_IMAGE = MotionBlur(SHAPE, 5, noise_std=NOISE)
SOLVERS = [
    LatentDPS(steps=6),
    PSLD(steps=6),
    ReSample(steps=12, interval=3, pixel_steps=30, latent_steps=30),
    DCDPLDM(iterations=3, descent=5, ddim_steps=4),
    DCDPLDM("latent", iterations=3, descent=5, rate=0.1, ddim_steps=4),
    DCDPCM(iterations=3, descent=5),
]
ALL = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def prior_of(solver):
    return ExactConsistency(SYSTEM) if isinstance(solver, DCDPCM) else PRIORS[RANK]


@ALL
def test_batch_equals_singles_and_no_global_state_is_used(solver):
    """Every case by its own operator and norm, and every member by its own norm."""
    operator, prior = PER_IMAGE.at(range(CASES)), prior_of(solver)
    y, rng, state = observe(operator), Replay(streams()), torch.get_rng_state()
    together = solve(solver, y, operator, prior, 2, rng)
    assert torch.equal(torch.get_rng_state(), state)
    assert together.shape == (CASES, 2, *SHAPE)
    assert rms(together[:, 0] - together[:, 1]) > 1e-3
    for i in range(CASES):
        single = solve(solver, y[i, None], PER_IMAGE.at([i]), prior, 2, streams([i]))
        torch.testing.assert_close(together[i, None], single, rtol=0, atol=1e-9)
    for j in range(2):
        replay = Replay(drawn=list(rng.drawn), member=j)
        single = solve(solver, y, operator, prior, 1, replay)
        torch.testing.assert_close(together[:, j, None], single, rtol=0, atol=1e-9)
    single = solve(solver, y[:1].float(), PER_IMAGE.at([0]), prior, rng=streams([0]))
    assert single.dtype == torch.float32
    assert not single.requires_grad


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not isinstance(s, PSLD)])
@pytest.mark.parametrize("operator", [HighDynamicRange(2.0), PhaseRetrieval()])
def test_operators_need_not_be_linear(solver, operator):
    """Images fit better than draws of the prior do."""
    solver = replace(solver, rate=0.05) if hasattr(solver, "rate") else solver
    solver = replace(solver, steps=60) if hasattr(solver, "steps") else solver
    y = observe(operator)
    samples = solve(solver, y, operator, prior_of(solver), members=2)
    z = Streams(5, "draws", cases=range(CASES)).normal(20, RANK, 1, 1).double()
    draws = PRIORS[RANK].codec.decode(z)
    assert misfit(samples, y, operator).mean() < 0.8 * misfit(draws, y, operator).mean()


@ALL
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_finite_is_found(solver):
    y = observe(BLUR)
    y[1, 0, 0, 0] = torch.nan
    with pytest.raises(Diverged, match=r"case\(s\) \[1\]"):
        solve(solver, y, BLUR, prior_of(solver))


# Root mean square of what the mean of 64 members is off the exact posterior mean, in exact
# posterior standard deviations, and of their spread: with bounds about a third off what was
# measured. None of the methods is exact.
@pytest.mark.parametrize(
    ("solver", "error", "spread"),
    [
        (LatentDPS(zeta=0.5, steps=100), 0.58, (0.7, 1.3)),
        (PSLD(omega=0.5, gamma=0.1, steps=100), 0.9, (0.7, 1.3)),
        (QUICK, 0.95, (0.6, 1.1)),
        (DCDPLDM(descent=3, rate=0.3, stop=50), 0.8, (0.7, 1.4)),
        (DCDPLDM(descent=3, rate=0.1, stop=50, ddim_steps=1), 0.98, (0.8, 1.5)),
        (DCDPLDM("latent", descent=3, rate=0.3, stop=50), 0.92, (1.0, 1.9)),
        (DCDPCM(descent=3, rate=0.3, stop=50, clip=False), 0.52, (0.8, 1.5)),
    ],
)
def test_samples_are_near_the_exact_posterior(solver, error, spread):
    y, a = observe(BLUR, TRUTH[:1]), dense(BLUR)
    gram = a @ COVARIANCE @ a.T + NOISE**2 * torch.eye(N)
    gain = torch.linalg.solve(gram, a @ COVARIANCE).T
    mean = MEAN + (y.flatten(1) - a @ MEAN) @ gain.T
    std = (COVARIANCE - gain @ a @ COVARIANCE).diag().sqrt()
    prior = ExactConsistency(SYSTEM) if isinstance(solver, DCDPCM) else PRIORS[N]
    samples = solve(solver, y, BLUR, prior, members=64)[0].flatten(1)
    measured = rms((samples.mean(0) - mean) / std), rms(samples.std(0) / std)
    assert rms((MEAN - mean) / std) > 1.7  # as far as the prior mean is
    assert measured[0] < error
    assert spread[0] < measured[1] < spread[1]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (LatentDPS, {"zeta": -1.0}),
        (LatentDPS, {"steps": 1}),
        (LatentDPS, {"start": 1000}),
        (PSLD, {"omega": math.inf}),
        (PSLD, {"gamma": -0.1}),
        (PSLD, {"steps": 0}),
        (PSLD, {"glue": "identity"}),
        (ReSample, {"zeta": -1.0}),
        (ReSample, {"start": 0}),
        (ReSample, {"start_resample": -1}),
        (ReSample, {"interval": 0}),
        (ReSample, {"ddim_steps": 0}),
        (ReSample, {"pixel_steps": -1}),
        (ReSample, {"latent_rate": 0.0}),
        (ReSample, {"patience": 0}),
        (ReSample, {"kappa": 0.0}),
        (ReSample, {"tolerance": -1.0}),
        (DCDPLDM, {"mode": "image"}),
        (DCDPLDM, {"iterations": 0}),
        (DCDPLDM, {"ddim_steps": 0}),
        (DCDPCM, {"descent": 0}),
        (DCDPCM, {"rate": 0.0}),
        (DCDPCM, {"stop": 401}),
    ],
)
def test_bad_settings_are_refused(method, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name}: value .*, allowed: "):
        method(**settings)
