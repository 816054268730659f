"""Jobs of a warm process: they get what is theirs, answer as a process would, and end with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from priorflow.warm import possible

pytestmark = pytest.mark.skipif(not possible(), reason="there is no warm process")

PROGRAM = """
import os, pathlib, signal, sys, time
from priorflow import warm

warm.LIBRARIES = ("colorsys", "no_such_library")

def job():
    warmed = "colorsys" in sys.modules
    match sys.argv[1:]:
        case ["state"]:
            print(warmed, os.getcwd(), os.environ.get("GIVEN"), sys.stdin.read())
            print("to the log", file=sys.stderr)
        case ["exit", code]:
            sys.exit(int(code))
        case ["fail"]:
            raise RuntimeError("a bug")
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["child"]:
            print(os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 7"))
        case ["wait", file]:
            if os.fork() == 0:  # Python forgets signals that reach a child before it is here
                pathlib.Path(file).write_text(f"{os.getppid()} {os.getpid()}")
            time.sleep(60)
        case ["warm", *command]:
            warm.warm(command, job)

if __name__ == "__main__":
    code = warm.ask()
    if code is None:
        job()
    else:
        sys.exit(code)
"""


def environment(**changes: str) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    return own | {"OMP_NUM_THREADS": "1", "GIVEN": "a", "TMPDIR": "/tmp"} | changes


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    file = tmp_path_factory.mktemp("warm") / "program.py"
    file.write_text(PROGRAM)
    return file


@pytest.fixture(scope="module")
def warmed(program):
    """The environment of what runs under a warm process."""
    script = "echo $PRIORFLOW_WARM; exec sleep 60"
    command = [sys.executable, program, "warm", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        value = process.stdout.readline().strip()
        address = Path(value.rpartition(":")[2])
        until(address.exists)
        yield environment(PRIORFLOW_WARM=value)
        process.kill()
    until(lambda: not address.parent.exists())  # the warm process does not outlive its command


def until(happens):
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(program, env, *arguments, **options):
    return subprocess.run(
        [sys.executable, program, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        **options,
    )


def test_job_has_its_folder_environment_and_streams(program, warmed, tmp_path):
    done = run(program, warmed | {"GIVEN": "b"}, "state", cwd=tmp_path, input="asked")
    assert done.stdout == f"True {tmp_path} b asked\n"
    assert done.stderr.startswith("to the log\nwarm: ")


def test_job_has_no_other_environment(program, warmed):
    bare = {name: value for name, value in warmed.items() if name != "GIVEN"}
    assert run(program, bare, "state", input="").stdout.split()[2] == "None"


def test_job_may_wait_for_children(program, warmed):
    assert run(program, warmed, "child").stdout == "7\n"


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_is_that_of_the_job(program, warmed, code):
    done = run(program, warmed, "exit", str(code))
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1


def test_bug_has_its_traceback(program, warmed):
    done = run(program, warmed, "fail")
    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr


def test_killed_job_fails_and_the_next_one_runs(program, warmed):
    done = run(program, warmed, "die")
    assert done.returncode == 1
    assert done.stderr == "error: the job was killed; was there too little memory?\n"
    assert run(program, warmed, "exit", "0").returncode == 0


def test_warm_process_within_another(program, warmed):
    script = f"{sys.executable} {program} exit 0; {sys.executable} {program} exit 0; exit 5"
    assert run(program, warmed, "warm", "sh", "-c", script).returncode == 5


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_job_and_its_children_end_with_the_one_that_asked(program, warmed, tmp_path, how):
    file = tmp_path / "pid"
    with subprocess.Popen([sys.executable, program, "wait", file], env=warmed) as asking:
        until(lambda: file.exists() and file.read_text())
        job, child = map(psutil.Process, map(int, file.read_text().split()))
        assert job.pid != asking.pid
        asking.send_signal(how)
    assert asking.returncode == -how
    psutil.wait_procs([job, child], timeout=10)
    assert not job.is_running()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    "changes",
    [
        {"OMP_NUM_THREADS": "2"},
        {"MKL_NUM_THREADS": "2"},
        {"SLURM_JOB_ID": "7"},
        {"PRIORFLOW_WARM": "/no/socket"},
        {"PRIORFLOW_WARM": ""},
    ],
    ids=["more threads", "more of MKL", "another allocation", "another package", "no process"],
)
def test_other_jobs_start_cold(program, warmed, changes):
    assert run(program, warmed | changes, "state", input="").stdout.startswith("False")


def test_job_starts_cold_where_nobody_answers(program, warmed):
    owner = warmed["PRIORFLOW_WARM"].rpartition(":")[0]
    changes = {"PRIORFLOW_WARM": f"{owner}:/no/socket"}
    assert run(program, warmed | changes, "state", input="").stdout.startswith("False")
