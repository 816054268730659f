"""The figures: what they compute, and how they look, from small synthetic results."""

import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import same_color
from matplotlib.text import Text

from priorflow import store
from priorflow.components import BadInput
from priorflow.stages.figures import (
    ablation,
    attractor,
    cost,
    curse,
    error_over_time,
    ranks,
    skill,
    style,
    sweeps,
    training,
    trajectories,
)
from priorflow.stages.figures.base import Results, natural, save, time_label, units

CASES, MEMBERS, TIMES = 12, 9, 8
METHODS = ("forecast", "bpf", "flowdas", "flowdas.exact")
STEPS = {
    "flowdas": ("drift", "exact"),
    "flowdas_bridge.single": ("endpoint", "exact"),
    "sda": ("",),
}
LONG = "long_x0"
SPRINGS = ("d_4", "d_8")


def observations(size: int, rng: np.random.Generator) -> xr.Dataset:
    """A truth that is normal, with its first component observed."""
    truth = rng.normal(size=(CASES, TIMES, size)).astype("float32")
    return xr.Dataset(
        {
            "y": (("case", "time", "obs_0"), np.arctan(truth[..., :1]) + 0.1),
            "truth": (("case", "time", "component"), truth),
            "history": (("case", "past", "component"), truth[:, :1]),
        },
        coords={"case": np.arange(CASES), "time": np.arange(1, TIMES + 1)},
        # the data have more components than some tasks
        attrs={"dt": 0.025, "mean": [0.0] * 8, "std": [8.0] * 8, "natural_units": "m"},
    )


def posterior(size: int, rng: np.random.Generator, scale: float = 1.0) -> xr.Dataset:
    """Members that have the law of the truth, times a scale."""
    dims = ("case", "member", "time", "component")
    state = scale * rng.normal(size=(CASES, MEMBERS, TIMES, size)).astype("float32")
    return xr.Dataset(
        {"state": (dims, state), "ess": (("case", "time"), np.full((CASES, TIMES), 50.0))},
        coords={"case": np.arange(CASES), "time": np.arange(1, TIMES + 1)},
    )


def write_metrics(folder: Path, task: str, method: str, values: dict[str, float]) -> None:
    """Tidy tables of one method, all its cases equally far from those of other methods."""
    hard = np.linspace(0.5, 1.5, CASES)
    rows = [
        ("lorenz63", task, method, case, np.nan, MEMBERS, metric, value * hard[case])
        for metric, value in values.items()
        for case in range(CASES)
    ]
    columns = ["experiment", "task", "method", "case", "lead", "members", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns)
    (folder / "metrics/timing").mkdir(parents=True, exist_ok=True)
    timed = table.metric == "seconds"
    table[~timed].to_parquet(folder / f"metrics/{method}.parquet")
    table[timed].to_parquet(folder / f"metrics/timing/{method}.parquet")


def step_names() -> dict[str, int]:
    """The methods of the ablation `steps`, named as the configuration names them."""
    return {
        ".".join(filter(None, (base, "steps", f"steps_{n}", model))): n
        for base, models in STEPS.items()
        for model in models
        for n in (2, 5, 20)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The results of an experiment of three components, of springs, and of two ablations."""
    root = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    store.write(observations(3, rng), root / f"observations/{LONG}.zarr")
    for i, method in enumerate(METHODS):
        store.write(posterior(3, rng, 1 / (1 + i)), root / f"posterior/{LONG}/{method}.zarr")
        costs = {"nfe": 4.0 * i, "simulator_evals": 2.0, "seconds": 0.1}
        scores = {"crps": 0.4 - 0.1 * (i % 3), "log_prior": 17.0}
        write_metrics(root, LONG, method, scores | costs)
    for task, size in zip(SPRINGS, (4, 8), strict=True):
        store.write(observations(size, rng), root / f"observations/{task}.zarr")
        exact = posterior(size, rng)
        exact["mean"] = (("case", "time", "m"), np.zeros((CASES, TIMES, size)))
        unit = np.broadcast_to(np.eye(size), (CASES, TIMES, size, size))
        exact["covariance"] = (("case", "time", "a", "b"), unit)
        store.write(exact, root / f"posterior/{task}/kalman.zarr")
        store.write(posterior(size, rng), root / f"posterior/{task}/bpf.zarr")
        store.write(posterior(size, rng).drop_vars("ess"), root / f"posterior/{task}/enkf.zarr")
    for method, n in step_names().items():
        calls = "simulator_evals" if method.endswith("exact") else "nfe"
        values = {"nfe": 0.0, "simulator_evals": 0.0, calls: float(n * TIMES), "seconds": 0.1}
        log_prior = -900.0 if method.startswith("sda") else 17.0
        scores = {"crps": 0.2 + 1 / n, "rmse_mean": 0.3, "log_prior": log_prior}
        write_metrics(root / "ablations", LONG, method, values | scores)
    for model in ("drift", "endpoint", "score"):
        where = root / "models" / model
        where.mkdir(parents=True)
        loss = 2 + 8 * 0.5 ** np.arange(6)
        curve = {"step": 10 * np.arange(1, 7), "valid_loss": loss, "seconds": np.arange(1, 7)}
        pd.DataFrame(curve).to_csv(where / "metrics.csv", index=False)
        (where / "config.json").write_text(json.dumps({"parameters": 102275, "seconds": 61.4}))
    return root


@pytest.fixture(scope="module")
def results(folder):
    """Makes the `Results` of a figure, as the command line does."""

    def make(methods=METHODS, tasks=(LONG,), tree="", models=(), limit="bpf") -> Results:
        steps = step_names()
        solvers = {
            (m, t): {"class": "a:B", "particles": 100} | ({"steps": steps[m]} if m in steps else {})
            for m in methods
            for t in tasks
        }
        return Results(
            folder=folder,
            methods=methods,
            tasks=tasks,
            models=models,
            posteriors={
                (m, t): [folder / f"posterior/{t}/{m}.zarr"] for m in methods for t in tasks
            },
            tables=[file for m in methods for file in folder.glob(f"{tree}metrics/**/{m}.parquet")]
            + [file for m in methods if tree for file in folder.glob(f"metrics/**/{m}.parquet")],
            facts={
                "floor": "forecast",
                "limit": limit,
                "labels": {"flowdas.exact": "FlowDAS, a label that is too long for one line"},
                "solvers": solvers,
            },
        )

    return make


def steps_of(results, *more: str) -> Results:
    """The results of the ablation `steps`."""
    return results([*more, *step_names()], tree="ablations/")


FIGURES = {
    "trajectories": lambda r: trajectories.draw(
        r(), names=("x", "y", "z"), observed=(0,), inverse="tan"
    ),
    "trajectory": lambda r: trajectories.draw(r(), names=("x",)),
    "attractor": lambda r: attractor.draw(r(METHODS[1:])),
    "ranks": lambda r: ranks.draw(r()),
    "ranks of tasks": lambda r: ranks.draw(r(("bpf", "enkf"), SPRINGS)),
    "error over time": lambda r: error_over_time.draw(r()),
    "error over time, narrow": lambda r: error_over_time.draw(r(), "rmse_mean", style.NARROW),
    "cost": lambda r: cost.draw(steps_of(r, "bpf"), truth=17.87),
    "ablation": lambda r: ablation.draw(steps_of(r), "steps", "solver steps"),
    "training": lambda r: training.draw(r(models=("drift", "endpoint", "score"))),
    "curse": lambda r: curse.draw(r(("kalman", "bpf", "enkf"), SPRINGS, limit="kalman")),
    "skill": lambda r: skill.draw(r()),
}
LEGENDS = {
    "trajectories": 4,
    "trajectory": 3,
    "attractor": 2,
    "ranks": 2,
    "ranks of tasks": 2,
    "error over time": 4,
    "error over time, narrow": 4,
    "cost": 5 + 2,
    "ablation": 5,
    "training": 3,
    "curse": 4,
    "skill": 0,
}
PANELS = {
    "trajectories": 12,
    "trajectory": 4,
    "attractor": 6,
    "ranks": 4,
    "ranks of tasks": 4,
    "error over time": 1,
    "error over time, narrow": 1,
    "cost": 2,
    "ablation": 3,
    "training": 2,
    "curse": 2,
    "skill": 1,
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_their_panels_and_legends(drawn, name):
    figure = drawn[name]
    assert len([axes for axes in figure.axes if axes.axison]) == PANELS[name]
    entries = [text for legend in figure.legends for text in legend.get_texts()]
    assert len(entries) == LEGENDS[name]
    assert len({text.get_text() for text in entries}) == len(entries)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_what_its_axes_are(drawn, name):
    figure = drawn[name]
    panels = [axes for axes in figure.axes if axes.axison]
    bottom = [axes for axes in panels if axes.get_subplotspec().is_last_row()]
    assert all(axes.get_xlabel() for axes in bottom)
    labels = [axes.get_ylabel() for axes in panels if axes.get_subplotspec().is_first_col()]
    named = [text.get_text() for text in figure.texts] + [figure.get_supylabel()]
    ticks = [text.get_text() for text in panels[0].get_yticklabels()]
    assert any([*labels, *named]) or name == "skill"
    assert name != "skill" or any(map(str.isalpha, "".join(ticks)))


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("trajectories", "x (m)"),
        ("attractor", "z (m)"),
        ("error over time", "CRPS (standardised)"),
        ("cost", "CRPS (standardised)"),
        ("ablation", "CRPS (standardised)"),
    ],
)
def test_units_are_on_the_axes(drawn, name, unit):
    assert drawn[name].axes[0].get_ylabel() == unit


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_legible_at_the_printed_width(drawn, name):
    figure = drawn[name]
    width = figure.get_figwidth() * style.INCH
    assert any(width == pytest.approx(printed) for printed in (style.NARROW, style.WIDE))
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert min(text.get_fontsize() for text in texts) >= style.SMALLEST


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(drawn, name):
    figure = drawn[name]
    box, canvas = figure.get_tightbbox(), figure.bbox_inches
    assert box.x0 >= -0.02
    assert box.y0 >= -0.02
    assert box.x1 <= canvas.x1 + 0.02
    assert box.y1 <= canvas.y1 + 0.02


def test_steps_have_their_unit_on_the_axis_of_time():
    """In spaces that no title breaks at."""
    observations = xr.Dataset(attrs={"dt": 10.0})
    assert time_label(observations, "min").replace("\u00a0", " ") == "state k (Δt = 10 min)"
    assert time_label(observations, "min").count(" ") == 2  # those around k
    assert time_label(observations).endswith("10)")


def test_files_are_the_same_every_time(results, tmp_path):
    for i in range(2):
        figure = error_over_time.draw(results())
        save(figure, tmp_path / f"{i}.png", tmp_path / f"{i}.svg")
    for kind in ("png", "svg"):
        assert (tmp_path / f"0.{kind}").read_bytes() == (tmp_path / f"1.{kind}").read_bytes()


def test_a_method_looks_the_same_in_every_figure():
    facts = {"floor": "forecast", "limit": "kalman"}
    looks = {family: style.look(family, facts) for family in style.FAMILIES}
    assert looks["kalman"].colour == style.LIMIT
    assert looks["forecast"].colour == style.FLOOR
    assert len({(s.colour, s.marker) for s in looks.values()}) == len(looks)
    variant = style.look("flowdas.released", facts)
    assert variant.colour == looks["flowdas"].colour
    assert variant.marker == looks["flowdas"].marker
    assert variant.dash != looks["flowdas"].dash
    assert style.look("mine", facts) == style.look("mine", facts)


def test_the_limit_is_black_and_the_floor_grey_in_a_figure(drawn):
    legend = drawn["error over time"].legends[0]
    colours = [line.get_color() for line in legend.get_lines()]
    assert same_color(colours[0], style.FLOOR)
    assert same_color(colours[1], style.LIMIT)
    assert same_color(colours[2], colours[3])  # a variant has the hue of its family


def test_states_have_their_natural_units_back():
    cases = observations(3, np.random.default_rng(1))
    assert np.allclose(natural(np.ones((2, 3)), cases), 8)
    assert units(cases) == "standardised"
    assert units(cases, standardised=False) == "m"
    cases.attrs |= {"std": [1.0], "natural_units": "1"}
    assert units(cases) == "dimensionless"


@pytest.mark.parametrize("members", [9, 16, 64, 256])
def test_ranks_of_exchangeable_draws_lie_in_the_band(members):
    """A random walk: ranks within a case are correlated, and the band knows it."""
    rng = np.random.default_rng(members)
    draws = rng.normal(size=(200, members + 1, 10, 2)).cumsum(2)
    found = ranks.rank_histogram(draws[:, 1:], draws[:, 0])
    assert found.share.sum() == pytest.approx(1)
    assert (found.density * found.share).sum() == pytest.approx(1)
    inside = (found.low < found.density) & (found.density < found.high)
    assert inside.mean() > 0.8
    assert abs(found.density - 1).mean() < 0.2
    assert found.spread_skill.low < 1 < found.spread_skill.high
    single = np.sqrt(1 / (draws[:, 0].size * found.share))  # if all ranks were independent
    assert ((found.high - found.low) / 2 > 1.96 * single).mean() > 0.8


def test_ranks_tell_a_narrow_ensemble_from_a_wide_one():
    rng = np.random.default_rng(0)
    truth, z = rng.normal(size=(50, 20)), rng.normal(size=(50, 19, 20))
    narrow, wide = (ranks.rank_histogram(scale * z, truth) for scale in (0.3, 3))
    assert narrow.density[0] > narrow.high[0]
    assert narrow.spread_skill.high < 1
    assert wide.density[0] < wide.low[0]
    assert wide.spread_skill.low > 1


def test_error_by_time_is_the_mean_over_cases():
    rng = np.random.default_rng(3)
    cases, ensemble = observations(2, rng), posterior(2, rng)
    found = error_over_time.error_by_time(ensemble, cases, "rmse_mean")
    error = ensemble.state.values.mean(1) - cases.truth.values
    assert np.allclose([e.value for e in found], np.sqrt((error**2).mean((0, 2))))
    crps = error_over_time.error_by_time(ensemble, cases)
    x, t = ensemble.state.values, cases.truth.values
    pairs = abs(x[:, :, None] - x[:, None]).sum((1, 2)) / (2 * MEMBERS * (MEMBERS - 1))
    assert np.allclose([e.value for e in crps], (abs(x - t[:, None]).mean(1) - pairs).mean((0, 2)))
    assert all(e.low < e.value < e.high for e in [*found, *crps])


def test_an_unknown_error_is_refused(results):
    with pytest.raises(ValueError, match="metric: value 'w1', allowed"):
        error_over_time.draw(results(), "w1")


def test_exact_draws_have_the_error_of_their_number():
    rng = np.random.default_rng(5)
    size, members = 4, 25
    root = rng.normal(size=(size, size)) + 2 * np.eye(size)
    mean = rng.normal(size=(40, 10, size))
    draws = mean[:, None] + rng.normal(size=(40, members, 10, size)) @ root.T
    cases = {"case": np.arange(40)}
    samples = xr.Dataset({"state": (("case", "member", "time", "i"), draws)}, coords=cases)
    exact = xr.Dataset(
        {
            "mean": (("case", "time", "i"), mean),
            "covariance": (
                ("case", "time", "i", "j"),
                np.broadcast_to(root @ root.T, (40, 10, size, size)),
            ),
        },
        coords=cases,
    )
    found = curse.relative_error(samples, exact)
    assert found.low < 1 / np.sqrt(members) < found.high
    assert found.value == pytest.approx(1 / np.sqrt(members), rel=0.05)
    assert curse.relative_error(samples.isel(case=slice(5)), exact).n == 5


def test_weight_share_is_a_share(results):
    found = curse.weight_share(posterior(3, np.random.default_rng(0)), 100)
    assert found.value == pytest.approx(0.5)


def test_variants_are_found_by_name_and_settings(results):
    groups = sweeps.curves(sweeps.variants(steps_of(results, "bpf"), "steps"))
    assert [key[:2] for key in groups] == [
        (base, model) for base, models in STEPS.items() for model in models
    ]
    assert all([v.value for v in group] == [2, 5, 20] for group in groups.values())


def test_variants_may_have_dots_in_values_and_other_settings(results):
    names = {"a.b.sweep.zeta_0.5.steps_5": (0.5, 5), "a.b.sweep.zeta_0.05.steps_50": (0.05, 50)}
    made = results(tuple(names))
    for method, (zeta, steps) in names.items():
        made.facts["solvers"][method, LONG] = {"class": "a:B", "zeta": zeta, "steps": steps}
    found = sweeps.variants(made, "zeta")
    assert [(v.base, v.model, v.others, v.value) for v in found] == [
        ("a.b", "", "steps 5", 0.5),
        ("a.b", "", "steps 50", 0.05),
    ]


def test_calls_are_per_observed_state(results):
    table = steps_of(results).metrics()
    learned = cost.calls_per_state(table, "flowdas.steps.steps_5.drift", TIMES)
    assert learned == pytest.approx(5)
    assert cost.calls_per_state(table, "flowdas.steps.steps_5.exact", TIMES) == learned


def test_bars_beside_the_limit_are_paired():
    hard = pd.Series(np.linspace(0.5, 1.5, CASES))
    value, alone = sweeps.interval_bars([hard + 0.1])
    same, paired = sweeps.interval_bars([hard + 0.1], hard)
    assert value == same == pytest.approx(1.1)
    assert (alone > 0.1).all()
    assert paired == pytest.approx(0, abs=1e-9)


def test_the_remaining_share_ignores_scale_and_offset():
    loss = np.array([5.0, 3.0, 2.0, 1.0])
    assert training.remaining(loss).tolist() == [1, 0.5, 0.25, 0]
    assert np.allclose(training.remaining(7 * loss + 3), training.remaining(loss))
    assert np.isnan(training.remaining([1.0])).all()


def test_shares_are_those_between_floor_and_limit(results):
    table = results().metrics()
    found = skill.shares(table, LONG, "crps", "forecast", "bpf")
    assert set(found) == {"flowdas", "flowdas.exact"}
    assert found["flowdas"].value == pytest.approx(2.0)  # crps 0.4, 0.3 and 0.2
    assert found["flowdas.exact"].value == pytest.approx(0)
    empty = skill.shares(table, LONG, "crps", "forecast", "flowdas.exact")
    assert np.isnan(empty["bpf"].value)


def test_skill_needs_both_ends(results):
    with pytest.raises(BadInput, match="floor and the limit"):
        skill.draw(results(limit=""))


def test_transitions_come_from_where_the_filter_says():
    rng = np.random.default_rng(0)
    cases, ensemble = observations(3, rng), posterior(3, rng)
    pairs = trajectories.transitions(ensemble, cases, 2)
    assert pairs.shape == (MEMBERS, TIMES, 2, 3)
    assert np.allclose(pairs[:, 1:, 0], pairs[:, :-1, 1])
    assert np.isnan(pairs[:, 0, 0]).all()
    ensemble["previous"] = ensemble.state + 1
    pairs = trajectories.transitions(ensemble, cases, 2)
    assert np.allclose(pairs[:, :, 0], pairs[:, :, 1] + 8)


def test_observations_are_turned_into_states():
    cases = observations(3, np.random.default_rng(0))
    cases["y"] = np.tan(1.0) * xr.ones_like(cases.y)
    seen = trajectories.observed_states(cases, 0, (0,), trajectories.INVERSES["identity"])
    assert np.allclose(seen[0], 8 * np.tan(1.0))
    cases["y"] = 1.0 + xr.zeros_like(cases.y)
    seen = trajectories.observed_states(cases, 0, (2,), trajectories.INVERSES["tan"])
    assert np.allclose(seen[2], 8 * np.tan(1.0))
    cases["y"] = 1.6 + xr.zeros_like(cases.y)  # more than an arctangent can be
    assert np.isnan(
        trajectories.observed_states(cases, 0, (0,), trajectories.INVERSES["tan"])[0]
    ).all()


def test_the_median_case_is_nobodys_choice():
    rng = np.random.default_rng(0)
    cases, ensemble = observations(2, rng), posterior(2, rng)
    error = ((ensemble.state.values.mean(1) - cases.truth.values) ** 2).mean((1, 2))
    assert error[trajectories.median_case(ensemble, cases)] == np.sort(error)[CASES // 2]


def test_the_picture_of_the_pipeline_is_up_to_date():
    docs = Path(__file__).parents[2] / "docs"
    made = runpy.run_path(str(docs / "pipeline.py"))["picture"]()
    assert made == (docs / "pipeline.svg").read_text()
