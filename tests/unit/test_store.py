"""Stores are whole or absent, and damage is noticed."""

import numpy as np
import pytest
import xarray as xr

from priorflow import store


@pytest.fixture
def dataset():
    values = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32")
    return xr.Dataset({"state": (("trajectory", "time", "component"), values)}, attrs={"dt": 0.1})


def test_round_trip(tmp_path, dataset):
    store.write(dataset, tmp_path / "x.zarr", chunks={"trajectory": 2})
    back = store.read(tmp_path / "x.zarr")
    xr.testing.assert_identical(back.load(), dataset)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zarr", "x.zarr.manifest.json"]


def test_the_same_data_give_the_same_bytes(tmp_path, dataset):
    for name in ("a", "b"):
        store.write(dataset, tmp_path / f"{name}.zarr")
    manifests = [store.manifest_of(tmp_path / f"{n}.zarr").read_text() for n in ("a", "b")]
    assert manifests[0] == manifests[1]


def test_lazy_arrays_are_written_in_chunks(tmp_path, dataset):
    store.write(dataset.chunk(trajectory=3), tmp_path / "x.zarr", chunks={"trajectory": 3})
    xr.testing.assert_identical(store.read(tmp_path / "x.zarr").load(), dataset)
    assert len(list((tmp_path / "x.zarr/state/c").iterdir())) == 2


def chunk_file(path):
    return next(file for file in sorted((path / "state/c").rglob("*")) if file.is_file())


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_damage_is_one_line_that_names_store_and_file(tmp_path, dataset, damage):
    path = tmp_path / "x.zarr"
    store.write(dataset, path)
    file = chunk_file(path)
    content = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(content[:-5])
    elif damage == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        file.unlink()
    with pytest.raises(store.StoreError) as caught:
        store.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert file.relative_to(path).as_posix() in message
    assert "\n" not in message


def test_a_failed_write_leaves_the_old_store(tmp_path, dataset):
    path = tmp_path / "x.zarr"
    store.write(dataset, path)
    lazy = dataset.chunk(trajectory=3)
    broken = lazy.assign(
        state=xr.apply_ufunc(_fail, lazy.state, dask="parallelized", output_dtypes=["float32"])
    )
    with pytest.raises(RuntimeError, match="on purpose"):
        store.write(broken, path, chunks={"trajectory": 3})
    xr.testing.assert_identical(store.read(path).load(), dataset)


def _fail(values):
    raise RuntimeError("on purpose")


def test_missing_store(tmp_path):
    with pytest.raises(store.StoreError, match="there is no such store"):
        store.read(tmp_path / "nope.zarr")
