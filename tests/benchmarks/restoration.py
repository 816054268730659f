"""`dps` and `diffpir` against the same methods of azula and deepinv: time and PSNR.

    python tests/benchmarks/restoration.py

Needs the trained denoiser of `images`, shipped or of the laptop scale, and takes ten minutes of one
core. Writes restoration.md, a table of what was measured, and restoration.csv, every picture, to
results/benchmarks/. Times are ratios within this run, on one thread, one picture at a time: ours
and theirs in turns on every test picture, both with the same network, levels, steps and draws.

What had to be done to make the methods the same:

- azula's DPS does not clip x̂0: neither do we. Its schedule is that of DDPM through our adapter.
- deepinv's DPS adds the gradient to the score, so that a weight w moves x_s by
  w √(ᾱ_t ᾱ_s) σ_t² (1 - σ_s² / σ_t²) ∇, by a thousandth as much at the end as at the beginning. Its
  `weight` is set for every step so that this is ζ ∇, the published rule, and the times of its
  continuous schedule are those at which ᾱ is DDPM's. It clips x̂0: so do we.
- deepinv's DiffPIR has half our λ and images in [0, 1], clips x̂0 (so do we), starts at t = 999,
  and returns the x of the last level instead of x̂0, which it computes too.
- azula's DiffPIR has a quarter of our λ, does not clip x̂0 (nor do we), solves for x̂0 by one
  iteration of GMRES (its default), which is exact for a mask and not for a blur, and has the noise
  of DDIM, which is ours where all noise is fresh, ζ = 1. So its blur is reported only: there ours
  is closed, and ten iterations are not as good either.

For deepinv the operators are its own, of the same kernel and mask; azula takes ours.
"""

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pandas as pd
import torch
from azula.guidance.diffpir import DiffPIRDenoiser
from azula.guidance.dps import DPSSampler
from azula.sample import DDIMSampler
from deepinv import optim, physics, sampling
from torch import Tensor

from priorflow.config import load_experiment
from priorflow.operators.blur import GaussianBlur
from priorflow.operators.inpainting import BoxInpainting
from priorflow.priors.denoiser import AsAzula, LearnedDenoiser
from priorflow.rng import Streams
from priorflow.solvers.restoration.common import levels
from priorflow.solvers.restoration.ddpm import alpha_bar, sigma_of
from priorflow.solvers.restoration.diffpir import DiffPIR, quadratic
from priorflow.solvers.restoration.dps import DPS
from priorflow.solvers.restoration.library import DDPMSchedule
from priorflow.stages.models import build_prior, restore
from priorflow.stages.statistics import bootstrap_interval
from priorflow.systems.images import FashionMNIST

OUT = Path("results/benchmarks")
WEIGHTS = [
    Path("workflow/pretrained/images/denoiser/weights.safetensors"),
    Path("results/laptop/images/models/denoiser/weights.safetensors"),
]
SHAPE, NOISE, STEPS = (1, 32, 32), 0.05, 100
START = 930  # of DPS: σ = 80, the largest that the denoiser was trained for
PICTURES = range(60_000, 60_016)  # test rows

Restore = Callable[[Tensor], Tensor]  # y to a restored picture, (1, 1, 32, 32)
Pair = tuple[DPS | DiffPIR, Callable[["Task", LearnedDenoiser, list[Tensor]], Restore]]


class Task(SimpleNamespace):
    """An operator of ours and of deepinv's, and how observations of ours become its own.

    Attributes:
        operator: Ours.
        physics: deepinv's.
        image: Observations (…, \\*obs) of ours to (…, 1, 32, 32).
    """


def tasks() -> dict[str, Task]:
    """The observations that are compared, γ = 0.05."""
    blur = GaussianBlur(SHAPE, 9, 1.0, noise_std=NOISE)
    kernel = torch.outer(blur.kernel, blur.kernel)[None, None].float()
    box = BoxInpainting(SHAPE, (12, 25), (12, 25), NOISE)
    mask = box.adjoint(box(torch.ones(1, *SHAPE)))
    made = {
        "gaussian_deblur": Task(
            operator=blur, physics=physics.BlurFFT(SHAPE, kernel), image=lambda y: y
        ),
        "inpainting": Task(
            operator=box, physics=physics.Inpainting(SHAPE, mask), image=box.adjoint
        ),
    }
    for task in made.values():
        x = torch.linspace(-1, 1, 1024).view(1, *SHAPE)
        torch.testing.assert_close(task.image(task.operator(x)), task.physics.A(x))
    return made


def ours(solver: DPS | DiffPIR, task: Task, prior: LearnedDenoiser, row: int) -> Restore:
    """A solver of this package."""
    rng = Streams(0, "benchmark", cases=[row])
    return lambda y: solver(y, task.operator, prior, rng).samples[:, 0]


def azula_dps(zeta: float, task: Task, prior: LearnedDenoiser, noise: list[Tensor]) -> Restore:
    """azula's DPS."""

    class Sampler(DPSSampler):
        timesteps = azula_times([t for t, _ in levels(START, STEPS)], START)

    def run(y: Tensor) -> Tensor:
        denoiser = AsAzula(prior, DDPMSchedule(START), clip=False)
        return Sampler(denoiser, y, task.operator, zeta, silent=True)(noise.pop(0))

    return run


def azula_diffpir(lam: float, task: Task, prior: LearnedDenoiser, noise: list[Tensor]) -> Restore:
    """azula's DiffPIR in its DDIM, with fresh noise only."""

    class Sampler(DDIMSampler):
        timesteps = azula_times(quadratic(START, STEPS), START)

    def run(y: Tensor) -> Tensor:
        denoiser = DiffPIRDenoiser(
            AsAzula(prior, DDPMSchedule(START), clip=False),
            y.flatten(1),
            lambda x: task.operator(x).flatten(1),
            NOISE**2,
            lam / 4,
        )
        return Sampler(denoiser, eta=1e9, silent=True)(noise.pop(0))

    return run


def azula_times(indices: list[int], start: int) -> Tensor:
    """The times of our adapter for these indices of ᾱ, to the clean image."""
    return (torch.tensor([*indices, -1], dtype=torch.float64) + 1) / (start + 1)


def deepinv_dps(zeta: float, task: Task, prior: LearnedDenoiser, noise: list[Tensor]) -> Restore:
    """deepinv's DPS with the published step in place of a constant weight of the score."""
    steps = levels(START, STEPS)
    weights = [
        zeta / math.sqrt(alpha_bar(t) * alpha_bar(s)) / (sigma_of(t) ** 2 - sigma_of(s) ** 2)
        for t, s in steps
    ]
    b, slope = 0.1, 19.9  # of its β(t): -ln ᾱ = b t + slope t² / 2
    bars = [-math.log(alpha_bar(t)) for t in (*(t for t, _ in steps), -1)]
    times = [(math.sqrt(b**2 + 2 * slope * a) - b) / slope for a in bars]

    class Solver(sampling.DDPMSolver):
        def step(self, *args: object, **kwargs: object) -> tuple[Tensor, int]:
            method.data_fidelity.weight = weights.pop(0)
            return super().step(*args, **kwargs)

        def randn_like(self, x: Tensor) -> Tensor:
            return noise.pop(0).to(x)

    solver = Solver(torch.tensor(times, dtype=torch.float64))
    method = sampling.DPS(prior, solver=solver, minus_one_one=False)
    return lambda y: method(task.image(y), task.physics, x_init=noise.pop(0))


def deepinv_diffpir(lam: float, task: Task, prior: LearnedDenoiser, noise: list[Tensor]) -> Restore:
    """deepinv's DiffPIR."""

    def unit(x: Tensor, sigma: Tensor) -> Tensor:
        return (prior(2 * x - 1, 2 * sigma) + 1) / 2

    def run(y: Tensor) -> Tensor:
        method = sampling.DiffPIR(
            unit, optim.L2(), sigma=NOISE / 2, max_iter=STEPS, lambda_=lam / 2
        )
        grey = torch.full((1, *SHAPE), 0.5)  # x is 0 and noise: as we begin
        return 2 * method(task.image((y + 1) / 2), task.physics, x_init=grey) - 1

    return run


def pairs() -> dict[str, Pair]:
    """Our solvers and what they are compared with, by the name of the comparison."""
    steps = {"start": START, "steps": STEPS}
    return {
        "`dps` / azula's DPS": (DPS(1.0, **steps, clip=False), partial(azula_dps, 1.0)),
        "`dps` / deepinv's DPS": (DPS(1.0, **steps), partial(deepinv_dps, 1.0)),
        "`diffpir` / deepinv's DiffPIR": (
            DiffPIR(14.0, 0.1, STEPS),
            partial(deepinv_diffpir, 14.0),
        ),
        "`diffpir` / azula's DiffPIR": (
            DiffPIR(40.0, 1.0, **steps, clip=False),
            partial(azula_diffpir, 40.0),
        ),
    }


def compare(task: Task, pair: Pair, prior: LearnedDenoiser, row: int) -> dict[str, float]:
    """Seconds and PSNR of both on one picture; who begins changes from picture to picture."""
    solver, library = pair
    truth = FashionMNIST().read([row])
    y = task.operator(truth)
    y = y + NOISE * Streams(0, "observe", cases=[row]).normal(*y.shape[1:])
    rng = Streams(0, "benchmark", cases=[row])
    noise = [rng.normal(1, *SHAPE)[0] for _ in range(STEPS + 1)]  # the draws of our solver
    runs = {"ours": ours(solver, task, prior, row), "theirs": library(task, prior, noise)}
    found = {}
    for name in sorted(runs, reverse=bool(row % 2)):
        with torch.no_grad(), patch.object(torch, "randn_like", lambda x: noise.pop(0).to(x)):
            begin = time.perf_counter()
            x = runs[name](y)
            found[f"{name}_seconds"] = time.perf_counter() - begin
        error = (x.clamp(-1, 1) - truth).square().mean().item()
        found[f"{name}_psnr"] = 10 * math.log10(4 / error)
    return found


def report(table: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Rows of the table: for each comparison the ratio of times and the difference in PSNR."""
    rows = []
    for (name, task), found in table.groupby(["comparison", "task"], sort=False):
        ratio = (found.ours_seconds / found.theirs_seconds).quantile([0.5, 0.25, 0.75])
        gain = bootstrap_interval(found.ours_psnr - found.theirs_psnr)
        calls = f"{found.ours_seconds.median() / STEPS * 1e3:.1f} ms a step"
        text = "{:.3f} ({:.3f} to {:.3f}), {}".format(*ratio, calls)
        count = str(len(found))
        rows.append((f"{name}, {task}: time, median (quartiles)", "≤ 1.05", text, count))
        text = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        title = f"… PSNR, ours {found.ours_psnr.mean():.2f} dB, less theirs, dB"
        inexact = name.endswith("azula's DiffPIR") and task == "gaussian_deblur"
        rows.append((title, "reported" if inexact else "within 0.3", text, count))
    return rows


def main() -> None:
    """Measure everything and write the table."""
    torch.set_num_threads(1)
    weights = next((file for file in WEIGHTS if file.is_file()), None)
    if weights is None:
        sys.exit(f"{WEIGHTS[0]} is missing: run `make pretrained EXPERIMENTS=images` first")
    e = load_experiment("images", "laptop")
    model = e.model_section("denoiser")
    prior = restore(build_prior(model, FashionMNIST(), e.base), weights)
    records = [
        {"comparison": name, "task": task, "row": row, **compare(made, pair, prior, row)}
        for name, pair in pairs().items()
        for task, made in tasks().items()
        for row in PICTURES
    ]
    table = pd.DataFrame(records)
    lines = ["| what | must | measured | n |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(cells) + " |" for cells in report(table)]
    text = "\n".join(lines) + "\n"
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "restoration.md").write_text(text)
    table.to_csv(OUT / "restoration.csv", index=False)
    print(text)


if __name__ == "__main__":
    main()
