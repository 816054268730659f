"""Models that are built on others: their specification, their training and their weights."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from priorflow.components import BadInput, build
from priorflow.config import load_experiment
from priorflow.fingerprint import digest
from priorflow.stages.chunk import chunk
from priorflow.stages.cost import Cost
from priorflow.stages.models import load_prior
from priorflow.stages.simulate import simulate
from priorflow.stages.train import train
from priorflow.systems.base import Standardised

ROOT = Path(__file__).parents[2]
SYSTEM = {"class": "priorflow.systems.gaussian_mixture:digits", "rank": 4, "size": 8}
TRAINING = {"steps": 4, "batch": 8, "interval": 2, "validation": 16, "warmup": 2}
AUTOENCODER = {
    "class": "priorflow.priors.networks.autoencoder:Autoencoder", "latent": 2, "channels": [16],
}  # fmt: skip
UNET = {
    "class": "priorflow.priors.networks.unet:PeriodicUNet", "channels": [16], "blocks": 1,
    "patch": 1, "periodic": False,
}  # fmt: skip
MODELS = {
    "codec": {
        "prior": {"class": "priorflow.priors.codec:LearnedCodec"},
        "network": AUTOENCODER, "training": TRAINING, "context": 0,
    },
    "latent": {
        "prior": {"class": "priorflow.priors.latent:LatentDenoiser"}, "parent": "codec",
        "network": UNET, "training": TRAINING, "context": 0,
    },
    "denoiser": {
        "prior": {"class": "priorflow.priors.denoiser:LearnedDenoiser"},
        "network": UNET, "training": TRAINING, "context": 0,
    },
    "consistency": {
        "prior": {"class": "priorflow.priors.consistency:LearnedConsistency"},
        "parent": "denoiser", "network": UNET, "training": TRAINING, "context": 0,
    },
}  # fmt: skip


def experiment(tmp_path, models=MODELS):
    content = {
        "system": SYSTEM,
        "data": {"trajectories": 200, "steps": 1, "split": [0.5, 0.3, 0.2]},
        "tasks": {
            "blur": {
                "operator": {
                    "class": "priorflow.operators.blur:GaussianBlur", "size": 3, "std": 1.0,
                    "noise_std": 0.05,
                },
                "initial": "none", "cases": 4, "members": 1,
            }
        },
        "models": models,
        "floor": "pinv",
        "methods": {
            "pinv": {
                "solver": {"class": "priorflow.solvers.restoration.pinv:PseudoInverse"},
                "model": next(iter(models)),
            }
        },
        "metrics": {"psnr": {"class": "priorflow.metrics.images:psnr"}},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_experiment(str(tmp_path / "mine.yaml"), "laptop")


def test_a_specification_holds_that_of_the_parent(tmp_path):
    e = experiment(tmp_path)
    spec = e.model_spec("latent", 0)
    codec = e.model_spec("codec", 0)
    assert spec["parent"] == {k: codec[k] for k in ("prior", "network", "training", "context")}
    assert "parent" not in codec
    assert e.model_classes("latent") == [
        MODELS[m][part]["class"] for m in ("latent", "codec") for part in ("prior", "network")
    ]
    other = MODELS | {"codec": MODELS["codec"] | {"training": TRAINING | {"steps": 5}}}
    changed = experiment(tmp_path, other)
    assert digest(changed.model_spec("latent", 0)) != digest(spec)
    assert changed.model_spec("denoiser", 0) == e.model_spec("denoiser", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": {"parent": "x"}}, r"models\.latent\.parent: 'x' is unknown; there are: codec"),
        ({"codec": {"parent": "latent"}}, r"models\.codec\.parent: goes round in a circle"),
        ({"codec": {"network": None}}, r"models\.latent\.parent: codec has no network"),
    ],
)
def test_impossible_parents_are_refused(tmp_path, change, message):
    models = {name: model | change.get(name, {}) for name, model in MODELS.items()}
    with pytest.raises(BadInput, match=message):
        experiment(tmp_path, models)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All four models, each after a few steps."""
    root = tmp_path_factory.mktemp("trained")
    e = experiment(root)
    for split in ("train", "valid"):
        raw = root / f"raw_{split}.zarr"
        rows = e.data.rows(split)
        simulate(SYSTEM, rows, raw, steps=1, burn_in=0, names=(), seed=0, base=ROOT)
        chunk([raw], root / f"{split}.zarr", system=SYSTEM, chunks={}, base=ROOT)
    for name in MODELS:
        parent = MODELS[name].get("parent")
        train(
            root / "train.zarr",
            root / "valid.zarr",
            root / name,
            e.model_spec(name, 0) | {"training": e.models[name].training.model_dump()},
            parent=parent and root / parent / "weights.safetensors",
            name=name,
            device="cpu",
            digest="d",
            code="c",
            base=ROOT,
        )
    return root, e


def loaded(trained, name):
    root, e = trained
    system = Standardised(build(SYSTEM, ROOT))
    weights = root / name / "weights.safetensors"
    return load_prior(e.model_section(name), system, weights, torch.device("cpu"), ROOT)


def test_the_weights_of_a_latent_prior_hold_those_of_its_codec(trained):
    root, _ = trained
    codec = load_file(root / "codec/weights.safetensors")
    latent = load_file(root / "latent/weights.safetensors")
    assert all(torch.equal(latent[f"codec.{name}"], value) for name, value in codec.items())
    x = torch.randn(3, 2, 1, 8, 8)
    torch.testing.assert_close(
        loaded(trained, "latent").codec.encode(x), loaded(trained, "codec").encode(x)
    )


def test_a_consistency_map_begins_at_its_parent(trained):
    """After four steps of little warm-up it is close, but not the same."""
    f, denoiser = loaded(trained, "consistency"), loaded(trained, "denoiser")
    assert not hasattr(f, "parent")
    torch.testing.assert_close(f.std, denoiser.std)
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(f(x, 0.5), denoiser(x, 0.5), atol=0.1, rtol=0)
    assert not torch.equal(f(x, 0.5), denoiser(x, 0.5))


def test_another_parents_weights_are_refused(trained, tmp_path):
    root, e = trained
    with pytest.raises(BadInput, match="these weights belong to another network"):
        train(
            root / "train.zarr",
            root / "valid.zarr",
            tmp_path / "latent",
            e.model_spec("latent", 0) | {"training": e.models["latent"].training.model_dump()},
            parent=root / "denoiser/weights.safetensors",
            name="latent",
            device="cpu",
            digest="d",
            code="c",
            base=ROOT,
        )


def test_the_codec_is_counted_with_its_gradients(trained):
    cost, prior = Cost(), loaded(trained, "latent")
    cost.network(prior.network)
    counted = cost.latent(prior)
    x = torch.randn(2, 3, 1, 8, 8)
    z = counted.codec.encode(x)
    assert counted.shape == prior.shape
    torch.testing.assert_close(counted(z, 0.5), prior(z, 0.5))
    torch.testing.assert_close(counted.codec.decode(z), prior.codec.decode(z))
    z.requires_grad_()
    counted.codec.decode(z).sum().backward()
    assert dict(cost.counts) == {"encoder_evals": 6, "decoder_evals": 18, "nfe": 12}
