"""The damped spring at smoke scale: a copy of the project that submits to the cluster."""

__all__ = ["Springs"]

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helpers import Project

NAME = "damped_spring"
HERE = Path(__file__).parent
# The queue of the tests is asked more often than that of a site; the rest is the profile's.
QUICK = (
    *("--slurm-init-seconds-before-status-checks", "3"),
    *("--latency-wait", "10", "--cores", "4"),
)


def more_cases(experiment: dict[str, Any]) -> None:
    """Three blocks of two cases."""
    smoke = experiment["scales"]["smoke"]
    smoke["block"] = 2
    smoke["data"]["trajectories"] = 60
    smoke["tasks"]["d_4"]["cases"] = 6


@dataclass(frozen=True)
class Springs(Project):
    """A copy of the project that runs the damped spring, on cases enough for three shards."""

    @classmethod
    def checkout(cls, root: Path) -> "Springs":
        springs = cls(super().checkout(root).root)
        springs.edit(more_cases, springs.root / f"workflow/experiments/{NAME}.yaml")
        return springs

    def copy(self, root: Path) -> "Springs":
        return Springs(super().copy(root).root)

    @property
    def tree(self) -> Path:
        return self.root / f"results/smoke/{NAME}"

    def log(self, name: str) -> Path:
        return self.root / f"results/smoke/logs/{NAME}/{name}.log"

    def start(self, *arguments: str, **config: Any) -> subprocess.Popen:
        mine = self.root / "user/misbehaving.yaml"
        chosen = {"experiments": mine.relative_to(self.root) if mine.exists() else NAME}
        return super().start(*arguments, **(chosen | config))

    def submit(
        self, *arguments: str, profile: str = "slurm", check: bool = True, **config: Any
    ) -> subprocess.CompletedProcess:
        """Run through the cluster to the end."""
        options = ("--workflow-profile", f"workflow/profiles/{profile}", *QUICK)
        return self.run(*options, *arguments, check=check, **config)

    def head(self, *arguments: str) -> subprocess.Popen:
        """Start a run through the cluster."""
        return self.start("--workflow-profile", "workflow/profiles/slurm", *QUICK, *arguments)

    def add_misbehaving(self) -> None:
        """Add the methods of `misbehaving.py` to the experiment."""
        user = self.root / "user"
        user.mkdir()
        shutil.copy(HERE / "misbehaving.py", user)
        fields = {
            "Probe": {"file": str(user / "gpus")},
            "Failing": {"file": str(user / "broken")},
            "Hanging": {"file": str(user / "hung")},
            "Greedy": {"megabytes": 1200},
        }
        methods = {
            name.lower(): {"solver": {"class": f"./misbehaving.py:{name}", **settings}}
            for name, settings in fields.items()
        }
        text = yaml.safe_dump({"extends": NAME, "methods": methods})
        (user / "misbehaving.yaml").write_text(text)

    def posterior(self, method: str) -> str:
        """The path of a posterior."""
        return f"results/smoke/{NAME}/posterior/d_4/{method}.zarr"

    def metrics(self, *methods: str) -> list[str]:
        """The paths of tables of metrics, by default of all methods of the scale."""
        names = methods or ("forecast", "kalman", "enkf")
        return [f"results/smoke/{NAME}/metrics/{name}.parquet" for name in names]

    def digests(self, *methods: str) -> dict[str, str]:
        """Checksums of those tables."""
        return {
            path: hashlib.sha256((self.root / path).read_bytes()).hexdigest()
            for path in self.metrics(*methods)
        }

    def rescale(self, **factors: float) -> None:
        """Multiply resources in the profile (`mem_mb`, `runtime`), which keeps how they grow."""

        def change(profile: dict[str, Any]) -> None:
            for resources in profile["set-resources"].values():
                for name, factor in factors.items():
                    attempt, number = resources[name].split(" * ")
                    resources[name] = f"{attempt} * {max(1, round(int(number) * factor))}"

        self.edit(change, self.root / "workflow/profiles/slurm/config.yaml")
