"""The figures of restored pictures: what they compute and show, from small pictures."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.text import Annotation, Text

from priorflow import store
from priorflow.components import BadInput, build
from priorflow.stages.figures import exactness, pictures, plane, style, tradeoff
from priorflow.stages.figures.base import Results
from priorflow.stages.observe import at
from priorflow.stages.statistics import Estimate, bootstrap_interval

SHAPE, CASES, MEMBERS = (3, 12, 12), 5, 2
NOISE = 0.05
OPERATORS = {
    "motion_deblur_noise005": {"class": "priorflow.operators.motion:MotionBlur", "size": 5},
    "inpainting_noise005": {
        "class": "priorflow.operators.inpainting:BoxInpainting",
        "rows": [4, 8],
        "columns": [2, 6],
    },
    "phase_retrieval_noise005": {"class": "priorflow.operators.nonlinear:PhaseRetrieval"},
}
TASKS = tuple(OPERATORS)
SIZES = {"exact": 0.1, "exact.reference": 0.1, "pinv": 0.2, "dps": 0.4, "diffpir": 0.3}
LINEAR = ("pinv",)  # not for phase retrieval


def ran(method: str, task: str) -> bool:
    return method not in LINEAR or task != TASKS[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    rows = []
    cases, scale = np.arange(CASES), 1 + 0.1 * np.arange(CASES)
    for task, spec in OPERATORS.items():
        truth = rng.uniform(-0.9, 0.9, size=(CASES, *SHAPE)).astype("float32")
        numbers = [10 + case for case in cases]
        operator = at(build(spec, root, shape=SHAPE), numbers)
        y = operator(torch.from_numpy(truth).unsqueeze(1)).squeeze(1).numpy()
        observations = xr.Dataset(
            {
                "y": (("case", *(f"obs_{i}" for i in range(y.ndim - 1))), y),
                "truth": (("case", "channel", "y", "x"), truth),
                "trajectory": ("case", numbers),
            },
            coords={"case": cases},
            attrs={"noise_std": NOISE, "mean": 0.0, "std": 1.0, "dt": 1.0, "natural_units": "1"},
        )
        store.write(observations, root / f"observations/{task}.zarr")
        for method, size in SIZES.items():
            if not ran(method, task):
                continue
            # every second case is restored better than the one before it
            error = size * np.array([1.0, 0.5, 0.9, 0.4, 0.7])[:, None, None, None, None]
            noise = rng.choice([-1, 1], size=(CASES, MEMBERS, *SHAPE))
            state = (truth[:, None] + error * noise).astype("float32")
            posterior = xr.Dataset(
                {"state": (("case", "member", "channel", "y", "x"), state)}, coords={"case": cases}
            )
            store.write(posterior, root / f"posterior/{task}/{method}.zarr")
            found = {
                "psnr": 20 - 10 * size * scale,
                "lpips": np.full(CASES, np.nan),
                "consistency": size * scale,
                "mean_error": 5 * size * scale,
                "sliced_w2": (size if method != "exact.reference" else 0) * scale,
                "coverage_50": 0.5 - 0.1 * size * scale,
                "coverage_90": 0.9 - 0.1 * size * scale,
                "nfe": np.full(CASES, 100 if method in ("dps", "diffpir") else 0),
                "seconds": size * scale,
            }
            for metric, values in found.items():
                rows += [(task, method, case, metric, values[case]) for case in cases]
    columns = ["task", "method", "case", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(root / "metrics.parquet")
    return root


@pytest.fixture(scope="module")
def results(folder, results_of):
    """Makes the `Results` of a figure, as the command line does."""

    def make(tasks=TASKS, methods=tuple(SIZES), limit="exact") -> Results:
        return results_of(
            folder,
            tasks,
            methods,
            ran,
            floor="pinv",
            limit=limit,
            labels={"pinv": "pseudo-inverse, Wiener filter"},
            operators={task: OPERATORS[task] for task in tasks},
        )

    return make


FIGURES = {
    "pictures": lambda r: pictures.draw(r()),
    "many cases": lambda r: pictures.draw(r(TASKS[:1]), 3),
    "cost": lambda r: tradeoff.draw(r(TASKS[1:]), "psnr"),
    "plane": lambda r: plane.draw(r(), "mean_error", "sliced_w2"),
    "consistency": lambda r: plane.draw(r(TASKS[:1]), "consistency", "psnr"),
    "exactness": lambda r: exactness.draw(r()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_legible_and_nothing_is_cut_off(drawn, name, legible):
    legible(drawn[name])


def words(figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text)]


def shown(axes) -> np.ndarray:
    """A picture in colour, from [0, 1] back to (C, H, W) in [-1, 1]."""
    (image,) = axes.images
    return np.moveaxis(2 * np.asarray(image.get_array()) - 1, -1, 0)


def test_pictures_show_truth_observation_and_first_members(results, drawn):
    figure, columns = drawn["pictures"], 2 + len(SIZES)
    for i, task in enumerate(TASKS):
        observations = results().observations(task)
        (row,) = pictures.picked(results(), task, 1)
        axes = figure.axes[i * columns : (i + 1) * columns]
        truth = observations.truth.values[row.case]
        assert np.allclose(shown(axes[0]), truth, atol=1e-6)
        assert f"case {row.case}" in axes[0].get_ylabel()
        for method, axis in zip(SIZES, axes[2:], strict=True):
            if not ran(method, task):
                assert words(axis).count("not\nrun") == 1
                continue
            first = results().posterior(method, task).state.values[row.case, 0].clip(-1, 1)
            assert np.allclose(shown(axis), first, atol=1e-6)
            expected = 10 * np.log10(4 / ((first - truth) ** 2).mean())
            assert row.decibels[method] == pytest.approx(expected, abs=1e-3)
            assert axis.get_xlabel() == f"{expected:.1f}"


def test_observations_are_pictures_by_the_operator_of_their_image(results, drawn):
    blurred, hidden, amplitudes = (
        drawn["pictures"].axes[1 + i * (2 + len(SIZES))] for i in (0, 1, 2)
    )
    case = pictures.picked(results(), TASKS[0], 1)[0].case
    y = results().observations(TASKS[0]).y.values[case]
    assert np.allclose(shown(blurred), y.clip(-1, 1), atol=1e-6)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[:, 4:8, 2:6] = True
    truth = shown(drawn["pictures"].axes[2 + len(SIZES)])
    assert np.allclose(shown(hidden), np.where(inside, 0, truth), atol=1e-6)
    assert shown(amplitudes).shape[1] > SHAPE[1]  # with the zeros around it


def test_grey_pictures_have_three_equal_channels(results):
    axes = pictures.panels(1, 1, height=3)[1][0, 0]
    pictures._show(axes, np.array([[[-2.0, 0.0], [0.5, 1.0]]]))
    assert np.allclose(shown(axes), [[[-1, 0], [0.5, 1]]] * 3)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_cases_stand_at_even_quantiles(count):
    values = np.array([3.0, 0.0, 4.0, 1.0, 2.0])
    expected = {1: [2], 2: [1, 3], 5: [0, 1, 2, 3, 4], 9: [0, 1, 2, 3, 4]}
    assert values[pictures.central(values, count)].tolist() == expected[count]


@pytest.mark.parametrize(("limit", "methods"), [("exact", ("dps", "exact")), ("", ("pinv", "dps"))])
def test_the_case_has_the_median_psnr_of_the_limit_or_the_first_method(results, limit, methods):
    made = results(TASKS[:1], methods, limit)
    rows = pictures.picked(made, TASKS[0], CASES)  # all, in their order
    reference = limit or methods[0]
    values = [row.decibels[reference] for row in rows]
    assert values == sorted(values)
    assert pictures.picked(made, TASKS[0], 1)[0].case == rows[CASES // 2].case


def test_scores_have_a_linear_axis_and_pictures_no_states(results, drawn):
    first, _, seconds, _ = drawn["cost"].axes
    assert first.get_yscale() == "linear"
    assert first.get_ylabel() == "PSNR (dB)"
    assert first.get_xlabel() == "forward network evaluations\nper image"
    price = {line.get_xdata()[0] for line in first.lines}
    assert price == {0, 100}  # not by the channels, which come where others have their times
    paid = [line.get_xdata()[0] for line in seconds.lines[::3]]
    assert paid == pytest.approx([size * 1.2 for size in SIZES.values()])
    assert tradeoff.draw(results(TASKS[:1]), "mean_error").axes[0].get_yscale() == "log"


def names_of(axes) -> dict[str, Annotation]:
    return {a.get_text(): a for a in axes.findobj(Annotation)}


def test_points_stand_at_the_means_with_their_intervals(drawn):
    axes = drawn["plane"].axes[0]
    names = names_of(axes)
    # draws that are compared with themselves have no place on a logarithmic axis
    assert set(names) == {"Exact posterior", "pseudo-inverse, Wiener filter", "DPS", "DiffPIR"}
    assert names["DPS"].xy == pytest.approx((5 * 0.4 * 1.2, 0.4 * 1.2))
    across, up = axes.containers[-2][2]  # the bars of DPS
    (low, _), (high, _) = across.get_segments()[0]
    expected = bootstrap_interval(5 * 0.4 * (1 + 0.1 * np.arange(CASES)))
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert len(up.get_segments()) == 1


def test_the_noise_is_marked_beside_consistency(drawn):
    axes = drawn["consistency"].axes[0]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [NOISE]
    assert axes.get_ylabel() == "PSNR (dB) ↑"


def test_a_metric_without_values_says_so(results):
    figure = plane.draw(results(TASKS[:1]), "psnr", "lpips")
    assert "no values" in words(figure)


def test_names_do_not_cover_points_or_one_another():
    rng = np.random.default_rng(3)
    axes = style.panels(1, 1, width=8, height=7)[1][0, 0]
    places = rng.normal(size=(16, 2))
    points = {
        f"method {i}": tuple(Estimate(v, v - 0.05, v + 0.05, 9) for v in place)
        for i, place in enumerate(places)
    }
    axes.plot(*places.T, "o")
    axes.margins(0.1)
    axes.figure.draw_without_rendering()
    plane.name_points(axes, points)
    axes.figure.draw_without_rendering()
    found = names_of(axes)
    assert set(found) == set(points)
    boxes = [Text.get_window_extent(text) for text in found.values()]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    dots = axes.transData.transform(places)
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_methods_are_ranked_by_their_ratio_to_the_limit():
    def estimate(value: float) -> Estimate:
        return Estimate(value, value, value, 9)

    distances = {
        ("exact", "a"): 0.1,
        ("exact", "b"): 10.0,
        ("near", "a"): 0.2,
        ("near", "b"): 20.0,
        ("hard", "b"): 30.0,  # three times the limit, though the greatest number
        ("far", "a"): 0.4,
        ("far", "b"): 40.0,
        ("lucky", "a"): 0.09,
        ("itself", "a"): 0.0,
    }
    found = {(m, t, "w"): estimate(value) for (m, t), value in distances.items()}
    found |= {("far", "a", "other"): estimate(1e-9)}
    assert exactness.ranked(found, "w", "exact") == ["exact", "lucky", "near", "hard", "far"]


def test_lines_lead_to_the_limit_and_coverages_have_their_targets(drawn):
    figure = drawn["exactness"]
    error, distance, coverage = figure.axes
    labels = [t.get_text() for t in distance.get_yticklabels()] or [
        t.get_text() for t in error.get_yticklabels()
    ]
    assert labels[0] == "Exact posterior"
    assert labels[-1] == "DPS"
    assert len(labels) == 4  # without the draws that are compared with themselves
    lines = [line.get_xdata() for line in distance.lines if len(line.get_xdata()) == 2]
    assert {round(float(line[0]), 6) for line in lines} == {0.12}
    ends = {round(float(line[1]), 6) for line in lines}
    assert ends == {round(SIZES[m] * 1.2, 6) for m in SIZES}
    targets = [line.get_xdata()[0] for line in coverage.lines if len(line.get_xdata()) == 2]
    assert targets == [0.5, 0.9]
    assert error.get_xscale() == "log"


def test_exactness_needs_the_limit(results):
    with pytest.raises(BadInput, match="limit"):
        exactness.draw(results(methods=("dps",)))
