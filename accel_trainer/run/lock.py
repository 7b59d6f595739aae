"""One owner of a run folder: the process that trains in it holds a lock there, `.owner-<n>`.

A lock appears whole, under a name that was free (`core.exclusive_move`). It outlives an owner that is killed, and is
taken over with the next number, so that of several processes one wins. Of an owner whose process can be seen it is
known whether it is alive; any other touches its lock as a heartbeat, and its lease expires when it has not for long
(`core.lease`).
"""

import errno
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import AccelTrainError, UserError
from accel_trainer.core.exclusive_move import move_own
from accel_trainer.core.fence import NOT_EMPTY, discard, fence, raze
from accel_trainer.core.files import MEBIBYTE, open_regular, read_bytes
from accel_trainer.core.lease import BEAT_S, Owner, left_s
from accel_trainer.core.outage import UnsuitableFile
from accel_trainer.core.process_space import Life
from accel_trainer.core.record_store import Line, RecordStore, Time
from accel_trainer.core.rename import make_folder
from accel_trainer.core.text import duration
from accel_trainer.run.folder import RunFolder, cannot_write
from accel_trainer.run.older_run import take_over

# For what is in a lock to be written.
BEING_TAKEN_S = 60.0
MAX_LOCK = 2**16
# For which the own folder of an owner that ends may not be removed.
TIDY_S = 5.0
# For a thread that looks at the lock, when it is no longer needed. A network drive may answer it much later.
JOIN_S = 5.0
# Of which an own folder has its name; a lock may say anything.
_TOKEN = re.compile(r"[\w.-]{1,200}", re.ASCII)


class LockLost(AccelTrainError):
    """Another process has taken the run folder over."""


class FolderInUse(UserError):
    """Another process trains in the run folder, or has just begun or ended to.

    wait_s: after so many seconds it may be free: when the lease of an owner that cannot be seen would have expired.
    """

    wait_s = BEING_TAKEN_S

    def until_free(self, lock: "_Lock") -> Self:
        """The same, with the time that this lock has left."""
        if lock.owner is not None and lock.owner.life() is Life.UNKNOWN:
            self.wait_s = max(BEING_TAKEN_S, left_s(lock.age_s))
        return self


@dataclass(frozen=True)
class _LockRecord:
    """The content of a lock; `since` in seconds since 1970."""

    host: Line
    token: Line
    since: Time

    @property
    def owner(self) -> Owner:
        return Owner(self.host, self.token)


_RECORDS = RecordStore(_LockRecord)


@dataclass(frozen=True)
class _Lock:
    """A lock as it is found. `record` is None while its content is not there, or where that cannot be read; what is no
    regular file is not one, only of its name."""

    number: int
    age_s: float
    record: _LockRecord | None = None
    is_one: bool = True

    @property
    def owner(self) -> Owner | None:
        return None if self.record is None else self.record.owner

    @property
    def has_expired(self) -> bool:
        if self.owner is None:
            return not self.is_one or self.age_s > BEING_TAKEN_S
        return self.owner.has_expired(self.age_s)

    def refusal(self, run: RunFolder) -> FolderInUse:
        if self.record is None:
            message = f"another process has just begun to train in {run.path}"
            return FolderInUse(message, key="model_dir", hint="choose another")
        _, pid, *_ = [*self.record.token.split("-"), ""]
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.record.since))
        message = f"another process is training in {run.path}: process {pid} on {self.record.host}, since {since}"
        hint = "wait for its end, or choose another model_dir"
        return FolderInUse(message, key="model_dir", hint=hint).until_free(self)


class RunLock:
    """A lock that is held, until `release`."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self._path, self._owner = path, owner
        self._folder = RunFolder(path.parent)
        self.aside = self._folder.aside_of(owner.token)
        self.number = int(path.name.rpartition("-")[2])
        self._beaten = time.monotonic()

    def heartbeat(self) -> None:
        """Touch the lock when the next heartbeat is due; may be called as often as one likes. Raises LockLost."""
        if time.monotonic() - self._beaten < BEAT_S:
            return
        self._beaten = time.monotonic()
        with suppress(OSError):  # one that is missed does not matter
            self._touch()

    def check(self) -> None:
        """Raises LockLost, and OSError where it is not known."""
        if not self._is_ours():
            raise self._lost()

    def release(self) -> None:
        """Remove what was left half-written, and the lock, if it is held still: else both are another's."""
        with suppress(OSError):
            if self._is_ours():
                replace(self._folder, aside=self.aside).remove_leftovers()
        self.give_way()

    def give_way(self) -> None:
        """Remove the lock, if it is held still, and nothing that another may have written."""
        with suppress(OSError):
            if self._is_ours():
                discard(self._path, self.aside)
        with suppress(OSError):
            raze(self.aside, TIDY_S)

    def _touch(self) -> None:
        """Of the file that was looked at: its name may be another's by now. What is written again is dated by the file
        server; some clients set a time by their own clock."""
        try:
            descriptor = open_regular(self._path, os.O_RDWR, follow_links=False)
        except (FileNotFoundError, UnsuitableFile):
            raise self._lost() from None
        try:
            content = os.read(descriptor, MAX_LOCK)
            if not self._is_own(content):
                raise self._lost()
            try:
                os.pwrite(descriptor, content, 0)
            except OSError:  # a full disk may have no room for the same again
                os.utime(descriptor)
        finally:
            os.close(descriptor)

    def _lost(self) -> LockLost:
        return LockLost(f"another process has taken {self._path.parent} over: its lock is gone", key="model_dir")

    def _is_ours(self) -> bool:
        """Whether the file is the one that was made: one that was taken over may have come again."""
        try:
            return self._is_own(read_bytes(self._path, MAX_LOCK, follow_links=False))
        except (FileNotFoundError, UnsuitableFile):
            return False

    def _is_own(self, content: bytes) -> bool:
        try:
            return _RECORDS.decode(content).owner == self._owner
        except ValueError:
            return False


class LockGuard:
    """What asks before each write to a folder whether its lock is held still. Once it is lost, it stays lost."""

    def __init__(self, lock: RunLock) -> None:
        self._lock = lock
        self._lost: LockLost | None = None

    def owned(self, run: RunFolder) -> RunFolder:
        """The run folder, as its owner writes it."""
        return replace(run, check_owner=self.check, aside=self._lock.aside)

    def lose(self, error: LockLost) -> None:
        """Note a loss; called by the thread that gives signs of life."""
        self._lost = error

    def raise_if_lost(self) -> None:
        """Raises LockLost where the loss is known; looks at no file."""
        if self._lost is not None:
            raise self._lost

    def check(self) -> None:
        """Look at the lock. Raises LockLost."""
        self.raise_if_lost()
        try:
            with suppress(OSError):  # nothing is known at the moment
                self._lock.check()
        except LockLost as error:
            self._lost = error
            raise


def never(token: str) -> bool:
    """Follows no owner that may be alive."""
    return False


def acquire(
    run: RunFolder,
    owner: Owner,
    *,
    end_leftovers: Callable[[str], None],
    say: Callable[[str], None],
    follows: Callable[[str], bool] = never,
) -> RunLock:
    """Acquire a run folder, which exists. Raises FolderInUse while another process has it, and other UserErrors.

    end_leftovers: ends what is left of the processes of a dead owner, given its token.
    say: takes a line about an owner whose process cannot be seen, and whose lease has expired.
    follows: whether this process was started in the place of the owner of a token, whose process cannot be seen.
    """

    def take() -> RunLock:
        try:
            return _take(run, owner, end_leftovers, say, follows)
        except FileNotFoundError as error:
            if run.path.is_dir():
                raise
            # It was there: its disk is away.
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(run.path)) from error

    try:
        return on_disk(take, run.path)
    except OSError as error:
        raise cannot_write(run.path, error) from error


@contextmanager
def held(lock: RunLock, on_lost: Callable[[LockLost], None]) -> Iterator[None]:
    """Give signs of life while the body runs, in a thread of its own, and release the lock after it.

    on_lost: is called in that thread, once, when another process has taken the folder over: then nothing more may be
    written there.
    """
    try:
        with meanwhile(lock.heartbeat, BEAT_S, on_lost):
            yield
    finally:
        lock.release()


@contextmanager
def meanwhile(act: Callable[[], None], every_s: float, on_lost: Callable[[LockLost], None]) -> Iterator[None]:
    """Act in regular intervals while the body runs, until that raises LockLost."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(every_s):
            try:
                act()
            except LockLost as error:
                on_lost(error)
                return

    thread = threading.Thread(target=repeat, name="run lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(timeout=JOIN_S)


def lock_silence_s(run: RunFolder, is_its_token: Callable[[str], bool]) -> float | None:
    """For how long the owner of a run folder with such a token has not touched its lock, by the clock of the file
    server; None where it has none there. Raises OSError."""
    ages = [max(0.0, lock.age_s) for lock in _locks(run) if lock.record is not None and is_its_token(lock.record.token)]
    return min(ages, default=None)


def find_lock(run: RunFolder, token: str, number: int | None = None) -> RunLock | None:
    """The lock that was acquired with this token, for a process that only watches whether it is held still. number: of
    the lock, where that is known; a listing may be old."""
    for path in map(run.lock, run.locks() if number is None else [number]):
        record = _RECORDS.read(path)
        if record is not None and record.token == token:
            return RunLock(path, record.owner)
    return None


def _take(
    run: RunFolder,
    owner: Owner,
    end_leftovers: Callable[[str], None],
    say: Callable[[str], None],
    follows: Callable[[str], bool],
) -> RunLock:
    every = _locks(run)
    # A lock of this owner's is left of a try that the disk has ended.
    old = [lock for lock in every if lock.owner != owner]
    _refuse_if_held(run, old, follows)
    for lock in old:
        if lock.owner is not None:
            end_leftovers(lock.owner.token)
        if lock.owner is not None and lock.owner.life() is Life.UNKNOWN:
            say(
                f"{run.path} was taken over: nothing was heard of the process that trained in it, on "
                f"{lock.owner.host}, for {duration(lock.age_s)}"
            )
    number = 1 + max((lock.number for lock in every), default=0)
    ours = RunLock(run.lock(number), owner)
    try:
        make_folder(ours.aside)
        _create(run.lock(number), owner)
        # What was looked at before may have changed; who comes now sees ours.
        others = [lock for lock in _locks(run) if lock.number != number]
        _refuse_if_held(run, [lock for lock in others if lock.owner != owner], follows)
        _fence_off(run, ours, others)
    except BaseException as error:
        ours.give_way()
        if isinstance(error, OSError) and error.errno in NOT_EMPTY and not isinstance(error, FileExistsError):
            message = f"a process that has trained in {run.path}, and is suspended or hangs, has files open there"
            raise FolderInUse(message, key="model_dir", hint="end it, or choose another") from error
        if not isinstance(error, FileExistsError | FileNotFoundError | LockLost) or not run.path.is_dir():
            raise
        # Another was faster. Where its lock is there still, it is named.
        _refuse_if_held(run, [lock for lock in _locks(run) if lock.owner != owner], follows)
        message = f"another process has just trained in {run.path}"
        raise FolderInUse(message, key="model_dir", hint="try again") from error
    return ours


def _fence_off(run: RunFolder, ours: RunLock, others: list[_Lock]) -> None:
    """Take the locks of former owners away, then all means to write here: who finds these gone looks at its lock."""
    ours.check()  # our own folder was there before: who follows us from now on removes it, and nothing is removed below
    for lock in others:
        if lock.is_one:
            discard(run.lock(lock.number), ours.aside)
    tokens = {lock.owner.token for lock in others if lock.owner is not None}
    known = {run.aside_of(token) for token in tokens if _TOKEN.fullmatch(token)}
    for aside in known.union(run.asides()) - {ours.aside}:
        fence(aside, ours.aside)
    owned = replace(run, check_owner=ours.check, aside=ours.aside)
    take_over(owned)
    if others:
        # A former owner's write into a file that is open still, or whose name was looked up, is then in none of ours.
        for path in (run.log, run.status_file):
            _write_anew(owned, path)


def _write_anew(run: RunFolder, path: Path) -> None:
    """The same content in another file. One that cannot be written now, as on a full disk, stays."""
    with suppress(OSError, UnsuitableFile), os.fdopen(open_regular(path, follow_links=False), "rb") as file:
        run.write(path, iter(partial(file.read, MEBIBYTE), b""), durable=False)


def _refuse_if_held(run: RunFolder, locks: list[_Lock], follows: Callable[[str], bool]) -> None:
    for lock in locks:
        is_followed = lock.owner is not None and lock.owner.life() is Life.UNKNOWN and follows(lock.owner.token)
        if not (lock.has_expired or is_followed):
            raise lock.refusal(run)


def _locks(run: RunFolder) -> list[_Lock]:
    """The locks of a run folder, highest number first. What is no regular file is none; its name is taken."""
    if not (numbers := run.locks()):
        return []
    found, now = [], run.now()
    for number in numbers:
        with suppress(FileNotFoundError):
            about = run.lock(number).lstat()
            record = _decoded(run.lock(number)) if stat.S_ISREG(about.st_mode) else None
            found.append(_Lock(number, now - about.st_mtime, record, is_one=stat.S_ISREG(about.st_mode)))
    return found


def _create(path: Path, owner: Owner) -> None:
    """Raises FileExistsError where there is something of this name, FileNotFoundError where the own folder is gone."""
    draft = RunFolder(path.parent).aside_of(owner.token) / path.name
    descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        content = _RECORDS.encode(_LockRecord(owner.host, owner.token, time.time()))
        while content:  # a network drive may take a part
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)
    move_own(draft, path)


def _decoded(path: Path) -> _LockRecord | None:
    with suppress(ValueError, UnsuitableFile):
        return _RECORDS.decode(read_bytes(path, MAX_LOCK, follow_links=False))
    return None
