"""The verbs for job files and for what they can name: models, occluders, the inputs that a job gives."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from accel_trainer.api.job_queue import Queue
from accel_trainer.api.queue_contents import AlreadyQueued
from accel_trainer.api.verdicts import optimization_lines
from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    AllowOption,
    JobArgument,
    JobsArgument,
    JsonOption,
    ParentQueueOption,
    QueueOption,
    allow_for_jobs,
    app,
    count_of,
    echo,
    echo_text,
    job_file,
    print_problems,
    print_warnings,
    with_flags,
    write_file,
)
from accel_trainer.cli.job_lines import with_line
from accel_trainer.cli.launching import (
    ConfigOption,
    CpuOption,
    DataRootOption,
    DegradedSetOption,
    DegradeOption,
    GpusOption,
    OccludersOption,
    ProcessesOption,
    WeightsOption,
    launch_options,
    plan_of_options,
)
from accel_trainer.cli.queue_home import in_typed_folder
from accel_trainer.config import EvaluationJob, Job, read_job, read_queue_job
from accel_trainer.config.diff import Changes, values
from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.command import LaunchOptions, num_processes_wanted
from accel_trainer.launch.machine import this_machine


@app.command()
def validate(
    jobs: JobsArgument,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    queue: ParentQueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Check jobs, including their models and data sets, without training. With --json: one object per line."""
    allow_for_jobs(queue, allow)
    options = launch_options(config, num_processes, gpus, cpu=cpu)
    _warn_of_default(options)
    target, coming = Queue(queue, options), {Path(job).stem for job in jobs if job.endswith(".json")}
    num_invalid, folders = 0, target.run_folders()
    for given in jobs:
        summary: dict[str, Any] | None = None
        problems: list[str] = []
        warnings: list[str] = []
        file = Path(given)
        try:
            file, name = job_file(given, queue)
            summary = target.check(file if name is None else read_queue_job(file, name), coming=coming)
            warnings = [f"{file}: {warning}" for warning in summary.pop("warnings")]
            job = read_queue_job(file, name)
            problems = [f"{file}: {problem}" for problem in folders.problems(job)]
            folders.note(job, f"in {file}")
        except SetupUnusable:
            raise
        except UserError as error:
            problems = [with_line(with_flags(problem)) for problem in error.problems]
        num_invalid += bool(problems)
        if as_json:
            echo_text(json.dumps({"file": str(file), "problems": problems, "warnings": warnings, "summary": summary}))
            sys.stdout.flush()
            continue
        print_problems(problems)
        print_warnings(warnings)
        if summary and "evaluates" in summary:
            echo(f"{file}: {_evaluation_line(summary)}")
        elif summary:
            echo(f"{file}: {training_line(summary)}")
            echo(f"  optimizer {summary['optimizer']}")
            echo(f"  schedule {summary['schedule']}")
            for note in summary["data"]:
                echo(f"{file}: {note}")
    if num_invalid:
        raise typer.Exit(MISTAKE)


def training_line(summary: Mapping[str, Any]) -> str:
    """What a checked job that trains comes to."""
    steps = summary["steps_per_epoch"]
    return (
        f"{summary['architecture']} with {summary['parameters']:,} parameters, "
        f"{summary['classes']} classes, {summary['train_images']:,} training images, "
        f"{'batches as large as fit' if steps is None else f'{steps:,} steps per epoch'}, "
        f"{count_of(summary['num_epochs'], 'epoch')}, {summary['val_images']:,} validation images"
    )


def _evaluation_line(summary: Mapping[str, Any]) -> str:
    what = f"evaluates the {summary['weights']} weights of {summary['evaluates']}"
    waits = "" if summary["waits_for"] is None else f", when job {summary['waits_for']!r} is done"
    images = "" if summary["images"] is None else f" on {count_of(summary['images'], 'image')}"
    images += "" if summary["conditions"] == 1 else f" under {summary['conditions']} conditions"
    return f"{what}{images}{waits}; results in evaluations/{summary['evaluation']}"


def _warn_of_default(options: LaunchOptions) -> None:
    """Jobs that are valid may not be launched on this machine all the same."""
    if options.config is None:
        try:
            num_processes_wanted(Job(architecture="resnet18"), options, this_machine(cpu=options.cpu))
        except UnusableHere as error:
            print_warnings([f"no job can be launched on this machine: {error}"])


@app.command()
def show(job: JobArgument, queue: QueueOption = DEFAULT_QUEUE) -> None:
    """Print a job with all its defaults filled in; beside it, on standard error, what it says that is no default, its
    run folder, what optimizer and learning rates it comes to, and how many images and classes its data set has, where
    that is seen at once."""
    shown = read_queue_job(*job_file(job, queue))
    echo_text(json.dumps(shown.completed(), indent=2))
    sys.stdout.flush()
    if isinstance(shown, EvaluationJob):
        return
    echo(f"not the default: {values(_own(shown)) or 'nothing but the architecture'}", err=True)
    echo(f"run folder {shown.run_path.absolute()}", err=True)
    try:
        optimizer, schedule = optimization_lines(shown)
        typer.echo(f"optimizer {optimizer}", err=True)
        typer.echo(f"schedule {schedule}", err=True)
    except UserError as error:
        print_problems(error.problems)
    from accel_trainer.data.overview import describe_data

    for number, line in enumerate(describe_data(shown)):
        echo(f"{'' if number else 'data '}{line}", err=True)


def _own(job: Job) -> Changes:
    """What is not as in a job that names the architecture alone."""
    defaults, own = Job(architecture=job.architecture).completed(), job.completed()
    if not job.says("model_dir"):
        own["model_dir"] = defaults["model_dir"]  # it follows from the name
    return {key: (defaults[key], own[key]) for key in defaults if key != "name" and own[key] != defaults[key]}


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", help="File to write; by default the terminal.")] = None,
) -> None:
    """Print the JSON schema of job files, for editors, with the names of models, optimizers and the like of this
    installation."""
    from accel_trainer.api.known_names import known_names
    from accel_trainer.config.schema import json_schema

    text = json.dumps(json_schema(known_names()), indent=2)
    if output is None:
        echo_text(text)
        return
    write_file(output, f"{text}\n".encode())


@app.command()
def models(
    family: Annotated[
        str | None, typer.Option("--family", help="Only this family, such as cornet or resnet.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that a job can name, with their numbers of parameters for 1000 classes."""
    from accel_trainer.cli.tables import table
    from accel_trainer.zoo import timm_models
    from accel_trainer.zoo.registry import catalogue

    rows = [asdict(entry) for entry in catalogue(family)]
    if as_json:
        echo_text(json.dumps(rows, indent=2))
        return
    echo_text(table(list(rows[0]), [list(row.values()) for row in rows]))
    if family is None:
        if timm_models.is_installed():
            echo(f"and timm:<name>, such as timm:convnext_tiny, for {len(timm_models.names()):,} models of timm")
        else:
            echo("and timm:<name> for models of timm; it is not installed: pip install 'accel-train[timm]'")


@app.command()
def preview(
    job: JobArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Picture to write; by default <job>.png in the current folder.", show_default=False),
    ] = None,
    epoch: Annotated[int, typer.Option("--epoch", min=1, help="Epoch whose first images are drawn.")] = 1,
    queue: QueueOption = DEFAULT_QUEUE,
) -> None:
    """Draw the inputs of the model, augmented as in training: images in rows, their views in columns."""
    from accel_trainer.cli.progress import preparation_bar
    from accel_trainer.data.preview import preview as draw
    from accel_trainer.run.folder import RunFolder
    from accel_trainer.run.rules import as_its_run_goes_on

    parsed = read_job(*job_file(job, queue))
    parsed = as_its_run_goes_on(parsed, RunFolder(parsed.run_path))
    out = out or in_typed_folder(f"{parsed.name}.png")
    with preparation_bar("measuring the spectrum of the images") as progress, waiting_out_until_interrupted():
        picture = draw(parsed, epoch=epoch, progress=progress)
    write_file(out, picture)
    echo(f"wrote {out}")


@app.command("make-occluders")
def make_occluders(
    folder: Annotated[Path, typer.Argument(help="Folder to create; the occluder_dir of jobs.", show_default=False)],
    forms: Annotated[
        str, typer.Option("--forms", help="Forms to make, such as horizontal_bars_04,mud_splash; or all.")
    ] = "all",
    visibility: Annotated[
        str, typer.Option("--visibility", help="How much of the image stays visible, in percent.")
    ] = "10,20,30,40,50,60,70,80,90",
    number: Annotated[
        int, typer.Option("--number", min=1, help="Number of masks of each form at each visibility.")
    ] = 100,
    size: Annotated[int, typer.Option("--size", min=1, help="Height and width of a mask in pixels.")] = 256,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed: another number gives other masks.")] = 0,
) -> None:
    """Make occluders in the layout of the Visual Occluders Dataset: bars, dots, lines, shapes, splashes, noise, leaves.

    All 32 forms, 100 masks of each at each visibility, take about 2.1 GB.
    """
    from accel_trainer.data.occluders import synthetic

    chosen = list(synthetic.TODAYS_FORMS) if forms == "all" else _items(forms)
    if wrong := [item for item in _items(visibility) if not item.isdigit()]:
        raise UserError(f"--visibility: {wrong[0]!r} is not a percentage; give numbers such as 20,40,60")
    levels = [int(item) for item in _items(visibility)]
    synthetic.make_occluders(folder, chosen, levels, number=number, size=size, seed=seed, report=echo)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


@app.command(several=("--degrade",))
def add(
    files: Annotated[
        list[Path],
        typer.Argument(help="Job files (JSON); with --evaluate: runs.", metavar="FILES...", show_default=False),
    ],
    queue: QueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Add a job even if its name, content or run folder is that of another in the queue."
        ),
    ] = False,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Add a job that evaluates each run: a run folder, or a job that is waited for.",
        ),
    ] = False,
    weights: WeightsOption = "best",
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Another data set, named as in a job.", show_default=False)
    ] = None,
    data_root: DataRootOption = None,
    degrade: DegradeOption = None,
    degraded_set: DegradedSetOption = None,
    occluder_dir: OccludersOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Of the evaluation: its folder below evaluations/.", show_default=False),
    ] = None,
) -> None:
    """Check job files and copy them into the queue; or make jobs there that evaluate runs."""
    allow_for_jobs(queue, allow)
    target, coming = Queue(queue), {file.stem for file in files}
    given: dict[str, Any] = {"weights": weights, "dataset": dataset, "name": name}
    given |= {"data_root": data_root and str(data_root), "occluder_dir": occluder_dir and str(occluder_dir)}
    given |= {"degradations": degrade, "degraded_set": degraded_set and str(degraded_set.resolve())}
    if evaluate:
        plan = plan_of_options(**given)
        _add_each(files, lambda run: target.add_evaluation(run, plan, force=force))
        return
    given["weights"] = None if weights == "best" else weights
    given["degrade"] = given.pop("degradations")
    if unused := [option for option, value in given.items() if value is not None]:
        raise UserError("is of an evaluation: add --evaluate", option=unused[0])
    _add_each(files, lambda file: target.add(file, force=force, coming=coming, warn=_warn))


def _add_each(given: Sequence[Path], put: Callable[[Path], Path]) -> None:
    wrong = False
    for one in given:
        try:
            echo(f"added {put(one)}")
        except SetupUnusable:
            raise
        except AlreadyQueued as error:
            echo(with_flags(str(error)))
        except UserError as error:
            print_problems([with_flags(problem) for problem in error.problems])
            wrong = True
    if wrong:
        raise typer.Exit(MISTAKE)


def _warn(line: str) -> None:
    print_warnings([line])
