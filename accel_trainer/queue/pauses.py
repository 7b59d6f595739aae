"""Pauses: nobody, or nobody on one host, takes up a job while there is a file.

    training_queue/paused/all.json, training_queue/paused/@<host>.json

What is running goes on.
"""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from accel_trainer.core.files import read_json, write_atomic
from accel_trainer.queue.requests import this_person
from accel_trainer.queue.store import Queue


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

    def __init__(self, queue: Queue) -> None:
        self._folder = queue.paused

    def add(self, host: str | None, reason: str | None = None) -> Pause:
        """Raises OSError."""
        pause = Pause(host, this_person(), time.time(), reason)
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
