"""The figures of swept settings: curves of variants with their main runs, and iterations."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color
from matplotlib.text import Annotation, Text

from priorflow import store
from priorflow.stages import vocabulary
from priorflow.stages.figures import ablation, misfit, plane, style, sweeps, tradeoff
from priorflow.stages.figures.base import Results

NOISE = 0.05
TASKS = ("motion_deblur_noise005", "motion_deblur_noise0")
CASES, FEWER, MEMBERS = 6, 4, 2  # an ablation has fewer cases than the table
SETTINGS = {  # neither in the order of the values nor in that of the costs
    "dps.budget.steps_100": {"zeta": 0.3, "steps": 100},
    "dps.budget.steps_9": {"zeta": 0.3, "steps": 9},
    "dps.budget.steps_30": {"zeta": 0.3, "steps": 30},
    "dcdp_tweedie.budget.iterations_20": {"iterations": 20},
    "dcdp_tweedie.budget.iterations_5": {"iterations": 5},
    "pinv": {},
    "resample": {"steps": 200},
    "dcdp_tweedie": {"iterations": 40},
    "dps": {"zeta": 0.3, "steps": 931},
}
CURVES = {
    "dps": ["dps.budget.steps_9", "dps.budget.steps_30", "dps.budget.steps_100", "dps"],
    "dcdp_tweedie": [
        "dcdp_tweedie.budget.iterations_5",
        "dcdp_tweedie.budget.iterations_20",
        "dcdp_tweedie",
    ],
}
ITERATIONS = {"dcdp_tweedie": 40, "dcdp_tweedie.budget.iterations_5": 5, "resample": 1}
HARD = 1 + 0.1 * np.arange(CASES)  # by case
CURVE = "steps"


def calls(method: str) -> int:
    """Network calls: three times the setting of one method, once that of the other."""
    settings = SETTINGS[method]
    return 3 * settings.get("steps", 0) + settings.get("iterations", 0)


def level(method: str) -> float:
    """What its metrics are proportional to."""
    return 0.05 * (1 + list(SETTINGS).index(method))


def cases_of(method: str) -> int:
    return FEWER if ".budget." in method else CASES


def values(method: str) -> dict[str, np.ndarray]:
    base = level(method) * HARD
    found = {
        "psnr": 20 + 10 * base,
        "lpips_alex": base,
        "consistency": 0.3 * base,
        "nfe": np.full(CASES, float(calls(method))),
    }
    if "." in method or method == "resample":
        found |= {"psnr_mean": 23 + 10 * base, "lpips_alex_mean": 1.5 * base}
    return {metric: v[: cases_of(method)] for metric, v in found.items()}


def residuals(method: str, task: str) -> np.ndarray:
    """Misfits (case, iteration, member), skewed over cases, different in members."""
    k = np.arange(1, ITERATIONS[method] + 1)
    cases = 10.0 ** np.linspace(-1, 1, cases_of(method))
    members = np.array([0.5, 1.5])
    scale = 1.0 if task == TASKS[0] else 0.01
    return scale * cases[:, None, None] / k[:, None] * members


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results")
    rows = []
    for task, noise in zip(TASKS, (NOISE, 0.0), strict=True):
        picture = ("case", "channel", "y", "x"), np.zeros((CASES, 1, 2, 2), dtype="float32")
        observations = xr.Dataset({"truth": picture, "y": picture}, attrs={"noise_std": noise})
        store.write(observations, root / f"observations/{task}.zarr")
        for method in SETTINGS:
            n = cases_of(method)
            state = np.zeros((n, MEMBERS, 1, 2, 2), dtype="float32")
            posterior = xr.Dataset({"state": (("case", "member", "channel", "y", "x"), state)})
            if method in ITERATIONS:
                dims = ("case", "misfit_0", "misfit_1")
                posterior["misfit"] = (dims, residuals(method, task))
            store.write(posterior, root / f"posterior/{task}/{method}.zarr")
            for metric, found in values(method).items():
                rows += [(task, method, case, metric, v) for case, v in enumerate(found)]
    columns = ["task", "method", "case", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(root / "metrics.parquet")
    return root


@pytest.fixture(scope="module")
def results(folder, results_of):
    """Makes the `Results` of a figure, as the command line does."""

    def make(tasks=TASKS[:1], methods=tuple(SETTINGS), settings=SETTINGS) -> Results:
        return results_of(
            folder,
            tasks,
            methods,
            floor="pinv",
            limit="",
            labels={},
            solvers={(m, t): {"class": "a:B", **settings[m]} for m in methods for t in tasks},
        )

    return make


METRICS = ("psnr", "consistency")
FIELDS = ("steps", "iterations")
PLANE = ("lpips_alex", "psnr")
AVERAGES = ("lpips_alex_mean", "psnr_mean")
FIGURES = {
    "setting": lambda r: ablation.draw(r(), FIELDS, "budget", METRICS),
    "cost": lambda r: ablation.draw(r(), FIELDS, metrics=METRICS, against="nfe"),
    "no noise": lambda r: ablation.draw(r(TASKS[1:]), CURVE, metrics=METRICS),
    "curve": lambda r: plane.draw(r(), *PLANE, curve=CURVE),
    "averages": lambda r: plane.draw(r(TASKS), *PLANE, averages=AVERAGES),
    "both": lambda r: plane.draw(r(), *PLANE, curve=CURVE, averages=AVERAGES),
    "misfit": lambda r: misfit.draw(r(TASKS)),
    "brief": lambda r: misfit.draw(r(methods=("dcdp_tweedie.budget.iterations_5",))),
    "no misfit": lambda r: misfit.draw(r(methods=("pinv",))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_legible_and_nothing_is_cut_off(drawn, name, legible):
    legible(drawn[name])


def mean(method: str, metric: str, cases: int = CASES) -> float:
    return values(method)[metric][:cases].mean()


def lines(axes) -> list[tuple[list[float], list[float]]]:
    """x and y of the lines with the markers of methods, not of the caps of error bars."""
    found = [line for line in axes.lines if line.get_marker() not in ("None", "", "|", "_")]
    return [(list(map(float, line.get_xdata())), list(line.get_ydata())) for line in found]


def dotted(axes) -> list[float]:
    return [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]


def words(artist) -> list[str]:
    return [t.get_text() for t in artist.findobj(Text)]


def names_of(axes) -> dict[str, tuple[float, float]]:
    return {a.get_text(): a.xy for a in axes.findobj(Annotation)}


def test_the_main_run_is_one_more_point_of_its_curve(results):
    found = sweeps.curves(sweeps.variants(results(), "steps"))
    assert {key: [v.method for v in group] for key, group in found.items()} == {
        ("dps", "", ""): CURVES["dps"]
    }
    assert [v.value for v in found["dps", "", ""]] == [9, 30, 100, 931]
    without = sweeps.variants(results(methods=tuple(SETTINGS)[:-1]), "steps")
    assert [v.value for v in without] == [100, 9, 30]


def test_a_value_that_is_swept_stays_that_of_the_variant(results):
    settings = SETTINGS | {"dps": {"zeta": 0.3, "steps": 30}}
    found = sweeps.variants(results(settings=settings), "steps")
    assert "dps" not in {v.method for v in found}


@pytest.mark.parametrize("other", [{"zeta": 1.0}, {"zeta": 0.3, "clip": False}, {}])
def test_a_main_run_of_other_settings_is_on_no_curve(results, other):
    settings = SETTINGS | {"dps": {"steps": 931, **other}}
    made = results(settings=settings)
    assert "dps" not in {v.method for v in sweeps.variants(made, "steps")}
    names = names_of(plane.draw(made, *PLANE, curve=CURVE).axes[0])
    assert names["DPS"] == pytest.approx([mean("dps", metric, FEWER) for metric in PLANE])


@pytest.mark.parametrize(
    ("zetas", "own", "others"),
    [((0.3, 0.3), 0.3, "zeta 0.3"), ((0.3, 1.0), 0.3, ""), ((0.3, 0.3), 1.0, "")],
)
def test_the_main_run_has_the_settings_that_its_variants_agree_on(results, zetas, own, others):
    swept = {
        f"dps.grid.zeta_{z}.steps_{n}": {"zeta": z, "steps": n}
        for z, n in zip(zetas, (5, 50), strict=True)
    }
    settings = {"dps": {"zeta": own, "steps": 500}, **swept}
    found = sweeps.variants(results(methods=tuple(settings), settings=settings), "steps")
    assert [(v.base, v.model, v.others) for v in found if v.method == "dps"] == [
        ("dps", "", others)
    ]


def test_settings_are_those_of_the_task(results):
    made = results(TASKS)
    made.facts["solvers"]["dps", TASKS[1]]["steps"] = 400
    assert [sweeps.variants(made, "steps", task)[-1].value for task in TASKS] == [931, 400]
    assert sweeps.variants(made, "steps")[-1].value == 931
    names = [names_of(axes).keys() for axes in plane.draw(made, *PLANE, curve=CURVE).axes]
    assert ["DPS, steps = 931" in found for found in names] == [True, False]
    assert ["DPS, steps = 400" in found for found in names] == [False, True]


def test_every_method_may_sweep_a_setting_of_its_own(drawn):
    figure = drawn["setting"]
    expected = {"dps": [9, 30, 100, 931], "dcdp_tweedie": [5, 20, 40]}
    for axes, metric in zip(figure.axes, METRICS, strict=True):
        for (x, y), (base, swept) in zip(lines(axes), expected.items(), strict=True):
            assert x == swept
            # of a main run only the cases that its variants have
            assert y == pytest.approx([mean(m, metric, FEWER) for m in CURVES[base]])
        assert axes.get_xlabel() == "budget"
        assert axes.get_xscale() == "log"
    assert f"{FEWER} cases" in figure.get_suptitle()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["DPS", "DCDP (Tweedie)"]


def test_a_cost_takes_the_place_of_the_setting(drawn):
    for axes, metric in zip(drawn["cost"].axes, METRICS, strict=True):
        for (x, y), group in zip(lines(axes), CURVES.values(), strict=True):
            assert x == [calls(m) for m in group]
            assert y == pytest.approx([mean(m, metric, FEWER) for m in group])
        assert axes.get_xlabel() == "forward network evaluations\nper image"
        assert axes.get_xscale() == "log"


def test_costs_are_per_state_where_there_are_times(results, folder, tmp_path):
    made = results()
    timed = xr.Dataset({"truth": (("case", "time", "component"), np.zeros((CASES, 5, 1)))})
    store.write(timed, tmp_path / f"observations/{TASKS[0]}.zarr")
    made = Results(**{**vars(made), "folder": tmp_path})
    axes = ablation.draw(made, CURVE, metrics=["psnr"], against="nfe").axes[0]
    assert lines(axes)[0][0] == pytest.approx([calls(m) / 5 for m in CURVES["dps"]])
    assert axes.get_xlabel().endswith("\nper member and state")


def test_observations_are_read_only_where_they_are_needed(results, tmp_path):
    made = Results(**{**vars(results()), "folder": tmp_path})  # there are none
    axes = ablation.draw(made, CURVE, metrics=["psnr"]).axes[0]
    assert axes.get_xlabel() == "steps"


def test_the_noise_is_marked_where_there_is_any(drawn):
    for name in ("setting", "cost"):
        other, axes = drawn[name].axes
        assert dotted(axes) == [NOISE]
        assert "γ" in words(axes)
        assert not dotted(other)
    assert not any(dotted(axes) or "γ" in words(axes) for axes in drawn["no noise"].axes)
    first, second = drawn["misfit"].axes
    assert dotted(first) == [NOISE]
    assert "γ" in words(first)
    assert not dotted(second)
    assert "γ" not in words(second)


def test_a_curve_joins_the_points_of_a_sweep_in_the_order_of_its_values(drawn):
    axes = drawn["curve"].axes[0]
    ((x, y),) = [line for line in lines(axes) if len(line[0]) > 1]
    assert x == pytest.approx([mean(m, "lpips_alex", FEWER) for m in CURVES["dps"]])
    assert y == pytest.approx([mean(m, "psnr", FEWER) for m in CURVES["dps"]])
    (line,) = [line for line in axes.lines if len(line.get_xdata()) > 2]
    look = style.look("dps", {})
    assert same_color(line.get_color(), look.colour)
    assert line.get_marker() == look.marker
    assert line.get_markersize() < style.STYLE["lines.markersize"]
    single = [(x[0], y[0]) for x, y in lines(axes) if len(x) == 1]
    rest = [m for m in SETTINGS if m not in CURVES["dps"]]
    assert np.allclose(single, [[mean(m, metric, FEWER) for metric in PLANE] for m in rest])


def test_only_the_ends_of_a_curve_have_names(drawn):
    names = names_of(drawn["curve"].axes[0])
    assert len(names) == 2 + len(SETTINGS) - len(CURVES["dps"])
    for method, value in (("dps.budget.steps_9", 9), ("dps", 931)):
        place = [mean(method, metric, FEWER) for metric in PLANE]
        assert names[f"DPS, steps = {value}"] == pytest.approx(place)
    assert {"Pseudo-inverse", "ReSample", "DCDP (Tweedie)"} < names.keys()


def test_names_of_curves_say_what_tells_them_apart(results):
    settings = {
        f"dps.grid.zeta_{z}.steps_{n}": {"zeta": z, "steps": n} for z in (0.3, 1.0) for n in (5, 50)
    }
    made = results(methods=tuple(settings), settings=settings)
    groups = sweeps.curves(sweeps.variants(made, "steps"))
    found = plane._names_of_ends(groups, "steps", made)
    assert list(found.values()) == [
        f"DPS, zeta {z}, steps = {n}" for z in (0.3, 1.0) for n in (5, 50)
    ]


def test_a_curve_without_values_is_left_out(results):
    assert "no values" in words(plane.draw(results(), "lpips", "psnr", CURVE))


def test_averages_are_hollow_and_joined_to_single_members(drawn):
    averaged = [m for m in SETTINGS if "psnr_mean" in values(m)]
    for axes in drawn["averages"].axes:
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        expected = [[mean(m, metric, FEWER) for metric in AVERAGES] for m in averaged]
        assert np.allclose([(h.get_xdata()[0], h.get_ydata()[0]) for h in hollow], expected)
        for line, method in zip(hollow, averaged, strict=True):
            assert line.get_marker() == style.look(method, {}).marker
            assert same_color(line.get_color(), style.look(method, {}).colour)
        joins = [
            np.transpose(line.get_data())
            for line in axes.lines
            if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
        ]
        members = [[mean(m, metric, FEWER) for metric in PLANE] for m in averaged]
        assert np.allclose(joins, np.stack((members, expected), axis=1))
        # only single members have names
        places = set(names_of(axes).values())
        assert len(places) == len(SETTINGS)
        assert not {tuple(e) for e in expected} & places


def test_averages_count_for_the_scale_of_an_axis(results):
    made = results(methods=("dps.budget.steps_9", "dps.budget.steps_30"))
    assert plane.draw(made, *PLANE).axes[0].get_xscale() == "linear"
    wide = ("nfe", "psnr_mean")
    assert plane.draw(made, *PLANE, averages=wide).axes[0].get_xscale() == "log"


def test_names_do_not_cover_points_without_one(drawn):
    axes = drawn["both"].axes[0]
    boxes = [Text.get_window_extent(a) for a in axes.findobj(Annotation)]
    dots = [axes.transData.transform(p) for x, y in lines(axes) for p in zip(x, y, strict=True)]
    assert len(dots) == len(SETTINGS) + len([m for m in SETTINGS if "psnr_mean" in values(m)])
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_the_misfit_is_the_median_over_cases_in_its_quartiles(results, drawn):
    shown = [m for m in SETTINGS if ITERATIONS.get(m, 1) > 1]
    for axes, task in zip(drawn["misfit"].axes, TASKS, strict=True):
        curves = [line for line in axes.lines if line.get_linestyle() != ":"]
        bands = axes.findobj(PolyCollection)
        for line, band, method in zip(curves, bands, shown, strict=True):
            found = residuals(method, task).mean(2)
            k = np.arange(1, ITERATIONS[method] + 1)
            assert line.get_xdata().tolist() == k.tolist()
            assert np.allclose(line.get_ydata(), np.median(found, axis=0))
            corners = band.get_paths()[0].vertices
            for i, (low, high) in enumerate(np.quantile(found, (0.25, 0.75), axis=0).T):
                at = corners[corners[:, 0] == k[i], 1]
                assert (at.min(), at.max()) == pytest.approx((low, high))
            assert same_color(line.get_color(), style.look(method, {}).colour)
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert axes.get_xlabel() == "iteration k"
        assert "units of y" in axes.get_ylabel()
    legend = [t.get_text() for t in drawn["misfit"].legends[0].get_texts()]
    assert legend == [results().label(method) for method in shown]


def test_few_iterations_have_a_linear_axis(drawn):
    axes = drawn["brief"].axes[0]
    assert axes.get_xscale() == "linear"
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_a_task_without_misfits_says_so(drawn):
    assert "no values" in words(drawn["no misfit"])


def test_many_methods_have_names_and_those_below_the_floor_stand_on_it(results, monkeypatch):
    """Of the nine, the first five have a lower PSNR than the pseudo-inverse."""
    few = tradeoff.draw(results(), "psnr", costs=("nfe",))
    assert len(few.legends) == 1
    monkeypatch.setattr(tradeoff, "MANY", len(SETTINGS) - 1)
    figure = tradeoff.draw(results(), "psnr", costs=("nfe",))
    assert not figure.legends
    (axes,) = figure.axes
    floor = mean("pinv", "psnr", FEWER)
    names = names_of(axes)
    assert len(names) == len(SETTINGS)
    for method in list(SETTINGS)[5:]:
        label = vocabulary.method_label(method)
        assert names[label] == pytest.approx((calls(method), mean(method, "psnr", FEWER)))
    below = {name: place for name, place in names.items() if " at " in name}
    assert len(below) == 5
    for name, (_, height) in below.items():
        assert height == pytest.approx(floor)
        assert float(name.rpartition(" at ")[2]) < floor
