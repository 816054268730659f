"""Evaluate: one tidy table per method, all its tasks and all metrics, a number per case.

A posterior is judged in parts of whole cases, so that memory does not grow with its size. Parts
depend on the shape of the posterior alone, and the numbers therefore not on who computes them.
"""

__all__ = ["evaluate", "measure"]

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from priorflow import store
from priorflow.components import build, load
from priorflow.metrics.base import Case
from priorflow.stages.cost import Cost
from priorflow.stages.observe import at, operator_of
from priorflow.stages.progress import log
from priorflow.systems.base import Standardised

PART_BYTES = 2**28  # of the states of a part
WORKER_BYTES = 16 * PART_BYTES  # a metric makes a few copies in double precision
COLUMNS = ("experiment", "task", "method", "case", "lead", "members", "metric", "value")


def measure(
    posterior: xr.Dataset,
    observations: xr.Dataset,
    run: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    base: Path,
    references: Mapping[str, xr.Dataset] | None = None,
) -> pd.DataFrame:
    """All metrics of one posterior, as rows with the columns of `COLUMNS`.

    Args:
        posterior: What the infer stage made.
        observations: What the observe stage made.
        run: A `priorflow.config.Run` as a mapping.
        metrics: The metrics' components by name; one with `members: n` is left out where there are
            fewer.
        base: The folder of the experiment file.
        references: Posteriors of other methods, for metrics with `exact: method`; its own one is
            that of the method itself.
    """
    matching = observations.isel(case=slice(posterior.sizes["case"]))
    system = Standardised(build(run["system"], base))
    rows = matching.trajectory.values.tolist()
    case = Case(
        truth=matching.truth,
        y=matching.y,
        operator=at(operator_of(run["operator"], system, base), rows),
        system=system,
    )
    parts = []
    for name, spec in metrics.items():
        settings = {k: value for k, value in spec.items() if k not in ("class", "members")}
        if posterior.sizes["member"] < spec.get("members", 1):
            continue
        if "exact" in settings:
            exact = (references or {}).get(settings["exact"], posterior)
            settings["exact"] = exact.isel(case=slice(posterior.sizes["case"]))
        values = load(spec["class"], base)(posterior, case, **settings)
        frame = values.rename("value").to_dataframe().reset_index()
        parts.append(frame.assign(metric=name))
    for kind in (*Cost.KINDS, "seconds"):
        frame = posterior[kind].rename("value").to_dataframe().reset_index()
        parts.append(frame.assign(metric=kind))
    table = pd.concat(parts, ignore_index=True)
    constants = {key: run[key] for key in ("experiment", "task", "method")}
    table = table.assign(**constants, members=posterior.sizes["member"])
    return table.reindex(columns=list(COLUMNS)).astype({"value": float, "lead": float})


def evaluate(
    pairs: Sequence[tuple[Mapping[str, Any], Path, Sequence[Path], Mapping[str, Sequence[Path]]]],
    metrics: Mapping[str, Mapping[str, Any]],
    output: Path,
    timing: Path,
    base: Path,
    *,
    dask: str = "local",
    workers: int = 1,
) -> None:
    """Evaluate a method on its tasks.

    Args:
        pairs: Per task the run, the observations, the shards of the posterior, and those of other
            methods by name.
        metrics: The metrics' components by name.
        output: The Parquet file of everything that is reproducible to the last digit.
        timing: The Parquet file of the seconds, which are not.
        base: The folder of the experiment file.
        dask: Where parts are judged if a posterior has several: `local` is this process, `slurm`
            workers in jobs of their own, see `priorflow.stages.cluster`.
        workers: How many of these.

    Raises:
        BadInput: Workers die again and again.
    """
    jobs = [
        (run, observations, shards, others, cases)
        for run, observations, shards, others in pairs
        for cases in _parts([shards, *others.values()])
    ]
    judge = partial(_judge, metrics=metrics, base=base)
    if dask == "local" or len(jobs) == len(pairs):
        tables = [judge(job) for job in jobs]
    else:
        tables = _distributed(judge, jobs, dask, workers, str(output.parent / "logs"))
    table = pd.concat(tables, ignore_index=True)
    timed = table.metric == "seconds"
    for path, rows in ((output, table[~timed]), (timing, table[timed])):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.reset_index(drop=True).to_parquet(path, index=False)


def _parts(posteriors: Sequence[Sequence[Path]]) -> list[range]:
    """The cases of the first of some posteriors in parts, at least one case each.

    All of them together take about `PART_BYTES`. They are verified here, and not for every part.
    """
    opened = [[store.read(path).state for path in shards] for shards in posteriors]
    counts = [sum(state.sizes["case"] for state in states) for states in opened]
    sizes = [sum(state.nbytes for state in states) for states in opened]
    each = max(1, int(PART_BYTES / sum(s / n for s, n in zip(sizes, counts, strict=True))))
    return [range(i, min(i + each, counts[0])) for i in range(0, counts[0], each)]


def _judge(
    job: tuple[Mapping[str, Any], Path, Sequence[Path], Mapping[str, Sequence[Path]], range],
    metrics: Mapping[str, Mapping[str, Any]],
    base: Path,
) -> pd.DataFrame:
    """All metrics of a part of a posterior; see `evaluate` and `measure`."""
    run, observations, shards, others, cases = job
    log(f"evaluate: {run['method']} on {run['task']}, cases {cases.start} to {cases.stop - 1}")
    seen = store.read(observations).isel(case=slice(cases.start, cases.stop)).load()
    references = {name: _joined(paths, cases) for name, paths in others.items()}
    return measure(_joined(shards, cases), seen, run, metrics, base, references)


def _joined(shards: Sequence[Path], cases: range) -> xr.Dataset:
    """Cases of a posterior, by their positions; no more is read."""
    parts, first = [], 0
    for opened in (store.read(path, check=False) for path in shards):
        size = opened.sizes["case"]
        start, stop = (min(max(edge - first, 0), size) for edge in (cases.start, cases.stop))
        if start < stop:
            parts.append(opened.isel(case=slice(start, stop)).load())
        first += size
    return xr.concat(parts, dim="case")


def _distributed(
    judge: Callable, jobs: Sequence, dask: str, workers: int, logs: str
) -> list[pd.DataFrame]:
    """What `judge` says of every job, in their order, from Dask's workers."""
    from priorflow.stages.cluster import dask_client

    with dask_client(dask, min(workers, len(jobs)), WORKER_BYTES, logs) as client:
        return client.gather(client.map(judge, jobs, pure=False))
