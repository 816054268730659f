"""Dask's distributed scheduler: processes of this machine, or jobs of SLURM."""

__all__ = ["KINDS", "dask_client"]

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from priorflow.components import BadInput
from priorflow.stages.progress import log

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client, LocalCluster

KINDS = ("local", "slurm")


@contextmanager
def dask_client(
    kind: str = "local", workers: int = 1, memory: int = 2**30, logs: str | None = None
) -> Iterator["Client"]:
    """A client of new workers of one thread each; the link to its dashboard is in the log.

    A worker that is killed is replaced and its task runs again, at most three times
    (`distributed.scheduler.allowed-failures`). What a site needs for its jobs (queue, account,
    interface, walltime, memory, …) is read from Dask's own configuration: `jobqueue.slurm` in
    ~/.config/dask/jobqueue.yaml, or DASK_JOBQUEUE__SLURM__QUEUE and so on.

    Args:
        kind: `local`, or `slurm` for one job of one core per worker.
        workers: How many.
        memory: Bytes that a worker may take; for `slurm` where the configuration says none.
        logs: The folder of the jobs' logs, where the configuration says none.

    Raises:
        BadInput: The kind is unknown, SLURM is missing or refuses such a job, or the workers of a
            task are killed too often.
    """
    import dask
    from distributed import Client, KilledWorker

    if kind not in KINDS:
        raise BadInput(f"dask: value {kind!r}, allowed: {', '.join(KINDS)}")
    # Dask lets the C library clear every page again: that takes half of the time of reading.
    kept = {"MALLOC_TRIM_THRESHOLD_": 2**31 - 1, "MALLOC_MMAP_THRESHOLD_": 2**30}
    with dask.config.set(
        {f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in kept.items()}
    ):
        cluster = _local(workers, memory) if kind == "local" else _slurm(workers, memory, logs)
        with cluster, Client(cluster) as client:
            log(f"dask: {workers} workers ({kind}), dashboard {client.dashboard_link}")
            try:
                yield client
            except KilledWorker as error:
                raise BadInput(f"dask: {' '.join(str(error).split())}") from None


def _local(workers: int, memory: int) -> "LocalCluster":
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=memory,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )


def _slurm(workers: int, memory: int, logs: str | None) -> "SLURMCluster":
    import dask

    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise BadInput("dask: slurm needs the package dask-jobqueue") from None

    site = {k: v for k, v in dask.config.get("jobqueue.slurm").items() if v is not None}
    cluster = SLURMCluster(
        cores=site.get("cores", 1),
        processes=site.get("processes", 1),
        memory=site.get("memory", f"{memory}B"),
        log_directory=site.get("log-directory", logs),
        scheduler_options={"dashboard_address": ":0", **site.get("scheduler-options", {})},
    )
    try:
        _require_accepted(cluster.job_script())
        # not `scale`, which would leave it at that when jobs reach their time limit
        cluster.adapt(minimum=workers, maximum=workers)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _require_accepted(script: str) -> None:
    """Ask SLURM whether it would take the job; its refusals are lost in a thread otherwise."""
    command = ["sbatch", "--test-only"]
    try:
        asked = subprocess.run(command, input=script, capture_output=True, text=True)
    except FileNotFoundError:
        raise BadInput("dask: slurm: this machine has no sbatch") from None
    if asked.returncode:
        raise BadInput(f"dask: slurm refuses the workers: {' '.join(asked.stderr.split())}")
