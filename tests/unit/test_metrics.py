"""Metrics against closed forms."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from priorflow.metrics.base import Case
from priorflow.metrics.crps import crps, spread_skill
from priorflow.metrics.density import log_likelihood, log_prior
from priorflow.metrics.errors import rmse, rmse_mean
from priorflow.metrics.transport import POINTS, w1
from priorflow.operators.pointwise import Arctan, Components
from priorflow.rng import Streams
from priorflow.systems.base import Standardised
from priorflow.systems.lorenz63 import Lorenz63

STATE = ("case", "member", "time", "component")
STEPS = 15


def ensemble(state, truth) -> tuple[xr.Dataset, Case]:
    """Arrays (case, member, time, d) and (case, time, d) as a metric takes them."""
    truth = xr.DataArray(truth, dims=("case", "time", "component"))
    operator = Components(truth.shape[-1], noise_std=0.5)
    y = truth.rename(component="obs")
    return xr.Dataset({"state": (STATE, np.asarray(state))}), Case(truth, y, operator)


@pytest.fixture(scope="module")
def lorenz() -> tuple[xr.Dataset, Case, np.ndarray]:
    """True trajectories: one of 256 cases is the truth, as many more are the single member."""
    system = Standardised(Lorenz63())
    rng = Streams(0, "test metrics", cases=range(256))
    states = [system.initial(2, rng)]
    for _ in range(STEPS):
        states.append(system.step(states[-1], rng))
    x = torch.stack(states[1:], dim=2)
    y = Arctan()(x[:, 0]) + 0.25 * rng.normal(STEPS, 1)
    case = Case(
        xr.DataArray(x[:, 0].numpy(), dims=("case", "time", "component")),
        xr.DataArray(y.numpy(), dims=("case", "time", "obs")),
        Arctan(),
        system,
    )
    return xr.Dataset({"state": (STATE, x[:, 1:].numpy())}), case, x[:, :1].numpy()


def near(values: xr.DataArray, expected: float) -> bool:
    """Whether the mean of independent values is within 3 standard errors of what is expected."""
    error = values.std("case", ddof=1) / math.sqrt(values.sizes["case"])
    return bool(abs(values.mean() - expected) < 3 * error)


def test_errors_of_known_offsets():
    """Members off by 3 and -1: samples are off by 2 on average, their mean by 1."""
    truth = np.random.default_rng(0).normal(size=(4, 5, 2))
    posterior, case = ensemble(np.stack((truth + 3, truth - 1), axis=1), truth)
    assert rmse(posterior, case).dims == ("case",)
    np.testing.assert_allclose(rmse(posterior, case), 2)
    np.testing.assert_allclose(rmse_mean(posterior, case), 1)


def test_errors_take_the_root_per_member():
    """The root over time and space comes before the mean over members."""
    truth = np.zeros((1, 2, 1))
    state = np.array([[[[0.0], [2.0]], [[1.0], [1.0]]]])
    np.testing.assert_allclose(rmse(*ensemble(state, truth)), (math.sqrt(2) + 1) / 2)


def test_a_rollout_keeps_its_leads():
    """The dimension `lead` is not averaged over."""
    truth = np.zeros((2, 3, 4))
    posterior, case = ensemble(np.arange(3.0)[:, None] * np.ones((2, 5, 3, 4)), truth)
    case = Case(case.truth.rename(time="lead"), case.y, case.operator)
    for metric in (rmse, rmse_mean, crps):
        score = metric(posterior.rename(time="lead"), case)
        assert score.dims == ("case", "lead")
        np.testing.assert_allclose(score, [[0, 1, 2]] * 2)


def test_states_that_do_not_belong_together_are_refused():
    """Other cases, or other times, never shrink to what both have."""
    posterior, case = ensemble(np.zeros((2, 1, 3, 1)), np.zeros((2, 3, 1)))
    truth = case.truth.assign_coords(case=[0, 2])
    with pytest.raises(ValueError, match="align"):
        rmse(posterior.assign_coords(case=[0, 1]), Case(truth, case.y, case.operator))
    posterior["state"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        crps(posterior, case)


@pytest.mark.parametrize("members", [2, 5, 20])
def test_crps_is_unbiased_and_matches_the_gaussian(members):
    """E|X - y| - E|X - X'|/2 of N(0, 1) at y is y (2Φ(y) - 1) + 2φ(y) - 1/√π, for every M."""
    rng = np.random.default_rng(members)
    for y in (0.0, 1.3):
        state = rng.normal(size=(200, members, 40, 1))
        score = crps(*ensemble(state, np.full((200, 40, 1), y)))
        phi = math.exp(-y * y / 2) / math.sqrt(2 * math.pi)
        exact = y * math.erf(y / math.sqrt(2)) + 2 * phi - 1 / math.sqrt(math.pi)
        assert near(score, exact)


def test_crps_of_one_member_is_the_absolute_error():
    """A point forecast."""
    truth = np.zeros((3, 4, 2))
    np.testing.assert_allclose(crps(*ensemble(np.full((3, 1, 4, 2), -0.7), truth)), 0.7)


@pytest.mark.parametrize("members", [2, 8])
def test_spread_matches_skill_for_exchangeable_members(members):
    """One for draws of the law of the truth, at any number of members; half for half the spread."""
    draws = np.random.default_rng(1).normal(size=(4, members + 1, 20_000, 1))
    posterior, case = ensemble(draws[:, 1:], draws[:, 0])
    np.testing.assert_allclose(spread_skill(posterior, case), 1, atol=0.02)
    narrow, _ = ensemble(draws[:, 1:] / 2, draws[:, 0])
    assert (spread_skill(narrow, case) < 0.7).all()


def test_spread_of_one_member_is_not_a_number():
    """One member has no spread, rather than none to speak of."""
    assert spread_skill(*ensemble(np.ones((3, 1, 4, 2)), np.zeros((3, 4, 2)))).isnull().all()


def test_equal_members_have_no_spread_at_all():
    state = np.repeat(np.random.default_rng(0).normal(size=(3, 1, 40, 2)), 7, 1)
    posterior, case = ensemble(state.astype(np.float32), np.zeros((3, 40, 2)))
    assert (spread_skill(posterior, case) == 0).all()


def test_log_prior_of_true_trajectories(lorenz):
    """14 transitions of three Gaussian components of variance 0.025."""
    posterior, case, _ = lorenz
    exact = 14 * 3 * (-0.5 - 0.5 * math.log(2 * math.pi * 0.025))
    assert exact == pytest.approx(17.87, abs=0.01)
    assert near(log_prior(posterior, case), exact)


def test_log_likelihood_of_the_truth(lorenz):
    """15 scalar observations of standard deviation 0.25; of other trajectories it is lower."""
    posterior, case, truth = lorenz
    exact = STEPS * (-0.5 - 0.5 * math.log(2 * math.pi) - math.log(0.25))
    assert exact == pytest.approx(-0.49, abs=0.01)
    assert near(log_likelihood(xr.Dataset({"state": (STATE, truth)}), case), exact)
    assert log_likelihood(posterior, case).mean() < exact - 10


def test_log_prior_follows_the_ancestors(lorenz):
    """Members that change places at every step: right with `previous`, wrong without it."""
    posterior, case, truth = lorenz
    both = np.concatenate((posterior["state"].values, truth), axis=1)
    honest = log_prior(xr.Dataset({"state": (STATE, both)}), case)
    swapped = both.copy()
    swapped[:, :, 1::2] = both[:, ::-1, 1::2]
    previous = np.empty_like(swapped)
    previous[:, :, 1:] = np.where(
        (np.arange(1, STEPS) % 2 == 1)[:, None], both[:, ::-1, :-1], both[:, :, :-1]
    )
    previous[:, :, 0] = 1e3  # from before the window: not used
    filtered = xr.Dataset({"state": (STATE, swapped), "previous": (STATE, previous)})
    np.testing.assert_allclose(log_prior(filtered, case), honest, rtol=1e-4, atol=1e-3)
    assert (log_prior(filtered.drop_vars("previous"), case) < honest - 100).mean() > 0.9


def test_densities_keep_double_precision(lorenz):
    """float64 in, float64 out, labelled by the cases alone."""
    posterior, case, _ = lorenz
    case = Case(case.truth.astype(float), case.y.astype(float), case.operator, case.system)
    for metric in (log_prior, log_likelihood):
        score = metric(posterior.astype(float), case)
        assert score.dtype == np.float64
        assert score.dims == ("case",)
        np.testing.assert_allclose(score, metric(posterior, case), rtol=1e-3, atol=1e-2)


def test_noise_free_observations_have_no_density():
    """γ = 0 is refused in one line."""
    posterior, case = ensemble(np.zeros((1, 1, 2, 3)), np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match=r"noise_std: value 0, allowed: > 0"):
        log_likelihood(posterior, Case(case.truth, case.y, Components(3, noise_std=0)))


def test_w1_of_a_shift_is_its_length():
    """All members shifted by d = (3, 4, 0); their order in time does not matter."""
    truth = np.random.default_rng(2).normal(size=(3, 6, 3))
    state = np.repeat((truth + np.array([3, 4, 0]))[:, None, ::-1], 5, axis=1)
    score = w1(*ensemble(state, truth))
    assert score.dims == ("case",)
    np.testing.assert_allclose(score, 5)


def test_w1_of_many_members_takes_some():
    """Above `POINTS` points every so manieth member stands for all, the same ones every time."""
    rng = np.random.default_rng(3)
    truth, state = rng.normal(size=(1, 4, 1)), rng.normal(size=(1, POINTS // 2, 4, 1))
    whole = np.abs(np.sort(state.ravel()) - np.sort(truth.ravel()).repeat(POINTS // 2)).mean()
    score = w1(*ensemble(state, truth))
    np.testing.assert_allclose(score, whole, rtol=0.05)
    xr.testing.assert_identical(score, w1(*ensemble(state, truth)))
