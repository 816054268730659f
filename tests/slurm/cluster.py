"""A real SLURM cluster of one node, with accounting and a pretend GPU, as long as the tests run.

Everything that the daemons write lies in one temporary folder; only `/etc/slurm/slurm.conf` is a
link to it, since jobs do not inherit `SLURM_CONF`. No systemd and no cgroups are needed.
"""

__all__ = ["Cluster", "Job"]

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LINK = Path("/etc/slurm/slurm.conf")
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd")
PACKAGES = "slurm-wlm munge slurmdbd mariadb-server"
PREFIX = "priorflow-slurm-"
MEMORY = Path("/dev/shm")  # databases wait for disks
CPUS = 4  # more than there may be: a job that waits needs none

SLURM = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
ReturnToService=2
KillWait=2
MinJobAge=300
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:a100:1
PartitionName=cpu Nodes=localhost Default=YES MaxTime=1-0
PartitionName=gpu Nodes=localhost MaxTime=1-0
"""
GRES = "NodeName=localhost Name=gpu Type=a100 File=/dev/zero\n"
DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=root
"""


@dataclass(frozen=True)
class Job:
    """What the accounting knows of a job.

    Attributes:
        id: Number.
        rule: Its comment, `rule_<rule>_wildcards_<wildcards>`.
        state: COMPLETED, FAILED, TIMEOUT, …
        memory: Memory asked for, in MB.
        limit: Time limit, in minutes.
        seconds: From its start to its end.
        waited: Seconds from submission to its start.
        resources: What it had, such as `cpu=1,gres/gpu=1`.
    """

    id: int
    rule: str
    state: str
    memory: int
    limit: int
    seconds: int
    waited: int
    resources: str


@dataclass
class Cluster:
    """The cluster.

    Attributes:
        folder: Where all its files are.
        started: The processes of the daemons, in the order of their start.
    """

    folder: Path
    started: list[psutil.Process] = field(default_factory=list)

    @staticmethod
    def obstacle() -> str:
        """Why the cluster cannot be started here, or nothing."""
        if os.geteuid() != 0:
            return "the test cluster needs root"
        # under the lock of the tests, a link of theirs is that of a run that was killed
        if LINK.exists() and not LINK.resolve().parent.name.startswith(PREFIX):
            return f"{LINK} exists: this machine belongs to a cluster"
        missing = [name for name in PROGRAMS if find(name) is None]
        if missing:
            return f"no {', '.join(missing)}: apt-get install --no-install-recommends {PACKAGES}"
        return ""

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator["Cluster"]:
        """Start it, and stop it whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY if MEMORY.is_dir() else None))
        folder.chmod(0o755)
        cluster = cls(folder)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """Start the daemons one after the other, each when it can be used."""
        names = ("ctld", "slurmd", "dbd", "sql")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        for name, text in (("slurm", SLURM), ("slurmdbd", DATABASE), ("gres", GRES)):
            file = self.folder / f"{name}.conf"
            file.write_text(text.format(folder=self.folder, cpus=CPUS, **ports))
            file.chmod(0o600)
        for name in ("state", "spool", "sql"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        LINK.parent.mkdir(exist_ok=True)
        LINK.unlink(missing_ok=True)  # a link to the folder of a run that was killed
        LINK.symlink_to(self.folder / "slurm.conf")

        files = {"key-file": "key", "socket": "socket", "log-file": "log", "pid-file": "pid"}
        options = [f"--{option}={self.folder}/munge.{end}" for option, end in files.items()]
        self.daemon("munged", "--foreground", f"--seed-file={self.folder}/munge.seed", *options)
        self.until(lambda: (self.folder / "munge.socket").exists(), "munged")

        sql = f"--datadir={self.folder}/sql"
        run("mariadb-install-db", "--no-defaults", "--user=root", sql)
        self.daemon(
            *("mariadbd", "--no-defaults", "--user=root", "--skip-grant-tables", sql),
            *(f"--socket={self.folder}/sql.socket", f"--pid-file={self.folder}/sql.pid"),
            *("--bind-address=127.0.0.1", f"--port={ports['sql']}"),
        )
        self.until(lambda: listening(ports["sql"]), "mariadbd")
        self.daemon("slurmdbd", "-D")
        self.until(lambda: listening(ports["dbd"]), "slurmdbd")
        run("sacctmgr", "-i", "add", "cluster", "test")
        run("sacctmgr", "-i", "add", "account", "my_project", "Cluster=test")
        run("sacctmgr", "-i", "add", "user", "root", "Account=my_project")

        self.daemon("slurmctld", "-D")
        self.daemon("slurmd", "-D", "-N", "localhost")
        self.until(lambda: "idle" in run("sinfo", "-h", "-o", "%T", check=False), "slurmd")

    def daemon(self, *command: str) -> None:
        """Start a program that stays in the foreground; what it says goes to a log."""
        with (self.folder / f"{command[0]}.out").open("w") as log:
            process = subprocess.Popen(
                [find(command[0]), *command[1:]],
                env=os.environ | {"SLURM_CONF": f"{self.folder}/slurm.conf"},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.started.append(psutil.Process(process.pid))

    def until(self, ready: Callable[[], bool], name: str, seconds: float = 30) -> None:
        """Wait for a daemon; if it does not come, say what it logged."""
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                logs = [*self.folder.glob(f"{name}*.log"), self.folder / f"{name}.out"]
                said = "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)
                raise RuntimeError(f"{name} did not start\n{said}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Cancel what runs and end the daemons, the last one first, by their process ids."""
        if len(self.started) == len(PROGRAMS) - 1:
            run("scancel", "--user=root", check=False)
            with contextlib.suppress(TimeoutError):
                self.wait_empty()
        for process in reversed(self.started):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15)
                except psutil.TimeoutExpired:
                    process.kill()
        self.started.clear()
        if LINK.is_symlink() and LINK.readlink().parent == self.folder:
            LINK.unlink()

    def queue(self) -> list[str]:
        """State and rule of every job that has not ended, such as `RUNNING rule_infer_…`."""
        return run("squeue", "--noheader", "--format=%T %k").splitlines()

    def wait_queue(self, state: str, word: str, seconds: float = 60) -> None:
        """Until a job of this state has the word in its comment."""
        self._wait(lambda: any(state in job and word in job for job in self.queue()), seconds)

    def wait_empty(self, seconds: float = 30) -> None:
        """Until no job is left."""
        self._wait(lambda: not self.queue(), seconds)

    def _wait(self, ready: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise TimeoutError(f"the queue has {self.queue() or 'no job'}")
            time.sleep(0.2)

    def jobs(self, after: int = 0) -> list[Job]:
        """The jobs that have ended, with numbers above `after`."""
        form = "JobIDRaw,Comment%200,State,ReqMem,TimelimitRaw,ElapsedRaw,Submit,Start,AllocTRES%99"
        end = time.monotonic() + 10
        while True:
            lines = run(
                *("sacct", "-X", "-a", "-n", "--parsable2", "--starttime=now-1hours"),
                f"--format={form}",
                environment={"SLURM_TIME_FORMAT": "%s"},
            ).splitlines()
            found = [_job(line) for line in lines]
            found = [job for job in found if job.id > after]
            # the controller tells the database a moment later
            pending = [job for job in found if job.state in ("PENDING", "RUNNING")]
            if not pending or time.monotonic() > end:
                return sorted(found, key=lambda job: job.id)
            time.sleep(0.2)

    def last(self) -> int:
        """The number of the last job, from the controller: the database may not know it yet."""
        (following,) = re.findall(
            r"^NEXT_JOB_ID\s*= (\d+)$", run("scontrol", "show", "config"), re.M
        )
        return int(following) - 1


def _job(line: str) -> Job:
    number, rule, state, memory, limit, seconds, submitted, started, resources = line.split("|")
    factor = {"M": 1, "G": 1024}[memory[-1]]
    waited = int(started) - int(submitted) if started.isdigit() else 0
    return Job(
        id=int(number),
        rule=rule,
        state=state.split()[0],
        memory=round(float(memory[:-1]) * factor),
        limit=int(limit),
        seconds=int(seconds),
        waited=waited,
        resources=resources,
    )


def find(name: str) -> str | None:
    """The path of a program, those of the administrator included."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def run(*command: str, check: bool = True, environment: dict[str, str] | None = None) -> str:
    """What a command prints; what it complains of, if it fails and should not."""
    done = subprocess.run(
        [find(command[0]) or command[0], *command[1:]],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def listening(port: int) -> bool:
    """Whether a daemon listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
