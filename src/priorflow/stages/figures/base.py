"""What a figure is drawn from, and how it is saved."""

__all__ = ["Animation", "Results", "natural", "save", "time_label", "units"]

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import rc_context
from matplotlib.figure import Figure

from priorflow import store
from priorflow.components import build
from priorflow.stages.vocabulary import method_label, task_label


@dataclass(frozen=True)
class Results:
    """The results of one experiment, as far as one figure needs them.

    A drawing function has the signature `draw(results, **settings) -> Figure | Animation`.

    Attributes:
        folder: The experiment's folder of results.
        methods: The methods to show.
        tasks: The tasks to show.
        models: The models whose training is shown.
        posteriors: Per method and task the stores of the posterior.
        tables: The Parquet files of the evaluate stage that hold the methods' metrics.
        facts: `floor` and `limit` (names of methods), `labels` (of tasks and methods), `solvers`
            (per method and task its hyper-parameters), `operators` (per task its component), `base`
            (the folder of the experiment file).
    """

    folder: Path
    methods: Sequence[str]
    tasks: Sequence[str]
    models: Sequence[str]
    posteriors: Mapping[tuple[str, str], Sequence[Path]]
    tables: Sequence[Path]
    facts: Mapping[str, Any]

    def metrics(self) -> pd.DataFrame:
        """Tidy metrics of the figure's methods and tasks, costs and seconds included."""
        table = pd.concat([pd.read_parquet(file) for file in self.tables], ignore_index=True)
        return table[table.task.isin(self.tasks) & table.method.isin(self.methods)]

    def posterior(self, method: str, task: str) -> xr.Dataset:
        """Posterior samples: state (case, member, time, \\*space), diagnostics and cost."""
        parts = [store.read(path) for path in self.posteriors[method, task]]
        return xr.concat(parts, dim="case").load()

    def ran(self, method: str, task: str) -> bool:
        """Whether the method was run on the task."""
        return (method, task) in self.posteriors

    def shown(self, task: str) -> list[str]:
        """The methods to show that were run on the task."""
        return [method for method in self.methods if self.ran(method, task)]

    def observations(self, task: str) -> xr.Dataset:
        """y (case, time, \\*obs), truth (case, time, \\*space) and history."""
        return store.read(self.folder / "observations" / f"{task}.zarr").load()

    def matched(self, method: str, task: str) -> tuple[xr.Dataset, xr.Dataset]:
        """The posterior, and the observations of its cases."""
        posterior = self.posterior(method, task)
        return posterior, self.observations(task).sel(case=posterior.case)

    def operator(self, task: str) -> Any:
        """The forward model of a task."""
        return build(self.facts["operators"][task], self.facts["base"])

    def curve(self, model: str) -> pd.DataFrame:
        """The training of a model: step, train_loss, valid_loss, learning_rate, seconds."""
        return pd.read_csv(self.folder / "models" / model / "metrics.csv")

    def record(self, model: str) -> dict[str, Any]:
        """The `config.json` of a model: parameters, seconds, specification."""
        return json.loads((self.folder / "models" / model / "config.json").read_text())

    def assessment(self, model: str) -> xr.Dataset:
        """What a denoiser is worth by itself: see the assess stage."""
        return store.read(self.folder / "models" / model / "assessment.zarr").load()

    def label(self, name: str) -> str:
        """How a method or a task is called."""
        given = self.facts["labels"].get(name)
        return given or (task_label(name) if name in self.tasks else method_label(name))


def natural(states: np.ndarray, observations: xr.Dataset) -> np.ndarray:
    """States (…, d) in natural units, by the constants in the attributes of the observations.

    A task may have the first components only of what was standardised.
    """
    mean, std = _constants(observations, states.shape[-1])
    return states * std + mean


def standardised(value: float, observations: xr.Dataset) -> float:
    """A natural value in the units of the states, where one constant standardises all of them."""
    mean, std = _constants(observations, 1)
    return float((value - mean) / std)


def _constants(observations: xr.Dataset, size: int) -> tuple[np.ndarray, np.ndarray]:
    mean, std = (np.asarray(observations.attrs[key]) for key in ("mean", "std"))
    return mean[..., :size] if mean.ndim else mean, std[..., :size] if std.ndim else std


def units(observations: xr.Dataset, standardised: bool = True) -> str:
    """The units of a state, for the label of an axis."""
    plain = np.all(np.equal(observations.attrs["std"], 1))
    if standardised and not plain:
        return "standardised"
    given = observations.attrs["natural_units"]
    return "dimensionless" if given in ("", "1") else given


def time_label(observations: xr.Dataset, unit: str = "") -> str:
    """The label of an axis of observed states, numbered from 1 and Δt apart."""
    parts = ["Δt", "=", f"{float(observations.attrs['dt']):g}", unit]
    step = "\u00a0".join(filter(None, parts))  # never breaks inside
    return f"state k ({step})"


@dataclass(frozen=True)
class Animation:
    """A figure that moves.

    Attributes:
        figure: The figure.
        show: Makes it the frame of this number, from 0.
        frames: Their number.
        pause: Seconds between two of them; the last one stays four times as long.
        dpi: Dots per inch: frames weigh more than one figure does.
    """

    figure: Figure
    show: Callable[[int], None]
    frames: int
    pause: float = 1 / 3
    dpi: int = 150

    def write(self, png: Path) -> None:
        """Write an animated PNG, which repeats itself; old viewers show its first frame."""
        from PIL import Image

        images = []
        for i in range(self.frames):
            self.show(i)
            image = BytesIO()
            self.figure.savefig(image, format="png", dpi=self.dpi)
            images.append(Image.open(image).convert("RGB"))
        pauses = [1000 * self.pause] * (self.frames - 1) + [4000 * self.pause]
        images[0].save(png, save_all=True, append_images=images[1:], duration=pauses, loop=0)


def save(drawn: Figure | Animation, png: Path, svg: Path) -> None:
    """Write a figure at its own size and resolution as PNG, and as SVG, the same bytes every time.

    Of an animation the PNG is animated, a format that reports and browsers show like any PNG, and
    the SVG is its last frame.
    """
    png.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "priorflow"}):
        if isinstance(drawn, Animation):
            drawn.write(png)
        else:
            drawn.savefig(png, dpi="figure", metadata={"Software": None})
        drawn.figure.savefig(svg, metadata={"Date": None})
