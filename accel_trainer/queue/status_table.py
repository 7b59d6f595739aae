"""The status of every job of a queue: where it is, how far, on which devices, and why it does not run."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.config.glance import JobGlance, glance
from accel_trainer.config.places import evaluation_path
from accel_trainer.core.lease import is_stale
from accel_trainer.core.record_store import RecordStore
from accel_trainer.core.text import duration
from accel_trainer.queue.control import ControlRequest
from accel_trainer.queue.dependencies import Requirements, describe_unmet
from accel_trainer.queue.heartbeat import (
    HEARTBEATS,
    OBSERVATIONS,
    Heartbeat,
    HeartbeatObserver,
    RunningClaim,
    runner_of,
)
from accel_trainer.queue.layout import ClaimedJob, JobState, QueuedJob
from accel_trainer.queue.move_between import RECORDS as COPIES
from accel_trainer.queue.retries import FailureRecord, Retries
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import Submissions
from accel_trainer.run.folder import RunFolder

if TYPE_CHECKING:
    from accel_trainer.queue.slurm.client import SlurmJob
    from accel_trainer.queue.slurm.reconcile import Record
    from accel_trainer.run.status import Status

# So many pending jobs have a note why they do not run; to read more of them would take seconds.
MOST_NOTES = 100
# So many records of a kind are looked at whether they are damaged: on a network drive each takes a millisecond.
MOST_RECORDS = 500

# Gives where every job is.
States = Callable[[], Mapping[str, JobState]]


@dataclass(frozen=True)
class JobStatus:
    """A job. Times in seconds; `devices` are GPUs by their number, none on a CPU or where it is not known."""

    job: str
    state: str
    """Its folder's, or `canceled`, which is in failed/ too."""
    epoch: int | None = None
    num_epochs: int | None = None
    metric: str | None = None
    best: float | None = None
    host: str | None = None
    devices: tuple[str, ...] = ()
    elapsed_s: float | None = None
    left_s: float | None = None
    note: str | None = None
    corrupt_images: int | None = None
    kind: str | None = None
    """`training` or `evaluation`; None where its file is not read."""
    images: int | None = None
    """How many an evaluation has measured so far, of `num_images`."""
    num_images: int | None = None


def status_rows(queue: QueueStore, most: int | None = None) -> Iterator[JobStatus]:
    """A row for each job of a queue, those that run first. Raises QueueUnusable.

    most: so many jobs in each other state have more than their names, which takes reading their files.
    """
    yield from running_rows(queue, queue.claims())
    yield from pending_rows(queue, queue.jobs(JobState.PENDING), most)
    for state in (JobState.HELD, JobState.FAILED, JobState.DONE):
        for number, job in enumerate(queue.jobs(state)):
            yield resting_row(queue, job) if most is None or number < most else JobStatus(job.name, job.state)


def running_rows(queue: QueueStore, running: Sequence[ClaimedJob]) -> Iterator[JobStatus]:
    """A row for each of these jobs that run."""
    observer = HeartbeatObserver(queue)
    heartbeats, silences_s = observer.heartbeats() if running else {}, observer.silence_s(running)
    clusters = [job for job in running if job.owner.cluster is not None]
    in_slurm = _glance() if clusters else {}
    for claim in running:
        run, kind = _run_of(queue, claim)
        if claim in clusters:
            row = _in_slurm(queue, claim, run, in_slurm)
        else:
            row = _running(claim, run, heartbeats, silences_s)
        yield replace(_noting_damage(row, run), kind=kind)


def pending_rows(queue: QueueStore, pending: Sequence[QueuedJob], most: int | None = None) -> Iterator[JobStatus]:
    """A row for each of these jobs that are pending; most: as of `status_rows`, and never more than MOST_NOTES."""
    states = cache(queue.states)  # to know them takes a look at all jobs
    for number, job in enumerate(pending):
        is_read = number < min(MOST_NOTES, MOST_NOTES if most is None else most)
        yield _pending(queue, job, states) if is_read else JobStatus(job.name, job.state)


def damaged_records(queue: QueueStore, names: Collection[str] = ()) -> list[Path]:
    """Records beside the jobs that are none, and are not obeyed. Pauses are not among them, which say so themselves.

    names: of jobs of which something is shown. Of so many records that it would take long, theirs are looked at first.
    """
    first = {*names, *(job.token for job in queue.claims())}
    kinds: list[tuple[Path, Callable[[], RecordStore[Any]]]] = [
        (queue.paths.requests, lambda: RecordStore(ControlRequest)),
        (queue.paths.retries, lambda: RecordStore(FailureRecord)),
        (queue.paths.runners, lambda: HEARTBEATS),
        (queue.paths.observed, lambda: OBSERVATIONS),
        (queue.paths.slurm, _records_of_slurm),
        (queue.paths.moves, lambda: COPIES),
    ]
    damaged: list[Path] = []
    for folder, kind in kinds:
        if paths := _some_records(folder, first):
            records = kind()
            damaged += [path for path in paths if records.is_damaged(path)]
    return damaged


def _records_of_slurm() -> RecordStore[Any]:
    from accel_trainer.queue.slurm.reconcile import Record

    return RecordStore(Record)


def _some_records(folder: Path, first: Collection[str]) -> list[Path]:
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".json") and name[0] != "."]  # noqa: PTH208
    except OSError:
        return []
    of_first = sorted(names, key=lambda name: (name.removesuffix(".json") not in first, name))
    return [folder / name for name in of_first[:MOST_RECORDS]]


def _noting_damage(row: JobStatus, run: RunFolder | None) -> JobStatus:
    """A row without progress, where that is because what was reported cannot be read."""
    if row.epoch is not None or row.images is not None or run is None or not os.path.lexists(run.status_file):
        return row
    from accel_trainer.run.status import status_damage

    if (damage := status_damage(run)) is None:
        return row
    return replace(row, note="; ".join(filter(None, (row.note, damage))))


def _pending(queue: QueueStore, queued: QueuedJob, states: States) -> JobStatus:
    """One that was interrupted shows how far it came."""
    if (job := glance(queued.path, queued.name)) is None:  # it may still be on its way; else the runner refuses it
        return JobStatus(queued.name, queued.state)
    run = _folder(queue, job)
    status = _own_status(queue, queued, run)
    note = "; ".join(filter(None, (_why_pending(queue, queued, job, states), _where_it_continues(status)))) or None
    return _noting_damage(JobStatus(queued.name, queued.state, note=note, kind=_kind(job), **_progress(status)), run)


def _own_status(queue: QueueStore, queued: QueuedJob, run: RunFolder) -> "Status | None":
    """What was reported of this submission of a job that does not run; None where the status in its run folder is of
    another job, or of this one when it was submitted before."""
    status = _status(run)
    with suppress(OSError):
        if status is not None and not Submissions(queue.paths).is_of(queued, status.submission):
            return None
    return status


def _where_it_continues(status: "Status | None") -> str | None:
    """'continues at 3/8' of a job that was interrupted in its third epoch, or after its second."""
    if status is None or not status.num_epochs or not status.epoch:
        return None
    is_complete = status.step == 0 or status.step >= status.steps_per_epoch
    epoch = status.epoch + is_complete
    return f"continues at {epoch}/{status.num_epochs}" if epoch <= status.num_epochs else None


def _running(
    job: ClaimedJob, run: RunFolder | None, heartbeats: Mapping[str, Heartbeat], silences_s: Mapping[str, float]
) -> JobStatus:
    heartbeat = heartbeats.get(runner_of(job.owner))
    work: RunningClaim | None = None if heartbeat is None else heartbeat.work.get(job.token)
    silence_s, note = silences_s.get(job.path.name, 0.0), None
    is_alive = not job.owner.is_dead() and not is_stale(silence_s)
    if job.destination is not None:
        by_whom = "" if is_alive else ", by a process that died; `accel-train reclaim` sees to it"
        note = f"is being moved to {job.destination}{by_whom}"
    elif job.owner.is_dead():
        note = "its runner died; run-queue reclaims it"
    elif is_stale(silence_s):
        silence = f"nothing was heard of its runner for {duration(silence_s)}"
        note = f"stale: {silence}; `accel-train reclaim` returns it to pending"
    status = None if run is None else _attempt_status(run, job.token.__eq__)
    return JobStatus(
        job.name,
        job.state,
        host=job.owner.host or None,
        devices=() if work is None else work.devices,
        elapsed_s=None if work is None or not is_alive else max(0.0, time.time() - work.started),
        left_s=None if status is None or not is_alive else status.eta_s,
        note=note if status is None or note is not None else status.preparing,
        **_progress(status),
    )


def _glance() -> "Mapping[str, SlurmJob] | None":
    """Loaded when there is such a claim: where Slurm is not used, it is not imported."""
    from accel_trainer.queue.slurm.reconcile import quick_lookup

    return quick_lookup()


def _in_slurm(
    queue: QueueStore, job: ClaimedJob, run: RunFolder | None, known: "Mapping[str, SlurmJob] | None"
) -> JobStatus:
    """known: what Slurm reports, by the tokens of claims; None where it does not answer."""
    from accel_trainer.queue.slurm.reconcile import Records

    found, record = None if known is None else known.get(job.token), Records(queue).of(job.token)
    status = None if run is None else _attempt_status(run, job.owner.has_started)
    is_running = found is not None and found.state == "RUNNING"
    if found is not None:
        note = f"job {found.id} of Slurm" if is_running else found.description
    else:
        number = "" if record is None or record.id is None else f", job {record.id}"
        note = f"in Slurm on {job.owner.cluster}{number}; {_why_unknown(known, record)}"
    if is_running and status is not None and status.preparing is not None:
        note = f"{status.preparing}; {note}"
    return JobStatus(
        job.name,
        job.state,
        host=found.nodes if found is not None and found.nodes else job.owner.host,
        elapsed_s=found.elapsed_s if found is not None and is_running else None,
        left_s=None if status is None or not is_running else status.eta_s,
        note=note,
        **_progress(status),
    )


def _why_unknown(known: "Mapping[str, SlurmJob] | None", record: "Record | None") -> str:
    from accel_trainer.queue.slurm.reconcile import this_user

    if known is None:
        return "squeue gives no answer here"
    if record is not None and record.user != this_user():
        return f"it is {record.user}'s"
    return "Slurm does not know it (any more); `accel-train reclaim` sees to it"


def resting_row(queue: QueueStore, job: QueuedJob) -> JobStatus:
    """The row of a job that is held, failed or done."""
    reason = queue.reason(job) if job.state is JobState.FAILED else None
    state = queue.ending(job).value if job.state is JobState.FAILED else job.state
    run, kind = _run_of(queue, job)
    if run is not None and job.state is JobState.HELD:
        status = _own_status(queue, job, run)
        reason = _where_it_continues(status)
    else:
        status = None if run is None else _status(run)
    row = JobStatus(job.name, state, note=reason.split("\n")[0] if reason else None, kind=kind, **_progress(status))
    return _noting_damage(row, run) if status is None else row


def _run_of(queue: QueueStore, queued: QueuedJob) -> tuple[RunFolder | None, str | None]:
    """Where a job trains, or evaluates, and which of both; None where its file cannot be read."""
    job = glance(queued.path, queued.name)
    return (None, None) if job is None else (_folder(queue, job), _kind(job))


def _folder(queue: QueueStore, job: JobGlance) -> RunFolder:
    """Where a job writes. One that evaluates may name the job that trains, whose run folder is then read there."""
    if job.evaluates is not None and job.parent_job is not None and (found := queue.find(job.parent_job)) is not None:
        trainer = glance(found.path, job.parent_job)
        if trainer is not None:
            return RunFolder(evaluation_path(str(trainer.run_path), job.run_path.name))
    return RunFolder(job.run_path)


def _kind(job: JobGlance) -> str:
    return "training" if job.evaluates is None else "evaluation"


def _status(run: RunFolder) -> "Status | None":
    """What was last reported of a run. What reads it is loaded where there is something to read."""
    if not os.path.lexists(run.status_file):
        return None
    from accel_trainer.run.status import read_status

    return read_status(run)


def _attempt_status(run: RunFolder, is_its_token: Callable[[str], bool]) -> "Status | None":
    from accel_trainer.run.status import attempt_status

    return attempt_status(run, is_its_token)


def _progress(status: "Status | None") -> dict[str, Any]:
    if status is not None and status.num_images:
        return {"images": status.images, "num_images": status.num_images, "corrupt_images": status.corrupt_images}
    if status is None or not status.num_epochs:  # it has not started
        return {}
    return {
        "epoch": status.epoch,
        "num_epochs": status.num_epochs,
        "metric": status.primary_metric,
        "best": status.best,
        "corrupt_images": status.corrupt_images,
    }


def _why_pending(queue: QueueStore, queued: QueuedJob, job: JobGlance, states: States) -> str | None:
    needs = Requirements(job.after, job.parent_job)
    if needs.waits and (missing := needs.missing(states())):
        return describe_unmet(missing)
    if job.evaluates is not None and job.parent_job is None and not _folder(queue, job).path.parent.parent.is_dir():
        return f"waits for what trains in {job.evaluates}"
    retries = Retries(queue)
    if (failures := retries.of(queued)) is not None:
        if failures.wait_s:  # no failure; and nothing to tell when it is over
            waits = retries.backoff_s(failures) > 0
            return f"waits until its run folder may be free: {failures.reason}" if waits else None
        if failures.of_machine:
            return f"the machine has failed, and the job is tried again: {failures.reason}"
        return f"has failed and is tried again (retry {failures.number} of {job.retries}): {failures.reason}"
    return None
