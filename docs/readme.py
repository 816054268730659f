"""Put the measured tables into docs/results.md, and a few of them into the README.

make reproduce && make bench && python docs/readme.py
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from priorflow.stages.tables import read_csv

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results/laptop"
FORECASTS = {"crps": "CRPS", "rmse_mean": "RMSE of mean", "spread_skill": "spread/skill"}
RADAR = {
    "crps": "CRPS",
    "rmse_mean_natural": "RMSE of mean, VIL / 255",
    "csi_0.3": "CSI at 0.3",
    "csi_0.5": "CSI at 0.5",
    "spread_skill": "spread/skill",
}
EXACT = {
    "sliced_w2": "sliced W2",
    "mean_error": "error of mean",
    "coverage_50": "in 50 %",
    "coverage_90": "in 90 %",
}
PICTURES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips_alex": "LPIPS", "consistency": "residual"}
LINEAR = ("gaussian_deblur", "motion_deblur", "super_resolution", "inpainting")
# Of every experiment the tasks and the columns that are shown; the first column ranks.
SHOWN = {
    "lorenz63": (["long_x0", "known_x0", "unknown_x0"], FORECASTS),
    "double_well": (["known_x0"], FORECASTS),
    "damped_spring": (["d_4", "d_64"], FORECASTS),
    "navier_stokes": (["sr_32", "sr_16", "points_819", "points_256"], FORECASTS),
    "piv": (["density_003", "density_003_camera"], FORECASTS),
    "sevir": (["sparse_10", "sparse_10_noisy"], RADAR),
    "gaussian_mixture": ([f"{operator}_noise005" for operator in LINEAR], EXACT),
    "images": (
        [
            *(f"{operator}_{noise}" for operator in LINEAR for noise in ("noise0", "noise005")),
            *("random_10", "random_25", "random_50", "random_75"),
            *("phase_retrieval_noise005", "hdr_noise005"),
        ],
        PICTURES,
    ),
}

# What the README shows of it, between its `begin` and `end` comments.
HEADLINES = {
    "lorenz63": ["long_x0"],
    "navier_stokes": ["sr_16"],
    "sevir": ["sparse_10_noisy"],
    "images": ["motion_deblur_noise005"],
}
NOTE = """
Skill is the share of the CRPS between floor and limit that a method recovers; network calls
(forward) and seconds are per case and member; n is cases × members. Where methods have different
numbers of cases, "same n" is the mean over the n cases that all of them have; it orders the table.
Published values are of other pictures: compare the order, not the numbers. SDA is a smoother: it
sees later observations too. Sliced W2 is the distance to draws of the exact posterior, the error of
the mean that from its mean in its own standard deviations; PSNR counts 60 dB at most, where 8 bits
see no error, and the residual of a picture is near the noise where it explains what is observed.
Full tables with all tasks, log-densities, published values and notes are written to
`results/laptop/<experiment>/tables/`.
"""
BEGINNING = """# Results

Written by `make readme` from `make reproduce` and `make bench` at the laptop scale, on two CPU
cores: means over test cases with 95 % bootstrap intervals over cases; CRPS and RMSE in standardised
units.
"""
CLAIMS = """
## What is claimed, measured

Times are of this machine; training seconds are those of the shipped weights' provenance.

"""


def cell(row: pd.Series) -> str:
    """A mean and its interval, to three digits, or one after the point if it is large."""
    digits = 1 if abs(row["mean"]) >= 10 else 3
    return f"{row['mean']:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def section(
    table: pd.DataFrame, experiment: str, task: str, columns: Mapping[str, str]
) -> list[str]:
    """One task: methods in the order of the first column, over the cases that all have."""
    rows = table[(table.task == task) & (table.n > 0)]
    title, first = rows.task_label.iloc[0], next(iter(columns))
    ranking = rows[rows.metric == first]
    shared = ranking.shared_n.max() if ranking.n.nunique() > 1 else 0
    published = (ranking.published != "").any()
    skilled = "crps" in columns
    heads = [
        *columns.values(),
        *([f"{columns[first]}, same {shared}"] if shared else []),
        *(["published"] if published else []),
        *(["skill"] if skilled else []),
        *("network calls", "s", "n"),
    ]
    lines = [
        f"\n**{experiment}, {title}** (`{task}`)\n",
        "| method | " + " | ".join(heads) + " |",
        "|---|" + "--:|" * len(heads),
    ]
    for method in ranking.method:
        mine = rows[rows.method == method].set_index("metric")
        ranked = mine.loc[first]
        role = f" ({ranked.role})" if ranked.role else ""
        cost = (
            f"{ranked.nfe:,.0f}" if ranked.nfe >= 1 else f"{ranked.nfe:.2g}" if ranked.nfe else "–"
        )
        cells = [cell(mine.loc[metric]) if metric in mine.index else "–" for metric in columns]
        if shared:
            cells.append(f"{ranked.shared:.{1 if abs(ranked.shared) >= 10 else 3}f}")
        if published:
            cells.append(ranked.published.replace(" | ", ", ") or "–")
        if skilled:
            cells.append("–" if pd.isna(ranked.skill) else f"{ranked.skill:.2f}")
        tail = [cost, f"{ranked.seconds:.2g}", f"{ranked.n} × {ranked.members}"]
        lines.append(f"| {ranked.method_label}{role} | " + " | ".join([*cells, *tail]) + " |")
    return lines


def tables(shown: Mapping[str, Sequence[str]]) -> str:
    """The tables of some tasks of experiments, as far as they were run."""
    lines: list[str] = []
    for experiment, tasks in shown.items():
        file = RESULTS / experiment / "tables" / f"{experiment}.csv"
        if not file.is_file():
            continue
        table = read_csv(file)
        for task in tasks:
            lines += section(table, experiment, task, SHOWN[experiment][1])
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write docs/results.md, and the tables of the README in place."""
    claims = (RESULTS / "benchmarks.md").read_text()
    everything = tables({name: tasks for name, (tasks, _) in SHOWN.items()})
    page = BEGINNING + NOTE + "\n## Tables\n" + everything + CLAIMS + claims
    (ROOT / "docs/results.md").write_text(page)
    readme = ROOT / "README.md"
    pattern = r"(<!-- begin tables -->\n).*?(<!-- end tables -->)"
    found = tables(HEADLINES)
    text = re.sub(pattern, lambda m: f"{m[1]}{found}\n{m[2]}", readme.read_text(), flags=re.DOTALL)
    readme.write_text(text)


if __name__ == "__main__":
    main()
