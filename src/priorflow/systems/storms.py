"""Synthetic storms in the files of SEVIR, for where the archive is not at hand.

These are not observations. They move, grow and decay like the radar images of vertically integrated
liquid (VIL) in SEVIR and lie in the same layout and encoding, so that what reads the archive reads
them; what is measured on them says how methods compare on storms of this kind, and nothing about
published numbers.

A storm is a Gaussian field g that lives in a moving frame. Its modes are independent, each a
critically damped autoregression of second order, the stochastic cascade of STEPS with one level for
every wavelength λ:

    ĝ_k(t) = 2r ĝ_k(t-1) - r² ĝ_k(t-2) + noise,   r = exp(-Δt / T),   T = lifetime (λ / 100 km)^¾,

with a spectrum that falls like a power law, steeper below 20 km, and is longer along one direction
than across it. A smooth, steady and random wind w carries it: the frame at time t shows g at the
places where the wind was at mid-event (semi-Lagrangian). VIL is lognormal, cut off where it is dry,

    log VIL = μ + σ g,

and encoded as in SEVIR, where the logarithm is what is kept. Direction, shape, wind and wetness are
drawn per event; μ and σ are such that mean and standard deviation of the encoded values over all
events are about those published for SEVIR, 33.4 and 47.5.

References:
    | SEVIR: A Storm Event Imagery Dataset for Deep Learning Applications in Radar and Satellite
      Meteorology (Veillette, Samsi & Mattioli, 2020), NeurIPS; layout and encoding from its
      tutorial, mean and deviation from the normalisation constants of its released models
    | STEPS (Bowler et al., 2006), doi 10.1256/qj.04.100
    | A dynamic scaling of the lifetime of rain with its scale (Venugopal et al., 1999),
      doi 10.1029/1999JD900437
"""

__all__ = ["Storms", "decode", "encode", "statistics", "write_storms"]

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from priorflow.components import BadInput
from priorflow.rng import seed_of

FRAMES = 49
BATCH = 32
MINUTES = 5.0
KILOMETRES = 384.0
TORUS = 1.5  # the field is periodic on a square so many times as wide as the image
THRESHOLDS = (16, 74, 133, 160, 181, 219)
LAGS = (10, 20, 30, 60, 90, 120)  # minutes
FIRST, LAST = np.datetime64("2017-06-13T12:00"), np.datetime64("2019-11-30T12:00")  # as in SEVIR
PROJECTION = "+proj=laea +lat_0=38 +lon_0=-98 +units=m +a=6370997.0 +ellps=sphere"


def decode(vil: np.ndarray) -> np.ndarray:
    """The VIL in kg/m² of encoded values 0 to 254: 0 up to 5, linear up to 18, then exponential."""
    vil = np.asarray(vil, dtype=np.float64)
    wet = np.where(vil <= 18, (vil - 2) / 90.66, np.exp((vil - 83.9) / 38.9))
    return np.where(vil <= 5, 0.0, wet)


def encode(vil: np.ndarray) -> np.ndarray:
    """The nearest encoded value, in 8 bits, of VIL in kg/m²: the inverse of `decode`."""
    levels = np.r_[0, 6:255].astype(np.uint8)
    values = decode(levels)
    return levels[np.searchsorted((values[1:] + values[:-1]) / 2, vil)]


@dataclass(frozen=True)
class Storms:
    """The law of synthetic storm events; event i of a seed is the same whoever asks for it.

    Attributes:
        size: Pixels along each side of the 384 km: 384 in SEVIR.
        mean, std: μ in steps of the encoding above VIL 0.116 kg/m² (83.9 + 38.9 log VIL), and σ.
        variability: The share of σ² that is one number per event, its wetness.
        dry: Below this value of the same scale a pixel is dry.
        slope, steep_slope: The power spectral density per mode falls like λ^slope, and like
            λ^steep_slope below 20 km.
        lifetime: T at 100 km, in minutes.
        wind, shear: The mean speed, and the root-mean-square of its variation in space, in m/s.
    """

    size: int = 384
    mean: float = 5.0
    std: float = 78.0
    variability: float = 0.15
    dry: float = 8.0
    slope: float = 3.0
    steep_slope: float = 4.0
    lifetime: float = 120.0
    wind: float = 10.0
    shear: float = 2.5

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size: value {self.size}, allowed: even, at least 16")
        for name in ("std", "lifetime", "slope", "steep_slope"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: positive")
        for name in ("wind", "shear"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}: value {getattr(self, name)}, allowed: not negative")
        if not 0 <= self.variability < 1:
            raise ValueError(f"variability: value {self.variability}, allowed: 0 to 1")

    def event(self, seed: int, index: int) -> np.ndarray:
        """One event: encoded VIL in 8 bits, (size, size, 49)."""
        rng = np.random.default_rng(seed_of(seed, "storms", index))
        wetness = self.mean + self.std * np.sqrt(self.variability) * rng.standard_normal()
        scale = self.std * np.sqrt(1 - self.variability)
        spectrum, lifetimes = self._spectrum(rng)
        places = self._places(rng)
        frames = np.empty((self.size, self.size, FRAMES), np.uint8)
        fields = _evolving(spectrum, lifetimes, rng)
        for t, (field, place) in enumerate(zip(fields, places, strict=True)):
            log = wetness + scale * _interpolated(field, place)
            vil = np.where(log < self.dry, 0, np.exp((log - 83.9) / 38.9))
            frames[..., t] = encode(vil)
        return frames

    def _spectrum(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Amplitudes of the modes, for a field of unit variance, and their T in steps."""
        n = round(self.size * TORUS / 2) * 2
        along = np.fft.fftfreq(n, KILOMETRES / self.size)[:, None]
        across = np.fft.rfftfreq(n, KILOMETRES / self.size)
        # Bands of rain: wavelengths along an angle are longer than across it.
        angle, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, 2.5))
        u = (across * np.cos(angle) + along * np.sin(angle)) * stretch
        v = (along * np.cos(angle) - across * np.sin(angle)) / stretch
        wavenumber = np.hypot(u, v)
        wavenumber[0, 0] = np.inf
        # No power beyond the width of the image: wetness is that of the event.
        power = (wavenumber**2 + 1 / KILOMETRES**2) ** (-self.slope / 2)
        power *= (1 + (20 * wavenumber) ** 2) ** ((self.slope - self.steep_slope) / 2)
        power[0, 0] = 0
        twice = np.full(power.shape[1], 2.0)
        twice[[0, -1]] = 1
        amplitude = np.sqrt(power / (power * twice).sum())
        lifetime = self.lifetime / MINUTES * (1 / (100 * wavenumber)) ** 0.75
        lifetime[0, 0] = 1
        return amplitude.astype(np.float32) * n, lifetime

    def _places(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Where the air of each pixel is at mid-event, in pixels, (2, size, size), for all frames.

        The wind is a mean, mostly from the west, and a stream function of a few long waves. It is
        followed by pysteps on a grid of 8 km, from mid-event back and forth.
        """
        with contextlib.redirect_stdout(None):  # pysteps prints when it is imported
            from pysteps.extrapolation.semilagrangian import extrapolate

        coarse = min(self.size, 48)
        axis = (np.arange(coarse) + 0.5) / coarse
        y, x = np.meshgrid(axis, axis, indexing="ij")
        speed = self.wind * rng.gamma(4, 1 / 4)
        heading = rng.normal(0.4, 0.7)  # from the west-south-west
        velocity = np.stack([np.full_like(x, speed * f(heading)) for f in (np.cos, np.sin)])
        waves = rng.normal(0, 0.6, (6, 2)) * 2 * np.pi
        for (k, l), phase, strength in zip(
            waves, rng.uniform(0, 2 * np.pi, 6), rng.standard_normal(6), strict=True
        ):
            swing = np.cos(k * x + l * y + phase) * strength * self.shear
            velocity += np.stack([l * swing, -k * swing]) / np.sqrt(6 / 2) / np.hypot(k, l)
        pixels = velocity * 60 * MINUTES / 1000 / (KILOMETRES / coarse)
        middle = FRAMES // 2
        shifts = {middle: np.zeros_like(pixels)}
        for direction in (1, -1):
            shift = None
            for step in range(1, middle + 1):
                _, shift = extrapolate(
                    None,
                    direction * pixels,
                    1,
                    displacement_prev=shift,
                    return_displacement=True,
                )
                shifts[middle + direction * step] = shift
        return (self._fine(shifts[t]) for t in range(FRAMES))

    def _fine(self, shift: np.ndarray) -> np.ndarray:
        """Displacements (x, y) in coarse pixels to places (y, x) in pixels of the image."""
        from cv2 import INTER_CUBIC, resize

        coarse, n = shift.shape[-1], self.size
        moved = [resize(part, (n, n), interpolation=INTER_CUBIC) * (n / coarse) for part in shift]
        rows, columns = np.indices((n, n), sparse=True)
        return np.stack([rows + moved[1], columns + moved[0]])


def _evolving(
    amplitude: np.ndarray, lifetime: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The field in its moving frame, (n, n), for all frames."""
    n = amplitude.shape[0]
    r = np.exp(-1 / lifetime)
    lag_one, rest = 2 * r / (1 + r**2), (1 - r**2) / (1 + r**2)  # correlation, and what it leaves
    noise = np.sqrt((1 - r**2) ** 3 / (1 + r**2))
    r, lag_one, rest, noise = (x.astype(np.float32) for x in (r, lag_one, rest, noise))

    def draw() -> np.ndarray:
        return np.fft.rfft2(rng.standard_normal((n, n), dtype=np.float32)) * amplitude

    previous = draw()
    now = lag_one * previous + rest * draw()
    for _ in range(FRAMES):
        yield np.fft.irfft2(previous, s=(n, n))
        previous, now = now, 2 * r * now - r**2 * previous + noise * draw()


def _interpolated(field: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A periodic field (n, n) at places (2, size, size) in pixels."""
    from scipy.ndimage import map_coordinates

    return map_coordinates(field, places, order=1, mode="grid-wrap")


# ------------------------------------------------------------------------------ files of SEVIR


def write_storms(
    folder: Path | str,
    events: int,
    seed: int = 0,
    storms: Storms | None = None,
    processes: int = 1,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Path:
    """Write synthetic storms as `CATALOG.csv` and `vil/YEAR/SEVIR_VIL_SYNTHETIC_….h5`.

    Events are dated evenly over the time of SEVIR, so that its published split, test from 1 June
    2019, gives 80 : 20. A file holds half a year, `vil` (events, size, size, 49) in 8 bits and
    `id`. Files that are already there, and of the same settings, are kept. In the catalogue the
    type of an event is "Synthetic", its identifier begins with SYN, and it has no place.

    Args:
        folder: Where to write.
        events: How many.
        seed: The master seed.
        storms: The law of the events.
        processes: How many to make at a time; the files do not depend on it.
        progress: What shows how far it is, while it goes through the names of the files.

    Returns:
        The catalogue.

    Raises:
        BadInput: The folder has files of other settings, or of the archive itself.
    """
    if events < 1:
        raise ValueError(f"events: value {events}, allowed: at least 1")
    folder, storms = Path(folder), storms or Storms()
    _require_synthetic(folder / "CATALOG.csv")
    origin = json.dumps({"synthetic": True, "events": events, "seed": seed, **asdict(storms)})
    times = FIRST + ((LAST - FIRST) * (2 * np.arange(events) + 1)) // (2 * events)
    times = times.astype("datetime64[m]")
    event = partial(storms.event, seed)
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the threads of a library
    catalogue = []
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:  # they start when first asked
        over = map if processes == 1 else pool.map
        files = _files(times)
        for name in progress(list(files)):
            path, members = folder / name, files[name]
            if not _kept(path, origin):
                _write_file(path, members, origin, _made(over, event, members))
            catalogue += _rows(path, name, times[members], storms.size)
    return _write_catalogue(folder / "CATALOG.csv", catalogue)


def _require_synthetic(catalogue: Path) -> None:
    """Refuse to write over the catalogue of observations."""
    import pandas as pd

    if not catalogue.exists():
        return
    types = pd.read_csv(catalogue).reindex(columns=["event_type"])
    if types.ne("Synthetic").any(axis=None):
        raise BadInput(f"{catalogue}: not of synthetic storms; name another folder")


def _identifier(index: int) -> str:
    return f"SYN{index:06d}"


def _files(times: np.ndarray) -> dict[str, list[int]]:
    """The names of the files and the events of each."""
    files: dict[str, list[int]] = {}
    for index, time in enumerate(times.tolist()):
        half = "0101_0630" if time.month <= 6 else "0701_1231"
        name = f"vil/{time.year}/SEVIR_VIL_SYNTHETIC_{time.year}_{half}.h5"
        files.setdefault(name, []).append(index)
    return files


def _kept(path: Path, origin: str) -> bool:
    """Whether a file is there; it has then to be of the same settings."""
    import h5py

    if not path.exists():
        return False
    with h5py.File(path) as file:
        if file.attrs.get("origin") != origin:
            raise BadInput(f"{path}: storms of other settings; name another folder or remove it")
    return True


def _write_file(
    path: Path, members: Sequence[int], origin: str, events: Iterable[np.ndarray]
) -> None:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(f".{os.getpid()}.part")
    try:
        with h5py.File(partial_path, "w") as file:
            file.attrs["origin"] = origin
            file["id"] = np.array([_identifier(i) for i in members], dtype="S")
            for row, frames in enumerate(events):
                if row == 0:
                    file.create_dataset(
                        "vil",
                        (len(members), *frames.shape),
                        frames.dtype,
                        chunks=(1, *frames.shape),
                        compression="gzip",
                        compression_opts=1,
                    )
                file["vil"][row] = frames
        partial_path.rename(path)  # whole or not at all
    finally:
        partial_path.unlink(missing_ok=True)


def _made(over: Callable, event: Callable, members: Sequence[int]) -> Iterator[np.ndarray]:
    """The events in their order, so many at a time as memory holds."""
    for first in range(0, len(members), BATCH):
        yield from over(event, members[first : first + BATCH])


def _rows(path: Path, name: str, times: np.ndarray, size: int) -> list[Mapping]:
    """The lines of the catalogue of one file."""
    import h5py

    offsets = ":".join(str(round(MINUTES * (t - FRAMES // 2))) for t in range(FRAMES))
    with h5py.File(path) as file:
        ranges = [(int(vil.min()), int(vil.max())) for vil in file["vil"]]
        identifiers = file["id"].asstr()[:]
    return [
        {
            "id": identifier,
            "file_name": name,
            "file_index": row,
            "img_type": "vil",
            "time_utc": str(time).replace("T", " ") + ":00",
            "minute_offsets": offsets,
            "episode_id": None,
            "event_id": None,
            "event_type": "Synthetic",
            **dict.fromkeys(("llcrnrlat", "llcrnrlon", "urcrnrlat", "urcrnrlon")),
            "proj": PROJECTION,
            "size_x": size,
            "size_y": size,
            "height_m": KILOMETRES * 1000,
            "width_m": KILOMETRES * 1000,
            "data_min": low,
            "data_max": high,
            "pct_missing": 0.0,
        }
        for row, (identifier, time, (low, high)) in enumerate(
            zip(identifiers, times, ranges, strict=True)
        )
    ]


def _write_catalogue(path: Path, rows: list[Mapping]) -> Path:
    import pandas as pd

    partial_path = path.with_suffix(f".{os.getpid()}.part")
    pd.DataFrame(rows).to_csv(partial_path, index=False)
    partial_path.rename(path)
    return path


# ------------------------------------------------------------------------------ statistics


def statistics(events: Iterable[np.ndarray], minutes: float = MINUTES) -> dict[str, float]:
    """What can be compared between synthetic and observed storms.

    Published for SEVIR are the mean and the standard deviation only (33.44 and 47.54, of the
    training data of the released models). No source was found for the rest; they are for checks
    against the archive where it is at hand.

    Args:
        events: Encoded VIL of each event, 0 to 254, (size, size, time), 384 km wide.
        minutes: The time between two frames.

    Returns:
        `mean` and `std` of all pixels; `dry`, the share of the value 0; `above_16` … `above_219`,
        shares at or above the thresholds of the SEVIR challenge; `slope`, minus the exponent of the
        radially averaged power spectral density between wavelengths of 100 and 16 km (or 4 pixels);
        `correlation_10` … `correlation_120`, 1 - E(x(t + lag) - x(t))² / 2 var(x) at a fixed place,
        for lags in minutes that the frames have.
    """
    with contextlib.redirect_stdout(None):
        from pysteps.utils.spectral import rapsd

    counts = np.zeros(256)
    squares: dict[int, list[float]] = {}
    spectra, size = [], 0
    for event in events:
        size = event.shape[0]
        counts += np.bincount(event.ravel(), minlength=256)
        x = event.astype(np.float32)
        spectra += [rapsd(x[..., t], fft_method=np.fft) for t in range(0, x.shape[-1], 12)]
        for lag in LAGS:
            step = round(lag / minutes)
            if 0 < step < x.shape[-1]:
                difference = x[..., step:] - x[..., :-step]
                squares.setdefault(lag, []).append(float(np.mean(difference**2)))
    values, share = np.arange(256), counts / counts.sum()
    mean = share @ values
    variance = share @ (values - mean) ** 2
    wavelength = KILOMETRES / np.maximum(np.arange(len(spectra[0])), 1)
    fitted = (wavelength <= 100) & (wavelength >= max(16, 4 * KILOMETRES / size))
    slope, _ = np.polyfit(
        np.log(wavelength[fitted]), np.log(np.mean(spectra, axis=0)[fitted]), deg=1
    )
    return {
        "mean": float(mean),
        "std": float(np.sqrt(variance)),
        "dry": float(share[0]),
        **{f"above_{threshold}": float(share[threshold:].sum()) for threshold in THRESHOLDS},
        "slope": float(slope),
        **{
            f"correlation_{lag}": float(1 - np.mean(values) / (2 * variance))
            for lag, values in squares.items()
        },
    }
