"""One run of Lorenz-63 at smoke scale, which the tests copy."""

import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import Project


def shrink(content: dict[str, Any]) -> None:
    """Leave out the ablations and all figures but one: what the tests need, in fewer jobs."""
    ablations = content.pop("ablations", {})
    for scale in content["scales"].values():
        scale.pop("ablations", None)
    figures = content.get("figures", {})
    kept = [f for f in figures.values() if f.get("ablation", "") not in ablations]
    names = [name for name, figure in figures.items() if figure in kept]
    content["figures"] = {name: figures[name] for name in names[:1]}


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
