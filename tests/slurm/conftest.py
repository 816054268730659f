"""The cluster, and one small experiment that is run on it and beside it."""

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "workflow"))  # its helpers serve here too

from cluster import Cluster
from springs import Springs


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The running cluster; with PRIORFLOW_SLURM=required its absence is an error."""
    absent = pytest.fail if os.environ.get("PRIORFLOW_SLURM") == "required" else pytest.skip
    with (Path(tempfile.gettempdir()) / "priorflow-slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one cluster per machine, whatever the workers
        if obstacle := Cluster.obstacle():
            absent(obstacle)
        running = Cluster.running()
        try:
            cluster = running.__enter__()
        except RuntimeError as error:
            absent(f"the test cluster does not start: {error}")
        try:
            yield cluster
        finally:
            running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Springs:
    """The metrics, made by this machine; read only."""
    springs = Springs.checkout(tmp_path_factory.mktemp("local") / "project")
    springs.run(*springs.metrics())
    return springs


@pytest.fixture
def springs(local: Springs, tmp_path: Path) -> Springs:
    """A copy of that run, with misbehaving methods beside the others, that a test may change."""
    springs = local.copy(tmp_path / "project")
    springs.add_misbehaving()
    return springs
