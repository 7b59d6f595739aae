"""The verb that trains the jobs of a queue, here or in Slurm."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    QUEUE_UNUSABLE,
    SIGNALED,
    SOME_FAILED,
    AllowOption,
    QueueOption,
    allow_for_jobs,
    app,
    echo,
    no_queue_in,
    print_problems,
    with_flags,
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
from accel_trainer.cli.notifying import NotifyOption, notify_targets, notifying
from accel_trainer.cli.queue_home import home_elsewhere
from accel_trainer.config import EvaluationJob, Job, QueueJob, read_queue_job
from accel_trainer.core.child_environment import SLURM
from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import LaunchOptions, num_processes_wanted
from accel_trainer.launch.machine import Machine, this_machine
from accel_trainer.queue.dependencies import (
    Requirements,
    cycles,
    describe_unmet,
    find_evaluated,
    find_parent,
    in_order,
    starting_params,
    trainer_of,
)
from accel_trainer.queue.layout import JobState, QueuedJob, QueueUnusable
from accel_trainer.queue.retries import FIRST_WAIT_S
from accel_trainer.queue.store import QueueStore

if TYPE_CHECKING:
    from accel_trainer.launch.gpu_memory import GpuMemory
    from accel_trainer.queue.notifier import Target
    from accel_trainer.queue.runner import Runner
    from accel_trainer.queue.slots import Slots
    from accel_trainer.queue.slurm.script import SlurmOptions
    from accel_trainer.queue.slurm.submitter import Submitter


@app.command("run-queue")
def run_queue(
    queue: QueueOption = DEFAULT_QUEUE,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    allow: AllowOption = "",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="So many jobs at once, each on one GPU unless --gpus-per-job says more."),
    ] = None,
    gpus_per_job: Annotated[
        int | None, typer.Option("--gpus-per-job", min=1, help="Several jobs at once, each on so many GPUs.")
    ] = None,
    jobs_per_gpu: Annotated[int, typer.Option("--jobs-per-gpu", min=1, help="So many jobs share a GPU.")] = 1,
    slots: Annotated[
        int | None,
        typer.Option("--slots", min=1, help="Jobs at once that share the cores of a machine without GPUs."),
    ] = None,
    wait_free: Annotated[
        bool, typer.Option("--wait-free", help="Take no GPU whose memory is in use by others; wait for it.")
    ] = False,
    reclaim_stale: Annotated[
        bool,
        typer.Option(
            "--reclaim-stale",
            help="Also reclaim jobs of runners on other machines from which nothing was heard for 10 minutes.",
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
    notify: NotifyOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the command of each job.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Hand each job to Slurm, as a job of its own.")] = False,
    partition: Annotated[str | None, typer.Option("--partition", help="With --slurm: as of sbatch.")] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="With --slurm: as of sbatch. Before it is over, a job saves, and resumes later."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="With --slurm: each job on so many machines; one if not given.")
    ] = None,
    sbatch_arg: Annotated[
        list[str] | None,
        typer.Option("--sbatch-arg", help="With --slurm: a word for sbatch, such as --mem=32G. May be repeated."),
    ] = None,
) -> None:
    """Run the jobs of the queue, to train or evaluate, one after the other or several at once; or have Slurm run them.

    Exit code 1: a job has failed, or is left because it waits for one that is held or not in the queue, needs more GPUs
    than there are, or because of a pause.
    """
    from accel_trainer.cli.terminal import Terminal
    from accel_trainer.queue.runner import Runner
    from accel_trainer.queue.runner_options import RunnerOptions, nobody_else
    from accel_trainer.queue.slots import Slots
    from accel_trainer.queue.slurm.script import SlurmOptions

    if remembered := allow_for_jobs(queue, allow):
        echo(f"jobs may import {', '.join(remembered)} (`accel-train allow`)", err=True)
    store, launch = _queue_to_run(queue), launch_options(config, num_processes, gpus, cpu=cpu)
    beside_slurm = {
        "--gpus": gpus,
        "--jobs": jobs,
        "--jobs-per-gpu": jobs_per_gpu > 1,
        "--slots": slots,
        "--wait-free": wait_free,
    }
    beside_slurm |= {"--reclaim-stale": reclaim_stale, "--dry-run": dry_run, "--no-start-ahead": not start_ahead}
    for_slurm = {"--partition": partition, "--time": time, "--nodes": nodes, "--sbatch-arg": sbatch_arg}
    targets = notify_targets(notify or ())
    if slurm:
        refuse_options(beside_slurm, "not with --slurm, which decides where and when a job runs")
        never_wait()
        _say_where_paths_count(store)
        report_set_aside(SLURM)
        job_options = SlurmOptions(partition, time, gpus_per_job, nodes or 1, tuple(sbatch_arg or ()))
        _exit_with_outcome(hand_to_slurm(store, launch, job_options, retry_after, targets, watch=watch), queue)
        return
    refuse_options(for_slurm, "only with --slurm")
    if not dry_run:
        launch = ask_for_gpus(launch)
    machine = this_machine(cpu=launch.cpu)
    places = Slots(machine, launch, gpus_per_job=gpus_per_job, jobs_per_gpu=jobs_per_gpu, slots=slots, jobs=jobs)
    if dry_run:
        _print_commands(store, launch, places, machine)
        return
    never_wait()
    _say_where_paths_count(store)
    report_set_aside()
    gpus_in_use = _gpu_memory().occupied if wait_free else nobody_else
    options = RunnerOptions(launch, retry_after, reclaim_stale, start_ahead, gpus_in_use)
    if shares := str(places):
        echo(shares, err=True)
    with notifying(targets, store, Terminal(several=places.number > 1)) as emit:
        runner = Runner(store, machine, emit, options, places)
        runner.run(watch=watch)
        if not runner.stop:
            emit.tell_empty(runner.num_blocked)
    _exit_with_outcome(runner, queue)


def _queue_to_run(folder: Path) -> QueueStore:
    """A queue that there is, or has its usual name; at a terminal, one that is made where that is wanted. Raises
    QueueUnusable: of a name that was mistyped it would be an empty one."""
    if folder != DEFAULT_QUEUE and not _is_there(folder):
        missing = no_queue_in(folder)
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise QueueUnusable(f"{missing}; `accel-train add` makes one")
        if not typer.confirm(f"{missing}\nMake an empty one?"):
            raise typer.Exit(QUEUE_UNUSABLE)
    return QueueStore(folder)


def _say_where_paths_count(store: QueueStore) -> None:
    """Say of a queue that can be used from where its jobs' paths count, if not from here. Raises QueueUnusable."""
    if (home := home_elsewhere()) is not None:
        store.create()
        echo(f"relative paths in its jobs count from {home}, the folder that the queue is in", err=True)


def _is_there(folder: Path) -> bool:
    """Whatever it is. Raises OSError where that cannot be known."""
    try:
        on_disk(folder.lstat, folder)
    except FileNotFoundError:
        return False
    return True


def _gpu_memory() -> "GpuMemory":
    """Raises UserError where nobody can tell whose the memory of GPUs is."""
    from accel_trainer.launch.gpu_memory import GpuMemory
    from accel_trainer.launch.nvidia import answer_of_driver

    GpuMemory(look=answer_of_driver).check()
    return GpuMemory()


def _exit_with_outcome(runner: "Runner | Submitter", queue: Path) -> None:
    """Print what has come of it all, and exit with the code for it."""
    if not (runner.num_run or runner.num_failed or runner.num_blocked or runner.stop):
        echo(f"no jobs in {queue}")
    if runner.stop.signal is not None:
        if not runner.num_run:
            echo("stopped before any job was begun", err=True)
        raise typer.Exit(SIGNALED + runner.stop.signal)
    if runner.num_failed:
        echo("", err=True)
        echo(f"{runner.num_failed} failed; the reasons are in {queue / 'failed'}", err=True)
    if runner.num_failed or runner.num_blocked:
        raise typer.Exit(SOME_FAILED)


def ask_for_gpus(options: LaunchOptions) -> LaunchOptions:
    """At a terminal, without options, and with a choice of GPUs: ask which to use; Enter takes all."""
    if options != LaunchOptions() or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return options
    machine = this_machine()
    if len(machine.gpus) < 2:
        return options
    for gpu in machine.gpus:
        echo(f"  {gpu}")
    while True:
        answer = typer.prompt("GPUs to use (such as 0,1; Enter: all)", default="", show_default=False).strip()
        if not answer:
            return options
        try:
            chosen = launch_options(None, None, answer)
            machine.chosen(chosen.gpus or ())
        except UserError as error:
            echo(with_flags(str(error)))
            continue
        return chosen


def done_parent(job: Job, queue: QueueStore) -> Path | None:
    """What a job starts from that is trained now. Raises UserError if that is a job which is not done."""
    parent = find_parent(job, queue)
    if isinstance(parent, QueuedJob) and parent.state is not JobState.DONE:
        raise UserError(
            f"finetune_args.starting_params: {job.parent_job!r} is {parent.state} in {queue.folder}, not done; "
            "add this job to the queue, where it waits"
        )
    return starting_params(job, queue)


def _print_commands(queue: QueueStore, launch: LaunchOptions, places: "Slots", machine: Machine) -> None:
    """The jobs that can be run, in their order, and why the others cannot."""
    pending = queue.jobs(JobState.PENDING)
    if not pending:
        echo(f"no jobs in {queue.folder}")
    jobs: dict[str, QueueJob] = {}
    trainers: dict[str, str | None] = {}
    is_wrong = False
    for queued in pending:
        try:
            job = read_queue_job(queued.path)
            if isinstance(job, EvaluationJob):
                find_evaluated(job, queue)
                trainers[queued.name] = trainer_of(job, queue)
            else:
                find_parent(job, queue)
            jobs[queued.name] = job
        except UserError as error:
            is_wrong = True
            print_problems(error.problems)
    states = queue.states()
    missing = {name: Requirements.of(job, trainer=trainers.get(name)).missing(states) for name, job in jobs.items()}
    order = in_order([queued for queued in pending if queued.name in jobs], missing)
    for queued in order:
        if missing[queued.name] and isinstance(jobs[queued.name], EvaluationJob):  # how depends on what is trained
            echo(f"{queued.name}: {describe_unmet(missing[queued.name])}", err=True)
            continue
        try:
            echo(_command(queue, queued, jobs[queued.name], launch, places, machine))
        except UserError as error:
            is_wrong = True
            print_problems(error.problems)
    in_a_cycle = cycles(missing)
    left = jobs.keys() - {queued.name for queued in order}
    for queued in (queued for queued in pending if queued.name in left):
        if (problem := in_a_cycle.get(queued.name)) is not None:
            print_problems([f"{queued.path}: {problem}"])
        else:
            echo(f"{queued.name}: {describe_unmet(missing[queued.name])}", err=True)
    if is_wrong or left:
        raise typer.Exit(MISTAKE if is_wrong or in_a_cycle else SOME_FAILED)


def _command(
    queue: QueueStore, queued: QueuedJob, job: QueueJob, launch: LaunchOptions, places: "Slots", machine: Machine
) -> str:
    """How a job will be launched where nothing else runs."""
    from accel_trainer.queue.run_claim import as_it_starts, attempt_of

    job, parent = as_it_starts(job, queue)
    log = queue.paths.logs / f"{queued.name}.log"
    attempt = attempt_of(queue, queued, job, token="", log=log, parent=parent)
    wanted = num_processes_wanted(job, launch)
    if (place := places.fit(wanted)) is None:
        raise UserError(f"{queued.path}: needs {wanted} GPUs; there are {len(places.gpus)}")
    return str(attempt.plan(place.options(launch), place.machine(machine)))


def refuse_options(options: Mapping[str, object], why: str) -> None:
    """Raises UserError for the first of some options that is given."""
    if given := [name for name, value in options.items() if value]:
        raise UserError(f"{given[0]}: {why}")


def hand_to_slurm(
    queue: QueueStore,
    launch: LaunchOptions,
    options: "SlurmOptions",
    retry_after_s: float,
    targets: "Sequence[Target]" = (),
    *,
    watch: bool,
) -> "Submitter":
    """Hand all jobs over, and stay until they are over."""
    from accel_trainer.cli.terminal import Terminal
    from accel_trainer.queue.slurm.submitter import Submitter

    with notifying(targets, queue, Terminal()) as emit:
        submitter = Submitter(queue, launch, options, emit, retry_after_s)
        submitter.run(watch=watch)
        if not submitter.stop:
            emit.tell_empty(submitter.num_blocked)
    if submitter.stop and submitter.has_jobs_in_slurm:
        echo("what was submitted continues in Slurm; `accel-train run-queue --slurm` shows it again")
    return submitter
