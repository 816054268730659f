"""Jobs that are killed, files that are damaged, mistakes in the configuration."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Project, complaints
from safetensors.torch import load_file, save_file

TARGET = "results/smoke/lorenz63/metrics/flowdas.parquet"
WEIGHTS = "models/drift/weights.safetensors"


def slow(experiment: dict[str, Any]) -> None:
    """Seconds of training and of inference: time enough to kill them in the middle."""
    smoke = experiment["scales"]["smoke"]
    smoke["models"]["drift"]["training"] |= {"steps": 600, "interval": 20}
    smoke["methods"]["flowdas"]["solver"] |= {"steps": 300}


def digests(project: Project) -> dict[str, str]:
    """A checksum of every table of metrics but those of the seconds."""
    files = sorted((project.tree / "metrics").glob("*.parquet"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets the key `path[:-1]` to `path[-1]`."""

    def change(content: dict[str, Any]) -> None:
        *keys, last, value = path
        for key in keys:
            content = content[key]
        content[last] = value

    return change


@pytest.fixture(scope="session")
def undisturbed(smoke: Project, once: Callable[[str, Callable[[Path], None]], Project]) -> Project:
    """The slow training and inference that nobody kills; read only."""

    def make(root: Path) -> None:
        project = smoke.copy(root)
        project.edit(slow)
        project.run(TARGET)

    return once("undisturbed", make)


def ended(process: subprocess.Popen) -> str:
    """What snakemake said, after the death of a job."""
    out, err = process.communicate()
    assert process.returncode == 1, out + err
    return out + err


def test_killed_jobs_go_on(project: Project, undisturbed: Project) -> None:
    """Training is killed, then snakemake and all, then inference; the results are the same."""
    project.edit(slow)
    project.forget("metrics", "logs")

    run = project.start(TARGET)
    project.wait(run, "train/drift", r"step 100/")
    project.kill(run, "train")
    ended(run)
    assert not (project.tree / WEIGHTS).exists()

    run = project.start(TARGET)
    project.wait(run, "train/drift", r"(?s)resumed.*step 300/")
    assert int(re.search(r"step (\d+)/", project.log("train/drift").read_text())[1]) >= 100
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert project.process("train") is None

    project.run("--unlock")
    run = project.start(TARGET)
    project.wait(run, "infer/known_x0/flowdas", r": 1/3 ")
    assert "resumed" in project.log("train/drift").read_text()
    project.kill(run, "infer")
    ended(run)
    assert not (project.tree / "posterior/known_x0/flowdas.zarr").exists()

    project.run(TARGET)
    assert not list(project.tree.rglob("*.partial"))
    assert (project.tree / WEIGHTS).read_bytes() == (undisturbed.tree / WEIGHTS).read_bytes()
    assert digests(project)["flowdas"] == digests(undisturbed)["flowdas"]


def test_deleted_weights_come_back_the_same(undisturbed: Project, tmp_path: Path) -> None:
    project = undisturbed.copy(tmp_path / "project")
    (project.tree / WEIGHTS).unlink()
    project.run(f"results/smoke/lorenz63/{WEIGHTS}")
    assert (project.tree / WEIGHTS).read_bytes() == (undisturbed.tree / WEIGHTS).read_bytes()


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_change_nothing(undisturbed: Project, tmp_path: Path, shards: int) -> None:
    """Of all methods, and though a shard is killed while another goes on."""
    project = undisturbed.copy(tmp_path / "project")
    project.forget("metrics")
    targets = [f"results/smoke/lorenz63/metrics/{name}.parquet" for name in digests(undisturbed)]

    store = f"posterior/known_x0/flowdas.0of{shards}.zarr"
    run = project.start(TARGET, shards=shards)
    project.kill(run, "infer", f"results/smoke/lorenz63/{store}")
    ended(run)
    assert not (project.tree / store).exists()

    project.run(*targets, shards=shards)
    assert digests(project) == digests(undisturbed)


def wrong_solver(project: Project) -> str:
    project.edit(put("scales", "smoke", "methods", "flowdas", "solver", "steps", -1))
    return "Infer lorenz63: flowdas on known_x0"


def wrong_network(project: Project) -> str:
    project.edit(put("scales", "smoke", "models", "drift", "network", "width", -1))
    return "Train lorenz63: drift"


def wrong_metric(project: Project) -> str:
    project.patch(
        "metrics/errors.py", "\n    state, truth", "\n    raise OSError\n    state, truth"
    )
    return "Evaluate lorenz63: flowdas"


@pytest.mark.parametrize("mistake", [wrong_network, wrong_solver, wrong_metric])
def test_failed_job_is_not_forgotten(project: Project, mistake: Callable[[Project], str]) -> None:
    """What stands downstream is stale until the job has succeeded, and a further run says so."""
    job = mistake(project)
    assert job in project.jobs()
    assert project.run("--keep-going", check=False).returncode == 1
    assert job in project.jobs()


def test_damaged_chunk_is_named(project: Project) -> None:
    store = project.tree / "observations/known_x0.zarr"
    chunk = next(file for file in sorted((store / "y").rglob("*")) if file.parent.name != "y")
    chunk = chunk if chunk.is_file() else next(f for f in chunk.rglob("*") if f.is_file())
    os.truncate(chunk, chunk.stat().st_size // 2)
    posterior = project.tree / "posterior/known_x0/forecast.zarr"
    shutil.rmtree(posterior)
    before = results(project)

    run = project.run(str(posterior.relative_to(project.root)), check=False)
    lines = project.log("infer/known_x0/forecast").read_text().splitlines()
    assert run.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert str(chunk.relative_to(store)) in lines[0]
    assert "known_x0.zarr" in lines[0]
    assert lines[0] in run.stdout + run.stderr
    assert not posterior.exists()
    assert {k: v for k, v in results(project).items() if k in before} == before


def test_wrong_weights_are_named(project: Project) -> None:
    weights = load_file(project.tree / WEIGHTS)
    name = max(weights, key=lambda key: weights[key].numel())
    weights[name] = torch.zeros(3, 5, dtype=torch.float16)
    save_file(weights, project.tree / WEIGHTS)

    run = project.run(check=False)
    lines = project.log("infer/known_x0/flowdas").read_text().splitlines()
    assert run.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert WEIGHTS in lines[0]
    assert name in lines[0]


def results(project: Project) -> dict[str, tuple[int, int]]:
    """The listing of results, without logs, benchmarks and the posterior that is made anew."""
    kept = ("observations/", "metrics/", "tables/", "figures/", "models/", "data/")
    tree = "results/smoke/lorenz63/"
    return {
        name: at
        for name, at in project.listing().items()
        if name.startswith(tuple(tree + part for part in kept))
    }


POINTWISE = "priorflow.operators.pointwise"
OPERATOR = ("tasks", "known_x0", "operator")
# Per mistake: the change of the experiment file, and the words that the error must have.
MISTAKES = {
    "negative noise": (put(*OPERATOR, "noise_std", -1), ("tasks.known_x0.operator", "noise_std")),
    "noise that is missing": (put(*OPERATOR, "noise_std", None), ("known_x0.operator",)),
    "missing operator": (put(*OPERATOR, "class", f"{POINTWISE}:Sine"), ("known_x0", "Sine")),
    "missing module": (put(*OPERATOR, "class", "priorflow.sine:Sine"), ("known_x0", "sine")),
    "class that is a number": (put(*OPERATOR, "class", 3), ("known_x0.operator",)),
    "unknown key": (put("blok", 3), ("blok", "unknown key", "block")),
    "unknown key of a task": (put("tasks", "known_x0", "stepz", 3), ("stepz", "unknown key")),
    "unknown setting": (
        put("methods", "bpf", "solver", "partcles", 3),
        ("methods.bpf.solver", "partcles", "particles"),
    ),
    "unknown model": (put("methods", "bpf", "model", "nope"), ("methods.bpf.model", "nope")),
    "unknown limit": (put("limit", "nope"), ("limit", "nope", "bpf")),
    "scales that are a list": (put("scales", ["smoke"]), ("scales",)),
    "unknown scale": (put("scales", "smoek", {}), ("scales", "smoek")),
    "name that is no word": (put("methods", "b/f", {"extends": "bpf"}), ("methods", "b/f")),
}


def assert_one_line(run: subprocess.CompletedProcess, *words: str) -> None:
    """The run failed and said why in one line with these words."""
    assert run.returncode == 1
    lines = complaints(run.stderr)
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_an_experiment(project: Project, mistake: str) -> None:
    change, words = MISTAKES[mistake]
    project.edit(change)
    before = project.listing()
    assert_one_line(project.run(check=False), "lorenz63.yaml", *words)
    assert project.listing() == before


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"methods": "flowdas nope"}, ("methods", "nope", "flowdas_bridge")),
        ({"experiments": "nope"}, ("experiments", "nope", "lorenz63")),
        ({"scale": "huge"}, ("scale", "huge", "laptop")),
        ({"shards": 0}, ("shards", "0")),
        ({"sclae": "smoke"}, ("sclae", "unknown key", "scale")),
    ],
)
def test_mistake_on_the_command_line(project: Project, config: dict, words: tuple) -> None:
    before = project.listing()
    assert_one_line(project.run(check=False, **config), *words)
    assert project.listing() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: [\n", ("lorenz63.yaml", "YAML")),
        ("- lorenz63\n", ("lorenz63.yaml",)),
        ("", ("lorenz63.yaml", "system")),
    ],
)
def test_experiment_that_is_none(project: Project, text: str, words: tuple) -> None:
    project.experiment.write_text(text)
    assert_one_line(project.run(check=False), *words)


def test_unknown_key_in_config(project: Project) -> None:
    file = project.root / "config.yaml"
    file.write_text(file.read_text() + "sclae: smoke\n")
    assert_one_line(project.run(check=False), "config.yaml", "sclae", "unknown key")


def test_command_line_says_it_in_one_line(project: Project) -> None:
    """A stage that is run by hand fails like a run of the workflow."""
    run = subprocess.run(
        ["priorflow", "check", "nope"],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert_one_line(run, "nope", "lorenz63")
