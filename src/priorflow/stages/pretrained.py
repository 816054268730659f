"""Shipped weights in the place of training."""

__all__ = ["use_pretrained"]

import json
import shutil
from pathlib import Path

from priorflow.components import BadInput
from priorflow.stages.progress import log


def use_pretrained(source: Path, output: Path, *, digest: str, code: str) -> None:
    """Copy shipped weights, and say so if the code that trained them was another."""
    record = json.loads((source / "config.json").read_text())
    if record["digest"] != digest:
        raise BadInput(f"{source}: these weights belong to another configuration")
    if record["code"] != code:
        log(f"note: {source} was trained by other code; `weights: train` trains it anew")
    output.mkdir(parents=True, exist_ok=True)
    for name in ("weights.safetensors", "config.json", "metrics.csv"):
        shutil.copyfile(source / name, output / name)
