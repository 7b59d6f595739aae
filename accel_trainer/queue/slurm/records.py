"""What is noted of each claim that is a cluster's: who handed it over, as which job, and how its newest start goes.

    training_queue/slurm/<token of the claim>.json

Nothing depends on it that would lose or double a job: the id is found by the token as well.
"""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accel_trainer.core.files import read_json, write_atomic
from accel_trainer.queue.store import Queue

OLD_S = 24 * 3600.0


@dataclass(frozen=True)
class Record:
    """user: whose job of Slurm it is. start: the token of the newest start; state, reason: what Slurm said when that
    was told to stop, the state "" where it said nothing."""

    user: str
    id: int | None = None
    start: str | None = None
    state: str | None = None
    reason: str | None = None

    @property
    def was_ended_by_slurm(self) -> bool:
        """Whether the newest start was told to stop because the job was being ended, and not for its time."""
        return self.state == "COMPLETING" and self.reason != "TimeLimit"


class Records:
    """Those of one queue. What cannot be written is done without."""

    def __init__(self, queue: Queue) -> None:
        self._folder = queue.slurm

    def of(self, token: str) -> Record | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            content: dict[str, Any] = read_json(self._path(token))
            number = content["id"]
            words = {key: None if content[key] is None else str(content[key]) for key in ("start", "state", "reason")}
            return Record(str(content["user"]), None if number is None else int(number), **words)
        return None

    def write(self, token: str, record: Record) -> None:
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            write_atomic(self._path(token), json.dumps(asdict(record)) + "\n")

    def note_id(self, token: str, user: str, job_id: int) -> None:
        """Unless it is noted: the job itself does so when it starts."""
        record = self.of(token) or Record(user)
        if record.id != job_id and record.start is None:
            self.write(token, replace(record, id=job_id))

    def forget(self, token: str) -> None:
        with suppress(OSError):
            self._path(token).unlink()

    def forget_old(self, tokens: Iterable[str]) -> None:
        """Remove the records of claims that are over since long, which were killed: `tokens` are those that are not."""
        kept = {f"{token}.json" for token in tokens}
        with suppress(OSError):
            for path in self._folder.glob("[!.]*.json"):
                if path.name not in kept and time.time() - path.stat().st_mtime > OLD_S:
                    path.unlink(missing_ok=True)

    def _path(self, token: str) -> Path:
        return self._folder / f"{token}.json"
