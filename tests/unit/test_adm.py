"""Public ADM networks as denoisers: azula's architecture, small and at random weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from azula.noise import VESchedule
from azula.plugins import adm
from azula.plugins.utils import load_cards
from PIL import Image

from priorflow.components import BadInput, build
from priorflow.config import load_experiment
from priorflow.priors.adm import ADM
from priorflow.priors.denoiser import Denoiser
from priorflow.stages.chunk import chunk
from priorflow.stages.cost import Cost
from priorflow.stages.infer import sample
from priorflow.stages.observe import observe
from priorflow.stages.simulate import simulate

SHAPE = (3, 32, 32)
SMALL = {"image_size": 32, "channel_mult": [1, 2], "num_channels": 32, "num_head_channels": 16}
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
SIGMA = np.sqrt((1 - ALPHA_BAR) / ALPHA_BAR)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Random weights of a small network; those that azula starts at zero, too."""
    torch.manual_seed(0)
    config = load_cards(adm)["ffhq_256x256"].config
    backbone = adm.make_model(**{**config, **SMALL}).backbone
    for parameter in backbone.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("adm") / "weights.pt"
    torch.save(backbone.state_dict(), path)
    return str(path)


@pytest.fixture
def prior(file):
    return ADM(SHAPE, weights=file, architecture=SMALL)


def pictures(*lead):
    return torch.randn(*lead, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("t", [0, 27, 396, 930, 999])
def test_it_is_tweedies_formula_at_the_steps_of_ddpm(prior, t):
    """x̂0 = (x_t - √(1 - ᾱ_t) ε(x_t, t)) / √ᾱ_t; and that of azula, which rounds σ up to a step."""
    x_t = pictures(2)
    noise = prior.network.backbone(x_t, torch.full((2,), t))[:, :3]
    expected = (x_t - math.sqrt(1 - ALPHA_BAR[t]) * noise) / math.sqrt(ALPHA_BAR[t])
    x, sigma = x_t / math.sqrt(ALPHA_BAR[t]), SIGMA[t] * (1 - 1e-5)
    close = {"rtol": 1e-4, "atol": 1e-4 * float(expected.abs().max())}
    torch.testing.assert_close(prior(x, SIGMA[t]), expected, **close)
    theirs = adm.AblatedDenoiser(
        prior.network.backbone, VESchedule(1, math.e), learn_var=True
    )  # σ at time ln σ is σ
    mean = theirs(x, torch.tensor(math.log(sigma))).mean
    torch.testing.assert_close(prior(x, sigma), mean, **close)


def test_every_sigma_has_the_nearest_step(prior):
    assert isinstance(prior, Denoiser)
    np.testing.assert_allclose(prior.levels, SIGMA, rtol=5e-3)
    steps = torch.arange(1000)
    assert torch.equal(prior.level(torch.tensor(SIGMA).float()), steps)
    for share in (0.3, 0.7):  # azula's levels are in single precision
        between = torch.tensor(SIGMA[:-1] ** (1 - share) * SIGMA[1:] ** share)
        assert torch.equal(prior.level(between), steps[:-1] + round(share))
    assert prior.level(torch.tensor([1e-6, 1e6])).tolist() == [0, 999]


def test_without_noise_the_image_stays(prior):
    """D(x, σ) = x - σ ε(x, 0) + O(σ³)."""
    x = pictures(2).double()
    noise = prior.network(x.float(), torch.zeros(2).long())
    for sigma in (1e-3, 1e-6):
        torch.testing.assert_close((x - prior(x, sigma)) / sigma, noise.double(), rtol=0, atol=1e-4)


def test_the_learned_variance_is_left(prior):
    x = pictures(2)
    expected = prior(x, 0.5)
    last = prior.network.backbone.out[-1]
    last.weight[3:], last.bias[3:] = torch.nan, torch.nan
    assert prior.network.backbone(x, torch.zeros(2)).shape == (2, 6, 32, 32)
    assert torch.equal(prior(x, 0.5), expected)


def test_a_batch_gives_what_single_images_give(prior):
    x, sigma = pictures(2, 2), torch.tensor([[0.01, 0.5], [3.0, 80.0]])
    together = prior(x, sigma)
    assert together.shape == x.shape
    for i, j in np.ndindex(2, 2):
        alone = prior(x[i, j], float(sigma[i, j]))
        torch.testing.assert_close(
            together[i, j], alone, rtol=0, atol=1e-5 * float(alone.abs().max())
        )


def test_half_precision_is_that_of_the_network_alone(prior, file):
    half = ADM(SHAPE, weights=file, architecture=SMALL, precision="bfloat16")
    x = pictures(2)
    assert half(x, 0.5).dtype == torch.float32
    error = (half(x, 0.5) - prior(x, 0.5)).std() / 0.5
    assert 0 < error < 0.1 * prior.network(x, torch.zeros(2)).std()
    assert (half(x, 1e-6) - x).abs().max() < 1e-4  # and x is not rounded


def test_a_pass_counts_as_one_image(prior):
    cost = Cost()
    cost.network(prior.network)
    x = pictures(2, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(prior(x, 0.5).sum(), x)
    assert gradient.isfinite().all()
    assert (cost.counts["nfe"], cost.counts["nfe_backward"]) == (6, 6)
    assert not any(p.requires_grad for p in prior.parameters())


def test_what_cannot_be_had_is_said_in_one_line(file, tmp_path, monkeypatch):
    def offline(name):
        raise ConnectionError("\n  no route to host:\n\tmore of it")

    monkeypatch.setattr(adm, "load_model", offline)
    text = r"ffhq_256x256 cannot be had \(no route to host\); download https://drive\S+ and name"
    spec = {"class": "priorflow.priors.adm:ADM"}
    with pytest.raises(BadInput, match=text) as raised:
        build(spec, Path(), shape=(3, 256, 256), context=0, system=None)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"weights: value .*nothing.pt"):
        ADM(SHAPE, weights=str(tmp_path / "nothing.pt"))
    with pytest.raises(ValueError, match=r"weights: value .*weights.pt"):
        ADM(SHAPE, weights=file, architecture={**SMALL, "num_channels": 64})
    for setting, shape in (
        ({"name": "imagenet_256x256_cond"}, SHAPE),
        ({"precision": "int8"}, SHAPE),
        ({"architecture": SMALL}, SHAPE),
        ({"weights": file, "architecture": SMALL}, (1, 32, 32)),
        ({"weights": file, "architecture": SMALL}, (3, 32, 31)),
    ):
        name = "shape" if "weights" in setting else next(iter(setting))
        with pytest.raises(ValueError, match=f"^{name}: "):
            ADM(shape, **setting)


def test_the_weights_of_the_plug_in_are_used(file, monkeypatch):
    config = load_cards(adm)["imagenet_256x256"].config
    loaded = adm.make_model(**{**config, **SMALL, "num_res_blocks": 1})
    loaded.backbone.load_state_dict(torch.load(file, weights_only=True), strict=False)
    monkeypatch.setattr(adm, "load_model", {"imagenet_256x256": loaded}.get)
    assert ADM(SHAPE, "imagenet_256x256").network.backbone is loaded.backbone


def test_a_folder_of_pictures_is_restored(file, tmp_path):
    """Simulate, chunk, observe, infer, with colour pictures that are not square."""
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(256, size=(48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    system = {
        "class": "priorflow.systems.images:ImageFolder",
        "folder": str(tmp_path),
        "size": 32,
    }
    operator = {
        "class": "priorflow.operators.motion:MotionBlur",
        "size": 9,
        "noise_std": 0.05,
    }
    common = {"names": ("images",), "seed": 0, "base": Path()}
    raw, test = tmp_path / "raw.zarr", tmp_path / "test.zarr"
    simulate(system, range(2, 4), raw, steps=1, burn_in=0, **common)
    chunk([raw], test, system=system, chunks={}, base=Path())
    seen = observe(
        test,
        operator=operator,
        system=system,
        cases=2,
        steps=1,
        start=0,
        context=0,
        past=False,
        **common,
    )
    model = {
        "prior": {
            "class": "priorflow.priors.adm:ADM",
            "weights": file,
            "architecture": SMALL,
        },
        "network": None,
        "context": 0,
    }
    run = {
        "experiment": "images",
        "task": "motion",
        "method": "any",
        "model": "denoiser",
        "operator": operator,
        "system": system,
        "initial": "none",
        "members": 2,
        "block": 2,
        "seed": 0,
    }
    solvers = {
        "dps:DPS": ({"steps": 3}, (3, 3)),
        "dcdp:DCDP": ({"iterations": 2, "descent": 3, "ddim_steps": 4}, (4 + 2, 0)),
    }
    for name, (settings, counts) in solvers.items():
        solver = {"class": f"priorflow.solvers.restoration.{name}", **settings}
        posterior = sample(
            seen,
            {**run, "solver": solver},
            model,
            None,
            cases=range(2),
            device="cpu",
            base=Path(),
        )
        assert posterior.state.shape == (2, 2, *SHAPE)
        assert np.isfinite(posterior.state).all()
        found = [posterior[kind].values for kind in ("nfe", "nfe_backward")]
        np.testing.assert_array_equal(found, np.repeat(counts, 2).reshape(2, 2))


def test_the_paper_scale_is_as_published():
    """All that it names can be built, for 256² in colour, and nothing is to be trained."""
    root = Path(__file__).parents[2] / "workflow/experiments"
    e = load_experiment("images", "paper", root)
    assert not e.models["denoiser"].learned
    assert e.models["denoiser"].prior["name"] in load_cards(adm)
    assert len(e.data.rows("test")) == 100
    shape = build(e.system, e.base).shape
    x = torch.zeros(1, 1, *shape)
    sides = {}
    for name, task in e.tasks.items():
        operator = build(task.operator, e.base, shape=shape)
        operator = operator.at([0]) if hasattr(operator, "at") else operator
        assert operator.noise_std == (0 if name.endswith("_noise0") else 0.05)
        sides[name.partition("_noise")[0]] = operator(x).shape[3:]
    assert sides.pop("super_resolution") == (64, 64)
    assert sides.pop("phase_retrieval") == (384, 384)
    assert sides.pop("inpainting") == (256**2 - 100**2,)
    assert set(sides.values()) == {(256, 256)}
    for method in e.methods:
        for task in e.tasks_of(method):
            build(e.run(method, task, 0).solver, e.base)
    # η = 2 lr / M of the released learning rates
    dcdp = {t: e.run("dcdp_tweedie", t, 0).solver["rate"] for t in e.tasks}
    assert dcdp["motion_deblur_noise0"] == pytest.approx(2e5 / x.numel(), rel=1e-3)
    assert dcdp["super_resolution_noise0"] == pytest.approx(2e3 / (3 * 64**2), rel=2e-3)
    assert dcdp["inpainting_noise0"] == pytest.approx(2e3 / x.numel(), rel=3e-3)
    assert dcdp["phase_retrieval_noise005"] == pytest.approx(1e3 / (3 * 384**2), rel=1e-3)
