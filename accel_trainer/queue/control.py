"""Wishes of people: hold or cancel a claim, pause the queue."""

import getpass
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from accel_trainer.core.files import read_json, write_atomic
from accel_trainer.core.lease import this_host
from accel_trainer.launch.outcome import OutcomeKind, StopReason
from accel_trainer.queue.layout import ClaimedJob
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState

LOOK_EVERY_S = 1.0
# A network drive may deny for a moment that a file is there.
SURELY_GONE_S = 5.0


class ControlAction(StrEnum):
    CANCEL = "cancel"
    HOLD = "hold"


@dataclass(frozen=True)
class ControlRequest:
    wish: ControlAction
    by: str

    @property
    def cut(self) -> StopReason:
        match self.wish:
            case ControlAction.CANCEL:
                return StopReason(f"cancelled by {self.by}", RunState.PREEMPTED, OutcomeKind.FAILED)
            case ControlAction.HOLD:
                return StopReason(f"held by {self.by}", RunState.PREEMPTED, OutcomeKind.HELD)


def current_user() -> str:
    """user@host, as far as it is known."""
    with suppress(Exception):  # no such user, in containers
        return f"{getpass.getuser()}@{this_host()}"
    return f"somebody@{this_host()}"


class Requests:
    """The requests of one queue."""

    def __init__(self, queue: QueueStore) -> None:
        self._folder = queue.requests

    def put(self, job: ClaimedJob, wish: ControlAction) -> None:
        """Ask the owner of a running job for something. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        content = {"action": wish, "by": current_user(), "time": time.time()}
        write_atomic(self._folder / f"{job.token}.json", json.dumps(content) + "\n")

    def of(self, token: str) -> ControlRequest | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = read_json(self._folder / f"{token}.json")
            return ControlRequest(ControlAction(content["action"]), str(content["by"]))
        return None

    def forget(self, token: str) -> None:
        with suppress(OSError):
            (self._folder / f"{token}.json").unlink()


class ClaimControl:
    """What the owner of a claim is to do: what somebody has asked for; or to give the job up, its claim being gone."""

    def __init__(self, queue: QueueStore, job: ClaimedJob) -> None:
        self._path, self._token, self._requests = job.path, job.token, Requests(queue)
        self._looked = 0.0
        self._missing_since: float | None = None

    def __call__(self) -> StopReason | None:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return None
        self._looked = now
        if (request := self._requests.of(self._token)) is not None:
            return request.cut
        if not self._is_gone(now):
            return None
        reason = f"its file {self._path} is gone: another process or a person has moved it"
        return StopReason(reason, RunState.PREEMPTED, OutcomeKind.SUPERSEDED)

    def _is_gone(self, now: float) -> bool:
        try:
            self._path.lstat()
        except FileNotFoundError:
            if self._missing_since is None:
                self._missing_since = now
            return now - self._missing_since > SURELY_GONE_S
        except OSError:
            return False  # it is not known
        self._missing_since = None
        return False


@dataclass(frozen=True)
class Pause:
    """Of one host, or of all where there is none; `since` in seconds since 1970."""

    host: str | None
    by: str
    since: float
    reason: str | None = None

    @property
    def where(self) -> str:
        return "the queue" if self.host is None else f"the queue on {self.host}"

    def __str__(self) -> str:
        why = "" if self.reason is None else f": {self.reason}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"{self.where} is paused since {since}, by {self.by}{why}"


class Pauses:
    """The pauses of one queue."""

    def __init__(self, queue: QueueStore) -> None:
        self._folder = queue.paused

    def add(self, host: str | None, reason: str | None = None) -> Pause:
        """Raises OSError."""
        pause = Pause(host, current_user(), time.time(), reason)
        self._folder.mkdir(exist_ok=True)
        write_atomic(self._path(host), json.dumps(asdict(pause)) + "\n")
        return pause

    def remove(self, host: str | None) -> bool:
        """Whether there was one. Raises OSError."""
        try:
            self._path(host).unlink()
        except FileNotFoundError:
            return False
        return True

    def all(self) -> list[Pause]:
        found = (self._read(path) for path in sorted(self._folder.glob("[!.]*.json")))
        return [pause for pause in found if pause is not None]

    def of(self, host: str) -> Pause | None:
        """What keeps this host from taking up jobs."""
        return self._read(self._path(None)) or self._read(self._path(host))

    def _path(self, host: str | None) -> Path:
        return self._folder / ("all.json" if host is None else f"@{host}.json")

    def _read(self, path: Path) -> Pause | None:
        """A file that is there is a pause, whatever is in it."""
        host = None if path.stem == "all" else path.stem.removeprefix("@")
        try:
            content = read_json(path)
            reason = content["reason"]
            return Pause(host, str(content["by"]), float(content["since"]), None if reason is None else str(reason))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            since = 0.0
            with suppress(OSError):
                since = path.stat().st_mtime
            return Pause(host, "somebody", since)
