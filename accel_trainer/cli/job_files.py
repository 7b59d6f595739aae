"""The verbs for job files and what they can name."""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from accel_trainer.api.job_queue import Queue
from accel_trainer.api.verdicts import make_check, verdict
from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    AllowOption,
    ConfigOption,
    File,
    Files,
    GpusOption,
    JsonOption,
    ParentQueueOption,
    ProcessesOption,
    QueueOption,
    app,
    count_of,
    launch_options,
    print_problems,
    write_file,
)
from accel_trainer.cli.flags import with_flags
from accel_trainer.config import read_job
from accel_trainer.core.allow_imports import allow_imports
from accel_trainer.core.errors import UserError
from accel_trainer.queue.layout import QueueUnusable
from accel_trainer.queue.store import QueueStore


@app.command()
def validate(
    files: Files,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    queue: ParentQueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Check job files, down to their models and data sets, without training. With --json: one object a line."""
    allow_imports(allow)
    check = make_check(launch_options(config, num_processes, gpus))
    num_wrong = 0
    store, coming = QueueStore(queue), {file.stem for file in files}
    for file in files:
        with redirect_stdout(sys.stderr):  # what a user's model prints is no verdict
            summary, problems = verdict(file, check, store, coming)
        problems = [with_flags(problem) for problem in problems]
        num_wrong += bool(problems)
        if as_json:
            typer.echo(json.dumps({"file": str(file), "problems": problems, "summary": summary}))
            sys.stdout.flush()
            continue
        print_problems(problems)
        if summary:
            steps = summary["steps_per_epoch"]
            typer.echo(
                f"{file}: {summary['architecture']} with {summary['parameters']:,} parameters, "
                f"{summary['classes']} classes, {summary['train_images']:,} training images, "
                f"{'batches as large as fit' if steps is None else f'{steps:,} steps per epoch'}, "
                f"{count_of(summary['num_epochs'], 'epoch')}"
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
    from accel_trainer.config.schema import json_schema

    text = json.dumps(json_schema(), indent=2)
    if output is None:
        typer.echo(text)
        return
    write_file(output, f"{text}\n".encode())


@app.command()
def models(
    family: Annotated[
        str | None, typer.Option("--family", help="Only this one, such as cornet or resnet.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that a job can name, with their parameters at 1000 classes."""
    from accel_trainer.cli.tables import table
    from accel_trainer.zoo import timm_models
    from accel_trainer.zoo.registry import catalogue

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
    from accel_trainer.cli.progress import preparation_bar
    from accel_trainer.data.preview import preview as draw

    job = read_job(file)
    out = out or Path(f"{job.name}.png")
    with preparation_bar("measuring the spectrum of the images") as progress:
        picture = draw(job, epoch=epoch, progress=progress)
    write_file(out, picture)
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
    from accel_trainer.data.occluders import synthetic

    chosen = list(synthetic.FORMS) if forms == "all" else _words(forms)
    if wrong := [word for word in _words(visibility) if not word.isdigit()]:
        raise UserError(f"--visibility: {wrong[0]!r} is not a percentage; give numbers such as 20,40,60")
    levels = [int(word) for word in _words(visibility)]
    synthetic.make_occluders(folder, chosen, levels, number=number, size=size, seed=seed, report=typer.echo)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


@app.command()
def add(
    files: Files,
    queue: QueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    force: Annotated[bool, typer.Option("--force", help="Also a job whose name or content is in the queue.")] = False,
) -> None:
    """Check job files and put copies of them into the queue."""
    allow_imports(allow)
    target, wrong, coming = Queue(queue), False, {file.stem for file in files}
    for file in files:
        try:
            typer.echo(f"added {target.add(file, force=force, coming=coming)}")
        except QueueUnusable:
            raise
        except UserError as error:
            print_problems(error.problems)
            wrong = True
    if wrong:
        raise typer.Exit(MISTAKE)
