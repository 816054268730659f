"""What the project claims about speed and accuracy, measured in one run, side by side.

    make reproduce && make bench          python tests/benchmarks/bench.py flow latents

Reads the results of the laptop scale, measures what is not in them, and writes
results/laptop/benchmarks.md. Times are ratios within this run, or totals of this machine.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from priorflow import store
from priorflow.config import load_experiment
from priorflow.stages.figures.camera_error import measured
from priorflow.stages.infer import sample
from priorflow.stages.statistics import bootstrap_interval, paired_difference
from priorflow.stages.tables import read_csv
from priorflow.stages.vocabulary import measure
from priorflow.systems.camera import Camera

ROOT = Path("results/laptop")
LORENZ, FLOW = ROOT / "lorenz63", ROOT / "navier_stokes"
RADAR, VELOCITIES = ROOT / "sevir", ROOT / "piv"
PICTURES, MIXTURE = ROOT / "images", ROOT / "gaussian_mixture"
ONE_STEP = ("sr_32", "sr_16", "points_819", "points_256")
LINEAR = [
    f"{task}_{noise}"
    for task in ("motion_deblur", "gaussian_deblur", "super_resolution", "inpainting")
    for noise in ("noise0", "noise005")
]
DEBLURRING = [task for task in LINEAR if "deblur" in task]
PIXEL_RIVALS = ("dps", "mcg", "admm_pnp", "red_diff", "diffpir")
RIVALS = ("flowdas", "sda", "fno_da", "transolver_da", "interpolation")
NAMES = {"crps": "CRPS", "rmse_mean": "RMSE of mean", "psnr": "PSNR"}
NOWCASTS = ("fno_da", "transolver_da", "sda", "persistence", "steps", "interpolation")


def values(method: str, task: str, metric: str, root: Path = LORENZ) -> pd.Series:
    """A metric of a method by case."""
    table = pd.read_parquet(root / "metrics" / f"{method}.parquet")
    chosen = table[(table.task == task) & (table.metric == metric)]
    return chosen.set_index("case").value.dropna()


def row(table: pd.DataFrame, method: str, task: str, metric: str) -> pd.Series:
    """A row of the experiment's table."""
    hit = (table.method == method) & (table.task == task) & (table.metric == metric)
    return table[hit].iloc[0]


def accuracy() -> list[tuple[str, str, str, str]]:
    """Skill, ratios and log-densities from the tables."""
    table = read_csv(LORENZ / "tables/lorenz63.csv")
    rows = []
    for method in ("flowdas_bridge", "flowdas", "sda", "enkf"):
        r = row(table, method, "long_x0", "crps")
        goal = "≥ 0.9" if method == "flowdas_bridge" else "reported"
        text = f"{r.skill:.3f} [{r.skill_low:.3f}, {r.skill_high:.3f}]"
        rows.append((f"`long_x0`: skill recovered by CRPS, `{method}`", goal, text, str(r.n)))
    gain = paired_difference(
        values("flowdas_bridge", "long_x0", "crps"), values("flowdas", "long_x0", "crps")
    )
    text = f"{gain.value:.4f} [{gain.low:.4f}, {gain.high:.4f}]"
    rows.append(("`long_x0`: CRPS, bridge - `flowdas`, paired", "below 0", text, str(gain.n)))
    ours, limit = (values(m, "known_x0", "rmse").mean() for m in ("flowdas_bridge", "bpf"))
    text = f"{ours / limit:.3f}"
    rows.append(("`known_x0`: sample RMSE, bridge / limit", "≤ 1.05", text, "64"))
    for ablation in ("log_prior", "steps"):
        found = pd.read_parquet(LORENZ / f"ablations/metrics/{ablation}.parquet")
        found = found[found.metric == "log_prior"]
        for method, prior in found.groupby("method", sort=False):
            base, _, setting = method.partition(f".{ablation}.")
            if base == "sda" or (ablation == "steps" and base != "flowdas"):
                continue
            goal = "17.87 ± 0.5" if ablation == "log_prior" else "reported"
            measured = bootstrap_interval(prior.value)
            text = f"{measured.value:.2f} [{measured.low:.2f}, {measured.high:.2f}]"
            n = f"{prior.case.nunique()} × {prior.members.iloc[0]}"
            name = f"`{base}`, {setting.replace('steps_', 'steps = ').replace('.', ', ')}"
            rows.append((f"log-prior of 14 transitions: {name}", goal, text, n))
    nfe = values("flowdas_bridge", "long_x0", "nfe").mean() / 120
    rows.append(("network evaluations per step and member, bridge", "≤ 10", f"{nfe:.1f}", "64"))
    return rows


def closest(
    ours: str, rivals: Sequence[str], task: str, metric: str, root: Path = FLOW
) -> tuple[str, str, str]:
    """The rival that is closest to a method, and their paired difference."""
    mine = values(ours, task, metric, root)
    gains = {r: paired_difference(mine, values(r, task, metric, root)) for r in rivals}
    if measure(metric).direction == "higher":
        rival, gain = min(gains.items(), key=lambda item: item[1].low)
    else:
        rival, gain = max(gains.items(), key=lambda item: item[1].high)
    return rival, f"{gain.value:.4f} [{gain.low:.4f}, {gain.high:.4f}]", str(gain.n)


def ordered(
    tasks: Sequence[str],
    metrics: str,
    claims: Mapping[str, Sequence[str]],
    root: Path = FLOW,
) -> list[tuple[str, str, str, str]]:
    """Methods against the closest of their rivals, in every metric and task."""
    rows = []
    for metric in metrics.split():
        goal = "above 0" if measure(metric).direction == "higher" else "below 0"
        for task in tasks:
            for ours, rivals in claims.items():
                rival, *gain = closest(ours, rivals, task, metric, root)
                what = f"`{task}`: {NAMES.get(metric, metric)}, `{ours}` - closest of {len(rivals)}"
                rows.append((f"{what}, `{rival}`, paired", goal, *gain))
    return rows


def radar() -> list[tuple[str, str, str, str]]:
    """Storms: the order of the methods after one step."""
    metrics = "crps rmse_mean csi_0.3 csi_0.5"
    claims = {"flowdas_bridge": NOWCASTS, "flowdas": NOWCASTS}
    return ordered(("sparse_10", "sparse_10_noisy"), metrics, claims, RADAR)


def velocimetry() -> list[tuple[str, str, str, str]]:
    """Particle velocities: the camera's error, and the order of the methods after one step."""
    camera = Camera(pixels=128, interval=1.0, noise_std=5.0)
    rows = []
    for method in ("correlation", "tracking"):
        found = [measured(camera, shift, method, 4)[1] for shift in (0.0, 0.25, 0.5, 0.75)]
        worst = np.sqrt(np.square(found).mean(1)).max()
        what = f"velocity error on uniform shifts, {method}, 0.03 particles per pixel"
        rows.append((what, "≤ 0.1 px rms", f"{worst:.3f}", "4 × 4 pairs"))
    claims = dict.fromkeys(("flowdas_bridge", "flowdas"), ("sda", "curl"))
    tasks = ("density_003", "density_003_camera")
    return rows + ordered(tasks, "crps rmse_mean", claims, VELOCITIES)


def flow() -> list[tuple[str, str, str, str]]:
    """Navier-Stokes: the order of the methods, the distance to the limit, rollouts."""
    rows = ordered(ONE_STEP, "crps rmse_mean", {"flowdas_bridge": RIVALS, "flowdas": RIVALS[2:4]})
    for task in ONE_STEP:
        ratios = [
            values("flowdas_bridge", task, metric, FLOW).mean()
            / values("enkf", task, metric, FLOW).mean()
            for metric in ("crps", "rmse_mean")
        ]
        text = " and ".join(f"{ratio:.2f}" for ratio in ratios)
        rows.append((f"`{task}`: bridge / `enkf`, CRPS and RMSE of mean", "reported", text, "50"))
    table = read_csv(FLOW / "tables/navier_stokes.csv")
    for task in ONE_STEP:  # spread and error pooled over the cases: a mean of ratios is too high
        r = row(table, "flowdas_bridge", task, "spread_skill")
        text = f"{r['mean']:.2f} [{r.low:.2f}, {r.high:.2f}]"
        rows.append((f"`{task}`: spread/skill, bridge", "0.8 to 1.25", text, str(r.n)))
    nfe = max(values("flowdas_bridge", task, "nfe", FLOW).mean() for task in ONE_STEP)
    rows.append(("Navier-Stokes: network evaluations, bridge", "≤ 20", f"{nfe:.1f}", "50"))
    for task in ("sr_16_rollout", "points_256_rollout"):
        ends = []  # of the bridge, then of the filter: (cases, first and last lead)
        for method in ("flowdas_bridge", "enkf"):
            table = pd.read_parquet(FLOW / "metrics" / f"{method}.parquet")
            found = table[(table.task == task) & (table.metric == "crps")]
            ends.append(found.pivot(index="case", columns="lead", values="value").iloc[:, [0, -1]])
        n = len(ends[0])
        drawn = np.random.default_rng(0).integers(n, size=(2000, n))
        first, last = (
            np.stack([end.iloc[:, k].values[drawn].mean(1) for end in ends]) for k in (0, 1)
        )
        low, high = np.quantile((last / first)[0] / (last / first)[1], (0.025, 0.975))
        growth = [end.iloc[:, 1].mean() / end.iloc[:, 0].mean() for end in ends]
        text = f"{growth[0] / growth[1]:.2f} [{low:.2f}, {high:.2f}] ({growth[0]:.2f})"
        name = f"`{task}`: growth of the CRPS in ten steps, bridge / `enkf` (bridge)"
        rows.append((name, "≤ 1.25", text, str(n)))
    return rows


def restoration() -> list[tuple[str, str, str, str]]:
    """Pictures: DCDP against its rivals, and against DPS on every linear task."""
    rows = []
    for task in ("motion_deblur_noise0", "motion_deblur_noise005"):
        for ours in ("dcdp_tweedie", "dcdp_ddim"):
            for rival in PIXEL_RIVALS:
                _, *gain = closest(ours, [rival], task, "psnr", PICTURES)
                what = f"`{task}`: PSNR, `{ours}` - `{rival}`, paired"
                rows.append((what, "above 0", *gain))
    for task in LINEAR:
        _, *gain = closest("dcdp_tweedie", ["dps"], task, "psnr", PICTURES)
        rows.append((f"`{task}`: PSNR, `dcdp_tweedie` - `dps`, paired", "not below 0", *gain))
    faster = [
        values("timing/dps", task, "seconds", PICTURES).mean()
        / values("timing/dcdp_tweedie", task, "seconds", PICTURES).mean()
        for task in LINEAR
    ]
    text = f"{min(faster):.0f}× to {max(faster):.0f}×"
    rows.append(("time of `dps` / `dcdp_tweedie`, linear tasks", "≥ 30×", text, "24"))
    table = read_csv(MIXTURE / "tables/gaussian_mixture.csv")
    for method in table[table.role == ""].method.unique():
        found = table[(table.method == method) & (table.metric == "mean_error")]
        text = f"{found['mean'].min():.2f} to {found['mean'].max():.2f}"
        what = f"Gaussian mixture: error of the mean in exact standard deviations, `{method}`"
        rows.append((what, "reported", text, str(found.n.min())))
    return rows


def libraries() -> list[tuple[str, str, str, str]]:
    """`dps` and `diffpir` against those of azula and deepinv, as restoration.py measured them."""
    file = Path("results/benchmarks/restoration.md")
    if not file.is_file():
        sys.exit(f"{file} is missing: run `python tests/benchmarks/restoration.py` first")
    lines = file.read_text().splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in lines]


def latents() -> list[tuple[str, str, str, str]]:
    """Pictures: the codec, DCDP in its latents, and DCDP with a consistency map."""
    found = store.read(PICTURES / "models/latent/assessment.zarr").load()
    psnr = bootstrap_interval(10 * np.log10(4 / found.reconstruction.values))
    size = found.pictures[0].size / found.attrs["numbers"]
    text = f"{psnr.value:.2f} dB [{psnr.low:.2f}, {psnr.high:.2f}], {size:g}× fewer numbers"
    rows = [("codec: PSNR of test pictures", "≥ 28 dB, ≥ 4×", text, str(psnr.n))]
    for task in DEBLURRING:
        for rival in ("latent_dps", "psld"):
            _, *gain = closest("dcdp_ldm_tweedie", [rival], task, "psnr", PICTURES)
            what = f"`{task}`: PSNR, `dcdp_ldm_tweedie` - `{rival}`, paired"
            rows.append((what, "above 0", *gain))
    for rival in ("latent_dps", "psld"):
        seconds, n = ratios(rival, "dcdp_ldm_tweedie", "seconds")
        text = f"{min(seconds):.0f}× to {max(seconds):.0f}×"
        rows.append((f"time of `{rival}` / `dcdp_ldm_tweedie`, deblurring", "≥ 10×", text, n))
    for task in DEBLURRING:
        _, *gain = closest("dcdp_cm", ["dcdp_ddim"], task, "psnr", PICTURES)
        rows.append((f"`{task}`: PSNR, `dcdp_cm` - `dcdp_ddim`, paired", "within 1", *gain))
    calls, n = ratios("dcdp_ddim", "dcdp_cm", "nfe")
    text = f"{min(calls):.1f}× to {max(calls):.1f}×"
    rows.append(("network evaluations of `dcdp_ddim` / `dcdp_cm`", "≥ 10×", text, n))
    return rows


def ratios(dear: str, cheap: str, cost: str) -> tuple[list[float], str]:
    """The cost of one method over that of another on the deblurring tasks, and the cases."""
    tree = "timing/" if cost == "seconds" else ""
    pairs = [
        [values(f"{tree}{method}", task, cost, PICTURES) for method in (dear, cheap)]
        for task in DEBLURRING
    ]
    n = min(len(series) for pair in pairs for series in pair)
    return [a.mean() / b.mean() for a, b in pairs], str(n)


def batching(steps: int = 250) -> list[tuple[str, str, str, str]]:
    """FlowDAS on 64 cases at once against the same code case by case."""
    torch.set_num_threads(1)
    e = load_experiment("lorenz63", "laptop")
    observations = store.read(LORENZ / "observations/known_x0.zarr").load().isel(time=[0])
    model = e.model_section("drift")
    run = e.run("flowdas", "known_x0", 0).model_dump()
    run |= {"members": 1, "solver": {**run["solver"], "steps": steps}}
    seconds = {}
    for block in (64, 1):
        begin = time.perf_counter()
        sample(
            observations,
            run | {"block": block},
            model,
            LORENZ / "models/drift/weights.safetensors",
            cases=range(64),
            device="cpu",
            base=e.base,
        )
        seconds[block] = time.perf_counter() - begin
    ratio = seconds[1] / seconds[64]
    per_step = seconds[1] / 64 * 500 / steps
    return [
        ("`flowdas`, 64 cases batched against case by case", "≥ 20×", f"{ratio:.0f}×", "64"),
        (
            "… seconds per case and step (500 solver steps), case by case",
            "–",
            f"{per_step:.2f}",
            "64",
        ),
        ("… the same, batched", "–", f"{seconds[64] / 64 * 500 / steps:.3f}", "64"),
    ]


def training() -> list[tuple[str, str, str, str]]:
    """Training times, by the provenance of the shipped weights."""
    rows = []
    for file in sorted(Path("workflow/pretrained").glob("*/*/config.json")):
        record = json.loads(file.read_text())
        name = "/".join(file.parts[-3:-1])
        text = f"{record['seconds']:.0f} s, {record['parameters']:,} parameters"
        goal = "≤ 3600 s" if name.startswith(("navier", "images", "sevir")) else "≤ 240 s"
        rows.append((f"training of `{name}`, {record['threads']} thread", goal, text, "1"))
    return rows


def resources() -> list[tuple[str, str, str, str]]:
    """Peak memory, and a run with nothing to do."""
    rows = []
    peaks = {file: pd.read_csv(file, sep="\t").max_rss.max() for file in ROOT.rglob("*.tsv")}
    for log in ROOT.rglob("*.log"):  # a warm process is measured by itself
        if said := re.search(r"^warm: .*, at most (\d+) MB$", log.read_text(), re.MULTILINE):
            name = log.relative_to(ROOT / "logs").with_suffix(".tsv")
            peaks[ROOT / "benchmarks" / name] = said[1]
    peaks = {file: float(v) for file, v in peaks.items() if str(v) not in ("-", "nan")}
    worst = max(peaks, key=peaks.get)
    text = f"{peaks[worst] / 1024:.2f} GB (`{worst.parent.name}/{worst.stem}`)"
    rows.append(("peak memory of any job", "≤ 6 GB", text, str(len(peaks))))
    begin = time.perf_counter()
    subprocess.run(["make", "reproduce"], check=True, capture_output=True)
    text = f"{time.perf_counter() - begin:.1f} s"
    rows.append(("`make reproduce` with nothing changed", "≤ 10 s", text, "1"))
    return rows


PARTS = (
    *(accuracy, flow, velocimetry, radar, restoration, libraries, latents),
    *(batching, training, resources),
)


def main() -> None:
    """Measure everything, or the parts that are named, and write the table."""
    named = sys.argv[1:]
    if unknown := set(named) - {part.__name__ for part in PARTS}:
        sys.exit(f"{unknown.pop()}: there are {', '.join(part.__name__ for part in PARTS)}")
    if not (LORENZ / "tables/lorenz63.csv").is_file():
        sys.exit("results/laptop is missing: run `make reproduce` first")
    lines = ["| what | must | measured | n |", "|---|---|---|---|"]
    for part in PARTS:
        if part.__name__ in named or not named:
            lines += ["| " + " | ".join(cells) + " |" for cells in part()]
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
