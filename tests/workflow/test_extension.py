"""A user's own method, operator, network and system, without a fork; solvers from Python."""

import csv
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, Project, examples, verbs
from PIL import Image

from priorflow.operators.pointwise import Arctan
from priorflow.priors.base import Known, StateSpace
from priorflow.priors.simulator import Simulator
from priorflow.rng import Streams
from priorflow.systems.base import Standardised
from priorflow.systems.lorenz63 import Lorenz63

LONGEST = 30  # lines of a worked example
EXAMPLES = examples(ROOT / "README.md")

MINE = {
    "my_method.py": '''
from dataclasses import dataclass

import torch

from priorflow.priors.base import advance
from priorflow.solvers.base import Posterior


@dataclass(frozen=True)
class Nudging:
    """A forecast that is pulled towards the observation."""

    strength: float = 0.5

    def __call__(self, y, operator, prior, rng, members=1):
        history, states = prior.initial(members, rng), []
        for k in range(y.shape[1]):
            x = prior.transition.sample(history, rng)
            miss = y[:, k, None] - operator(x)
            x = torch.cat((x[..., :1] + self.strength * miss, x[..., 1:]), -1)
            history = advance(history, x)
            states.append(x)
        return Posterior(torch.stack(states, 2))
''',
    "my_operator.py": '''
from dataclasses import dataclass


@dataclass(frozen=True)
class Sine:
    """y = sin(x_0) + noise."""

    noise_std: float = 0.1

    def __call__(self, x):
        return x[..., :1].sin()
''',
    "my_network.py": '''
import math

import torch
from torch import nn


class Linear(nn.Module):
    """One layer."""

    def __init__(self, shape, context=1):
        super().__init__()
        self.shape, size = tuple(shape), math.prod(shape)
        self.layer = nn.Linear((1 + context) * size + 1, size)

    def forward(self, x, t, history=None):
        past = history.flatten(-2).expand(*x.shape[:-1], -1)
        return self.layer(torch.cat((x, past, t.expand(x.shape[:-1])[..., None]), -1))
''',
    "my_system.py": '''
from dataclasses import dataclass

import torch

from priorflow.systems.base import GaussianSystem


@dataclass(frozen=True)
class Rotation(GaussianSystem):
    """A noisy rotation of the plane."""

    angle: float = 0.3
    dt: float = 1.0
    shape = (2,)
    mean, std, noise_std = torch.zeros(2), torch.ones(2), torch.full((2,), 0.1)

    def initial(self, members, rng):
        return rng.normal(members, 2)

    def advance(self, x):
        a = torch.tensor(self.angle)
        turn = torch.stack((a.cos(), -a.sin(), a.sin(), a.cos())).view(2, 2)
        return x @ turn.T
''',
    "mine.yaml": """
title: Mine
floor: forecast
block: 2
system: {class: "./my_system.py:Rotation", angle: 0.2}
data: {trajectories: 20, steps: 12}
tasks:
  sine: {operator: {class: "./my_operator.py:Sine"}, steps: 4, cases: 2, members: 4}
models:
  simulator: {prior: {class: "priorflow.priors.simulator:Simulator"}}
  linear:
    prior: {class: "priorflow.priors.interpolant:Interpolant", parametrisation: endpoint}
    network: {class: "./my_network.py:Linear"}
    training: {steps: 20, batch: 32, interval: 10}
methods:
  forecast: {solver: {class: "priorflow.solvers.assimilation.forecast:Forecast"}}
  nudging: {model: linear, solver: {class: "./my_method.py:Nudging", strength: 0.3}}
metrics:
  crps: {class: "priorflow.metrics.crps:crps"}
""",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write the files and give the path of the YAML one among them, if there is one."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return next(folder.glob("*.yaml"), folder)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open() as stream:
        return list(csv.DictReader(stream))


def imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_components_reach_the_table(tmp_path: Path) -> None:
    """All four kinds at once; then an edit of the method runs only its inference and later."""
    project = Project.checkout(tmp_path / "project")
    experiment = write(tmp_path / "user", MINE)
    project.run(experiments=experiment)
    table = project.root / "results/smoke/mine/tables/mine.csv"
    found = {(row["method"], row["task"], row["metric"]): row for row in rows(table)}
    assert ("nudging", "sine", "crps") in found
    assert float(found["nudging", "sine", "crps"]["mean"]) > 0
    assert float(found["nudging", "sine", "crps"]["nfe"]) > 0
    assert project.jobs(experiments=experiment) == set()

    method = experiment.parent / "my_method.py"
    method.write_text("# A comment.\n" + method.read_text())
    assert project.jobs(experiments=experiment) == set()
    method.write_text(method.read_text().replace("+ self.strength", "- self.strength"))
    jobs = project.jobs(experiments=experiment)
    assert {job for job in jobs if job.startswith("Infer")} == {"Infer mine: nudging on sine"}
    assert {job for job in jobs if job.startswith("Evaluate")} == {"Evaluate mine: nudging"}
    assert verbs(jobs) <= {"Infer", "Evaluate", "Tabulate", "Draw"}

    network = experiment.parent / "my_network.py"
    network.write_text(network.read_text().replace("nn.Linear((1", "nn.Linear(0 + (1"))
    assert "Train mine: linear" in project.jobs(experiments=experiment)


def few_lines(method: type) -> torch.Tensor:
    """A user's solver on tensors of their own."""
    system = Standardised(Lorenz63())
    rng = Streams(0, "mine", cases=range(2))
    x0, y = torch.zeros(2, 1, 3), torch.rand(2, 5, 1)
    prior = StateSpace(Known(x0), Simulator(system))
    posterior = method()(y, Arctan(noise_std=0.25), prior, rng, members=4)
    return posterior.samples


def test_own_method_from_python(tmp_path: Path) -> None:
    write(tmp_path / "user", MINE)
    samples = few_lines(imported(tmp_path / "user/my_method.py").Nudging)
    assert samples.shape == (2, 4, 5, 3)
    assert samples.isfinite().all()
    assert len(inspect.getsource(few_lines).splitlines()) < 10


@pytest.mark.parametrize("name", sorted(EXAMPLES) or [None])
def test_example_of_the_readme(smoke: Project, tmp_path: Path, name: str | None) -> None:
    """What the README shows is run: a script by itself, an experiment file by the workflow."""
    if name is None:
        pytest.skip("the README has no example with a comment `<!-- test: NAME file=FILE -->`")
    files = EXAMPLES[name]
    for file, text in files.items():
        assert len(text.splitlines()) < LONGEST, f"{file} is too long for a worked example"
    target = write(tmp_path / "user", files)
    if target.suffix != ".yaml":
        project = smoke
        for file in files:
            subprocess.run(
                [sys.executable, file], cwd=target, env=project.environment(), check=True
            )
        return
    project = smoke.copy(tmp_path / "project")
    content = yaml.safe_load(target.read_text())
    name = content.get("name", content.get("extends", target.stem))
    jobs = project.jobs(experiments=target)
    if (project.root / f"results/smoke/{name}").is_dir():
        # what the extended experiment has is used as it is
        assert verbs(jobs) <= {"Observe", "Infer", "Evaluate", "Tabulate", "Draw"}
        new = {*content.get("methods", {}), *content.get("tasks", {})}
        infer = [job for job in jobs if job.startswith("Infer")]
        assert all(new & set(job.split()) for job in infer)

    project.run(experiments=target)
    found = rows(project.root / f"results/smoke/{name}/tables/{name}.csv")
    for section, column in (("methods", "method"), ("tasks", "task")):
        measured = {row[column] for row in found if row["n"] not in ("", "0")}
        assert set(content.get(section, {})) <= measured
    assert found


def test_own_pictures_are_trained_on_and_restored(smoke: Project, tmp_path: Path) -> None:
    """Colour photos that are too large for the covariance of Wiener's filter, 64² × 3."""
    photos = tmp_path / "photos"
    photos.mkdir()
    draw = np.random.default_rng(0)
    for i in range(24):
        coarse = Image.fromarray(draw.integers(256, size=(4, 6, 3), dtype=np.uint8))
        coarse.resize((96, 72), Image.Resampling.BICUBIC).save(photos / f"{i}.png")
    brief = {"training": {"steps": 4, "interval": 2, "validation": 4, "batch": 4, "warmup": 1}}
    mine = {
        "extends": "images",
        "name": "photos",
        "system": {
            "class": "priorflow.systems.images:ImageFolder",
            "folder": str(photos),
            "size": 64,
            "channels": 3,
            "test_from": None,
        },
        "data": {"trajectories": 24, "split": [0.5, 0.25, 0.25]},
        "assessment": {"images": 4, "samples": 2, "steps": 2},
        "select": {"tasks": ["motion_deblur_noise005"], "methods": ["pinv", "dcdp_tweedie"]},
        "models": {"denoiser": brief},
    }
    project = smoke.copy(tmp_path / "project")
    (project.root / "photos.yaml").write_text(yaml.safe_dump(mine))
    project.run(experiments="photos.yaml")
    tree = project.root / "results/smoke/photos"
    found = rows(tree / "tables/photos.csv")
    methods = {row["method"] for row in found if row["metric"] == "psnr" and row["n"] != "0"}
    assert methods == {"pinv", "dcdp_tweedie"}
    assert (tree / "models/denoiser/weights.safetensors").is_file()
    assert (tree / "figures/denoising.png").is_file()
