"""Runs operations on files as threads that stop before each call to the file system, under every schedule with few
preemptions, and kills them there.

Only one thread runs at a time, so a schedule always gives the same result. After a run the choices that it had are
known, and each of them is taken in a run of its own. A thread that is killed does nothing more, whatever its own
`finally` says: all further calls fail at once.
"""

import builtins
import errno
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from accel_trainer.core import disk_calls, exclusive_move, lease, place_lock, rename
from accel_trainer.core.process_space import Life
from accel_trainer.core.rename import rename_noreplace
from accel_trainer.queue import moves, other_names

CALLS = (
    "rename", "replace", "link", "unlink", "remove", "stat", "lstat", "scandir", "listdir", "mkdir", "rmdir", "open",
    "utime", "chmod",
)  # fmt: skip
RAW = {name: getattr(os, name) for name in CALLS}
raw_open = io.open
# What a thread does next: run on, or be killed.
KILL = -1
MOST_STEPS = 2_000


class Killed(BaseException):
    """The process of this operation was killed."""


@dataclass
class Process:
    """An operation, as a process: its number is that of the process, and it runs while it has the baton."""

    number: int
    act: Callable[[], object]
    watched: Path | None = None
    baton: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    seen: set[bytes] = field(default_factory=set)
    is_over = is_killed = has_linked = False
    result: object = None
    error: BaseException | None = None

    def note_watched(self) -> None:
        """Which content has been at the path that this operation is allowed to remove."""
        if self.watched is not None:
            try:
                with raw_open(self.watched, "rb") as file:
                    self.seen.add(file.read())
            except OSError:
                pass


@dataclass(frozen=True)
class Decision:
    """Who could run at one moment, who did, and what that cost so far."""

    current: int
    enabled: tuple[int, ...]
    taken: int
    preemptions: int
    kills: int


class Run:
    """One run of some operations, with the first choices given; the others are to go on, or to begin the next one."""

    def __init__(self, processes: Sequence[Process], choices: Sequence[int]) -> None:
        self.processes, self.choices = processes, choices
        self.decisions: list[Decision] = []
        self._done = threading.Semaphore(0)
        self._current = -1
        self._preemptions = self._kills = 0

    def go(self) -> None:
        threads = [threading.Thread(target=self._live, args=(process,), daemon=True) for process in self.processes]
        LOCAL.run = self
        for thread in threads:
            thread.start()
        self._hand_on()
        self._done.acquire()
        for thread in threads:
            thread.join()

    def _live(self, process: Process) -> None:
        process.baton.acquire()
        LOCAL.process, LOCAL.run = process, self
        try:
            process.note_watched()
            if process.is_killed:
                raise Killed
            process.result = process.act()
        except BaseException as error:
            process.error = error
        process.is_over = True
        LOCAL.process = None
        self._hand_on()

    def stop_before_call(self, process: Process) -> None:
        if process.is_killed:
            raise Killed
        self._hand_on()
        if process.is_killed:
            raise Killed
        process.note_watched()

    def _hand_on(self) -> None:
        """Decide who runs next, and let it run; comes back when the caller is to run again."""
        enabled = tuple(process.number for process in self.processes if not process.is_over)
        if not enabled:
            self._done.release()
            return
        current, number = self._current, len(self.decisions)
        is_alive = current in enabled
        default = current if is_alive else enabled[0]
        taken = self.choices[number] if number < len(self.choices) else default
        assert number < MOST_STEPS, "this never ends"
        self.decisions.append(Decision(current, enabled, taken, self._preemptions, self._kills))
        if taken == KILL:
            self._kills += 1
            self.processes[current].is_killed = True
            return  # it raises, and its end hands on
        self._preemptions += is_alive and taken != current
        if taken == current:
            return
        self._current = taken
        me = LOCAL.process
        self.processes[taken].baton.release()
        if me is not None and not me.is_over:
            me.baton.acquire()


class _Local(threading.local):
    process: Process | None = None
    run: Run | None = None


LOCAL = _Local()


def further(run: Run, most_preemptions: int, most_kills: int) -> Iterator[tuple[int, ...]]:
    """The schedules that leave this one at a later moment than its own choices."""
    taken = [decision.taken for decision in run.decisions]
    for number in range(len(run.choices), len(taken)):
        decision = run.decisions[number]
        is_alive = decision.current in decision.enabled
        for other in decision.enabled:
            if other != taken[number] and decision.preemptions + is_alive <= most_preemptions:
                yield (*taken[:number], other)
        if is_alive and decision.kills < most_kills:
            yield (*taken[:number], KILL)


@dataclass(frozen=True)
class FileSystem:
    """What the file systems of two roots can do: renames that replace nothing, hard links; whether they are one;
    whether they count the names of a file, and tell by a number which file it is.

    failing_links: of a process's links the first reports EIO, though it is done, or and is not.
    """

    root: Path
    has_noreplace: bool = True
    has_links: bool = True
    is_one: bool = True
    tells_files: bool = True
    failing_links: Literal["", "done", "not done"] = ""

    def call(self, name: str, raw: Callable[..., Any], process: Process, args: Sequence[Any], more: Any) -> Any:
        """Make a call of a process, as this file system does."""
        self.refuse(name, args)
        is_failing = name == "link" and bool(self.failing_links) and not process.has_linked
        if name == "link":
            process.has_linked = True
        if not is_failing or self.failing_links == "done":
            result = raw(*args, **more)
        if is_failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(args[0]))
        if name in ("stat", "lstat") and not self.tells_files and isinstance(args[0], str | Path):
            return as_of_sftp(result, args[0])
        return result

    def refuse(self, name: str, args: Sequence[Any]) -> None:
        """Raise what this file system answers to a call that it does not know."""
        if name == "link" and not self.has_links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(args[0]))
        if name == "noreplace" and not self.has_noreplace:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(args[0]))
        if name in ("rename", "replace", "link", "noreplace") and not self.is_one:
            one, other = (Path(arg).relative_to(self.root).parts[0] for arg in args[:2])
            if one != other:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(args[0]))


def as_of_sftp(about: os.stat_result, path: str | Path) -> os.stat_result:
    """Attributes as sshfs has them: an inode of the name, one name of each file, whole seconds."""
    fields: list[Any] = list(about)
    fields[1], fields[3] = hash(str(path)) & 0x7FFFFFFF, 1
    times = dict.fromkeys(("st_mtime_ns", "st_atime_ns", "st_ctime_ns"), about.st_mtime_ns // 10**9 * 10**9)
    return os.stat_result(fields, {**times, "st_mtime": about.st_mtime_ns // 10**9})


@contextmanager
def intercepted(system: FileSystem) -> Iterator[None]:
    """All calls to the file system below a root stop first, where an operation makes them."""
    root = str(system.root)

    def stopping(name: str, raw: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            process, run = LOCAL.process, LOCAL.run
            if process is not None and run is not None and args and str(args[0]).startswith(root):
                run.stop_before_call(process)
                return system.call(name, raw, process, args, kwargs)
            return raw(*args, **kwargs)

        return call

    def process_id() -> int:
        process = LOCAL.process
        return 0 if process is None else 1000 + process.number

    with ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(patch.object(os, name, stopping(name, RAW[name])))
        stack.enter_context(patch.object(io, "open", stopping("io.open", raw_open)))
        stack.enter_context(patch.object(builtins, "open", stopping("io.open", raw_open)))
        renamed = stopping("noreplace", rename_noreplace)
        for module in (exclusive_move, moves, other_names):
            stack.enter_context(patch.object(module, "rename_noreplace", renamed))
        # Once known it is remembered: each run would take other steps than the one before.
        stack.enter_context(patch.object(other_names.OtherNames, "are_linked", not system.has_noreplace))
        stack.enter_context(patch.object(os, "fsync", lambda descriptor: None))
        stack.enter_context(patch.object(os, "getpid", process_id))
        stack.enter_context(patch.object(lease, "life_of", _life_of))
        stack.enter_context(patch.object(lease, "own_start", lambda: "1"))
        # Listings are as they are, and need not be asked for anew.
        stack.enter_context(patch.object(rename, "list_anew", lambda folder: None))
        # Nobody waits for another: the right to a name is taken away at once, also from who lives.
        stack.enter_context(patch.object(place_lock, "PATIENCE_S", 0.0))
        # What may pass is tried again at once.
        stack.enter_context(patch.object(disk_calls, "FIRST_PAUSE_S", 0.0))
        stack.enter_context(disk_calls.retrying(60.0))
        yield


DEAD: set[int] = set()


def _life_of(pid: int, started: str) -> Life:
    return Life.DEAD if pid in DEAD else Life.ALIVE


def walk(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    """All that is below a folder, by calls that are not intercepted."""
    for entry in RAW["scandir"](os.fspath(folder)):
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)


def wipe(folder: Path) -> None:
    """Remove all files below a folder, not its folders."""
    for entry in RAW["scandir"](folder):
        if entry.is_dir(follow_symlinks=False):
            wipe(Path(entry.path))
            if entry.name.startswith("."):
                RAW["rmdir"](entry.path)
        else:
            RAW["unlink"](entry.path)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
