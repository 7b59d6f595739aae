"""status.json: what rank 0 last reported of its run, and the errors of other ranks."""

from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class RunState(StrEnum):
    """What rank 0 last said of its run."""

    STARTING = "starting"
    TRAINING = "training"
    FINISHED = "finished"
    PREEMPTED = "preempted"  # asked to stop: state saved, goes on when launched again
    DIVERGED = "diverged"  # the loss was not finite
    OUT_OF_MEMORY = "out_of_memory"
    STALLED = "stalled"  # no step for too long: ended from outside
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
    submission: str = ""  # tells this submission of the job from the next
    host: str = ""
    pid: int = 0
    num_processes: int = 1
    updated: float = 0.0


class RankError(NamedTuple):
    """Why and when a rank other than 0 failed, and what state that is."""

    failed_at: float
    reason: str
    state: RunState
    fitting_batch_size: int | None
