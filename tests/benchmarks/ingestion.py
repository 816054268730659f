"""How fast, and in how much memory, SEVIR's files are ingested, against a plain loop.

    python tests/benchmarks/ingestion.py --folder /scratch

Makes an archive of SEVIR's layout (`--sizes`, in GB of VIL), of synthetic storms that are flipped
and rolled, and ingests it by Dask workers, and by one loop that reads an event, takes maxima of 3²
pixels and compresses them to the same level: `plain` with the maximum over the axes of a block,
`slices` with the faster one of the package. All get the files from the page cache where it holds
them. Memory is the sum over the process and its children, shared pages counted in each. Seconds are
those of the work, the start of the scheduler and the workers included, and of the whole program,
where the package imports torch; those of the CPU tell what a busy machine hides. The archive is
removed at the end.
"""

import argparse
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np  # what is imported here, every process of the ingestion imports again

SIDE, FRAMES = 384, 49
EVENT = SIDE**2 * FRAMES
PER_FILE = 200
TARGET, MEMORY = 1.4, 2.0


def make_archive(folder: Path, events: int, distinct: int, compression: int | None) -> None:
    """`events` events in files of a half year, as SEVIR has them, made of `distinct` storms."""
    import h5py
    import pandas as pd

    from priorflow.systems.storms import Storms

    storms = [Storms().event(0, index) for index in range(distinct)]
    rng, rows = np.random.default_rng(0), []
    times = pd.date_range("2017-06-13", "2019-11-30", periods=events)
    for first in range(0, events, PER_FILE):
        members = range(first, min(first + PER_FILE, events))
        year = times[first].year
        name = f"vil/{year}/SEVIR_VIL_SYNTHETIC_{year}_{first:06d}.h5"
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "data" / name, "w") as file:
            file["id"] = np.array([f"SYN{i:06d}" for i in members], dtype="S")
            shape = (SIDE, SIDE, FRAMES)
            vil = file.create_dataset(
                "vil", (len(members), *shape), "u1", chunks=(1, *shape), compression=compression
            )
            for row, index in enumerate(members):
                storm = storms[index % distinct]
                axes = tuple(axis for axis in (0, 1) if rng.random() < 0.5)
                vil[row] = np.roll(np.flip(storm, axes), rng.integers(SIDE, size=2), (0, 1))
        rows += [
            {
                "id": f"SYN{index:06d}",
                "file_name": name,
                "file_index": row,
                "img_type": "vil",
                "time_utc": times[index],
                "event_type": "Synthetic",
                "pct_missing": 0.0,
            }
            for row, index in enumerate(members)
        ]
    pd.DataFrame(rows).to_csv(folder / "CATALOG.csv", index=False)


def run_plain(folder: Path, events: int, output: Path, *, slices: bool) -> float:
    """One process: read, maximum, compress, event after event. Returns the seconds."""
    import h5py
    import pandas as pd
    from numcodecs import Zstd

    from priorflow.systems.sevir_catalog import block_maximum

    begin = time.perf_counter()
    codec, table = Zstd(level=3), pd.read_csv(folder / "CATALOG.csv")[:events]
    output.mkdir()
    for name, rows in table.groupby("file_name"):
        with h5py.File(folder / "data" / name) as file:
            for event, index in zip(rows.id, rows.file_index, strict=True):
                images = file["vil"][index]
                if slices:
                    small = block_maximum(images, 3, 2)
                else:
                    blocks = images[..., ::2].reshape(128, 3, 128, 3, -1).max((1, 3))
                    small = np.ascontiguousarray(np.moveaxis(blocks, -1, 0))
                (output / event).write_bytes(codec.encode(small))
    return time.perf_counter() - begin


def run_ours(folder: Path, events: int, output: Path, *, workers: int) -> float:
    """The ingestion of the package, of the first `events` of the catalogue. Returns the seconds."""
    import pandas as pd

    from priorflow.stages.ingest import ingest
    from priorflow.systems.sevir import SEVIR

    begin = time.perf_counter()
    last = pd.read_csv(folder / "CATALOG.csv", parse_dates=["time_utc"]).time_utc[events - 1]
    system = SEVIR(folder=str(folder), end=str(last + pd.Timedelta(seconds=1)))
    ingest(system, range(system.count), output, workers=workers)
    return time.perf_counter() - begin


def agree(plain: Path, ours: Path) -> bool:
    """Whether both wrote the same images."""
    import xarray as xr
    from numcodecs import Zstd

    data = xr.open_zarr(ours, mask_and_scale=False, chunks=None)
    return len(data.event) == len(list(plain.iterdir())) and all(
        data.state[i].values.tobytes() == Zstd().decode((plain / event).read_bytes())
        for i, event in enumerate(data.event.values)
    )


def measure(method: str, folder: Path, events: int, output: Path, workers: int) -> dict:
    """Run a method in a process of its own: seconds, seconds of CPU, peak memory in GB."""
    import psutil

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin, peak = time.perf_counter(), 0
    arguments = [method, str(folder), str(events), str(output), str(workers)]
    child = subprocess.Popen(
        [sys.executable, __file__, "--run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    root = psutil.Process(child.pid)
    while child.poll() is None:
        try:
            tree = [root, *root.children(recursive=True)]
            peak = max(peak, sum(process.memory_info().rss for process in tree))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    said, failure = child.communicate()
    if child.returncode:
        sys.exit(f"{method} failed:\n{failure}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "work": float(said),
        "seconds": time.perf_counter() - begin,
        "cpu": cpu,
        "memory": peak / 1e9,
    }


def main() -> None:
    """Make the archive, run both, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where there is room")
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 5, 10], help="GB of VIL")
    parser.add_argument("--distinct", type=int, default=50, help="storms that are generated")
    parser.add_argument("--compression", type=int, help="gzip level of the files; none if absent")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and remove the archive
    if arguments.run:
        method, folder, events, output, workers = arguments.run
        settings = (Path(folder), int(events), Path(output))
        if method == "ours":
            print(run_ours(*settings, workers=int(workers)))
        else:
            print(run_plain(*settings, slices=method == "slices"))
        return
    need, free = 1.3e9 * max(arguments.sizes), shutil.disk_usage(arguments.folder).free
    if free < need:
        sys.exit(f"{arguments.folder}: {free / 1e9:.0f} GB are free, {need / 1e9:.0f} are needed")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        root = Path(scratch)
        counts = {size: round(size * 1e9 / EVENT) for size in sorted(arguments.sizes)}
        make_archive(root, max(counts.values()), arguments.distinct, arguments.compression)
        print("| GB | method | work s | all s | CPU s | peak GB |\n|---|---|---|---|---|---|")
        memory = {}
        for size, events in counts.items():
            found = {}
            for method in ("plain", "slices", "ours"):
                found[method] = measure(method, root, events, root / method, arguments.workers)
                f = found[method]
                print(
                    f"| {size:g} | {method} | {f['work']:.1f} | {f['seconds']:.1f} "
                    f"| {f['cpu']:.1f} | {f['memory']:.2f} |",
                    flush=True,
                )
            same = agree(root / "plain", root / "ours") and agree(root / "slices", root / "ours")
            memory[size] = found["ours"]["memory"]
            for method in ("plain", "slices"):
                ratio = found[method]["work"] / found["ours"]["work"]
                print(f"{size:g} GB: {ratio:.2f} times as fast as {method} (goal {TARGET})")
            print(f"{size:g} GB: the same images: {same}; peak {memory[size]:.2f} GB (≤ {MEMORY})")
            for method in found:
                shutil.rmtree(root / method)
        growth = memory[max(memory)] / memory[min(memory)]
        print(f"memory at {max(memory):g} GB / at {min(memory):g} GB: {growth:.2f}")


if __name__ == "__main__":
    main()
