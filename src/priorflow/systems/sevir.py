"""SEVIR: storms over the United States as images of vertically integrated liquid (VIL).

A state is an image of the VIL seen by radar, 384 km wide, as it is encoded in the archive (0 to
255) and divided by 255. A trajectory is an event of four hours.

Reference:
    SEVIR: A Storm Event Imagery Dataset for Deep Learning Applications in Radar and Satellite
    Meteorology (Veillette, Samsi & Mattioli, 2020), NeurIPS
"""

__all__ = ["SEVIR"]

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from priorflow.components import BadInput
from priorflow.rng import generator
from priorflow.systems.sevir_catalog import FRAMES, MINUTES, Event, images_of, read_catalogue

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

BUCKET = "s3://sevir"
KILOMETRES = 384.0


@dataclass(frozen=True)
class SEVIR:
    """The events of SEVIR or SEVIR-LR, an archive in the place of a simulator.

    Images are maxima over squares of pixels, as in SEVIR-LR. Test events are those from a date on,
    as published; of those before it a random share is for validation. The rows are those of
    training, then of validation, then of the test, in random order, so that the first of a split
    are a fair sample of it.

    Attributes:
        source: `archive`, or `storms` for synthetic ones in its layout (`priorflow storms`).
        storms, pixels: How many synthetic storms, and the pixels per side of their images.
        folder: A path or an address (s3://…); otherwise the environment variable SEVIR names it,
            otherwise it is the public bucket, of which only what is asked for is read.
        size: Pixels per side, a divisor of 384 (of 128 for SEVIR-LR).
        every: Which frames, of those 5 minutes apart: a divisor of 48, even for SEVIR-LR.
        start, end: Dates; events are not before the first and before the second. "" for no limit.
        event_types: The types to keep, as in the catalogue; "Random" are events without a type.
            Empty for all.
        missing: The largest share of missing pixels, 0 to 1.
        test_from: The date of the first test event.
        valid: The share of validation events among those before it.
        seed: The seed of the order.
        location, scale: What standardises a state: (x - location) / scale. The default is that of
            FlowDAS, 10 (x - 0.5).
    """

    source: Literal["archive", "storms"] = "archive"
    storms: int = 0
    pixels: int = 384
    folder: str = ""
    size: int = 128
    every: int = 2
    start: str = ""
    end: str = ""
    event_types: Sequence[str] = ()
    missing: float = 0.0
    test_from: str = "2019-06-01"
    valid: float = 0.1
    seed: int = 0
    location: float = 0.5
    scale: float = 0.1

    units = "VIL / 255"

    def __post_init__(self) -> None:
        if self.source not in ("archive", "storms"):
            raise ValueError(f"source: value {self.source!r}, allowed: archive, storms")
        if self.source == "storms" and self.storms < 1:
            raise ValueError(f"storms: value {self.storms}, allowed: at least 1")
        for name, whole in (("size", 384), ("every", FRAMES - 1)):
            if (value := getattr(self, name)) < 1 or whole % value:
                raise ValueError(f"{name}: value {value}, allowed: divisors of {whole}")
        for name in ("missing", "valid"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}: value {value}, allowed: 0 to 1")
        if not self.scale > 0:
            raise ValueError(f"scale: value {self.scale}, allowed: positive")
        for name in ("start", "end", "test_from"):
            try:
                np.datetime64(str(getattr(self, name)))
            except ValueError:
                raise ValueError(
                    f"{name}: value {getattr(self, name)!r}, allowed: a date such as 2019-06-01"
                ) from None

    @property
    def shape(self) -> tuple[int, int]:
        """(size, size)."""
        return (self.size, self.size)

    @property
    def dt(self) -> float:
        """Minutes between two states."""
        return float(MINUTES * self.every)

    @property
    def steps(self) -> int:
        """The states of an event."""
        return (FRAMES - 1) // self.every + 1

    @property
    def mean(self) -> Tensor:
        """`location`, a scalar."""
        return torch.tensor(self.location)

    @property
    def std(self) -> Tensor:
        """`scale`, a scalar."""
        return torch.tensor(self.scale)

    @property
    def positions(self) -> Tensor:
        """The centres of the pixels in kilometres, (size², 2)."""
        axis = (torch.arange(self.size) + 0.5) * (KILOMETRES / self.size)
        return torch.cartesian_prod(axis, axis)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """The chosen events, in the order of the rows: id, time_utc, event_type, split, ….

        Raises:
            BadInput: There is no catalogue, or no event is chosen.
        """
        found = read_catalogue(self._where)
        types = found.event_type.fillna("Random")
        kept = found.pct_missing <= self.missing
        if self.event_types:
            if unknown := sorted(set(self.event_types) - set(types)):
                raise BadInput(
                    f"system.event_types: {unknown[0]!r} is unknown; there are: "
                    f"{', '.join(sorted(types.unique()))}"
                )
            kept &= types.isin(list(self.event_types))
        if self.start:
            kept &= found.time_utc >= str(self.start)
        if self.end:
            kept &= found.time_utc < str(self.end)
        found = found[kept]
        if found.empty:
            raise BadInput(f"{self._where}: no event of VIL is as the system asks for")
        order = torch.randperm(len(found), generator=generator(self.seed, "sevir"))
        found = found.iloc[order.numpy()]
        test = found.time_utc >= str(self.test_from)
        before = (~test).cumsum()[~test]
        found["split"] = "train"
        found.loc[test, "split"] = "test"
        found.loc[before.index[before > round((1 - self.valid) * len(before))], "split"] = "valid"
        rank = found.split.map({"train": 0, "valid": 1, "test": 2})
        return found.loc[rank.sort_values(kind="stable").index].reset_index(drop=True)

    @property
    def _where(self) -> str:
        if self.source == "storms" and not self.folder:
            raise BadInput(
                "system.folder: missing; `priorflow storms` writes synthetic storms to it"
            )
        return self.folder or os.environ.get("SEVIR", "") or BUCKET

    @property
    def count(self) -> int:
        """The number of events."""
        return len(self.table)

    def rows(self, split: str) -> range:
        """The rows of a split: train, valid or test."""
        chosen = np.flatnonzero(self.table.split == split)
        return range(chosen[0], chosen[-1] + 1) if chosen.size else range(0)

    def events(self, rows: Sequence[int]) -> list[Event]:
        """Where the events `rows` lie.

        Raises:
            BadInput: There is no such row.
        """
        if not all(0 <= row < self.count for row in rows):
            raise BadInput(f"data.trajectories: row {max(rows)} of {self.count} events of SEVIR")
        columns = ("id", "file", "file_index", "pct_missing")
        chosen = (self.table[column].iloc[list(rows)] for column in columns)
        return [Event(i, f, int(k), float(m)) for i, f, k, m in zip(*chosen, strict=True)]

    def read(self, rows: Sequence[int]) -> Tensor:
        """The events `rows`, shape (n, steps, size, size), in [0, 1].

        Raises:
            BadInput: There is no such row, or a file is missing or damaged.
        """
        images = np.stack([images_of(event, self.size, self.every) for event in self.events(rows)])
        return torch.from_numpy(images) / 255

    def dataset(self, rows: Sequence[int], group: int = 1) -> "xr.Dataset":
        """The events `rows` lazily: state (trajectory, time, y, x) in 8 bits, a Dask array.

        Nothing but the catalogue is read before it is computed, and then `group` events by a task.
        Compute it with processes: threads wait for HDF5's lock.
        """
        import dask.array as da
        import xarray as xr

        events = da.from_array(np.array(self.events(rows), dtype=object), chunks=group)
        state = da.map_blocks(
            _block,
            events,
            self.size,
            self.every,
            new_axis=(1, 2, 3),
            chunks=(events.chunks[0], (self.steps,), *((n,) for n in self.shape)),
            dtype=np.uint8,
            meta=np.empty((0, 0, 0, 0), np.uint8),
        )
        attributes = {"units": self.units, "scale_factor": 1 / 255}
        return xr.Dataset(
            {"state": (("trajectory", "time", "y", "x"), state, attributes)},
            self.coordinates(rows),
            {"dt": self.dt},
        )

    def coordinates(self, rows: Sequence[int]) -> dict:
        """The coordinates of the events `rows`: trajectory, event (its identifier), time_utc."""
        chosen = self.table.iloc[list(rows)]
        return {
            "trajectory": list(rows),
            "event": ("trajectory", chosen.id.to_numpy(dtype=object)),
            "time_utc": ("trajectory", chosen.time_utc.to_numpy(dtype="datetime64[s]")),
        }


def _block(events: np.ndarray, size: int, every: int) -> np.ndarray:
    return np.stack([images_of(event, size, every) for event in events])
