"""The archive of storms, in files of its layout made here, from disk and from a bucket."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import dask
import h5py
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import xarray as xr

from priorflow import store
from priorflow.components import BadInput
from priorflow.stages.chunk import chunk
from priorflow.stages.ingest import ingest
from priorflow.systems import sevir_catalog
from priorflow.systems.sevir import SEVIR
from priorflow.systems.sevir_catalog import block_maximum

OFFSETS = ":".join(map(str, range(-120, 121, 5)))
EARLY, LATE = (
    "vil/2018/SEVIR_VIL_STORMEVENTS_2018_0101_0630.h5",
    "vil/2019/SEVIR_VIL_RANDOMEVENTS_2019_0501_0831.h5",
)


def line(name, index, time_utc, file, event_type=None, missing=0.0, sensor="vil"):
    return {
        "id": name,
        "file_name": file,
        "file_index": index,
        "img_type": sensor,
        "time_utc": time_utc,
        "minute_offsets": OFFSETS,
        "episode_id": None,
        "event_id": None,
        "event_type": event_type,
        **dict.fromkeys(("llcrnrlat", "llcrnrlon", "urcrnrlat", "urcrnrlon"), 30.0),
        "proj": "+proj=laea +lat_0=38 +lon_0=-98 +units=m +a=6370997.0 +ellps=sphere",
        "size_x": 384,
        "size_y": 384,
        "height_m": 384000.0,
        "width_m": 384000.0,
        "data_min": 0,
        "data_max": 254,
        "pct_missing": missing,
    }


CATALOGUE = [
    line("S1", 0, "2018-03-01 12:00:00", EARLY, "Hail"),
    line("S1", 0, "2018-03-01 12:00:00", "ir069/x.h5", "Hail", sensor="ir069"),
    line("S2", 1, "2018-04-01 12:00:00", EARLY, "Tornado"),
    line("S3", 2, "2018-05-01 12:00:00", EARLY, "Hail", missing=0.4),
    line("S4", 3, "2018-06-01 12:00:00", EARLY, "Hail"),
    line("R1", 0, "2019-05-31 23:59:00", LATE),
    line("R2", 1, "2019-06-01 00:00:00", LATE),
    line("R3", 2, "2019-07-01 12:00:00", LATE),
]


def made(shape):
    """Sparse random events: what compresses, and differs everywhere."""
    rng = np.random.default_rng(len(shape))
    images = rng.integers(0, 255, shape, dtype=np.uint8)
    images[rng.random(shape[:3]) < 0.7] = 0
    return images


def write(folder, data="data"):
    """An archive: its events by identifier."""
    files = {EARLY: made((4, 384, 384, 49)), LATE: made((3, 384, 384, 49))[::-1]}
    files[EARLY][2, :200, :200] = 255
    pd.DataFrame(CATALOGUE).to_csv(folder / "CATALOG.csv", index=False)
    for name, images in files.items():
        path = folder / data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = [row["id"] for row in CATALOGUE if row["file_name"] == name]
        with h5py.File(path, "w") as file:
            file["id"] = np.array(ids, dtype="S")
            file.create_dataset("vil", data=images, chunks=(1, 384, 384, 49), compression=1)
    return {
        row["id"]: files[row["file_name"]][row["file_index"]]
        for row in CATALOGUE
        if row["img_type"] == "vil"
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sevir")
    return folder, write(folder)


@pytest.fixture
def copy(archive, tmp_path):
    """A copy of the archive that a test may damage; the files are links."""
    folder = tmp_path / "copy"
    for file in filter(os.path.isfile, archive[0].rglob("*")):
        link = folder / file.relative_to(archive[0])
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, link)
    yield folder
    sevir_catalog._opened.cache_clear()


def plain(images, factor=3, every=2):
    """Block maxima by loops over the places in a block."""
    frames = np.moveaxis(images[..., ::every], -1, 0)
    out = np.zeros((len(frames), 384 // factor, 384 // factor), np.uint8)
    for i in range(factor):
        for j in range(factor):
            out = np.maximum(out, frames[:, i::factor, j::factor])
    return out


# ------------------------------------------------------------------------------------- selection


def names(system, split):
    return set(system.table.id.iloc[list(system.rows(split))])


def test_the_test_events_are_those_of_the_published_date(archive):
    system = SEVIR(folder=str(archive[0]), valid=0.25)
    assert system.count == 6  # without the one that lacks pixels
    assert names(system, "test") == {"R2", "R3"}
    assert names(system, "train") | names(system, "valid") == {"S1", "S2", "S4", "R1"}
    assert len(system.rows("valid")) == 1
    rows = [system.rows(split) for split in ("train", "valid", "test")]
    assert rows[0].start == 0
    assert rows[2].stop == 6
    assert all(a.stop == b.start for a, b in pairwise(rows))
    assert SEVIR(folder=str(archive[0]), valid=0.25).table.equals(system.table)
    others = {tuple(SEVIR(folder=str(archive[0]), seed=s).table.id) for s in range(6)}
    assert len(others) > 1


def test_events_are_chosen_by_date_type_and_missing_pixels(archive):
    def chosen(**settings):
        return set(SEVIR(folder=str(archive[0]), **settings).table.id)

    assert chosen(start="2018-04-01", end="2018-06-01") == {"S2"}
    assert chosen(event_types=["Hail"]) == {"S1", "S4"}
    assert chosen(event_types=["Hail"], missing=0.4) == {"S1", "S3", "S4"}
    assert chosen(event_types=["Random", "Tornado"]) == {"S2", "R1", "R2", "R3"}
    assert chosen(test_from="2018-01-01") == chosen()
    with pytest.raises(BadInput, match=r"^system.event_types: 'Hale' is unknown; .*Hail, Random"):
        chosen(event_types=["Hale"])
    with pytest.raises(BadInput, match="no event of VIL is as the system asks for"):
        chosen(start="2020-01-01")


def test_bad_settings_are_refused():
    for setting in (
        {"size": 100},
        {"every": 5},
        {"missing": 2},
        {"test_from": "June"},
        {"scale": 0},
    ):
        with pytest.raises(ValueError, match=f"^{next(iter(setting))}: value"):
            SEVIR(**setting)


# ---------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(("size", "every"), [(128, 2), (64, 2), (384, 1), (128, 4)])
def test_images_are_block_maxima_of_every_few_frames(archive, size, every):
    folder, events = archive
    system = SEVIR(folder=str(folder), size=size, every=every)
    row = system.table.index[system.table.id == "S2"][0]
    (images,) = system.read([row])
    assert images.shape == (system.steps, *system.shape)
    expected = plain(events["S2"], 384 // size, every)
    torch.testing.assert_close(images, torch.from_numpy(expected) / 255)
    assert system.dt == 5 * every


def test_missing_pixels_count_as_no_rain(archive):
    folder, events = archive
    system = SEVIR(folder=str(folder), missing=0.5)
    row = system.table.index[system.table.id == "S3"][0]
    images = np.where(events["S3"] == 255, 0, events["S3"])
    assert (system.read([row])[0] == torch.from_numpy(plain(images)) / 255).all()


@pytest.mark.parametrize(("factor", "every"), [(1, 1), (2, 3), (3, 2)])
def test_block_maximum_of_blocks_by_hand(factor, every):
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 7), dtype=np.uint8)
    found = block_maximum(images, factor, every)
    blocks = images.reshape(12 // factor, factor, 6 // factor, factor, 7).max((1, 3))
    assert (found == np.moveaxis(blocks, -1, 0)[::every]).all()


def test_the_low_resolution_archive_is_read_as_it_is(archive, tmp_path):
    """SEVIR-LR: the catalogue of SEVIR, block maxima of every second frame, no identifiers."""
    folder, events = archive
    (tmp_path / "CATALOG.csv").write_bytes((folder / "CATALOG.csv").read_bytes())
    for name in (EARLY, LATE):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        rows = [r for r in CATALOGUE if r["file_name"] == name]
        small = np.stack([np.moveaxis(plain(events[r["id"]]), 0, -1) for r in rows])
        with h5py.File(path, "w") as file:
            file.create_dataset("vil", data=small, maxshape=(None, *small.shape[1:]))
    for size in (128, 64):
        full, low = (SEVIR(folder=str(f), size=size) for f in (folder, tmp_path))
        assert (full.read(range(6)) == low.read(range(6))).all()
    with pytest.raises(BadInput, match="do not give 128² pixels every 5 minutes"):
        SEVIR(folder=str(tmp_path), every=1).read([0])


# ------------------------------------------------------------------------------------------ lazy


def test_opening_reads_the_catalogue_only_and_a_task_one_event(archive, monkeypatch):
    folder, events = archive
    opened = []
    original = sevir_catalog._opened
    monkeypatch.setattr(
        sevir_catalog, "_opened", lambda address: opened.append(address) or original(address)
    )
    system = SEVIR(folder=str(folder))
    data = system.dataset(range(6))
    assert data.state.dims == ("trajectory", "time", "y", "x")
    assert data.state.dtype == np.uint8
    assert data.state.data.numblocks == (6, 1, 1, 1)
    assert not opened
    row = data.isel(trajectory=4)
    with dask.config.set(scheduler="sync"):
        assert (row.state.values == plain(events[row.event.item()])).all()
    assert len(opened) == 1


# ------------------------------------------------------------------------------------------- s3


@pytest.fixture
def bucket(archive, monkeypatch):
    """The archive as a public bucket on the loopback."""
    import s3fs
    from moto.server import ThreadedMotoServer

    s3fs.S3FileSystem.clear_instance_cache()

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    import boto3

    client = boto3.client(
        "s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket="sevir", ACL="public-read")
    for file in filter(os.path.isfile, archive[0].rglob("*")):
        key = file.relative_to(archive[0]).as_posix()
        client.put_object(Bucket="sevir", Key=key, Body=file.read_bytes(), ACL="public-read")
    yield "s3://sevir"
    sevir_catalog._opened.cache_clear()
    server.stop()


def test_the_public_bucket_is_read_without_credentials(archive, bucket, monkeypatch, tmp_path):
    import s3fs

    fetched = []
    original = s3fs.core._fetch_range

    def fetch(fs, bucket, key, version, start, end, **settings):
        fetched.append((key, end - start))
        return original(fs, bucket, key, version, start, end, **settings)

    monkeypatch.setattr(s3fs.core, "_fetch_range", fetch)
    monkeypatch.delenv("SEVIR", raising=False)
    system, local = SEVIR(), SEVIR(folder=str(archive[0]))
    data = system.dataset(system.rows("test"))
    assert {key for key, _ in fetched} <= {"CATALOG.csv"}
    assert system.table.drop(columns="file").equals(local.table.drop(columns="file"))
    with dask.config.set(scheduler="sync"):
        event = data.isel(trajectory=0).load()
    assert (event.state.values == plain(archive[1][event.event.item()])).all()
    used = sum(size for key, size in fetched if key.endswith(".h5"))
    file = archive[0] / "data" / LATE
    assert used < file.stat().st_size / 3 + 4 * 2**20
    ingest(system, system.rows("train"), tmp_path / "x.zarr", workers=2, group=2)
    ingest(local, local.rows("train"), tmp_path / "y.zarr")
    xr.testing.assert_identical(store.read(tmp_path / "x.zarr"), store.read(tmp_path / "y.zarr"))


def test_a_bucket_or_a_server_that_is_not_there(bucket, monkeypatch):
    import s3fs

    with pytest.raises(BadInput, match=r"^s3://nothing: there is no CATALOG.csv$"):
        _ = SEVIR(folder="s3://nothing").table
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(BadInput, match=r"^s3://sevir/CATALOG.csv: cannot be read: .*connect"):
        _ = SEVIR().table


# ------------------------------------------------------------------------------------- ingestion


def test_a_store_in_eight_bits_that_reads_as_shares(archive, tmp_path, capsys):
    folder, events = archive
    system = SEVIR(folder=str(folder))
    ingest(system, range(1, 6), tmp_path / "x.zarr", workers=2, group=2, attrs={"seed": 0})
    said = capsys.readouterr().err
    assert [f"regions: {i}/3 (" in said for i in range(5)] == [False, True, True, True, False]
    assert len(re.findall(r"dashboard http://127\.0\.0\.1:\d+/status$", said, re.MULTILINE)) == 1
    data = store.read(tmp_path / "x.zarr")
    assert data.attrs == {"dt": 10.0, "seed": 0}
    assert data.trajectory.values.tolist() == [1, 2, 3, 4, 5]
    assert data.event.values.tolist() == system.table.id[1:].tolist()
    assert (data.time_utc.values == system.table.time_utc[1:].to_numpy()).all()
    np.testing.assert_allclose(data.state.values, system.read(range(1, 6)), atol=1e-7)
    raw = xr.open_zarr(tmp_path / "x.zarr", mask_and_scale=False, chunks=None).state
    assert raw.dtype == np.uint8
    assert (raw.values == [plain(events[i]) for i in data.event.values]).all()
    assert len(list((tmp_path / "x.zarr/state/c").iterdir())) == 3
    assert {p.name for p in tmp_path.iterdir()} == {"x.zarr", "x.zarr.manifest.json"}


def test_the_chunk_stage_standardises_what_was_ingested(archive, tmp_path):
    system = SEVIR(folder=str(archive[0]))
    for i, rows in enumerate((range(2), range(2, 4))):
        ingest(system, rows, tmp_path / f"{i}.zarr", group=1)
    spec = {"class": "priorflow.systems.sevir:SEVIR", "folder": str(archive[0])}
    parts = [tmp_path / f"{i}.zarr" for i in range(2)]
    chunk(parts, tmp_path / "x.zarr", system=spec, chunks={"trajectory": 1}, base=tmp_path)
    found = store.read(tmp_path / "x.zarr")
    expected = (system.read(range(4)).numpy() - 0.5) / 0.1
    np.testing.assert_allclose(found.state.values, expected, atol=1e-5)
    assert found.event.values.tolist() == system.table.id[:4].tolist()


def shard_of(path, region):
    return path / "state/c" / region / "0/0/0"


def stamps(work):
    """When the finished regions of an unfinished store were written."""
    finished = [file.stem for file in (work / "regions").glob("*.json")]
    return {i: shard_of(work / "store", i).stat().st_mtime_ns for i in finished}


def same_files(one, other):
    """Whether two stores have the same files, of the same bytes."""
    files = [
        {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        for path in (one, other)
    ]
    return files[0] == files[1] and len(files[0]) >= 8


RUN = """
if __name__ == "__main__":  # workers import this file
    import sys
    from pathlib import Path
    from priorflow.stages.ingest import ingest
    from priorflow.systems.sevir import SEVIR

    system = SEVIR(folder=sys.argv[1], end="2019-06-01")
    ingest(system, range(4), Path(sys.argv[2]), workers=2, group=1)
"""


def test_what_a_killed_run_finished_is_kept(archive, copy, tmp_path):
    """The file of R1 is a pipe that nobody writes to: the first run waits there to be killed."""
    settings = {"end": "2019-06-01"}
    ingest(SEVIR(folder=str(archive[0]), **settings), range(4), tmp_path / "whole.zarr", group=1)
    late = copy / "data" / LATE
    late.unlink()
    os.mkfifo(late)
    (tmp_path / "run.py").write_text(RUN)
    output, work = tmp_path / "x.zarr", tmp_path / ".x.zarr.unfinished"
    run = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", copy, output],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not stamps(work) and run.poll() is None:
            time.sleep(0.05)
        with pytest.raises(BadInput, match="another process is ingesting the same store"):
            ingest(SEVIR(folder=str(copy), **settings), range(4), output, group=1)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert not output.exists()
    before = stamps(work)
    assert 1 <= len(before) <= 3  # of S1, S2 and S4
    late.unlink()
    os.link(archive[0] / "data" / LATE, late)
    ingest(SEVIR(folder=str(copy), **settings), range(4), output, group=1)
    for region, stamp in before.items():
        assert shard_of(output, region).stat().st_mtime_ns == stamp
    assert same_files(output, tmp_path / "whole.zarr")


def test_a_worker_that_is_killed_leaves_no_trace_in_the_store(archive, copy, tmp_path):
    """The file of R1 is a pipe, where a worker waits to be killed."""
    settings = {"end": "2019-06-01"}
    ingest(SEVIR(folder=str(archive[0]), **settings), range(4), tmp_path / "whole.zarr", group=1)
    late, output = copy / "data" / LATE, tmp_path / "x.zarr"
    late.unlink()
    os.mkfifo(late)
    system, killed = SEVIR(folder=str(copy), **settings), []
    region = system.table.id.tolist().index("R1")

    def watch():
        work = tmp_path / ".x.zarr.unfinished"
        while not stamps(work):
            time.sleep(0.05)
        torn = shard_of(work / "store", str(region)).with_suffix(".torn.partial")
        torn.parent.mkdir(parents=True, exist_ok=True)
        torn.write_bytes(b"what Zarr had begun")
        late.unlink()
        os.link(archive[0] / "data" / LATE, late)
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
                killed.append(child.pid)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    ingest(system, range(4), output, workers=2, group=1)
    watcher.join()
    assert len(killed) == 2
    assert same_files(output, tmp_path / "whole.zarr")


def test_a_damaged_region_is_made_again_and_another_job_starts_anew(copy, tmp_path, monkeypatch):
    settings = {"folder": str(copy), "test_from": "2019-05-01"}
    system, output = SEVIR(**settings), tmp_path / "x.zarr"

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("priorflow.stages.ingest._seal", stopped)
        with pytest.raises(KeyboardInterrupt):
            ingest(system, range(6), output, group=1)
    work = tmp_path / ".x.zarr.unfinished"
    assert len(stamps(work)) == 6
    shard = shard_of(work / "store", next(iter(stamps(work))))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    ingest(system, range(6), output, group=1)
    np.testing.assert_allclose(store.read(output).state.values, system.read(range(6)), atol=1e-7)
    ingest(SEVIR(**settings, size=64), range(6), output, group=1)
    assert store.read(output).state.shape == (6, 25, 64, 64)


def test_missing_and_damaged_files_are_named_in_one_line(copy, tmp_path):
    system = SEVIR(folder=str(copy))

    def message(workers=1):
        sevir_catalog._opened.cache_clear()
        with pytest.raises(BadInput) as caught:
            ingest(system, system.rows("test"), tmp_path / "x.zarr", workers=workers, group=1)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    file = copy / "data" / LATE
    data = file.read_bytes()
    file.unlink()
    assert f"{file}: there is no such file, where event R" in message()
    file.write_bytes(data[: len(data) // 2])
    assert f"{file}: event R" in message(workers=2)
    file.write_bytes(b"no HDF5")
    assert "cannot be read: OSError" in message()
    file.write_bytes(data)
    with h5py.File(file, "r+") as opened:
        del opened["id"]
        opened["id"] = np.array(["R1", "R3", "R2"], dtype="S")
    assert "in the catalogue it is R" in message()


def test_a_folder_without_a_catalogue_or_a_column(tmp_path):
    with pytest.raises(BadInput, match=r"^\S+: there is no CATALOG.csv$"):
        _ = SEVIR(folder=str(tmp_path)).table
    pd.DataFrame(CATALOGUE).drop(columns="pct_missing").to_csv(tmp_path / "CATALOG.csv")
    with pytest.raises(BadInput, match=r"CATALOG.csv: cannot be read: ValueError: .*pct_missing"):
        _ = SEVIR(folder=str(tmp_path)).table


def test_a_row_that_is_not_there(archive):
    with pytest.raises(BadInput, match=r"^data.trajectories: row 9 of 6 events of SEVIR$"):
        SEVIR(folder=str(archive[0])).read([2, 9])
