"""A warm start: jobs as forks of a process that has imported the slow libraries already.

Most jobs of the laptop scale compute for a shorter time than they import torch, xarray and the
rest, 3 to 8 s. `warm` leaves a process behind that has done that once, and becomes the command that
it is given; what that command starts as `priorflow …` finds the process by `SOCKET` in the
environment, sends it arguments, environment and standard streams, and waits while a fork of it does
the job. Where nobody answers, on another node, say, the job starts as always.

It is libraries that are imported beforehand, and no module that a rule's fingerprint covers: a job
reads those as they stand when it begins.
"""

__all__ = ["SOCKET", "ask", "warm"]

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
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
# read when a library is loaded: a job that wants more threads than one starts cold
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HEADER = 8  # bytes that hold the length of a request


def warm(command: list[str], job: Callable[[], None]) -> None:
    """Become `command`, and leave a process behind that runs `job` in forks of itself.

    The process ends within a second after the command. Without Linux there is none: elsewhere a
    fork of a process with these libraries is not safe.

    Args:
        command: What to execute, with its arguments.
        job: Reads `sys.argv`, as the command line does.

    Raises:
        OSError: The command cannot be executed.
    """
    if sys.platform == "linux":
        address = Path(tempfile.mkdtemp(prefix="priorflow-")) / "socket"
        parent = os.getpid()
        if os.fork() == 0:
            _serve(address, parent, job)
            return
        os.environ[SOCKET] = f"{__file__}:{address}"
    os.execvp(command[0], command)


def ask() -> int | None:
    """Have this process's command run by the warm process.

    Returns:
        The exit code of the job; None if there is no warm process for it.
    """
    owner, _, address = os.environ.get(SOCKET, "").rpartition(":")
    if owner != __file__ or any(os.environ.get(name, "1") != "1" for name in THREADS):
        return None  # another copy of the package, or none, or too few threads
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the job ends with this process
        request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(request).to_bytes(HEADER)], [0, 1, 2])
        connection.sendall(request)
        answer = connection.recv(HEADER)
    if not answer:
        print("error: the job was killed; was there too little memory?", file=sys.stderr)
    return int(answer or 1)


def _serve(address: Path, parent: int, job: Callable[[], None]) -> None:
    """Fork for every request as long as the parent lives; the forks return when they are done."""
    os.setsid()  # an interrupt at the keyboard is for the command alone
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    for name in LIBRARIES:
        if os.getppid() == parent:
            with contextlib.suppress(ImportError):  # a job that needs it will say so
                importlib.import_module(name)
    gc.freeze()  # or the forks would copy every page, to count references in it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no fork is waited for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        listener.settimeout(1)
        while os.getppid() == parent:
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _work(connection, job)
                    return
                connection.close()
    shutil.rmtree(address.parent)


def _work(connection: socket.socket, job: Callable[[], None]) -> None:
    """Do the job of one request, and answer with its exit code when all is done."""
    begin, state = time.perf_counter(), {"code": 1}
    header, streams, *_ = socket.recv_fds(connection, HEADER, 3)
    with connection.makefile("rb") as file:  # less than was promised is no JSON, and ends here
        sys.argv, folder, environment = json.loads(file.read(int.from_bytes(header)))
    # the kernel ends this process with SIGIO when the one that asked is gone
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.update(environment)
    atexit.register(_answer, connection, begin, state)  # first in, last out
    try:
        job()
        state["code"] = 0
    except SystemExit as end:
        state["code"] = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()


def _answer(connection: socket.socket, begin: float, state: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"warm: {time.perf_counter() - begin:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU, "
        f"at most {used.ru_maxrss / 1024:.0f} MB",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(state["code"]).encode())
