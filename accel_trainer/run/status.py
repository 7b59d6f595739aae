"""status.json: what rank 0 last reported of its run, and the errors of other ranks."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.files import MEBIBYTE, open_regular, read_bytes
from accel_trainer.core.record_store import Count, Line, Lines, Measure, RecordStore, Seconds, Time
from accel_trainer.core.text import one_line
from accel_trainer.run.folder import RunFolder

MAX_STATUS = MEBIBYTE


class RunState(StrEnum):
    """The state of a run, as rank 0 last reported it."""

    STARTING = "starting"
    TRAINING = "training"
    MEASURING = "measuring"  # of an evaluation, in a folder of its own
    FINISHED = "finished"
    PRETRAINED = "pretrained"  # weights that were not trained here, only evaluated
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

    step: Count
    epoch: Count
    lr: Measure
    samples: tuple[Count, ...] = ()


# A number that is not finite is none: JSON has no word for it.
FINITE = BeforeValidator(lambda value: None if isinstance(value, float) and not math.isfinite(value) else value)
Measured = Annotated[Measure | None, FINITE]


class Status(BaseModel):
    """status.json. Epochs count from 1; accuracies are in percent; times in seconds since 1970."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: RunState
    token: str = ""
    epoch: Count = 0
    num_epochs: Count = 0
    step: Count = 0
    steps_per_epoch: Count = 0
    global_step: Count = 0
    loss: Measured = None
    score: Measured = None  # training accuracy so far, in percent
    score_name: Line | None = None
    lr: Measured = None
    images_per_s: Measured = None
    eta_s: Annotated[Seconds | None, FINITE] = None
    best: Measured = None
    best_epoch: Count | None = None
    primary_metric: Line | None = None
    corrupt_images: Count = 0  # met so far, in all splits
    # Of an evaluation: so many were measured so far, of how many.
    images: Count = 0
    num_images: Count = 0
    preparing: Line | None = None  # what is being done before the first step
    prepared: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None  # how much of that
    error: Lines | None = None
    failed_at: Time | None = None
    diverged: Divergence | None = None
    # The largest that fits, of an attempt that was out of memory; kept in the next ones at the same submission.
    fitting_batch_size: Count | None = None
    submission: str = ""  # differs from one submission of the job to the next
    host: Line = ""
    pid: Count = 0
    num_processes: Count = 1
    updated: Time = 0.0

    @model_validator(mode="after")
    def _is_within_its_epoch(self) -> Self:
        if self.steps_per_epoch and self.step > self.steps_per_epoch:
            raise ValueError("the step is beyond the end of its epoch")
        return self


@dataclass(frozen=True)
class RankError:
    """Why a rank other than 0 failed in an attempt, when (in seconds since 1970), and what state that is."""

    token: str
    error: Lines
    time: Time = field(default_factory=time.time)
    state: RunState = RunState.FAILED
    fitting_batch_size: Count | None = None


_STATUS, _RANK_ERRORS = RecordStore(Status), RecordStore(RankError, max_bytes=MAX_STATUS)


def write_status(run: RunFolder, status: Status, *, durable: bool = True) -> None:
    """Replace status.json; `durable` waits for the disk. Raises OSError."""
    run.write(run.status_file, status.model_dump_json(indent=2) + "\n", durable=durable)


def write_attempt_status(run: RunFolder, status: Status) -> None:
    """Leave what an attempt reports beside status.json, which is still that of an earlier attempt. Raises OSError."""
    run.write(run.attempt_status(status.token), status.model_dump_json(indent=2) + "\n", durable=False)


def overwrite_status(run: RunFolder, status: Status) -> None:
    """Write the status into the file that is there, for a disk on which there is no room for a new one."""
    descriptor = open_regular(run.status_file, os.O_RDWR, follow_links=False)
    with os.fdopen(descriptor, "r+b") as file:
        run.check_owner()
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
        return _STATUS.decode(on_disk(partial(read_bytes, path, MAX_STATUS), path))
    except (OSError, ValueError):
        return None


def status_damage(run: RunFolder) -> str | None:
    """The line that says so where status.json is there and is not what a trainer writes."""
    if not os.path.lexists(run.status_file) or read_status(run) is not None:
        return None
    return f"{one_line(run.status_file)} is damaged"


def write_rank_error(run: RunFolder, rank: int, error: RankError) -> None:
    """Leave the reason why a rank failed; rank 0 reports its own in status.json. Raises OSError."""
    _RANK_ERRORS.write(run.rank_error(rank, error.token), error)


def first_rank_error(run: RunFolder, token: str) -> RankError | None:
    """The first error of a rank other than 0 in this attempt; its text begins with the rank.

    A rank that fails takes the others down with it: their errors, later ones, are only echoes.
    """
    errors = []
    for path in run.rank_errors():
        error = _RANK_ERRORS.read(path)
        if error is not None and error.token == token:
            rank = path.name.removeprefix(".error-").partition(".")[0]
            errors.append(replace(error, error=f"{rank}: {error.error}"))
    return min(errors, key=lambda error: error.time, default=None)
