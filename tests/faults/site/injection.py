"""Faults at chosen moments of a process, without a line for it in the code that is tested.

Every process that a test starts with this folder on PYTHONPATH looks into one variable for faults that are meant for
it. Python announces everything that a process does to files (https://peps.python.org/pep-0578/): at the n-th such event
of a kind the process sends itself a signal, before the event takes place.
"""

# Paths as the system has them: a hook must be quick, and cause no events of its own.
# ruff: noqa: PTH109, PTH115, PTH118

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

FAULTS_VARIABLE = "ACCEL_TRAIN_TEST_FAULTS"
# When it is set, checkers end before they import torch: the runner then leaves it to the trainer to find mistakes.
UNCHECKED_VARIABLE = "ACCEL_TRAIN_TEST_UNCHECKED"
# When it is set, what draws curves ends before it imports matplotlib, which takes as long as a small training.
UNPLOTTED_VARIABLE = "ACCEL_TRAIN_TEST_UNPLOTTED"

# When it is set, what tells the doctor of torch and wandb ends before it imports them.
UNPROBED_VARIABLE = "ACCEL_TRAIN_TEST_UNPROBED"

# After how many seconds without a sign of life an owner counts as silent, and how often it gives one, as "4 0.5".
LEASE_VARIABLE = "ACCEL_TRAIN_TEST_LEASE"
# After how many seconds a call on a disk counts as one that hangs.
HANGS_VARIABLE = "ACCEL_TRAIN_TEST_HANGS"
# How often an evaluation notes on the disk what it has computed, in seconds.
FLUSH_VARIABLE = "ACCEL_TRAIN_TEST_FLUSH"
# How many rounds a trial of a disk has.
ROUNDS_VARIABLE = "ACCEL_TRAIN_TEST_ROUNDS"

# What the program of a process is called in a fault.
ROLES = {
    "accelerate.commands.launch": "launcher",  # of several processes; a single one becomes the worker
    "accel_trainer.workers.train": "worker",
    "accel_trainer.workers.plot": "plotter",
    "accel_trainer.cli run-queue": "runner",
    "accel_trainer.workers.validate": "checker",
    "accel_trainer.workers.probe_torch": "prober",
    "accel_trainer.workers.probe_wandb": "prober",
}
# What roles are not wanted where a variable is set.
_NOT_WANTED = {"checker": UNCHECKED_VARIABLE, "plotter": UNPLOTTED_VARIABLE, "prober": UNPROBED_VARIABLE}
# Audit events, and how many of their arguments are paths.
EVENTS = {"open": 1, "os.rename": 2, "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1, "os.fsync": 1}


def role_of(command: Sequence[str]) -> str | None:
    """What a process is to a job, by its command line."""
    if "-m" not in command[:4]:
        return None
    module, *rest = command[command.index("-m", 0, 4) + 1 :]
    if module == "accel_trainer.workers.launch" and "-m" in rest:
        module = rest[rest.index("-m") + 1]
    return ROLES.get(module) or ROLES.get(f"{module} {rest[0] if rest else ''}")


def arm(faults: Sequence[dict[str, Any]]) -> None:
    """Watch this process. A fault is a dict of

    folders: events count that touch something below one of these;
    pattern: regular expression that the text of an event must contain, such as "rename .* resume/", or None;
    nth: the number of the event among these (0: none);
    signal: what the process then sends itself, or another with `pid`; delay_s: how much later;
    marker: a file that is made then; where it exists already nothing happens, so that a fault strikes once;
    trace: a file to which the text of every event is added, or None.
    """
    watches = [_Watch(**fault) for fault in faults]
    if not watches:
        return
    _make_fsync_audible()
    looking = threading.local()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or getattr(looking, "now", False):
            return
        looking.now = True
        try:
            paths = list(_paths(event, args))
            for watch in watches:
                watch.see(event.removeprefix("os."), paths)
        finally:
            looking.now = False

    sys.addaudithook(hook)


class _Watch:
    def __init__(
        self,
        folders: Sequence[str],
        marker: str,
        nth: int = 1,
        signal: int = signal.SIGKILL,
        pattern: str | None = None,
        trace: str | None = None,
        delay_s: float = 0.0,
        pid: int | None = None,
    ) -> None:
        self._folders = [os.path.join(folder, "") for folder in folders]
        self._pattern, self._nth, self._signal, self._marker = pattern, nth, signal, marker
        self._seen, self._delay_s, self._pid = 0, delay_s, pid
        self._trace = None if trace is None else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def see(self, event: str, paths: Sequence[str]) -> None:
        if not any(path.startswith(folder) for path in paths for folder in self._folders):
            return
        text = " ".join([event, *paths])
        if self._pattern is not None and not re.search(self._pattern, text):
            return
        self._seen += 1
        if self._trace is not None:
            os.write(self._trace, f"{text}\n".encode())
        if self._seen == self._nth and self._is_first(text):
            target = (self._pid or os.getpid(), self._signal)
            if self._delay_s:
                threading.Timer(self._delay_s, os.kill, target).start()
            else:
                os.kill(*target)

    def _is_first(self, text: str) -> bool:
        try:
            marker = os.open(self._marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        os.write(marker, text.encode())
        os.close(marker)
        return True


def _paths(event: str, args: tuple[Any, ...]) -> Iterator[str]:
    """Absolute paths of what an event touches."""
    if event == "os.fsync":
        yield args[0]
        return
    number = EVENTS[event]
    folders = args[number:] if event in ("os.rename", "os.remove", "os.rmdir") else ()
    if event == "os.mkdir":
        folders = args[2:]
    for index, path in enumerate(args[:number]):
        if isinstance(path, (str, bytes, os.PathLike)):
            yield os.path.join(_folder(folders, index), os.fsdecode(path))


def _folder(descriptors: Sequence[Any], index: int) -> str:
    """The folder that a relative path is meant in."""
    descriptor = descriptors[index] if index < len(descriptors) else -1
    if isinstance(descriptor, int) and descriptor >= 0:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return os.getcwd()


def _make_fsync_audible() -> None:
    """Between the writing of a file and its reaching the disk there is no event of Python's own."""
    fsync = os.fsync

    def audible(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        sys.audit("os.fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(file)

    os.fsync = audible


def take_less_time() -> None:
    """Before anything that takes these numbers is imported."""
    if LEASE_VARIABLE in os.environ:
        from accel_trainer.core import lease

        lease.STALE_S, lease.BEAT_S = map(float, os.environ[LEASE_VARIABLE].split())
    if HANGS_VARIABLE in os.environ:
        from accel_trainer.core import disk_calls

        disk_calls.HANGS_S = float(os.environ[HANGS_VARIABLE])
    if FLUSH_VARIABLE in os.environ:
        from accel_trainer.evaluation import rows_on_disk

        rows_on_disk.FLUSH_EVERY_S = float(os.environ[FLUSH_VARIABLE])
    if ROUNDS_VARIABLE in os.environ:
        from accel_trainer.doctor import filesystem_trials

        filesystem_trials.NUM_ROUNDS = int(os.environ[ROUNDS_VARIABLE])


def arm_from_environment() -> None:
    """Arm the faults that are meant for this process: those of its role and rank."""
    take_less_time()
    role, rank = role_of(sys.orig_argv), int(os.environ.get("RANK", 0))
    if _NOT_WANTED.get(role, "") in os.environ:
        os._exit(0)
    given = os.environ.get(FAULTS_VARIABLE)
    if not given:
        return
    mine = []
    for fault in json.loads(given):
        if fault.pop("role") == role and fault.pop("rank", 0) == rank:
            mine.append(fault)
    arm(mine)
