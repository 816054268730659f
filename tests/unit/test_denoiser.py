"""The learned denoiser: its preconditioning and its loss in closed form, and what it can learn."""

import math
from pathlib import Path

import pytest
import torch
from azula.nn.unet import UNet
from torch import nn

from priorflow.priors.denoiser import Denoiser, LearnedDenoiser
from priorflow.priors.networks.unet import PeriodicUNet
from priorflow.stages.models import build_prior, export, restore
from priorflow.systems.base import Standardised
from priorflow.systems.gaussian_mixture import digits

SHAPE = (1, 16, 16)
NETWORK = {"channels": (16, 32), "blocks": 1, "embedding": 16, "periodic": False}
MEAN, STD = -0.56, 0.66


class Recorder(nn.Module):
    """A network with an output of zero, or of its input, that keeps what it was given."""

    def __init__(self, gain=0.0):
        super().__init__()
        self.gain, self.shape = nn.Parameter(torch.tensor(gain)), SHAPE

    def forward(self, x, t, history):
        self.x, self.t, self.history = x.detach(), t.detach(), history
        return self.gain * x


def denoiser(network=None, **settings):
    """A denoiser of images with mean and standard deviation MEAN and STD."""
    prior = LearnedDenoiser(Recorder() if network is None else network, SHAPE, **settings)
    prior.mean.fill_(MEAN)
    prior.std.fill_(STD)
    return prior


def unet(scale=0.1):
    """A small network whose output is not zero."""
    torch.manual_seed(0)
    network = PeriodicUNet(SHAPE, **NETWORK).eval()
    for parameter in network.parameters():
        parameter.data.add_(scale * torch.randn_like(parameter))
    return network


# ------------------------------------------------------------------------------- preconditioning


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 80.0])
def test_preconditioning_is_that_of_karras(sigma):
    """Table 1 of the paper, with σ_data = STD, for centred images and F(x) = 0.7 x."""
    prior, x = denoiser(Recorder(0.7)), torch.randn(5, *SHAPE, dtype=torch.float64)
    prior.network.double()
    total = sigma**2 + STD**2
    c_skip, c_out, c_in = (STD**2 / total, sigma * STD / total**0.5, 1 / total**0.5)
    expected = MEAN + c_skip * (x - MEAN) + c_out * 0.7 * c_in * (x - MEAN)
    torch.testing.assert_close(prior(x, sigma).detach(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(prior.network.x, c_in * (x - MEAN), rtol=1e-6, atol=1e-7)
    noise = torch.full((5,), math.log(sigma / STD) / 4, dtype=torch.float64)
    torch.testing.assert_close(prior.network.t, noise, rtol=1e-6, atol=1e-7)
    assert prior.network.history is None


def test_small_noise_leaves_the_image():
    """D(x, σ) = x + O(σ) whatever the network says."""
    prior, x = denoiser(unet()), torch.randn(3, *SHAPE)
    with torch.no_grad():
        for sigma in (1e-3, 1e-4):
            change = (prior(x, sigma) - x).abs().max()
            assert 0.1 * sigma < change < 20 * sigma


def test_large_noise_leaves_what_the_network_says():
    """D(σ n, σ) stays where images are: mean + std F."""
    prior = denoiser(unet())
    for sigma in (1e4, 1e6):
        with torch.no_grad():
            images = prior(sigma * torch.randn(3, *SHAPE), sigma)
            f = prior.network(torch.randn(3, *SHAPE), torch.full((3,), math.log(sigma / STD) / 4))
        assert 0.5 * STD * f.std() < (images - MEAN).std() < 2 * STD * f.std()


def test_it_is_a_denoiser_on_any_leading_dimensions():
    """A batch gives what singles give; σ is a number or broadcasts with the batch."""
    prior, x = denoiser(unet()), torch.randn(2, 3, *SHAPE)
    assert isinstance(prior, Denoiser)
    sigma = torch.tensor([[0.1], [5.0]])
    with torch.no_grad():
        images = prior(x, sigma)
        assert images.shape == x.shape
        for i in range(2):
            for j in range(3):
                single = prior(x[i, j], float(sigma[i]))
                torch.testing.assert_close(images[i, j], single, rtol=1e-4, atol=1e-5)


def test_gradients_pass_through():
    """The derivative along a direction is the difference quotient."""
    prior = denoiser(unet()).double()
    x, v = (torch.randn(2, *SHAPE, dtype=torch.float64) for _ in range(2))
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(prior(x, 0.5).square().sum(), x)
    step = 1e-5
    with torch.no_grad():
        low, high = (prior(x + s * v, 0.5).square().sum() for s in (-step, step))
    torch.testing.assert_close((gradient * v).sum(), (high - low) / (2 * step), rtol=1e-5, atol=0)


# ------------------------------------------------------------------------------------------ loss


def test_the_loss_of_the_best_linear_filter_is_one():
    """F = 0 is that filter for white images, at every noise level."""
    prior, rng = denoiser(), torch.Generator().manual_seed(0)
    windows = MEAN + STD * torch.randn(512, 1, *SHAPE, generator=rng)
    loss = prior.loss(windows, rng).detach()
    assert loss.shape == (512,)
    order = prior.network.t.argsort()
    for part in loss[order].chunk(4):  # from small to large noise
        assert abs(part.mean() - 1) < 3 * part.std() / math.sqrt(len(part))


def test_the_loss_weighs_errors_by_the_noise():
    """With F(x) = x the error of D is c_out F more; the weight is that of c_out."""
    prior, rng = denoiser(Recorder(1.0)), torch.Generator().manual_seed(1)
    windows = MEAN + STD * torch.randn(512, 1, *SHAPE, generator=rng)
    loss = prior.loss(windows, rng).detach()
    assert abs(loss.mean() - 2) < 3 * loss.std() / math.sqrt(512)  # F and its target: 1 each


def test_noise_levels_follow_their_law_evenly():
    """Every one of n quantiles of N(P_mean, P_std²) has one of n windows."""
    prior, n = denoiser(log_sigma_mean=-0.3, log_sigma_std=1.5), 200
    prior.loss(torch.zeros(n, 1, *SHAPE), torch.Generator().manual_seed(2))
    log_sigma = 4 * prior.network.t.double() + math.log(STD)
    quantile = n * torch.special.ndtr((log_sigma + 0.3) / 1.5)
    torch.testing.assert_close(
        quantile.sort().values.floor(), torch.arange(n, dtype=torch.float64), rtol=0, atol=1
    )
    gaps = quantile.sort().values.diff()
    torch.testing.assert_close(gaps, torch.ones_like(gaps), rtol=0, atol=1e-2)


def test_default_noise_levels_reach_what_restoration_asks_for():
    """From 0.01 to 80, with some training beyond."""
    prior = denoiser()
    z = (torch.tensor([0.01, 80.0]).log() - prior.log_sigma_mean) / prior.log_sigma_std
    low, high = torch.special.ndtr(z).tolist()
    assert 0.005 < low < 0.05
    assert 0.001 < 1 - high < 0.01


def test_prepare_measures_the_images():
    prior, rng = LearnedDenoiser(Recorder(), SHAPE), torch.Generator().manual_seed(3)
    prior.prepare(MEAN + STD * torch.randn(400, 1, *SHAPE, generator=rng))
    assert abs(float(prior.mean) - MEAN) < 0.01
    assert abs(float(prior.std) - STD) < 0.01


def test_training_approaches_the_exact_denoiser():
    """Images along one direction: the least loss is known, and 1 is what no learning has."""
    torch.manual_seed(0)
    prior, rng = denoiser(PeriodicUNet(SHAPE, **NETWORK)), torch.Generator().manual_seed(4)
    direction = torch.sin(torch.arange(16) * math.pi / 4).repeat(1, 16, 1) * math.sqrt(2)

    def draw(n):
        return MEAN + STD * torch.randn(n, 1, 1, 1, 1, generator=rng) * direction

    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3)
    for _ in range(150):
        loss = prior.loss(draw(32), rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        loss = float(prior.loss(draw(256), rng).mean())
    # The variance n along the direction is left as n σ² / (n + σ²), over n components.
    n, u = SHAPE[1] * SHAPE[2], (torch.arange(1000) + 0.5) / 1000
    square = (prior.log_sigma_mean + prior.log_sigma_std * torch.special.ndtri(u)).exp() / STD
    square = square.square()
    least = float(((1 + 1 / square) * square / (n + square)).mean())
    assert 0.9 * least < loss < 0.5


@pytest.mark.parametrize(
    ("settings", "name"), [({"context": 1}, "context"), ({"log_sigma_std": 0.0}, "log_sigma_std")]
)
def test_it_refuses(settings, name):
    with pytest.raises(ValueError, match=f"^{name}: value"):
        LearnedDenoiser(Recorder(), SHAPE, **settings)


# ----------------------------------------------------------------------------------- the network


def test_the_network_for_images_is_azulas_with_zeros_around():
    network, x, t = unet(), torch.randn(2, *SHAPE), torch.tensor([-1.1, 0.6])
    reference = UNet(
        in_channels=4,
        out_channels=4,
        hid_channels=(16, 32),
        hid_blocks=(1, 1),
        norm="group",
        groups=16,
        mod_features=16,
    )
    reference.load_state_dict(network.unet.state_dict())
    with torch.no_grad():
        expected = reference(nn.functional.pixel_unshuffle(x, 2), network.time(64 * t))
        expected = nn.functional.pixel_shuffle(expected, 2)
        torch.testing.assert_close(network(x, t), expected, rtol=1e-4, atol=1e-5)
        around = PeriodicUNet(SHAPE, **{**NETWORK, "periodic": True})
        around.load_state_dict(network.state_dict())  # the same names and shapes
        assert (around(x, t) - network(x, t)).abs().max() > 1e-3


def test_the_pipeline_builds_and_restores_it(tmp_path):
    spec = {
        "prior": {"class": "priorflow.priors.denoiser:LearnedDenoiser"},
        "network": {"class": "priorflow.priors.networks.unet:PeriodicUNet", **NETWORK},
        "context": 0,
    }
    system = Standardised(digits(4))
    prior, fresh = (build_prior(spec, system, Path()) for _ in range(2))
    assert prior.shape == prior.network.shape == SHAPE
    for parameter in prior.parameters():  # the file has 16 bits
        parameter.data.add_(0.1 * torch.randn_like(parameter))
        parameter.data.copy_(parameter.to(torch.float16))
    prior.prepare(torch.randn(64, prior.window, *SHAPE) / 2 - 0.3)
    export(prior, tmp_path / "weights.safetensors")
    restored, x = restore(fresh, tmp_path / "weights.safetensors"), torch.randn(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(restored(x, 0.7), prior(x, 0.7))
