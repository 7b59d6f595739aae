"""One attempt at one job: launch a trainer, stay with it, judge how it ended."""

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.processes import StopRequest, killed_for_memory
from accel_trainer.queue.ending import (
    Cut,
    Ending,
    EndingKind,
    judge,
    judge_by_exit_code,
    record,
    with_first_cause,
    with_memory,
)
from accel_trainer.queue.launcher import Flags, Launch, plan_launch
from accel_trainer.queue.machine import Machine
from accel_trainer.queue.retries import submission_of
from accel_trainer.queue.store import Queue, QueuedJob
from accel_trainer.queue.supervision import AttemptWatcher, Orders, no_orders, stay_with
from accel_trainer.queue.trainer import Trainer, end_leftovers
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import Ownership, OwnershipLost, nobody, take
from accel_trainer.run.status import RunState

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Attempt:
    """One try at one job: which file, under which name and token, and where its output goes.

    `starting_params` is the path that the name in the job's stands for; `claim` is whose the job is.
    """

    job: Job
    file: Path
    token: str
    log: Path
    group: str | None = None
    submission: str = ""
    starting_params: Path | None = None
    claim: Owner | None = None

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.job.run_path)

    @property
    def worker_args(self) -> list[str]:
        group = [f"--group={self.group}"] if self.group else []
        start = [f"--starting-params={self.starting_params}"] if self.starting_params is not None else []
        return [str(self.file), f"--name={self.job.name}", f"--submission={self.submission}", *group, *start]


def attempt_of_queue(
    queue: Queue, job_file: QueuedJob, job: Job, token: str, log: Path, starting_params: Path | None
) -> Attempt:
    """A try at a job of a queue."""
    return Attempt(
        job=job,
        file=job_file.path,
        token=token,
        log=log,
        group=queue.folder.resolve().name,
        submission=submission_of(job_file.path),
        starting_params=starting_params,
        claim=job_file.owner,
    )


# Starts a trainer, given its launch, token and log. Raises OSError.
Start = Callable[[Launch, str, Path], Awaitable[Trainer]]


async def start_anew(launch: Launch, token: str, log: Path) -> Trainer:
    return Trainer(launch, token, log)


async def go_through(
    attempt: Attempt,
    flags: Flags,
    machine: Machine,
    stop: StopRequest,
    watcher: AttemptWatcher,
    orders: Orders = no_orders,
    start: Start = start_anew,
) -> Ending:
    """Launch a trainer and stay with it until it, all its processes and their temporary files are gone. Nobody else
    may train in its run folder meanwhile.

    Where somebody else has told the trainer or its launcher to stop, this machine is wanted: `stop` then says so too.
    """
    try:
        attempt.run.create()
        launch = plan_launch(attempt.job, flags, machine, attempt.worker_args)
        ownership = _take(attempt) if launch.machine_rank == 0 else None
    except UserError as error:
        return Ending(EndingKind.FAILED, str(error), RunState.INVALID)
    try:
        return await _run(attempt, launch, ownership, stop, watcher, orders, start)
    finally:
        if ownership is not None:
            attempt.run.remove_leftovers()
            ownership.release()


def _take(attempt: Attempt) -> Ownership:
    """Refuse a run folder in which another process trains; see to it that nothing of a dead one is left."""

    def say(line: str) -> None:
        with attempt.log.open("a") as log:
            log.write(f"{line}\n")

    owner = Owner(this_host(), attempt.token)
    follows = nobody if attempt.claim is None else attempt.claim.has_started
    return take(attempt.run, owner, end_leftovers=end_leftovers, say=say, follows=follows)


async def _run(
    attempt: Attempt,
    launch: Launch,
    ownership: Ownership | None,
    stop: StopRequest,
    watcher: AttemptWatcher,
    orders: Orders,
    start: Start,
) -> Ending:
    num_killed = killed_for_memory()
    try:
        trainer = await start(launch, attempt.token, attempt.log)
    except OSError as error:
        return Ending(EndingKind.FAILED, f"the trainer cannot be started: {error}", RunState.FAILED)
    watcher.started(attempt.job.name, attempt.run, attempt.log)
    cut: Cut | None = None
    try:
        cut = await stay_with(trainer, attempt.job, attempt.run, ownership, stop, watcher, orders)
    except OwnershipLost as error:
        trainer.kill()  # what it would still save is another's
        return Ending(EndingKind.DISCARDED, str(error))
    finally:
        await trainer.end(lambda: stop.is_urgent)
    num_killed = killed_for_memory() - num_killed
    ending = _judge(attempt, launch, trainer, cut, asked_to_stop=bool(stop), num_killed=num_killed)
    if ending.kind is EndingKind.BACK_TO_PENDING and cut is None and not stop and trainer.exit_code != -signal.SIGKILL:
        stop.note(signal.SIGTERM)
    return ending


def _judge(
    attempt: Attempt, launch: Launch, trainer: Trainer, cut: Cut | None, *, asked_to_stop: bool, num_killed: int
) -> Ending:
    code, log = trainer.exit_code, attempt.log
    assert code is not None
    if launch.machine_rank > 0:
        ending = judge_by_exit_code(code, log, asked_to_stop=asked_to_stop, cut=cut)
        return with_memory(ending, num_killed)
    said = attempt.run.read_status()
    ending = judge(said, attempt.token, asked_to_stop=asked_to_stop, exit_code=code, log=log, cut=cut)
    ending = with_memory(with_first_cause(ending, said, attempt.run, attempt.token), num_killed)
    record(ending, said, attempt.run, attempt.token)
    return ending
