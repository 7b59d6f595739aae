"""The verb that trains one job without the queue."""

from typing import TYPE_CHECKING

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    SIGNALED,
    SOME_FAILED,
    AllowOption,
    JobArgument,
    ParentQueueOption,
    allow_for_jobs,
    app,
    echo,
    job_file,
)
from accel_trainer.cli.console import never_wait
from accel_trainer.cli.launching import (
    ConfigOption,
    CpuOption,
    GpusOption,
    ProcessesOption,
    launch_options,
    report_set_aside,
)
from accel_trainer.cli.run_queue import ask_for_gpus, done_parent
from accel_trainer.config import read_job
from accel_trainer.launch.command import LaunchOptions, plan_launch
from accel_trainer.launch.machine import this_machine
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import submission_of
from accel_trainer.run.folder import RunFolder, cannot_write
from accel_trainer.run.status import RunState, read_status

if TYPE_CHECKING:
    from accel_trainer.launch.attempt import Attempt


@app.command()
def train(
    job: JobArgument,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    queue: ParentQueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
) -> None:
    """Train one job without the queue."""
    from accel_trainer.core.lease import Owner
    from accel_trainer.launch.attempt import Attempt
    from accel_trainer.launch.attempt_files import new_log

    allow_for_jobs(queue, allow)
    file, name = job_file(job, queue)
    parsed = read_job(file, name)
    options = ask_for_gpus(launch_options(config, num_processes, gpus, cpu=cpu))
    never_wait()
    plan_launch(parsed, options, this_machine(cpu=options.cpu))  # a mistake in it is reported before a folder is made
    store = QueueStore(queue)
    if store.folder.is_dir():
        store.paths.refuse_run_folder(parsed.run_path)
    parent = done_parent(parsed, store)
    if parsed.after:
        echo(f"after: only a queue waits for other jobs; {parsed.name} is trained now", err=True)
    run = RunFolder(parsed.run_path)
    run.create()
    report_set_aside()
    token, submission = Owner.new().token, submission_of(file)
    if (status := read_status(run)) is not None and status.state is RunState.FINISHED:
        submission += f"-{token}"  # with `checkpoint`, a finished run is started over; an interrupted one resumes
    try:
        log = new_log(run.attempts, "train")
    except OSError as error:
        raise cannot_write(run.path, error) from error
    _train(Attempt(job=parsed, file=file, token=token, log=log, submission=submission, starting_params=parent), options)


def _train(attempt: "Attempt", options: LaunchOptions) -> None:
    """Run an attempt, and exit with the code for its outcome."""
    from accel_trainer.cli.attempt_terminal import AttemptTerminal
    from accel_trainer.core.event_loop import run_async
    from accel_trainer.core.processes import StopRequest
    from accel_trainer.launch.attempt import STOP_SIGNALS, run_attempt
    from accel_trainer.launch.attempt_events import AttemptFinished
    from accel_trainer.launch.outcome import OutcomeKind
    from accel_trainer.launch.supervision import Supervision

    terminal, stop, machine = AttemptTerminal(), StopRequest(), this_machine(cpu=options.cpu)
    stop.listen(*STOP_SIGNALS)
    outcome = run_async(lambda: run_attempt(attempt, options, machine, Supervision(stop, terminal)))
    terminal(AttemptFinished(attempt.job.name, outcome, attempt.log))
    if stop.signal is not None:
        raise typer.Exit(SIGNALED + stop.signal)
    if outcome.kind is not OutcomeKind.DONE:
        raise typer.Exit(MISTAKE if outcome.is_users_mistake else SOME_FAILED)
