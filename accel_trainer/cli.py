"""The command line: each verb parses, calls and prints. Exit codes are decided here and nowhere else.

0 all done, 1 some job failed or could not be run, 2 a mistake in a job or a command, 3 the queue cannot be used, 130
and 143 stopped by a signal.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accel_trainer.config import Job, job_name, read_job
from accel_trainer.config.reading import read_bytes
from accel_trainer.errors import UserError, printable
from accel_trainer.permission import ALLOW_OPTION, ALLOW_VARIABLE, allow_imports
from accel_trainer.queue.launcher import Flags, plan_launch, refuse_missing_gpus, this_machine
from accel_trainer.queue.retries import FIRST_WAIT_S, Retries, submission_of
from accel_trainer.queue.store import JobState, Queue, QueuedJob, QueueUnusable
from accel_trainer.queue.waiting import Needs, cycles, find_parent, in_order, starting_params, words
from accel_trainer.runs import RunFolder, RunState, duration, runs_in
from accel_trainer.verdicts import duplicates, make_check, verdict

if TYPE_CHECKING:
    from accel_trainer.report.tables import Comparison

SOME_FAILED, MISTAKE, QUEUE_UNUSABLE, SIGNALLED = 1, 2, 3, 128

app = typer.Typer(
    help="Drop job files into a folder, train every one of them, compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Files = Annotated[list[Path], typer.Argument(help="Job files (JSON).", show_default=False)]
File = Annotated[Path, typer.Argument(help="Job file (JSON).", show_default=False)]
QueueOption = Annotated[Path, typer.Option("--queue", help="The queue's folder.")]
NamesOption = Annotated[Path, typer.Option("--queue", help="Folder of the queue whose jobs it may start from.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML of `accelerate config`, such as those in accelerate_configs/."),
]
GpusOption = Annotated[str | None, typer.Option("--gpus", help="GPUs to use, such as 0,1.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--num-processes", min=1, help="Processes for each job; one for each GPU if not given."),
]
AllowOption = Annotated[
    str,
    typer.Option(
        ALLOW_OPTION,
        help=f"Packages of yours that jobs may name models of, such as my_lab,other; beside those in {ALLOW_VARIABLE}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
DEFAULT_QUEUE = Path("training_queue")


def main() -> None:
    """The console script: every UserError is one clear line and an exit code, never a traceback."""
    try:
        app()
    except UserError as error:
        _tell(error.problems)
        sys.exit(QUEUE_UNUSABLE if isinstance(error, QueueUnusable) else MISTAKE)
    except KeyboardInterrupt:
        sys.exit(SIGNALLED + 2)


# -- job files ----------------------------------------------------------------------------------------------


@app.command()
def validate(
    files: Files,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    queue: NamesOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Check job files, down to their models and data sets, without training. With --json: one object a line."""
    allow_imports(allow)
    check = make_check(_flags(config, num_processes, gpus))
    num_wrong = 0
    store, coming = Queue(queue), {file.stem for file in files}
    for file in files:
        with redirect_stdout(sys.stderr):  # what a user's model prints is no verdict
            summary, problems = verdict(file, check, store, coming)
        num_wrong += bool(problems)
        if as_json:
            typer.echo(json.dumps({"file": str(file), "problems": problems, "summary": summary}))
            sys.stdout.flush()
            continue
        _tell(problems)
        if summary:
            steps = summary["steps_per_epoch"]
            typer.echo(
                f"{file}: {summary['architecture']} with {summary['parameters']:,} parameters, "
                f"{summary['classes']} classes, {summary['train_images']:,} training images, "
                f"{'batches as large as fit' if steps is None else f'{steps:,} steps per epoch'}, "
                f"{_counted(summary['num_epochs'], 'epoch')}"
            )
    if num_wrong:
        raise typer.Exit(MISTAKE)


@app.command()
def show(file: File) -> None:
    """Print a job with all its defaults filled in."""
    typer.echo(json.dumps(read_job(file).completed(), indent=2))


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", help="File to write; the terminal if not given.")] = None,
) -> None:
    """Print the JSON schema of job files, for editors."""
    from accel_trainer.config.reference import json_schema

    text = json.dumps(json_schema(), indent=2)
    if output is None:
        typer.echo(text)
        return
    _write(output, f"{text}\n".encode())


@app.command()
def models(
    family: Annotated[
        str | None, typer.Option("--family", help="Only this one, such as cornet or resnet.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that a job can name, with their parameters at 1000 classes."""
    from accel_trainer.display import table
    from accel_trainer.zoo import timm_models
    from accel_trainer.zoo.catalogue import catalogue

    rows = [asdict(entry) for entry in catalogue(family)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(table(list(rows[0]), [list(row.values()) for row in rows]))
    if family is None:
        if timm_models.is_installed():
            typer.echo(f"and timm:<name>, such as timm:convnext_tiny, for {len(timm_models.names()):,} models of timm")
        else:
            typer.echo("and timm:<name> for models of timm; it is not installed: pip install 'accel-train[timm]'")


@app.command()
def preview(
    file: File,
    out: Annotated[
        Path | None, typer.Option("--out", help="Picture to write; <job>.png here if not given.", show_default=False)
    ] = None,
    epoch: Annotated[int, typer.Option("--epoch", min=1, help="Epoch to show the first images of.")] = 1,
) -> None:
    """Draw what the model will see: images in rows, their views in columns."""
    from accel_trainer.display import preparation_bar
    from accel_trainer.training.images import preview as draw

    job = read_job(file)
    out = out or Path(f"{job.name}.png")
    with preparation_bar("measuring the spectrum of the images") as progress:
        picture = draw(job, epoch=epoch, progress=progress)
    _write(out, picture)
    typer.echo(f"wrote {out}")


@app.command("make-occluders")
def make_occluders(
    folder: Annotated[Path, typer.Argument(help="Folder to make, an occluder_dir for jobs.", show_default=False)],
    forms: Annotated[str, typer.Option("--forms", help="Forms, such as barHorz04,mudSplash; or all.")] = "all",
    visibility: Annotated[
        str, typer.Option("--visibility", help="How much of the image stays visible, in percent.")
    ] = "10,20,30,40,50,60,70,80,90",
    number: Annotated[int, typer.Option("--number", min=1, help="Masks of each form and visibility.")] = 100,
    size: Annotated[int, typer.Option("--size", min=1, help="Height and width in pixels.")] = 256,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Other masks for another number.")] = 0,
) -> None:
    """Make occluders in the layout of the Visual Occluders Dataset: bars, dots, squares, splashes, leaves.

    All of them, 100 of each, take about 1.1 GB.
    """
    from accel_trainer.data import synthetic_occluders

    chosen = list(synthetic_occluders.FORMS) if forms == "all" else _words(forms)
    if wrong := [word for word in _words(visibility) if not word.isdigit()]:
        raise UserError(f"--visibility: {wrong[0]!r} is not a percentage; give numbers such as 20,40,60")
    levels = [int(word) for word in _words(visibility)]
    synthetic_occluders.make_occluders(folder, chosen, levels, number=number, size=size, seed=seed, told=typer.echo)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


# -- the queue ------------------------------------------------------------------------------------------------


@app.command()
def add(
    files: Files,
    queue: QueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    force: Annotated[bool, typer.Option("--force", help="Also a job whose name or content is in the queue.")] = False,
) -> None:
    """Check job files and put copies of them into the queue."""
    allow_imports(allow)
    store = Queue(queue)
    store.create()
    check = make_check(Flags())
    wrong, coming = False, {file.stem for file in files}
    for file in files:
        _, problems = verdict(file, check, store, coming)
        if not problems and not force:
            problems = duplicates(file, store)
        _tell(problems)
        wrong |= bool(problems)
        if not problems:
            path = store.add(job_name(file), read_bytes(file), replace=force)
            typer.echo(f"added {path}")
    if wrong:
        raise typer.Exit(MISTAKE)


@app.command("run-queue")
def run_queue(
    queue: QueueOption = DEFAULT_QUEUE,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    allow: AllowOption = "",
    watch: Annotated[bool, typer.Option("--watch", help="Wait for more jobs instead of ending.")] = False,
    retry_after: Annotated[
        float,
        typer.Option("--retry-after", min=0, help="Seconds before the first of a job's `retries`, then twice as long."),
    ] = FIRST_WAIT_S,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the command of each job.")] = False,
) -> None:
    """Train the jobs of the queue, one after the other.

    Exit code 1: a job has failed, or is left because it waits for one that has failed, is held or is not in the queue.
    """
    from accel_trainer.display import TerminalWatcher
    from accel_trainer.queue.runner import Runner

    allow_imports(allow)
    flags = _flags(config, num_processes, gpus)
    if dry_run:
        _print_commands(Queue(queue), flags)
        return
    runner = Runner(Queue(queue), _asked(flags), this_machine(), TerminalWatcher(), retry_after_s=retry_after)
    runner.run(watch=watch)
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
    from accel_trainer.display import TerminalWatcher
    from accel_trainer.processes import Owner, StopRequest
    from accel_trainer.queue.attempt import STOP_SIGNALS, Attempt, run_attempt
    from accel_trainer.queue.ending import EndingKind
    from accel_trainer.queue.store import new_log

    allow_imports(allow)
    job = read_job(file)
    flags = _asked(_flags(config, num_processes, gpus))
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
    ending = run_attempt(attempt, flags, this_machine(), stop, watcher)
    watcher.ended(job.name, ending, attempt.log)
    if stop.signal is not None:
        raise typer.Exit(SIGNALLED + stop.signal)
    if ending.kind is not EndingKind.DONE:
        raise typer.Exit(MISTAKE if ending.is_users_mistake else SOME_FAILED)


@app.command()
def status(queue: QueueOption = DEFAULT_QUEUE, as_json: JsonOption = False) -> None:
    """List the jobs of the queue and how far they are."""
    from accel_trainer.display import table

    store = Queue(queue)
    if not store.folder.is_dir():
        raise QueueUnusable(f"there is no queue in {queue}; `accel-train add` makes one")
    states = store.states()
    rows = [_status_row(store, job, states) for state in JobState for job in store.jobs(state)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo(f"no jobs in {queue}")
    else:
        header = ("job", "state", "epoch", "best", "where", "note")
        typer.echo(table(header, [[row[key] for key in header] for row in rows]))


# -- what was trained -------------------------------------------------------------------------------------------


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Print a table of trained runs, and of those that were fine-tuned in their folders."""
    from accel_trainer.report import tables

    rows, problems = [], []
    for path in runs:
        try:
            rows += tables.compare(runs_in(path))
        except UserError as error:
            problems += error.problems
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    elif rows:
        typer.echo(_comparison(rows))
    _tell(problems)
    if problems:
        raise typer.Exit(MISTAKE)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    weights: Annotated[
        str, typer.Option("--weights", help="best, final, ema, swa, or the number of an epoch whose weights are kept.")
    ] = "best",
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Another data set, named as in a job; its val/ is used.", show_default=False),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Where it is, if not where the job says.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Measure trained weights on the validation images of their own or of another data set."""
    from accel_trainer.evaluation.trained import trained_job, trained_weights
    from accel_trainer.processes import StopRequest
    from accel_trainer.queue.attempt import STOP_SIGNALS
    from accel_trainer.queue.errand import NoAnswer, send

    allow_imports(allow)
    folder = RunFolder(run)
    job = trained_job(folder)
    trained_weights(folder, job, weights)  # a mistake is said before processes are started
    place = Path(tempfile.mkdtemp(prefix="accel-train-evaluate-"))
    answer, log = place / "answer.json", place / "log.txt"
    words = [str(run), f"--answer={answer}", f"--weights={weights}"]
    words += [f"--dataset={dataset}"] if dataset is not None else []
    words += [f"--data-root={data_root}"] if data_root is not None else []
    stop = StopRequest()
    stop.listen(*STOP_SIGNALS)
    is_log_of_use = False
    try:
        flags = _flags(config, num_processes, gpus)
        launch = plan_launch(job, flags, this_machine(), words, worker="accel_trainer.evaluation.worker")
        row = send(launch, answer, log, stop)
        is_log_of_use = row is not None and row["corrupt"] > 0
    except NoAnswer as error:
        is_log_of_use = True
        _tell([f"{run}: the evaluation has failed: {error}; all output: {log}"])
        raise typer.Exit(SOME_FAILED) from error
    finally:
        if not is_log_of_use:
            shutil.rmtree(place)
    if stop.signal is not None:
        raise typer.Exit(SIGNALLED + stop.signal)
    if row is None:
        typer.echo("the first machine has the result")
        return
    if is_log_of_use:
        typer.echo(f"{row['corrupt']} corrupt images were left out; their names are in {log}", err=True)
    typer.echo(json.dumps(row) if as_json else _evaluation(row))


def _evaluation(row: Mapping[str, Any]) -> str:
    from accel_trainer.display import table

    loss = None if row["loss"] is None else f"{row['loss']:.4f}"
    return table(list(row), [list({**row, "loss": loss}.values())])


def _comparison(rows: "Sequence[Comparison]") -> str:
    from accel_trainer.display import table

    header = (
        "job",
        "architecture",
        "parameters",
        "state",
        "epochs",
        "metric",
        "best",
        "in epoch",
        "images/s",
        "time",
    )
    cells = [
        [r.job, r.architecture, r.parameters, r.state, f"{r.epochs}/{r.num_epochs}", r.metric, r.best, r.best_epoch,
         r.images_per_s, duration(r.seconds)]
        for r in rows
    ]  # fmt: skip
    return table(header, cells)


# -- what the verbs share ----------------------------------------------------------------------------------------


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _tell(problems: Sequence[str]) -> None:
    for problem in problems:
        typer.echo(printable(f"error: {problem}"), err=True)


def _flags(config: Path | None, num_processes: int | None, gpus: str | None) -> Flags:
    indices = None
    if gpus is not None:
        indices = tuple(part.strip() for part in gpus.split(","))
        if not all(index.isdigit() for index in indices) or len(set(indices)) < len(indices):
            raise UserError(f"--gpus: {gpus!r} is not a list of different numbers such as 0,1")
    return Flags(config, num_processes, indices)


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
            chosen = _flags(None, None, answer)
            refuse_missing_gpus(chosen, machine)
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


def _print_commands(queue: Queue, flags: Flags) -> None:
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
            _tell(error.problems)
    states = queue.states()
    missing = {name: Needs.of(job).missing(states) for name, job in jobs.items()}
    order = in_order([queued for queued in pending if queued.name in jobs], missing)
    for queued in order:
        try:
            typer.echo(_command(queue, queued, jobs[queued.name], flags))
        except UserError as error:
            is_wrong = True
            _tell(error.problems)
    in_a_cycle = cycles(missing)
    left = jobs.keys() - {queued.name for queued in order}
    for queued in (queued for queued in pending if queued.name in left):
        if (problem := in_a_cycle.get(queued.name)) is not None:
            _tell([f"{queued.path}: {problem}"])
        else:
            typer.echo(f"{queued.name}: {words(missing[queued.name])}", err=True)
    if is_wrong or left:
        raise typer.Exit(MISTAKE if is_wrong or in_a_cycle else SOME_FAILED)


def _command(queue: Queue, queued: QueuedJob, job: Job, flags: Flags) -> str:
    """How a job will be launched."""
    from accel_trainer.queue.attempt import Attempt

    attempt = Attempt(
        job=job,
        file=queued.path,
        token="",
        log=queue.logs / f"{queued.name}.log",
        group=queue.folder.resolve().name,
        submission=submission_of(queued.path),
        starting_params=starting_params(job, queue),
    )
    return str(plan_launch(job, flags, this_machine(), attempt.worker_args))


def _status_row(queue: Queue, queued: QueuedJob, states: Mapping[str, JobState]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "job": queued.name,
        "state": queued.state.value,
        "epoch": None,
        "best": None,
        "where": None,
    }
    row["note"] = (queue.reason(queued) or "").split("\n")[0] or None
    if queued.owner is not None:
        row["where"] = queued.owner.host
        row["note"] = "its runner died; run-queue takes it up" if queued.owner.is_dead() else None
    try:
        job = read_job(queued.path, queued.name)
    except UserError:
        return row
    if queued.state is JobState.PENDING:
        row["note"] = _why_pending(queue, queued, job, states)
    said = RunFolder(job.run_path).read_status()
    if said is not None and queued.state in (JobState.RUNNING, JobState.DONE, JobState.FAILED):
        row["epoch"] = f"{said.epoch}/{said.num_epochs}"
        row["best"] = said.best
    return row


def _why_pending(queue: Queue, queued: QueuedJob, job: Job, states: Mapping[str, JobState]) -> str | None:
    if missing := Needs.of(job).missing(states):
        return words(missing)
    if (failures := Retries(queue).of(queued)) is not None:
        return f"has failed and is tried again (retry {failures.number} of {job.retries}): {failures.reason}"
    return None


if __name__ == "__main__":
    main()
