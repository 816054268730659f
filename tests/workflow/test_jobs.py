"""What `priorflow plan` says before a run is what the workflow then submits."""

import re
import subprocess
from pathlib import Path

from helpers import Project

# Networks that are trained, that are shipped, and that are public.
EXPERIMENTS = "lorenz63 double_well images"


def test_planned_jobs_are_those_of_the_workflow(tmp_path: Path) -> None:
    """At the published sizes, with more shards than some tasks have blocks."""
    project = Project.checkout(tmp_path / "project")
    config = {"scale": "paper", "experiments": EXPERIMENTS, "weights": "pretrained", "shards": 8}
    run = project.run("--dry-run", "--quiet", "rules", **config).stdout
    table = run.rpartition("Job stats:")[2]
    submitted = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}

    settings = [f"--set={key}={value}" for key, value in config.items()]
    plan = subprocess.run(
        ["priorflow", "plan", *settings],
        cwd=project.root,
        env=project.environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = re.findall(r"^\| (\w+) \| (\d+) \|", plan.rpartition("## all")[2], re.MULTILINE)
    planned = {stage: int(n) for stage, n in rows}
    assert submitted.pop("total") - submitted.pop("all") == planned.pop("all")
    assert submitted == planned
