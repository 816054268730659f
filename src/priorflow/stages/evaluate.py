"""Evaluate: one tidy table per method, all its tasks and all metrics, a number per case."""

__all__ = ["evaluate", "measure"]

from collections.abc import Mapping, Sequence
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
        metrics: The metrics' components by name.
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
        settings = {key: value for key, value in spec.items() if key != "class"}
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
) -> None:
    """Evaluate a method on its tasks.

    Args:
        pairs: Per task the run, the observations, the shards of the posterior, and those of other
            methods by name.
        metrics: The metrics' components by name.
        output: The Parquet file of everything that is reproducible to the last digit.
        timing: The Parquet file of the seconds, which are not.
        base: The folder of the experiment file.
    """
    tables = []
    for run, observations, shards, others in pairs:
        log(f"evaluate: {run['method']} on {run['task']}")
        references = {name: _joined(paths) for name, paths in others.items()}
        tables.append(
            measure(
                _joined(shards), store.read(observations).load(), run, metrics, base, references
            )
        )
    table = pd.concat(tables, ignore_index=True)
    timed = table.metric == "seconds"
    for path, rows in ((output, table[~timed]), (timing, table[timed])):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.reset_index(drop=True).to_parquet(path, index=False)


def _joined(shards: Sequence[Path]) -> xr.Dataset:
    return xr.concat([store.read(path) for path in shards], dim="case").load()
