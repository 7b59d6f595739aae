"""The verbs that change what becomes of a queue's jobs."""

import time
from pathlib import Path
from typing import Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    QueueOption,
    app,
    echo,
    existing_queue,
    print_problems,
)
from accel_trainer.cli.change_jobs import POLL_S, ask_owner, for_each, problems_of_one, with_name
from accel_trainer.cli.completion import names_of_jobs
from accel_trainer.cli.slurm_claims import SlurmDesk
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import STALE_S
from accel_trainer.core.text import duration
from accel_trainer.queue.control import ControlAction, Pauses, current_user
from accel_trainer.queue.layout import (
    ClaimedJob,
    Ending,
    JobState,
    QueuedJob,
    UndecidedMove,
)
from accel_trainer.queue.reclaim import OwnerReport, OwnerState, Reclaimer, requeue
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import QueueStore

Jobs = Annotated[list[str], typer.Argument(help="Names of jobs.", show_default=False, autocompletion=names_of_jobs)]
HostOption = Annotated[str | None, typer.Option("--host", help="Only this host; all if not given.", show_default=False)]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not wait until a running job is stopped.")]


@app.command()
def hold(jobs: Jobs, queue: QueueOption = DEFAULT_QUEUE, no_wait: NoWaitOption = False) -> None:
    """Keep jobs back until `release`. One that is running is saved and stopped first."""

    def change(store: QueueStore, job: QueuedJob) -> str | None:
        if isinstance(job, ClaimedJob):
            return ask_owner(store, job, ControlAction.HOLD, change, wait=not no_wait)
        if job.state is not JobState.PENDING:
            raise UserError(f"{job.name} is {job.state}; only what is pending or running can be held")
        return with_name("held", job, store.hold(job))

    for_each(jobs, queue, change)


@app.command()
def release(jobs: Jobs, queue: QueueOption = DEFAULT_QUEUE) -> None:
    """Let held jobs be run again."""

    def change(store: QueueStore, job: QueuedJob) -> str:
        if job.state is not JobState.HELD:
            raise UserError(f"{job.name} is {job.state}, not held")
        return with_name("pending", job, store.release(job))

    for_each(jobs, queue, change)


@app.command()
def cancel(jobs: Jobs, queue: QueueOption = DEFAULT_QUEUE, no_wait: NoWaitOption = False) -> None:
    """Put jobs that are pending, held or running into failed/. One that is running is saved and stopped first.

    `retry` resumes it where it was.
    """

    def change(store: QueueStore, job: QueuedJob) -> str | None:
        if isinstance(job, ClaimedJob):
            return ask_owner(store, job, ControlAction.CANCEL, change, wait=not no_wait)
        if job.state.is_over:
            raise UserError(f"{job.name} is {job.state} already")
        store.finish(job, JobState.FAILED, f"canceled by {current_user()}", Ending.CANCELED)
        Retries(store).forget(job.name)
        return "canceled"

    for_each(jobs, queue, change)


@app.command()
def retry(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(help="Names of failed or canceled jobs.", show_default=False, autocompletion=names_of_jobs),
    ] = None,
    queue: QueueOption = DEFAULT_QUEUE,
    failed: Annotated[bool, typer.Option("--failed", help="All that have failed; not what was canceled.")] = False,
) -> None:
    """Return failed or canceled jobs to pending. They resume where they were, if they got that far."""
    store = existing_queue(queue)
    if failed:
        jobs = [job.name for job in store.jobs(JobState.FAILED) if store.ending(job) is Ending.FAILED]
        if not jobs:
            echo(f"no job has failed in {queue}")
            return
    if not jobs:
        raise UserError("retry: name jobs, or say --failed")

    def change(store: QueueStore, job: QueuedJob) -> str:
        if job.state is not JobState.FAILED:
            raise UserError(f"{job.name} is {job.state}; only what has failed can be tried again")
        return with_name("pending", job, store.retry(job))

    for_each(jobs, queue, change, among=(JobState.FAILED,))


@app.command()
def rm(jobs: Jobs, queue: QueueOption = DEFAULT_QUEUE) -> None:
    """Remove jobs from the queue, not what they have trained. One that is running has to be canceled first."""

    def change(store: QueueStore, job: QueuedJob) -> str:
        if job.state is JobState.RUNNING:
            raise UserError(f"{job.name} is running; cancel it first")
        store.remove(job)
        Retries(store).forget(job.name)
        return "removed"

    for_each(jobs, queue, change)


@app.command()
def move(
    jobs: Jobs,
    to: Annotated[Path, typer.Option("--to", help="Folder of the other queue.", show_default=False)],
    queue: QueueOption = DEFAULT_QUEUE,
) -> None:
    """Move jobs that wait, or are over, to another queue; what they have trained stays where it is."""
    target = QueueStore(to)
    target.create()

    def change(store: QueueStore, job: QueuedJob) -> str:
        if job.state is JobState.RUNNING:
            raise UserError(f"{job.name} is running; hold it first")
        return f"moved to {store.move_to(target, job)}"

    for_each(jobs, queue, change)


@app.command()
def pause(
    queue: QueueOption = DEFAULT_QUEUE,
    host: HostOption = None,
    reason: Annotated[str | None, typer.Option("--reason", help="For those who see it.", show_default=False)] = None,
) -> None:
    """Start no more jobs, until `resume`. What is running continues."""
    existing_queue(queue)
    _refuse_odd_host(host)
    echo(Pauses(QueueStore(queue)).add(host, reason))


@app.command()
def resume(queue: QueueOption = DEFAULT_QUEUE, host: HostOption = None) -> None:
    """End a pause. Without --host: that of the queue, and those of all hosts."""
    pauses = Pauses(existing_queue(queue))
    _refuse_odd_host(host)
    chosen = [pause for pause in pauses.all() if host is None or pause.host == host]
    for pause in chosen:
        pauses.remove(pause.host)
        echo(f"{pause.where} is resumed")
    if not chosen:
        echo("nothing is paused")


@app.command()
def reclaim(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of running jobs; all if not given.", show_default=False, autocompletion=names_of_jobs
        ),
    ] = None,
    queue: QueueOption = DEFAULT_QUEUE,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until it is known of each whether its runner is alive.")
    ] = False,
) -> None:
    """Return jobs to pending whose runners are dead: here at once, elsewhere when nothing was heard for 10 minutes.

    By this machine's own clock, which begins when it first sees them: `status`, `run-queue` and this look. Of jobs that
    were handed to Slurm, it is asked.
    """
    store = existing_queue(queue)
    reclaimer, slurm = Reclaimer(store, Retries(store)), SlurmDesk(store)
    if jobs and (unknown := set(jobs) - {job.name for job in store.claims()}):
        raise UserError(f"{sorted(unknown)[0]}: no job of this name is running in {queue}")
    while True:
        running = [job for job in store.claims() if not jobs or job.name in jobs]
        in_slurm = slurm.settle(running)
        for job, text in in_slurm.items():
            if text is not None:
                echo(f"{job.name}: {text}")
        undecided = [report for report in reclaimer.reports(running) if not _reclaim(store, report)]
        unknown_to_slurm = [job for job, text in in_slurm.items() if text is None]
        if not (undecided or unknown_to_slurm) or not wait:
            break
        time.sleep(POLL_S * 10)
    for report in undecided:
        echo(_why_undecided(report))
    for job in unknown_to_slurm:
        echo(f"{job.name}: Slurm does not know it; it is returned to pending when that is sure: come again, or --wait")
    if not running:
        echo(f"nothing is running in {queue}")


def _why_undecided(report: OwnerReport) -> str:
    silence = f"nothing was heard of its runner for {duration(report.silence_s)}"
    heard = silence if report.silence_s > 1 else "its runner may be alive"
    where = f"{report.job.name}: runs on {_host(report.job)}"
    return f"{where}; {heard}; its lease expires after {duration(STALE_S)}: come again, or --wait"


def _reclaim(store: QueueStore, report: OwnerReport) -> bool:
    """Return a job to pending if its owner is dead; whether nothing more is to be decided about it."""
    job = report.job
    if job.destination is not None and report.state in (OwnerState.DEAD, OwnerState.EXPIRED):
        return _finish_move(store, job)
    match report.state:
        case OwnerState.ALIVE:
            echo(f"{job.name}: its runner is alive")
            return True
        case OwnerState.UNKNOWN:
            return False
        case OwnerState.DEAD:
            why = "its runner is dead"
        case OwnerState.EXPIRED:
            why = f"nothing was heard of its runner on {_host(job)} for {duration(report.silence_s)}"
    from accel_trainer.launch.process_group import end_leftovers

    still_here = f"{job.name}: {why}, but its trainer is still running: it may save first, within a minute or two"
    end_leftovers(job.token, lambda: echo(still_here))
    try:
        is_ours = requeue(store, Retries(store), job)
    except (UserError, OSError) as error:
        print_problems(problems_of_one(error, store))
        return True
    if is_ours:
        echo(f"{job.name}: returned to pending; {why}")
    return True


def _finish_move(store: QueueStore, job: ClaimedJob) -> bool:
    """Finish or undo what the owner has begun, and died; whether that could be decided."""
    try:
        if (path := store.settle(job)) is not None:
            echo(f"{job.name}: the process that was moving it is dead; it is in {path.parent}")
    except UndecidedMove as error:
        print_problems(error.problems)
    return True


def _host(job: ClaimedJob) -> str:
    return job.owner.host or "an unknown host"


def _refuse_odd_host(host: str | None) -> None:
    if host is not None and (not host or "/" in host or host != host.strip() or host.startswith(".")):
        raise UserError(f"--host: {host!r} is no name of a host")
