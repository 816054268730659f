"""What a figure is drawn from, and how it is saved."""

__all__ = ["Results", "save"]

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from priorflow import store
from priorflow.stages.vocabulary import method_label, task_label


@dataclass(frozen=True)
class Results:
    """The results of one experiment, as far as one figure needs them.

    A drawing function has the signature `draw(results, **settings) -> matplotlib.figure.Figure`.

    Attributes:
        folder: The experiment's folder of results.
        methods: The methods to show.
        tasks: The tasks to show.
        models: The models whose training is shown.
        posteriors: Per method and task the stores of the posterior.
        tree: `ablations/` for the figures of an ablation, otherwise empty.
        facts: `floor`, `limit` and `reference` (names of methods), `labels` (of tasks and methods),
            `solvers` (per method and task its hyper-parameters).
    """

    folder: Path
    methods: Sequence[str]
    tasks: Sequence[str]
    models: Sequence[str]
    posteriors: Mapping[tuple[str, str], Sequence[Path]]
    tree: str
    facts: Mapping[str, Any]

    def metrics(self) -> pd.DataFrame:
        """Tidy metrics of the figure's methods and tasks, costs and seconds included."""
        files = [
            self.folder / self.tree / "metrics" / kind / f"{method}.parquet"
            for method in self.methods
            for kind in ("", "timing")
        ]
        table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
        return table[table.task.isin(self.tasks)]

    def posterior(self, method: str, task: str) -> xr.Dataset:
        """Posterior samples: state (case, member, time, \\*space), diagnostics and cost."""
        parts = [store.read(path) for path in self.posteriors[method, task]]
        return xr.concat(parts, dim="case")

    def ran(self, method: str, task: str) -> bool:
        """Whether the method was run on the task."""
        return (method, task) in self.posteriors

    def observations(self, task: str) -> xr.Dataset:
        """y (case, time, \\*obs), truth (case, time, \\*space) and history."""
        return store.read(self.folder / "observations" / f"{task}.zarr")

    def curve(self, model: str) -> pd.DataFrame:
        """The training of a model: step, train_loss, valid_loss, learning_rate, seconds."""
        return pd.read_csv(self.folder / "models" / model / "metrics.csv")

    def record(self, model: str) -> dict[str, Any]:
        """The `config.json` of a model: parameters, seconds, specification."""
        return json.loads((self.folder / "models" / model / "config.json").read_text())

    def label(self, name: str) -> str:
        """How a method or a task is called."""
        given = self.facts["labels"].get(name)
        return given or (task_label(name) if name in self.tasks else method_label(name))


def save(figure: Any, png: Path, svg: Path) -> None:
    """Write a figure as PNG (200 dpi) and as SVG, the same bytes every time."""
    import matplotlib as mpl

    png.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "priorflow"}):
        figure.savefig(png, dpi=200, bbox_inches="tight", metadata={"Software": None})
        figure.savefig(svg, bbox_inches="tight", metadata={"Date": None})
