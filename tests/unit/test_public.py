"""Public checkpoints: small networks at random weights, in folders that diffusers has written."""

import json
import math
import pickle
from pathlib import Path

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorflow.components import BadInput, check
from priorflow.priors.codec import Codec
from priorflow.priors.consistency import ConsistencyMap
from priorflow.priors.latent import LatentPrior
from priorflow.priors.public import LatentDiffusion, PublicCodec, PublicConsistency
from priorflow.stages.cost import Cost
from priorflow.stages.models import build_prior

SHAPE, LATENT = (3, 16, 16), (3, 8, 8)
SMALL = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
UNET = {
    **SMALL,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
SHIFTED = {  # as in the networks of the consistency models
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 4,
}
AUTOENCODER = {
    **SMALL,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "scaling_factor": 0.7,
}
COMPVIS = {
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}
ALPHA_BAR = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2)
SIGMA = np.sqrt((1 - ALPHA_BAR) / ALPHA_BAR)


def vqvae(**settings):
    model = diffusers.VQModel(**AUTOENCODER, latent_channels=3, num_vq_embeddings=64, **settings)
    torch.nn.init.normal_(model.quantize.embedding.weight)
    return model


@pytest.fixture(scope="module")
def latent_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ldm")
    unet, scheduler = diffusers.UNet2DModel(**UNET), diffusers.DDIMScheduler(**COMPVIS)
    diffusers.LDMPipeline(vqvae(), unet, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def consistency_folder(tmp_path_factory):
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("cm")
    unet = diffusers.UNet2DModel(**SHIFTED, sample_size=SHAPE[1])
    scheduler = diffusers.CMStochasticIterativeScheduler()
    diffusers.ConsistencyModelPipeline(unet, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(latent_folder, tmp_path):
    """A folder of latent diffusion to be changed."""
    for file in latent_folder.rglob("*.*"):
        target = tmp_path / "copy" / file.relative_to(latent_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return tmp_path / "copy"


@pytest.fixture
def prior(latent_folder):
    return LatentDiffusion(SHAPE, str(latent_folder))


@pytest.fixture
def consistency(consistency_folder):
    return PublicConsistency(SHAPE, str(consistency_folder))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def edit(file, **changes):
    """Set keys of a JSON file; None removes one."""
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def closely(actual, expected, tolerance=1e-4):
    bound = tolerance * float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound)


def test_it_predicts_what_a_step_of_ddim_does(prior):
    """At every one of the 1000 levels."""
    assert isinstance(prior, LatentPrior)
    assert (prior.shape, prior.network.shape) == (LATENT, LATENT)
    np.testing.assert_allclose(prior.levels, SIGMA, rtol=1e-4)
    scheduler = diffusers.DDIMScheduler(**COMPVIS)
    scheduler.set_timesteps(1000)
    z_t = draw(1000, *LATENT)
    with torch.no_grad():
        noise = prior.network.unet(z_t, torch.arange(1000)).sample
    steps = [scheduler.step(noise[t], t, z_t[t]) for t in range(1000)]
    alpha = torch.tensor(ALPHA_BAR).float().sqrt().view(-1, 1, 1, 1)
    found = prior(z_t / alpha, torch.tensor(SIGMA).float())
    for t, step in enumerate(steps):
        closely(found[t], step.pred_original_sample)


def test_sampling_is_that_of_the_pipeline(latent_folder, prior):
    """Deterministic DDIM in our form, and the decoder, give the picture of diffusers' pipeline."""
    pipeline = diffusers.LDMPipeline.from_pretrained(latent_folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.register_to_config(sample_size=LATENT[1])
    expected = pipeline(
        2, torch.Generator().manual_seed(3), num_inference_steps=4, output_type="numpy"
    ).images
    z = draw(2, *LATENT, seed=3)
    for t in (750, 500, 250, 0):
        a, s = math.sqrt(ALPHA_BAR[t]), SIGMA[t]
        z0 = prior(z / a, s)
        noise = (z / a - z0) / s
        b = ALPHA_BAR[t - 250] if t else 1.0  # set_alpha_to_one
        z = math.sqrt(b) * z0 + math.sqrt(1 - b) * noise
    picture = (prior.codec.decode(z) / 2 + 0.5).clamp(0, 1)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(picture.permute(0, 2, 3, 1), expected, atol=1e-3)


def test_latents_are_not_quantised_and_images_are_of_the_codebook(prior):
    codec, x = prior.codec, draw(2, *SHAPE)
    assert isinstance(codec, Codec)
    assert (codec.shape, codec.latent_shape, codec.scale) == (SHAPE, LATENT, 0.7)
    z = codec.encode(x)
    closely(z, 0.7 * codec.network.encode(x).latents)

    z = 0.7 * draw(2, *LATENT, seed=5)
    book = codec.network.quantize.embedding.weight
    distance = (z.movedim(1, -1).unsqueeze(-2) / 0.7 - book).square().sum(-1)
    codes = book[distance.argmin(-1)].movedim(-1, 1)
    decoded = codec.network.decode(codes, force_not_quantize=True).sample
    closely(codec.decode(z), decoded)
    raw = codec.network.decode(z / 0.7, force_not_quantize=True).sample
    assert (codec.decode(z) - raw).abs().max() > 0.01 * raw.abs().max()


def test_the_gradient_passes_the_codebook_by(prior):
    z, codec = draw(1, *LATENT, seed=5).requires_grad_(), prior.codec
    image = codec.decode(z)
    weight = draw(*image.shape, seed=6)
    (gradient,) = torch.autograd.grad((weight * image).sum(), z)
    codes = codec.network.quantize(z / 0.7)[0].detach().requires_grad_()
    decoded = codec.network.decode(codes, force_not_quantize=True).sample
    (expected,) = torch.autograd.grad((weight * decoded).sum(), codes)
    assert expected.any()
    closely(gradient, expected / 0.7)


def test_a_variational_codec_gives_its_mean(copy):
    torch.manual_seed(2)
    settings = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    diffusers.UNet2DModel(**SMALL, **settings, in_channels=4, out_channels=4).save_pretrained(
        copy / "unet", safe_serialization=False
    )
    (copy / "unet/diffusion_pytorch_model.safetensors").unlink()
    kl = diffusers.AutoencoderKL(**AUTOENCODER, latent_channels=4).eval()
    kl.save_pretrained(copy / "vae")
    prior = LatentDiffusion(SHAPE, str(copy), codec="vae")
    assert (prior.shape, prior.codec.latent_shape) == ((4, 8, 8),) * 2
    x, z = draw(2, *SHAPE), draw(2, 4, 8, 8)
    with torch.no_grad():
        closely(prior.codec.encode(x), 0.7 * kl.encode(x).latent_dist.mean)
        assert torch.equal(prior.codec.encode(x), prior.codec.encode(x))
        closely(prior.codec.decode(z), kl.decode(z / 0.7).sample)
    assert prior(z, 0.5).shape == z.shape


def test_latents_are_scaled_only_where_the_checkpoint_says_so(copy):
    edit(copy / "vqvae/config.json", scaling_factor=None)
    codec = PublicCodec(SHAPE, str(copy), "vqvae")
    x = draw(1, *SHAPE)
    closely(codec.encode(x), codec.network.encode(x).latents)
    z = draw(1, *LATENT, seed=5)
    closely(codec.decode(z), codec.network.decode(z).sample)
    assert codec.network.config.scaling_factor == 0.18215  # what is not to be used


def test_the_levels_are_those_of_the_scheduler(copy):
    file = copy / "scheduler/scheduler_config.json"
    edit(file, beta_schedule="linear", num_train_timesteps=10)
    beta = np.linspace(0.0015, 0.0195, 10)
    expected = np.sqrt(1 / np.cumprod(1 - beta) - 1)
    np.testing.assert_allclose(LatentDiffusion(SHAPE, str(copy)).levels, expected, rtol=1e-4)
    file.unlink()
    np.testing.assert_allclose(LatentDiffusion(SHAPE, str(copy)).levels, SIGMA, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.0025, 0.0777, 0.5, 12.0, 80.0])
def test_it_is_consistent_with_a_step_of_the_scheduler(consistency, sigma):
    assert isinstance(consistency, ConsistencyMap)
    scheduler = diffusers.CMStochasticIterativeScheduler(sigma_max=sigma, clip_denoised=False)
    scheduler.set_timesteps(1)
    (t,) = scheduler.timesteps
    x = sigma * draw(2, *SHAPE)
    with torch.no_grad():
        output = consistency.network.unet(scheduler.scale_model_input(x, t), t).sample
        closely(consistency(x, sigma), scheduler.step(output, t, x).prev_sample)


def test_a_sample_in_one_step_is_that_of_the_pipeline(consistency_folder, consistency):
    pipeline = diffusers.ConsistencyModelPipeline.from_pretrained(
        consistency_folder, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    n = draw(2, *SHAPE)
    expected = pipeline(2, latents=n, output_type="pt").images
    found = (consistency(80 * n, 80.0).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_at_epsilon_an_image_stays(consistency, consistency_folder, tmp_path):
    x = draw(2, *SHAPE).double()
    assert (consistency.shape, consistency.epsilon) == (SHAPE, 0.002)
    torch.testing.assert_close(consistency(x, 0.002), x, rtol=0, atol=1e-7)
    (tmp_path / "unet").symlink_to(consistency_folder / "unet")
    bare = PublicConsistency(SHAPE, str(tmp_path))
    closely(bare(x, 0.7), consistency(x, 0.7))
    (tmp_path / "scheduler").mkdir()
    settings = {"sigma_min": 0.1, "sigma_data": 1.0}
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    other = PublicConsistency(SHAPE, str(tmp_path))
    assert other.epsilon == 0.1
    torch.testing.assert_close(other(x, 0.1), x, rtol=0, atol=1e-7)
    assert (other(x, 0.7) - bare(x, 0.7)).abs().max() > 0.1


@pytest.mark.parametrize("which", ["prior", "consistency"])
def test_a_batch_gives_what_single_images_give(which, request):
    model = request.getfixturevalue(which)
    x, sigma = draw(2, 2, *model.shape).double(), torch.tensor([[0.01, 0.5], [3.0, 80.0]])
    together = model(x, sigma)
    assert (together.shape, together.dtype) == (x.shape, x.dtype)
    for i, j in np.ndindex(2, 2):
        closely(together[i, j], model(x[i, j], float(sigma[i, j])))


def test_the_codec_takes_any_leading_dimensions(prior):
    x, z = draw(2, 3, *SHAPE).double(), draw(2, 3, *LATENT).double()
    for code, states, shape in (
        (prior.codec.encode, x, LATENT),
        (prior.codec.decode, z, SHAPE),
    ):
        together = code(states)
        assert (together.shape, together.dtype) == ((2, 3, *shape), torch.float64)
        closely(together[1, 2], code(states[1, 2]))


def test_a_pass_counts_as_one_image(prior, consistency):
    cost = Cost()
    for model in (prior, consistency):
        cost.network(model.network)
        x = draw(2, 3, *model.shape).requires_grad_()
        (gradient,) = torch.autograd.grad(model(x, 0.5).square().sum(), x)
        assert gradient.isfinite().all()
        assert gradient.any()
        assert not any(p.requires_grad for p in model.parameters())
    assert (cost.counts["nfe"], cost.counts["nfe_backward"]) == (12, 12)
    counted = cost.latent(prior).codec
    x = draw(2, 3, *SHAPE).requires_grad_()
    counted.decode(counted.encode(x)).square().sum().backward()
    assert x.grad.any()
    # once there and once back
    assert (cost.counts["encoder_evals"], cost.counts["decoder_evals"]) == (12, 12)


@pytest.mark.parametrize("kind", [LatentDiffusion, PublicConsistency])
def test_half_precision_is_that_of_the_network_alone(kind, latent_folder, consistency_folder):
    folder = str(latent_folder if kind is LatentDiffusion else consistency_folder)
    full, half = kind(SHAPE, folder), kind(SHAPE, folder, precision="bfloat16")
    x = draw(2, *full.shape)
    assert half(x, 0.5).dtype == torch.float32
    change = (full(x, 0.5) - x).std()
    assert 0 < (half(x, 0.5) - full(x, 0.5)).std() < 0.1 * change
    assert (half(x, 0.00201) - full(x, 0.00201)).abs().max() < 1e-3  # and x is not rounded


def test_the_first_checkpoints_are_read(copy, prior):
    """Those of 2022: a file of torch's, other names in attention, and fewer keys in config.json."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = 0
    for folder, given in (("vqvae", {*AUTOENCODER, "latent_channels"}), ("unet", {*UNET})):
        file = copy / folder / "diffusion_pytorch_model.safetensors"
        state = {}
        for key, value in load_file(file).items():
            for new, old in names.items():
                renamed += f".{new}." in key
                key = key.replace(f".{new}.", f".{old}.")
            state[key] = value
        torch.save(state, file.with_suffix(".bin"))
        file.unlink()
        config = json.loads((copy / folder / "config.json").read_text())
        given |= {"_class_name", "in_channels", "out_channels", "num_vq_embeddings"}
        (copy / folder / "config.json").write_text(
            json.dumps({key: value for key, value in config.items() if key in given})
        )
    assert renamed > 8
    old, z = LatentDiffusion(SHAPE, str(copy)), draw(2, *LATENT)
    closely(old(z, 0.5) - z, prior(z, 0.5) - z)
    closely(old.codec.decode(z), prior.codec.decode(z))


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(copy, tmp_path):
    file = copy / "unet/diffusion_pytorch_model.safetensors"
    file.unlink()
    file.with_suffix(".bin").write_bytes(pickle.dumps(Payload(tmp_path / "run"), protocol=2))
    with pytest.raises(ValueError, match="unet: ") as raised:
        LatentDiffusion(SHAPE, str(copy))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_yaml_section_builds_it(latent_folder, consistency_folder):
    for kind, folder in (
        ("LatentDiffusion", latent_folder),
        ("PublicConsistency", consistency_folder),
    ):
        spec = {"class": f"priorflow.priors.public:{kind}", "name": str(folder)}
        check(spec, Path())
        system = type("System", (), {"shape": SHAPE})
        prior = build_prior({"prior": spec, "network": None, "context": 0}, system, Path())
        assert prior(draw(1, *prior.shape), 1.0).shape == (1, *prior.shape)


def spoil(folder, what):
    """Spoil a folder of latent diffusion; what the message must say."""
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    if what == "no codec":
        (folder / "vqvae/config.json").unlink()
        return r"there is no file vqvae/config.json$"
    if what == "no weights":
        weights.unlink()
        return r"there is no file unet/diffusion_pytorch_model.safetensors$"
    if what == "broken weights":
        weights.write_bytes(b"\x00\xff" * 100)
        return r"unet: Unable to load weights"
    if what == "fewer weights":
        state = load_file(weights)
        del state["conv_in.bias"]
        save_file(state, weights, {"format": "pt"})
        return r"unet: there are no weights conv_in.bias$"
    if what == "other weights":
        edit(folder / "unet/config.json", layers_per_block=2)
        return r"unet: there are no weights down_blocks\S+$"
    if what == "other sizes":
        edit(folder / "unet/config.json", block_out_channels=[8, 16])
        return r"unet: Error\(s\) in loading"
    if what == "not JSON":
        (folder / "unet/config.json").write_text("{")
        return r"config.json: not a readable JSON file"
    if what == "other network":
        edit(folder / "unet/config.json", _class_name="UNet1DModel")
        return r"unet: class UNet1DModel, allowed: UNet2DModel$"
    if what == "not a codec":
        edit(folder / "vqvae/config.json", _class_name="UNet2DModel")
        return r"vqvae: class UNet2DModel, allowed: AutoencoderKL, VQModel$"
    if what == "classes":
        diffusers.UNet2DModel(**UNET, num_class_embeds=5).save_pretrained(folder / "unet")
        return r"unet: depends on a class"
    if what == "variance":
        diffusers.UNet2DModel(**UNET, out_channels=6).save_pretrained(folder / "unet")
        return r"unet: out_channels: value 6, allowed: 3, as many as in$"
    if what == "channels":
        settings = {**UNET, "in_channels": 4, "out_channels": 4}
        diffusers.UNet2DModel(**settings).save_pretrained(folder / "unet")
        return r"unet: shape: value \(3, 8, 8\), allowed: \(4, H, W\), multiples of 2$"
    if what == "prediction":
        edit(folder / "scheduler/scheduler_config.json", prediction_type="v_prediction")
        return r"prediction_type: value 'v_prediction', allowed: 'epsilon'$"
    assert what == "other scheduler"
    diffusers.CMStochasticIterativeScheduler().save_pretrained(folder / "scheduler")
    return r"scheduler_config.json: there is no beta_end$"


@pytest.mark.parametrize(
    "what",
    [
        "no codec",
        "no weights",
        "broken weights",
        "fewer weights",
        "other weights",
        "other sizes",
        "not JSON",
        "other network",
        "not a codec",
        "classes",
        "variance",
        "channels",
        "prediction",
        "other scheduler",
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(copy, what):
    text = spoil(copy, what)
    spec = {"class": "priorflow.priors.public:LatentDiffusion", "name": str(copy)}
    system = type("System", (), {"shape": SHAPE})
    with pytest.raises(BadInput, match=text) as raised:
        build_prior({"prior": spec, "network": None, "context": 0}, system, Path())
    assert "\n" not in str(raised.value)
    assert str(copy) in str(raised.value)


def test_wrong_settings_are_said_in_one_line(latent_folder, consistency_folder):
    for kind, folder, where, strides in (
        (LatentDiffusion, latent_folder, "vqvae", {15: 2}),
        (LatentDiffusion, latent_folder, "unet", {18: 2}),
        (PublicConsistency, consistency_folder, "unet", {15: 2}),
    ):
        for side, stride in strides.items():
            text = rf"{where}: shape: .*, allowed: \(3, H, W\), multiples of {stride}$"
            with pytest.raises(ValueError, match=text):
                kind((3, 16, side), str(folder))
        with pytest.raises(ValueError, match=r"shape: value \(1, 16, 16\), allowed: \(3, H, W\)"):
            kind((1, 16, 16), str(folder))
        with pytest.raises(ValueError, match=r"^precision: value 'int8', allowed: float32, "):
            kind(SHAPE, str(folder), precision="int8")


@pytest.mark.parametrize("kind", [LatentDiffusion, PublicConsistency])
def test_without_a_network_it_is_said_in_one_line(kind, monkeypatch, tmp_path):
    asked = []

    def offline(name, file, subfolder, revision):
        asked.append((name, subfolder, file, revision))
        raise ConnectionError("\n  no route to host:\n\tmore of it")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    text = r"config.json cannot be had \(no route to host\); download the repository and name its"
    with pytest.raises(ValueError, match=text) as raised:
        kind((3, 256, 256), revision="main")
    assert "\n" not in str(raised.value)
    folder = "vqvae" if kind is LatentDiffusion else "unet"
    name = {"vqvae": "CompVis/ldm-celebahq-256", "unet": "openai/diffusers-cd_bedroom256_l2"}
    assert asked == [(name[folder], folder, "config.json", "main")]


def test_the_hub_is_asked_for_what_is_needed(latent_folder, prior, monkeypatch, copy):
    """One file of weights each, and torch's only where there are no safetensors."""
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    asked = []

    def online(name, file, subfolder, revision):
        asked.append(f"{subfolder}/{file}")
        if not (copy / asked[-1]).is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        return str(copy / asked[-1])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", online)
    z = draw(1, *LATENT)
    closely(LatentDiffusion(SHAPE)(z, 0.5) - z, prior(z, 0.5) - z)
    assert asked == [
        "vqvae/config.json",
        "vqvae/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "scheduler/scheduler_config.json",
    ]
