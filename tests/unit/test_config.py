"""The configuration: what is read, what is refused and how, and that the docs are in step."""

from pathlib import Path

import pytest
import yaml

from priorflow.components import BadInput, build, check
from priorflow.config import (
    documentation,
    json_schema,
    load_config,
    load_experiment,
    merge,
    select_methods,
)

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "workflow/experiments").glob("*.yaml"))
SCALES = ("smoke", "laptop", "workstation", "paper")

MINIMAL = {
    "system": {"class": "priorflow.systems.double_well:DoubleWell"},
    "data": {"trajectories": 20, "steps": 12},
    "tasks": {
        "short": {
            "operator": {"class": "priorflow.operators.pointwise:Cube", "noise_std": 0.2},
            "steps": 5,
            "cases": 2,
        }
    },
    "models": {"simulator": {"prior": {"class": "priorflow.priors.simulator:Simulator"}}},
    "methods": {
        "forecast": {"solver": {"class": "priorflow.solvers.assimilation.forecast:Forecast"}},
        "bpf": {
            "solver": {
                "class": "priorflow.solvers.assimilation.bpf:BootstrapParticleFilter",
                "particles": 64,
            }
        },
        "bpf.few": {"extends": "bpf", "solver": {"particles": 8}},
    },
    "metrics": {"rmse": {"class": "priorflow.metrics.errors:rmse"}},
}


def load(tmp_path: Path, change: dict, scale: str = "laptop"):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(merge(MINIMAL, change), sort_keys=False))
    return load_experiment(str(file), scale)


def test_documentation_and_schema_are_in_step_with_the_models():
    assert (ROOT / "docs/configuration.md").read_text() == documentation()
    assert (ROOT / "docs/schema.json").read_text() == json_schema()


def test_config_yaml_states_the_defaults():
    written = load_config(ROOT / "config.yaml")
    assert written == type(written)()
    keys = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert set(keys) == set(type(written).model_fields)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
@pytest.mark.parametrize("scale", SCALES)
def test_every_experiment_is_valid_at_every_scale(path, scale, monkeypatch):
    monkeypatch.chdir(ROOT)
    e = load_experiment(path.stem, scale)
    for method in e.methods:
        for task in e.tasks_of(method):
            assert e.run(method, task, seed=0).cases <= e.tasks[task].cases
    if scale == "smoke":
        assert len(e.tasks) == 1
        assert len(e.data.rows("train")) < 100


def test_variants_inherit_and_override(tmp_path):
    e = load(tmp_path, {})
    assert e.methods["bpf.few"].solver == {**e.methods["bpf"].solver, "particles": 8}
    assert e.run("bpf.few", "short", 3).model_dump()["solver"]["particles"] == 8


def test_scales_lay_over_the_base(tmp_path):
    e = load(tmp_path, {"scales": {"smoke": {"tasks": {"short": {"cases": 1}}}}}, "smoke")
    assert e.tasks["short"].cases == 1
    assert load(tmp_path, {}).tasks["short"].cases == 2


def test_ablations_keep_what_a_method_has_on_the_task(tmp_path):
    """Its hyper-parameters there, but for those that are swept; not its number of cases."""
    special = {"solver": {"particles": 9, "resampling": "multinomial"}, "cases": 1}
    change = {
        "methods": {"bpf": {"tasks": {"short": special}}},
        "ablations": {
            "size": {"tasks": {"short": {}}, "methods": {"bpf": {"solver": {"particles": [4]}}}}
        },
    }
    e = load(tmp_path, change)
    assert e.run("bpf", "short", 0).solver["particles"] == 9
    run = e.run("bpf.size.particles_4", "short", 0)
    assert (run.solver["particles"], run.solver["resampling"]) == (4, "multinomial")
    assert run.cases == e.tasks["short"].cases == 2


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_ensembles_are_as_large_as_what_is_reported_of_them(file, scale):
    e = load_experiment(file.stem, scale, file.parent)
    for method in e.methods:
        for task in e.tasks_of(method):
            run = e.run(method, task, 0)
            for field in {"ensemble", "particles"} & {k for k, v in run.solver.items() if v}:
                assert run.solver[field] >= run.members, (method, task)


def test_ablations_become_methods(tmp_path):
    grid = {"tasks": {"short": {}}, "methods": {"bpf": {"solver": {"particles": [4, 16]}}}}
    e = load(tmp_path, {"ablations": {"size": grid}})
    assert e.methods["bpf.size.particles_4"].ablation == "size"
    assert e.run("bpf.size.particles_16", "short", 0).solver["particles"] == 16
    assert "bpf.size.particles_4" not in e.table_methods()


def test_splits_are_disjoint_and_complete(tmp_path):
    data = load(tmp_path, {}).data
    rows = [i for split in ("train", "valid", "test") for i in data.rows(split)]
    assert rows == list(range(20))


def test_selecting_methods_keeps_floor_limit_and_variants(tmp_path):
    e = load(tmp_path, {"limit": "forecast"})
    assert select_methods(e, ["bpf"]) == ["forecast", "bpf", "bpf.few"]
    assert select_methods(e, ["bpf.few"]) == ["forecast", "bpf.few"]


BAD = [
    ({"taks": {}}, "taks: unknown key; allowed here: "),
    ({"data": {"trajectories": "many"}}, "data.trajectories: "),
    ({"data": {"steps": 4}}, "data.steps: 4 is too short, a task needs 6"),
    (
        {"models": {"simulator": {"context": 3}}},
        "tasks.short.start: 0 is too early, a model sees 3 past states: at least 2",
    ),
    ({"tasks": {"short": {"cases": 9}}}, "tasks.short.cases: 9 is more than the 2 test"),
    ({"tasks": {"short": {"operator": {"noise_std": -1}}}}, "tasks.short.operator: noise_std: -1"),
    (
        {"tasks": {"short": {"operator": {"class": "priorflow.operators.pointwise:Nope"}}}},
        "tasks.short.operator: 'priorflow.operators.pointwise:Nope': pointwise.py does not define",
    ),
    (
        {"tasks": {"short": {"operator": {"class": "./nope.py:Nope"}}}},
        "tasks.short.operator: './nope.py:Nope': there is no file",
    ),
    (
        {"methods": {"bpf": {"solver": {"particle": 3}}}},
        "methods.bpf.solver: particle: BootstrapParticleFilter has no such argument; allowed: part",
    ),
    ({"methods": {"bpf": {"model": "nope"}}}, "methods.bpf.model: 'nope' is unknown; there are: s"),
    ({"methods": {"bpf": {"tasks": ["long"]}}}, "methods.bpf.tasks: 'long' is unknown"),
    ({"methods": {"x": {"extends": "nope"}}}, "methods.x.extends: 'nope' is not a method above it"),
    ({"limit": "nope"}, "limit: 'nope' is unknown; there are: forecast, bpf, bpf.few"),
    ({"system": {"class": "no.such.module:X"}}, "system: 'no.such.module:X': there is no module"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_mistakes_end_in_one_line_with_file_and_key(tmp_path, change, message):
    with pytest.raises(BadInput) as caught:
        load(tmp_path, change)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'mine.yaml'}: {message}")
    assert "\n" not in text


def test_a_file_may_extend_an_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "mine.yaml"
    (tmp_path / "nudging.py").write_text("def Nudging(gain=0.5):\n    return gain\n")
    methods = {"nudging": {"solver": {"class": "./nudging.py:Nudging", "gain": 1.0}}}
    file.write_text(yaml.safe_dump({"extends": "lorenz63", "methods": methods}))
    mine, theirs = load_experiment(str(file), "laptop"), load_experiment("lorenz63", "laptop")
    assert mine.name == "lorenz63"
    assert set(mine.methods) - set(theirs.methods) == {"nudging"}
    assert mine.run("bpf", "known_x0", 0) == theirs.run("bpf", "known_x0", 0)
    deeper = tmp_path / "sub" / "deeper.yaml"
    deeper.parent.mkdir()
    deeper.write_text("extends: ../mine.yaml\nname: other\n")
    other = load_experiment(str(deeper), "laptop")
    assert other.name == "other"
    assert other.methods["nudging"].solver["class"] == "./../nudging.py:Nudging"


def test_unknown_experiment_and_broken_yaml(tmp_path):
    with pytest.raises(BadInput, match="'nope' is unknown; there are: "):
        load_experiment("nope", "laptop", ROOT / "workflow/experiments")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1, 2")
    with pytest.raises(BadInput, match="not valid YAML"):
        load_experiment(str(broken), "laptop")


def test_config_refuses_unknown_scale():
    with pytest.raises(BadInput, match=r"config.yaml: scale: .*'smoke', 'laptop'"):
        load_config(ROOT / "config.yaml", {"scale": "huge"})


def test_components_from_a_users_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def __init__(self, a, b=2): self.c = a + b\n"
    )
    spec = {"class": "./mine.py:Mine", "a": 1}
    check(spec, tmp_path)
    assert build(spec, tmp_path).c == 3
    assert build(spec, tmp_path, b=5, unused=1).c == 6
    with pytest.raises(BadInput, match="d: Mine has no such argument; allowed: a, b"):
        check(spec | {"d": 1}, tmp_path)


def test_a_component_that_refuses_a_value_says_so():
    spec = {"class": "priorflow.solvers.assimilation.enkf:EnsembleKalmanFilter", "inflation": -1}
    with pytest.raises(BadInput, match="EnsembleKalmanFilter: inflation: value -1"):
        build(spec, ROOT)
