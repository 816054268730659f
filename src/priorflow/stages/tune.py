"""Tune: every setting of a method's grid on validation cases."""

__all__ = ["tune"]

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from priorflow.components import BadInput
from priorflow.stages.evaluate import measure
from priorflow.stages.infer import sample
from priorflow.stages.progress import log
from priorflow.stages.vocabulary import measure as measure_of

Job = tuple[Mapping[str, Any], Mapping[str, Sequence[Any]], Mapping[str, Any], Path]


def tune(
    jobs: Sequence[Job],
    observations: Mapping[str, xr.Dataset],
    metrics: Mapping[str, Mapping[str, Any]],
    output: Path,
    *,
    device: str,
    base: Path,
) -> None:
    """Run the grids and write one row per setting.

    Args:
        jobs: Per method and task its run, its grid, its model and the file of its weights.
        observations: Validation cases by task.
        metrics: The metrics to report; the first one ranks.
        output: The CSV to write; rows of other methods and tasks in it are kept.
        device: Where to compute.
        base: The folder of the experiment file.
    """
    rows = []
    for run, grid, model, weights in jobs:
        for values in product(*grid.values()):
            setting = dict(zip(grid, values, strict=True))
            cases = range(min(run["cases"], observations[run["task"]].sizes["case"]))
            trial = dict(run) | {"solver": {**run["solver"], **setting}}
            trial["block"] = min(run["block"], len(cases))
            row = {"task": run["task"], "method": run["method"], "setting": str(setting)}
            try:
                posterior = sample(
                    observations[run["task"]],
                    trial,
                    model,
                    weights,
                    cases=cases,
                    device=device,
                    base=base,
                )
                table = measure(posterior, observations[run["task"]], trial, metrics, base)
                row |= table.groupby("metric").value.mean().to_dict()
                row |= {"cases": len(cases)}
            except BadInput as error:
                row |= {"remark": str(error)}
            rows.append(row)
            log(f"tune: {row}")
    table = pd.DataFrame(rows)
    if output.is_file():
        old = pd.read_csv(output)
        fresh = set(zip(table.task, table.method, strict=True))
        kept = [pair not in fresh for pair in zip(old.task, old.method, strict=True)]
        table = pd.concat([old[kept], table], ignore_index=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False, float_format="%.5g")
    first = next(iter(metrics))
    up = measure_of(first).direction != "higher"
    ranked = table.sort_values(first, ascending=up).groupby(["task", "method"], sort=True)
    for (task, method), group in ranked:
        log(f"best by {first}: {method} on {task}: {group.iloc[0].setting}")
