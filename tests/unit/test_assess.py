"""Assessments of denoisers against closed forms, the figures of them, and the shipped denoiser."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorflow import store
from priorflow.components import BadInput
from priorflow.config import load_experiment
from priorflow.priors.mixture import ExactConsistency, ExactDenoiser
from priorflow.rng import Streams
from priorflow.stages.assess import LEVELS, SIGMA_MAX, Wiener, assess, flow, square_error
from priorflow.stages.assess import draws as draws_of
from priorflow.stages.chunk import chunk
from priorflow.stages.figures import codec, denoising, samples
from priorflow.stages.figures.base import Results
from priorflow.stages.models import build_prior, restore
from priorflow.stages.simulate import simulate
from priorflow.systems.base import Standardised
from priorflow.systems.gaussian_mixture import GaussianMixture, digits, fit
from priorflow.systems.images import FashionMNIST

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "workflow/pretrained/images/denoiser"
SHAPE, SIZE = (1, 3, 4), 12
SYSTEM = {"class": "priorflow.systems.gaussian_mixture:digits", "rank": 4, "size": 8}
MODEL = {
    "prior": {"class": "priorflow.priors.mixture:ExactDenoiser"},
    "network": None,
    "context": 0,
}
LATENT = MODEL | {"prior": {"class": "priorflow.priors.exact_latent:ExactLatent", "rank": 16}}


def mixture(components):
    g = torch.Generator().manual_seed(components)
    return GaussianMixture(
        torch.ones(components) / components,
        torch.randn(components, *SHAPE, generator=g),
        0.3 * torch.randn(components, 4, *SHAPE, generator=g),
        residual_std=0.1,
    )


def draws(system, name, n):
    return system.initial(1, Streams(0, name, cases=range(n)))[:, 0]


def errors(denoiser, images):
    return square_error(denoiser, images, Streams(0, "noise", cases=range(len(images))))


# ------------------------------------------------------------------------------------ denoising


def test_the_curve_of_one_gaussian_is_that_of_the_wiener_filter():
    """Of one with all eigenvectors of the same pictures, which sklearn finds."""
    images = draws(mixture(3), "images", 200)
    exact = ExactDenoiser(fit(images, torch.zeros(len(images)), rank=SIZE - 1))
    a, b = (errors(d, images[:20]) for d in (exact, Wiener(images)))
    assert a.shape == (20, len(LEVELS))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-9)


def test_the_error_of_the_wiener_filter_is_that_of_linear_estimation():
    """tr[C σ² (C + σ² I)⁻¹] / components on average, whatever the law is."""
    system, n = mixture(3), 4000
    found = errors(Wiener(draws(system, "train", 4 * n)), draws(system, "test", n)).double()
    means, factors = (
        x.double().flatten(start) for x, start in ((system.means, 1), (system.factors, 2))
    )
    within = (factors.mT @ factors).mean(0) + system.residual_std**2 * torch.eye(SIZE)
    variances = torch.linalg.eigvalsh(torch.cov(means.T, correction=0) + within)
    noise = LEVELS.double().square().unsqueeze(1)
    expected = (variances * noise / (variances + noise)).mean(1)
    deviation = (found.mean(0) - expected) / (found.std(0) / n**0.5)
    assert deviation.abs().max() < 4


def test_the_exact_denoiser_of_a_mixture_beats_the_wiener_filter_at_every_level():
    system = mixture(3)
    wiener, images = Wiener(draws(system, "train", 4000)), draws(system, "test", 2000)
    exact, linear = (errors(d, images).mean(0) for d in (ExactDenoiser(system), wiener))
    assert (exact < linear).all()
    assert (exact < LEVELS**2).all()
    assert (exact / linear).min() < 0.5  # not by chance


# -------------------------------------------------------------------------------------- drawing


def test_the_flow_of_one_gaussian_ends_where_it_does_exactly():
    """And nearer with more steps, by the order 2 of Heun's method."""
    system = mixture(1)
    noise = torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    exact = ExactConsistency(system, epsilon=0.0)(SIGMA_MAX * noise, SIGMA_MAX)
    few, many = (
        (flow(ExactDenoiser(system), noise, steps) - exact).abs().max() for steps in (18, 72)
    )
    assert many < 0.01
    assert many < few / 12


def test_draws_of_one_gaussian_have_its_mean_and_covariance():
    """The flow of one Gaussian is affine: the images of unit vectors give the law of draws."""
    system = mixture(1)
    unit = torch.eye(SIZE, dtype=torch.float64).view(SIZE, *SHAPE)
    start = torch.cat([torch.zeros_like(unit[:1]), unit])
    centre, *columns = flow(ExactDenoiser(system), start, 72).flatten(1)
    a = torch.stack(columns) - centre
    factors = system.factors[0].double().flatten(1)
    covariance = factors.T @ factors + system.residual_std**2 * torch.eye(SIZE)
    torch.testing.assert_close(centre, system.means[0].double().flatten(), rtol=0, atol=0.012)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), a.T, upper=False)
    torch.testing.assert_close(white @ white.T, torch.eye(SIZE).double(), rtol=0, atol=0.01)


def test_a_draw_takes_two_calls_a_step_but_one_for_the_last():
    calls = []

    def zero(x, sigma):
        calls.append(float(sigma))
        return torch.zeros_like(x)

    flow(zero, torch.zeros(2, *SHAPE), 18)
    assert len(calls) == 35
    assert calls[0] == pytest.approx(SIGMA_MAX)
    assert [calls[-1], min(calls)] == pytest.approx([0.002, 0.002])


# ------------------------------------------------------------------------------------ the stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The assessment of an exact denoiser, with the pictures that simulate and chunk made."""
    root = tmp_path_factory.mktemp("results")
    for split, rows in {"train": range(300), "test": range(300, 340)}.items():
        raw = root / f"{split}.zarr"
        simulate(SYSTEM, rows, raw, steps=1, burn_in=0, names=("t", "simulate"), seed=0, base=ROOT)
        chunk([raw], root / f"data/{split}.zarr", system=SYSTEM, chunks={}, base=ROOT)
    run(root, root / "models/denoiser/assessment.zarr")
    run(root, root / "models/latent/assessment.zarr", model=LATENT)
    return root


def run(root, output, model=MODEL, **change):
    settings = {
        "system": SYSTEM, "rows": range(300), "experiment": "t", "name": "denoiser", "seed": 0,
        "settings": {"images": 30, "samples": 8, "steps": 6}, "device": "cpu", "base": ROOT,
    } | change  # fmt: skip
    assess(root / "data/test.zarr", output, model, None, **settings)
    return store.read(output).load()


def test_the_stage_knows_the_training_pictures_and_judges_on_test_pictures(folder):
    found = store.read(folder / "models/denoiser/assessment.zarr").load()
    train, test = (
        torch.from_numpy(store.read(folder / f"data/{s}.zarr").state[:, 0].values)
        for s in ("train", "test")
    )
    np.testing.assert_array_equal(found.pictures, test[:8])
    np.testing.assert_array_equal(found.image, range(300, 330))
    exact = ExactDenoiser(digits(rank=4, size=8))
    for kind, denoiser in {"learned": exact, "wiener": Wiener(train)}.items():
        rng = Streams(0, "t", "assess", "denoiser", "denoise", cases=range(300, 330))
        expected = square_error(denoiser, test[:30], rng)
        np.testing.assert_allclose(found[kind], expected, rtol=1e-4)
    assert found.samples.shape == (1, 8, 1, 8, 8)
    assert found.calls.values.tolist() == [11]
    assert float(found.samples.std("sample").min()) > 0.01  # every draw has its own noise


def test_pictures_too_large_for_a_covariance_are_judged_without_the_wiener_filter(
    folder, monkeypatch
):
    monkeypatch.setattr("priorflow.stages.assess.LARGEST", SIZE - 1)
    found = run(folder, folder / "models/large/assessment.zarr")
    assert "wiener" not in found
    assert found.learned.shape == (30, len(LEVELS))
    (error,) = denoising.draw(Results(folder, [], [], ["large"], {}, [], {"labels": {}})).axes
    assert len(error.lines) == 2  # the noisy picture and the model


def test_a_latent_prior_is_judged_by_what_its_codec_leaves(folder):
    found = store.read(folder / "models/latent/assessment.zarr").load()
    images = torch.from_numpy(store.read(folder / "data/test.zarr").state[:30, 0].values)
    basis = build_prior(LATENT, Standardised(digits(rank=4, size=8)), ROOT).codec.basis.float()
    law = digits(rank=4, size=8)
    mean = (law.weights @ law.means.flatten(1)).float()
    left = (images.flatten(1) - mean) @ (torch.eye(64) - basis @ basis.T)
    np.testing.assert_allclose(found.reconstruction, left.square().mean(1), rtol=1e-3)
    error = (found.reconstructions - found.pictures) ** 2
    np.testing.assert_allclose(error.mean(error.dims[1:]), found.reconstruction[:8], rtol=1e-3)
    assert found.attrs["numbers"] == 16
    assert found.samples.shape == (1, 8, 1, 8, 8)


def test_a_consistency_map_draws_the_law_in_one_call_and_in_two():
    system = mixture(1)
    found = draws_of(ExactConsistency(system), Streams(0, "d", cases=range(8000)), 5)
    assert list(found) == [1, 2]
    covariance = system.factors[0].flatten(1).T @ system.factors[0].flatten(1)
    covariance += system.residual_std**2 * torch.eye(SIZE)
    for x in found.values():
        x = x.flatten(1)
        assert (x.mean(0) - system.means[0].flatten()).abs().max() < 0.04
        assert (x.T.cov() - covariance).abs().max() < 0.05
    assert not torch.allclose(found[1], found[2])


def test_an_assessment_repeats_itself_and_its_seed_counts(folder, tmp_path):
    first = store.read(folder / "models/denoiser/assessment.zarr").load()
    assert run(folder, tmp_path / "again.zarr").identical(first)
    assert not run(folder, tmp_path / "other.zarr", seed=1).learned.equals(first.learned)


def test_an_archive_gives_its_training_pictures_to_the_wiener_filter(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(40):
        pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"pictures/{i}.png")
    system = {
        "class": "priorflow.systems.images:ImageFolder",
        "folder": str(tmp_path / "pictures"), "size": 8, "channels": 1,
    }  # fmt: skip
    data = {}
    for split, rows in {"train": range(30), "test": range(30, 40)}.items():
        raw = tmp_path / f"{split}.zarr"
        simulate(system, rows, raw, steps=1, burn_in=0, names=(), seed=0, base=ROOT)
        chunk([raw], tmp_path / f"data/{split}.zarr", system=system, chunks={}, base=ROOT)
        data[split] = torch.from_numpy(
            store.read(tmp_path / f"data/{split}.zarr").state[:, 0].values
        )
    (tmp_path / "mine.py").write_text(
        "class Shrink:\n"
        "    def __init__(self, system, shape, context):\n"
        "        self.shape = shape\n\n"
        "    def __call__(self, x, sigma):\n"
        "        return x / 2\n"
    )
    model = {**MODEL, "prior": {"class": "./mine.py:Shrink"}}
    settings = {"images": 100, "samples": 2, "steps": 3}
    assess(
        tmp_path / "data/test.zarr", tmp_path / "x.zarr", model, None,
        system=system, rows=range(30), settings=settings, experiment="t", name="m", seed=0,
        device="cpu", base=tmp_path,
    )  # fmt: skip
    found = store.read(tmp_path / "x.zarr").load()
    noise = Streams(0, "t", "assess", "m", "denoise", cases=range(30, 40))
    expected = square_error(Wiener(data["train"]), data["test"], noise)
    np.testing.assert_allclose(found.wiener, expected, rtol=1e-4)
    assert found.sizes["image"] == 10  # as many as there are


def test_assessments_are_of_pictures(tmp_path):
    text = (ROOT / "workflow/experiments/double_well.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("needs: [models]", "needs: [assessment]"))
    with pytest.raises(BadInput, match=r"training\.needs: assessment is of denoisers of pictures"):
        load_experiment(str(tmp_path / "mine.yaml"), "laptop")


# ---------------------------------------------------------------------------------- the figures

FIGURES = {
    "denoising": lambda results: denoising.draw(replace(results, models=["denoiser"])),
    "samples": samples.draw,
    "codec": lambda results: codec.draw(replace(results, models=["latent"])),
}


@pytest.fixture(scope="module")
def results(folder) -> Results:
    return Results(folder, [], [], ["denoiser", "latent"], {}, [], {"labels": {}})


def test_the_curve_shows_the_root_mean_square_and_the_gain(drawn, folder):
    found = store.read(folder / "models/denoiser/assessment.zarr").load()
    error, better = drawn["denoising"].axes
    noisy, wiener, learned = (line.get_ydata() for line in error.lines)
    np.testing.assert_allclose(noisy, LEVELS)
    np.testing.assert_allclose(wiener, found.wiener.mean("image") ** 0.5, rtol=1e-6)
    np.testing.assert_allclose(learned, found.learned.mean("image") ** 0.5, rtol=1e-6)
    expected = 20 * np.log10(wiener / learned)
    np.testing.assert_allclose(better.lines[1].get_ydata(), expected, rtol=1e-6)
    assert error.get_title() == "30 test pictures"
    value, low, high = denoising.gain(found.wiener, found.learned)
    assert (low < value).all()
    assert (value < high).all()


def test_the_samples_stand_beside_as_many_pictures(drawn, folder):
    found = store.read(folder / "models/denoiser/assessment.zarr").load()
    left, middle, right = drawn["samples"].axes
    assert [axis.get_title() for axis in (left, middle, right)] == [
        "denoiser, 11 network calls each",
        "latent, 11 network calls each",
        "8 test pictures",
    ]
    for axis, pictures in ((left, found.samples[0]), (right, found.pictures)):
        page = samples.mosaic(pictures.values, 4)
        np.testing.assert_array_equal(axis.images[0].get_array(), page)


def test_the_codec_says_what_it_leaves(drawn, folder):
    found = store.read(folder / "models/latent/assessment.zarr").load()
    before, after = drawn["codec"].axes
    psnr = float((10 * np.log10(4 / found.reconstruction)).mean())
    assert before.get_title() == "test pictures of 64 numbers"
    assert f"16 numbers and decoded: {psnr:.1f} dB [" in after.get_title().replace("\n", " ")
    page = samples.mosaic(found.reconstructions.values, 4)
    np.testing.assert_array_equal(after.images[0].get_array(), page)


def test_a_mosaic_is_filled_row_by_row():
    pictures = np.linspace(-2, 1, 5)[:, None, None, None] * np.ones((1, 3, 2, 2))
    page = samples.mosaic(pictures, 3)
    assert page.shape == (5, 8, 3)
    assert page[0, 0, 0] == 0  # below the scale
    assert (page[:, 2] == 1).all()  # the gap
    np.testing.assert_allclose(page[3, [0, 3], 0], [(0.25 + 1) / 2, 1])
    assert (page[3:, 6:] == 1).all()  # no picture


# -------------------------------------------------------------------------- the shipped denoiser


@cache
def pictures():
    """Training pictures, and test pictures that no training has seen."""
    archive = FashionMNIST()
    try:
        return archive.read(range(20_000)), archive.read(range(60_000, 60_128))
    except BadInput as error:
        pytest.skip(str(error))


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the denoiser of pictures is not shipped yet")
def test_the_shipped_denoiser_beats_the_wiener_filter_at_every_level():
    train, test = pictures()
    model = json.loads((SHIPPED / "config.json").read_text())["model"]
    prior = build_prior(model, Standardised(FashionMNIST()), ROOT)
    prior = restore(prior, SHIPPED / "weights.safetensors")
    with torch.no_grad():
        learned, linear = (errors(d, test).mean(0) for d in (prior, Wiener(train)))
    assert (learned < linear).all(), (learned / linear).sqrt()
    assert (learned < linear / 1.5)[1:5].all()  # 1.8 dB at σ from 0.04 to 0.3
