"""Settings are tried on validation cases, and nothing but a table is written."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
from helpers import Project


def tune(project: Project, *arguments: str) -> subprocess.CompletedProcess:
    """`priorflow tune lorenz63` at smoke scale."""
    command = [sys.executable, "-m", "priorflow", "tune", "lorenz63", "--set", "scale=smoke"]
    return subprocess.run(
        [*command, "--cases", "2", *arguments],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
    )


def test_a_grid_and_then_the_choice_are_scored(smoke: Project, tmp_path: Path) -> None:
    project = smoke.copy(tmp_path / "project")
    valid = "results/smoke/lorenz63/data/valid.zarr"
    if not (project.root / valid).is_dir():
        missing = tune(project)
        assert missing.returncode == 2
        assert f"run `snakemake {valid}` first" in missing.stderr
        project.run(valid)
    experiment = project.experiment.read_text()
    ran = tune(project, "--method", "flowdas")
    assert ran.returncode == 0, ran.stderr
    table = pd.read_csv(project.tree / "tables/tuning.csv")
    grid = [0.0002, 0.001, 0.01, 0.03, 0.06, 0.1, 0.2]
    assert table.setting.tolist() == [f"{{'zeta': {zeta}}}" for zeta in grid]
    assert set(table.method) == {"flowdas"}
    assert (table.cases == 2).all()
    best = table.loc[table.crps.idxmin(), "setting"]
    assert f"best by crps: flowdas on known_x0: {best}" in ran.stderr
    assert tune(project, "--chosen", "--method", "flowdas").returncode == 0
    (score,) = pd.read_csv(project.tree / "tables/tuning.csv").itertuples()
    assert score.setting == "{}"
    assert table.crps.min() <= score.crps  # the file's is one of the grid
    assert project.experiment.read_text() == experiment


def test_nothing_to_tune_is_said(smoke: Project, tmp_path: Path) -> None:
    project = smoke.copy(tmp_path / "project")
    project.run("results/smoke/lorenz63/data/valid.zarr")
    ran = tune(project, "--method", "forecast")
    assert ran.returncode == 0, ran.stderr
    assert "lorenz63: nothing to tune" in ran.stdout
    assert not (project.tree / "tables/tuning.csv").exists()
