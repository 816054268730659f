"""Dask on SLURM: with workers and whole jobs killed, stores and metrics are the same."""

import os
import threading
import time
from pathlib import Path

import dask
import dask_jobqueue  # noqa: F401  its defaults, before a test changes them
import numpy as np
import psutil
import pytest
import xarray as xr
from cluster import Cluster, run

from priorflow import store
from priorflow.components import BadInput
from priorflow.stages.cluster import dask_client
from priorflow.stages.cost import Cost
from priorflow.stages.evaluate import evaluate
from priorflow.stages.ingest import ingest
from priorflow.systems.sevir import SEVIR
from priorflow.systems.storms import Storms, write_storms

EVENTS = 4
SITE = {
    "jobqueue.slurm.queue": "cpu",
    "jobqueue.slurm.account": "my_project",
    "jobqueue.slurm.interface": "lo",
    "distributed.deploy.lost-worker-timeout": "1s",
}


@pytest.fixture(autouse=True)
def site():
    """What a site writes into its jobqueue.yaml."""
    with dask.config.set(SITE):
        yield


@pytest.fixture
def archive(tmp_path: Path) -> SEVIR:
    write_storms(tmp_path / "archive", EVENTS, storms=Storms(size=48))
    return SEVIR(folder=str(tmp_path / "archive"), size=16)


def contents(store: Path) -> dict[Path, bytes]:
    return {p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def kill_worker() -> None:
    """Kill the processes of the workers; what watches over them goes on."""
    for process in psutil.process_iter(["cmdline"]):
        if "distributed.cli.dask_worker" in (process.info["cmdline"] or ()):
            for child in process.children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()


def kill_jobs() -> None:
    run("scancel", "--user=root")


@pytest.mark.slurm
@pytest.mark.parametrize(("kill", "workers"), [(kill_worker, 2), (kill_jobs, 1)])
def test_the_store_is_the_same_when_workers_are_killed(
    cluster: Cluster, archive: SEVIR, tmp_path: Path, kill, workers: int
) -> None:
    """The file of the last event is a pipe, where a worker waits to be killed."""
    ingest(archive, range(EVENTS), tmp_path / "whole.zarr", group=1)
    file = Path(archive.events([EVENTS - 1])[0].file.removeprefix("file://"))
    others = sum(event.file != f"file://{file}" for event in archive.events(range(EVENTS)))
    assert others
    real = file.rename(file.with_suffix(".real"))
    os.mkfifo(file)
    markers, killed = tmp_path / ".x.zarr.unfinished" / "regions", []

    def watch() -> None:
        while not any(markers.glob("*.json")):
            time.sleep(0.1)
        time.sleep(1)
        file.unlink()
        real.rename(file)
        kill()
        killed.append(True)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    settings = {"workers": workers, "dask": "slurm", "group": 1}
    ingest(SEVIR(folder=archive.folder, size=16), range(EVENTS), tmp_path / "x.zarr", **settings)
    watcher.join()
    assert killed
    assert contents(tmp_path / "x.zarr") == contents(tmp_path / "whole.zarr")
    cluster.wait_empty()


METRIC = """
import time
from pathlib import Path
import priorflow.metrics.errors

def rmse(posterior, case, folder):
    folder = Path(folder)
    (folder / "started").touch()
    while (folder / "hold").exists():
        time.sleep(0.1)
    return priorflow.metrics.errors.rmse(posterior, case)
"""
LORENZ = {"class": "priorflow.systems.lorenz63:Lorenz63"}
ARCTAN = {"class": "priorflow.operators.pointwise:Arctan"}


@pytest.mark.slurm
def test_metrics_are_the_same_when_a_worker_is_killed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A posterior is judged in parts, one worker waits in its own to be killed."""
    cases, members, steps = 6, 3, 4
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(cases, steps, 3)).astype("float32")
    state = rng.normal(size=(cases, members, steps, 3)).astype("float32")
    posterior = xr.Dataset(
        {"state": (("case", "member", "time", "component"), state)}
        | {kind: ("case", np.ones(cases)) for kind in (*Cost.KINDS, "seconds")},
        coords={"case": range(cases), "time": range(steps)},
    )
    observations = xr.Dataset(
        {
            "truth": (("case", "time", "component"), truth),
            "y": (("case", "time", "obs"), truth[..., :1]),
            "trajectory": ("case", range(cases)),
        },
        coords={"case": range(cases), "time": range(steps)},
    )
    store.write(posterior, tmp_path / "posterior.zarr")
    store.write(observations, tmp_path / "observations.zarr")
    (tmp_path / "slow.py").write_text(METRIC)
    names = {"experiment": "t", "task": "task", "method": "m"}
    pair = (
        names | {"operator": ARCTAN, "system": LORENZ},
        tmp_path / "observations.zarr",
        [tmp_path / "posterior.zarr"],
        {},
    )
    metrics = {"rmse": {"class": "./slow.py:rmse", "folder": str(tmp_path)}}
    monkeypatch.setattr("priorflow.stages.evaluate.PART_BYTES", 2 * state[0].nbytes)
    evaluate([pair], metrics, tmp_path / "local.parquet", tmp_path / "l.parquet", tmp_path)

    (tmp_path / "started").unlink()
    (tmp_path / "hold").touch()
    killed = []

    def watch() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.1)
        kill_worker()
        (tmp_path / "hold").unlink()
        killed.append(True)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    evaluate(
        [pair],
        metrics,
        tmp_path / "parts.parquet",
        tmp_path / "p.parquet",
        tmp_path,
        dask="slurm",
        workers=2,
    )
    watcher.join()
    assert killed
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    cluster.wait_empty()


@pytest.mark.slurm
def test_a_job_that_slurm_refuses_is_one_line(cluster: Cluster) -> None:
    with (
        dask.config.set({"jobqueue.slurm.queue": "nowhere"}),
        pytest.raises(BadInput, match=r"^dask: slurm refuses the workers: .*partition"),
        dask_client("slurm"),
    ):
        pass
    assert not cluster.queue()
