"""How verbs change jobs: each is found, changed or its runner asked to, and what goes wrong with one is printed."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from accel_trainer.cli.app import MISTAKE, echo, existing_queue, find_job, print_problems, system_error
from accel_trainer.cli.slurm_claims import end_in_slurm
from accel_trainer.core.errors import UserError
from accel_trainer.core.rename import was_moved
from accel_trainer.core.text import duration
from accel_trainer.queue.control import ControlAction, Requests
from accel_trainer.queue.layout import ClaimedJob, JobGone, JobState, QueuedJob, QueueUnusable, file_name
from accel_trainer.queue.moves import attributes
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import refuse_unusable

# Does something to a job, and gives what has become of it; None where that was printed.
Change = Callable[[QueueStore, QueuedJob], str | None]

# How long a running job may take to save and end: as long as a trainer has, and then some.
LONGEST_S = 180.0
POLL_S = 0.2
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
    done = DONE[action]
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
        return f"is asked to stop, to be {done}"
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
    now = store.find_file(about, job.name) or store.find(job.name)
    if now is not None and now.state is JobState.DONE:
        return "was done before it could be stopped"
    if now is not None and now.state in (JobState.PENDING, JobState.RUNNING) and was_moved(about, now.path):
        return change(store, now)
    return done
