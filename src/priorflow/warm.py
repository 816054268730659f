"""A warm start: jobs as forks of a process that has imported the slow libraries already.

Most jobs of the laptop scale compute for a shorter time than they import torch, xarray and the
rest, 3 to 8 s. `warm` leaves a process behind that has done that once, and becomes the command that
it is given; what that command starts as `priorflow …` finds the process by `SOCKET` in the
environment, sends it arguments, environment and standard streams, and waits while a fork of it does
the job. Where nobody answers yet, or on another node, the job starts as always.

It is libraries that are imported beforehand; a job reads the package as it stands when it begins.
"""

__all__ = ["ask", "possible", "warm"]

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOCKET = "PRIORFLOW_WARM"
LIBRARIES = (
    "torch",
    "xarray",
    "zarr",
    "dask.array",
    "scipy.signal",
    "scipy.stats",
    "sklearn.mixture",
    "azula.nn.unet",
    "azula.sample",
    "torchmetrics.functional.image",
    "seaborn",
    "deepinv",
    "scores.probability",
    "ot",
    "physicsnemo.models.fno",
    "physicsnemo.models.transolver",
)
# their drivers cannot be used in forks of a process that has asked for them, as some libraries do
GPUS = (Path("/proc/driver/nvidia"), Path("/dev/kfd"))
# read when a library is loaded: a job that wants more threads than one starts cold
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HEADER = 8  # bytes that hold the length of a request


def possible() -> bool:
    """Whether a fork of a process with these libraries is safe: on Linux, without a GPU."""
    return sys.platform == "linux" and not any(path.exists() for path in GPUS)


def warm(command: list[str], job: Callable[[], None]) -> None:
    """Become `command`, and leave a process behind that runs `job` in forks of itself.

    The process ends within a second after the command, or with the import that it is at. There is
    none where it is not `possible`.

    Args:
        command: What to execute, with its arguments.
        job: Reads `sys.argv`, as the command line does.

    Raises:
        OSError: The command cannot be executed.
    """
    if possible():
        address = Path(tempfile.mkdtemp(prefix="priorflow-")) / "socket"
        parent = os.getpid()
        if os.fork() == 0:
            _serve(address, parent, job)
            return
        os.environ[SOCKET] = f"{_owner()}:{address}"
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, but no shell
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)


def ask() -> int | None:
    """Have this process's command run by the warm process.

    Returns:
        The exit code of the job; None if there is no warm process for it.
    """
    owner, _, address = os.environ.get(SOCKET, "").rpartition(":")
    threads = [os.environ.get(name, "1") for name in THREADS]
    if (
        owner != _owner()
        or "OMP_NUM_THREADS" not in os.environ
        or threads != ["1"] * len(THREADS)
        or sys.argv[1:2] == ["warm"]
    ):
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the job hears of it from the kernel
        request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(request).to_bytes(HEADER)], [0, 1, 2])
        connection.sendall(request)
        answer = connection.recv(HEADER)
    if not answer:
        print("error: the job was killed; was there too little memory?", file=sys.stderr)
    return int(answer or 1)


def _owner() -> str:
    """Whose jobs a warm process does: those of this package, these libraries, this allocation."""
    return ":".join((__file__, sys.prefix, os.environ.get("SLURM_JOB_ID", "")))


def _serve(address: Path, parent: int, job: Callable[[], None]) -> None:
    """Fork for every request as long as the parent lives; the forks return when they are done."""
    os.setsid()  # an interrupt at the keyboard is for the command alone
    server, connection = os.getpid(), None
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        made = _import_libraries(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no fork is waited for
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen()
            listener.settimeout(1)
            while os.getppid() == parent and connection is None:
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    if os.fork():
                        connection.close()
                        connection = None
    finally:
        if os.getpid() == server:
            shutil.rmtree(address.parent, ignore_errors=True)
    if connection is not None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _work(connection, job, made)


def _import_libraries(parent: int) -> dict[str, str]:
    """Import while the parent lives; what the libraries have put into the environment."""
    before = set(os.environ)
    for name in LIBRARIES:
        if os.getppid() == parent:
            with contextlib.suppress(Exception):  # a job that needs it will say so
                importlib.import_module(name)
    gc.freeze()  # or the forks would copy every page, to count references in it
    return {key: value for key, value in os.environ.items() if key not in before}


def _work(connection: socket.socket, job: Callable[[], None], made: dict[str, str]) -> None:
    """Do the job of one request, and answer with its exit code when all is done."""
    begin, state = time.perf_counter(), {"code": 1}
    header, streams, *_ = socket.recv_fds(connection, HEADER, 3)
    with connection.makefile("rb") as file:  # less than was promised is no JSON, and ends here
        sys.argv, folder, environment = json.loads(file.read(int.from_bytes(header)))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(made | environment)
    tempfile.tempdir = None  # that of the environment
    _end_with(connection)
    atexit.register(_answer, connection, begin, state)  # after all that the job leaves to do
    try:
        job()
        state["code"] = 0
    except SystemExit as end:
        state["code"] = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()


def _end_with(connection: socket.socket) -> None:
    """Have the kernel interrupt this job and its children when the one that asked is gone."""
    os.setpgid(0, 0)
    os.register_at_fork(after_in_child=connection.close)  # a child does not hold it open
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.fcntl(connection, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGINT)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([connection], [], [], 0)[0]:  # nothing more is sent: it is gone already
        sys.exit(1)


def _answer(connection: socket.socket, begin: float, state: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        print(
            f"warm: {time.perf_counter() - begin:.1f} s, "
            f"{used.ru_utime + used.ru_stime:.1f} s of CPU, at most {used.ru_maxrss / 1024:.0f} MB",
            file=sys.stderr,
        )
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        fcntl.fcntl(connection, fcntl.F_SETOWN, 0)  # the one that asked may go
        connection.sendall(str(state["code"]).encode())
