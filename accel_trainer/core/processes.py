"""Processes that must not outlive what they work for, and how to find and name them."""

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import cache
from types import FrameType
from typing import NoReturn

from accel_trainer.core.launched import CORES_VARIABLE, told
from accel_trainer.core.limits import cpu_quota, slurm_cores, whole_cores
from accel_trainer.core.process_space import sees_processes

_PR_SET_PDEATHSIG = 1
# At this signal a training process writes to its standard error what each of its threads is doing.
STACKS_SIGNAL = signal.SIGUSR1


class Program(StrEnum):
    """Every module of ours that is launched as a process of its own, with `python -m`. They are all in `workers`, which
    nothing imports."""

    LAUNCH = "accel_trainer.workers.launch"
    TRAIN = "accel_trainer.workers.train"
    EVALUATE = "accel_trainer.workers.evaluate"
    EVALUATE_JOB = "accel_trainer.workers.evaluate_job"
    FEATURES = "accel_trainer.workers.features"
    PROBE = "accel_trainer.workers.probe"
    PROFILE = "accel_trainer.workers.profile"
    ALL_REDUCE = "accel_trainer.workers.all_reduce"
    PLOT = "accel_trainer.workers.plot"
    VALIDATE = "accel_trainer.workers.validate"
    SLURM_JOB = "accel_trainer.workers.slurm_job"
    PROBE_GPUS = "accel_trainer.workers.probe_gpus"
    PROBE_TORCH = "accel_trainer.workers.probe_torch"
    PROBE_WANDB = "accel_trainer.workers.probe_wandb"
    PROBE_SERVER = "accel_trainer.workers.probe_server"

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs it with this Python."""
        return [sys.executable, "-m", self, *arguments]


class StopRequest:
    """SIGTERM and the like: the trainer finishes the step, saves and ends. The handler only sets a flag.

    A signal that the parent has set to be ignored, as nohup does with SIGHUP, stays ignored.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_urgent = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def listen(self, *numbers: signal.Signals) -> None:
        """Note these signals from now on."""
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def note(self, number: int) -> None:
        """A first request, or one that makes it urgent."""
        self.is_urgent = self.signal is not None
        self.signal = self.signal or number

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.note(number)


@cache
def stop_request() -> StopRequest:
    """The signals that have asked this trainer to stop since this was first called."""
    stop = StopRequest()
    stop.listen(signal.SIGTERM, signal.SIGINT)
    return stop


def parent_death_signal(signal_number: int = signal.SIGTERM) -> Callable[[], None]:
    """A function that asks the kernel to send this process a signal when its parent dies, however it dies.

    What needs loading is loaded now: the function may run between fork and exec. Linux only; elsewhere it does
    nothing (see `die_with_parent`).
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal_number)


def die_with_parent(grace_s: float = 120.0) -> None:
    """Be sent SIGTERM when the parent process dies. Where the kernel does not see to it, a thread does.

    Who does not end within the grace, as one that hangs does not, is killed: nobody else would. What was called before,
    when this process began, stays as it is.
    """
    name = f"watch the parent of {os.getpid()}"
    if any(thread.name == name for thread in threading.enumerate()):
        return
    parent = os.getppid()
    if sys.platform == "linux":
        parent_death_signal()()
    threading.Thread(target=_watch, args=(parent, grace_s), name=name, daemon=True).start()


def _watch(parent: int, grace_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def pids_with_env(name: str, value: str) -> list[int]:
    """Ids of this user's processes that have an environment variable of this value, but for our own.

    Children inherit the variable: so this finds all that a launcher has left behind, sessions, groups and
    parents notwithstanding. Where this process's own space cannot be seen, none is found: the ids that can be seen are
    those of others.
    """
    if not sees_processes():
        return []
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return [pid for pid in found if pid != os.getpid()]


def env_of(pid: int, name: str) -> str | None:
    """An environment variable of another process of this user."""
    import psutil

    with suppress(psutil.Error, OSError):
        return psutil.Process(pid).environ().get(name)
    return None


def usable_cores() -> int:
    """The cores that this process really has: those that it may run on, no more than the quota of its container pays
    for, or than Slurm has given it; its share of them, where several jobs train side by side."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (quota := cpu_quota()) is not None:
        cores = min(cores, whole_cores(quota))
    cores = min(cores, slurm_cores() or cores)
    share = told(CORES_VARIABLE)
    return min(cores, max(1, int(share))) if re.fullmatch(r"[0-9]{1,6}", share) else cores


def children() -> set[int]:
    """Ids of the processes that this one has started, and not waited for yet."""
    import psutil

    with suppress(psutil.Error, OSError):
        return {child.pid for child in psutil.Process().children()}
    return set()


def has_living_child(name: str) -> bool:
    """Whether a program of this name runs that this process has started."""
    import psutil

    for pid in children():
        with suppress(psutil.Error):
            child = psutil.Process(pid)
            if child.name() == name and child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def reap_when_dead(pid: int) -> None:
    """Wait, aside, for the end of a child that nobody else waits for in time: else it stays as a zombie."""

    def wait() -> None:
        with suppress(ChildProcessError):  # somebody else did
            os.waitpid(pid, 0)

    threading.Thread(target=wait, daemon=True).start()


def send_signal(pids: list[int], number: int) -> None:
    """Send a signal to those of these processes that are there and ours."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def signal_name(number: int) -> str:
    """What a signal is called, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_now(code: int) -> NoReturn:
    """End at once: threads of libraries must not keep a process alive that is done, nor may a disk that is full."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
