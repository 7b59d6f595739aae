"""What a person wants of a job that is running: left where the runner that has it finds it, within seconds.

    training_queue/requests/<token of the claim>.json

A claim is moved by its owner alone: so a job that is cancelled has saved its state, and its trainer is gone, before
anybody else can take it up.
"""

import getpass
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from accel_trainer.core.files import read_json, write_atomic
from accel_trainer.core.lease import this_host
from accel_trainer.launch.outcome import Cut, EndingKind
from accel_trainer.queue.store import Queue, QueuedJob
from accel_trainer.run.status import RunState

LOOK_EVERY_S = 1.0
# A network drive may deny for a moment that a file is there.
SURELY_GONE_S = 5.0


class Wish(StrEnum):
    CANCEL = "cancel"
    HOLD = "hold"


@dataclass(frozen=True)
class Request:
    wish: Wish
    by: str

    @property
    def cut(self) -> Cut:
        match self.wish:
            case Wish.CANCEL:
                return Cut(f"cancelled by {self.by}", RunState.PREEMPTED, EndingKind.FAILED)
            case Wish.HOLD:
                return Cut(f"held by {self.by}", RunState.PREEMPTED, EndingKind.HELD)


def this_person() -> str:
    """user@host, as far as it is known."""
    with suppress(Exception):  # no such user, in containers
        return f"{getpass.getuser()}@{this_host()}"
    return f"somebody@{this_host()}"


class Requests:
    """The requests of one queue."""

    def __init__(self, queue: Queue) -> None:
        self._folder = queue.requests

    def put(self, job: QueuedJob, wish: Wish) -> None:
        """Ask the owner of a running job for something. Raises OSError."""
        assert job.owner is not None
        self._folder.mkdir(exist_ok=True)
        content = {"action": wish, "by": this_person(), "time": time.time()}
        write_atomic(self._folder / f"{job.owner.token}.json", json.dumps(content) + "\n")

    def of(self, token: str) -> Request | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = read_json(self._folder / f"{token}.json")
            return Request(Wish(content["action"]), str(content["by"]))
        return None

    def forget(self, token: str) -> None:
        with suppress(OSError):
            (self._folder / f"{token}.json").unlink()


class OrdersOfClaim:
    """What the owner of a claim is to do: what somebody has asked for; or to give the job up, its claim being gone."""

    def __init__(self, queue: Queue, job: QueuedJob) -> None:
        assert job.owner is not None
        self._path, self._token, self._requests = job.path, job.owner.token, Requests(queue)
        self._looked = 0.0
        self._missing_since: float | None = None

    def __call__(self) -> Cut | None:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return None
        self._looked = now
        if (request := self._requests.of(self._token)) is not None:
            return request.cut
        if not self._is_gone(now):
            return None
        reason = f"its file {self._path} is gone: another process or a person has moved it"
        return Cut(reason, RunState.PREEMPTED, EndingKind.DISCARDED)

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
