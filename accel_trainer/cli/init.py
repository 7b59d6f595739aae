"""The verb `init`: a folder to train in, from a few questions, from flags, or with the bundled example."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from accel_trainer.api.job_queue import Queue
from accel_trainer.api.new_folder import (
    BUNDLED,
    DEFAULT_ARCHITECTURE,
    QUEUE,
    Images,
    NewFolder,
    as_file,
    check_architecture,
    example_jobs,
    find_images,
    first_job,
    make_folder,
    name_of,
    next_commands,
    refuse_existing,
)
from accel_trainer.cli.app import app, echo, print_problems, print_warnings
from accel_trainer.cli.completion import architectures
from accel_trainer.cli.job_files import training_line
from accel_trainer.config import Job
from accel_trainer.core.errors import UserError

T = TypeVar("T")
MOST_EPOCHS = 100_000


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder to start in; it is made where there is none.", show_default="the current one")
    ] = Path(),
    example: Annotated[
        bool, typer.Option("--example", help="Two jobs on the bundled digits, which train within a minute.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="The images: a folder with train/ and val/, hf:NAME, or digits, which are bundled.",
            show_default=False,
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            help=f"The model, as `accel-train models` lists them; {DEFAULT_ARCHITECTURE}.",
            autocompletion=architectures,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, max=MOST_EPOCHS, help="How often to go through the images."),
    ] = None,
) -> None:
    """Start a folder with a queue and a job, and say what to type next.

    At a terminal it asks for what no flag says. The job is checked down to its model and images before anything is
    written, and nothing that is there is replaced.
    """
    if example:
        flags = {"dataset": dataset, "architecture": architecture, "epochs": epochs}
        if given := [flag for flag, value in flags.items() if value is not None]:
            raise UserError("not with --example, whose jobs are what they are", option=given[0])
        _tell(folder, make_folder(folder, example_jobs()), list(example_jobs()))
        return
    parameters = asked_parameters(dataset, architecture, epochs)
    name = name_of(parameters)
    file = f"{name}.json"
    refuse_existing(folder, [file])
    echo(f"checking {file}")
    summary = Queue(folder / QUEUE).check(Job(name=name, **parameters))
    print_warnings(summary["warnings"])
    echo(f"{file}: {training_line(summary)}")
    _tell(folder, make_folder(folder, {file: as_file(parameters)}), [file])


def asked_parameters(dataset: str | None, architecture: str | None, epochs: int | None) -> dict[str, Any]:
    """The parameters that flags and answers come to. Raises UserError where there is nobody to ask."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if dataset is None and not is_terminal:
        raise UserError(
            "is needed where there is no terminal to ask at",
            option="dataset",
            hint="give a folder with train/ and val/, or --example for two jobs on bundled images",
        )
    ask = _answer if is_terminal else _default
    images = ask(
        "Where are your images (a folder with train/ and val/, hf:NAME, or digits)?", BUNDLED, dataset, find_images
    )
    model = ask(
        "Which architecture (accel-train models lists them)?",
        DEFAULT_ARCHITECTURE,
        architecture,
        lambda name: _architecture(name, images),
    )
    number = ask("How many epochs?", str(images.epochs), None if epochs is None else str(epochs), _epochs)
    return first_job(images, model, number)


def _answer(question: str, default: str, given: str | None, read: Callable[[str], T]) -> T:
    """What a flag says; else the first answer to a question that is none of the mistakes that `read` raises."""
    while given is None:
        try:
            return read(typer.prompt(question, default=default))
        except UserError as error:
            print_problems(error.problems)
    return read(given)


def _default(question: str, default: str, given: str | None, read: Callable[[str], T]) -> T:
    return read(default if given is None else given)


def _architecture(name: str, images: Images) -> str:
    check_architecture(name.strip(), images.image_size)
    return name.strip()


def _epochs(answer: str) -> int:
    text = answer.strip()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_EPOCHS):
        raise UserError(f"{answer!r} is not a number of epochs, such as 30")
    return int(text)


def _tell(folder: Path, made: NewFolder, jobs: list[str]) -> None:
    """Say what was written, and what to type now."""
    for path in made.kept:
        echo(f"kept {path}, as it was")
    for path in made.written:
        echo(f"wrote {path}")
    commands = next_commands(jobs)
    if os.path.abspath(folder) != str(Path.cwd()):  # noqa: PTH100 - links stay as they are
        commands.insert(0, (f"cd {shlex.quote(str(folder))}", "all of these are typed there"))
    width = max(len(command) for command, _ in commands)
    echo("")
    echo("Next:")
    for command, what in commands:
        echo(f"  {command:{width}}  # {what}")
