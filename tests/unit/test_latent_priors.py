"""The codec, the denoiser of its latents, and the consistency map."""

import math

import pytest
import torch

from priorflow.priors.codec import Codec, LearnedCodec
from priorflow.priors.consistency import ConsistencyMap, LearnedConsistency
from priorflow.priors.denoiser import Denoiser, LearnedDenoiser
from priorflow.priors.latent import LatentDenoiser, LatentPrior
from priorflow.priors.networks.autoencoder import Autoencoder
from priorflow.priors.networks.unet import PeriodicUNet

SHAPE, LATENT = (1, 16, 16), (2, 4, 4)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def codec(rng):
    torch.manual_seed(0)
    network = Autoencoder(SHAPE, latent=2, channels=(16, 32))
    return LearnedCodec(network, SHAPE)


def unet(shape):
    torch.manual_seed(1)
    return PeriodicUNet(shape, channels=[16, 16], blocks=1, patch=1, periodic=False)


def pictures(n, rng):
    """Stripes of any direction and phase: two numbers say all of a picture."""
    angle, phase = 2 * math.pi * torch.rand(2, n, 1, 1, generator=rng)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    waves = 0.5 * torch.cos(0.6 * (angle.cos() * rows + angle.sin() * columns) + phase)
    return waves.view(n, 1, *SHAPE)


def test_protocols(codec):
    assert isinstance(codec, Codec)
    latent = LatentDenoiser(unet(LATENT), codec)
    assert isinstance(latent, LatentPrior)
    assert isinstance(latent, Denoiser)
    assert latent.shape == LATENT
    denoiser = LearnedDenoiser(unet(SHAPE), SHAPE)
    assert isinstance(LearnedConsistency(unet(SHAPE), denoiser, SHAPE), ConsistencyMap)


def test_codec_keeps_leading_dimensions_and_gradients(codec, rng):
    x = pictures(6, rng).view(2, 3, *SHAPE).requires_grad_()
    z = codec.encode(x)
    assert z.shape == (2, 3, *LATENT)
    single = codec.encode(x[1, 2])
    torch.testing.assert_close(z[1, 2], single)
    out = codec.decode(z)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_latents_are_white_after_calibration(codec, rng):
    windows = pictures(300, rng)
    codec.calibrate(windows, rng)
    z = codec.encode(windows[:, 0])
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.transpose(0, 1).flatten(1).std(1), torch.ones(2))


def test_scaling_of_latents_cancels(codec, rng):
    x = pictures(4, rng)[:, 0]
    before = codec.decode(codec.encode(x))
    codec.calibrate(pictures(100, rng), rng)
    torch.testing.assert_close(codec.decode(codec.encode(x)), before, atol=1e-5, rtol=0)


def test_codec_loss_is_the_bound(codec, rng):
    """Against torch's own Gaussians, with the same noise."""
    windows = pictures(5, rng)
    loss = codec.loss(windows, torch.Generator().manual_seed(3))
    mean, log_variance = codec.network.encode(windows[:, 0])
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    error = codec.network.decode(q.mean + q.stddev * noise) - windows[:, 0]
    p = torch.distributions.Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    expected = (error.flatten(1).square().sum(1) + 1e-3 * divergence) / 256
    torch.testing.assert_close(loss, expected)


def test_codec_learns(codec, rng):
    optimizer = torch.optim.AdamW(codec.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        codec.loss(pictures(32, rng), rng).mean().backward()
        optimizer.step()
    x = pictures(64, rng)[:, 0]
    with torch.no_grad():
        error = (codec.decode(codec.encode(x)) - x).square().mean()
    assert error < 0.1 * x.var()


def test_latent_prior_learns_latents_and_leaves_the_codec(codec, rng):
    codec.calibrate(pictures(300, rng), rng)
    prior = LatentDenoiser(unet(LATENT), codec)
    windows = pictures(64, rng)
    prior.prepare(windows)
    assert float(prior.std) == pytest.approx(1, abs=0.1)
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    loss = prior.loss(windows, torch.Generator().manual_seed(2)).mean()
    loss.backward()
    assert all(p.grad is None for p in prior.codec.parameters())
    assert any(p.grad is not None for p in prior.network.parameters())
    assert all(torch.equal(before[name], value) for name, value in codec.state_dict().items())
    plain = LearnedDenoiser(unet(LATENT), LATENT)  # the same loss of the latents as data
    latents = codec.encode(windows).detach()
    plain.prepare(latents)
    expected = plain.loss(latents, torch.Generator().manual_seed(2)).mean()
    torch.testing.assert_close(loss, expected)


@pytest.fixture
def consistency():
    denoiser = LearnedDenoiser(unet(SHAPE), SHAPE)
    denoiser.std.fill_(0.5)
    denoiser.mean.fill_(0.1)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return LearnedConsistency(unet(SHAPE), denoiser, SHAPE), denoiser


def test_consistency_starts_as_the_denoiser(consistency, rng):
    f, denoiser = consistency
    x = torch.randn(3, *SHAPE, generator=rng)
    torch.testing.assert_close(f(x, 0.7), denoiser(x, 0.7))
    torch.testing.assert_close(f(x, 1e-6), x, atol=1e-4, rtol=0)


def test_lower_level_is_that_of_the_paper(consistency):
    f, _ = consistency
    t = torch.tensor([0.01, 0.5, 3.0, 50.0])
    for stage, progress in enumerate((0.0, 0.3, 0.6, 1.0)):
        f.progress = progress
        gap = 4.0 ** -(stage + 1) * (1 + 8 / (1 + t.exp()))
        torch.testing.assert_close(f.lower(t), t * (1 - gap).clamp(min=0))
    assert (f.lower(t) < t).all()


def test_loss_is_the_slope_along_the_noise(consistency, rng, monkeypatch):
    """White pictures: the flow only scales, f(x, σ) = m + s (x - m) / √(s² + σ²) with s = 0.5.

    Of a picture at the mean, which noise alone moves, a pair of levels t > r then differs by the
    noise times t / √(1 + t²) - r / √(1 + r²), in standard deviations.
    """
    f, _ = consistency

    def exact(x, sigma):
        sigma = torch.as_tensor(sigma).view(-1, 1, 1, 1)
        return 0.1 + 0.5 * (x - 0.1) / (0.25 + sigma**2).sqrt()

    monkeypatch.setattr(f, "forward", exact)
    f.progress, windows = 1.0, torch.full((4096, 1, *SHAPE), 0.1)
    t = torch.ones(4096)
    monkeypatch.setattr(f, "draw_levels", lambda n, rng: t)
    loss = f.loss(windows, rng).mean()
    gap = float(t[0] - f.lower(t)[0])
    # |d/dt [t / √(1 + t²)]| at t = 1 is 2^(-3/2), in standard deviations
    assert float(loss) == pytest.approx(2**-1.5, rel=2 * gap)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Autoencoder((1, 18, 16)), "shape: value"),
        (lambda: Autoencoder(SHAPE, channels=(20, 32)), "channels: value"),
        (lambda: LearnedCodec(Autoencoder(SHAPE), SHAPE, beta=-1), "beta: value -1"),
    ],
)
def test_bad_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()
