"""One attempt at a job: acquire the run folder, launch, supervise, and find the outcome."""

import signal
from dataclasses import dataclass, replace
from pathlib import Path

from accel_trainer.config import EvaluationJob, QueueJob
from accel_trainer.config.parameters import QueueParameters
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import append_text
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.oom_kills import OomKills, oom_kills
from accel_trainer.core.processes import Program
from accel_trainer.core.text import one_line
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.attempt_events import AttemptStarted
from accel_trainer.launch.command import Launch, LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import (
    Outcome,
    OutcomeKind,
    TrainerExit,
    outcome_of,
    outcome_of_exit_code,
    record,
    state_of_mistake,
    with_disk,
    with_oom,
    with_root_cause,
)
from accel_trainer.launch.process_group import end_leftovers
from accel_trainer.launch.protocol import LOCK
from accel_trainer.launch.supervision import StatusMonitor, Supervision, supervise
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.launched_evaluation import folder_of, measured_run
from accel_trainer.run.load import trained_job
from accel_trainer.run.lock import FolderInUse, LockGuard, LockLost, RunLock, acquire, never
from accel_trainer.run.status import RunState, attempt_status

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Attempt:
    """One try at one job.

    file, job: the job file and what is in it; the `evaluate` of an evaluation is a path by now. token: identifies the
    attempt; all its processes carry it. log: where their output goes. group: of runs, in trackers. submission: differs
    from one submission to the next. starting_params: the path that a name in the job's own stands for. claim: the owner
    of the job in its queue.
    """

    job: QueueJob
    file: Path
    token: str
    log: Path
    group: str | None = None
    submission: str = ""
    starting_params: Path | None = None
    claim: Owner | None = None

    @property
    def run(self) -> RunFolder:
        """The folder in which it trains, or evaluates."""
        return folder_of(self.job)

    @property
    def is_training(self) -> bool:
        """Whether it trains; otherwise it evaluates what was trained."""
        return not isinstance(self.job, EvaluationJob)

    def plan(self, options: LaunchOptions, machine: Machine) -> Launch:
        """How it is launched. Raises UserError; UnusableHere where no job can be launched on this machine."""
        if not isinstance(self.job, EvaluationJob):
            return plan_launch(self.job, options, machine, self.worker_args)
        trained = trained_job(measured_run(self.job))
        job = trained.model_copy(update={key: getattr(self.job, key) for key in QueueParameters.model_fields})
        return plan_launch(job, options, machine, self.worker_args, Program.EVALUATE_JOB)

    @property
    def worker_args(self) -> list[str]:
        """The arguments of its worker."""
        submission = f"--submission={self.submission}"
        if isinstance(self.job, EvaluationJob):
            return [str(self.file), f"--name={self.job.name}", f"--run={measured_run(self.job).path}", submission]
        group = [f"--group={self.group}"] if self.group else []
        start = [f"--starting-params={self.starting_params}"] if self.starting_params is not None else []
        return [str(self.file), f"--name={self.job.name}", submission, *group, *start]


async def run_attempt(attempt: Attempt, options: LaunchOptions, machine: Machine, supervision: Supervision) -> Outcome:
    """Launch a trainer, and supervise it until all its processes and temporary files are gone.

    No other process can train in its run folder meanwhile. Where somebody else has sent the trainer or its launcher a
    signal to stop, this machine is needed for something else: `supervision.stop` then has the request, too.

    Raises UnusableHere where no job can be launched on this machine.
    """
    try:
        attempt.run.create(tries_to_write=True)
        launch = attempt.plan(options, machine)
        lock = _acquire_lock(attempt) if launch.machine_rank == 0 else None
    except UnusableHere:
        raise
    except FolderInUse as error:
        return Outcome(OutcomeKind.FOLDER_IN_USE, str(error), RunState.INVALID, wait_s=error.wait_s)
    except UserError as error:
        return Outcome(OutcomeKind.FAILED, str(error), state_of_mistake(error))
    if lock is None:
        return await _launch_and_supervise(attempt, launch, None, supervision)
    try:
        launch = replace(launch, worker_args=(*launch.worker_args, f"{LOCK}={lock.number}"))
        return await _launch_and_supervise(attempt, launch, lock, supervision)
    except LockLost as error:
        return Outcome(OutcomeKind.SUPERSEDED, str(error))
    finally:
        lock.release()


def _acquire_lock(attempt: Attempt) -> RunLock:
    """Refuse a run folder in which another process trains, and end what a dead one has left. Raises UserError."""

    def log_line(line: str) -> None:
        append_text(attempt.log, f"{one_line(line)}\n")

    owner = Owner(this_host(), attempt.token)
    follows = never if attempt.claim is None else attempt.claim.has_started
    return acquire(attempt.run, owner, end_leftovers=end_leftovers, say=log_line, follows=follows)


async def _launch_and_supervise(
    attempt: Attempt, launch: Launch, lock: RunLock | None, supervision: Supervision
) -> Outcome:
    stop, killed_before = supervision.stop, oom_kills()
    try:
        trainer = await supervision.start(launch, attempt.token, attempt.log)
    except OSError as error:
        # Of what it takes nothing is the job's: a log, a folder for temporary files, a process.
        return Outcome(OutcomeKind.FAILED, f"the trainer cannot be started: {error}", RunState.MACHINE_FAILED)
    supervision.emit(AttemptStarted(attempt.job.name, attempt.run, attempt.log, attempt.token, attempt.is_training))
    reason = None
    try:
        monitor = StatusMonitor(attempt.run, attempt.token)
        reason = await supervise(trainer, attempt.job, monitor, lock, supervision)
    except LockLost:
        trainer.kill()  # what it would still save is in another process's run
        raise
    finally:
        exit_code = await trainer.stop(lambda: stop.is_urgent)
    ended = TrainerExit(exit_code, attempt.log, asked_to_stop=bool(stop), reason=reason)
    outcome = _outcome(attempt, lock, ended, oom_kills() - killed_before)
    if outcome.kind is OutcomeKind.INTERRUPTED and reason is None and not stop and exit_code != -signal.SIGKILL:
        stop.note(signal.SIGTERM)
    return outcome


def _outcome(attempt: Attempt, lock: RunLock | None, ended: TrainerExit, killed: OomKills) -> Outcome:
    """The outcome by the run's status, which is completed; on further machines by the exit code. Raises LockLost."""
    if lock is None:
        return with_oom(outcome_of_exit_code(ended), ended, killed)
    guard = LockGuard(lock)
    run = guard.owned(attempt.run)
    status = attempt_status(run, attempt.token.__eq__)
    guard.check()  # what was read may be another's
    outcome = with_root_cause(outcome_of(status, attempt.token, ended), status, run, attempt.token)
    outcome = with_disk(with_oom(outcome, ended, killed), run)
    record(outcome, run, attempt.token)
    return outcome
