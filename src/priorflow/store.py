"""Zarr stores that are whole or absent, with a manifest that readers verify.

A store is written under a temporary name and renamed when it is complete. Beside `x.zarr` lies
`x.zarr.manifest.json` with the shapes, the chunks, and the size and checksum of every file.
"""

__all__ = ["StoreError", "adopt", "manifest_of", "measure", "read", "verify", "write"]

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from priorflow.components import BadInput

if TYPE_CHECKING:
    import xarray as xr

FULL_CHECK_BYTES = 256 * 2**20  # above this only sizes are compared; zarr checks chunks on reading
SNAKEMAKE_FILE = ".snakemake_timestamp"


class StoreError(BadInput):
    """A store is missing, incomplete or damaged."""


def manifest_of(path: Path) -> Path:
    """Where the manifest of the store at `path` lies."""
    return path.with_name(path.name + ".manifest.json")


def write(dataset: "xr.Dataset", path: Path, chunks: Mapping[str, int] | None = None) -> None:
    """Write a dataset as a Zarr store, compressed, with checksums; all or nothing.

    Args:
        dataset: In memory, or lazy Dask arrays.
        path: The store. What was there before is replaced only when the new one is complete.
        chunks: Length of a chunk along each dimension; all of a dimension that is not named.
    """
    import zarr

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*.partial"):
        if not _alive(int(stale.name.split(".")[-2])):
            shutil.rmtree(stale)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    encoding = {}
    for name, variable in dataset.variables.items():
        lengths = tuple((chunks or {}).get(str(d), n) for d, n in variable.sizes.items())
        encoding[name] = {"chunks": tuple(max(1, n) for n in lengths)} if lengths else {}
        if variable.dtype.kind in "fu":
            encoding[name]["compressors"] = zarr.codecs.ZstdCodec(level=3, checksum=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        dataset.to_zarr(partial, mode="w", encoding=encoding, zarr_format=3, consolidated=True)
    adopt(partial, path)


def adopt(partial: Path, path: Path) -> None:
    """Give a complete store its name and its manifest; what was at `path` is replaced."""
    import zarr

    manifest = {
        "variables": {
            name: {
                "dims": list(array.metadata.dimension_names or ()),
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "chunks": list(array.chunks),
            }
            for name, array in zarr.open_group(partial, mode="r").arrays()
        },
        "files": {name: list(measure(file)) for name, file in _files(partial)},
    }
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)
    manifest_of(path).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read(path: Path, check: bool = True, packed: bool = False) -> "xr.Dataset":
    """Open a store lazily, after verifying it against its manifest.

    Args:
        path: The store.
        check: Whether to verify it.
        packed: Whether numbers stay as they are stored, `scale_factor` and `add_offset` attributes.

    Raises:
        StoreError: Names the store and the file in it that is missing or damaged.
    """
    import xarray as xr

    path = Path(path)
    if check:
        verify(path)
    return xr.open_zarr(path, consolidated=True, chunks=None, mask_and_scale=not packed)


def verify(path: Path) -> None:
    """Compare a store with its manifest: sizes always, checksums below 256 MiB."""
    path = Path(path)
    if not path.is_dir():
        raise StoreError(f"{path}: there is no such store")
    if not manifest_of(path).is_file():
        raise StoreError(f"{path}: its manifest {manifest_of(path).name} is missing")
    expected = json.loads(manifest_of(path).read_text())["files"]
    full = sum(size for size, _ in expected.values()) <= FULL_CHECK_BYTES
    found = dict(_files(path))
    for name, (size, crc) in expected.items():
        if name not in found:
            raise StoreError(f"{path}: {name} is missing; delete the store to make it anew")
        same = found[name].stat().st_size == size
        if not same or (full and measure(found[name]) != (size, crc)):
            raise StoreError(f"{path}: {name} is damaged; delete the store to make it anew")


def _files(path: Path) -> list[tuple[str, Path]]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != SNAKEMAKE_FILE)
    return sorted((file.relative_to(path).as_posix(), file) for file in files)


def measure(file: Path) -> tuple[int, int]:
    """The size in bytes and the checksum of a file."""
    size = crc = 0
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
