"""How verbs change jobs: each is found, changed or its runner asked to, and what goes wrong with one is printed."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import typer

from accel_trainer.cli.app import MISTAKE, echo, existing_queue, find_job, print_problems, system_error
from accel_trainer.cli.slurm_claims import end_in_slurm
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import duration, one_line
from accel_trainer.queue.control import ControlAction, Requests
from accel_trainer.queue.layout import (
    ClaimedJob,
    Ending,
    JobGone,
    JobState,
    QueuedJob,
    QueueUnusable,
    file_name,
    outcome_path,
)
from accel_trainer.queue.moves import attributes
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import refuse_unusable

# Does something to a job, and gives what has become of it; None where that was printed.
Change = Callable[[QueueStore, QueuedJob], str | None]

# How long a running job may take to save and end: as long as a trainer has, and then some.
LONGEST_S = 180.0
POLL_S = 0.2
# How long it may take until it is noted why a job is in failed/.
NOTED_S = 3.0
# How often a job is found and is gone before it is given up.
MOST_TRIES = 4


def for_each(
    names: Sequence[str],
    queue: Path,
    change: Change,
    among: Sequence[JobState] = (),
) -> None:
    """Change jobs one by one; what goes wrong with one does not keep the others."""
    store = existing_queue(queue)
    store.create()  # a folder that a person has made has none for held jobs
    wrong = False
    for name in names:
        try:
            job, result = _changed(store, name, change, among)
            wrong |= result is None
            if result is not None:
                echo(f"{job.name}: {result}")
        except (UserError, OSError) as error:
            wrong = True
            print_problems(problems_of_one(error, store))
    if wrong:
        raise typer.Exit(MISTAKE)


def problems_of_one(error: UserError | OSError, store: QueueStore) -> list[str]:
    """What is wrong with one job, where the next may be tried. Raises QueueUnusable where it would be with all."""
    if isinstance(error, OSError):
        error = system_error(error, store.folder)
    if isinstance(error, QueueUnusable):
        try:
            refuse_unusable(store)
        except QueueUnusable:
            raise error from None
    return error.problems


def _changed(
    store: QueueStore, name: str, change: Change, among: Sequence[JobState], tries: int = MOST_TRIES
) -> tuple[QueuedJob, str | None]:
    """Find and change a job; again, where another process has moved it in between."""
    job = find_job(store, name, among)
    try:
        return job, change(store, job)
    except JobGone:
        if tries == 1:
            raise
    store.look_anew()  # what was found may be what this client remembers
    return _changed(store, name, change, among, tries - 1)


def with_name(text: str, job: QueuedJob, path: Path) -> str:
    """What has become of a job, with its name where it could not keep its own."""
    if path.stem == job.own_name:
        return text
    is_allowed = file_name(job.own_name) == job.own_name
    why = "another job has its name" if is_allowed else "a job may not have the name that it had"
    return f"{text}, as {path.stem!r}: {why}"


DONE = {ControlAction.CANCEL: "canceled", ControlAction.HOLD: "held"}


def ask_owner(store: QueueStore, job: ClaimedJob, action: ControlAction, change: Change, *, wait: bool) -> str | None:
    """Have the owner of a running job do something; None, and printed why, where it has not done it.

    change: what is done to a job that the owner had returned to pending before it could know.
    """
    about = attributes(job)
    if job.owner.is_dead():
        raise UserError(f"{job.name}: its runner is dead; `accel-train reclaim {job.name}` first")
    try:
        Requests(store).put(job, action)
    except OSError as error:
        raise QueueUnusable(f"the queue {store.folder} cannot be used: {error.strerror}") from error
    if job.owner.cluster is not None:
        end_in_slurm(store, job)
    if not wait:
        return f"is asked to stop, to be {DONE[action]}"
    deadline = time.monotonic() + LONGEST_S
    while job.path.exists() and not job.owner.is_dead() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if job.path.exists() and job.owner.is_dead():
        raise UserError(f"{job.name}: its runner has just died; `accel-train reclaim {job.name}` does what was asked")
    if job.path.exists():
        print_problems(
            [f"{job.name}: its runner on {job.owner.host} has not answered in {duration(LONGEST_S)}; it still may"]
        )
        return None
    return _what_became(store, job, about, action, change)


def _what_became(
    store: QueueStore, job: ClaimedJob, about: os.stat_result, action: ControlAction, change: Change
) -> str | None:
    """What was done to a job that its owner has left, whether that is what was asked for or not. Raises UserError where
    its file is in the queue no more."""
    store.look_anew()
    now = store.find_file(about, job.name)
    if now is None:
        raise UserError(
            f"{job.name}: was to be {DONE[action]}, but its file was removed, moved elsewhere or changed meanwhile",
            hint="`accel-train status` shows what there is",
        )
    match now.state:
        case JobState.PENDING | JobState.RUNNING:
            return change(store, now)
        case JobState.HELD:
            return with_name(DONE[action], job, now.path) if action is ControlAction.HOLD else change(store, now)
        case JobState.DONE:
            return "was done before it could be stopped"
        case JobState.FAILED:
            _wait_for(outcome_path(now.path))
            if store.ending(now) is Ending.CANCELED:
                return "canceled" if action is ControlAction.CANCEL else "was canceled before it could be held"
            why = one_line((store.reason(now) or "").partition("\n")[0])
            return f"has failed before it could be stopped{why and f': {why}'}"
        case _:
            assert_never(now.state)


def _wait_for(note: Path) -> None:
    """Whoever moves a job writes the notes on it afterwards; on a full disk there are none."""
    deadline = time.monotonic() + NOTED_S
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(POLL_S)
