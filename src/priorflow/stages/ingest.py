"""Ingest: events of an archive, reduced, as one store in 8 bits; region by region, by Dask.

A region is a shard of the store and is written by one process, which then leaves a marker with its
size and checksum. A worker that is killed is replaced and its region made again, to the same bytes;
a run that was killed goes on with the regions that have no marker. The store appears under its name
when it is whole, with its manifest, as any other.
"""

__all__ = ["ingest"]

import fcntl
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from priorflow import store
from priorflow.components import BadInput
from priorflow.stages.progress import log, track
from priorflow.systems.sevir_catalog import Event, images_of

if TYPE_CHECKING:
    from priorflow.systems.sevir import SEVIR

WORKER_BYTES = 2**30  # one event of the archive, and libraries, torch if the main program has it


def ingest(
    archive: "SEVIR",
    rows: range,
    output: Path,
    *,
    workers: int = 1,
    dask: str = "local",
    group: int = 32,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write the events `rows`: state (trajectory, time, y, x) in 8 bits, its scale an attribute.

    xarray reads the state as numbers in [0, 1], of 64 bits. Memory is that of one region per
    worker, whatever the number of events.

    Args:
        archive: The archive.
        rows: Its rows.
        output: The store to write.
        workers: Processes or jobs; one on this machine is this process, without a scheduler.
        dask: `local` or `slurm`, see `priorflow.stages.cluster`.
        group: Events per region, one file of the store.
        attrs: Attributes of the store.

    Raises:
        BadInput: A file of the archive is missing or damaged, workers die again and again, the
            finished store is not what was written, or another process is writing it.
    """
    output, events = Path(output), archive.events(rows)
    regions = [range(i, min(i + group, len(events))) for i in range(0, len(events), group)]
    work = output.with_name(f".{output.name}.unfinished")
    with _alone(work):
        _prepare(work, archive, rows, events, group, attrs or {})
        todo = [i for i in range(len(regions)) if not _finished(work, i)]
        log(f"ingest: {len(events)} events, {len(regions) - len(todo)}/{len(regions)} regions done")
        write = partial(_write_region, work, size=archive.size, every=archive.every)
        jobs = [(i, regions[i][0], [events[k] for k in regions[i]]) for i in todo]
        with _calls(dask, min(workers, len(jobs)), archive, group, work) as call:
            for _ in track(call(write, jobs), "ingest: regions", len(jobs)):
                pass
        _seal(work, output, len(regions), len(events))


@contextmanager
def _calls(
    kind: str, workers: int, archive: "SEVIR", group: int, work: Path
) -> Iterator[Callable[[Callable, Sequence], Iterator]]:
    """What calls a function with each of some arguments, in no order: Dask, or this process."""
    if workers == 0 or (kind == "local" and workers == 1):
        yield map
        return
    from distributed import as_completed

    from priorflow.stages.cluster import dask_client

    def call(function: Callable, items: Sequence) -> Iterator:
        for future in as_completed(client.map(function, items, pure=False)):
            # A result is asked for only to raise its error: its worker may be gone by now.
            yield future.result() if future.status == "error" else None

    region = group * archive.steps * archive.size**2
    with dask_client(kind, workers, WORKER_BYTES + 4 * region, str(work / "logs")) as client:
        yield call


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the folder of an unfinished store; the lock goes with the process."""
    work.mkdir(parents=True, exist_ok=True)
    lock = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BadInput(f"{work}: another process is ingesting the same store") from None
    finally:
        os.close(lock)


def _prepare(
    work: Path,
    archive: "SEVIR",
    rows: range,
    events: Sequence[Event],
    group: int,
    attrs: Mapping[str, Any],
) -> None:
    """An empty store and a folder of markers, unless those of the same job are there."""
    import xarray as xr
    import zarr

    job = repr((list(rows), events, archive.size, archive.every, group, dict(attrs)))
    key = hashlib.sha256(job.encode()).hexdigest()
    if (work / "job").is_file() and (work / "job").read_text() == key:
        return
    (work / "job").unlink(missing_ok=True)
    for folder in ("store", "regions"):
        shutil.rmtree(work / folder, ignore_errors=True)
    (work / "regions").mkdir()
    shape = (len(events), archive.steps, *archive.shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        head = xr.Dataset(coords=archive.coordinates(rows), attrs={"dt": archive.dt, **attrs})
        head.to_zarr(work / "store", zarr_format=3, consolidated=False)
        zarr.create_array(
            work / "store",
            name="state",
            shape=shape,
            dtype="uint8",
            chunks=(1, *shape[1:]),
            shards=(group, *shape[1:]),
            compressors=zarr.codecs.ZstdCodec(level=3, checksum=True),
            fill_value=0,
            dimension_names=("trajectory", "time", "y", "x"),
            attributes={"units": archive.units, "scale_factor": 1 / 255},
            config={"write_empty_chunks": True},
        )
        zarr.consolidate_metadata(work / "store")
    (work / "job").write_text(key)


def _write_region(
    work: Path, job: tuple[int, int, Sequence[Event]], *, size: int, every: int
) -> None:
    """Read the events of a region, write them as one shard, leave the marker.

    Args:
        work: The folder of the unfinished store.
        job: The number of the region, its first row in the store, its events.
        size, every: As those of the archive.
    """
    import zarr

    region, first, events = job
    if _finished(work, region):  # by a worker that was lost before it could say so
        return
    array = zarr.open_array(work / "store", path="state", mode="r+")
    array = array.with_config({"write_empty_chunks": True})
    shard = _shard(work / "store", region)
    # Zarr would read what a killed worker left, and keep its temporary files in the store.
    shutil.rmtree(_folder(work / "store", region), ignore_errors=True)
    images = np.empty((len(events), *array.shape[1:]), np.uint8)
    for image, event in zip(images, events, strict=True):
        image[:] = images_of(event, size, every)
    array[first : first + len(events)] = images
    length, crc = store.measure(shard)
    marker = _marker(work, region)
    fresh = marker.with_suffix(".part")
    fresh.write_text(json.dumps({"events": len(events), "size": length, "crc": crc}))
    fresh.rename(marker)


def _finished(work: Path, region: int) -> bool:
    """Whether a region has a marker, and the file that the marker says."""
    marker, shard = _marker(work, region), _shard(work / "store", region)
    if not (marker.is_file() and shard.is_file()):
        return False
    expected = json.loads(marker.read_text())
    return store.measure(shard) == (expected["size"], expected["crc"])


def _seal(work: Path, output: Path, regions: int, events: int) -> None:
    """Check the counts and the checksums, and give the store its name and its manifest."""
    damaged = [i for i in range(regions) if not _finished(work, i)]
    found = sum(json.loads(_marker(work, i).read_text())["events"] for i in range(regions))
    if damaged or found != events:
        raise BadInput(
            f"{output}: {found} of {events} events, damaged regions: {damaged or 'none'}; run again"
        )
    store.adopt(work / "store", output)
    shutil.rmtree(work)


def _marker(work: Path, region: int) -> Path:
    return work / "regions" / f"{region}.json"


def _shard(path: Path, region: int) -> Path:
    return _folder(path, region) / "0" / "0" / "0"


def _folder(path: Path, region: int) -> Path:
    return path / "state" / "c" / str(region)
