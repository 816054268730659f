"""Solvers that misbehave on purpose, for an experiment that the tests submit."""

__all__ = ["Failing", "Greedy", "Hanging", "Probe"]

import os
import time
from dataclasses import dataclass
from pathlib import Path

from priorflow.solvers.assimilation.forecast import Forecast
from priorflow.solvers.base import Posterior


@dataclass(frozen=True)
class Probe(Forecast):
    """Writes into a file which GPUs it may use."""

    file: str = ""

    def __call__(self, *arguments, **options) -> Posterior:
        Path(self.file).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
        return super().__call__(*arguments, **options)


@dataclass(frozen=True)
class Failing(Forecast):
    """Fails while a file is there."""

    file: str = ""

    def __call__(self, *arguments, **options) -> Posterior:
        if Path(self.file).exists():
            raise FloatingPointError("diverged on purpose")
        return super().__call__(*arguments, **options)


@dataclass(frozen=True)
class Hanging(Forecast):
    """Hangs if a file is not there yet, and makes it."""

    file: str = ""

    def __call__(self, *arguments, **options) -> Posterior:
        if not Path(self.file).exists():
            Path(self.file).touch()
            time.sleep(3600)
        return super().__call__(*arguments, **options)


@dataclass(frozen=True)
class Greedy(Forecast):
    """Needs much memory, long enough to be caught."""

    megabytes: int = 0

    def __call__(self, *arguments, **options) -> Posterior:
        much = bytearray(b"x") * (self.megabytes << 20)
        time.sleep(4)
        del much
        return super().__call__(*arguments, **options)
