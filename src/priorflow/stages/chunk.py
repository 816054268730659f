"""Chunk: one rechunked, compressed, standardised store per split, by Dask."""

__all__ = ["chunk"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from torch import Tensor

from priorflow import store
from priorflow.components import build
from priorflow.stages.progress import log


def chunk(
    shards: Sequence[Path],
    output: Path,
    *,
    system: Mapping[str, Any],
    chunks: Mapping[str, int],
    base: Path,
) -> None:
    """Join simulated shards to state (trajectory, time, \\*space) in standardised units.

    Args:
        shards: The stores of the simulate stage.
        output: The store to write.
        system: The system's component, which knows mean and standard deviation.
        chunks: Lengths of the chunks, by dimension.
        base: The folder of the experiment file.
    """
    import dask
    from dask.diagnostics import ProgressBar

    parts = [store.read(path, packed=True).chunk() for path in shards]
    data = xr.concat(parts, dim="trajectory", combine_attrs="override").sortby("trajectory")
    built = build(system, base)
    scaled = _standardised(data.state, built.mean, built.std)
    lengths = {d: chunks.get(d, n) for d, n in scaled.sizes.items()}
    out = scaled.to_dataset(name="state").chunk(lengths)
    out.attrs = {
        **data.attrs,
        "units": "standardised: (x - mean) / std",
        "natural_units": built.units,
        "mean": built.mean.tolist(),
        "std": built.std.tolist(),
    }
    log(f"chunk: {dict(out.sizes)} into chunks of {lengths}")
    with ProgressBar(minimum=1), dask.config.set(scheduler="threads"):
        store.write(out, output, chunks=lengths)
        rms = float((store.read(output).chunk().state ** 2).mean() ** 0.5)
    log(f"chunk: root mean square {rms:.3f}; networks are made for about 1")


def _standardised(state: xr.DataArray, mean: Tensor, std: Tensor) -> xr.DataArray:
    """(x - mean) / std; of packed integers it is the scale and the offset that change."""
    if "scale_factor" in state.attrs:
        scale, offset = state.attrs["scale_factor"], state.attrs.get("add_offset", 0.0)
        packing = {
            "scale_factor": scale / float(std),
            "add_offset": (offset - float(mean)) / float(std),
        }
        return state.assign_attrs(packing)
    space = state.dims[2:]
    mean, std = (xr.DataArray(c.numpy(), dims=space[len(space) - c.ndim :]) for c in (mean, std))
    return ((state - mean) / std).astype("float32")
