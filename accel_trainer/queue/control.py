"""What people ask of runners: to hold or cancel a claim, to pause the queue."""

import getpass
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.core.disk_calls import on_disk, watched
from accel_trainer.core.lease import this_host
from accel_trainer.core.record_store import Line, RecordStore, Time
from accel_trainer.core.rename import is_listed, make_folder
from accel_trainer.core.text import one_line
from accel_trainer.queue.layout import ClaimedJob, QueueUnusable
from accel_trainer.queue.store import QueueStore

if TYPE_CHECKING:
    from accel_trainer.launch.outcome import Outcome, OutcomeKind, StopReason

LOOK_EVERY_S = 1.0
# A network drive may deny for a moment that a file is there.
SURELY_GONE_S = 5.0


class ControlAction(StrEnum):
    """What can be asked of the owner of a running job."""

    CANCEL = "cancel"
    HOLD = "hold"


@dataclass(frozen=True)
class ControlRequest:
    """What a person asks of a running job: `by` whom it was asked for, and when (in seconds since 1970)."""

    action: ControlAction
    by: Line
    time: Time = 0.0

    @property
    def stop_reason(self) -> "StopReason":
        """Why the trainer of the job is ended."""
        from accel_trainer.launch.outcome import StopReason
        from accel_trainer.run.status import RunState

        return StopReason(self._reason, RunState.PREEMPTED, self._kind)

    @property
    def outcome(self) -> "Outcome":
        """How an attempt ends that does what was asked for."""
        from accel_trainer.launch.outcome import Outcome

        return Outcome(self._kind, self._reason)

    @property
    def _reason(self) -> str:
        match self.action:
            case ControlAction.CANCEL:
                return f"canceled by {self.by}"
            case ControlAction.HOLD:
                return f"held by {self.by}"

    @property
    def _kind(self) -> "OutcomeKind":
        """Of a job that is held the attempt is interrupted; `finish_claim` moves it to held/."""
        from accel_trainer.launch.outcome import OutcomeKind

        match self.action:
            case ControlAction.CANCEL:
                return OutcomeKind.CANCELED
            case ControlAction.HOLD:
                return OutcomeKind.INTERRUPTED


def current_user() -> str:
    """user@host, as far as it is known."""
    with suppress(Exception):  # no such user, in containers
        return f"{getpass.getuser()}@{this_host()}"
    return f"somebody@{this_host()}"


class Requests:
    """The requests of one queue, each in a file named by the token of the claim. One that is damaged counts as none."""

    def __init__(self, queue: QueueStore) -> None:
        self._folder, self._records = queue.paths.requests, RecordStore(ControlRequest)

    def put(self, job: ClaimedJob, action: ControlAction) -> None:
        """Ask the owner of a running job for something. Raises OSError."""
        make_folder(self._folder)
        self._records.write(self._path(job.token), ControlRequest(action, current_user(), time.time()))

    def of(self, token: str) -> ControlRequest | None:
        """What is asked of the owner of the claim with this token."""
        return self._records.read(self._path(token))

    def forget(self, token: str) -> None:
        """Remove what was asked for: it was done, or the claim is over."""
        with suppress(OSError):
            self._path(token).unlink()

    def _path(self, token: str) -> Path:
        return self._folder / f"{token}.json"


class ClaimControl:
    """The `StopCheck` of a claim: ends its trainer where somebody has asked for it, or where the claim is gone."""

    def __init__(self, queue: QueueStore, job: ClaimedJob) -> None:
        self._path, self._token, self._requests = job.path, job.token, Requests(queue)
        self._looked = 0.0
        self._missing_since: float | None = None

    def __call__(self) -> "StopReason | None":
        """Why the trainer is to be ended, looked at once a second."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return None
        self._looked = now
        if (request := self._requests.of(self._token)) is not None:
            return request.stop_reason
        if not self._is_gone(now):
            return None
        from accel_trainer.launch.outcome import OutcomeKind, StopReason
        from accel_trainer.run.status import RunState

        reason = f"its file {self._path} is gone: another process or a person has moved it"
        return StopReason(reason, RunState.PREEMPTED, OutcomeKind.SUPERSEDED)

    def _is_gone(self, now: float) -> bool:
        try:
            with watched(self._path):
                self._path.lstat()
        except FileNotFoundError:
            if is_listed(self._path):
                return False  # only this client believes it missing
            if self._missing_since is None:
                self._missing_since = now
            return now - self._missing_since > SURELY_GONE_S
        except OSError:
            return False  # it is not known
        self._missing_since = None
        return False


@dataclass(frozen=True)
class Pause:
    """No job is claimed on one host, or on any where `host` is None; `since` in seconds since 1970.

    until_launch_works: a runner has paused its host because of failures, and ends that when a small launch works.
    """

    host: Line | None
    by: Line
    since: Time
    reason: Line | None = None
    until_launch_works: bool = False

    @property
    def where(self) -> str:
        """What is paused, for a message."""
        return "the queue" if self.host is None else f"the queue on {one_line(self.host)}"

    def __str__(self) -> str:
        why = "" if self.reason is None else f": {one_line(self.reason)}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"{self.where} is paused since {since}, by {one_line(self.by)}{why}"


class Pauses:
    """The pauses of one queue: a file for all hosts, one for each host. A file that is damaged is a pause as well."""

    def __init__(self, queue: QueueStore) -> None:
        self._folder, self._records = queue.paths.paused, RecordStore(Pause, damaged=_unreadable_pause)

    def add(self, host: str | None, reason: str | None = None, *, until_launch_works: bool = False) -> Pause:
        """Pause one host, or all. Raises OSError."""
        pause = Pause(host, current_user(), time.time(), reason, until_launch_works)
        make_folder(self._folder)
        self._records.write(self._path(host), pause)
        return pause

    def remove(self, host: str | None) -> bool:
        """End the pause of a host, or that of all; False where there was none. Raises OSError."""
        try:
            self._path(host).unlink()
        except FileNotFoundError:
            return False
        return True

    def all(self) -> list[Pause]:
        """All pauses. Raises QueueUnusable where it cannot be seen whether there are any."""
        try:
            names = sorted(on_disk(partial(os.listdir, self._folder), self._folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _hidden(self._folder, error) from error
        files = (name for name in names if name.endswith(".json") and not name.startswith("."))
        found = (self._read(self._folder / name) for name in files)
        return [pause for pause in found if pause is not None]

    def of(self, host: str) -> Pause | None:
        """The pause because of which this host claims no jobs. Raises QueueUnusable, as `all`."""
        return self._read(self._path(None)) or self._read(self._path(host))

    def of_host(self, host: str) -> Pause | None:
        """The pause of one host alone."""
        return self._read(self._path(host))

    def _path(self, host: str | None) -> Path:
        return self._folder / ("all.json" if host is None else f"@{host}.json")

    def _read(self, path: Path) -> Pause | None:
        pause = self._records.read(path)
        return None if pause is None else replace(pause, host=_host_of(path))


def _host_of(path: Path) -> str | None:
    return None if path.stem == "all" else path.stem.removeprefix("@")


def _hidden(path: Path, error: OSError) -> QueueUnusable:
    return QueueUnusable(f"it cannot be seen whether the queue is paused: {path}: {error.strerror}")


def _unreadable_pause(path: Path) -> Pause:
    since = 0.0
    try:
        since = min(max(path.lstat().st_mtime, 0.0), time.time())
    except PermissionError as error:
        raise _hidden(path.parent, error) from error
    except OSError:
        pass  # gone by now
    return Pause(_host_of(path), "somebody", since, f"{path} is damaged")
