"""A claimed job, from its file to the outcome of one attempt at it: the same for a runner and for a start in Slurm."""

import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accel_trainer.config import EvaluationJob, QueueJob, read_queue_job
from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import append_text, read_start
from accel_trainer.core.machine_errors import why_of_machine
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.text import first_line, one_line
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.attempt import Attempt, run_attempt
from accel_trainer.launch.attempt_events import EmitAttempt
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.supervision import Start, Supervision, never_stop, spawn
from accel_trainer.queue.control import ClaimControl
from accel_trainer.queue.dependencies import evaluated_run, starting_params
from accel_trainer.queue.finish import AttemptResult
from accel_trainer.queue.layout import ClaimedJob, QueuedJob, QueueUnusable
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import Submissions
from accel_trainer.run.status import RunState


def as_it_starts(job: QueueJob, queue: QueueStore) -> tuple[QueueJob, Path | None]:
    """A job that evaluates, with the path of the run; or one that trains, with that of what it starts from, if that is
    named like a job. Raises UserError."""
    if isinstance(job, EvaluationJob):
        return job.of_run(evaluated_run(job, queue)), None
    return job, starting_params(job, queue)


def attempt_of(
    queue: QueueStore, file: QueuedJob, job: QueueJob, *, token: str, log: Path, parent: Path | None
) -> Attempt:
    """An attempt at a job, as it starts. parent: the path that a name in its `starting_params` stands for."""
    return Attempt(
        job=job,
        file=file.path,
        token=token,
        log=log,
        group=one_line(queue.folder.resolve().name),
        submission=Submissions(queue.paths).of(file),
        starting_params=parent,
        claim=file.owner if isinstance(file, ClaimedJob) else None,
    )


def ignore_attempt(attempt: Attempt) -> None:
    """Nothing is done with an attempt before its trainer starts."""


def _refused(claimed: ClaimedJob, error: UserError) -> AttemptResult:
    """Of a job that cannot be trained as it is now."""
    state = None if why_of_machine(error) is None else RunState.MACHINE_FAILED
    return AttemptResult(Outcome(OutcomeKind.FAILED, str(error), state), claimed.path)


def _remove_empty(log: Path) -> None:
    with suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


@dataclass(frozen=True)
class ClaimRun:
    """One attempt at a claimed job.

    token: of this attempt; that of the claim, or of one start of a claim which is a cluster's.
    options, machine: what it may use. On another node than the first, this node's trainer alone is judged, and no
    request stops it: all processes of a job stop together.
    prepared: called with the attempt before its trainer starts.
    start: starts the trainer.
    """

    queue: QueueStore
    claimed: ClaimedJob
    token: str
    options: LaunchOptions
    machine: Machine
    stop: StopRequest
    emit: EmitAttempt
    prepared: Callable[[Attempt], None] = ignore_attempt
    start: Start = spawn

    async def result(self) -> AttemptResult:
        """Read the job and train it. Raises QueueUnusable, and UnusableHere where no job can be launched here."""
        try:
            return await self._result()
        except (QueueUnusable, UnusableHere):
            raise
        except Exception as error:  # whatever it is, it is of this attempt alone
            return self._broken_by(error)

    def _broken_by(self, error: Exception) -> AttemptResult:
        """The outcome of an attempt that could not be followed to its end; the log has the traceback."""
        log = None
        with suppress(OSError):
            if (log := self.queue.newest_log(self.claimed.name)) is not None:
                append_text(log, "".join(traceback.format_exception(error)))
        reason = f"the attempt could not be followed: {type(error).__name__}: {first_line(error)}"
        state = RunState.FAILED if why_of_machine(error) is None else RunState.MACHINE_FAILED
        return AttemptResult(Outcome(OutcomeKind.FAILED, reason, state), log or self.claimed.path)

    async def _result(self) -> AttemptResult:
        claimed, queue, node = self.claimed, self.queue, self.machine.nodes.rank
        try:
            with suppress(OSError):  # what passes is waited out; of all else the next line tells
                on_disk(partial(read_start, claimed.path, 1), claimed.path)
            job = read_queue_job(claimed.path, claimed.name)
        except UserError as error:  # changed since it was checked
            if isinstance(error.__cause__, FileNotFoundError):
                return AttemptResult(Outcome(OutcomeKind.SUPERSEDED, f"its file {claimed.path} is gone"), claimed.path)
            return _refused(claimed, error)
        try:
            job, parent = as_it_starts(job, queue)
            queue.paths.refuse_run_folder(job.run_path)
        except UserError as error:  # so has the job that it starts from
            return _refused(claimed, error)
        log = queue.next_log(claimed.name if node == 0 else f"{claimed.name}.node{node}")
        with suppress(OSError):  # the file is gone, as the attempt finds
            Submissions(queue.paths).note(claimed)
        attempt = attempt_of(queue, claimed, job, token=self.token, log=log, parent=parent)
        self.prepared(attempt)
        stop_check = ClaimControl(queue, claimed) if node == 0 else never_stop
        supervision = Supervision(self.stop, self.emit, stop_check, self.start)
        outcome = await run_attempt(attempt, self.options, self.machine, supervision)
        if outcome.kind is OutcomeKind.FOLDER_IN_USE:  # with a log each, its tries would fill the folder
            _remove_empty(log)
        return AttemptResult(outcome, log, job.retries, attempt.run.path)
