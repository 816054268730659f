"""Nowcasts of fields whose motion is known."""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from priorflow.priors.base import Known, StateSpace
from priorflow.rng import Streams
from priorflow.solvers.assimilation.extrapolation import Extrapolation, motion
from priorflow.solvers.assimilation.persistence import Persistence
from priorflow.solvers.assimilation.steps import STEPS
from priorflow.solvers.base import Diverged

SIZE, LEADS = 64, 6
VELOCITY = (1.5, -1.0)  # pixels per step, along x and y


@dataclass(frozen=True)
class Shape:
    """All that is asked of a transition."""

    shape: tuple[int, ...] = (SIZE, SIZE)


def blobs(time: float) -> np.ndarray:
    """Smooth hills in uniform motion, (SIZE, SIZE), between 0 and 1."""
    y, x = np.mgrid[:SIZE, :SIZE]
    hills = [(22, 38, 4), (34, 30, 6), (28, 48, 3), (42, 44, 4), (20, 26, 3)]
    return sum(
        np.exp(-((x - u - VELOCITY[0] * time) ** 2 + (y - v - VELOCITY[1] * time) ** 2) / s**2 / 2)
        for u, v, s in hills
    ).clip(0, 1)


PAST = np.stack([blobs(t) for t in range(-3, 1)])
FUTURE = np.stack([blobs(t) for t in range(1, LEADS + 1)])


def rough(seed: int = 0) -> np.ndarray:
    """Rain-like: a thresholded field with a power-law spectrum in uniform motion, 4 steps."""
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal((SIZE, SIZE)))
    ky, kx = np.fft.fftfreq(SIZE, 1 / SIZE)[:, None], np.fft.rfftfreq(SIZE, 1 / SIZE)
    k = np.hypot(ky, kx)
    k[0, 0] = np.inf
    shifted = [
        np.fft.irfft2(
            noise * k**-1.8 * np.exp(-2j * np.pi / SIZE * (kx * 1.5 * t - ky * t)), s=(SIZE, SIZE)
        )
        for t in range(-3, 1)
    ]
    return (np.stack(shifted) / np.std(shifted)).clip(0)


def nowcast(solver, histories, members=1, leads=LEADS, seed=0, cases=None):
    """States (cases, members, leads, height, width) from arrays (cases, time, height, width)."""
    histories = torch.as_tensor(np.asarray(histories), dtype=torch.float32)
    rng = Streams(seed, cases=range(len(histories)) if cases is None else cases)
    prior = StateSpace(Known(histories), Shape())
    y = torch.full((len(histories), leads, 3), torch.nan)  # not looked at
    return solver(y, None, prior, rng, members=members).samples


def error(x, expected) -> float:
    return float((torch.as_tensor(x) - torch.as_tensor(expected)).square().mean().sqrt())


@pytest.fixture(scope="module")
def ensemble() -> torch.Tensor:
    return nowcast(STEPS(threshold=0.1, levels=4), [rough()], members=16)[0]


def test_persistence_repeats_the_last_state():
    x = nowcast(Persistence(), [PAST, 2 * PAST], members=3)
    assert x.shape == (2, 3, LEADS, SIZE, SIZE)
    last = torch.tensor(np.stack([PAST[-1], 2 * PAST[-1]]), dtype=torch.float32)
    assert torch.equal(x, last[:, None, None].expand_as(x))


def test_motion_is_found():
    """Where the hills are; beyond them it is an extrapolation."""
    u, v = motion(PAST)[:, 20:50, 20:50]
    assert u.mean() == pytest.approx(VELOCITY[0], abs=0.15)
    assert v.mean() == pytest.approx(VELOCITY[1], abs=0.15)


def test_extrapolation_follows_a_uniform_motion():
    """A tenth of the error of persistence, at every lead, for equal members."""
    x = nowcast(Extrapolation(), [PAST], members=2)[0]
    assert torch.equal(x[0], x[1])
    for k in range(LEADS):
        assert error(x[0, k], FUTURE[k]) < 0.1 * error(PAST[-1], FUTURE[k]) + 0.01


def test_extrapolation_does_not_depend_on_units():
    x, other = nowcast(Extrapolation(), [rough()]), nowcast(Extrapolation(), [20 * rough() - 5])
    torch.testing.assert_close(other, 20 * x - 5, rtol=0, atol=0.1)


def test_what_comes_from_outside_is_dry_unless_told():
    """The motion is to the right: what is on the left edge in the end came from beyond it."""
    for solver, value in ((Extrapolation(), 1), (Extrapolation(outside=9.0), 9)):
        assert (nowcast(solver, [rough() + 1])[0, 0, -1, :, 0] == value).all()


@pytest.mark.parametrize("solver", [Extrapolation(), STEPS(threshold=0.1, levels=4)], ids=repr)
def test_dry_cases_stay_dry(solver):
    x = nowcast(solver, [np.full((4, SIZE, SIZE), -5.0)], members=2)
    assert (x == -5).all()


def test_steps_scatters_about_the_extrapolation(ensemble):
    """Nearer to it than persistence is, at all leads; by the first lead, closely."""
    centre = nowcast(Extrapolation(), [rough()])[0, 0]
    mean, last = ensemble.mean(0), torch.tensor(rough()[-1])
    inside = (..., slice(8, -8), slice(12, -8))
    for k in range(LEADS):
        assert error(mean[k][inside], centre[k][inside]) < error(last[inside], centre[k][inside])
    assert np.corrcoef(mean[0][inside].ravel(), centre[0][inside].ravel())[0, 1] > 0.9


def test_steps_spreads_with_the_lead(ensemble):
    spread = ensemble.var(0).mean((-2, -1)).sqrt()
    assert spread[0] > 0
    assert (spread.diff() > 0).all()


def test_steps_keeps_the_distribution_of_values(ensemble):
    """Values of a member are those of the last state, but for what left the image."""
    wet = (ensemble[:, 0] > 0.1).float().mean()
    assert wet == pytest.approx(float((rough()[-1] > 0.1).mean()), abs=0.05)


def test_steps_draws_from_the_stream_of_the_case():
    """Alone or in a batch, with more members or fewer; cases and seeds differ."""
    solver = STEPS(threshold=0.1, levels=4)
    both = nowcast(solver, [rough(), rough()], members=2, leads=2, cases=[4, 7])
    alone = nowcast(solver, [rough()], members=1, leads=2, cases=[7])
    assert torch.equal(both[1, :1], alone[0])
    assert not torch.allclose(both[0], both[1])
    assert not torch.equal(alone, nowcast(solver, [rough()], leads=2, seed=1, cases=[7]))


def test_steps_is_quiet_and_leaves_the_global_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        nowcast(STEPS(threshold=0.1, levels=4), [rough()], leads=1)
    assert out.getvalue() == ""
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize(
    "solver", [Persistence(), Extrapolation(), STEPS(threshold=0.1)], ids=lambda s: type(s).__name__
)
def test_a_history_that_is_not_finite_is_named(solver):
    bad = PAST.copy()
    bad[-1, 3, 3] = np.nan
    with pytest.raises(Diverged, match=r"case\(s\) \[1\]"):
        nowcast(solver, [PAST, bad])


def test_too_short_a_history_is_refused():
    with pytest.raises(ValueError, match="context: value 1, allowed: at least 2"):
        nowcast(Extrapolation(), [PAST[-1:]])
    with pytest.raises(ValueError, match="context: value 2, allowed: at least 3"):
        nowcast(STEPS(threshold=0.1), [PAST[-2:]])


def test_bad_settings_are_refused():
    for settings in ({"order": 3}, {"levels": 2}, {"minutes": 0}, {"kilometres": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: value"):
            STEPS(threshold=0.1, **settings)
