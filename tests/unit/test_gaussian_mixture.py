"""Mixtures of low-rank Gaussians, held against dense algebra, Tweedie's formula and sampling."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from priorflow.metrics.base import Case
from priorflow.metrics.exactness import coverage, mean_error, sliced_w2
from priorflow.operators.blur import GaussianBlur
from priorflow.operators.inpainting import BoxInpainting, RandomInpainting
from priorflow.operators.motion import MotionBlur
from priorflow.priors.denoiser import Denoiser
from priorflow.priors.mixture import ExactConsistency, ExactDenoiser
from priorflow.rng import Streams
from priorflow.solvers.base import Diverged
from priorflow.solvers.restoration.exact import ExactPosterior
from priorflow.stages.cost import Cost
from priorflow.systems.base import Standardised, System
from priorflow.systems.gaussian_mixture import GaussianMixture, digits, fit

SHAPE, SIZE, RANK, CASES = (2, 3, 3), 18, 4, 3
DRAWS = 20_000


def mixture(components=3, shape=SHAPE, rank=RANK, spread=0.3):
    g = torch.Generator().manual_seed(components)
    weights = torch.arange(1.0, components + 1)
    return GaussianMixture(
        weights / weights.sum(),
        spread * torch.randn(components, *shape, generator=g),
        0.4 * torch.randn(components, rank, *shape, generator=g),
        residual_std=0.2,
    )


def dense(system):
    """π (K,), μ (K, n) and C (K, n, n) by the definition."""
    factors = system.factors.double().flatten(2)
    covariance = factors.mT @ factors
    covariance = covariance + system.residual_std**2 * torch.eye(covariance.shape[-1])
    return system.weights.double(), system.means.double().flatten(1), covariance


def law(system, sigma=0.0):
    """The law of x0 + σ n, from torch."""
    weights, means, covariance = dense(system)
    covariance = covariance + sigma**2 * torch.eye(covariance.shape[-1])
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariance))


def moments(weights, means, covariances):
    """Mean and covariance of a mixture with components (K, n), (K, n, n)."""
    mean = weights @ means
    offset = means - mean
    return mean, torch.einsum("k,kij->ij", weights, covariances) + (offset.T * weights) @ offset


def check_gaussian(x, mean, covariance):
    """Whether draws x (m, n) of a Gaussian have this mean and covariance, to 3 standard errors."""
    m, n = x.shape
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, (x.double() - mean).T, upper=False).T
    distance = m * white.mean(0).square().sum()  # chi-squared with n degrees of freedom
    assert abs(distance - n) < 3 * math.sqrt(2 * n)
    distance = m * (white.T @ white / m - torch.eye(n)).square().sum()
    assert abs(distance - n * (n + 1)) < 3 * 2 * math.sqrt(n * (n + 1))


class Matrix:
    """A given by a matrix (…, m, n)."""

    def __init__(self, matrix, noise_std=0.3):
        self.matrix, self.noise_std = matrix, noise_std

    def __call__(self, x):
        return (self.matrix.to(x) @ x.flatten(-3).unsqueeze(-1)).squeeze(-1)

    def adjoint(self, y):
        return (self.matrix.to(y).mT @ y.unsqueeze(-1)).squeeze(-1).unflatten(-1, SHAPE)


def operators(noise_std=0.3):
    g = torch.Generator().manual_seed(1)
    wide, tall = torch.randn(7, SIZE, generator=g), torch.randn(25, SIZE, generator=g)
    each = torch.randn(CASES, 1, 7, SIZE, generator=g)
    box = torch.eye(SIZE)[5:]
    singular = (tall[:SIZE, :5].round() @ wide[:5].round()) / 4  # exactly, in single precision
    parts = {"wide": wide, "tall": tall, "singular": singular, "box": box}
    return {name: Matrix(a, noise_std) for name, a in {**parts, "each": each}.items()}


def problem(system, operator, name="test exact"):
    rng = Streams(0, name, cases=range(CASES))
    y = operator(system.initial(1, rng))[:, 0]
    return y + operator.noise_std * rng.normal(*y.shape[1:]), rng


def conditional(system, operator, y, case):
    """p(x | y) by dense algebra: weights (K,), means (K, n), covariances (K, n, n).

    Without noise by the pseudo-inverse; y then has a density on the range of A alone.
    """
    weights, means, c = dense(system)
    a = operator.matrix.double()
    a = a[case, 0] if a.ndim > 2 else a
    left, s, _ = torch.linalg.svd(a, full_matrices=False)
    a, y = (left[:, s > 1e-5].T @ v for v in (a, y[case].double()))
    gram = a @ c @ a.T + operator.noise_std**2 * torch.eye(len(a))
    evidence = MultivariateNormal(means @ a.T, gram).log_prob(y)
    k = c @ a.T @ torch.linalg.inv(gram)
    centres = means + torch.einsum("knm,km->kn", k, y - means @ a.T)
    return (weights.log() + evidence).softmax(0), centres, c - k @ a @ c


# The system


def test_draws_of_one_component_have_its_moments():
    system = mixture(1)
    x = system.initial(DRAWS, Streams(0, "draws", cases=range(2)))
    assert x.shape == (2, DRAWS, *SHAPE)
    _, means, covariances = dense(system)
    for case in x.flatten(2):
        check_gaussian(case, means[0], covariances[0])
    assert not torch.equal(x[0], x[1])


def test_draws_have_the_density_of_the_mixture():
    """The mean log-density of the draws is that of torch's draws, and so is their mean."""
    system = mixture(3, spread=1.0)
    x = system.initial(DRAWS, Streams(0, "draws"))[0].flatten(1).double()
    torch.manual_seed(0)
    reference = law(system).sample((DRAWS,))
    for of in (law(system).log_prob, torch.Tensor.square, lambda x: x):
        a, b = of(x), of(reference)
        error = (a.var(0) + b.var(0)).div(DRAWS).sqrt()
        assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 4.5


def test_the_mixture_is_a_system_of_single_images():
    system = mixture()
    assert isinstance(system, System)
    rng = Streams(0, "draws")
    x = Standardised(system).initial(5, rng)
    assert torch.equal(x, system.initial(5, Streams(0, "draws")))
    with pytest.raises(NotImplementedError, match="independent"):
        system.step(x, rng)
    with pytest.raises(NotImplementedError, match="independent"):
        system.log_transition(x, x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.tensor([0.5, 0.5, 0.5])}, "weights"),
        ({"means": torch.zeros(2, *SHAPE)}, "means, factors"),
        ({"factors": torch.zeros(3, 2, 1, 3, 3)}, "means, factors"),
        ({"residual_std": 0.0}, "residual_std: value 0.0"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**{**vars(mixture()), **change})


def test_fit_keeps_the_leading_eigenvectors_and_the_variance():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    scale = torch.linspace(2, 0.5, SIZE).double()
    pictures = scale * torch.randn(300, SIZE, generator=g).double() + labels.unsqueeze(1)
    system = fit(pictures.view(-1, *SHAPE), labels, rank=5)
    weights, means, covariances = dense(system)
    empirical = torch.stack([torch.cov(pictures[labels == k].T) for k in range(3)])
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3).double())
    torch.testing.assert_close(means[1], pictures[labels == 1].mean(0))
    expected = torch.linalg.eigvalsh(empirical)[:, -5:]
    torch.testing.assert_close(torch.linalg.eigvalsh(covariances)[:, -5:], expected)
    vectors = torch.linalg.eigh(empirical).eigenvectors[..., -5:]
    torch.testing.assert_close(covariances @ vectors, empirical @ vectors)
    total = covariances.diagonal(dim1=1, dim2=2).sum()
    torch.testing.assert_close(total, empirical.diagonal(dim1=1, dim2=2).sum())
    with pytest.raises(ValueError, match="rank: value 18, allowed: 1 to 17"):
        fit(pictures.view(-1, *SHAPE), labels, rank=SIZE)


def test_digits_are_the_real_ones():
    """Pictures that the fit has seen are recognised by their most likely component."""
    from sklearn.datasets import load_digits

    system, data = digits(rank=8, size=8), load_digits()
    assert system.shape == (1, 8, 8)
    assert torch.equal(system.factors, digits(rank=8, size=8).factors)
    pictures = torch.from_numpy(data.images / 8 - 1).unsqueeze(1)
    assert (
        pictures.mean(0) - torch.einsum("k,kchw->chw", system.weights, system.means)
    ).abs().max() < 1e-9
    _, means, covariances = dense(system)
    likelihood = MultivariateNormal(means, covariances).log_prob(pictures.flatten(1).unsqueeze(1))
    right = likelihood.argmax(1) == torch.from_numpy(data.target)
    assert right.double().mean() > 0.97


# The prior


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_the_log_density_is_that_of_torch(sigma):
    system = mixture()
    x = law(system, sigma).sample((6,))
    log_density = ExactDenoiser(system).log_density(x.view(6, *SHAPE), sigma)
    torch.testing.assert_close(log_density, law(system, sigma).log_prob(x))


def test_the_denoiser_is_the_dense_formula():
    """With any leading dimensions, and a noise level for every image."""
    system = mixture()
    weights, means, c = dense(system)
    prior = ExactDenoiser(Standardised(system))
    assert isinstance(prior, Denoiser)
    sigma = torch.tensor([[0.01, 0.1, 0.5], [1.0, 5.0, 50.0]]).double()
    x = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    denoised = prior(x, sigma)
    assert denoised.shape == x.shape
    for i, j in np.ndindex(2, 3):
        noisy = c + sigma[i, j] ** 2 * torch.eye(SIZE)
        point = x[i, j].flatten()
        w = (weights.log() + MultivariateNormal(means, noisy).log_prob(point)).softmax(0)
        parts = means + torch.einsum("kab,kb->ka", c @ torch.linalg.inv(noisy), point - means)
        torch.testing.assert_close(denoised[i, j].flatten(), w @ parts)
        torch.testing.assert_close(prior(x[i, j], float(sigma[i, j])), denoised[i, j])


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_the_denoiser_obeys_tweedie(sigma):
    """D(x, σ) = x + σ² ∇ log p_σ(x), with torch's density and autograd's gradient."""
    system = mixture()
    x = law(system, sigma).sample((8,)).requires_grad_()
    (score,) = torch.autograd.grad(law(system, sigma).log_prob(x).sum(), x)
    denoised = ExactDenoiser(system)(x.detach().view(8, *SHAPE), sigma).flatten(1)
    torch.testing.assert_close(denoised, x.detach() + sigma**2 * score)


def test_the_denoiser_can_be_differentiated():
    prior = ExactDenoiser(mixture())
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    assert torch.autograd.gradcheck(lambda x: prior(x, 0.3), x.requires_grad_())


def test_single_precision_and_the_limits_of_the_noise():
    prior, system = ExactDenoiser(digits()), digits()
    x = system.initial(4, Streams(0, "draws"))[0]
    for sigma in (0.0, 1e-3, 0.1, 2.0, 80.0):
        noisy = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        single = prior(noisy, sigma)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), prior(noisy.double(), sigma), atol=1e-3, rtol=0)
    torch.testing.assert_close(prior(x, 0.0), x)
    mean, _ = moments(*dense(system))
    torch.testing.assert_close(prior(x, 1e5)[0].flatten().double(), mean, atol=1e-3, rtol=0)


def test_evaluations_are_counted():
    prior, cost = ExactDenoiser(mixture()), Cost()
    cost.network(prior.network)
    x = torch.zeros(3, 5, *SHAPE, requires_grad=True)
    prior(x, 0.5).sum().backward()
    assert cost.counts["nfe"] == cost.counts["nfe_backward"] == 15


def test_the_consistency_map_follows_the_probability_flow():
    """It is the identity at ε, and constant along dx/dσ = (x - D) / σ."""
    system = mixture(1)
    prior, consistency = ExactDenoiser(system), ExactConsistency(system, epsilon=0.05)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(consistency(x, 0.05), x)
    sigma = torch.tensor(0.7).double()
    flow = (x - prior(x, sigma)) / sigma
    tangents = (flow, torch.ones_like(sigma))
    value, change = torch.autograd.functional.jvp(consistency, (x, sigma), tangents)
    torch.testing.assert_close(change, torch.zeros_like(x))
    assert (value - x).abs().max() > 0.1


def test_the_consistency_map_carries_one_law_to_the_other():
    """N(μ, C + σ² I) becomes N(μ, C + ε² I)."""
    system, sigma, epsilon = mixture(1), 0.7, 0.05
    _, (mean,), (c,) = dense(system)
    consistency = ExactConsistency(system, epsilon)
    images = torch.cat((torch.zeros(1, SIZE), torch.eye(SIZE))).double() + mean
    centre, *columns = consistency(images.view(-1, *SHAPE), sigma).flatten(1)
    torch.testing.assert_close(centre, mean)
    f = torch.stack(columns, 1) - mean.unsqueeze(1)
    eye = torch.eye(SIZE)
    torch.testing.assert_close(f @ (c + sigma**2 * eye) @ f.T, c + epsilon**2 * eye)


def test_the_consistency_map_wants_one_gaussian():
    with pytest.raises(ValueError, match="3 components, allowed: one"):
        ExactConsistency(mixture(3))
    with pytest.raises(ValueError, match="epsilon: value -1"):
        ExactConsistency(mixture(1), epsilon=-1)


# The posterior


@pytest.mark.parametrize("name", operators())
@pytest.mark.parametrize("noise_std", [0.3, 0.0])
@pytest.mark.parametrize("components", [1, 3])
def test_the_posterior_is_that_of_dense_algebra(name, noise_std, components):
    """Mean and variance of every pixel; without noise, the exact condition A x = y."""
    system, operator = mixture(components), operators(noise_std)[name]
    y, rng = problem(system, operator)
    posterior = ExactPosterior()(y, operator, ExactDenoiser(system), rng)
    for case in range(CASES):
        mean, covariance = moments(*conditional(system, operator, y, case))
        diagnostics = {key: v[case].flatten() for key, v in posterior.diagnostics.items()}
        close = {"atol": 1e-5 if noise_std == 0 else 1e-6, "rtol": 0}  # y is in single precision
        torch.testing.assert_close(diagnostics["mean"], mean, **close)
        torch.testing.assert_close(diagnostics["variance"], covariance.diagonal(), **close)


@pytest.mark.parametrize("noise_std", [0.3, 0.0])
@pytest.mark.parametrize("kind", [GaussianBlur, BoxInpainting, MotionBlur, RandomInpainting])
def test_with_a_white_prior_the_mean_is_the_proximal_map_of_the_operator(kind, noise_std):
    """For the operators of images, some of them another one for every image."""
    shape = (2, 8, 8)
    settings = {
        GaussianBlur: {"size": 5},
        BoxInpainting: {"rows": (2, 5), "columns": (2, 5)},
        MotionBlur: {"size": 5},
        RandomInpainting: {},
    }
    operator = kind(shape=shape, noise_std=noise_std, **settings[kind])
    operator = operator.at(range(CASES)) if hasattr(operator, "at") else operator
    white = GaussianMixture(torch.ones(1), torch.ones(1, *shape), torch.zeros(1, 1, *shape), 0.5)
    y, rng = problem(white, operator)
    mean = ExactPosterior(floor=1e-4)(y, operator, ExactDenoiser(white), rng).diagnostics["mean"]
    y, z0 = y.double().unsqueeze(1), torch.ones(CASES, 1, *shape).double()
    expected = operator.prox(z0, y, 0.5**2, noise_std=max(noise_std, 1e-4))
    torch.testing.assert_close(mean, expected[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["wide", "each"])
def test_samples_of_one_gaussian_have_the_posterior_covariance(name):
    system, operator = mixture(1), operators()[name]
    y, rng = problem(system, operator)
    samples = ExactPosterior()(y, operator, ExactDenoiser(system), rng, DRAWS).samples
    assert samples.shape == (CASES, DRAWS, *SHAPE)
    assert samples.dtype == y.dtype
    for case, x in enumerate(samples.flatten(2)):
        _, (mean,), (covariance,) = conditional(system, operator, y, case)
        check_gaussian(x, mean, covariance)


def test_samples_of_a_mixture_have_its_density():
    """More than one component is likely, and members choose among them as the posterior does."""
    system = mixture(3, spread=0.1)
    operator = Matrix(torch.eye(SIZE)[:3], noise_std=0.5)
    y, rng = problem(system, operator)
    samples = ExactPosterior()(y, operator, ExactDenoiser(system), rng, DRAWS).samples
    torch.manual_seed(0)
    for case, x in enumerate(samples.flatten(2).double()):
        weights, means, covariances = conditional(system, operator, y, case)
        assert weights.max() < 0.95
        exact = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))
        reference = exact.sample((DRAWS,))
        for of in (exact.log_prob, torch.Tensor.square, lambda x: x):
            a, b = of(x), of(reference)
            error = (a.var(0) + b.var(0)).div(DRAWS).sqrt()
            assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 4.5


def test_a_mixture_posterior_agrees_with_importance_sampling():
    """Draws of the prior, weighed by their likelihood: no algebra in common."""
    system = mixture(3, shape=(1, 2, 2), rank=1, spread=0.5)
    operator = Matrix(torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]), noise_std=0.4)
    y, rng = problem(system, operator, "importance")
    diagnostics = ExactPosterior()(y, operator, ExactDenoiser(system), rng).diagnostics
    x = system.initial(400_000, Streams(1, "importance"))[0].double()
    misfit = (y.unsqueeze(1) - operator(x)) / operator.noise_std
    weights = (-misfit.square().sum(-1) / 2).softmax(1)
    x = x.flatten(1)
    for of, name in ((lambda x, m: x, "mean"), (lambda x, m: (x - m).square(), "variance")):
        for w, m, exact in zip(weights, diagnostics["mean"], diagnostics[name], strict=True):
            values, exact = of(x, m.flatten()), exact.flatten()
            error = (w.square() @ (values - exact).square()).sqrt()
            assert ((w @ values - exact) / error).abs().max() < 4.5  # of 24 numbers


def test_truth_and_samples_are_exchangeable():
    """What the mixture drew lies in the intervals of its posterior as often as they promise."""
    system, operator = mixture(), operators()["wide"]
    rng = Streams(0, "calibration", cases=range(400))
    truth = system.initial(1, rng)[:, 0]
    y = operator(truth) + operator.noise_std * rng.normal(7)
    samples = ExactPosterior()(y, operator, ExactDenoiser(system), rng, members=9).samples
    posterior, case = ensemble(samples.numpy(), truth.numpy())
    for level in (0.5, 0.9):
        values = coverage(posterior, case, level)
        assert abs(float(values.mean()) - level) < 3 * float(values.std()) / math.sqrt(400)


def test_samples_without_noise_are_observed_as_y():
    system, operator = mixture(), operators(0.0)["box"]
    y, rng = problem(system, operator)
    samples = ExactPosterior()(y, operator, ExactDenoiser(system), rng, members=4).samples
    assert (operator(samples) - y.unsqueeze(1)).abs().max() < 1e-4
    assert samples.std(1).flatten(1)[:, :5].min() > 0.01


def test_a_batch_is_what_singles_are():
    system, operator = mixture(), operators()["each"]
    y, _ = problem(system, operator)
    prior, solver = ExactDenoiser(system), ExactPosterior()
    batch = solver(y, operator, prior, Streams(0, "batch", cases=range(CASES)), members=5)
    for i in range(CASES):
        rng, alone = Streams(0, "batch", cases=[i]), Matrix(operator.matrix[i : i + 1])
        single = solver(y[i : i + 1], alone, prior, rng, members=5)
        torch.testing.assert_close(single.samples[0], batch.samples[i])
        for name, values in single.diagnostics.items():
            torch.testing.assert_close(values[0], batch.diagnostics[name][i])


def test_between_mean_and_draws():
    """Members are m + t (x - m), so that their squared error is tr Σ (1 + t²)."""
    system, operator = mixture(), operators()["wide"]
    y, _ = problem(system, operator)
    prior, streams = ExactDenoiser(system), partial(Streams, 0, "spread", cases=range(CASES))
    whole = ExactPosterior()(y, operator, prior, streams(), members=3)
    mean = whole.diagnostics["mean"].unsqueeze(1).float()
    for t in (0.0, 0.4):
        part = ExactPosterior(spread=t)(y, operator, prior, streams(), members=3).samples
        torch.testing.assert_close(part, mean + t * (whole.samples - mean))
    with pytest.raises(ValueError, match="spread: value 1"):
        ExactPosterior(spread=1.1)


def test_what_has_no_exact_posterior_is_refused():
    system, operator = mixture(), operators()["wide"]
    y, rng = problem(system, operator)
    with pytest.raises(ValueError, match="floor: value 0"):
        ExactPosterior(floor=0.0)
    with pytest.raises(ValueError, match="no weights, means, factors, residual_std"):
        ExactPosterior()(y, operator, torch.nn.Identity(), rng)
    with pytest.raises(ValueError, match="no adjoint, allowed: linear"):
        ExactPosterior()(y, torch.abs, ExactDenoiser(system), rng)
    y[1] = torch.nan
    with pytest.raises(Diverged) as caught:
        ExactPosterior()(y, operator, ExactDenoiser(system), rng)
    assert caught.value.cases == [1]


# The metrics

SPACE = ("channel", "y", "x")


def ensemble(state, truth):
    """Arrays (case, member, C, H, W) and (case, C, H, W) as a metric takes them."""
    truth = xr.DataArray(truth, dims=("case", *SPACE))
    return xr.Dataset({"state": (("case", "member", *SPACE), state)}), Case(truth, truth, None)


def gaussian(cases, members, size=20, seed=0):
    """Standard normal members and truths (size × size), and their exact posterior."""
    x = np.random.default_rng(seed).normal(size=(cases, members + 1, 1, size, size))
    posterior, case = ensemble(x[:, 1:], x[:, 0])
    exact = posterior.copy()
    exact["mean"], exact["variance"] = xr.zeros_like(case.truth), xr.ones_like(case.truth)
    return posterior, case, exact


@pytest.mark.parametrize("members", [1, 4, 16])
def test_the_mean_of_exact_draws_has_the_error_of_its_size(members):
    posterior, case, exact = gaussian(10, members)
    error = mean_error(posterior, case, exact)
    assert error.dims == ("case",)
    square = float((error**2).mean()) * members
    assert abs(square - 1) < 3 * math.sqrt(2 / (10 * 400))


def test_a_mean_off_by_a_standard_deviation_has_error_one():
    """Pooled over the pixels: √(1² + 3²) against √(1 + 4) of deviations 1 and 2."""
    posterior, case = ensemble(np.array([[[[[1.0, 3.0]]]]]), np.zeros((1, 1, 1, 2)))
    exact = xr.Dataset({"mean": 0 * case.truth, "variance": case.truth + np.array([1.0, 4.0])})
    np.testing.assert_allclose(mean_error(posterior, case, exact), math.sqrt(10 / 5))
    with pytest.raises(ValueError, match="align"):
        mean_error(posterior, case, exact.isel(x=[0]))


def test_sliced_w2_of_a_shift_is_its_root_mean_square():
    posterior, case, _ = gaussian(2, 30, size=4)
    shift = np.linspace(0, 1, 16).reshape(1, 4, 4)
    distance = sliced_w2(posterior, case, posterior + shift, projections=4000)
    assert distance.dims == ("case",)
    np.testing.assert_allclose(distance, math.sqrt((shift**2).mean()), rtol=0.05)
    again = sliced_w2(posterior.isel(member=slice(None, None, -1)), case, posterior)
    np.testing.assert_allclose(again, 0, atol=1e-12)


def test_sliced_w2_of_gaussians_is_the_difference_of_their_deviations():
    """Of N(0, I) and N(0, 4 I): W₂ = 1 in every direction; numbers of members may differ."""
    posterior, case, _ = gaussian(1, 4000, size=2)
    wide, _, _ = gaussian(1, 3000, size=2, seed=1)
    np.testing.assert_allclose(sliced_w2(posterior, case, 2 * wide), 1, atol=0.03)
    assert (sliced_w2(posterior, case, wide) < 0.06).all()


@pytest.mark.parametrize("members", [2, 3, 10, 50])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_exchangeable_members_is_the_level(members, level):
    posterior, case, _ = gaussian(10, members)
    values = coverage(posterior, case, level)
    assert abs(float(values.mean()) - level) < 3 * math.sqrt(level * (1 - level) / 4000)
    lowest = 1 - (members + 1) * (1 - level) / 2
    missed = coverage(posterior + 9, case, level)
    np.testing.assert_allclose(missed, max(0, lowest), atol=1e-12)
    np.testing.assert_allclose(
        coverage(-posterior - 9, Case(-case.truth, case.y, None), level), missed
    )


def test_coverage_of_many_members_is_that_of_their_quantiles():
    posterior, case, _ = gaussian(1, 999)
    narrow = posterior / 2
    low, high = (narrow.state.quantile(q, "member") for q in (0.25, 0.75))
    expected = float(((case.truth > low) & (case.truth < high)).mean())
    np.testing.assert_allclose(coverage(narrow, case, 0.5), expected, atol=0.005)
    assert expected < 0.3


def test_members_that_equal_the_truth_cover_it_at_the_level():
    """As where a pixel is observed without noise."""
    truth = np.random.default_rng(0).normal(size=(2, 1, 3, 3))
    posterior, case = ensemble(np.repeat(truth[:, None], 5, 1), truth)
    np.testing.assert_allclose(coverage(posterior, case, 0.5), 0.5)
    assert coverage(posterior.isel(member=[0]), case).isnull().all()
    with pytest.raises(ValueError, match="level: value 1"):
        coverage(posterior, case, 1)
