"""Folders and file names of the queue, and the jobs in them."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from accel_trainer.config.parse import MAX_NAME_BYTES, job_name
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner

# How an older program of the labs names what it trains: of its process nothing is known but the host.
OLD_CLAIM = re.compile(r"(?P<host>[^@/]+)_gpu-[0-9,]+_job-\d+__(?P<name>.+)", re.DOTALL)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts 'job2' before 'job10'."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts if part]


def claim_name(name: str, owner: Owner) -> str:
    """The name of a job's file while somebody trains it."""
    return f"{name}@{owner.host}.{owner.token}.json"


def read_claim(stem: str) -> tuple[str, Owner]:
    """Which job a file in running/ is, named so without its ending, and whose."""
    if (old := OLD_CLAIM.fullmatch(stem)) is not None:
        return old["name"], Owner(old["host"], "")
    claim, _, token = stem.rpartition(".")
    name, _, host = claim.rpartition("@")
    return name or stem, Owner(host, token)


def without_number(name: str) -> str:
    """Beside another of its name that is over, a job has a number after it: 'a~2' is named 'a'."""
    return re.sub(r"~\d+$", "", name)


def file_name(name: str) -> str:
    """A job's own name; for a job that is refused for its name, one that misleads nobody."""
    try:
        return job_name(Path(f"{name}.json"))
    except UserError:
        return re.sub(r"[^\w .+=@,~()\[\]-]|\.\.+", "_", name).lstrip("-. ")[: MAX_NAME_BYTES // 4] or "unnamed"


class JobState(StrEnum):
    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED)


@dataclass(frozen=True)
class QueuedJob:
    """A job file in the queue."""

    name: str
    path: Path
    state: JobState


@dataclass(frozen=True)
class ClaimedJob(QueuedJob):
    """A job file in running/, and the process or the cluster that has claimed it."""

    state: JobState = field(default=JobState.RUNNING, init=False)
    owner: Owner = field(kw_only=True)

    @property
    def token(self) -> str:
        """The token of the claim: no other claim has the same."""
        return self.owner.token
