"""What became of claims that Slurm has, and what is noted of each."""

import getpass
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from accel_trainer.config import read_queue_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import is_dead_token
from accel_trainer.core.record_store import Count, Line, RecordStore
from accel_trainer.core.rename import make_folder
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.control import Requests
from accel_trainer.queue.finish import AttemptResult, FinishedClaim, finish_claim
from accel_trainer.queue.layout import ClaimedJob, QueuedJob
from accel_trainer.queue.reclaim import requeue
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.slurm import client
from accel_trainer.queue.slurm.client import SlurmError, SlurmJob
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState

OLD_S = 24 * 3600.0


@dataclass(frozen=True)
class Record:
    """What is noted of a claim that is a cluster's.

    user: whose job of Slurm it is. start: the token of the newest start. state, reason: what Slurm reported when that
    start was asked to stop; the state is "" where it did not answer.
    """

    user: Line
    id: Count | None = None
    start: str | None = None
    state: Line | None = None
    reason: Line | None = None

    @property
    def was_ended_by_slurm(self) -> bool:
        """Whether the newest start was asked to stop because the job was being ended, and not for its time."""
        return self.state == "COMPLETING" and self.reason != "TimeLimit"


class Records:
    """The records of one queue, each in a file named by the token of the claim. One that is damaged counts as none; one
    that cannot be written is done without."""

    def __init__(self, queue: QueueStore) -> None:
        self._folder, self._records = queue.paths.slurm, RecordStore(Record)

    def of(self, token: str) -> Record | None:
        """What is noted of a claim."""
        return self._records.read(self._path(token))

    def write(self, token: str, record: Record) -> None:
        """Note this of a claim."""
        with suppress(OSError):
            make_folder(self._folder)
            self._records.write(self._path(token), record)

    def note_id(self, token: str, user: str, job_id: int) -> None:
        """Unless it is noted: the job itself does so when it starts."""
        record = self.of(token) or Record(user)
        if record.id != job_id and record.start is None:
            self.write(token, replace(record, id=job_id))

    def forget(self, token: str) -> None:
        """Remove what is noted of a claim: it is over."""
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


# So long a claim of which Slurm knows nothing is left alone: while sbatch may still be on its way to the controller,
# and where that cannot be any more.
ON_ITS_WAY_S, GONE_S = client.ANSWER_S + 30, 6.0
# States after which a job resumes where it was.
RESUMES = ("TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")
OVER = (*RESUMES, "CANCELLED", "COMPLETED", "FAILED", "OUT_OF_MEMORY", "DEADLINE")


def this_user() -> str:
    """The name under which Slurm knows our jobs."""
    with suppress(Exception):  # no such user, in containers
        return getpass.getuser()
    return str(os.getuid())


def outcome_from_slurm(job: SlurmJob, record: Record | None) -> Outcome | None:
    """What the state of its job of Slurm means for a claim that is still there; None while that is not over."""
    if job.state not in OVER:
        return None
    what = f"job {job.id} of Slurm ended ({job.state})"
    if job.state in RESUMES:
        return Outcome(OutcomeKind.INTERRUPTED, what, RunState.PREEMPTED)
    if job.state == "CANCELLED":
        return Outcome(OutcomeKind.CANCELED, f"canceled in Slurm (job {job.id})", RunState.PREEMPTED)
    if job.state == "OUT_OF_MEMORY":
        return Outcome(OutcomeKind.FAILED, what, RunState.OUT_OF_MEMORY)
    if record is not None and record.state is not None:  # asked to stop, and killed before it was returned
        return Outcome(OutcomeKind.INTERRUPTED, what, RunState.PREEMPTED)
    return Outcome(OutcomeKind.FAILED, f"{what} before it was known how the training went", RunState.FAILED)


def outcome_of_unknown(record: Record | None) -> Outcome:
    """Of a claim of whose job Slurm knows nothing, or nothing any more."""
    if record is not None and record.was_ended_by_slurm:  # one that is started again would be known
        return Outcome(OutcomeKind.CANCELED, f"canceled in Slurm (job {record.id})", RunState.PREEMPTED)
    return Outcome(OutcomeKind.INTERRUPTED, "Slurm does not know it", RunState.PREEMPTED)


@dataclass(frozen=True)
class Settled:
    """A claim that was put where it belongs."""

    job: ClaimedJob
    finished: FinishedClaim


class Reconciler:
    """Looks at one cluster's claims again and again: a claim of which Slurm knows nothing is settled by a second look,
    some time after the first."""

    def __init__(self, queue: QueueStore, retries: Retries, cluster: str) -> None:
        self._queue, self._retries, self.cluster = queue, retries, cluster
        self._records = Records(queue)
        self._user = this_user()
        self._unknown_since: dict[str, float] = {}

    def claims(self) -> list[ClaimedJob]:
        """The claims of this cluster. Raises QueueUnusable."""
        return [job for job in self._queue.claims() if job.owner.cluster == self.cluster]

    def reconcile(self, names: set[str] | None = None) -> tuple[dict[ClaimedJob, SlurmJob | None], list[Settled]]:
        """The claims that are left, each with its job of Slurm (None: it knows none), and those that were settled; of
        jobs of these names only, if any are given. Raises SlurmError and QueueUnusable."""
        claims = [job for job in self.claims() if names is None or job.name in names]
        known = client.jobs_of(self._user) if claims else {}
        left: dict[ClaimedJob, SlurmJob | None] = {}
        settled = []
        for job in claims:
            token = job.token
            found = known.get(token)
            if found is not None:
                self._records.note_id(token, self._user, found.id)
            outcome = self._outcome(token, found)
            if outcome is None:
                left[job] = found
            elif (finished := self._finish(job, found, outcome)).outcome.kind is not OutcomeKind.SUPERSEDED:
                settled.append(Settled(job, finished))
        self._records.forget_old(job.token for job in claims)
        return left, settled

    def _outcome(self, token: str, found: SlurmJob | None) -> Outcome | None:
        record = self._records.of(token)
        if found is not None:
            self._unknown_since.pop(token, None)
            return outcome_from_slurm(found, record)
        if record is not None and record.user != self._user:
            return None  # another user's, which Slurm may not show to us
        since = self._unknown_since.setdefault(token, time.monotonic())
        was_handed_over = (record is not None and record.id is not None) or is_dead_token(token)
        if time.monotonic() - since < (GONE_S if was_handed_over else ON_ITS_WAY_S):
            return None
        return outcome_of_unknown(record)

    def _finish(self, job: ClaimedJob, found: SlurmJob | None, outcome: Outcome) -> FinishedClaim:
        log = self._queue.newest_log(job.name) or job.path
        if found is not None and (own := self._queue.paths.logs / f"{job.name}.slurm-{found.id}.log").exists():
            log = own
        if (request := Requests(self._queue).of(job.token)) is not None:
            outcome = request.outcome  # whatever Slurm reports: a person has asked for it
        finished = finish_claim(self._queue, self._retries, job, AttemptResult(outcome, log, _retries_of(job)))
        self._records.forget(job.token)
        return finished


def _retries_of(job: QueuedJob) -> int:
    try:
        return read_queue_job(job.path, job.name).retries
    except UserError:
        return 0


def end_waiting(queue: QueueStore, job: ClaimedJob) -> None:
    """Cancel in Slurm what it has not started: of what runs, its own start does what is asked of it.

    Raises SlurmError, and QueueUnusable.
    """
    if job.owner.cluster != client.cluster_name():
        raise SlurmError(f"{job.name} is in Slurm on {job.owner.cluster}: go to a machine of that cluster")
    record, token = Records(queue).of(job.token), job.token
    found = client.jobs_of(this_user()).get(token)
    job_id = found.id if found is not None else None if record is None else record.id
    if job_id is None:
        return
    if client.job_of(job_id, token) is not None:
        client.cancel_waiting(job_id)
    now = client.job_of(job_id, token)
    if now is None or now.state in OVER:
        requeue(queue, Retries(queue), job)
        Records(queue).forget(job.token)


def quick_lookup() -> Mapping[str, SlurmJob] | None:
    """What Slurm reports of claims, by their tokens, without a long wait; None where it does not answer."""
    try:
        return client.jobs_of(this_user(), client.QUICK_ANSWER_S)
    except SlurmError:
        return None
