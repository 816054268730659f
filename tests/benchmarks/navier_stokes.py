"""The Navier-Stokes solver: what a step costs, and how far it is from the published scheme.

    python tests/benchmarks/navier_stokes.py

Needs nothing and takes a minute or two of one core. Writes navier_stokes.md, a table of what was
measured, navier_stokes.csv, the errors along fixed paths of the force, and navier_stokes.png to
results/benchmarks/. Times are ratios within this run, on one thread.

The published scheme is the explicit Euler-Maruyama method with steps of 1e-4 on 256² points
(FlowDAS, section 4.2), here as it is commonly written down.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

from priorflow.metrics.spectrum import energy_spectrum
from priorflow.operators.spectral import (
    dealiasing_mask,
    from_band,
    to_band,
    wavenumbers,
)
from priorflow.rng import Streams
from priorflow.systems.navier_stokes import COSINES, FORCED, SINES, NavierStokes

OUT = Path("results/benchmarks")
PUBLISHED = 1e-4


class EulerMaruyama:
    """The published scheme: five transforms a step, everything but the products in spectral space.

    Args:
        system: The equation and the grid.
        dt: The step.
    """

    def __init__(self, system: NavierStokes, dt: float, dtype: torch.dtype = torch.float32):
        size = system.size
        self.system, self.dt, self.size = system, dt, size
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        ky, kx = (1j * k for k in wavenumbers(size))
        square = (ky.abs() ** 2 + kx.abs() ** 2).clamp(min=1)
        self.square = square.to(dtype)
        self.ky, self.kx = ky.to(kind), kx.to(kind)
        self.mask = dealiasing_mask(size)
        self.linear = (-system.viscosity * square - system.drag).to(dtype)
        self.rows, self.columns = torch.tensor(FORCED).T

    def __call__(self, w: Tensor, dw: Tensor) -> Tensor:
        """One step of spectra (n, size, size // 2 + 1) with increments dw (n, 8) of the paths."""
        shape = (self.size, self.size)
        psi = w / self.square
        u = torch.fft.irfft2(self.ky * psi, s=shape)
        v = torch.fft.irfft2(-self.kx * psi, s=shape)
        w_x = torch.fft.irfft2(self.kx * w, s=shape)
        w_y = torch.fft.irfft2(self.ky * w, s=shape)
        advection = torch.fft.rfft2(u * w_x + v * w_y) * self.mask
        w = w + self.dt * (self.linear * w - advection)
        waves = torch.complex(dw[:, COSINES], -dw[:, SINES]) * (self.size**2 / 2)
        w[:, self.rows, self.columns] += self.system.forcing * waves
        return w

    def run(self, x: Tensor, dw: Tensor) -> Tensor:
        """Fields (n, size, size) after a step for each of the increments (steps, n, 8)."""
        w = torch.fft.rfft2(x) * self.mask
        for increment in dw:
            w = self(w, increment)
        return torch.fft.irfft2(w, s=x.shape[-2:])


def path(system: NavierStokes, dw: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """What `NavierStokes.integrate` sees of Wiener paths in `steps` steps of one lag.

    Args:
        system: The equation.
        dw: Increments of the paths, linear in between, shape (fine steps, n, 8).
        steps: A divisor of the fine steps.
    """
    dw = dw.unflatten(0, (steps, -1))
    h, count = system.lag / steps, dw.shape[1]
    square = torch.zeros(8, dtype=dw.dtype)
    for (ky, kx), cosine, sine in zip(FORCED, COSINES, SINES, strict=True):
        square[cosine] = square[sine] = kx**2 + ky**2
    rate = system.damping(square)
    middle = (torch.arange(count, dtype=dw.dtype) + 0.5)[:, None, None] * (h / count)
    increment = (torch.exp(-rate * (h - middle)) * dw).sum(1)
    total = dw.sum(1)
    mean = (dw.cumsum(1) - dw / 2).mean(1)
    deviation = mean - total / 2
    return increment / (-torch.expm1(-2 * rate * h) / (2 * rate)).sqrt(), deviation / (
        h / 12
    ) ** 0.5


def wiener(steps: int, n: int, dt: float, seed: int) -> Tensor:
    """Increments of Wiener paths, shape (steps, n, 8), float64."""
    generator = torch.Generator().manual_seed(seed)
    return math.sqrt(dt) * torch.randn(steps, n, 8, dtype=torch.float64, generator=generator)


def climate(system: NavierStokes, n: int) -> Tensor:
    """Fields of the stationary flow, (n, size, size), float64."""
    return system.initial(1, Streams(0, "benchmark", cases=range(n)))[:, 0].double()


def fastest(*jobs: Callable[[], object], rounds: int = 30) -> list[float]:
    """The shortest time of each job, in turns, so that all meet the same load of the machine."""
    best = [math.inf] * len(jobs)
    for _ in range(rounds):
        for i, job in enumerate(jobs):
            begin = time.perf_counter()
            job()
            best[i] = min(best[i], time.perf_counter() - begin)
    return best


def transforms(size: int, n: int, steps: int = 20) -> list[tuple[str, str, str]]:
    """(a) A step of n flows against its Fourier transforms alone."""
    system = NavierStokes(size=size)
    x, z = torch.randn(n, size, size), torch.randn(steps, n, 8)
    pair, band = torch.randn(2, n, size, size), (size - 1) // 3
    spectra, half = to_band(pair, band), torch.fft.rfft2(pair)
    plain = EulerMaruyama(system, PUBLISHED)
    count = 4 * steps

    def ours_alone() -> None:
        for _ in range(count):
            from_band(spectra)
            to_band(pair, band)

    def published() -> None:
        for _ in range(count):
            plain(half[0], z[0])

    def published_alone() -> None:
        for _ in range(count):
            torch.fft.irfft2(half)
            torch.fft.irfft2(half)
            torch.fft.rfft2(pair[0])

    ours, alone, step, five = fastest(
        lambda: system.integrate(x, z, z), ours_alone, published, published_alone, rounds=10
    )
    return [
        (f"step / its transforms, {size}², {n} at a time", "≤ 1.5", f"{ours / alone:.2f}"),
        ("… the published scheme, written plainly", "–", f"{step / five:.2f}"),
        ("… µs per field and evaluation of the advection", "–", f"{ours / count / n * 1e6:.0f}"),
    ]


def throughput() -> list[tuple[str, str, str]]:
    """Transitions a second, at the default settings."""
    system = NavierStokes()
    rng = Streams(0, "throughput", cases=range(16))
    x = system.initial(1, rng)
    (seconds,) = fastest(lambda: system.step(x, rng), rounds=20)
    title = "states per second and core, 64², ν = 4e-3, lag 0.5, step 0.025"
    return [(title, "–", f"{16 / seconds:.0f}")]


def cost() -> list[tuple[str, str, str]]:
    """(b) Seconds for a unit of time: 128² by this solver, 256² by the published scheme."""
    x, z = torch.randn(1, 256, 256), torch.randn(1, 1, 8)
    plain = EulerMaruyama(NavierStokes(size=256, viscosity=1e-3), PUBLISHED)
    w = torch.fft.rfft2(x)
    few = torch.randn(4, 4, 8)
    own = {size: NavierStokes(size=size, viscosity=1e-3, rms=3.07) for size in (128, 256)}
    fields = torch.randn(4, 128, 128)
    published, *ours = fastest(
        lambda: plain(w, z[0]),
        lambda: own[128].integrate(fields, few, few),
        lambda: own[256].integrate(x, few[:, :1], few[:, :1]),
    )
    published /= PUBLISHED
    rows = [("seconds per unit of time, published, 256², step 1e-4", "–", f"{published:.1f}")]
    for label, seconds, n, step, goal in (
        ("128², step 0.0125", ours[0], 4, 0.0125, "≥ 40×"),
        ("128², step 0.005", ours[0], 4, 0.005, "≥ 40×"),
        ("256², step 0.00625", ours[1], 1, 0.00625, "–"),
    ):
        each = seconds / 4 / n / step
        rows.append((f"… this solver, {label}", goal, f"{each:.3f}: {published / each:.0f}×"))
    return rows


def convergence() -> tuple[list[tuple[str, str, str]], pd.DataFrame]:
    """(c) Distance from the exact solution along the same paths, relative, after one lag."""
    fine, n = 5120, 2
    system = NavierStokes(lag=fine * PUBLISHED)
    x, dw = climate(system, n), wiener(fine, n, PUBLISHED, seed=1)
    exact = system.integrate(x, *path(system, dw, 1280))

    def record(scheme: str, steps: int, end: Tensor) -> dict[str, object]:
        error = ((end - exact).norm() / exact.norm()).item()
        return {"scheme": scheme, "step": system.lag / steps, "error": error}

    records = []
    for steps in (5, 10, 20, 40, 80, 160, 320):
        increments, deviations = path(system, dw, steps)
        chord = torch.zeros_like(deviations)
        records += [
            record("this solver", steps, system.integrate(x, increments, deviations)),
            record("without deviations", steps, system.integrate(x, increments, chord)),
        ]
    for steps in (80, 320, 1280, 5120):
        sums = dw.unflatten(0, (steps, -1)).sum(1)
        plain = EulerMaruyama(system, system.lag / steps, torch.float64)
        records.append(record("Euler-Maruyama", steps, plain.run(x, sums)))
    table = pd.DataFrame(records)
    rows = []
    for scheme, first, last in (("this solver", 10, 160), ("Euler-Maruyama", 1280, 5120)):
        own = table[table.scheme == scheme].set_index("step").error
        a, b = own[system.lag / first], own[system.lag / last]
        order = math.log(a / b) / math.log(last / first)
        rows.append((f"order along paths, {scheme}", "–", f"{order:.2f}"))
        rows += [
            (f"… error after a lag of {system.lag:.2f}, step {h:.4f}", "–", f"{e:.1e}")
            for h, e in own.items()
            if math.isfinite(e)
        ]
    return rows, table


def statistics(lags: int = 60, n: int = 16) -> tuple[list[tuple[str, str, str]], dict[str, Tensor]]:
    """(d) Statistics over `lags` × 0.05 on 48² along the same paths: this solver, published step.

    Returns:
        Rows of the table, and mean energy spectra by scheme.
    """
    system = NavierStokes(size=48, lag=0.05, burn_in=400)
    fine = round(system.lag / PUBLISHED)
    plain = EulerMaruyama(system, PUBLISHED, torch.float64)
    schemes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "published": plain.run,
        **{
            f"step {system.lag / s:g}": lambda x, dw, s=s: system.integrate(x, *path(system, dw, s))
            for s in (1, 2, 10)
        },
    }
    begin = climate(system, n)
    ky, kx = wavenumbers(system.size)
    states = dict.fromkeys(schemes, begin)
    sums = {name: [0.0, 0.0, torch.zeros(system.size // 2)] for name in schemes}
    for k in range(lags):
        dw = wiener(fine, n, PUBLISHED, seed=100 + k)
        for name, scheme in schemes.items():
            x = states[name] = scheme(states[name], dw)
            laplacian = torch.fft.irfft2(-(ky**2 + kx**2) * torch.fft.rfft2(x))
            sums[name][0] += x.square().mean().item() / lags
            sums[name][1] -= 2 * system.viscosity * (x * laplacian).mean().item() / lags
            energy = torch.from_numpy(energy_spectrum(x.numpy()))
            sums[name][2] = sums[name][2] + energy.mean(0) / lags
    rows = []
    square, dissipation, spectrum = sums["published"]
    text = f"{square**0.5:.4f}, {dissipation:.4f}"
    rows.append((f"48², {n} flows, {lags * system.lag:g} units: rms, dissipation", "–", text))
    for name, (a, b, c) in list(sums.items())[1:]:
        kept = slice((system.size - 1) // 3)
        shells = ((c - spectrum).abs() / spectrum)[kept].mean().item()
        apart = ((states[name] - states["published"]).norm() / states["published"].norm()).item()
        text = (
            f"{(a / square) ** 0.5 - 1:+.1e}, {b / dissipation - 1:+.1e}, {shells:.1e}, {apart:.1e}"
        )
        title = f"… this solver, {name}, relative: rms, dissipation, spectrum, state at the end"
        rows.append((title, "–", text))
    return rows, {name: value[2] for name, value in sums.items()}


def plot(table: pd.DataFrame, spectra: dict[str, Tensor], file: Path) -> None:
    """Errors along paths by step, and mean energy spectra."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for scheme, rows in table.groupby("scheme", sort=False):
        left.loglog(rows.step, rows.error, "o-", label=scheme)
    left.axvline(PUBLISHED, color="0.6", linestyle=":", label="published step")
    left.set(xlabel="step", ylabel="relative error along paths", title="64², ν = 4e-3, lag 0.51")
    left.set_ylim(bottom=1e-8)
    left.legend(frameon=False, loc="lower right")
    for (name, energy), style in zip(spectra.items(), ("k-", "C0o", "C1+", "C2x"), strict=True):
        k = torch.arange(1, 17)
        right.loglog(k, energy[:16], style, label=name, fillstyle="none")
    right.set(xlabel="wavenumber", ylabel="kinetic energy", title="48², ν = 4e-3, the same paths")
    right.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Measure everything and write the table."""
    matplotlib.use("agg")
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    errors, table = convergence()
    same, spectra = statistics()
    lines = ["| what | must | measured |", "|---|---|---|"]
    steps = (transforms(size, n) for size, n in ((64, 16), (128, 4), (256, 1)))
    for measured in (*steps, throughput(), cost(), errors, same):
        lines += ["| " + " | ".join(cells) + " |" for cells in measured]
    text = "\n".join(lines) + "\n"
    (OUT / "navier_stokes.md").write_text(text)
    table.to_csv(OUT / "navier_stokes.csv", index=False)
    plot(table, spectra, OUT / "navier_stokes.png")
    print(text)


if __name__ == "__main__":
    main()
