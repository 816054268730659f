"""The latents of a mixture of Gaussians, held against dense algebra, torch and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from priorflow.priors.codec import Codec
from priorflow.priors.denoiser import Denoiser
from priorflow.priors.exact_latent import ExactLatent
from priorflow.priors.latent import LatentPrior
from priorflow.priors.mixture import ExactDenoiser
from priorflow.rng import Streams
from priorflow.stages.cost import Cost
from priorflow.systems.base import Standardised
from priorflow.systems.gaussian_mixture import GaussianMixture, digits

SHAPE, SIZE = (2, 3, 3), 18
RANKS = pytest.mark.parametrize("rank", [5, SIZE])


def mixture(components=3):
    g = torch.Generator().manual_seed(components)
    weights = torch.arange(1.0, components + 1)
    return GaussianMixture(
        weights / weights.sum(),
        torch.randn(components, *SHAPE, generator=g),
        0.4 * torch.randn(components, 4, *SHAPE, generator=g),
        residual_std=0.2,
    )


def pushed(system, codec):
    """The law of the latents of images: their π, μ (K, r) and C (K, r, r), from the encoder."""
    origin, *columns = codec.encode(
        torch.cat((torch.zeros(1, SIZE), torch.eye(SIZE))).double().view(-1, *SHAPE)
    ).flatten(1)
    e = torch.stack(columns, 1) - origin.unsqueeze(1)
    factors = system.factors.double().flatten(2)
    c = factors.mT @ factors + system.residual_std**2 * torch.eye(SIZE)
    means = origin + system.means.double().flatten(1) @ e.T
    return system.weights.double(), means, e @ c @ e.T


def noisy_law(system, codec, sigma):
    weights, means, c = pushed(system, codec)
    c = c + sigma**2 * torch.eye(c.shape[-1])
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, c))


@RANKS
def test_latents_have_mean_zero_and_unit_covariance(rank):
    system = mixture()
    weights, means, c = pushed(system, ExactLatent(system, rank).codec)
    torch.testing.assert_close(weights @ means, torch.zeros(rank).double())
    total = torch.einsum("k,kij->ij", weights, c) + (means.T * weights) @ means
    torch.testing.assert_close(total, torch.eye(rank).double())


@RANKS
@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_the_denoiser_obeys_tweedie(rank, sigma):
    """D(z, σ) = z + σ² ∇ log p_σ(z), with torch's density and autograd's gradient."""
    system = mixture()
    prior = ExactLatent(Standardised(system), rank)
    law = noisy_law(system, prior.codec, sigma)
    z = law.sample((8,)).requires_grad_()
    (score,) = torch.autograd.grad(law.log_prob(z).sum(), z)
    denoised = prior(z.detach().view(2, 4, rank, 1, 1), sigma)
    assert denoised.shape == (2, 4, *prior.shape)
    torch.testing.assert_close(denoised.view(8, rank), z.detach() + sigma**2 * score)
    log_density = prior.log_density(z.detach()[..., None, None], sigma)
    torch.testing.assert_close(log_density, law.log_prob(z.detach()))


def test_of_full_rank_and_equal_scale_it_is_the_denoiser_of_images():
    """White in images, the noise stays white in latents."""
    system = GaussianMixture(
        torch.tensor([0.3, 0.7]),
        torch.zeros(2, *SHAPE),
        torch.stack((torch.eye(SIZE), -torch.eye(SIZE))).view(2, SIZE, *SHAPE),
        residual_std=0.5,
    )
    prior = ExactLatent(system, SIZE)
    scale = prior.codec.scale
    torch.testing.assert_close(scale, torch.full_like(scale, 1.25**0.5))
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    expected = ExactDenoiser(system)(x, 0.7)
    actual = prior.codec.decode(prior(prior.codec.encode(x), 0.7 / 1.25**0.5))
    torch.testing.assert_close(actual, expected)


def test_the_codec_keeps_the_leading_principal_components():
    """scikit-learn's, of draws whose sample mean and covariance are the exact ones."""
    system, rank = mixture(), 5
    weights, means = system.weights.double(), system.means.double().flatten(1)
    factors = system.factors.double().flatten(2)
    second = factors.mT @ factors + 0.04 * torch.eye(SIZE) + means.unsqueeze(2) * means.unsqueeze(1)
    mean = weights @ means
    root = torch.linalg.cholesky(
        torch.einsum("k,kij->ij", weights, second) - torch.outer(mean, mean)
    )
    white = torch.randn(200, SIZE, generator=torch.Generator().manual_seed(0)).double()
    white = white - white.mean(0)
    white = torch.linalg.solve(torch.linalg.cholesky(torch.cov(white.T)), white.T).T
    x = white @ root.T + mean
    model = PCA(rank, whiten=True, svd_solver="full").fit(x.numpy())
    codec = ExactLatent(system, rank).codec
    z = codec.encode(x.view(-1, *SHAPE))
    theirs = torch.from_numpy(model.transform(x.numpy()))
    torch.testing.assert_close(z.flatten(1).abs(), theirs.abs(), rtol=0, atol=1e-5)
    back = torch.from_numpy(model.inverse_transform(theirs.numpy()))
    torch.testing.assert_close(codec.decode(z).flatten(1), back, rtol=0, atol=1e-5)


@RANKS
def test_encoding_inverts_decoding(rank):
    codec = ExactLatent(mixture(), rank).codec
    z = torch.randn(2, 3, rank, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    x = codec.decode(z)
    assert x.shape == (2, 3, *SHAPE)
    torch.testing.assert_close(codec.encode(x), z)
    again = codec.decode(codec.encode(torch.zeros_like(x)))
    assert (again.abs().max() < 1e-6) == (rank == SIZE)
    assert torch.autograd.gradcheck(codec.decode, z[0].requires_grad_())
    assert torch.autograd.gradcheck(codec.encode, x[0].detach().requires_grad_())


def test_it_is_what_the_solvers_and_the_pipeline_want():
    prior, cost = ExactLatent(mixture(), 5), Cost()
    assert isinstance(prior, Denoiser)
    assert isinstance(prior, LatentPrior)
    assert isinstance(prior.codec, Codec)
    assert (prior.shape, prior.codec.shape, prior.codec.latent_shape) == (
        (5, 1, 1),
        SHAPE,
        (5, 1, 1),
    )
    assert not list(prior.parameters())
    cost.network(prior.network)
    prior(torch.zeros(3, 4, *prior.shape, requires_grad=True), 0.5).sum().backward()
    assert cost.counts["nfe"] == cost.counts["nfe_backward"] == 12


@pytest.mark.parametrize("rank", [0, SIZE + 1])
def test_bad_ranks_are_refused(rank):
    with pytest.raises(ValueError, match=f"^rank: value {rank}, allowed: 1 to 18"):
        ExactLatent(mixture(), rank)


def test_single_precision_of_real_pictures():
    system = digits()
    prior = ExactLatent(system, 64)
    x = system.initial(4, Streams(0, "draws"))[0]
    z = prior.codec.encode(x)
    assert z.dtype == torch.float32
    for sigma in (1e-3, 0.1, 2.0, 80.0):
        noisy = z + sigma * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
        single, double = prior(noisy, sigma), prior(noisy.double(), sigma)
        torch.testing.assert_close(single.double(), double, atol=2e-3, rtol=0)
    lost = (prior.codec.decode(z) - x).square().mean().sqrt()
    assert 0.01 < lost < np.sqrt(float(x.var())) / 2
