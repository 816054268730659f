"""CSI and FSS against the contingency tables and the FSS of `scores`, and by hand."""

import numpy as np
import pytest
import torch
import xarray as xr
from scores.categorical import ThresholdEventOperator
from scores.spatial import fss_2d

from priorflow.metrics import crps, errors, natural
from priorflow.metrics.base import Case
from priorflow.metrics.csi import contingency, csi, csi_mean
from priorflow.metrics.fss import fss

SPACE = ("y", "x")


class Scaled:
    """A system in the standardised units (x - 0.5) 10."""

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x / 10 + 0.5


def cases(state, truth, time="time", system=None) -> tuple[xr.Dataset, Case]:
    """Arrays (case, member, time, y, x) and (case, time, y, x) as a metric takes them."""
    truth = xr.DataArray(truth, dims=("case", time, *SPACE))
    state = xr.DataArray(state, dims=("case", "member", time, *SPACE))
    return xr.Dataset({"state": state}), Case(truth, truth, None, system)


@pytest.fixture
def random() -> tuple[np.ndarray, np.ndarray]:
    """Members and truths that agree in part."""
    rng = np.random.default_rng(0)
    truth = rng.random((3, 4, 16, 16)).astype("float32")
    return (0.5 * truth[:, None] + 0.5 * rng.random((3, 5, 4, 16, 16))).astype("float32"), truth


@pytest.mark.parametrize("time", ["time", "lead"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_csi_is_that_of_the_contingency_table(random, time, threshold):
    """Counts over time and space, or for every lead; the mean over members of their ratio."""
    posterior, case = cases(*random, time)
    table = ThresholdEventOperator(default_event_threshold=threshold).make_contingency_manager(
        posterior.state, case.truth
    )
    kept = [dim for dim in ("case", "member", "lead") if dim in posterior.dims]
    expected = table.transform(preserve_dims=kept).critical_success_index().mean("member")
    xr.testing.assert_allclose(csi(posterior, case, threshold), expected)


def test_csi_of_the_mean_is_that_of_one_member(random):
    state, truth = random
    expected = csi(*cases(state.mean(1, keepdims=True), truth), threshold=0.5)
    xr.testing.assert_allclose(csi_mean(*cases(state, truth), threshold=0.5), expected)


def test_csi_by_hand():
    """Two hits, one miss, three false alarms; a value at the threshold is an event."""
    truth = np.array([0.3, 0.9, 0.4, 0, 0, 0, 0, 0.2]).reshape(1, 1, 2, 4)
    state = np.array([0.5, 0.3, 0.2, 1, 1, 1, 0, 0.1]).reshape(1, 1, 1, 2, 4)
    assert csi(*cases(state, truth)).item() == pytest.approx(2 / 6)
    counts = contingency(*cases(state, truth))
    assert [counts[name].item() for name in ("hits", "misses", "false_alarms")] == [2, 1, 3]


@pytest.mark.parametrize("metric", [csi, csi_mean, fss])
def test_a_case_without_events_has_no_score(random, metric):
    """With false alarms or without: so that every method is averaged over the same cases."""
    state, truth = (array.copy() for array in random)
    truth[0] = truth[1] = 0
    state[0] = 0
    score = metric(*cases(state, truth))
    assert np.isnan(score.values).tolist() == [True, True, False]


@pytest.mark.parametrize("metric", [csi, csi_mean, fss])
def test_a_missed_event_scores_zero_and_the_truth_one(random, metric):
    _, truth = random
    assert (metric(*cases(np.zeros_like(truth)[:, None], truth)) == 0).all()
    assert np.allclose(metric(*cases(truth[:, None].repeat(2, 1), truth)), 1)


@pytest.mark.parametrize("metric", [csi, csi_mean, fss])
def test_thresholds_are_in_natural_units(random, metric):
    state, truth = random
    expected = metric(*cases(state, truth), threshold=0.55)
    scaled = cases((state - 0.5) * 10, (truth - 0.5) * 10, system=Scaled())
    xr.testing.assert_allclose(metric(*scaled, threshold=0.55), expected, atol=2e-3)


@pytest.mark.parametrize("time", ["time", "lead"])
@pytest.mark.parametrize("metric", [errors.rmse, errors.rmse_mean, crps.crps])
def test_errors_in_natural_units(random, metric, time):
    """Those of the standardised states times their scale, and those of the natural states."""
    state, truth = random
    scaled = cases((state - 0.5) * 10, (truth - 0.5) * 10, time, Scaled())
    found = getattr(natural, metric.__name__)(*scaled)
    xr.testing.assert_allclose(found, metric(*scaled) / 10, rtol=1e-4)
    xr.testing.assert_allclose(found, metric(*cases(state, truth, time)), rtol=1e-4)


@pytest.mark.parametrize("time", ["time", "lead"])
@pytest.mark.parametrize("window", [1, 5])
def test_fss_is_that_of_scores(random, time, window):
    """Member by member, the sums over windows and times before the ratio."""
    posterior, case = cases(*random, time)
    expected = [
        fss_2d(
            posterior.state.isel(member=m),
            case.truth,
            event_threshold=0.5,
            window_size=(window, window),
            spatial_dims=SPACE,
            preserve_dims=["case"] if time == "time" else ["case", "lead"],
            threshold_operator=np.greater_equal,
        )
        for m in range(posterior.sizes["member"])
    ]
    score = fss(posterior, case, threshold=0.5, window=window)
    xr.testing.assert_allclose(score, xr.concat(expected, "member").mean("member"))


def test_fss_by_hand():
    """One pixel, off by one: no overlap, but equal shares in a window that holds both."""
    truth, state = np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 1, 3, 3))
    truth[..., 1, 1] = state[..., 1, 2] = 1
    assert fss(*cases(state, truth), window=1).item() == 0
    assert fss(*cases(state, truth), window=3).item() == 1


def test_a_window_beyond_the_image_is_refused(random):
    with pytest.raises(ValueError, match="window: value 17, allowed: 1 to the size of the image"):
        fss(*cases(*random), window=17)
