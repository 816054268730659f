"""The variants of an ablation, found by their names and their hyper-parameters."""

__all__ = [
    "Variant",
    "bar_lengths",
    "curve_styles",
    "curves",
    "interval_bars",
    "per_case",
    "shared_cases",
    "variants",
]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from priorflow.stages.figures.base import Results
from priorflow.stages.figures.style import DASHES, look
from priorflow.stages.statistics import Estimate, bootstrap_interval, paired_difference


@dataclass(frozen=True)
class Variant:
    """One method of an ablation.

    Attributes:
        method: Its name, `<base>.<ablation>.<field>_<value>….<model>`, or that of the base itself.
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


def variants(results: Results, field: str, task: str = "") -> list[Variant]:
    """The variants that sweep a hyper-parameter; other methods are left out.

    The main run of a method that is swept is one more of them, if the figure shows it, its value is
    not among those swept, and it differs from them in nothing that is not swept: an ablation may
    have settings of its own on a task. It has the `others` of the variants if these all agree with
    it, else none.

    Args:
        results: Of a figure.
        field: The hyper-parameter.
        task: Where settings are looked up; default the first.
    """
    task = task or results.tasks[0]
    solvers = {m: results.facts["solvers"].get((m, task), {}) for m in results.methods}
    found, settings = [], []
    for method, solver in solvers.items():
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
        settings.append({k: solver[k] for k in swept if k != field})
    runs = []
    for base in dict.fromkeys(v.base for v in found):
        own = solvers.get(base, {})
        mine = [i for i, v in enumerate(found) if v.base == base]
        if field not in own or own[field] in [found[i].value for i in mine]:
            continue
        varied = {field, *(key for i in mine for key in settings[i])}
        fixed = [
            {k: v for k, v in solver.items() if k not in varied}
            for solver in (own, *(solvers[found[i].method] for i in mine))
        ]
        if any(solver != fixed[0] for solver in fixed):
            continue
        agreed = len({found[i].others for i in mine}) == 1 and all(
            own.get(key, value) == value for key, value in settings[mine[0]].items()
        )
        runs.append(Variant(base, base, "", found[mine[0]].others if agreed else "", own[field]))
    return found + runs


def curves(found: Sequence[Variant]) -> dict[tuple[str, str, str], list[Variant]]:
    """The variants of each base, model and setting, in the order of their values."""
    grouped: dict[tuple[str, str, str], list[Variant]] = {}
    for variant in found:
        grouped.setdefault((variant.base, variant.model, variant.others), []).append(variant)
    return {key: sorted(group, key=lambda v: v.value) for key, group in grouped.items()}


def curve_styles(
    keys: Iterable[tuple[str, str, str]], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """How to draw each of some curves: a base has its colour and marker, what else differs a dash.

    Args:
        keys: Base, model and setting of every curve, as of `curves`.
        facts: As for `look`.
    """
    bases, styles = [key[0] for key in keys], []
    for k, base in enumerate(bases):
        style = look(base, facts)
        dash = DASHES[bases[:k].count(base) % len(DASHES)]
        styles.append({"color": style.colour, "marker": style.marker, "linestyle": dash})
    return styles


def shared_cases(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Metrics in which these methods have the same cases: some may have been run on more."""
    mine = table.method.isin(methods)
    runs = table[mine].groupby("case")["method"].nunique()
    return table[~mine | table.case.isin(runs.index[runs == runs.max()])]


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
