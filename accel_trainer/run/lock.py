"""One owner of a run folder: whoever trains in it holds a lock there, `.owner-<n>`.

A lock is made by O_EXCL, which network drives have, too. It outlives an owner that is killed, and is taken over with
the next number, so that of several who want it one wins. Of an owner on this machine is known whether it lives; one on
another machine touches its lock every now and then, and is given up when it has not for long.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import BEAT_S, Owner
from accel_trainer.core.text import duration
from accel_trainer.run.folder import RunFolder

# For what is in a lock to be written.
BEING_TAKEN_S = 60.0


class LockLost(UserError):
    """Another process has taken the run folder over."""


@dataclass(frozen=True)
class _Lock:
    """A lock as it is found. `owner` is None while its content is not there, or where that cannot be read."""

    number: int
    age_s: float
    owner: Owner | None = None
    since: float = 0.0

    @property
    def is_given_up(self) -> bool:
        if self.owner is None:
            return self.age_s > BEING_TAKEN_S
        return self.owner.has_expired(self.age_s)

    def refusal(self, run: RunFolder) -> UserError:
        if self.owner is None:
            return UserError(f"model_dir: another process has just begun to train in {run.path}; choose another")
        _, pid, *_ = [*self.owner.token.split("-"), ""]
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return UserError(
            f"model_dir: another process is training in {run.path}: process {pid} on {self.owner.host}, since {since}; "
            "wait for its end, or choose another model_dir"
        )


class RunLock:
    """A lock that is held, until `release`."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self._path, self._owner = path, owner
        self._beaten = time.monotonic()

    def heartbeat(self) -> None:
        """Give a sign of life now and then; may be called as often as one likes. Raises OwnershipLost."""
        if time.monotonic() - self._beaten < BEAT_S:
            return
        self._beaten = time.monotonic()
        with suppress(OSError):  # one that is missed does not matter
            self.check()
            os.utime(self._path)

    def check(self) -> None:
        """Raises OwnershipLost, and OSError where it cannot be told."""
        if not self._is_ours():
            raise LockLost(f"model_dir: another process has taken {self._path.parent} over: its lock is gone")

    def release(self) -> None:
        with suppress(OSError):
            if self._is_ours():
                self._path.unlink()

    def _is_ours(self) -> bool:
        """Whether the file is the one that was made: one that was taken over may have come again."""
        try:
            return _content(self._path.read_bytes())[0] == self._owner
        except FileNotFoundError:
            return False


def never(token: str) -> bool:
    """Follows no owner that may live."""
    return False


def acquire(
    run: RunFolder,
    owner: Owner,
    *,
    end_leftovers: Callable[[str], None],
    say: Callable[[str], None],
    follows: Callable[[str], bool] = never,
) -> RunLock:
    """Take a run folder, which is there, for oneself. Raises UserError while another process has it.

    end_leftovers: sees to it that nothing is left of the processes of a dead owner, given its token.
    say: told, in a line, of an owner on another machine that was given up.
    follows: whether the owner of a token on another machine was given up by whoever started us in its place.
    """
    try:
        return _take(run, owner, end_leftovers, say, follows)
    except OSError as error:
        raise UserError(f"model_dir: cannot write to {run.path}: {error.strerror}") from error


def find_lock(run: RunFolder, token: str) -> RunLock | None:
    """The lock that was taken with this token, for somebody who only wants to know whether it is held still."""
    for path in map(run.lock, run.locks()):
        with suppress(FileNotFoundError):
            owner, _ = _content(path.read_bytes())
            if owner is not None and owner.token == token:
                return RunLock(path, owner)
    return None


def _take(
    run: RunFolder,
    owner: Owner,
    end_leftovers: Callable[[str], None],
    say: Callable[[str], None],
    follows: Callable[[str], bool],
) -> RunLock:
    old = _locks(run)
    _refuse_if_held(run, old, follows)
    for lock in old:
        if lock.owner is not None:
            end_leftovers(lock.owner.token)
        if lock.owner is not None and not lock.owner.is_here:
            say(
                f"{run.path} was taken over: nothing was heard of the process that trained in it, on "
                f"{lock.owner.host}, for {duration(lock.age_s)}"
            )
    number = 1 + max((lock.number for lock in old), default=0)
    try:
        _create(run.lock(number), owner)
    except FileExistsError:
        _refuse_if_held(run, _locks(run), follows)
        raise UserError(f"model_dir: another process has just trained in {run.path}; try again") from None
    ours = RunLock(run.lock(number), owner)
    # What was looked at before may have changed; who comes now sees ours.
    others = [lock for lock in _locks(run) if lock.number != number]
    try:
        _refuse_if_held(run, others, follows)
    except UserError:
        ours.release()
        raise
    for lock in others:
        run.lock(lock.number).unlink(missing_ok=True)
    return ours


def _refuse_if_held(run: RunFolder, locks: list[_Lock], follows: Callable[[str], bool]) -> None:
    for lock in locks:
        is_followed = lock.owner is not None and not lock.owner.is_here and follows(lock.owner.token)
        if not (lock.is_given_up or is_followed):
            raise lock.refusal(run)


def _locks(run: RunFolder) -> list[_Lock]:
    """The locks of a run folder, highest number first."""
    if not (numbers := run.locks()):
        return []
    found, now = [], run.now()
    for number in numbers:
        with suppress(FileNotFoundError), run.lock(number).open("rb") as file:
            age_s = now - os.fstat(file.fileno()).st_mtime
            found.append(_Lock(number, age_s, *_content(file.read())))
    return found


def _create(path: Path, owner: Owner) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        content = {"host": owner.host, "token": owner.token, "since": time.time()}
        os.write(descriptor, json.dumps(content).encode())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _content(content: bytes) -> tuple[Owner | None, float]:
    """Who holds a lock with this content, and since when."""
    try:
        read = json.loads(content)
        return Owner(str(read["host"]), str(read["token"])), float(read["since"])
    except (ValueError, KeyError, TypeError):
        return None, 0.0
