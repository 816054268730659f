"""A private copy of the project, and what the tests do with it: run, edit, kill, compare."""

__all__ = ["ROOT", "Project", "complaints", "examples", "verbs"]

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "src")
CONFIG = {"scale": "smoke", "weights": "train", "experiments": "lorenz63"}
# What snakemake says whatever happens.
FIXED = ("Using workflow specific profile", "Config file config.yaml is extended")


@dataclass(frozen=True)
class Project:
    """A copy of the project in a folder of its own.

    It has the package too, which goes before the installed one, so that a test can edit code.
    """

    root: Path

    @classmethod
    def checkout(cls, root: Path) -> "Project":
        """A copy of the checkout, without results."""
        root.mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for part in PARTS:
            source = ROOT / part
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, root / part, ignore=ignore, symlinks=True)
            else:
                shutil.copy2(source, root / part, follow_symlinks=False)
        return cls(root)

    def copy(self, root: Path) -> "Project":
        """A copy of everything, results and times included."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

    @property
    def tree(self) -> Path:
        """Where the results of Lorenz-63 are."""
        return self.root / "results/smoke/lorenz63"

    @property
    def experiment(self) -> Path:
        """The experiment file of Lorenz-63."""
        return self.root / "workflow/experiments/lorenz63.yaml"

    def edit(self, change: Callable[[dict[str, Any]], None], file: Path | None = None) -> None:
        """Change the content of a YAML file, by default that of the experiment."""
        file = file or self.experiment
        # through JSON, so that what an anchor shares is changed in one place only
        content = json.loads(json.dumps(yaml.safe_load(file.read_text())))
        change(content)
        file.write_text(yaml.safe_dump(content, sort_keys=False))

    def patch(self, module: str, old: str, new: str) -> None:
        """Replace the first `old` in a module of the package."""
        file = self.root / "src/priorflow" / module
        text = file.read_text()
        assert old in text, f"{module} has changed: {old!r} is not there any more"
        file.write_text(text.replace(old, new, 1))

    def environment(self) -> dict[str, str]:
        """The copy's package first, and one thread."""
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments: str, **config: Any) -> subprocess.Popen:
        """Start snakemake, in a process group of its own."""
        pairs = [f"{key}={value}" for key, value in {**CONFIG, **config}.items()]
        return subprocess.Popen(
            ["snakemake", "--cores", "2", *arguments, "--config", *pairs],
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, check: bool = True, **config: Any
    ) -> subprocess.CompletedProcess:
        """Run snakemake to the end; its output is shown if it fails and should not."""
        process = self.start(*arguments, **config)
        out, err = process.communicate()
        assert process.returncode == 0 or not check, out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def forget(self, *parts: str) -> None:
        """Remove parts of the results of Lorenz-63: `metrics`, `posterior`, …, or `logs`."""
        for part in parts:
            logs = self.root / "results/smoke/logs"
            shutil.rmtree(logs if part == "logs" else self.tree / part)

    def jobs(self, *arguments: str, **config: Any) -> set[str]:
        """What a run would do, such as `Infer lorenz63: bpf on known_x0`."""
        out = self.run("--dry-run", *arguments, **config).stdout
        return {said.strip() for said in re.findall(r"^Job \d+: (.*)$", out, re.MULTILINE)}

    def listing(self) -> dict[str, tuple[int, int]]:
        """Size and time of every result."""
        return {
            str(file.relative_to(self.root)): (file.stat().st_size, file.stat().st_mtime_ns)
            for file in sorted((self.root / "results").rglob("*"))
            if file.is_file()
        }

    def log(self, name: str) -> Path:
        """The log of a job of Lorenz-63, such as `train/drift`."""
        return self.root / f"results/smoke/logs/lorenz63/{name}.log"

    def wait(self, run: subprocess.Popen, name: str, pattern: str) -> None:
        """Until the log of a job matches."""
        log = self.log(name)
        while not (log.is_file() and re.search(pattern, log.read_text())):
            still_running(run)

    def process(self, stage: str, *words: str) -> psutil.Process | None:
        """The running `priorflow STAGE …` of this copy whose command line has all words."""
        for process in psutil.process_iter():
            try:
                line, folder = process.cmdline(), process.cwd()
            except psutil.Error:
                continue
            called = len(line) > 2 and Path(line[1]).name == "priorflow" and line[2] == stage
            if called and folder == str(self.root) and set(words) <= set(line):
                return process
        return None

    def kill(self, run: subprocess.Popen, stage: str, *words: str) -> None:
        """`kill -9` of such a process, as soon as there is one."""
        while (process := self.process(stage, *words)) is None:
            still_running(run)
        process.kill()


def still_running(run: subprocess.Popen) -> None:
    """Wait a moment for a job of this run, and fail if the run has ended."""
    assert run.poll() is None, "snakemake ended: " + "".join(run.communicate())
    time.sleep(0.05)


def verbs(jobs: set[str]) -> set[str]:
    """The kinds of jobs: Simulate, Chunk, Observe, Train, Infer, Evaluate, Tabulate, Draw."""
    return {job.split()[0] for job in jobs}


def complaints(text: str) -> list[str]:
    """The lines of a standard error, but for what snakemake always says."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith(FIXED)]


BLOCK = re.compile(
    r"^<!-- test: (?P<name>[\w-]+) file=(?P<file>[\w./-]+) -->\s*"
    r"^```\w*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def examples(readme: Path) -> dict[str, dict[str, str]]:
    """The worked examples of a README: per name its files and their text.

    An example is one or more fenced blocks, each below a comment
    `<!-- test: NAME file=FILE -->`.
    """
    found: dict[str, dict[str, str]] = {}
    for block in BLOCK.finditer(readme.read_text() if readme.is_file() else ""):
        found.setdefault(block["name"], {})[block["file"]] = block["text"]
    return found
