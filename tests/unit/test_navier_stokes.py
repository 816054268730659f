"""The Navier-Stokes solver against exact solutions, budgets and another solver."""

import math
from dataclasses import replace

import pytest
import torch

from priorflow.metrics.spectrum import energy_spectrum
from priorflow.operators.spectral import dealiasing_mask, resample, velocity
from priorflow.rng import Streams
from priorflow.systems.base import Standardised, System
from priorflow.systems.navier_stokes import NavierStokes

SMALL = NavierStokes(size=32, viscosity=0.005, time_step=0.05, rms=2.0, burn_in=0)

# ξ = Σ W_j e_j, written out once more: the function and the wavenumbers k_x, k_y of each W_j.
FORCE = [
    (torch.sin, 6, 0),
    (torch.cos, 7, 0),
    (torch.sin, 5, 5),
    (torch.cos, 8, 8),
    (torch.cos, 6, 0),
    (torch.sin, 7, 0),
    (torch.cos, 5, 5),
    (torch.sin, 8, 8),
]


def grid(size):
    axis = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    return axis.unsqueeze(1), axis.unsqueeze(0)


def wave(j, size):
    function, kx, ky = FORCE[j]
    y, x = grid(size)
    return function(kx * x + ky * y).expand(size, size)


def damping(system):
    square = torch.tensor([kx**2 + ky**2 for _, kx, ky in FORCE], dtype=torch.float64)
    return system.viscosity * square + system.drag


def variance(system, h):
    rate = damping(system)
    return (1 - torch.exp(-2 * rate * h)) / (2 * rate)


def flows(n, system=SMALL, seed=0):
    """Random smooth vorticity fields, shape (n, size, size), float64."""
    return system.initial(n, Streams(seed, "flow"))[0].double()


def standard(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def quiet(steps, n):
    return torch.zeros(steps, n, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("size", 24),
        ("size", 33),
        ("viscosity", -1.0),
        ("drag", math.nan),
        ("forcing", -0.1),
        ("lag", 0.0),
        ("time_step", -1.0),
        ("rms", 0.0),
        ("burn_in", -1),
        ("subsample", 0),
    ],
)
def test_bad_settings_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting}: value {value}, allowed"):
        NavierStokes(**{setting: value})


def test_is_a_system_without_a_density():
    assert isinstance(SMALL, System)
    x = SMALL.initial(2, Streams(0, "x", cases=range(3)))
    assert x.shape == (3, 2, 32, 32)
    with pytest.raises(NotImplementedError, match="no density"):
        SMALL.log_transition(x, x)


def test_standardised_is_the_same_system():
    standard = Standardised(SMALL)
    a, b = Streams(1, "s", cases=range(2)), Streams(1, "s", cases=range(2))
    x, z = SMALL.initial(2, a), standard.initial(2, b)
    torch.testing.assert_close(z, x / SMALL.rms)
    torch.testing.assert_close(standard.decode(standard.step(z, b)), SMALL.step(x, a))


@pytest.mark.parametrize(("lag", "step", "steps"), [(0.5, 0.025, 20), (0.5, 0.3, 2), (0.1, 1, 1)])
def test_number_of_steps(lag, step, steps):
    assert NavierStokes(lag=lag, time_step=step).steps == steps


def test_advection_is_that_of_two_modes():
    """With ψ = sin 3x + cos 2y the tendency is known in closed form; a wrong sign doubles it."""
    system = NavierStokes(size=32, viscosity=0, drag=0, lag=1e-6)
    y, x = grid(32)
    # ω = 9 sin 3x + 4 cos 2y, u = -2 sin 2y, v = -3 cos 3x.
    vorticity = 9 * torch.sin(3 * x) + 4 * torch.cos(2 * y)
    advected = -2 * torch.sin(2 * y) * 27 * torch.cos(3 * x) - 3 * torch.cos(3 * x) * -8 * (
        torch.sin(2 * y)
    )
    moved = system.integrate(vorticity.unsqueeze(0), quiet(1, 1), quiet(1, 1))[0]
    torch.testing.assert_close((moved - vorticity) / 1e-6, -advected, atol=1e-3, rtol=1e-5)


def test_advection_of_general_flows():
    """-v·∇ω by derivatives in physical space on a grid that holds all products."""
    system = NavierStokes(size=64, viscosity=0, drag=0, lag=1e-6)
    vorticity = resample(resample(flows(3), 20), 64)
    u, v = velocity(vorticity).unbind(-3)
    k = torch.fft.fftfreq(64, 1 / 64, dtype=torch.float64) * 1j
    w_x = torch.fft.ifft(k * torch.fft.fft(vorticity)).real
    w_y = torch.fft.ifft(k.unsqueeze(1) * torch.fft.fft(vorticity, dim=-2), dim=-2).real
    moved = system.integrate(vorticity, quiet(1, 3), quiet(1, 3))
    torch.testing.assert_close((moved - vorticity) / 1e-6, -u * w_x - v * w_y, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(("m", "n"), [(1, 0), (3, -4)])
def test_one_mode_decays_exactly(m, n):
    """For an eigenmode of the Laplacian advection is zero, even with a coarse step."""
    system = NavierStokes(size=32, viscosity=0.02, drag=0.1, lag=2.0)
    y, x = grid(32)
    mode = torch.cos(m * x + n * y).expand(1, 32, 32)
    later = system.integrate(mode, quiet(4, 1), quiet(4, 1))
    rate = 0.02 * (m**2 + n**2) + 0.1
    torch.testing.assert_close(later, mode * math.exp(-2 * rate))


@pytest.mark.parametrize("j", range(8))
def test_one_forced_mode_is_an_ornstein_uhlenbeck_process(j):
    """From rest, with W_j alone: the increments, decayed, times the j-th function, whatever H."""
    system = NavierStokes(size=32, viscosity=0.02, forcing=1.5, lag=1.0)
    increments, deviations = quiet(3, 1), quiet(3, 1)
    increments[:, 0, j] = torch.tensor([0.5, -2.0, 1.0])
    deviations[:, 0, j] = torch.tensor([1.0, 0.3, -0.7])
    x = system.integrate(torch.zeros(1, 32, 32).double(), increments, deviations)[0]
    decay = torch.exp(-damping(system)[j] * torch.tensor([2 / 3, 1 / 3, 0]))
    amplitude = 1.5 * variance(system, 1 / 3)[j].sqrt() * (decay * increments[:, 0, j]).sum()
    torch.testing.assert_close(x, amplitude * wave(j, 32))


def test_step_has_the_law_of_the_force():
    """From rest, for a short time: eight independent amplitudes with the right variances."""
    system = NavierStokes(size=32, forcing=2.0, lag=0.05, time_step=0.05)
    rest = torch.zeros(2, 2000, 32, 32)
    x = system.step(rest, Streams(3, "law", cases=range(2))).double().flatten(0, 1)
    waves = torch.stack([wave(j, 32) for j in range(8)])
    amplitudes = torch.einsum("nyx,jyx->nj", x, waves) / (32**2 / 2)
    expected = torch.diag(4 * variance(system, 0.05))
    torch.testing.assert_close(amplitudes.T.cov(), expected, atol=0.02, rtol=0.1)
    assert not torch.equal(x[0], x[1])


def coarser(system, h, increments, deviations):
    """The same Wiener paths in steps twice as long, from unscaled increments and deviations.

    ∫ exp(-λ (2h - s)) dW = exp(-λ h) O₁ + O₂; the mean deviation from the chord follows from the
    mean of W over each half. It takes W for O, which differ by λ h.
    """
    (o1, o2), (d1, d2) = ((z[0::2], z[1::2]) for z in (increments, deviations))
    mean = ((d1 + o1 / 2) + o1 + (d2 + o2 / 2)) / 2
    return torch.exp(-damping(system) * h) * o1 + o2, mean - (o1 + o2) / 2


def test_strong_convergence():
    """Along fixed paths the error falls as h^1.5; without the deviations it would as h."""
    lag = 0.4
    system = replace(SMALL, lag=lag)
    steps, n = 256, 2
    h = lag / steps
    x = flows(n, system)
    o = standard(steps, n, 8) * variance(system, h).sqrt()
    d = standard(steps, n, 8, seed=1) * math.sqrt(h / 12)
    ends = {}
    while steps >= 8:
        scaled = o / variance(system, h).sqrt(), d / math.sqrt(h / 12)
        ends[steps] = system.integrate(x, *scaled)
        if steps == 16:
            chords = system.integrate(x, scaled[0], torch.zeros_like(d))
        o, d = coarser(system, h, o, d)
        steps, h = steps // 2, 2 * h
    exact = ends[256]
    error = {k: ((end - exact).norm() / exact.norm()).item() for k, end in ends.items()}
    assert math.log2(error[8] / error[64]) / 3 > 1.3
    assert error[16] < 1e-3
    assert (chords - exact).norm() / exact.norm() > 5 * error[16]


def test_deterministic_convergence_is_of_second_order():
    system = replace(SMALL, forcing=0, lag=0.8)
    x = flows(2, system)
    ends = [system.integrate(x, quiet(n, 2), quiet(n, 2)) for n in (8, 16, 32, 512)]
    error = [(end - ends[-1]).norm() for end in ends[:-1]]
    assert error[0] / error[1] > 3.8
    assert error[1] / error[2] > 3.8


def test_enstrophy_budget():
    """d<ω²>/dt = 8 ε²/2 - 2α<ω²> - 2ν<|∇ω|²>, whatever the state."""
    system = replace(SMALL, lag=0.25)
    rng = Streams(0, "budget", cases=range(8))
    x = system.initial(32, rng)

    def sink(x):
        return (
            2 * system.drag * x.square().mean() - 2 * system.viscosity * (x * laplacian(x)).mean()
        )

    begin, sinks = x.square().mean(), [sink(x)]
    for _ in range(16):
        x = system.step(x, rng)
        sinks.append(sink(x))
    lost = 0.25 * (sum(sinks) - (sinks[0] + sinks[-1]) / 2)
    assert (x.square().mean() - begin + lost).item() == pytest.approx(4 * 4, rel=0.06)


def laplacian(x):
    size = x.shape[-1]
    k = torch.fft.fftfreq(size, 1 / size)
    square = k[:, None] ** 2 + k[: size // 2 + 1] ** 2
    return torch.fft.irfft2(-square * torch.fft.rfft2(x), s=x.shape[-2:])


def test_nothing_beyond_the_band():
    rng = Streams(0, "band")
    x = SMALL.step(torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0)), rng)
    spectrum = torch.fft.rfft2(x).abs()
    mask = dealiasing_mask(32)
    assert spectrum[..., ~mask].max() < 1e-6 * spectrum.max()
    assert spectrum[..., mask].min() > 1e-6 * spectrum.max()


def test_agrees_with_torch_cfd():
    """A decaying flow that begins at |k| ≤ 6, as the two bands differ at their edge.

    torch-cfd keeps x in the first axis.
    """
    grids = pytest.importorskip("torch_cfd.grids", reason="needs the package torch-cfd")
    spectral = pytest.importorskip("torch_cfd.spectral")
    system = NavierStokes(forcing=0, rms=5.0, lag=0.5, burn_in=0)
    x = resample(resample(flows(2, system), 14), 64)
    other = spectral.NavierStokes2DSpectral(
        viscosity=4e-3,
        grid=grids.Grid((64, 64), domain=((0, 2 * math.pi), (0, 2 * math.pi))),
        drag=0.1,
        step_fn=spectral.RK4CrankNicolsonStepper(),
    ).double()
    expected = torch.fft.rfft2(x.mT)
    for _ in range(50):
        expected = other(expected, dt=0.01)[0]
    expected = torch.fft.irfft2(expected).mT
    ours = system.integrate(x, quiet(system.steps, 2), quiet(system.steps, 2))
    assert (ours - expected).norm() < 1e-4 * expected.norm()
    assert (ours - x).norm() > 0.3 * x.norm()


def test_a_batch_of_cases_equals_the_cases_alone():
    system = NavierStokes(lag=0.05, burn_in=0)
    x = system.initial(1, Streams(0, "x", cases=range(3))).repeat(1, 7, 1, 1)
    together = system.step(x[[0, 2, 1]], Streams(1, "n", cases=[0, 2, 1]))
    for row, case in enumerate([0, 2, 1]):
        alone = system.step(x[[case]], Streams(1, "n", cases=[case]))
        torch.testing.assert_close(together[[row]], alone)


def test_members_are_exchangeable():
    x, increments, deviations = flows(5), standard(3, 5, 8), standard(3, 5, 8, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    out = SMALL.integrate(x, increments, deviations)
    permuted = SMALL.integrate(x[order], increments[:, order], deviations[:, order])
    torch.testing.assert_close(permuted, out[order])


def test_initial_fields_have_the_scale_asked_for():
    system = NavierStokes(size=32, rms=2.0, burn_in=0)
    x = system.initial(64, Streams(0, "x", cases=range(4)))
    assert x.square().mean().sqrt().item() == pytest.approx(2, rel=0.03)
    assert energy_spectrum(x.numpy()).mean((0, 1)).argmax().item() + 1 in (5, 6, 7)
    spun = NavierStokes(size=32, rms=2.0, burn_in=2).initial(2, Streams(0, "x", cases=range(4)))
    rng = Streams(0, "x", cases=range(4))
    torch.testing.assert_close(spun, system.step(system.step(system.initial(2, rng), rng), rng))


def test_subsample_runs_on_the_finer_grid():
    coarse = NavierStokes(size=32, subsample=2, viscosity=4e-3, lag=0.1)
    fine = NavierStokes(size=64, viscosity=4e-3, lag=0.1)
    x, increments = flows(2), standard(4, 2, 8)
    out = coarse.integrate(x, increments, increments)
    expected = fine.integrate(resample(x, 64), increments, increments)
    torch.testing.assert_close(out, resample(expected, 32))
    beyond = (expected[..., ::2, ::2] - out).norm() / out.norm()
    assert 0 < beyond < 0.05
    assert coarse.shape == (32, 32)
    assert coarse.positions.shape == (32**2, 2)


def test_positions_are_those_of_flattened_states():
    y, x = grid(32)
    field = torch.sin(x) + 2 * torch.cos(3 * y)
    py, px = SMALL.positions.double().T
    torch.testing.assert_close(
        field.flatten(), torch.sin(px) + 2 * torch.cos(3 * py), atol=1e-5, rtol=0
    )
    assert SMALL.positions.max() < SMALL.period
