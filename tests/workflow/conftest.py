"""One run of Lorenz-63 at smoke scale, which the tests copy."""

import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import Project


def shrink(content: dict[str, Any]) -> None:
    """Leave out the ablations and all figures but one: what the tests need, in fewer jobs."""
    smoke = content["scales"]["smoke"]
    dropped = {name for name, figure in smoke.get("figures", {}).items() if figure is None}
    figures = content.get("figures", {})
    kept = [n for n, f in figures.items() if "ablation" not in f and n not in dropped][:1]
    for section in (content, *content["scales"].values()):
        section.pop("ablations", None)
        figures = section.pop("figures", {})
        section["figures"] = {name: figures[name] for name in kept if name in figures}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The project after a whole run; read only."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent  # shared by the workers of xdist
    root = base / "smoke"
    with (base / "smoke.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "smoke.done").exists():
            shutil.rmtree(root, ignore_errors=True)
            project = Project.checkout(root)
            project.edit(shrink)
            project.run()
            (base / "smoke.done").touch()
    return Project(root)


@pytest.fixture
def project(smoke: Project, tmp_path: Path) -> Project:
    """A copy of the run that a test may change."""
    return smoke.copy(tmp_path / "project")
