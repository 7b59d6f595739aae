"""status.json: what rank 0 last reported of its run, and the errors of other ranks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from accel_trainer.core.files import MEBIBYTE, read_bytes, write_atomic
from accel_trainer.core.record_store import RecordStore
from accel_trainer.run.folder import RunFolder

MAX_STATUS = MEBIBYTE


class RunState(StrEnum):
    """The state of a run, as rank 0 last reported it."""

    STARTING = "starting"
    TRAINING = "training"
    FINISHED = "finished"
    PREEMPTED = "preempted"  # asked to stop: state saved, resumes when launched again
    DIVERGED = "diverged"  # the loss was not finite
    OUT_OF_MEMORY = "out_of_memory"
    STALLED = "stalled"  # no step for too long: ended from outside
    MACHINE_FAILED = "machine_failed"  # a disk was away for too long, or the like: resumes when launched again
    INVALID = "invalid"  # a mistake in the job, found before the first step
    FAILED = "failed"


class Divergence(BaseModel):
    """Where a loss was not finite. Steps count from 1, over all epochs.

    samples: the training images of that step, on all processes, by their indices in the training set; none where it was
    the loss of the validation.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int
    epoch: int
    lr: float
    samples: tuple[int, ...] = ()


class Status(BaseModel):
    """status.json. Epochs count from 1; accuracies are in percent; times in seconds since 1970."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: RunState
    token: str = ""
    epoch: int = 0
    num_epochs: int = 0
    step: int = 0
    steps_per_epoch: int = 0
    global_step: int = 0
    loss: float | None = None
    score: float | None = None  # training accuracy so far, in percent
    score_name: str | None = None
    lr: float | None = None
    images_per_s: float | None = None
    eta_s: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    primary_metric: str | None = None
    preparing: str | None = None  # what is being done before the first step
    prepared: float | None = None  # how much of that, 0 to 1
    error: str | None = None
    failed_at: float | None = None
    diverged: Divergence | None = None
    # The largest that fits, of an attempt that was out of memory; kept in the next ones at the same submission.
    fitting_batch_size: int | None = None
    submission: str = ""  # differs from one submission of the job to the next
    host: str = ""
    pid: int = 0
    num_processes: int = 1
    updated: float = 0.0


@dataclass(frozen=True)
class RankError:
    """Why a rank other than 0 failed in an attempt, when (in seconds since 1970), and what state that is."""

    token: str
    error: str
    time: float = field(default_factory=time.time)
    state: RunState = RunState.FAILED
    fitting_batch_size: int | None = None


_RANK_ERRORS = RecordStore(RankError)


def write_status(run: RunFolder, status: Status, *, durable: bool = True) -> None:
    """Replace status.json; `durable` waits for the disk. Raises OSError."""
    run.check_owner()
    write_atomic(run.status_file, status.model_dump_json(indent=2) + "\n", durable=durable)


def write_attempt_status(run: RunFolder, status: Status) -> None:
    """Leave what an attempt reports beside status.json, which is still that of an earlier attempt. Raises OSError."""
    run.check_owner()
    write_atomic(run.attempt_status(status.token), status.model_dump_json(indent=2) + "\n", durable=False)


def overwrite_status(run: RunFolder, status: Status) -> None:
    """Write the status into the file that is there, for a disk on which there is no room for a new one."""
    run.check_owner()
    with run.status_file.open("r+b") as file:
        file.write(status.model_dump_json().encode())
        file.truncate()


def read_status(run: RunFolder) -> Status | None:
    """What rank 0 last reported of the run in this folder, or None when there is nothing readable."""
    return _read(run.status_file)


def attempt_status(run: RunFolder, is_its_token: Callable[[str], bool]) -> Status | None:
    """What rank 0 of an attempt last reported: of the run, or, before that became its own, of the attempt alone."""
    found = (_read(path) for path in (run.status_file, *run.attempt_statuses()))
    return next((status for status in found if status is not None and is_its_token(status.token)), None)


def _read(path: Path) -> Status | None:
    try:
        return Status.model_validate_json(read_bytes(path, MAX_STATUS))
    except (OSError, ValueError):
        return None


def write_rank_error(run: RunFolder, rank: int, error: RankError) -> None:
    """Leave the reason why a rank failed; rank 0 reports its own in status.json. Raises OSError."""
    _RANK_ERRORS.write(run.rank_error(rank), error)


def first_rank_error(run: RunFolder, token: str) -> RankError | None:
    """The first error of a rank other than 0 in this attempt; its text begins with the rank.

    A rank that fails takes the others down with it: their errors, later ones, are only echoes.
    """
    errors = []
    for path in run.rank_errors():
        error = _RANK_ERRORS.read(path)
        if error is not None and error.token == token:
            errors.append(replace(error, error=f"{path.stem.removeprefix('.error-')}: {error.error}"))
    return min(errors, key=lambda error: error.time, default=None)
