"""The files of SEVIR: its catalogue, and its images of vertically integrated liquid (VIL).

SEVIR is a folder, or the public bucket s3://sevir, with `CATALOG.csv`, a line per event and sensor,
and `data/vil/YEAR/SEVIR_VIL_….h5`, each with `vil` (events, 384, 384, 49) in 8 bits, 255 where
there is no radar, and the identifiers `id`. SEVIR-LR is the same with `vil` (events, 128, 128, 25),
block maxima of every second frame, without `id`. Files may also lie in `vil/YEAR/` of the folder.

Opening reads the catalogue only, and an event is read on its own. HDF5 has one lock in a process:
to read in parallel, use processes. Each opens a file once.

References:
    | SEVIR: A Storm Event Imagery Dataset for Deep Learning Applications in Radar and Satellite
      Meteorology (Veillette, Samsi & Mattioli, 2020), NeurIPS
    | SEVIR-LR: PreDiff (Gao et al., 2023), arXiv 2307.10422
"""

__all__ = ["FRAMES", "MINUTES", "Event", "block_maximum", "images_of", "read_catalogue"]

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from priorflow.components import BadInput

if TYPE_CHECKING:
    import h5py
    import pandas as pd

FRAMES, MINUTES = 49, 5  # of an event of SEVIR
MISSING = 255
COLUMNS = ("id", "file_name", "file_index", "img_type", "time_utc", "event_type", "pct_missing")


@dataclass(frozen=True)
class Event:
    """Where an event lies.

    Attributes:
        id: Its identifier, R… for a random one and S… for one of the storm database.
        file: The address of the HDF5 file.
        index: Its row there.
        missing: The share of its pixels that are missing.
    """

    id: str
    file: str
    index: int
    missing: float = 0.0


def read_catalogue(folder: str) -> "pd.DataFrame":
    """The events with VIL, by time: id, file (its address), file_index, time_utc, event_type, …

    Args:
        folder: A path, or an address such as s3://sevir. A bucket is read without credentials,
            unless the settings of fsspec (its environment variables FSSPEC_S3_…) say otherwise;
            AWS_ENDPOINT_URL names another server.

    Raises:
        BadInput: There is no catalogue, or it lacks a column.
    """
    import pandas as pd

    files, root = _filesystem(folder)
    try:
        with files.open(f"{root}/CATALOG.csv") as stream:
            table = pd.read_csv(stream, usecols=COLUMNS, parse_dates=["time_utc"])
        data = f"{root}/data" if files.isdir(f"{root}/data") else root
    except FileNotFoundError:
        raise BadInput(f"{folder}: there is no CATALOG.csv") from None
    except Exception as error:  # a client of a bucket has kinds of its own
        raise BadInput(f"{folder}/CATALOG.csv: cannot be read: {_line(error)}") from None
    vil = table[table.img_type == "vil"].drop_duplicates("id").sort_values(["time_utc", "id"])
    vil["file"] = files.unstrip_protocol(data) + "/" + vil.file_name
    return vil.drop(columns=["img_type", "file_name"]).reset_index(drop=True)


def images_of(event: Event, size: int, every: int) -> np.ndarray:
    """Block maxima of an event, (time, size, size) in 8 bits; missing pixels count as 0.

    Args:
        event: The event.
        size: Pixels per side, a divisor of those of the file.
        every: Which frames, of those 5 minutes apart: 2 for every second.

    Raises:
        BadInput: The file is missing, damaged or of another layout, or its row is another event.
    """
    try:
        file = _opened(event.file)
        images = file["vil"][event.index]
        found = file["id"][event.index] if "id" in file else event.id
    except FileNotFoundError:
        raise BadInput(f"{event.file}: there is no such file, where event {event.id} is") from None
    except Exception as error:
        raise BadInput(f"{event.file}: event {event.id} cannot be read: {_line(error)}") from None
    found = found.decode() if isinstance(found, bytes) else str(found)
    if found != event.id:
        raise BadInput(
            f"{event.file}: row {event.index} is event {found}, in the catalogue it is {event.id}"
        )
    if images.ndim != 3 or images.dtype != np.uint8 or images.shape[0] != images.shape[1]:
        raise BadInput(f"{event.file}: vil is {images.dtype} {images.shape} per event")
    if event.missing:
        images[images == MISSING] = 0
    side, frames = images.shape[1:]
    step = every * (frames - 1) / (FRAMES - 1)
    if side % size or step < 1 or step % 1:
        raise BadInput(
            f"{event.file}: {side}² pixels and {frames} frames do not give {size}² pixels every "
            f"{every * MINUTES} minutes"
        )
    return block_maximum(images, side // size, int(step))


def block_maximum(images: np.ndarray, factor: int, every: int) -> np.ndarray:
    """The maximum of squares of `factor`² pixels in every so-many-th frame.

    Args:
        images: (height, width, time), as in the archive.
        factor: Pixels per side of a square, which has to divide height and width.
        every: Which frames.

    Returns:
        (⌈time / every⌉, height / factor, width / factor), contiguous.
    """
    # Pairs of long slices: NumPy's maximum over a short axis takes five times as long.
    rows = images[::factor].copy()
    for i in range(1, factor):
        np.maximum(rows, images[i::factor], out=rows)
    squares = rows[:, ::factor].copy()
    for i in range(1, factor):
        np.maximum(squares, rows[:, i::factor], out=squares)
    return np.ascontiguousarray(squares[..., ::every].transpose(2, 0, 1))


def _filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path there."""
    import fsspec

    options = {}
    if address.startswith("s3://"):
        options = {"anon": True, **fsspec.config.conf.get("s3", {})}
    files, path = fsspec.url_to_fs(address, **options)
    return files, path.rstrip("/")


@lru_cache(maxsize=4)
def _opened(address: str) -> "h5py.File":
    """A file of the archive, opened once in a process."""
    import h5py

    files, path = _filesystem(address)
    if "file" in files.protocol:
        return h5py.File(path)
    return h5py.File(files.open(path, block_size=2**20, cache_type="readahead"))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
