"""The workflow through a real scheduler: the same results, also when things go wrong."""

import csv
import os
import re
import signal
import statistics
import subprocess
from pathlib import Path

import pytest
from cluster import Cluster, Job
from helpers import ROOT
from springs import Springs

CLUSTER_PAGE = ROOT / "docs/cluster.md"
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def of(jobs: list[Job], rule: str) -> list[Job]:
    """The jobs of a rule."""
    return [job for job in jobs if job.rule.startswith(f"rule_{rule}")]


def seconds_of_work(springs: Springs) -> dict[str, float]:
    """Seconds of the commands themselves, as the benchmarks of the rules say, per rule."""
    work: dict[str, float] = {}
    for file in (springs.root / "results/smoke/benchmarks").rglob("*.tsv"):
        rule = file.relative_to(springs.root / "results/smoke/benchmarks").parts[1]
        with file.open() as stream:
            row = next(csv.DictReader(stream, delimiter="\t"))
        work[rule] = work.get(rule, 0) + float(row["s"])
    return work


@pytest.fixture(scope="module")
def submitted(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Springs, list[Job], str]:
    """The whole experiment through the cluster: results, jobs, what was printed. Read only."""
    springs = Springs.checkout(tmp_path_factory.mktemp("submitted") / "project")
    before = cluster.last()
    run = springs.submit()
    return springs, cluster.jobs(before), run.stdout + run.stderr


def test_whole_experiment(submitted: tuple, local: Springs, capsys: pytest.CaptureFixture) -> None:
    """Large rules are submitted, small ones are not, and the metrics are those of a local run."""
    springs, jobs, _ = submitted
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert len(jobs) == len(of(jobs, "simulate") + of(jobs, "chunk") + of(jobs, "infer")) == 5
    assert (springs.tree / "tables/damped_spring.csv").is_file()
    assert {file.stem for file in springs.tree.glob("figures/*.png")} == {"curse", "skill", "ranks"}
    assert springs.digests() == local.digests()

    work = seconds_of_work(springs)
    inside = [
        statistics.mean(job.seconds for job in of(jobs, rule)) - work[rule] / len(of(jobs, rule))
        for rule in ("simulate", "chunk", "infer")
    ]
    waited = statistics.mean(job.waited for job in jobs)
    with capsys.disabled():
        print(f"\noverhead per job: {statistics.mean(inside):.1f} s in it, {waited:.1f} s queued")


def test_jobs_can_be_found(submitted: tuple) -> None:
    """The comment says rule and wildcards; logs of jobs that succeeded are gone."""
    springs, jobs, printed = submitted
    assert "SLURM run ID: priorflow_" in printed
    assert "rule_infer_wildcards_damped_spring__d_4_kalman_" in {job.rule for job in jobs}
    assert "results/slurm/rule_infer/" in printed
    assert not list((springs.root / "results/slurm").rglob("*.log"))


def test_efficiency_report(submitted: tuple) -> None:
    """Per job what was asked for and what was used."""
    springs, jobs, _ = submitted
    (report,) = (springs.root / "results/slurm").glob("efficiency_report_priorflow_*.csv")
    with report.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["RuleName"] for row in rows} == {job.rule for job in jobs}
    for row in rows:
        assert float(row["RequestedMem_MB"]) in (4000, 6000)
        assert 0 < float(row["MaxRSS_MB"]) < float(row["RequestedMem_MB"])


@pytest.mark.parametrize(("shards", "jobs"), [(2, 2), (8, 3)])
def test_shards_change_nothing(
    submitted: tuple, local: Springs, cluster: Cluster, tmp_path: Path, shards: int, jobs: int
) -> None:
    """Nor does the scheduler; there are three blocks of cases, and not more jobs than these."""
    springs, before = submitted[0].copy(tmp_path / "project"), cluster.last()
    (target,) = springs.metrics("enkf")
    (springs.root / target).unlink()
    springs.submit(target, shards=shards)
    assert len(of(cluster.jobs(before), "infer")) == jobs
    assert springs.digests("enkf") == local.digests("enkf")


REFUSED = {  # what a profile may have wrong
    "sbatch: error: invalid partition specified: nope": "slurm_partition=nope",
    "The given account nope appears to be invalid": "slurm_account=nope",
    "sbatch: error: Memory specification can not be satisfied": "mem_mb=100000",
    "Requested node configuration is not available": "gpu_model=nope",
}


def test_refused_jobs(springs: Springs, cluster: Cluster) -> None:
    """The messages that docs/cluster.md explains."""
    before, page = cluster.last(), CLUSTER_PAGE.read_text()
    for message, resource in REFUSED.items():
        options = ("--set-resources", f"infer:{resource}", "--retries", "0")
        run = springs.submit(*options, springs.posterior("probe"), check=False, device="cuda")
        assert run.returncode == 1
        assert message in " ".join((run.stdout + run.stderr).split())
        assert message in page
    assert "COMPLETED" not in {job.state for job in cluster.jobs(before)}
    assert not cluster.queue()


def test_gpu(springs: Springs, cluster: Cluster) -> None:
    """The profile of a GPU site, run as it is; without CUDA there is one warning, on the CPU."""
    before = cluster.last()
    springs.submit(springs.posterior("probe"), profile="slurm-gpu-example", device="cuda")
    (job,) = cluster.jobs(before)
    assert job.state == "COMPLETED"
    assert "gres/gpu=1" in job.resources
    assert (springs.root / "user/gpus").read_text() == "0"
    lines = springs.log("infer/d_4/probe").read_text().splitlines()
    (warning,) = [line for line in lines if "warning" in line]
    assert warning.endswith("device cuda is not available, computing on the CPU")


def test_failed_job_is_all_that_is_done_again(springs: Springs, cluster: Cluster) -> None:
    """It does not hold up the others, its reason is shown, and a further run does it alone."""
    broken, before = springs.root / "user/broken", cluster.last()
    broken.touch()
    targets = [springs.posterior("failing"), springs.posterior("probe")]
    run = springs.submit("--retries", "0", *targets, check=False)
    assert run.returncode == 1
    assert "SLURM status is: 'FAILED'" in run.stdout + run.stderr
    assert "diverged on purpose" in run.stdout + run.stderr
    assert sorted(job.state for job in cluster.jobs(before)) == ["COMPLETED", "FAILED"]
    assert not (springs.root / targets[0]).exists()
    assert (springs.root / targets[1]).is_dir()
    assert list((springs.root / "results/slurm").glob("rule_infer/*failing*/*.log"))

    broken.unlink()
    assert springs.jobs(*targets) == {"Infer damped_spring: failing on d_4"}
    springs.submit(*targets)
    assert (springs.root / targets[0]).is_dir()


def test_killed_jobs_get_more(springs: Springs, cluster: Cluster) -> None:
    """One job is killed for its time, one for its memory; both come back with twice as much."""
    springs.rescale(mem_mb=0.2, runtime=1 / 240)
    before = cluster.last()
    targets = [springs.posterior("hanging"), springs.posterior("greedy")]
    springs.submit(*targets)
    jobs = cluster.jobs(before)
    hanging = [job for job in jobs if "hanging" in job.rule]
    greedy = [job for job in jobs if "greedy" in job.rule]
    for killed in (hanging, greedy):
        assert killed[0].state != "COMPLETED"
        assert killed[-1].state == "COMPLETED"
    assert hanging[0].state == "TIMEOUT"
    logs = [file.read_text() for file in (springs.root / "results/slurm").rglob("*.log")]
    for reason in ("DUE TO TIME LIMIT", "exceeded memory limit"):
        assert any(reason in log for log in logs)
    # a slow machine may need the third attempt too
    assert [job.limit for job in hanging] == [1, 2, 3][: len(hanging)]
    assert [job.memory for job in greedy] == [1200, 2400, 3600][: len(greedy)]


@pytest.fixture
def hanging(springs: Springs, cluster: Cluster) -> subprocess.Popen:
    """A head whose job hangs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    head = springs.head(springs.posterior("hanging"))
    cluster.wait_queue("RUNNING", "hanging")
    while springs.process("infer", "hanging") is None:
        assert head.poll() is None, head.communicate()
    return head


def test_interrupt_leaves_no_job(
    springs: Springs, cluster: Cluster, hanging: subprocess.Popen
) -> None:
    """While a head runs a second one is refused; Ctrl-C ends the jobs and unlocks the folder."""
    second = springs.submit(springs.posterior("hanging"), check=False)
    assert second.returncode == 1
    assert "Directory cannot be locked" in second.stdout + second.stderr
    assert len(cluster.queue()) == 1

    os.killpg(hanging.pid, signal.SIGINT)
    hanging.communicate(timeout=120)
    assert hanging.returncode != 0
    cluster.wait_empty()
    assert springs.process("infer", "hanging") is None
    assert not (springs.root / springs.posterior("hanging")).exists()
    assert springs.jobs(springs.posterior("hanging"))


def test_lost_head(springs: Springs, cluster: Cluster, hanging: subprocess.Popen) -> None:
    """What docs/cluster.md says to do: cancel the orphans, unlock, run again."""
    os.killpg(hanging.pid, signal.SIGKILL)
    hanging.communicate()
    assert cluster.queue()
    (springs.root / "user/hung").touch()  # the next one does not hang
    assert springs.submit(springs.posterior("hanging"), check=False).returncode == 1

    (advice,) = re.findall(r"^    (squeue .*scancel)$", CLUSTER_PAGE.read_text(), re.MULTILINE)
    subprocess.run(advice, shell=True, check=True)
    cluster.wait_empty()
    springs.run("--unlock")
    springs.submit(springs.posterior("hanging"))
    assert (springs.root / springs.posterior("hanging")).is_dir()
    assert cluster.jobs()[-1].state == "COMPLETED"
