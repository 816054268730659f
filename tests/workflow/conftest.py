"""One run of Lorenz-63 at smoke scale, which the tests copy."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Project


def shrink(content: dict[str, Any]) -> None:
    """Leave out the ablations and all figures but one: what the tests need, in fewer jobs."""
    scales = content.get("scales", {})
    smoke = scales.get("smoke", {}).get("figures", {})
    dropped = {name for name, figure in smoke.items() if figure is None}
    figures = content.get("figures", {})
    own = [n for n, f in figures.items() if f is not None and "ablation" not in f]
    kept = [n for n in own if n not in dropped][:1]
    for section in (content, *scales.values()):
        section.pop("ablations", None)
        figures = section.pop("figures", {})
        section["figures"] = {name: figures[name] for name in kept if name in figures}


@pytest.fixture(scope="session")
def once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Path], None]], Project]:
    """Makes a project that all workers of xdist share, the first time that one asks for it."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def made(name: str, make: Callable[[Path], None]) -> Project:
        root, done = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(root, ignore_errors=True)
                make(root)
                done.touch()
        return Project(root)

    return made


@pytest.fixture(scope="session")
def smoke(once: Callable[[str, Callable[[Path], None]], Project]) -> Project:
    """The project after a whole run; read only."""

    def make(root: Path) -> None:
        project = Project.checkout(root)
        for file in project.experiment.parent.glob("*.yaml"):
            project.edit(shrink, file)
        project.run()

    return once("smoke", make)


@pytest.fixture
def project(smoke: Project, tmp_path: Path) -> Project:
    """A copy of the run that a test may change."""
    return smoke.copy(tmp_path / "project")
