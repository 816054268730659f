"""Put the measured tables into the README, between its `begin` and `end` comments.

make reproduce && make bench && python docs/readme.py
"""

import re
from pathlib import Path

import pandas as pd

from priorflow.stages.tables import read_csv

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results/laptop"
TASKS = {
    "lorenz63": ["long_x0", "known_x0", "unknown_x0"],
    "double_well": ["known_x0"],
    "damped_spring": ["d_4", "d_64"],
    "navier_stokes": ["sr_32", "sr_16", "points_819", "points_256"],
}
COLUMNS = {"crps": "CRPS", "rmse_mean": "RMSE of mean", "spread_skill": "spread/skill"}


def cell(row: pd.Series) -> str:
    """A mean and its interval, to three digits."""
    return f"{row['mean']:.3f} [{row.low:.3f}, {row.high:.3f}]"


def section(table: pd.DataFrame, experiment: str, task: str) -> list[str]:
    """One task: methods in the order of their CRPS."""
    rows = table[(table.task == task) & (table.n > 0)]
    title = rows.task_label.iloc[0]
    lines = [
        f"\n**{experiment}, {title}** (`{task}`)\n",
        "| method | " + " | ".join(COLUMNS.values()) + " | skill | network calls | s | n |",
        "|---|" + "--:|" * (len(COLUMNS) + 4),
    ]
    for method in rows[rows.metric == "crps"].sort_values("mean").method:
        mine = rows[rows.method == method].set_index("metric")
        first = mine.loc["crps"]
        role = f" ({first.role})" if first.role else ""
        skill = "–" if pd.isna(first.skill) else f"{first.skill:.2f}"
        cost = f"{first.nfe:,.0f}" if first.nfe >= 1 else f"{first.nfe:.2g}" if first.nfe else "–"
        cells = [cell(mine.loc[metric]) for metric in COLUMNS]
        tail = [skill, cost, f"{first.seconds:.2g}", f"{first.n} × {first.members}"]
        lines.append(f"| {first.method_label}{role} | " + " | ".join([*cells, *tail]) + " |")
    return lines


def tables() -> str:
    """All tasks that the README shows."""
    lines: list[str] = []
    for experiment, tasks in TASKS.items():
        table = read_csv(RESULTS / experiment / "tables" / f"{experiment}.csv")
        for task in tasks:
            lines += section(table, experiment, task)
    lines.append(
        "\nSkill is the share of the CRPS between floor and limit that a method recovers; network "
        "calls (forward) and seconds are per case and member; n is cases × members. SDA is a "
        "smoother: it sees later observations too. Full tables with log-densities, published "
        "values and notes: `results/laptop/<experiment>/tables/`."
    )
    return "\n".join(lines)


def main() -> None:
    """Rewrite the README in place."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    parts = {"tables": tables(), "benchmarks": (RESULTS / "benchmarks.md").read_text().rstrip()}
    for name, content in parts.items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, flags=re.DOTALL)
    readme.write_text(text)


if __name__ == "__main__":
    main()
