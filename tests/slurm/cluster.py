"""A real Slurm of two virtual nodes on this machine, in a folder of its own, from Debian's packages."""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from helpers import wait_until

from accel_trainer.core.processes import parent_death_signal

NEEDED_VARIABLE = "ACCEL_TRAIN_NEED_SLURM"
NODES = ("n1", "n2")
# Short where the default would make a test wait; without control groups, which a container may not have.
CONFIGURATION = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=8
KillWait=60
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=first Nodes=n1 Default=YES MaxTime=INFINITE
PartitionName=second Nodes=n2 MaxTime=INFINITE
PartitionName=both Nodes=n1,n2 MaxTime=INFINITE
"""


def why_not() -> str | None:
    """What keeps us from a Slurm of our own; None if nothing does."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if _program(name) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install --no-install-recommends slurm-wlm munge"
    return None if os.getuid() == 0 else "only root can run one"


class Cluster:
    """Runs while the body does. `environment` is what its commands need."""

    def __init__(self) -> None:
        # Short, since there are sockets in it.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.configuration = self.folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.configuration)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _start(self) -> None:
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(folder=self.folder, host=host, user=getpass.getuser(), ports=_free_ports(3))
        self.configuration.write_text(text)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        wait_until((self.folder / "munge.socket").exists, 30)
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: self._states() == dict.fromkeys(NODES, "idle"), 60)

    def _end(self) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_node(self, node: str) -> subprocess.Popen[bytes]:
        return self._daemon("slurmd", "-D", "-N", node, key=node)

    def kill_slurmd(self, node: str) -> None:
        """What it has started continues."""
        self._daemons[node].kill()
        self._daemons[node].wait()

    def kill_node(self, node: str) -> None:
        """As a power cut: the daemon, and all that runs there."""
        self.kill_slurmd(node)
        for process in self.processes(node):
            with suppress(psutil.Error):
                process.kill()

    def call(self, *words: str) -> str:
        """Run a command of Slurm and give its output."""
        done = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job_id: int) -> str:
        return self.call("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T")

    def restarts(self, job_id: int) -> int:
        """How often a job was put back into the queue so far."""
        return int(self._record(job_id)["Restarts"])

    def minutes(self, job_id: int) -> int:
        """For how many whole minutes a job has run."""
        hours, minutes, _ = self._record(job_id)["RunTime"].split(":")
        return 60 * int(hours) + int(minutes)

    def _record(self, job_id: int) -> dict[str, str]:
        words = self.call("scontrol", "--oneliner", "show", "job", str(job_id)).split()
        return dict(word.partition("=")[::2] for word in words)

    def job_ids(self, name: str) -> list[int]:
        """All jobs of this name, those that are over too."""
        listed = self.call("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i")
        return sorted(map(int, listed.split()))

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """All that jobs have started, on one node or all; first the daemons of steps, which tell when those end."""
        found, steps = [], set()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                environment = process.environ()
                is_here = node in (None, environment.get("SLURMD_NODENAME"))
                if (
                    environment.get("SLURM_CONF") == str(self.configuration)
                    and "SLURM_JOB_ID" in environment
                    and is_here
                ):
                    found.append(process)
                    steps |= {one for one in process.parents() if "slurmstepd" in one.name()}
        return [*steps, *found]

    def _states(self) -> dict[str, str]:
        words = ["sinfo", "--noheader", "--Node", "--format=%N %t", "--partition=both"]
        listed = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True).stdout
        return dict(line.split() for line in listed.splitlines())

    def _daemon(self, program: str, *words: str, key: str | None = None) -> subprocess.Popen[bytes]:
        with (self.folder / f"{key or program}.out").open("ab") as output:
            self._daemons[key or program] = subprocess.Popen(
                [str(_program(program)), *words],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=parent_death_signal(signal.SIGKILL),
            )
        return self._daemons[key or program]


def shim(folder: Path, name: str, lines: Sequence[str]) -> str:
    """A PATH in which a program is replaced by a script; {real} in it stands for the program."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]).replace("{real}", shutil.which(name) or f"/no/{name}"))
    path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
