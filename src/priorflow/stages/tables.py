"""The long table of an experiment, and its forms to read: CSV, Markdown, LaTeX and HTML.

`build` joins what was measured to what was published, one row per task, method and metric. The
other forms show the same rows, one section per task, with methods as rows and metrics as columns.
"""

__all__ = [
    "COLUMNS",
    "build",
    "read_csv",
    "read_published",
    "write_csv",
    "write_html",
    "write_latex",
    "write_markdown",
]

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from priorflow.stages.statistics import (
    Estimate,
    bootstrap_interval,
    paired_difference,
    pooled_ratio,
    skill_recovered,
)
from priorflow.stages.vocabulary import (
    COSTS,
    METRICS,
    RANKING,
    experiment_label,
    measure,
    method_label,
    task_label,
)

SKILLS = ("crps", "rmse_mean")  # the metrics of which the share of recovered skill is given
CLOSE = 1.15  # a floor that is no further from the limit than this factor cannot rank anybody
AND = " | "  # between several published values of one number, and between their sources

KEYS = ["experiment", "task", "method", "metric"]
TEXT = [*KEYS, "task_label", "task_note", "method_label", "metric_label", "role"]
FLOATS = ["mean", "low", "high", "shared", "skill", "skill_low", "skill_high", *COSTS]
FLAGS = ["better_than_reference", "best"]
COLUMNS = [
    *TEXT,
    *("mean", "low", "high", "n", "members", "shared", "shared_n"),
    *("skill", "skill_low", "skill_high"),
    *FLAGS,
    *COSTS,
    *("published", "published_source", "note"),
]


def build(
    metrics: pd.DataFrame,
    published: pd.DataFrame | None = None,
    *,
    floor: str = "forecast",
    limit: str | None = None,
    references: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    operators: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """The long table of one experiment.

    Args:
        metrics: Tidy, one row per number: experiment, task, method, case, lead, metric, value,
            members. Costs (`vocabulary.COSTS`) are metrics too, per case and member. Leads of a
            case are averaged; a NaN value is left out.
        published: experiment, task, method, metric, value, std, source; rows of tasks that were
            not run are dropped, rows of methods or metrics that were not run stay, with n = 0.
        floor: The method that uses no observations or no prior: skill 0, and the reference of
            `better_than_reference`.
        limit: The method that is the best there can be: skill 1; it is never marked as the best.
        references: Methods that others are compared with; they are never marked as the best either.
        notes: Remarks by `method` or by `task/method`.
        labels: Labels of tasks, methods and metrics that go before those of `vocabulary`.
        operators: What the observe stage knows of the operators, by task: `linear`, `condition`,
            `rank_deficiency`, `dimensions`, as far as it says it.

    Returns:
        Columns `COLUMNS`, best methods first within a task: the mean over `n` cases with its 95 %
        bootstrap interval (low, high); `shared`, the mean over the `shared_n` cases that all
        methods have, by which they are ordered; the share of skill recovered with its interval,
        where the task has floor and limit; `better_than_reference`, whether the paired interval of
        the difference to the floor excludes 0 in favour of the method, and `best`, the same against
        the next best (both empty where a metric does not rank); cost per case and member; all
        published values and their sources, in the same order, separated by " | ". `spread_skill` is
        pooled over cases: the root of the ratio of mean squares, if `rmse_mean` is there.

    Raises:
        ValueError: Columns are missing, rows occur twice, more than one experiment is given or the
            members of a number differ between its cases.
    """
    _check(metrics)
    experiment = metrics["experiment"].iloc[0]
    sources = _sources(published, experiment)
    notes, labels, operators = notes or {}, labels or {}, operators or {}
    rows: list[dict] = []
    for task, frame in metrics.groupby("task", sort=False):
        values = {
            key: group.groupby("case")["value"].mean().dropna()
            for key, group in frame.groupby(["method", "metric"], sort=False)
        }
        members = frame.groupby(["method", "metric"])["members"].first()
        measured = [key for key in values if key[1] not in COSTS]
        theirs = [key[1:] for key in sources if key[0] == task]
        rows_of_task = []
        for method, metric in dict.fromkeys([*measured, *theirs]):
            said = sources.get((task, method, metric), [])
            rows_of_task.append(
                {
                    "experiment": experiment,
                    "task": task,
                    "method": method,
                    "metric": metric,
                    "task_label": labels.get(task, task_label(task)),
                    "task_note": _operator(operators.get(task, {})),
                    "method_label": labels.get(method, method_label(method)),
                    "metric_label": labels.get(metric, measure(metric).label),
                    "role": {
                        **dict.fromkeys(references, "reference"),
                        limit: "limit",
                        floor: "floor",
                    }.get(method, ""),
                    "members": members.get((method, metric), 0),
                    "published": AND.join(value for value, _ in said),
                    "published_source": AND.join(source for _, source in said),
                    "note": "; ".join(
                        notes[key] for key in (method, f"{task}/{method}") if key in notes
                    ),
                    **{
                        cost: values[method, cost].mean() if (method, cost) in values else np.nan
                        for cost in COSTS
                    },
                    **_judged(frame, values, method, metric, floor, limit),
                }
            )
        _share_cases(rows_of_task, values)
        _mark_best(rows_of_task, values)
        rows += _sorted(rows_of_task)
    return _typed(pd.DataFrame(rows, columns=COLUMNS))


def read_published(*paths: str | Path) -> pd.DataFrame:
    """Published values from CSV files, with the digits that were printed."""
    dtype = {"value": str, "std": str}
    return pd.concat([pd.read_csv(path, dtype=dtype) for path in paths], ignore_index=True)


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """All columns, six significant digits."""
    table.to_csv(path, index=False, float_format="%.6g")


def read_csv(path: str | Path) -> pd.DataFrame:
    """The table that `write_csv` wrote."""
    text = [*TEXT, "published", "published_source", "note"]
    return _typed(pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=True))


def _check(metrics: pd.DataFrame) -> None:
    needed = [*KEYS, "case", "lead", "value", "members"]
    if missing := [column for column in needed if column not in metrics]:
        raise ValueError(f"metrics: value without columns {missing}, allowed: {needed}")
    if len(found := sorted(metrics["experiment"].unique())) != 1:
        raise ValueError(f"experiment: value {found}, allowed: one experiment")
    if (twice := metrics.duplicated([*KEYS, "case", "lead"])).any():
        row = metrics.loc[twice, [*KEYS, "case", "lead"]].iloc[0].to_dict()
        raise ValueError(f"metrics: value {row} occurs twice, allowed: once")
    members = metrics.groupby(KEYS)["members"].agg(["min", "max"])
    if (differ := members["min"] != members["max"]).any():
        raise ValueError(
            f"members: value differs between the cases of {differ.idxmax()}, allowed: one number"
        )


def _sources(
    published: pd.DataFrame | None, experiment: str
) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    """(task, method, metric) to the published values, as text, and their sources."""
    out: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    if published is None:
        return out
    for row in published[published["experiment"] == experiment].to_dict("records"):
        value, std = (v if isinstance(v, str) else f"{v:g}" for v in (row["value"], row["std"]))
        value = value if std in ("", "nan") else f"{value} ± {std}"
        out.setdefault((row["task"], row["method"], row["metric"]), []).append(
            (value, row["source"])
        )
    return out


def _operator(known: Mapping[str, Any]) -> str:
    """What is known of the operator of a task; of many its median and its range over cases."""
    if "linear" not in known:
        return ""
    if not known["linear"]:
        return "Nonlinear operator."
    if "condition" not in known:
        return "Linear operator."
    condition = _range(known["condition"], _power)
    deficiency = _range(known["rank_deficiency"], lambda value: f"{value:,.0f}")
    size = f"{known['dimensions']:,}"
    return f"Linear operator, κ = {condition}, rank deficiency {deficiency} of {size}."


def _range(values: Sequence[float], text: Callable[[float], str]) -> str:
    low, median, high = map(text, np.quantile(values, [0, 0.5, 1], method="nearest"))
    return median if low == high else f"{median} (median over cases; {low} to {high})"


def _power(value: float) -> str:
    """Two digits, such as 1.0, 23, 4,500 or 1.2e6."""
    if value >= 1e4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.1f}" if value < 9.95 else f"{float(f'{value:.2g}'):,.0f}"


def _judged(
    frame: pd.DataFrame,
    values: Mapping[tuple[str, str], pd.Series],
    method: str,
    metric: str,
    floor: str,
    limit: str | None,
) -> dict:
    """The mean of one method and metric over cases, and how it stands to floor and limit."""
    mine = values.get((method, metric), pd.Series(dtype=float))
    ends = [values.get((end, metric)) for end in (floor, limit)]
    if metric == "spread_skill" and len(mine) and (method, "rmse_mean") in values:
        mean = _spread_skill(frame[frame["method"] == method])
    else:
        mean = bootstrap_interval(mine)
    skill = Estimate(np.nan, np.nan, np.nan, 0)
    if metric in SKILLS and len(mine) and all(end is not None for end in ends):
        skill = skill_recovered(mine, *ends)
    comparable = len(mine) and method != floor and ends[0] is not None
    return {
        "mean": mean.value,
        "low": mean.low,
        "high": mean.high,
        "n": mean.n,
        "skill": skill.value,
        "skill_low": skill.low,
        "skill_high": skill.high,
        "better_than_reference": _better(metric, mine, ends[0]) if comparable else None,
        "best": None,
    }


def _spread_skill(frame: pd.DataFrame) -> Estimate:
    """Spread over skill of one method from its ratios and errors per case and lead, pooled."""
    frame = frame.assign(lead=frame["lead"].fillna(0))
    wide = frame.pivot(index=["case", "lead"], columns="metric", values="value")
    wide = wide[["spread_skill", "rmse_mean"]].dropna()
    error = wide["rmse_mean"] ** 2
    spread = wide["spread_skill"] ** 2 * error
    return pooled_ratio(spread.groupby("case").mean(), error.groupby("case").mean())


def _better(metric: str, a: pd.Series, b: pd.Series) -> bool | None:
    """Whether a is better than b beyond doubt; None for a metric that does not rank."""
    direction = measure(metric).direction
    if direction == "match":
        return None
    difference = paired_difference(a, b)
    return difference.high < 0 if direction == "lower" else difference.low > 0


def _share_cases(rows: list[dict], values: dict[tuple[str, str], pd.Series]) -> None:
    """Set `shared` and `shared_n`: some methods may have been run on easier cases than others."""
    for metric in {row["metric"] for row in rows}:
        mine = [row for row in rows if row["metric"] == metric and row["n"] > 0]
        found = [values[row["method"], metric] for row in mine]
        shared = set.intersection(*(set(series.index) for series in found)) if found else set()
        for row, series in zip(mine, found, strict=True):
            over = series.index.isin(shared)
            row |= {"shared": series[over].mean(), "shared_n": len(shared)}


def _mark_best(rows: list[dict], values: dict[tuple[str, str], pd.Series]) -> None:
    """Set `best` of the rows of one task."""
    for metric in {row["metric"] for row in rows}:
        if measure(metric).direction == "match":
            continue
        sign = 1 if measure(metric).direction == "lower" else -1
        rivals = [
            r
            for r in rows
            if r["metric"] == metric and r["role"] not in ("limit", "reference") and r["n"] > 0
        ]
        for row in rivals:
            row["best"] = False
        first, *others = sorted(rivals, key=lambda r: sign * _fair(r)) or [None]
        if others:
            a, b = (values[row["method"], metric] for row in (first, others[0]))
            first["best"] = _better(metric, a, b)


def _fair(row: dict) -> float:
    """The mean over the cases of all methods, or over a method's own where they have none."""
    return row["shared"] if row["shared_n"] else row["mean"]


def _sorted(rows: list[dict]) -> list[dict]:
    """Methods by the first ranking metric that the task has, metrics as in the vocabulary."""
    by = next((m for m in RANKING if any(r["metric"] == m and r["n"] for r in rows)), None)
    sign = -1 if by and measure(by).direction == "higher" else 1
    score = {r["method"]: sign * _fair(r) for r in rows if r["metric"] == by and r["n"]}
    methods = list(dict.fromkeys(r["method"] for r in rows))
    methods.sort(key=lambda method: score.get(method, math.inf))
    metrics = list(dict.fromkeys([*METRICS, *(r["metric"] for r in rows)]))
    return sorted(rows, key=lambda r: (methods.index(r["method"]), metrics.index(r["metric"])))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    text = [*TEXT, "published", "published_source", "note"]
    table = table[COLUMNS].copy()
    table[text] = table[text].fillna("").astype(str)
    table[FLOATS] = table[FLOATS].astype(float)
    counts = ["n", "members", "shared_n"]
    table[counts] = table[counts].fillna(0).astype("int64")
    table[FLAGS] = table[FLAGS].astype("boolean")
    return table


# What the forms to read have in common.


@dataclass(frozen=True)
class Cell:
    """One number with its interval, as text, and as a number to sort by."""

    text: str = "–"
    interval: str = ""
    value: float = math.nan
    best: bool = False
    worse: bool = False  # not better than the floor


@dataclass(frozen=True)
class Row:
    """One method; `mark` are the letters of its notes or the number of its source."""

    label: str
    role: str
    cells: Sequence[Cell]
    mark: str = ""


@dataclass(frozen=True)
class Section:
    """One task; `heads` are (label, unit, arrow, description) of the columns after the method."""

    task: str
    label: str
    about: str
    heads: Sequence[tuple[str, str, str, str]]
    rows: Sequence[Row]
    published: Sequence[Row]
    notes: Mapping[str, str]
    sources: Mapping[str, str]
    warning: str


def _sections(table: pd.DataFrame) -> list[Section]:
    return [_section(task, frame) for task, frame in table.groupby("task", sort=False)]


def _section(task: str, frame: pd.DataFrame) -> Section:
    ours = frame[frame["n"] > 0].fillna({"best": False, "better_than_reference": True})
    # A metric that was published and not measured is kept: its rows show what is missing.
    metrics = [m for m in dict.fromkeys([*METRICS, *frame["metric"]]) if m in set(frame["metric"])]
    places = {m: _places(ours.loc[ours["metric"] == m, "mean"], measure(m).digits) for m in metrics}
    by = next((m for m in RANKING if m in set(ours["metric"])), None)
    skill = by if by in SKILLS and ours["skill"].notna().any() else None
    costs = [c for c in COSTS if (ours[c].fillna(0) != 0).any()]
    names = {row.metric: row.metric_label for row in frame.itertuples()}
    heads = [(names[m], measure(m).unit, measure(m).arrow, measure(m).description) for m in metrics]
    common = ours.loc[ours["metric"] == by, ["n", "shared_n"]]
    shared = int(common["shared_n"].max()) if common["n"].nunique() > 1 else 0
    if shared:
        text = f"mean over the {shared} cases that all methods were run on, which orders them"
        heads.append((f"{names[by]}, same {shared}", *heads[metrics.index(by)][1:3], text))
    if skill:
        text = f"share of the {names[skill]} between floor and limit that is recovered"
        heads.append(("Skill", "", "→ 1", text))
    heads += [
        (measure(c).label, measure(c).unit, "", f"{measure(c).description} per case and member")
        for c in costs
    ]
    heads.append(("Cases × members", "", "", "test cases, and samples of each"))

    rows, notes = [], {}
    for _, group in ours.groupby("method", sort=False):
        by_metric = {row.metric: row for row in group.itertuples()}
        lead = by_metric.get(by, next(iter(by_metric.values())))
        cells = [
            _cell(by_metric[m], places[m], lead.n) if m in by_metric else Cell() for m in metrics
        ]
        if shared:
            same = lead.shared if lead.metric == by else math.nan
            cells.append(Cell(_number(same, places[by]), value=same))
        if skill:
            cells.append(_skill(lead) if lead.metric == skill else Cell())
        cells += [Cell(_cost(getattr(lead, c)), value=getattr(lead, c)) for c in costs]
        cells.append(Cell(f"{lead.n} × {lead.members}", value=lead.n))
        mark = ""
        if lead.note:
            mark = next((k for k, note in notes.items() if note == lead.note), _letter(len(notes)))
            notes[mark] = lead.note
        rows.append(Row(lead.method_label, lead.role, cells, mark))
    missing = frame[(frame["members"] > 0) & ~frame["metric"].isin(ours["metric"])]["metric"]
    if len(missing):
        notes["–"] = "; ".join(
            f"{names[m]} is not available" + f": {measure(m).missing}" * bool(measure(m).missing)
            for m in missing.unique()
        )
    if unmeasured := [m for m in metrics if not frame.loc[frame["metric"] == m, "members"].any()]:
        text = ", ".join(names[m] for m in unmeasured) + ": published, not measured at this scale"
        notes["–"] = "; ".join(filter(None, (notes.get("–"), text)))
    published, sources = _published(frame, metrics, len(heads))
    label, about = frame[["task_label", "task_note"]].iloc[0]
    return Section(task, label, about, heads, rows, published, notes, sources, _warning(ours))


def _published(
    frame: pd.DataFrame, metrics: Sequence[str], width: int
) -> tuple[list[Row], dict[str, str]]:
    """One row per method and source, and the sources by number."""
    texts: dict[tuple[str, str], dict[str, str]] = {}
    for row in frame[frame["published"] != ""].itertuples():
        pairs = zip(row.published.split(AND), row.published_source.split(AND), strict=True)
        for value, source in pairs:
            texts.setdefault((row.method_label, source), {})[row.metric] = value
    numbers = {source: str(i + 1) for i, source in enumerate(dict.fromkeys(s for _, s in texts))}
    rows = []
    for (label, source), values in texts.items():
        cells = [
            Cell(values[m].replace("-", "−"), value=float(values[m].split(" ± ")[0]))
            if m in values
            else Cell()
            for m in metrics
        ]
        cells += [Cell("")] * (width - len(metrics))
        rows.append(Row(label, "published", cells, numbers[source]))
    return rows, {number: source for source, number in numbers.items()}


def _warning(ours: pd.DataFrame) -> str:
    """What to say where floor and limit are too close to tell methods apart."""
    for metric in RANKING:
        found = ours[(ours["metric"] == metric) & (ours["role"] != "")].set_index("role")
        if measure(metric).direction != "lower" or len(found) != 2:
            continue
        floor, limit = found.loc["floor"], found.loc["limit"]
        ratio = floor["mean"] / limit["mean"]
        if ratio < CLOSE:
            compared = f"only {ratio:.2f} times" if ratio > 1 else "no larger than"
            return (
                f"This task cannot rank methods: the {floor['metric_label']} of the floor "
                f"({floor['method_label']}) is {compared} that of the limit "
                f"({limit['method_label']})."
            )
        return ""
    return ""


def _cell(row: object, places: int, n: int) -> Cell:
    interval = _interval(row.low, row.high, places)
    if row.n != n:  # fewer cases than the row says
        interval = f"{interval} n = {row.n}".strip()
    return Cell(
        _number(row.mean, places),
        interval,
        row.mean,
        best=row.best,
        worse=not row.better_than_reference,
    )


def _skill(row: object) -> Cell:
    interval = "" if row.role else _interval(row.skill_low, row.skill_high, 2)
    return Cell(_number(row.skill, 2), interval, row.skill)


def _places(values: Iterable[float], digits: int) -> int:
    """Decimals of a column: `digits` significant ones for its median, two for its smallest."""
    sizes = np.abs([v for v in values if math.isfinite(v) and v != 0])
    if not len(sizes):
        return digits - 1
    typical = digits - 1 - math.floor(math.log10(np.median(sizes)))
    smallest = 1 - math.floor(math.log10(sizes.min())) if min(values) > 0 else 0
    return max(0, typical, min(smallest, typical + 1))


def _number(value: float, places: int) -> str:
    return f"{value:,.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def _interval(low: float, high: float, places: int) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{_number(low, places)}, {_number(high, places)}]"


def _cost(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _letter(i: int) -> str:
    return chr(ord("a") + i % 26) * (1 + i // 26)


def _legend(sections: Sequence[Section]) -> list[str]:
    roles = {row.role for section in sections for row in section.rows}
    worse = any(cell.worse for s in sections for row in s.rows for cell in row.cells)
    lines = ["Means over test cases with 95 % bootstrap intervals in brackets."]
    lines.append(
        "Bold: the best, if its paired interval against the next best excludes 0"
        + ("; the limit does not take part." if "limit" in roles else ".")
    )
    if "limit" in roles:
        lines.append("Limit: the best that can be had on this task.")
    if "floor" in roles:
        lines.append("Floor: what needs no observations, or no learned prior.")
    if any("κ" in section.about for section in sections):
        lines.append(
            "κ: condition number, the largest singular value of the operator over the smallest "
            "that is not zero; rank deficiency: dimensions of the truth that y does not see."
        )
    if worse:
        lines.append("° not better than the floor (paired interval).")
    if any(section.published for section in sections):
        lines.append(
            "Published rows come from other data, other cases and often other definitions: "
            "compare the order, not the digits."
        )
    return lines


# Markdown


def write_markdown(table: pd.DataFrame, path: str | Path) -> None:
    """One section per task; cells "0.087 [0.084, 0.091]", published values as rows of their own."""
    sections = _sections(table)
    lines = [f"# {_title(table)}", "", " ".join(_legend(sections)), ""]
    for section in sections:
        lines += [f"## {_capital(section.label)} (`{section.task}`)", ""]
        lines += [section.about, ""] if section.about else []
        if section.warning:
            lines += [f"> **{section.warning}**", ""]
        heads = ["Method", *(" ".join(filter(None, (h[0], h[2]))) for h in section.heads)]
        lines += [_pipes(heads), _pipes([":--", *["--:"] * (len(heads) - 1)])]
        for row in [*section.rows, *section.published]:
            name = row.label + (f" ({row.role})" if row.role else "")
            name = f"*{name}*" if row.role else name
            name += f" [{row.mark}]" if row.mark else ""
            lines.append(_pipes([name, *map(_markdown_cell, row.cells)]))
        lines.append("")
        remarks = [*section.notes.items(), *section.sources.items()]
        lines += [f"- [{mark}] {text}" for mark, text in remarks]
        lines += [""] if remarks else []
    lines += ["## Columns", ""]
    lines += [f"- **{label}**{unit}: {text}." for label, unit, text in _columns(sections)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return " ".join(filter(None, (text + "°" * cell.worse, cell.interval)))


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _title(table: pd.DataFrame) -> str:
    return experiment_label(table["experiment"].iloc[0])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _columns(sections: Sequence[Section]) -> list[tuple[str, str, str]]:
    """(label, unit, description) of all columns, once each."""
    heads = dict.fromkeys((h[0], h[1], h[3]) for section in sections for h in section.heads)
    return [(label, f" ({unit})" if unit else "", text or "–") for label, unit, text in heads]


# LaTeX

LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "°": r"$^\circ$",
    "²": "$^2$",
    "₁": "$_1$",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "→": r"$\to$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "Π": r"$\Pi$",
    "γ": r"$\gamma$",
    "κ": r"$\kappa$",
}


def write_latex(table: pd.DataFrame, path: str | Path) -> None:
    """One booktabs table per task, scaled to the width of the text."""
    sections = _sections(table)
    tables = [_latex_table(section, _title(table)) for section in sections]
    head = "% needs \\usepackage{booktabs,graphicx}\n% " + " ".join(_legend(sections))
    Path(path).write_text("\n\n".join([head, *tables]) + "\n", encoding="utf-8")


def _latex_table(section: Section, title: str) -> str:
    heads = ["Method", *(" ".join(filter(None, (h[0], h[2]))) for h in section.heads)]
    said = (f"{title}, {section.label}.", section.about, section.warning)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(' '.join(filter(None, said)))}}}",
        rf"\label{{tab:{section.task.replace('_', '-')}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(section.heads)}}}",
        r"\toprule",
        " & ".join(map(_tex, heads)) + r" \\",
        r"\midrule",
        *(_latex_row(row) for row in section.rows),
        *([r"\midrule"] if section.published else []),
        *(_latex_row(row) for row in section.published),
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    for mark, text in [*section.notes.items(), *section.sources.items()]:
        lines.append(rf"\par\footnotesize $^{{{mark}}}$ {_tex(text)}")
    return "\n".join([*lines, r"\end{table}"])


def _latex_row(row: Row) -> str:
    name = _tex(row.label)
    name = rf"\emph{{{name} ({row.role})}}" if row.role else name
    name += f"$^{{{row.mark}}}$" if row.mark else ""
    cells = []
    for cell in row.cells:
        text = rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
        text += _tex("°" * cell.worse)
        cells.append(text + (rf" {{\scriptsize {_tex(cell.interval)}}}" if cell.interval else ""))
    return " & ".join([name, *cells]) + r" \\"


def _tex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)


# HTML


def write_html(table: pd.DataFrame, path: str | Path) -> None:
    """One page that needs nothing else: sortable columns, a choice of tasks, light and dark."""
    sections = _sections(table)
    title = escape(_title(table))
    tasks = [("all", "all tasks"), *((s.task, s.label) for s in sections)] if sections[1:] else []
    nav = "".join(
        f'<button type="button" data-task="{escape(task)}" aria-pressed="{str(i == 0).lower()}">'
        f"{escape(_capital(label))}</button>"
        for i, (task, label) in enumerate(tasks)
    )
    legend = "".join(f"<li>{_html_legend(line)}</li>" for line in _legend(sections))
    columns = "".join(
        f"<dt>{escape(label)}{escape(unit)}</dt><dd>{escape(_capital(text))}.</dd>"
        for label, unit, text in _columns(sections)
    )
    page = PAGE.format(
        title=title,
        css=CSS,
        script=SCRIPT,
        nav=f'<nav aria-label="Tasks">{nav}</nav>' if nav else "",
        legend=legend,
        sections="\n".join(map(_html_section, sections)),
        columns=columns,
    )
    Path(path).write_text(page, encoding="utf-8")


def _html_legend(line: str) -> str:
    role, colon, rest = line.partition(": ")
    if colon and role in ("Limit", "Floor"):
        return f'<span class="chip {role.lower()}">{role.lower()}</span> {escape(rest)}'
    if colon and role == "Bold":
        return f"<strong>Bold</strong> {escape(rest)}"
    return escape(line)


def _html_section(section: Section) -> str:
    heads = "".join(
        f'<th scope="col" title="{escape(_capital(text))}"><button type="button">{escape(label)}'
        f'<span class="arrow">{escape(arrow)}</span></button></th>'
        for label, _, arrow, text in section.heads
    )
    bodies = f"<tbody>{_html_rows(section.rows)}</tbody>"
    if section.published:
        span = f'<tr class="head"><th colspan="{len(section.heads) + 1}">Published</th></tr>'
        bodies += f'<tbody class="published">{span}{_html_rows(section.published)}</tbody>'
    remarks = "".join(
        f"<li><sup>{escape(mark)}</sup> {escape(text)}</li>"
        for mark, text in [*section.notes.items(), *section.sources.items()]
    )
    return (
        f'<section id="{escape(section.task)}"><h2>{escape(_capital(section.label))} '
        f"<code>{escape(section.task)}</code></h2>"
        + (f'<p class="about">{escape(section.about)}</p>' if section.about else "")
        + (f'<p class="warning">{escape(section.warning)}</p>' if section.warning else "")
        + f'<div class="scroll"><table><thead><tr><th scope="col"><button type="button">Method'
        f"</button></th>{heads}</tr></thead>{bodies}</table></div>"
        + (f'<ul class="remarks">{remarks}</ul>' if remarks else "")
        + "</section>"
    )


def _html_rows(rows: Sequence[Row]) -> str:
    return "".join(map(_html_row, rows))


def _html_row(row: Row) -> str:
    chip = f' <span class="chip {row.role}">{row.role}</span>'
    chip = chip if row.role in ("limit", "floor") else ""
    mark = f"<sup>{escape(row.mark)}</sup>" if row.mark else ""
    cells = "".join(map(_html_cell, row.cells))
    name = f'<th scope="row" data-value="{escape(row.label)}">{escape(row.label)}{mark}{chip}</th>'
    return f'<tr class="{row.role}">{name}{cells}</tr>'


def _html_cell(cell: Cell) -> str:
    value = "" if math.isnan(cell.value) else f' data-value="{cell.value:.6g}"'
    text = f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text)
    worse = '<span class="worse" title="not better than the floor">°</span>' if cell.worse else ""
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    return f"<td{value}>{text}{worse}{interval}</td>"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
<header><h1>{title}</h1><ul class="legend">{legend}</ul>{nav}</header>
{sections}
<footer><h2>Columns</h2><dl>{columns}</dl></footer>
</main>
<script>{script}</script>
</body>
</html>
"""

CSS = """
:root { color-scheme: light dark;
  --paper: #fff; --back: #f6f7f9; --ink: #1c2430; --soft: #66707f; --line: #e3e6eb;
  --accent: #1f5fbf; --limit: #e9f1fd; --limit-ink: #1f5fbf; --floor: #f3f1ec;
  --floor-ink: #79663a; --warn: #fff6df; --warn-ink: #7a5300; --hover: #f2f5fa; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #171b21; --back: #0f1216; --ink: #e4e8ee; --soft: #95a0b0; --line: #2b323c;
  --accent: #8ab4f8; --limit: #17263c; --limit-ink: #8ab4f8; --floor: #242119;
  --floor-ink: #d3bb80; --warn: #33280d; --warn-ink: #f0cf7f; --hover: #1e242d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 14px/1.5 -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 36px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 12px; }
h2 { font-size: 17px; margin: 0 0 12px; }
code { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; color: var(--soft);
  margin-left: 6px; font-weight: 400; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 26px; margin: 0 0 20px;
  padding: 0; color: var(--soft); font-size: 13px; }
.legend strong { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 20px; }
nav button { font: inherit; color: var(--ink); background: var(--paper); cursor: pointer;
  border: 1px solid var(--line); border-radius: 999px; padding: 4px 14px; }
nav button:hover { border-color: var(--accent); }
nav button[aria-pressed=true] { background: var(--accent); border-color: var(--accent);
  color: var(--paper); }
section, footer { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 14px; margin-bottom: 20px; }
section h2, footer > * { padding: 0 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 6px; text-align: right; vertical-align: top; white-space: nowrap;
  background: var(--paper); }
th:first-child { text-align: left; position: sticky; left: 0; z-index: 1; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; font-weight: 600;
  white-space: normal; padding-bottom: 6px; }
thead button { all: unset; cursor: pointer; font-size: 12px; line-height: 1.25; }
thead button:hover { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.arrow { color: var(--soft); font-weight: 400; margin-left: 3px; white-space: nowrap; }
[aria-sort] button { color: var(--accent); }
[aria-sort=ascending] button::after { content: " ▴"; }
[aria-sort=descending] button::after { content: " ▾"; }
tbody th { font-weight: 500; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody tr:not(.head):hover > * { background: var(--hover); }
td small { display: block; color: var(--soft); font-size: 10px; line-height: 1.3; }
td strong { color: var(--accent); font-weight: 700; }
tr.limit > * { background: var(--limit); }
tr.floor > * { background: var(--floor); }
.chip { font-size: 10px; font-weight: 600; letter-spacing: .03em; line-height: 14px;
  border: 1px solid currentColor; border-radius: 999px; padding: 0 6px; margin-left: 3px;
  display: inline-block; }
.legend .chip { margin-left: 0; }
th .chip { display: table; margin: 1px 0 0; }
.chip.limit { color: var(--limit-ink); background: var(--limit); }
.chip.floor { color: var(--floor-ink); background: var(--floor); }
.worse, sup { color: var(--soft); font-weight: 400; }
.worse { position: absolute; }
sup { font-size: 10.5px; line-height: 0; margin-left: 2px; }
.published .head th { padding: 16px 6px 4px; font-size: 11px; font-weight: 600;
  letter-spacing: .06em; text-transform: uppercase; color: var(--soft);
  border-top: 2px solid var(--line); }
.published { color: var(--soft); }
.published td, .published tr:not(.head) th { padding-top: 4px; padding-bottom: 4px; }
.remarks { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 24px; margin: 14px 0 0;
  padding: 0 6px; color: var(--soft); font-size: 12px; }
.about { color: var(--soft); font-size: 13px; margin: -8px 0 12px; padding: 0 6px; }
.warning { background: var(--warn); color: var(--warn-ink); border-radius: 6px; margin: 0 0 12px;
  padding: 8px 12px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; }
dt { font-weight: 500; }
dd { margin: 0; color: var(--soft); }
@media (max-width: 700px) { main { padding: 20px 10px; } dl { display: block; }
  dd { margin-bottom: 8px; } }
@page { size: A4 landscape; margin: 12mm; }
@media print { :root { color-scheme: light; --paper: #fff; --back: #fff; --ink: #000;
  --soft: #555; --line: #ccc; --accent: #123f85; --limit: #e9f1fd; --limit-ink: #123f85;
  --floor: #f3f1ec; --floor-ink: #5c4d2b; --warn: #fff6df; --warn-ink: #5c3f00; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 9pt; } main { max-width: none; padding: 0; } nav { display: none; }
  section, footer { border: 0; padding: 0 0 14px; break-inside: avoid; }
  section[hidden] { display: block; }
  .scroll { overflow: visible; margin: 0; padding: 0; }
  th, td { padding: 3px 5px; } td small { font-size: 7pt; } thead button { font-size: 8pt; } }
"""

SCRIPT = """
for (const button of document.querySelectorAll("nav button"))
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("nav button"))
      other.setAttribute("aria-pressed", other === button);
    for (const section of document.querySelectorAll("section"))
      section.hidden = !["all", section.id].includes(button.dataset.task);
  });
for (const head of document.querySelectorAll("thead th"))
  head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.children[head.cellIndex]?.dataset.value ?? "";
    const compare = (a, b) => {
      const [p, q] = [key(a), key(b)];
      if (p === "" || q === "") return (p === "") - (q === "");  // what is missing comes last
      const order = isNaN(p) || isNaN(q) ? p.localeCompare(q) : p - q;
      return up ? order : -order;
    };
    for (const body of head.closest("table").tBodies)
      body.append(...[...body.querySelectorAll("tr:not(.head)")].sort(compare));
  });
"""
