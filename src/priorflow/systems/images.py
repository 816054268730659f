"""Archives of independent images, in the place of a simulator.

Images are tensors (C, H, W) on the scale [-1, 1]. An archive has `read(rows)` where a simulator has
a law; a trajectory of the data is one image. The rows of a split are the next ones after those of
the split before it, in the order train, valid, test.

Reference:
    Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao et al.,
    2017), arXiv 1708.07747
"""

__all__ = ["Archive", "FashionMNIST", "ImageFolder"]

import gzip
import hashlib
import os
import struct
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from priorflow.components import BadInput
from priorflow.rng import generator


class Archive(ABC):
    """Independent images, a `System` without dynamics; a subclass reads them as bytes.

    Attributes:
        shape: (C, H, W).
        count: The number of images.
    """

    dt = 1.0
    mean = torch.zeros(())  # solvers want images on the scale [-1, 1]: a prior standardises
    std = torch.ones(())
    units = "1"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of images."""

    @abstractmethod
    def pixels(self, rows: Sequence[int]) -> np.ndarray:
        """The images `rows` in 8 bits, shape (n, C, H, W)."""

    def read(self, rows: Sequence[int]) -> Tensor:
        """The images `rows`, shape (n, C, H, W), in [-1, 1].

        Raises:
            BadInput: There is no such row, or the data cannot be had.
        """
        if not all(0 <= row < self.count for row in rows):
            raise BadInput(
                f"data.trajectories: row {max(rows)} of {type(self).__name__}, which has "
                f"{self.count} images"
            )
        return torch.from_numpy(self.pixels(rows)) / 127.5 - 1


# -------------------------------------------------------------------------------- Fashion-MNIST

PACKAGE = "dataset-fashion-mnist"  # Debian's
MIRROR = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
# The SHA-256 of what is inside: Debian compresses anew.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
}


@dataclass(frozen=True)
class FashionMNIST(Archive):
    """70,000 grey pictures of clothes, 28² pixels with a black border of 2: (1, 32, 32).

    Rows below `test_from` are the official training pictures, shuffled; row `test_from` + i is the
    official test picture i. So the validation rows are training pictures that no other row shows,
    and where `test_from` is the first row of the test split, no test row is a training picture.

    The pictures are fetched once, into the user's cache, from Debian's package or, where there is
    no apt, from the public repository; their checksums are verified wherever they come from.

    Attributes:
        folder: Where the two files of pictures already are, plain or gzipped; otherwise the
            environment variable FASHION_MNIST names it, otherwise they are fetched.
        test_from: The first row of the official test pictures, 1 to 60,000.
        seed: The seed of the shuffling.
    """

    folder: str = ""
    test_from: int = 60_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.test_from <= 60_000:
            raise ValueError(f"test_from: value {self.test_from}, allowed: 1 to 60000")

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, 32, 32)."""
        return (1, 32, 32)

    @property
    def count(self) -> int:
        """The training rows, and 10,000 test pictures."""
        return self.test_from + 10_000

    def pixels(self, rows: Sequence[int]) -> np.ndarray:
        """The pictures `rows` in 8 bits, shape (n, 1, 32, 32)."""
        train, test = _pictures(self.folder or os.environ.get("FASHION_MNIST", ""))
        order = torch.randperm(len(train), generator=generator(self.seed, "fashion_mnist"))
        pictures = [
            train[order[row]] if row < self.test_from else test[row - self.test_from]
            for row in rows
        ]
        return np.pad(np.stack(pictures)[:, None], ((0, 0), (0, 0), (2, 2), (2, 2)))


@lru_cache(maxsize=1)
def _pictures(folder: str) -> list[np.ndarray]:
    """The training and the test pictures, each (n, 28, 28) in 8 bits."""
    found = Path(folder).expanduser() if folder else _fetched()
    return [_verified(found, name) for name in FILES]


def _verified(folder: Path, name: str) -> np.ndarray:
    """The pictures of a file in IDX format, gzipped or not.

    Raises:
        BadInput: It is missing or has another checksum.
    """
    file = next((f for f in (folder / f"{name}.gz", folder / name) if f.is_file()), None)
    if file is None:
        raise BadInput(f"{folder}: there is no {name} or {name}.gz")
    data = file.read_bytes()
    if file.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, ValueError) as error:
            raise BadInput(f"{file}: not a gzip file: {error}") from None
    if hashlib.sha256(data).hexdigest() != FILES[name]:
        raise BadInput(f"{file}: the checksum is not that of Fashion-MNIST; remove or replace it")
    return np.frombuffer(data, np.uint8, offset=16).reshape(struct.unpack(">3i", data[4:16]))


def _fetched() -> Path:
    """The folder in the user's cache, filled if it is not there.

    Raises:
        BadInput: No source can be reached.
    """
    import pooch

    cache = Path(pooch.os_cache("priorflow"))
    target, reasons = cache / "fashion-mnist", []
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    for fetch in (_from_debian, _from_mirror):
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            try:
                source = fetch(Path(scratch))
                for name in FILES:
                    _verified(source, name)
                source.chmod(0o755)
                source.rename(target)  # whole or not at all, also when two jobs fetch at once
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                if target.is_dir():
                    return target
                reasons.append(f"{fetch.__name__[1:]}: {type(error).__name__}")
            else:
                return target
    raise BadInput(
        f"FashionMNIST cannot be fetched ({'; '.join(reasons)}): put {' and '.join(FILES)} into a "
        "folder, plain or gzipped, and name it as system.folder or as FASHION_MNIST in the "
        "environment"
    )


def _from_debian(scratch: Path) -> Path:
    """Unpack Debian's package, without installing it: lists and all stay in `scratch`."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    places = (f"-oDir::{place}={scratch}/{place.lower()}" for place in ("State", "Cache"))
    apt = ["apt-get", "-q", *places]
    run = {"cwd": scratch, "check": True, "capture_output": True, "timeout": 600}
    subprocess.run([*apt, "update"], **run)
    subprocess.run([*apt, "download", PACKAGE], **run)
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package.name, "files"], **run)
    return scratch / "files/usr/share/datasets/fashion-mnist"


def _from_mirror(scratch: Path) -> Path:
    import pooch

    for name in FILES:  # what is inside is verified, so that all sources have the same checksums
        pooch.retrieve(f"{MIRROR}{name}.gz", known_hash=None, fname=f"{name}.gz", path=scratch)
    return scratch


# ---------------------------------------------------------------------------- folders of pictures


@dataclass(frozen=True)
class ImageFolder(Archive):
    """The pictures of a folder and those below it, in an order drawn by the seed.

    The central square of a picture is resized, bicubically and antialiased. The workflow does not
    look into the folder for changes: give a changed collection another name.

    Attributes:
        folder: The folder, relative to where the workflow runs.
        size: Pixels per side.
        channels: 1 for grey, 3 for colour; pictures are converted.
        seed: The seed of the shuffling.
    """

    folder: str
    size: int
    channels: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: value {self.size}, allowed: at least 1")
        if self.channels not in (1, 3):
            raise ValueError(f"channels: value {self.channels}, allowed: 1, 3")

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, size, size)."""
        return (self.channels, self.size, self.size)

    @property
    def count(self) -> int:
        """The number of pictures in the folder."""
        return len(self.files)

    @cached_property
    def files(self) -> list[Path]:
        """The pictures, shuffled.

        Raises:
            BadInput: There are none.
        """
        root = Path(self.folder).expanduser()
        kinds = (".png", ".jpg", ".jpeg", ".webp")
        found = sorted(file for file in root.rglob("*") if file.suffix.lower() in kinds)
        if not found:
            raise BadInput(f"system.folder: there are no pictures ({', '.join(kinds)}) in {root}")
        order = torch.randperm(len(found), generator=generator(self.seed, "image_folder"))
        return [found[i] for i in order]

    def pixels(self, rows: Sequence[int]) -> np.ndarray:
        """The pictures `rows` in 8 bits, shape (n, C, size, size)."""
        return np.stack([self._picture(self.files[row]) for row in rows])

    def _picture(self, file: Path) -> np.ndarray:
        from PIL import Image, ImageOps

        try:
            with Image.open(file) as opened:
                if opened.mode[0] in "IF":
                    raise BadInput(f"{file}: {opened.mode}, allowed: 8 bits per channel")
                upright = ImageOps.exif_transpose(opened)
                picture = upright.convert("L" if self.channels == 1 else "RGB")
        except OSError as error:
            raise BadInput(f"{file}: not a picture: {error}") from None
        square = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.BICUBIC)
        return np.atleast_3d(np.asarray(square)).transpose(2, 0, 1)
