"""Synthetic storms: the encoding, the files, the statistics, and that they can be had again."""

import h5py
import numpy as np
import pandas as pd
import pytest

from priorflow.components import BadInput
from priorflow.solvers.assimilation.extrapolation import motion
from priorflow.systems.sevir import SEVIR
from priorflow.systems.storms import FRAMES, Storms, decode, encode, statistics, write_storms

# The columns of the catalogue of the archive, in their order.
COLUMNS = (
    "id,file_name,file_index,img_type,time_utc,minute_offsets,episode_id,event_id,event_type,"
    "llcrnrlat,llcrnrlon,urcrnrlat,urcrnrlon,proj,size_x,size_y,height_m,width_m,data_min,data_max,"
    "pct_missing"
)
SMALL = Storms(size=32)


@pytest.fixture(scope="module")
def events() -> list[np.ndarray]:
    """Enough of them for statistics, coarse ones."""
    storms = Storms(size=64)
    return [storms.event(0, i) for i in range(24)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storms")
    write_storms(folder, events=10, seed=3, storms=SMALL)
    return folder


def test_encoding_is_that_of_the_archive():
    """0 up to 5, (X - 2) / 90.66 up to 18, exp((X - 83.9) / 38.9) beyond."""
    assert decode(np.array([0, 5, 11, 18])) == pytest.approx([0, 0, 9 / 90.66, 16 / 90.66])
    assert decode(np.array([74, 219])) == pytest.approx([np.exp(-9.9 / 38.9), np.exp(135.1 / 38.9)])


def test_encode_is_the_inverse_of_decode():
    codes = np.r_[0, 6:255]
    assert (encode(decode(codes)) == codes).all()
    assert encode(np.array([0.0, 1e9])).tolist() == [0, 254]
    vil = np.geomspace(0.3, 70, 99)
    assert decode(encode(vil)) == pytest.approx(vil, rel=1.01 * 0.5 / 38.9)


def test_an_event_has_its_own_stream():
    event = SMALL.event(0, 5)
    assert (event.shape, event.dtype) == ((32, 32, FRAMES), np.uint8)
    assert (SMALL.event(0, 5) == event).all()
    assert (SMALL.event(0, 6) != event).any()
    assert (SMALL.event(1, 5) != event).any()


def test_statistics_by_hand():
    """Pixels that are dry and wet by turns: the same after two frames, the opposite after one."""
    start = np.random.default_rng(0).integers(2, size=(32, 32, 1))
    blinking = ((start + np.arange(24)) % 2 * 200).astype(np.uint8)
    found = statistics([blinking])
    assert found["mean"] == found["std"] == 100
    assert found["dry"] == found["above_181"] == 0.5
    assert found["above_219"] == 0
    assert found["correlation_10"] == 1
    assert "correlation_120" not in found
    assert statistics([blinking], minutes=10)["correlation_10"] == -1


def test_statistics_find_the_slope():
    """White noise has none, and its square power spectrum is that of λ⁴."""
    noise = np.random.default_rng(0).standard_normal((128, 128, 25))
    k = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    k[0, 0] = np.inf
    for slope in (0, 2, 4):
        x = np.fft.ifft2(
            np.fft.fft2(noise, axes=(0, 1)) * k[..., None] ** (-slope / 2), axes=(0, 1)
        )
        x = np.round(125 + 25 * x.real / x.real.std()).astype(np.uint8)
        assert statistics([x])["slope"] == pytest.approx(slope, abs=0.15)


def test_storms_are_like_those_of_the_archive(events):
    """Published are the mean, 33.44, and the standard deviation, 47.54; of few events here."""
    found = statistics(events)
    assert found["mean"] == pytest.approx(33.44, rel=0.25)
    assert found["std"] == pytest.approx(47.54, rel=0.2)
    assert 0.4 < found["dry"] < 0.7
    assert 0.001 < found["above_219"] < found["above_133"] < 0.1
    assert 2 < found["slope"] < 3.5
    lags = [found[f"correlation_{lag}"] for lag in (10, 20, 30, 60, 90, 120)]
    assert lags == sorted(lags, reverse=True)
    assert 0.85 < lags[0] < 0.98
    assert 0.4 < lags[3] < 0.8


def test_storms_move_with_a_steady_wind():
    """Storms that live for ever: in calm air nothing happens, in a uniform wind all move alike."""
    calm = Storms(size=64, lifetime=1e7, wind=0, shear=0).event(0, 1)
    assert np.abs(calm[..., -1].astype(float) - calm[..., 0]).mean() < 1
    moving = Storms(size=64, lifetime=1e7, shear=0).event(0, 1).astype(float)
    u, v = motion(np.moveaxis(moving[..., :4], -1, 0)).mean((-2, -1)) * 12
    for lag in (12, 24):  # an hour and two: the shift of the pattern, by correlation
        shift = _shift(moving[..., 0], moving[..., lag])
        assert shift == pytest.approx([v * lag / 12, u * lag / 12], abs=2.5)


def _shift(before: np.ndarray, after: np.ndarray) -> list[int]:
    """By how many rows and columns an image has moved, at most half its size."""
    before, after = (
        np.pad(x - x.mean(), ((0, x.shape[0]), (0, x.shape[1]))) for x in (before, after)
    )
    product = np.fft.irfft2(np.fft.rfft2(after) * np.fft.rfft2(before).conj(), s=after.shape)
    peak = np.unravel_index(product.argmax(), product.shape)
    return [i - n if i > n // 2 else i for i, n in zip(peak, product.shape, strict=True)]


def test_files_are_those_of_the_archive(archive):
    """What the archive's own description says of its files."""
    catalogue = pd.read_csv(archive / "CATALOG.csv", parse_dates=["time_utc"])
    assert ",".join(catalogue.columns) == COLUMNS
    assert len(catalogue) == catalogue.id.nunique() == 10
    assert (catalogue.img_type == "vil").all()
    assert catalogue.event_type.eq("Synthetic").all()
    offsets = [int(offset) for offset in catalogue.minute_offsets[0].split(":")]
    assert offsets == list(range(-120, 121, 5))
    for name, rows in catalogue.groupby("file_name"):
        start, end = (f"{rows.time_utc.dt.year.iloc[0]}{day}" for day in name[-12:-3].split("_"))
        assert name.startswith(f"vil/{start[:4]}/SEVIR_VIL_SYNTHETIC_{start[:4]}_")
        assert rows.time_utc.between(start, f"{end} 23:59").all()
        with h5py.File(archive / name) as file:
            assert file["vil"].shape == (len(rows), 32, 32, FRAMES)
            assert file["vil"].dtype == np.uint8
            for row in rows.itertuples():
                vil = file["vil"][row.file_index]
                assert file["id"].asstr()[row.file_index] == row.id
                assert (vil == SMALL.event(3, int(row.id[3:]))).all()
                assert (row.data_min, row.data_max) == (vil.min(), vil.max())


def test_the_published_split_gives_a_fifth_to_the_test(archive):
    catalogue = pd.read_csv(archive / "CATALOG.csv", parse_dates=["time_utc"])
    assert (catalogue.time_utc >= "2019-06-01").mean() == pytest.approx(0.2)


def test_the_reader_of_the_archive_reads_them(archive):
    """Every event at its place, every second frame, block maxima."""
    system = SEVIR(folder=str(archive), size=16, every=2)
    assert len(system.rows("test")) == 2
    for row, name in enumerate(system.table.id):
        blocks = SMALL.event(3, int(name[3:]))[..., ::2].reshape(16, 2, 16, 2, -1).max((1, 3))
        read = system.read([row])[0].numpy() * 255
        assert np.abs(read - np.moveaxis(blocks, -1, 0)).max() < 1e-3


def test_files_do_not_depend_on_processes(archive, tmp_path):
    write_storms(tmp_path, events=10, seed=3, storms=SMALL, processes=2)
    names = [path.relative_to(archive) for path in archive.rglob("*.*")]
    assert len(names) == 6
    for name in names:
        assert (tmp_path / name).read_bytes() == (archive / name).read_bytes()


def test_a_whole_file_is_kept_and_a_lost_one_made_again(archive, tmp_path):
    catalogue = write_storms(tmp_path, events=10, seed=3, storms=SMALL)
    kept, lost = sorted(tmp_path.rglob("*.h5"))[:2]
    before = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    catalogue.unlink()
    write_storms(tmp_path, events=10, seed=3, storms=SMALL)
    assert (kept.stat().st_mtime_ns, lost.read_bytes()) == before
    assert catalogue.read_bytes() == (archive / "CATALOG.csv").read_bytes()


def test_storms_of_other_settings_are_not_mixed(archive):
    with pytest.raises(BadInput, match="storms of other settings"):
        write_storms(archive, events=10, seed=4, storms=SMALL)


def test_observations_are_not_overwritten(tmp_path):
    (tmp_path / "CATALOG.csv").write_text("id,event_type\nS1,Hail\n")
    with pytest.raises(BadInput, match="not of synthetic storms"):
        write_storms(tmp_path, events=2, storms=SMALL)


def test_bad_settings_are_refused():
    for settings in ({"size": 15}, {"std": 0}, {"wind": -1}, {"variability": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: value"):
            Storms(**settings)
    with pytest.raises(ValueError, match="events: value 0, allowed: at least 1"):
        write_storms("nowhere", events=0)
