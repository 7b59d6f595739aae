"""The verbs that train: a queue's jobs, or one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    SIGNALLED,
    SOME_FAILED,
    AllowOption,
    ConfigOption,
    File,
    GpusOption,
    NamesOption,
    ProcessesOption,
    QueueOption,
    app,
    hardware_flags,
    tell,
)
from accel_trainer.cli.slurm import hand_to_slurm, refuse_options
from accel_trainer.config import Job, read_job
from accel_trainer.core.allow_imports import allow_imports
from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import Flags, num_processes_wanted, plan_launch
from accel_trainer.launch.machine import this_machine
from accel_trainer.queue.dependencies import Needs, cycles, find_parent, in_order, starting_params, words
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.retries import FIRST_WAIT_S, submission_of
from accel_trainer.queue.store import Queue
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState

if TYPE_CHECKING:
    from accel_trainer.queue.runner import Runner
    from accel_trainer.queue.slots import Slots
    from accel_trainer.queue.slurm.submitter import Submitter


@app.command("run-queue")
def run_queue(
    queue: QueueOption = DEFAULT_QUEUE,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    allow: AllowOption = "",
    gpus_per_job: Annotated[
        int | None, typer.Option("--gpus-per-job", min=1, help="Several jobs at once, each on so many GPUs.")
    ] = None,
    jobs_per_gpu: Annotated[int, typer.Option("--jobs-per-gpu", min=1, help="So many jobs share a GPU.")] = 1,
    slots: Annotated[
        int | None,
        typer.Option("--slots", min=1, help="Jobs at once that share the cores of a machine without GPUs."),
    ] = None,
    wait_free: Annotated[
        bool, typer.Option("--wait-free", help="Take no GPU whose memory somebody else uses; wait for it.")
    ] = False,
    reclaim_stale: Annotated[
        bool,
        typer.Option(
            "--reclaim-stale",
            help="Also take up jobs of runners on other machines from which nothing was heard for 10 minutes.",
        ),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for more jobs instead of ending.")] = False,
    retry_after: Annotated[
        float,
        typer.Option("--retry-after", min=0, help="Seconds before the first of a job's `retries`, then twice as long."),
    ] = FIRST_WAIT_S,
    start_ahead: Annotated[
        bool,
        typer.Option(
            "--start-ahead/--no-start-ahead",
            help="Start the next job's trainer while another still works, to save time.",
        ),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the command of each job.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Hand each job to Slurm, as a job of its own.")] = False,
    partition: Annotated[str | None, typer.Option("--partition", help="With --slurm: as of sbatch.")] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="With --slurm: as of sbatch. Before it is over, a job saves, and goes on later."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="With --slurm: each job on so many machines; one if not given.")
    ] = None,
    sbatch_arg: Annotated[
        list[str] | None,
        typer.Option("--sbatch-arg", help="With --slurm: a word for sbatch, such as --mem=32G. May be repeated."),
    ] = None,
) -> None:
    """Train the jobs of the queue, one after the other or several at once; or have Slurm train them.

    Exit code 1: a job has failed, or is left because it waits for one that is held or not in the queue, wants more GPUs
    than there are, or because of a pause.
    """
    from accel_trainer.display import TerminalWatcher
    from accel_trainer.launch.machine import GpuUse
    from accel_trainer.queue.runner import Runner, nobody_else
    from accel_trainer.queue.slots import Slots
    from accel_trainer.queue.slurm.script import Wishes

    allow_imports(allow)
    flags = hardware_flags(config, num_processes, gpus)
    if slurm:
        not_beside = {"--gpus": gpus, "--jobs-per-gpu": jobs_per_gpu > 1, "--slots": slots, "--wait-free": wait_free}
        not_beside |= {"--reclaim-stale": reclaim_stale, "--dry-run": dry_run, "--no-start-ahead": not start_ahead}
        refuse_options(not_beside, "not with --slurm, which decides where and when a job runs")
        wishes = Wishes(partition, time, gpus_per_job, nodes or 1, tuple(sbatch_arg or ()))
        _tell_outcome(hand_to_slurm(Queue(queue), flags, wishes, retry_after, watch=watch), queue)
        return
    for_slurm = {"--partition": partition, "--time": time, "--nodes": nodes, "--sbatch-arg": sbatch_arg}
    refuse_options(for_slurm, "only with --slurm")
    flags = flags if dry_run else _asked(flags)
    places = Slots(this_machine(), flags, gpus_per_job=gpus_per_job, jobs_per_gpu=jobs_per_gpu, slots=slots)
    if dry_run:
        _print_commands(Queue(queue), flags, places)
        return
    runner = Runner(
        Queue(queue),
        flags,
        this_machine(),
        TerminalWatcher(several=places.number > 1),
        slots=places,
        occupied=GpuUse().occupied if wait_free else nobody_else,
        retry_after_s=retry_after,
        reclaims_stale=reclaim_stale,
        starts_ahead=start_ahead,
    )
    runner.run(watch=watch)
    _tell_outcome(runner, queue)


def _tell_outcome(runner: "Runner | Submitter", queue: Path) -> None:
    """What has come of it all, as an exit code."""
    if not (runner.num_run or runner.num_failed or runner.num_blocked or runner.stop):
        typer.echo(f"no jobs in {queue}")
    if runner.stop.signal is not None:
        raise typer.Exit(SIGNALLED + runner.stop.signal)
    if runner.num_failed:
        typer.echo(f"\n{runner.num_failed} failed; the reasons are in {queue / 'failed'}", err=True)
    if runner.num_failed or runner.num_blocked:
        raise typer.Exit(SOME_FAILED)


@app.command()
def train(
    file: File,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    queue: NamesOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
) -> None:
    """Train one job without the queue."""
    import asyncio

    from accel_trainer.core.lease import Owner
    from accel_trainer.core.processes import StopRequest
    from accel_trainer.display import TerminalWatcher
    from accel_trainer.launch.attempt import STOP_SIGNALS, Attempt, go_through
    from accel_trainer.launch.attempt_files import new_log
    from accel_trainer.launch.outcome import EndingKind

    allow_imports(allow)
    job = read_job(file)
    flags = _asked(hardware_flags(config, num_processes, gpus))
    plan_launch(job, flags, this_machine())  # what is wrong with it is said before a folder is made
    start = _done_parent(job, Queue(queue))
    if job.after:
        typer.echo(f"after: only a queue waits for other jobs; {job.name} is trained now", err=True)
    run = RunFolder(job.run_path)
    run.create()
    token, submission = Owner.new().token, submission_of(file)
    if (said := run.read_status()) is not None and said.state is RunState.FINISHED:
        submission += f"-{token}"  # with `checkpoint`, a finished run is started over; an interrupted one goes on
    log = new_log(run.attempts, "train")
    attempt = Attempt(job=job, file=file, token=token, log=log, submission=submission, starting_params=start)
    watcher, stop = TerminalWatcher(), StopRequest()
    stop.listen(*STOP_SIGNALS)
    ending = asyncio.run(go_through(attempt, flags, this_machine(), stop, watcher))
    watcher.ended(job.name, ending, attempt.log)
    if stop.signal is not None:
        raise typer.Exit(SIGNALLED + stop.signal)
    if ending.kind is not EndingKind.DONE:
        raise typer.Exit(MISTAKE if ending.is_users_mistake else SOME_FAILED)


def _asked(flags: Flags) -> Flags:
    """At a terminal, without flags, and with a choice of GPUs: ask which to use; Enter takes all."""
    machine = this_machine()
    if flags != Flags() or len(machine.gpus) < 2 or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return flags
    for gpu in machine.gpus:
        typer.echo(f"  {gpu}")
    while True:
        answer = typer.prompt("GPUs to use (such as 0,1; Enter: all)", default="", show_default=False).strip()
        if not answer:
            return flags
        try:
            chosen = hardware_flags(None, None, answer)
            machine.refuse_missing(chosen.gpus or ())
        except UserError as error:
            typer.echo(str(error))
            continue
        return chosen


def _done_parent(job: Job, queue: Queue) -> Path | None:
    """What a job starts from that is trained now. Raises UserError if that is a job which is not done."""
    parent = find_parent(job, queue)
    if isinstance(parent, QueuedJob) and parent.state is not JobState.DONE:
        raise UserError(
            f"finetune_args.starting_params: {job.parent_job!r} is {parent.state} in {queue.folder}, not done; "
            "add this job to the queue, where it waits"
        )
    return starting_params(job, queue)


def _print_commands(queue: Queue, flags: Flags, places: "Slots") -> None:
    """The jobs that can be run, in their order, and why the others cannot."""
    pending = queue.jobs(JobState.PENDING)
    if not pending:
        typer.echo(f"no jobs in {queue.folder}")
    jobs: dict[str, Job] = {}
    is_wrong = False
    for queued in pending:
        try:
            job = read_job(queued.path)
            find_parent(job, queue)
            jobs[queued.name] = job
        except UserError as error:
            is_wrong = True
            tell(error.problems)
    states = queue.states()
    missing = {name: Needs.of(job).missing(states) for name, job in jobs.items()}
    order = in_order([queued for queued in pending if queued.name in jobs], missing)
    for queued in order:
        try:
            typer.echo(_command(queue, queued, jobs[queued.name], flags, places))
        except UserError as error:
            is_wrong = True
            tell(error.problems)
    in_a_cycle = cycles(missing)
    left = jobs.keys() - {queued.name for queued in order}
    for queued in (queued for queued in pending if queued.name in left):
        if (problem := in_a_cycle.get(queued.name)) is not None:
            tell([f"{queued.path}: {problem}"])
        else:
            typer.echo(f"{queued.name}: {words(missing[queued.name])}", err=True)
    if is_wrong or left:
        raise typer.Exit(MISTAKE if is_wrong or in_a_cycle else SOME_FAILED)


def _command(queue: Queue, queued: QueuedJob, job: Job, flags: Flags, places: "Slots") -> str:
    """How a job will be launched where nothing else runs."""
    from accel_trainer.queue.run_claim import attempt_of_queue

    log = queue.logs / f"{queued.name}.log"
    attempt = attempt_of_queue(queue, queued, job, token="", log=log, starting_params=starting_params(job, queue))
    wanted = num_processes_wanted(job, flags)
    if (place := places.fit(wanted)) is None:
        raise UserError(f"{queued.path}: wants {wanted} GPUs; there are {len(places.gpus)}")
    machine = place.machine(this_machine())
    return str(plan_launch(job, place.flags(flags), machine, attempt.worker_args))
