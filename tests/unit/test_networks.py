"""Networks for fields: what they commute with, what they see, and how large they are."""

import copy

import pytest
import torch
from azula.nn.unet import UNet
from torch import nn

from priorflow.priors.networks.neural_operators import FNO, Transolver
from priorflow.priors.networks.unet import PeriodicUNet, _Halo
from priorflow.priors.score import WindowScore
from priorflow.stages.models import export, restore

SHAPE, CONTEXT = (16, 32), 2
TINY = {
    PeriodicUNet: {"channels": (16, 32), "blocks": 1, "embedding": 8},
    FNO: {"width": 8, "modes": 4, "layers": 2},
    Transolver: {"width": 16, "layers": 2, "heads": 2, "slices": 4, "patch": 2},
}


def tiny(kind, shape=SHAPE, context=CONTEXT, **settings):
    """A small network whose output is not zero."""
    torch.manual_seed(0)
    network = kind(shape, context, **{**TINY[kind], **settings}).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(*lead, shape=SHAPE, context=CONTEXT):
    torch.manual_seed(1)
    history = torch.randn(*lead, context, *shape) if context else None
    return torch.randn(*lead, *shape), torch.rand(lead), history


def parameters(network):
    return sum(p.numel() for p in network.parameters())


# ------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_a_batch_is_its_members(kind, lead):
    network, (x, t, history) = tiny(kind), inputs(*lead)
    with torch.no_grad():
        y = network(x, t, history)
        assert y.shape == x.shape
        assert y.std() > 1e-3
        singles = [
            network(a, b, c)
            for a, b, c in zip(
                x.view(-1, *SHAPE), t.view(-1), history.view(-1, CONTEXT, *SHAPE), strict=True
            )
        ]
    torch.testing.assert_close(y, torch.stack(singles).view(y.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "stride"),
    [
        (PeriodicUNet, {}, 4),
        (PeriodicUNet, {"channels": (16, 16, 16), "patch": 1}, 4),
        (FNO, {}, 1),
        (Transolver, {}, 2),
    ],
)
def test_a_shift_of_the_input_shifts_the_output(kind, settings, stride):
    network, (x, t, history) = tiny(kind, **settings), inputs(2)
    shift = {"shifts": (stride, -3 * stride), "dims": (-2, -1)}
    with torch.no_grad():
        y = network(x, t, history)
        shifted = network(x.roll(**shift), t, history.roll(**shift))
    torch.testing.assert_close(shifted, y.roll(**shift), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (FNO, {"coordinates": True}),
        (FNO, {"padding": 4}),
        (Transolver, {"positions": 2}),
        (Transolver, {"periodic": False}),
    ],
)
def test_the_published_operators_know_where_the_border_is(kind, settings):
    network, (x, t, history) = tiny(kind, **settings), inputs(2)
    with torch.no_grad():
        y = network(x, t, history)
        shifted = network(x, t, history.roll(8, -1))
    assert (shifted - y.roll(8, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TINY)
def test_the_order_of_the_context_matters(kind):
    network, (x, t, history) = tiny(kind), inputs(2)
    with torch.no_grad():
        assert not torch.allclose(network(x, t, history), network(x, t, history.flip(1)), atol=1e-3)


@pytest.mark.parametrize("kind", TINY)
def test_dimensions_before_the_grid_are_channels(kind):
    shape = (2, *SHAPE)
    network, (x, t, history) = tiny(kind, shape), inputs(3, shape=shape)
    assert network(x, t, history).shape == (3, *shape)


@pytest.mark.parametrize("kind", TINY)
def test_weights_survive_the_file_and_a_copy(kind, tmp_path):
    network, data = tiny(kind), inputs(2)
    for parameter in network.parameters():  # the file has 16 bits
        parameter.data.copy_(parameter.to(torch.float16))
    export(network, tmp_path / "weights.safetensors")
    with torch.no_grad():
        y = network(*data)
        torch.testing.assert_close(copy.deepcopy(network)(*data), y)
        fresh = kind(SHAPE, CONTEXT, **TINY[kind])
        torch.testing.assert_close(restore(fresh, tmp_path / "weights.safetensors")(*data), y)


@pytest.mark.parametrize("kind", TINY)
def test_laptop_sizes(kind):
    assert 1.0e6 < parameters(kind((64, 64), 2)) <= 1.5e6


# -------------------------------------------------------------------------------------- the U-Net


def test_halo_is_circular_padding():
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.equal(_Halo.apply(x), nn.functional.pad(x, (1, 1, 1, 1), mode="circular"))
    assert torch.autograd.gradcheck(_Halo.apply, x)


def test_unet_is_azulas_with_circular_padding():
    network, (x, t, history) = tiny(PeriodicUNet, patch=1), inputs(2)
    reference = UNet(
        in_channels=3,
        out_channels=1,
        hid_channels=(16, 32),
        hid_blocks=(1, 1),
        periodic=True,
        norm="group",
        groups=16,
        mod_features=8,
    )
    reference.load_state_dict(network.unet.state_dict())
    fields = torch.cat((x.unsqueeze(1), history), dim=1)
    with torch.no_grad():
        expected = reference(fields, network.time(64 * t)).squeeze(1)
        torch.testing.assert_close(network(x, t, history), expected, rtol=1e-4, atol=1e-5)


def test_unet_begins_at_zero_and_can_leave_it():
    network, data = PeriodicUNet(SHAPE, CONTEXT, **TINY[PeriodicUNet]), inputs(2)
    y = network(*data)
    assert not y.any()
    (y - 1).square().sum().backward()
    assert network.unet.ascent[-1][-1].weight.grad.abs().max() > 0


def test_unet_sees_x_and_each_time():
    network, (x, _, history) = tiny(PeriodicUNet), inputs(1)
    times = torch.tensor([0.0, 0.1, 0.5, 1.0])
    with torch.no_grad():
        y = network(x.expand(4, *SHAPE), times, history.expand(4, CONTEXT, *SHAPE))
        assert torch.pdist(y.flatten(1)).min() > 1e-3
        other = network(x + 1, times[:1], history)
    assert (other - y[:1]).abs().max() > 1e-3


def test_unet_learns_windows_for_the_score():
    arguments = WindowScore.network_arguments(SHAPE, 1, order=1)
    score = WindowScore(tiny(PeriodicUNet, **arguments), SHAPE, order=1)
    trajectory = torch.randn(2, 5, *SHAPE, requires_grad=True)
    noise = score.epsilon(trajectory, 0.3)
    assert noise.shape == trajectory.shape
    (gradient,) = torch.autograd.grad(noise[:, 2].sum(), trajectory)
    assert gradient[:, 1:4].abs().amax((0, 2, 3)).min() > 0
    assert not gradient[:, [0, 4]].any()


def test_unet_near_the_published_size():
    settings = {"channels": (128, 256, 256, 256), "blocks": 3, "patch": 1, "embedding": 128}
    with torch.device("meta"):
        network = PeriodicUNet((128, 128), 10, **settings)
    assert abs(parameters(network) / 30_045_201 - 1) < 0.02


@pytest.mark.parametrize(
    ("shape", "settings", "name"),
    [
        ((16, 18), {}, "shape"),
        ((16, 16), {"channels": (16, 24)}, "channels"),
        ((16, 16), {"blocks": (1, 1, 1)}, "blocks"),
    ],
)
def test_unet_refuses(shape, settings, name):
    with pytest.raises(ValueError, match=f"^{name}: value"):
        tiny(PeriodicUNet, shape, **settings)


# --------------------------------------------------------------------------------- the operators


@pytest.mark.parametrize("kind", [FNO, Transolver])
def test_operators_see_the_context_alone(kind):
    network, (x, t, history) = tiny(kind), inputs(2)
    with torch.no_grad():
        torch.testing.assert_close(network(None, None, history), network(x + 1, t, history))


@pytest.mark.parametrize("kind", [FNO, Transolver])
def test_conditional_operators_see_x_and_each_time(kind):
    network, (x, t, history) = tiny(kind, conditional=True), inputs(2)
    with torch.no_grad():
        y = network(x, t, history)
        alone = torch.cat([network(*(v[i : i + 1] for v in (x, t, history))) for i in range(2)])
        torch.testing.assert_close(y, alone, atol=1e-5, rtol=1e-4)
        assert (network(x.flip(-1), t, history) - y).abs().max() > 1e-4
        assert (network(x, t + 0.3, history) - y).abs().max() > 1e-4


def test_published_sizes_of_the_operators():
    # Two complex blocks of weights per layer make nearly all of the FNO: 7 · 2 · 128² · 6² · 2.
    settings = {"width": 128, "modes": 6, "layers": 7, "padding": 6, "coordinates": True}
    blocks = 7 * 2 * 128**2 * 6**2 * 2
    assert blocks < parameters(FNO((128, 128), 10, **settings)) < 1.02 * blocks
    # FlowDAS, table S.10: 11.2 million.
    settings = {"width": 256, "layers": 8, "patch": 1, "positions": 8, "periodic": False}
    assert abs(parameters(Transolver((128, 128), 10, **settings)) / 11.2e6 - 1) < 0.01


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        (FNO, {"modes": 9}, "modes"),
        (FNO, {"context": 0}, "context"),
        (Transolver, {"patch": 3}, "patch"),
        (Transolver, {"heads": 3}, "heads"),
        (Transolver, {"context": 0}, "context"),
    ],
)
def test_operators_refuse(kind, settings, name):
    with pytest.raises(ValueError, match=f"^{name}: value"):
        tiny(kind, **settings)
