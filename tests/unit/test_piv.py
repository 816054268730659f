"""Velocities that a camera measures, and the figures of particle image velocimetry."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.image import AxesImage
from matplotlib.quiver import Quiver
from matplotlib.text import Text

from priorflow import store
from priorflow.components import BadInput, build
from priorflow.operators.base import LinearOperator
from priorflow.operators.velocity import RandomParticles
from priorflow.rng import Streams
from priorflow.stages.figures import against, camera_error, fields, real_pair, tracers
from priorflow.stages.figures.base import Results
from priorflow.stages.observe import at, observe
from priorflow.systems import velocimetry
from priorflow.systems.camera import Camera
from priorflow.systems.tracking import TrackedParticles, at_places

SIZE, CASES, MEMBERS = 32, 3, 2
ROWS = [5, 2, 8]  # trajectories
GIVEN = {"class": "priorflow.operators.velocity:RandomParticles", "size": SIZE, "noise_std": 0.1}
OPERATORS = {
    "few": {**GIVEN, "density": 0.05},
    "many": {**GIVEN, "density": 0.2},
    "camera": {
        "class": "priorflow.systems.tracking:TrackedParticles",
        "size": SIZE,
        "density": 0.1,
        "pixels": 64,
        "interval": 0.2,
    },
}
ERRORS = {"curl": 0.6, "enkf": 0.1, "flowdas_bridge": 0.2}


def vortices(count: int) -> torch.Tensor:
    """Waves of rms 1 with wavenumbers up to 2, shape (count, 1, size, size)."""
    y, x = torch.meshgrid(*[torch.arange(SIZE) * (2 * math.pi / SIZE)] * 2, indexing="ij")
    phase = torch.arange(count).view(-1, 1, 1, 1)
    return (2 * x + phase).sin() + (y - 2 * phase).cos()


def test_a_camera_measures_the_velocity_at_particles():
    """To a hundredth of the speeds, of which the rms is 0.8, but for particles that overlap."""
    operator = TrackedParticles(SIZE, density=0.02, interval=0.1).at(ROWS)
    x = vortices(CASES)
    y, pictures, found = operator.measure(x[:, 0], Streams(0, cases=ROWS))
    assert y.shape == (CASES, 2, 20)
    assert pictures.shape == (CASES, 2, 128, 128)
    off = (y - operator(x)[:, 0]).abs()
    assert off.median() < 0.01
    assert found.float().mean() > 0.9
    assert off.square().mean().sqrt() < 0.1


def test_a_velocity_that_was_lost_is_interpolated():
    """Linearly, so that a linear flow is recovered."""
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 64, (200, 2))
    slope = np.array([[0.02, -0.01], [0.03, 0.01]])
    vectors = velocimetry.Vectors(positions, positions @ slope, np.arange(200) > 20)
    lost = np.array([32.0, 30.0])
    distance = np.linalg.norm(positions - lost, axis=1)
    vectors.valid[distance < 3] = False
    places = np.stack((positions[distance.argsort()[-1]], lost))
    vectors.valid[distance.argsort()[-1]] = True
    moved, found = at_places(places, vectors)
    assert found.tolist() == [True, False]
    assert moved == pytest.approx(places @ slope)


def test_solvers_are_told_the_operator_of_the_particles():
    camera = TrackedParticles(SIZE, density=0.1, noise_std=0.03, seed=1)
    operator = camera.at(ROWS)
    given = RandomParticles(SIZE, density=0.1, noise_std=0.03, seed=1).at(ROWS)
    assert isinstance(operator, LinearOperator)
    assert (operator.places == given.places).all()
    x = vortices(CASES)
    torch.testing.assert_close(operator(x), given(x))
    assert camera.camera.periodic


def test_pictures_of_a_case_do_not_depend_on_the_others():
    x = vortices(CASES)
    camera = TrackedParticles(SIZE, density=0.1, pixels=64, interval=0.2, pixel_noise=5.0)
    together = camera.at(ROWS).observe(x, Streams(0, cases=ROWS))
    alone = camera.at(ROWS[1:2]).observe(x[1:2], Streams(0, cases=ROWS[1:2]))
    torch.testing.assert_close(together[1:2], alone)
    assert together.shape == (CASES, 1, 2, 102)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"reach": 0.0}, "reach"),
        ({"density": 1e-9}, "density"),
        ({"interval": -1.0}, "interval"),
        ({"noise_std": -1.0}, "noise_std"),
    ],
)
def test_bad_settings_are_refused(settings, named):
    with pytest.raises(ValueError, match=rf"^{named}: value.*, allowed: "):
        TrackedParticles(SIZE, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of three tasks, from the stage that observes."""
    root = tmp_path_factory.mktemp("results")
    truth = vortices(10).expand(-1, 3, -1, -1).numpy().astype("float32")
    data = xr.Dataset(
        {"state": (("trajectory", "time", "y", "x"), truth)},
        coords={"trajectory": np.arange(10)},
        attrs={"dt": 0.5, "mean": 0.0, "std": 2.4, "natural_units": "1"},
    )
    store.write(data.isel(trajectory=ROWS), root / "test.zarr")
    system = {"class": "priorflow.systems.navier_stokes:NavierStokes", "size": SIZE}
    rng, table = np.random.default_rng(0), []
    for task, operator in OPERATORS.items():
        seen = observe(
            root / "test.zarr",
            operator=operator,
            system=system,
            cases=CASES,
            steps=1,
            start=1,
            context=2,
            names=("piv", task, "test"),
            seed=0,
            base=root,
        )
        store.write(seen, root / f"observations/{task}.zarr")
        for method, size in ERRORS.items():
            noise = size * rng.normal(size=(CASES, MEMBERS, 1, SIZE, SIZE))
            state = (seen.truth.values[:, None] + noise).astype("float32")
            dims = ("case", "member", "time", "y", "x")
            posterior = xr.Dataset({"state": (dims, state)}, coords={"case": np.arange(CASES)})
            store.write(posterior, root / f"posterior/{task}/{method}.zarr")
            for case in range(CASES):
                error = size * (1 + case) / (1 + list(OPERATORS).index(task))
                table += [(task, method, case, "crps", error)]
                table += [(task, method, case, "rmse_mean", 2 * error)]
    columns = ["task", "method", "case", "metric", "value"]
    pd.DataFrame(table, columns=columns).to_parquet(root / "metrics.parquet")
    return root


@pytest.fixture(scope="module")
def results(folder, results_of):
    def make(tasks, methods=tuple(ERRORS)) -> Results:
        return results_of(
            folder,
            tasks,
            methods,
            floor="curl",
            limit="enkf",
            labels={"camera": "0.1 particles per pixel, seen by a camera"},
            operators={task: OPERATORS[task] for task in tasks},
        )

    return make


FIGURES = {
    "tracers": lambda r: tracers.draw(r(("camera",), ("curl", "flowdas_bridge"))),
    "against": lambda r: against.draw(r(("many", "few")), "density", "particles per pixel"),
    "fields": lambda r: fields.draw(r(("few", "camera"))),
    "camera_error": lambda r: camera_error.draw(None, (0.0, 0.5), (0.03, 0.1), 96, cases=2),
}


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_legible_and_nothing_is_cut_off(drawn, name, legible):
    legible(drawn[name])


def test_a_camera_is_observed_by_its_pictures_and_particles_by_their_noise(folder):
    seen = store.read(folder / "observations/camera.zarr").load()
    operator = at(build(OPERATORS["camera"], folder), seen.trajectory.values.tolist())
    truth = torch.from_numpy(seen.truth.values)
    expected = operator.observe(truth, Streams(0, "piv", "camera", "test", "observe", cases=ROWS))
    assert np.array_equal(seen.y.values, expected.numpy())
    drawn = store.read(folder / "observations/many.zarr").load()
    operator = at(build(OPERATORS["many"], folder), ROWS)
    off = drawn.y.values - operator(truth).numpy()
    assert off.std() == pytest.approx(0.1, rel=0.15)


def test_arrows_are_the_velocities_of_the_case(results, drawn):
    quivers = drawn["fields"].findobj(Quiver)
    assert len(quivers) == 2
    for quiver, task in zip(quivers, ("few", "camera"), strict=True):
        row = fields.picked(results(("few", "camera")), None, 0)[0][task]
        seen = results((task,)).observations(task).isel(case=row.case)
        assert np.array_equal(np.stack((quiver.U, quiver.V)), seen.y.values[0])
        places = RandomParticles(SIZE, density=OPERATORS[task]["density"]).at([ROWS[row.case]])
        xy = places.places[0].flip(-1).numpy() * SIZE / (2 * math.pi)
        assert np.allclose(quiver.XY, xy)


def test_from_pictures_to_fields(results, drawn):
    made = results(("camera",), ("curl", "flowdas_bridge"))
    row = fields.picked(made, None, 0)[0]["camera"]
    operator = at(build(OPERATORS["camera"], made.folder), [ROWS[row.case]])
    y, pictures, _ = operator.measure(torch.from_numpy(row.truth[-1:]), Streams(0))
    assert np.allclose(y[0].numpy(), row.y[-1], atol=1e-6)  # without noise they are the same
    shown = [np.asarray(i.get_array()) for i in drawn["tracers"].findobj(AxesImage)]
    picture, part, truth = shown[:3]
    assert np.array_equal(picture, pictures[0, 0].numpy())
    assert np.array_equal(part, tracers.overlay(*pictures[0, :, :21, :21].numpy()))
    assert np.array_equal(truth, row.truth[-1])
    assert np.array_equal(shown[3], row.states["curl"][-1])
    assert np.array_equal(shown[5], row.states["flowdas_bridge"][-1])
    assert np.allclose([shown[4], shown[6]], [shown[3] - truth, shown[5] - truth])
    enlarged, whole = drawn["tracers"].findobj(Quiver)
    assert np.array_equal(np.stack((whole.U, whole.V)), row.y[-1])
    # arrows go from where a particle is in the first picture to where it is in the second
    before, _ = operator.camera.exposures(
        lambda p: operator_motion(row.truth[-1], p), operator.places * operator.camera.scale
    )
    near = np.linalg.norm(before[0].flip(-1).numpy()[:, None] - enlarged.XY, axis=-1).min(0)
    assert np.median(near) < 0.1


def operator_motion(state: np.ndarray, places: torch.Tensor) -> torch.Tensor:
    """Velocities (y, x) at places (1, m, 2) of a state."""
    from priorflow.operators.velocity import Velocities

    return Velocities(places[0], SIZE)(torch.from_numpy(state)).flip(0).mT.double().unsqueeze(0)


def test_tracers_need_a_camera(results):
    with pytest.raises(BadInput, match="few is not"):
        tracers.draw(results(("few",), ("curl",)))


def test_ink_of_two_exposures():
    first, second = np.array([[0.0, 255.0, 255.0]]), np.array([[0.0, 0.0, 255.0]])
    expected = [[[1, 1, 1], [1, 0, 0], [0, 0, 0]]]
    assert tracers.overlay(first, second).tolist() == expected


def test_errors_lie_at_the_density_of_their_task(drawn):
    line = drawn["against"].axes[0].lines[0]
    assert line.get_xdata().tolist() == [0.05, 0.2]
    assert line.get_ydata() == pytest.approx([0.6 * 2, 0.6 * 2 / 2])
    assert drawn["against"].axes[1].get_ylabel() == "RMSE of mean (standardised)"


def test_errors_of_a_camera_that_errs_by_a_tenth(monkeypatch):
    """Every vector is a tenth of a pixel too long along the shift, and (0.8, -0.6) / 10 aside."""

    def long(first, second):
        true = 0.5 * np.array(camera_error.DIRECTION)
        off = 0.1 * np.array(camera_error.DIRECTION) + 0.1 * np.array([0.8, -0.6])
        return velocimetry.Vectors(np.zeros((4, 2)), np.tile(true + off, (4, 1)), np.ones(4) > 0)

    monkeypatch.setitem(camera_error.METHODS, "tracking", long)
    bias, rms, _ = camera_error.measured(Camera(pixels=32, interval=1.0), 0.5, "tracking", 2)
    assert bias == pytest.approx([0.1, 0.1])
    assert rms == pytest.approx([0.1, 0.1])


def test_tracking_and_correlation_are_within_a_tenth_of_a_pixel():
    """The target on shifts that are the same everywhere, at the published density."""
    camera = Camera(pixels=128, interval=1.0, noise_std=5.0)
    _, tracked, _ = camera_error.measured(camera, 0.4, "tracking", 2)
    assert (tracked < 0.1).all()
    pytest.importorskip("openpiv")
    _, correlated, _ = camera_error.measured(camera, 0.4, "correlation", 2)
    assert (correlated < 0.05).all()


def test_a_real_pair_has_an_arrow_for_every_valid_window(legible):
    pytest.importorskip("openpiv")
    figure = real_pair.draw(None)
    legible(figure)
    first, _, vectors = velocimetry.example()
    valid = vectors.displacements[vectors.valid]
    whole, rest = figure.findobj(Quiver)
    assert np.allclose(np.stack((whole.V, whole.U), -1), valid)
    assert np.allclose(np.stack((rest.V, rest.U), -1), valid - valid.mean(0))
    assert np.array_equal(figure.findobj(AxesImage)[0].get_array(), first)


@pytest.mark.parametrize("module", [real_pair, camera_error])
def test_without_the_library_a_figure_says_what_is_missing(module, monkeypatch, legible):
    def absent(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'openpiv'")

    monkeypatch.setattr(real_pair, "example", absent)
    monkeypatch.setattr(camera_error, "correlate", absent)
    settings = {} if module is real_pair else {"shifts": (0.5,), "densities": (0.03,), "cases": 2}
    figure = module.draw(None, **settings)
    legible(figure)
    assert any("pip install priorflow[piv]" in t.get_text() for t in figure.findobj(Text))
