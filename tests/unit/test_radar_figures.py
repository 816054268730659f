"""The figures of radar images: what they compute and show, from a few coarse synthetic storms."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from scipy.stats import norm
from scores.categorical import ThresholdEventOperator

from priorflow import store
from priorflow.components import BadInput, build
from priorflow.stages.figures import (
    animation,
    error_over_time,
    fields,
    ranks,
    reliability,
    storms,
    thresholds,
    vil,
)
from priorflow.stages.figures.base import Results
from priorflow.stages.statistics import bootstrap_interval
from priorflow.systems.storms import Storms, statistics, write_storms

SIZE, CASES, MEMBERS, STEPS = 24, 5, 4, 3
POINTS = {"class": "priorflow.operators.fields:Points", "size": SIZE, "share": 0.1}
LENGTHS = {"sparse_10": 1, "rollout_3": STEPS}
ERRORS = {"persistence": 0.2, "steps": 0.15, "interpolation": 0.1, "flowdas": 0.05}
DRY = 1  # a case without an event
ATTRIBUTES = {"dt": 10.0, "mean": 0.5, "std": 0.1, "natural_units": "VIL / 255"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of one step and of a rollout, and an archive of synthetic storms."""
    root = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    law = Storms(size=SIZE)
    write_storms(root / "archive", 12, storms=law)
    events = np.stack([law.event(0, i)[..., ::2].transpose(2, 0, 1) for i in range(CASES)]) / 255
    events[DRY] *= 0.2
    rows = []
    for task, steps in LENGTHS.items():
        time = "time" if steps == 1 else "lead"
        coordinates = {"case": np.arange(CASES), time: np.arange(1, steps + 1)}
        truth = ((events[:, :steps] - 0.5) * 10).astype("float32")
        y = build(POINTS, root)(torch.from_numpy(truth)).numpy()
        observations = xr.Dataset(
            {"y": (("case", time, "obs_0"), y), "truth": (("case", time, "y", "x"), truth)},
            coords=coordinates,
            attrs=ATTRIBUTES,
        )
        store.write(observations, root / f"observations/{task}.zarr")
        for method, size in ERRORS.items():
            noise = rng.normal(size=(CASES, MEMBERS, steps, SIZE, SIZE))
            state = (truth[:, None] + 10 * size * noise).astype("float32")
            posterior = xr.Dataset(
                {"state": (("case", "member", time, "y", "x"), state)}, coords=coordinates
            )
            store.write(posterior, root / f"posterior/{task}/{method}.zarr")
            for case in range(CASES):
                for k in range(steps):
                    score = np.nan if case == DRY else 1 - size * (1 + 0.1 * case + 0.2 * k)
                    rows.append((task, method, case, k + 1.0, "csi_0.3", score))
    columns = ["task", "method", "case", "lead", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(root / "metrics.parquet")
    return root


@pytest.fixture(scope="module")
def results(folder, results_of):
    """Makes the `Results` of a figure, as the command line does."""

    def make(tasks=tuple(LENGTHS), methods=tuple(ERRORS)) -> Results:
        return results_of(
            folder,
            tasks,
            methods,
            floor="persistence",
            limit="",
            labels={"sparse_10": "10 % of the pixels, noise 0.001, one step"},
            operators=dict.fromkeys(tasks, POINTS),
        )

    return make


FIGURES = {
    "maps": lambda r: fields.draw(r(("sparse_10",)), 0, name="VIL", colours="vil"),
    "animation": lambda r: animation.draw(r(("rollout_3",)), 2, name="VIL", colours="vil").figure,
    "reliability": lambda r: reliability.draw(r(methods=("steps", "flowdas"))),
    "ranks": lambda r: ranks.draw(r(methods=("steps", "flowdas")), encoded=255),
    "thresholds": lambda r: thresholds.draw(r()),
    "CSI by lead": lambda r: error_over_time.draw(r(("rollout_3",)), metric="csi_0.3"),
    "storms": lambda r: storms.draw(r()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_legible_and_nothing_is_cut_off(drawn, name, legible):
    legible(drawn[name])


# ------------------------------------------------------------------------------ colours

# How protanopes, deuteranopes and tritanopes see: Machado, Oliveira & Fernandes (2009), table 1.
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("vision", VISION)
def test_a_higher_level_is_darker_for_all_kinds_of_colour_vision(vision):
    rgb = np.array([to_rgb(colour) for colour in vil.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = (linear @ np.transpose(VISION[vision])).clip(0) @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16
    assert (np.diff(lightness) < (-3.9 if vision == "normal" else -2)).all()


def test_colours_change_at_the_levels():
    scale = vil.scale()
    for i, (low, high) in enumerate(zip(vil.LEVELS, vil.LEVELS[1:], strict=False)):
        for value in (low, high - 1):
            assert scale.to_rgba(value / 255)[:3] == pytest.approx(to_rgb(vil.COLOURS[i]))
    for value, colour in ((-0.2, vil.COLOURS[0]), (1.3, vil.COLOURS[-1])):
        assert scale.to_rgba(value)[:3] == pytest.approx(to_rgb(colour))


def test_maps_are_in_natural_units(results, drawn):
    figure, task = drawn["maps"], results().observations("sparse_10")
    shown = [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]
    truth = 0.5 + 0.1 * task.truth.values[0, 0]
    assert np.allclose(shown[0], truth, atol=1e-6)
    written = [t.get_text() for t in figure.findobj(Text)]
    for i, method in enumerate(ERRORS):
        state = 0.5 + 0.1 * results().posterior(method, "sparse_10").state.values[0, 0, 0]
        assert np.allclose(shown[1 + i], state, atol=1e-6)
        assert f"{math.sqrt(((state - truth) ** 2).mean()):.3f}" in written
    labels = {axes.get_xlabel() for axes in figure.axes}
    assert labels >= {"VIL (0 to 255)", "error of VIL (VIL / 255)"}
    assert {str(level) for level in vil.LEVELS} <= set(written)
    dots = next(axes.collections[0] for axes in figure.axes if axes.collections)
    assert np.allclose(dots.get_array(), 0.5 + 0.1 * task.y.values[0, 0], atol=1e-6)


def test_other_colours_are_refused(results):
    with pytest.raises(ValueError, match="colours: value 'jet', allowed: 'signed', 'vil'"):
        fields.draw(results(("sparse_10",)), colours="jet")


# ------------------------------------------------------------------------------ scores


def test_csi_by_lead_is_a_mean_over_the_cases_that_have_one(results, drawn):
    table = results().metrics()
    rows = table[(table.task == "rollout_3") & (table.method == "steps")]
    found = error_over_time.error_by_lead(rows, "csi_0.3")
    wet = np.delete(np.arange(CASES), DRY)
    for k, estimate in enumerate(found):
        assert estimate == bootstrap_interval(1 - 0.15 * (1 + 0.1 * wet + 0.2 * k))
    axes = drawn["CSI by lead"].axes[0]
    assert axes.get_ylim() == (0, 1)
    assert axes.get_ylabel() == "CSI 0.3 of mean"


def test_pooled_csi_is_that_of_all_cases_together(results):
    """Against the contingency table of `scores`, with the dry case and its false alarms."""
    posterior, observations = results().matched("steps", "rollout_3")
    table = ThresholdEventOperator(default_event_threshold=-1.0)
    for mean, state in ((False, posterior.state), (True, posterior.state.mean("member"))):
        made = table.make_contingency_manager(state, observations.truth).transform()
        found = thresholds.pooled_csi(posterior, observations, -1.0, mean)
        assert found.value == pytest.approx(float(made.critical_success_index()))
        assert found.low < found.value < found.high
        assert found.n == (CASES if not mean else CASES - 1)


def test_levels_are_those_of_encoded_values(results, drawn):
    """A pixel that is encoded as a level is at it, whatever the rounding of its 32 bits."""
    truth = results().observations("rollout_3").truth.values
    encoded = np.round((truth / 10 + 0.5) * 255)
    ticks = [t.get_text() for t in drawn["thresholds"].axes[-1].get_xticklabels()]
    assert [int(tick.split("\n")[0]) for tick in ticks] == list(thresholds.THRESHOLDS)
    for level, tick in zip(thresholds.THRESHOLDS, ticks, strict=True):
        share = 100 * (encoded >= level).mean()
        assert float(tick.split("\n")[1]) == pytest.approx(share, rel=0.06)


# ------------------------------------------------------------------------------ reliability


def test_reliability_by_hand():
    """Two cases of four pixels: how many of two members say yes, and whether it is so."""
    votes = np.array([[0, 1, 2, 2], [0, 0, 1, 2]])
    truth = np.array([[0, 1, 1, 0], [1, 0, 0, 1]])
    state = np.stack([votes >= 1, votes >= 2], axis=1).astype(float)
    found = reliability.reliability(state, truth, 0.5)
    assert found.forecast == pytest.approx([0, 0.5, 1])
    assert [e.value for e in found.observed] == pytest.approx([1 / 3, 1 / 2, 2 / 3])
    assert found.share == pytest.approx([3 / 8, 2 / 8, 3 / 8])


@pytest.mark.parametrize("spread", [1.0, 0.3])
def test_reliability_of_gaussian_ensembles(spread):
    """Φ(σ Φ⁻¹(p)) of members with σ times the deviation that they should have: p for σ = 1."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(40, 1, 2000))
    truth = signal[:, 0] + rng.normal(size=(40, 2000))
    state = signal + spread * rng.normal(size=(40, 100, 2000))
    found = reliability.reliability(state, truth, 0.5)
    assert len(found.forecast) == reliability.BINS
    assert found.share.sum() == pytest.approx(1)
    expected = norm.cdf(spread * norm.ppf(found.forecast))
    observed = np.array([e.value for e in found.observed])
    assert observed[1:-1] == pytest.approx(expected[1:-1], abs=0.03)
    assert all(e.low < e.value < e.high for e in found.observed)


def test_probabilities_that_were_never_forecast_are_left_out():
    truth = np.array([[0.0, 1.0, 1.0]])
    found = reliability.reliability(truth[:, None].repeat(8, 1), truth, 0.5)
    assert (found.forecast == [0, 1]).all()
    assert [e.value for e in found.observed] == [0, 1]


# ------------------------------------------------------------------------------ ranks


def test_ties_are_broken_at_random_and_what_is_dry_for_all_is_left_out():
    """Exchangeable members and truth of few values, most of them zero."""
    rng = np.random.default_rng(0)
    values = rng.poisson(0.4, size=(30, 1 + 5, 4000)).astype(float)
    values[:3] = 0
    found = ranks.rank_histogram(values[:, 1:], values[:, 0])
    assert found.density == pytest.approx(np.ones(6), abs=0.04)
    low = ranks.rank_histogram(np.zeros((2, 5, 9)), np.r_[np.ones((1, 9)), np.zeros((1, 9))])
    assert low.density == pytest.approx([0, 0, 0, 0, 0, 6])


def test_ranks_of_encoded_values(results, drawn):
    """What lies below zero or between two integers does not tell members from truth."""
    posterior, observations = results().matched("steps", "sparse_10")
    state, truth = (
        np.round((0.1 * x.values + 0.5).clip(0, 1) * 255)
        for x in (posterior.state, observations.truth)
    )
    expected = ranks.rank_histogram(state, truth)
    bars = drawn["ranks"].axes[0].containers[0]
    assert [bar.get_height() for bar in bars] == pytest.approx(np.minimum(expected.density, 4))


# ------------------------------------------------------------------------------ storms


def test_the_statistics_are_those_of_the_archive(folder, drawn):
    events = storms.events_of(folder / "archive", 100)
    law = Storms(size=SIZE)
    assert len(events) == 12
    assert all((event == law.event(0, i)).all() for i, event in enumerate(events))
    expected = statistics(events)
    first, second, third = drawn["storms"].axes
    assert first.lines[1].get_ydata()[0] == pytest.approx(expected["mean"])
    assert [first.lines[i].get_ydata()[0] for i in (2, 5)] == [33.44, 47.54]
    shares = [100 * expected[f"above_{level}"] for level in (16, 74, 133, 160, 181, 219)]
    assert second.lines[0].get_ydata() == pytest.approx(shares)
    lags = [expected[f"correlation_{lag}"] for lag in (10, 20, 30, 60, 90, 120)]
    assert third.lines[0].get_ydata() == pytest.approx(lags)
    written = " ".join(t.get_text() for t in drawn["storms"].findobj(Text))
    assert "12 synthetic storms" in written


def test_a_few_events_are_taken_from_all_files(folder):
    found = storms.events_of(folder / "archive", 3)
    law = Storms(size=SIZE)
    assert [(event == law.event(0, i)).all() for event, i in zip(found, (0, 6, 11), strict=True)]


def test_only_synthetic_storms_are_shown(tmp_path):
    with pytest.raises(BadInput, match="no synthetic storms"):
        storms.events_of(tmp_path, 3)
