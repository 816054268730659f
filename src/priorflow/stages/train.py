"""Train: one network, with Lightning; resumes from its last checkpoint to the same weights.

The batch of a step is a function of the step alone (its indices and its noise come from the stream
named by the model and the step), so that a run that was killed and resumed is the same, byte for
byte, as one that was not.
"""

__all__ = ["train"]

import json
import logging
import shutil
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from priorflow import store
from priorflow.components import BadInput
from priorflow.rng import generator, seed_of
from priorflow.stages.models import build_prior, export, round_parameters
from priorflow.stages.progress import log
from priorflow.systems.base import Standardised


class Windows:
    """Random windows of consecutive states from trajectories (trajectory, time, \\*shape).

    What is packed stays so, and only windows are unpacked: state = scale * number + offset.
    """

    def __init__(
        self, states: np.ndarray, length: int, scale: float = 1.0, offset: float = 0.0
    ) -> None:
        self.states, self.length = torch.from_numpy(states), length
        self.scale, self.offset = scale, offset
        if length > self.states.shape[1]:
            raise BadInput(f"data.steps: {self.states.shape[1]} is less than a window of {length}")

    def draw(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """n windows, shape (n, length, \\*shape)."""
        trajectories, times = self.states.shape[:2]
        row = torch.randint(trajectories, (n, 1), generator=rng)
        first = torch.randint(times - self.length + 1, (n, 1), generator=rng)
        drawn = self.states[row, first + torch.arange(self.length)]
        return drawn if drawn.is_floating_point() else drawn.float() * self.scale + self.offset

    @classmethod
    def of(cls, data: Path, length: int) -> "Windows":
        """Those of a store."""
        states = store.read(data, packed=True).state.load()
        packing = (states.attrs.get("scale_factor", 1.0), states.attrs.get("add_offset", 0.0))
        return cls(states.values, length, *packing)


class Fit(L.LightningModule):
    """What Lightning needs to know of a `Trainable` prior."""

    def __init__(
        self,
        prior: Any,
        training: Mapping[str, Any],
        train: Windows,
        valid: Windows,
        names: tuple[str, ...],
        seed: int,
    ) -> None:
        super().__init__()
        self.prior, self.training_config = prior, training
        self.train_windows, self.names, self.seed = train, names, seed
        rng = generator(seed, *names, "valid")
        self.valid_windows = valid.draw(training["validation"], rng)
        self.rows: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.begin = time.monotonic()

    def train_dataloader(self) -> DataLoader:
        """The steps of the next interval; a batch is drawn from its step's own stream."""
        first, interval = self.trainer.global_step, self.training_config["interval"]
        steps = range(first, min(first + interval, self.training_config["steps"]))
        return DataLoader(steps, batch_size=None, collate_fn=self._batch)

    def _batch(self, step: int) -> tuple[torch.Tensor, int]:
        rng = generator(self.seed, *self.names, "batch", step)
        return self.train_windows.draw(self.training_config["batch"], rng), step

    def training_step(self, batch: tuple[torch.Tensor, int]) -> torch.Tensor:
        """The mean loss of the batch."""
        windows, step = batch
        rng = generator(self.seed, *self.names, "noise", int(step), device=self.device)
        self.prior.progress = int(step) / self.training_config["steps"]
        loss = self.prior.loss(windows, rng).mean()
        self.losses.append(float(loss.detach()))
        return loss

    def val_dataloader(self) -> DataLoader:
        """The validation windows, in one batch."""
        return DataLoader([self.valid_windows], batch_size=None)

    def validation_step(self, windows: torch.Tensor) -> None:
        """Record the losses; the noise is the same every time."""
        self.prior.progress = 1.0
        rng = generator(self.seed, *self.names, "valid noise", device=self.device)
        parts = windows.split(self.training_config["batch"])
        valid = float(torch.cat([self.prior.loss(part, rng) for part in parts]).mean())
        row = {
            "step": self.trainer.global_step,
            "train_loss": float(np.mean(self.losses)),
            "valid_loss": valid,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": time.monotonic() - self.begin,
        }
        if not np.isfinite(valid):
            raise BadInput(f"{'/'.join(self.names)}: the loss is not finite at step {row['step']}")
        self.losses.clear()
        self.rows.append(row)
        log(
            f"train: step {row['step']}/{self.training_config['steps']} "
            f"loss {row['train_loss']:.4g} valid {valid:.4g} ({row['seconds']:.0f} s)"
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with warm-up and decay to zero."""
        c = self.training_config
        optimizer = torch.optim.AdamW(
            self.prior.parameters(),
            lr=c["learning_rate"],
            weight_decay=c["weight_decay"],
            foreach=True,
        )

        def factor(step: int) -> float:
            done = step / c["steps"]
            decay = (1 + np.cos(np.pi * done)) / 2 if c["schedule"] == "cosine" else 1 - done
            return float(decay * min(1, (step + 1) / max(1, c["warmup"])))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve with the weights."""
        checkpoint["rows"] = self.rows

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the curve, and with the clock."""
        self.rows = list(checkpoint["rows"])
        self.begin = time.monotonic() - self.rows[-1]["seconds"]


def train(
    train_data: Path,
    valid_data: Path,
    output: Path,
    model: Mapping[str, Any],
    *,
    parent: Path | None = None,
    name: str,
    device: str,
    digest: str,
    code: str,
    base: Path,
) -> None:
    """Train a network and write weights.safetensors, config.json and metrics.csv to `output`.

    Args:
        train_data: The store of the training trajectories.
        valid_data: The store of the validation trajectories.
        output: The model's folder; its `checkpoints` are what a resumed run starts from.
        model: `Experiment.model_spec` of the model, with the interval and devices of its training.
        parent: The weights of the model that it is built on, if there is one.
        name: The model's name.
        device: Where to train.
        digest: The digest of the specification.
        code: The fingerprint of the code.
        base: The folder of the experiment file.
    """
    from priorflow.components import build

    c, seed = model["training"], model["seed"]
    names = (model["experiment"], "train", name)
    torch.set_num_threads(c["threads"])
    torch.manual_seed(seed_of(seed, *names, "initialise"))
    system = Standardised(build(model["system"], base))
    prior = build_prior(model, system, base, parent)
    splits = [Windows.of(path, prior.window) for path in (train_data, valid_data)]
    rng = generator(seed, *names, "prepare")
    prior.prepare(splits[0].draw(c["validation"], rng))
    fit = Fit(prior, c, *splits, names, seed)
    checkpoints = output / "checkpoints"
    resume = _checkpoint(checkpoints, digest + code)
    parameters = sum(p.numel() for p in prior.parameters() if p.requires_grad)
    log(f"train: {name}, {parameters:,} parameters, {'resumed' if resume else 'from the start'}")
    for noisy in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    gpu = device.startswith("cuda") and torch.cuda.is_available()
    trainer = L.Trainer(
        max_steps=c["steps"],
        max_epochs=-1,
        accelerator="gpu" if gpu else "cpu",
        devices=c["devices"] if gpu else 1,
        precision=c["precision"],
        gradient_clip_val=c["clip"],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=_callbacks(c, checkpoints),
        plugins=LightningEnvironment(),  # a job of a cluster is one process, whatever else it says
        default_root_dir=output,
    )
    done = torch.load(resume, weights_only=False) if resume else {"global_step": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(fit, ckpt_path=resume, weights_only=False if resume else None)
    if done["global_step"] >= c["steps"]:  # then `fit` did nothing, not even put the averages in
        fit.load_state_dict(done["state_dict"])
    prior = prior.to("cpu").eval()
    round_parameters(prior)  # what is estimated belongs to the weights as they are exported
    prior.calibrate(
        splits[1].draw(2 * c["validation"], generator(seed, *names, "calibrate")),
        generator(seed, *names, "calibrate noise"),
    )
    output.mkdir(parents=True, exist_ok=True)
    export(prior, output / "weights.safetensors")
    pd.DataFrame(fit.rows).to_csv(output / "metrics.csv", index=False, float_format="%.6g")
    record = {
        "digest": digest,
        "code": code,
        "model": dict(model),
        "parameters": parameters,
        "mean": system.mean.tolist(),
        "std": system.std.tolist(),
        "seconds": round(fit.rows[-1]["seconds"], 1),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "lightning", "priorflow")},
    }
    (output / "config.json").write_text(json.dumps(record, indent=1) + "\n")


def _callbacks(c: Mapping[str, Any], checkpoints: Path) -> list[Callback]:
    callbacks: list[Callback] = [
        ModelCheckpoint(
            checkpoints,
            filename="last",
            save_top_k=1,
            enable_version_counter=False,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
        )
    ]
    if c["ema"]:
        average = get_ema_multi_avg_fn(c["ema"])
        callbacks.append(WeightAveraging(use_buffers=False, multi_avg_fn=average))
    return callbacks


def _checkpoint(folder: Path, key: str) -> str | None:
    """The checkpoint to go on from, unless it belongs to another configuration or code."""
    mark = folder / "belongs_to"
    if folder.is_dir() and (not mark.is_file() or mark.read_text() != key):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(key)
    last = folder / "last.ckpt"
    return str(last) if last.is_file() else None
