"""What a warm process computes are the bytes of a process of its own."""

import subprocess

import pytest
from helpers import Project

from priorflow.warm import possible

# waits for the warm process, which is ready some seconds after the command starts
SCRIPT = """
for _ in $(seq 600); do test -S "${PRIORFLOW_WARM##*:}" && exec "$@"; sleep 0.1; done; exit 1
"""


@pytest.mark.skipif(not possible(), reason="there is no warm process")
def test_warm_jobs_write_the_same_bytes(smoke: Project, project: Project) -> None:
    """Every posterior of a smoke run is made anew, and judged: the metrics are the same."""
    project.forget("posterior", "metrics", "tables", "figures", "logs")
    snakemake = ["snakemake", "--cores", "2", "--config", "scale=smoke", "weights=train"]
    subprocess.run(
        ["priorflow", "warm", "sh", "-c", SCRIPT, "sh", *snakemake, "experiments=lorenz63"],
        cwd=project.root,
        env=project.environment(),
        check=True,
        capture_output=True,
    )
    logs = sorted((project.root / "results/smoke/logs/lorenz63/infer").rglob("*.log"))
    assert logs
    assert all(" s of CPU, at most " in log.read_text() for log in logs)
    files = sorted((smoke.tree / "metrics").glob("*.parquet"))
    assert files
    for file in files:
        assert (project.tree / "metrics" / file.name).read_bytes() == file.read_bytes()
