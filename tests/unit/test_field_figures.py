"""The figures of two-dimensional fields: what they compute and show, from small smooth fields."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.colors import same_color
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from priorflow import store
from priorflow.components import build
from priorflow.stages.figures import (
    animation,
    error_over_time,
    fields,
    skill,
    spectra,
    style,
    tradeoff,
)
from priorflow.stages.figures.base import Animation, Results, save
from priorflow.stages.statistics import bootstrap_interval

SIZE, CASES, MEMBERS, STEPS = 24, 5, 3, 4
OPERATORS = {
    "sr": {"class": "priorflow.operators.fields:Downsample", "size": SIZE, "factor": 4},
    "points": {"class": "priorflow.operators.fields:Points", "size": SIZE, "count": 40},
}
LENGTHS = {"sr": 1, "points": 1, "sr_rollout": STEPS, "points_rollout": STEPS}
ERRORS = {"interpolation": 0.6, "enkf": 0.05, "flowdas": 0.2, "flowdas.released": 0.3}
FEW = {"flowdas": 3}  # cases of those that have fewer
ONCE = ("flowdas.released",)  # not on rollouts
NFE = {"interpolation": 0.0, "enkf": 0.0, "flowdas": 100.0, "flowdas.released": 2000.0}


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Fields of unit variance with wavenumbers up to 5."""
    z = np.fft.rfft2(rng.normal(size=(*shape, SIZE, SIZE)))
    square = np.fft.fftfreq(SIZE, 1 / SIZE)[:, None] ** 2 + np.arange(SIZE // 2 + 1) ** 2
    x = np.fft.irfft2(z * (square < 36))
    return (x / x.std()).astype("float32")


def operator_of(task: str) -> dict:
    return OPERATORS[task.removesuffix("_rollout")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of four tasks, two of them rollouts."""
    root = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    rows = []
    for task, steps in LENGTHS.items():
        time = "time" if steps == 1 else "lead"
        coordinates = {"case": np.arange(CASES), time: np.arange(1, steps + 1)}
        truth = smooth(rng, CASES, steps)
        y = build(operator_of(task), root)(torch.from_numpy(truth)).numpy()
        seen = ("case", time, *(f"obs_{i}" for i in range(y.ndim - 2)))
        observations = xr.Dataset(
            {"y": (seen, y), "truth": (("case", time, "y", "x"), truth)},
            coords=coordinates,
            attrs={"dt": 0.5, "mean": 0.0, "std": 2.4, "natural_units": "1"},
        )
        store.write(observations, root / f"observations/{task}.zarr")
        for method, size in ERRORS.items():
            if steps > 1 and method in ONCE:
                continue
            count = FEW.get(method, CASES)
            state = truth[:count, None] + size * smooth(rng, count, MEMBERS, steps)
            posterior = xr.Dataset(
                {"state": (("case", "member", time, "y", "x"), state)},
                coords=coordinates | {"case": np.arange(count)},
            )
            store.write(posterior, root / f"posterior/{task}/{method}.zarr")
            for case in range(count):
                for k in range(steps):
                    lead = np.nan if steps == 1 else k + 1.0
                    error = size * (1 + 0.1 * case) * (1 + 0.1 * k)
                    rows.append((task, method, case, lead, "crps", error))
                    rows.append((task, method, case, lead, "rmse_mean", 2 * error))
                rows.append((task, method, case, np.nan, "nfe", NFE[method] * steps))
                rows.append((task, method, case, np.nan, "seconds", 0.01 * size * steps))
    columns = ["task", "method", "case", "lead", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(root / "metrics.parquet")
    return root


@pytest.fixture(scope="module")
def results(folder, results_of):
    """Makes the `Results` of a figure, as the command line does."""

    def make(tasks=("sr", "points"), methods=tuple(ERRORS)) -> Results:
        return results_of(
            folder,
            tasks,
            methods,
            lambda method, task: LENGTHS[task] == 1 or method not in ONCE,
            floor="interpolation",
            limit="enkf",
            labels={"sr": "6² of 24² pixels, one step"},
            operators={task: operator_of(task) for task in tasks},
        )

    return make


ROLLOUTS = ("sr_rollout", "points_rollout")
FIGURES = {
    "fields": lambda r: fields.draw(r()),
    "fields of the mean": lambda r: fields.draw(r(ROLLOUTS, ("enkf", "flowdas")), 1, None),
    "animation": lambda r: animation.draw(r(ROLLOUTS)).figure,
    "spectra": lambda r: spectra.draw(r(), forced=(3, 5), cutoff=1 / 3),
    "error of rollouts": lambda r: error_over_time.draw(r(ROLLOUTS), log=True),
    "tradeoff": lambda r: tradeoff.draw(r()),
    "tradeoff of many": lambda r: tradeoff.draw(r(tuple(LENGTHS))),
    "skill of many": lambda r: skill.draw(r(tuple(LENGTHS))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_legible_and_nothing_is_cut_off(drawn, name, legible):
    legible(drawn[name])


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("fields", "vorticity (standardised)"),
        ("fields", "error of vorticity (standardised)"),
        ("spectra", "kinetic energy E(k) (standardised)"),
        ("error of rollouts", "CRPS (standardised)"),
        ("tradeoff", "wall-clock time (s)\nper member and state"),
    ],
)
def test_units_are_on_the_axes(drawn, name, label):
    found = [(axes.get_xlabel(), axes.get_ylabel()) for axes in drawn[name].axes]
    assert label in {text for pair in found for text in pair}


def images(figure) -> list[np.ndarray]:
    """What the panels with pictures show, row by row."""
    pictures = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    return [np.asarray(i.get_array()) for axes in pictures for i in axes.findobj(AxesImage)]


def test_fields_show_truth_observation_states_and_their_errors(results, drawn):
    task = results().observations("sr")
    case = fields.picked(results(), None, 0)[0]["sr"].case
    shown = images(drawn["fields"])
    assert len(shown) == 2 * (1 + 2 * len(ERRORS)) + 1  # the points are no picture
    truth, y = shown[:2]
    assert np.array_equal(truth, task.truth.values[case, 0])
    assert np.array_equal(y, task.y.values[case, 0])
    states, errors = shown[2 : 2 + len(ERRORS)], shown[2 + len(ERRORS) : 2 + 2 * len(ERRORS)]
    written = [t.get_text() for t in drawn["fields"].findobj(Text)]
    for method, state, error in zip(ERRORS, states, errors, strict=True):
        first = results().posterior(method, "sr").state.values[case, 0, 0]
        assert np.array_equal(state, first)
        assert np.allclose(error, first - truth)
        assert f"{np.sqrt((error**2).mean()):.3f}" in written
    assert f"case {case}" in written


def test_dots_lie_on_the_pixels_that_are_observed(results, drawn):
    dots = next(a.collections[0] for a in drawn["fields"].axes[SECOND:] if a.collections)
    row = fields.picked(results(), None, 0)[0]["points"]
    x, y = dots.get_offsets().T.round().astype(int)
    assert np.allclose(row.truth[0][y, x], dots.get_array(), atol=1e-6)
    assert np.allclose(dots.get_offsets().T, [x, y], atol=1e-4)


SECOND = 2 * (2 + len(ERRORS))  # panels of the first task


def test_all_states_share_one_scale_and_all_errors_another(drawn):
    norms = {}
    for axes in drawn["fields"].axes:
        for artist in (*axes.images, *axes.collections):
            if artist.get_array() is not None and axes.get_subplotspec() is not None:
                norms.setdefault(id(artist.norm), artist.norm)
    assert len(norms) == 2
    assert all(norm.vmin == -norm.vmax for norm in norms.values())
    assert max(n.vmax for n in norms.values()) > 1.5 > min(n.vmax for n in norms.values())


def test_the_case_is_one_that_all_methods_have(results):
    rows, _ = fields.picked(results(), CASES - 1, 0)
    assert rows["sr"].case == FEW["flowdas"] - 1
    exact = results().posterior("enkf", "sr").state[: FEW["flowdas"], 0]
    truth = results().observations("sr").truth[: FEW["flowdas"]]
    error = ((exact - truth) ** 2).mean(("time", "y", "x")).values
    picked = fields.picked(results(), None, 0)[0]["sr"].case
    assert error[picked] == np.sort(error)[FEW["flowdas"] // 2]


def test_the_mean_of_the_members_can_be_shown(results):
    row = fields.picked(results(ROLLOUTS), 1, None)[0]["sr_rollout"]
    mean = results(ROLLOUTS).posterior("enkf", "sr_rollout").state.values[1].mean(0)
    assert np.allclose(row.states["enkf"], mean, atol=1e-6)


def test_methods_that_were_not_run_say_so(results):
    figure = fields.draw(results(("sr", "sr_rollout")))
    assert [t.get_text() for t in figure.findobj(Text)].count("not run") == 1


def test_an_animation_has_a_frame_for_every_state(results, tmp_path):
    made = animation.draw(results(ROLLOUTS))
    assert isinstance(made, Animation)
    observations = results(ROLLOUTS).observations("sr_rollout")
    case = fields.picked(results(ROLLOUTS), None, 0)[0]["sr_rollout"].case
    places = [axes.get_position().bounds for axes in made.figure.axes]
    for k in range(STEPS):
        made.show(k)
        assert np.array_equal(images(made.figure)[0], observations.truth.values[case, k])
        words = [t.get_text() for t in made.figure.findobj(Text)]
        assert f"case {case}\nstate {k + 1} of {STEPS}\ntime {0.5 * (k + 1):g}" in words
    for i in range(2):
        save(made, tmp_path / f"{i}.png", tmp_path / f"{i}.svg")
    # nothing trembles
    assert np.allclose([axes.get_position().bounds for axes in made.figure.axes], places)
    for kind in ("png", "svg"):
        assert (tmp_path / f"0.{kind}").read_bytes() == (tmp_path / f"1.{kind}").read_bytes()
    with Image.open(tmp_path / "0.png") as image:
        assert image.format == "PNG"
        assert image.n_frames == STEPS
        assert image.info["loop"] == 0  # without end
        frames, pauses = [], []
        for i in range(STEPS):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
            pauses.append(image.info["duration"])
    assert pauses == pytest.approx([1000 / 3] * (STEPS - 1) + [4000 / 3], abs=1)
    assert all((a != b).any() for a, b in pairwise(frames))


def test_the_energy_of_a_single_mode_lies_at_its_wavenumber():
    angle = np.arange(SIZE) * 2 * math.pi / SIZE
    wave = np.sqrt(2) * np.cos(3 * angle[:, None] + 4 * angle)
    scale = np.array([[1.0, 2.0], [3.0, 4.0]])[:, :, None, None]
    found = spectra.energies(xr.DataArray(scale * wave, dims=("case", "time", "y", "x")))
    expected = np.zeros((2, SIZE // 2))
    expected[:, 4] = [(1 + 4) / 2 / 50, (9 + 16) / 2 / 50]  # <ω²> / 2k²
    assert np.allclose(found, expected)


def test_the_ratio_of_energies_pools_the_cases():
    rng = np.random.default_rng(1)
    truth = rng.uniform(1, 3, size=(30, 2))
    found = spectra.energy_ratio(truth * [1.0, 0.5], truth)
    assert [e.value for e in found] == pytest.approx([1, 0.5])
    other = rng.uniform(1, 3, size=(30, 2))
    for e, a, b in zip(spectra.energy_ratio(other, truth), other.T, truth.T, strict=True):
        assert e.value == pytest.approx(a.mean() / b.mean())
        assert e.low < e.value < e.high


def test_ratios_end_where_the_truth_has_no_energy(drawn):
    below = drawn["spectra"].axes[2]
    ends = [line.get_xdata()[-1] for line in below.lines if len(line.get_xdata()) > 2]
    assert ends == [SIZE // 3] * len(ERRORS)
    marks = {float(line.get_xdata()[0]) for line in below.lines if len(line.get_xdata()) == 2}
    assert marks >= {3.0, 5.0, SIZE / 3}


@pytest.mark.parametrize("metric", ["crps", "rmse_mean"])
def test_errors_of_rollouts_are_means_over_cases(results, metric):
    table = results(ROLLOUTS).metrics()
    rows = table[(table.task == "sr_rollout") & (table.method == "enkf")]
    found = error_over_time.error_by_lead(rows, metric)
    case, lead = 1 + 0.1 * np.arange(CASES), 1 + 0.1 * np.arange(STEPS)
    assert [e.n for e in found] == [CASES] * STEPS
    for e, k in zip(found, lead, strict=True):
        if metric == "crps":
            expected = bootstrap_interval(0.05 * case * k)
            assert (e.value, e.low, e.high) == pytest.approx(
                (expected.value, expected.low, expected.high)
            )
        else:
            assert e.value == pytest.approx(np.sqrt(((0.1 * case * k) ** 2).mean()))
            assert e.low < e.value < e.high


def test_costs_are_per_state_and_what_is_free_has_its_place(results, drawn):
    figure = tradeoff.draw(results(("sr_rollout",)))
    free, paid = (axes.lines for axes in figure.axes[:2])
    assert [line.get_xdata()[0] for line in free[::3]] == [0, 0, 100]
    assert [line.get_xdata()[0] for line in paid[::3]] == pytest.approx([0.006, 0.0005, 0.002])
    shared = min(FEW.values())  # of the cases, which flowdas has, too
    mean = 0.05 * (1 + 0.1 * np.arange(shared)).mean() * (1 + 0.1 * np.arange(STEPS)).mean()
    assert free[3].get_ydata()[0] == pytest.approx(mean)
    assert figure.axes[0].get_xscale() == "symlog"
    assert figure.axes[1].get_xscale() == "log"


def test_variants_are_hollow(drawn):
    handles = dict(
        zip(
            (t.get_text() for t in drawn["tradeoff"].legends[0].get_texts()),
            drawn["tradeoff"].legends[0].get_lines(),
            strict=True,
        )
    )
    assert same_color(handles["FlowDAS (released)"].get_markerfacecolor(), "white")
    assert not same_color(handles["FlowDAS"].get_markerfacecolor(), "white")
    assert same_color(handles["EnKF"].get_color(), style.LIMIT)


def test_a_forecast_that_is_not_the_floor_has_a_colour_of_its_own():
    facts = {"floor": "interpolation", "limit": "enkf"}
    assert style.look("forecast", facts).colour != style.look("interpolation", facts).colour


def test_a_method_that_has_failed_leaves_the_others_in_sight(results, folder):
    made = results(("sr",), ("enkf", "lost"))
    lost = made.posterior("enkf", "sr")
    store.write(lost + 1e9, folder / "posterior/sr/lost.zarr")
    made.posteriors["lost", "sr"] = [folder / "posterior/sr/lost.zarr"]
    figure = fields.draw(made)
    errors = [i for a in figure.axes for i in a.images][-2:]
    assert all(image.norm.vmax < 10 for image in errors)
    assert "1e+09" in [t.get_text() for t in figure.findobj(Text)]
    box = figure.get_tightbbox()
    assert box.x1 <= figure.bbox_inches.x1 + 0.02
