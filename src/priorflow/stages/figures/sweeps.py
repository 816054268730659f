"""The variants of an ablation, found by their names and their hyper-parameters."""

__all__ = ["Variant", "bar_lengths", "curves", "interval_bars", "per_case", "variants"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from priorflow.stages.figures.base import Results
from priorflow.stages.statistics import Estimate, bootstrap_interval, paired_difference


@dataclass(frozen=True)
class Variant:
    """One method of an ablation.

    Attributes:
        method: Its name, `<base>.<ablation>.<field>_<value>….<model>`.
        base: The method that is varied.
        model: The model, if the ablation varies that too, else empty.
        others: What else distinguishes it from variants of the same base and model.
        value: The value of the swept hyper-parameter.
    """

    method: str
    base: str
    model: str
    others: str
    value: Any


def variants(results: Results, field: str) -> list[Variant]:
    """The variants that sweep a hyper-parameter; other methods are left out."""
    found = []
    for method in results.methods:
        solver = results.facts["solvers"].get((method, results.tasks[0]), {})
        # the parts of the name are looked up, not split at dots: a value may have one, as 0.5 has
        swept = {key: f".{key}_{value}" for key, value in solver.items() if key != "class"}
        swept = {k: p.replace("/", "_") for k, p in swept.items() if p in f"{method}."}
        if field not in swept:
            continue
        start = min(method.index(part) for part in swept.values())
        rest = method[start:]
        for part in sorted(swept.values(), key=len, reverse=True):
            rest = rest.replace(part, "", 1)
        base = method[:start].rpartition(".")[0]
        others = ", ".join(f"{k} {solver[k]}" for k in swept if k != field)
        found.append(Variant(method, base, rest.removeprefix("."), others, solver[field]))
    return found


def curves(found: Sequence[Variant]) -> dict[tuple[str, str, str], list[Variant]]:
    """The variants of each base, model and setting, in the order of their values."""
    grouped: dict[tuple[str, str, str], list[Variant]] = {}
    for variant in found:
        grouped.setdefault((variant.base, variant.model, variant.others), []).append(variant)
    return {key: sorted(group, key=lambda v: v.value) for key, group in grouped.items()}


def per_case(table: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """One number per case, leads averaged, indexed by case; empty if there are none."""
    rows = table[(table.method == method) & (table.metric == metric)]
    return rows.groupby("case")["value"].mean()


def interval_bars(
    series: Sequence[pd.Series], reference: pd.Series | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Means over cases, and the lengths (2, n) of their error bars.

    Args:
        series: One number per case, indexed by case.
        reference: If given, bars are those of the paired difference to it.
    """
    if reference is None:
        found = [bootstrap_interval(values) for values in series]
    else:
        found = [paired_difference(values, reference) for values in series]
    return np.array([values.mean() for values in series]), bar_lengths(found)


def bar_lengths(found: Sequence[Estimate]) -> np.ndarray:
    """What `Axes.errorbar` takes, shape (2, n); zero where there is no interval."""
    value, low, high = np.array([(e.value, e.low, e.high) for e in found]).T
    return np.nan_to_num(np.stack((value - low, high - value)).clip(min=0))
