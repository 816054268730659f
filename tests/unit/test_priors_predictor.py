"""The deterministic forecast against maps that are known."""

import pytest
import torch
from torch import nn

from priorflow.priors.base import Known, StateSpace, Transition
from priorflow.priors.networks.mlp import ResidualMLP
from priorflow.priors.predictor import Predictor
from priorflow.rng import Streams
from priorflow.solvers.assimilation.forecast import Forecast

SHAPE = (2, 3)


class Oldest(nn.Module):
    """The oldest state of the context."""

    def forward(self, x, t, history):
        return history.select(history.ndim - len(SHAPE) - 1, 0)


class Linear(nn.Module):
    """A linear map of the context, which begins at zero."""

    def __init__(self, context):
        super().__init__()
        self.map = nn.Linear(context * 6, 6)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, x, t, history):
        return self.map(history.flatten(-3)).unflatten(-1, SHAPE)


def test_last_state_plus_the_scaled_output():
    predictor = Predictor(Oldest(), SHAPE, context=3)
    predictor.increment_std.fill_(0.5)
    history = torch.randn(4, 5, 3, *SHAPE)
    torch.testing.assert_close(predictor.predict(history), history[:, :, 2] + history[:, :, 0] / 2)
    published = Predictor(Oldest(), SHAPE, context=3, residual=False)
    published.increment_std.fill_(0.5)
    assert torch.equal(published.predict(history), history[:, :, 0])


def test_the_network_gets_the_last_state_at_time_zero():
    class Inputs(nn.Module):
        def forward(self, x, t, history):
            assert t.shape == x.shape[:2]
            assert not t.any()
            return x

    history = torch.randn(2, 3, 2, *SHAPE)
    predictor = Predictor(Inputs(), SHAPE, context=2, residual=False)
    assert torch.equal(predictor.predict(history), history[:, :, -1])


def test_the_scale_is_one_number_of_the_last_increment():
    windows = torch.randn(50, 3, *SHAPE)
    windows[:, 2] = windows[:, 1] + torch.tensor([[3.0], [-4.0]])
    predictor = Predictor(Linear(2), SHAPE, context=2)
    predictor.prepare(windows)
    torch.testing.assert_close(predictor.increment_std, torch.tensor(12.5).sqrt())
    # Persistence has the mean loss of one per component.
    loss = predictor.loss(windows, torch.Generator())
    torch.testing.assert_close(loss, torch.full((50,), 6.0))


@pytest.mark.parametrize("residual", [True, False])
def test_learns_a_linear_map_of_the_last_two_states(residual):
    rng = torch.Generator().manual_seed(0)
    truth = 0.4 * torch.randn(6, 12, generator=rng)
    windows = torch.randn(256, 3, *SHAPE, generator=rng)
    windows[:, 2] = (windows[:, :2].flatten(1) @ truth.T).view(-1, *SHAPE)
    network = Linear(2)
    predictor = Predictor(network, SHAPE, context=2, residual=residual)
    predictor.prepare(windows)
    optimiser = torch.optim.LBFGS(network.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = predictor.loss(windows, rng).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert predictor.loss(windows, rng).mean() < 1e-6
    learned = network.map.weight.detach()
    if residual:
        learned = predictor.increment_std * learned
        learned[:, 6:] += torch.eye(6)
    torch.testing.assert_close(learned, truth, rtol=0, atol=2e-3)


def test_forecast_iterates_it_and_all_members_are_equal():
    predictor = Predictor(ResidualMLP(SHAPE, 2, width=16, depth=1), SHAPE, context=2)
    for parameter in predictor.parameters():
        parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    predictor.requires_grad_(False)
    assert isinstance(predictor, Transition)
    assert predictor.window == 3
    history = torch.randn(4, 2, *SHAPE)
    prior = StateSpace(Known(history), predictor)
    y = torch.zeros(4, 3, 1)
    states = Forecast()(y, None, prior, Streams(0, cases=range(4)), members=2).samples
    assert states.shape == (4, 2, 3, *SHAPE)
    assert torch.equal(states[:, 0], states[:, 1])
    for k in range(3):
        x = predictor.predict(history)
        torch.testing.assert_close(states[:, 0, k], x)
        history = torch.stack((history[:, 1], x), dim=1)
    assert (states[:, 0, 2] - states[:, 0, 0]).abs().max() > 1e-2
