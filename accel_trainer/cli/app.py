"""What the verbs of the command line have in common: the application, shared options, exit codes, helpers.

Exit codes: 0 all done, 1 some job failed or could not be run (of doctor: there is a problem), 2 a mistake in a job or a
command, 3 the queue cannot be used, or this machine as the user has set it up, 130 and 143 stopped by a signal.
"""

import errno
import os
import platform
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from itertools import pairwise
from pathlib import Path, PurePath
from threading import Event
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import typer
from typer.core import TyperCommand

from accel_trainer.cli.completion import files_or_names
from accel_trainer.cli.job_lines import with_line
from accel_trainer.cli.queue_home import at_home
from accel_trainer.cli.verbs import IMPORTED, Verbs, with_plain_types
from accel_trainer.core.allow_imports import ALLOW_VARIABLE, allow_imports
from accel_trainer.core.allowed_queues import allowed_for
from accel_trainer.core.disk_calls import on_disk, retrying, watched
from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.files import expand_path, write_atomic
from accel_trainer.core.installed import version_of
from accel_trainer.core.machine_errors import is_scarce, told
from accel_trainer.core.outage import seconds_wanted
from accel_trainer.core.text import did_you_mean, one_line, printable, printable_log
from accel_trainer.queue.layout import JobState, QueuedJob, QueueUnusable
from accel_trainer.queue.store import QueueStore

SOME_FAILED, MISTAKE, QUEUE_UNUSABLE, SIGNALED = 1, 2, 3, 128

# How long a verb that answers at once waits for a disk that is away.
PATIENCE_S = 5.0

Verb = TypeVar("Verb", bound=Callable[..., Any])


class _Application(typer.Typer):
    """An application whose verbs take paths as a shell would read them, and whose errors of the system are one line."""

    def command(
        self, name: str | None = None, *, several: Collection[str] = (), **settings: Any
    ) -> Callable[[Verb], Verb]:
        """Make a function a verb, which has to be in the table of verbs too. The function itself stays as it is.

        several: flags of lists that take all words up to the next flag, such as --degrade in `--degrade noise blur`.
        """

        def make(verb: Verb) -> Verb:
            alone = typer.Typer(add_completion=False)
            alone.command(name, cls=_of_paths(verb, several), **settings)(_as_verb(verb))
            IMPORTED[name or verb.__name__] = alone
            return verb

        return make


def _of_paths(verb: Verb, several: Collection[str] = ()) -> type[TyperCommand]:
    """A command that refuses an empty path, which would mean the current folder: it is that of an unset variable of the
    shell, `--queue="$QUEUE"`. several: as of `command`."""
    paths = {name for name, hint in get_type_hints(verb).items() if "Path" in str(hint)}

    class VerbCommand(TyperCommand):
        examples: Sequence[str] = ()

        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            typer.echo("\n".join([" Examples:", *(f"   accel-train {example}" for example in self.examples), ""]))

        def get_params(self, ctx: Any) -> list[Any]:
            return with_plain_types(super().get_params(ctx))

        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            return ["[OPTIONS]", *(_usage_of(one) for one in self.params if one.param_type_name == "argument")]

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            options = {flag: option.name for option in self.params for flag in option.opts if flag.startswith("-")}
            for before, word in pairwise(["", *args]):
                flag, equals, value = word.partition("=")
                empty = flag if equals and not value else before if not word else None
                if empty is not None and options.get(empty) in paths:
                    raise UserError(f"{empty} is empty: is a variable of the shell not set?")
                if not word and paths and not before.startswith("-"):
                    raise UserError("a path is empty: is a variable of the shell not set?")
            return super().parse_args(ctx, _flag_for_each(args, several))

    return VerbCommand


def _usage_of(argument: Any) -> str:
    """`JOB...`, in brackets where it may be left out."""
    word = str(argument.metavar or argument.name).removesuffix("...").upper()
    word += "..." if argument.nargs != 1 else ""
    return word if argument.required else f"[{word}]"


def _flag_for_each(args: Sequence[str], several: Collection[str]) -> list[str]:
    """`--degrade noise --degrade blur` of `--degrade noise blur`, as click takes them; also of `noise,blur`. Raises
    UserError for a flag without a word."""
    spread, flag = list[str](), ""
    for number, word in enumerate(args):
        if word == "--":
            return [*spread, *args[number:]]
        if word.startswith("-"):
            flag, equals, value = word.partition("=")
            if flag in several and equals:
                spread += [part for one in value.split(",") for part in (flag, one)]
            elif flag not in several:
                spread.append(word)
            elif [*args, "-"][number + 1].startswith("-"):
                raise UserError(f"{flag}: give one word or more after it")
        elif flag in several:
            spread += [part for one in word.split(",") if one for part in (flag, one)]
        else:
            spread.append(word)
    return spread


def _as_verb(verb: Verb) -> Verb:
    @wraps(verb)
    def run(**arguments: Any) -> Any:
        arguments = {name: _expanded(value) for name, value in arguments.items()}
        _arguments_are_read.set()
        try:
            with retrying(min(PATIENCE_S, seconds_wanted()), say=say), at_home(arguments) as meant:
                return verb(**meant)
        except OSError as error:
            raise system_error(error, arguments.get("queue")) from error

    return cast(Verb, run)


def say(line: str) -> None:
    """Print a line beside what a verb prints."""
    with suppress(OSError):
        echo(line, err=True)


# By this a shell asks what completes a word.
COMPLETE_VARIABLE = "_ACCEL_TRAIN_COMPLETE"
# Typer looks at the paths among the arguments.
_arguments_are_read = Event()


@contextmanager
def noting_arguments() -> Iterator[None]:
    """In this context it is said that a path among the arguments is waited for, until a verb begins."""
    if COMPLETE_VARIABLE in os.environ:  # no verb is to begin
        yield
        return
    given = [word for word in sys.argv[2:] if os.sep in word] or [str(DEFAULT_QUEUE)]
    with watched(given[-1], _arguments_are_read):
        yield


def _expanded(value: Any) -> Any:
    """An argument, with `~` and variables of the environment expanded where it is a path. Raises UserError."""
    match value:
        case Path():
            return expand_path(value)
        case list():
            return [_expanded(part) for part in value]
        case _:
            return value


def system_error(error: OSError, queue: Path | None) -> UserError:
    """What the system refuses to a verb, in one line; where it is nothing of the user's, the queue cannot be used."""
    reason = told(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += "; free space, or use another disk"
    places = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    message = ": ".join([*places[:1], reason])
    if is_scarce(error):
        return SetupUnusable(message)
    if queue is None or (places and not any(_is_below(place, queue) for place in places)):
        return UserError(message)
    return QueueUnusable(f"the queue {queue} cannot be used: {message}")


def _is_below(path: str, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are


app = _Application(cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    """This package's version, those of what it trains with, and the devices of this machine."""
    if not wanted:
        return
    from accel_trainer import __version__
    from accel_trainer.launch.machine import this_machine

    machine = this_machine()
    about = [", ".join(f"{name} {version_of(name)}" for name in ("torch", "torchvision", "accelerate"))]
    about += [f"Python {platform.python_version()}"]
    about += [", ".join([gpu.name for gpu in machine.gpus] or ["MPS" if machine.has_mps else "no GPU"])]
    echo(f"accel-train {__version__} ({'; '.join(about)}; {count_of(machine.cores, 'core')})")
    raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print versions and devices, and exit."),
    ] = False,
) -> None:
    """Drop job files into a folder, train every one of them, compare them."""


JobsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Job files, or names of jobs in the queue.",
        metavar="JOB...",
        show_default=False,
        autocompletion=files_or_names,
    ),
]
JobArgument = Annotated[
    str,
    typer.Argument(
        help="Job file, or the name of a job in the queue.",
        metavar="JOB",
        show_default=False,
        autocompletion=files_or_names,
    ),
]
QueueOption = Annotated[Path, typer.Option("--queue", help="The queue's folder.")]
ParentQueueOption = Annotated[
    Path, typer.Option("--queue", help="Folder of the queue with the jobs that this one may start from.")
]
AllowOption = Annotated[
    str,
    typer.Option(
        "--allow-imports",
        help=f"Your packages that jobs may import models from, such as my_lab,other; adds to {ALLOW_VARIABLE}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
DEFAULT_QUEUE = Path("training_queue")


def count_of(number: int, what: str) -> str:
    """'1 epoch', '1,000 epochs'."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def echo(line: object, *, err: bool = False) -> None:
    """Print one line. What is in it of others, such as names and reasons, makes no line of its own and moves no
    cursor."""
    typer.echo(one_line(line), err=err)


def echo_text(text: str) -> None:
    """Print lines that were put together here: tables, whose cells are a line each, and JSON."""
    typer.echo(printable(text))


def echo_log(text: str) -> None:
    """Print a part of a trainer's output, as it is but for what does more to a terminal than color a line or begin it
    again. The terminal's own colors come back at the end."""
    typer.echo(printable_log(text), nl=False, color=True)
    if "\x1b[" in text and sys.stdout.isatty():
        typer.echo("\x1b[0m", nl=False, color=True)


def print_problems(problems: Sequence[str]) -> None:
    """Print problems as errors, one a line, with the flags that they name, and the lines of job files."""
    for problem in problems:
        echo(f"error: {with_line(with_flags(problem))}", err=True)


def print_warnings(lines: Iterable[str]) -> None:
    """Print what is wrong and ends nothing, one a line."""
    for line in lines:
        echo(f"warning: {with_flags(line)}", err=True)


def allow_for_jobs(queue: Path, packages: str) -> list[str]:
    """Let jobs import from these packages, and from those that this user has allowed for their queue, which are given.
    Raises UserError."""
    remembered = allowed_for(queue)
    allow_imports(",".join([packages, *remembered]))
    return remembered


def write_file(path: Path, content: bytes) -> None:
    """Write a file that the user has named: whole or not at all, unless it is a pipe, a device or a link. Raises
    UserError."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_bytes(content)
        else:
            write_atomic(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def existing_queue(folder: Path) -> QueueStore:
    """Raises QueueUnusable where there is none. What killed processes have left half-moved is moved first."""
    store = QueueStore(folder)
    if not on_disk(store.folder.is_dir, store.folder):
        raise QueueUnusable(f"{no_queue_in(folder)}; `accel-train add` makes one")
    with suppress(QueueUnusable):  # what can only be read can be looked at
        store.settle_all()
    return store


def no_queue_in(folder: Path) -> str:
    """That there is none, and the folder beside it that may have been meant."""
    try:
        beside = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:
        beside = []
    return f"there is no queue in {folder}{did_you_mean(folder.name, beside)}"


def find_job(store: QueueStore, name: str, among: Sequence[JobState] = ()) -> QueuedJob:
    """A job by its name; of several, one in these states first. Raises UserError with the nearest name."""
    name = PurePath(name).name.removesuffix(".json")
    for state in among:
        for job in store.jobs(state):
            if job.name == name:
                return job
    if (found := store.find(name)) is None:
        raise UserError(f"{name}: no job of this name is in {store.folder}{did_you_mean(name, store.states())}")
    return found


def job_file(job: str, queue: Path) -> tuple[Path, str | None]:
    """The file of a job that is named by its path, or by its name in a queue, in whatever state; and that name, None
    where it is the file's own. Raises UserError."""
    path = Path(job)
    if "/" in job or path.is_file() or (job.endswith(".json") and not queue.is_dir()):
        return expand_path(path), None
    queued = find_job(existing_queue(queue), job)
    return queued.path, queued.name


_NAMED = re.compile(r"`([a-z][a-z_]*)`")


def with_flags(line: str) -> str:
    """A line of an error with `num_processes` as --num-processes, wherever that is the name of a flag of some verb."""
    if not _NAMED.search(line):  # what a line says of may be that no module can be imported
        return line
    flags = _flags()
    return _NAMED.sub(lambda named: flags.get(named[1], named[0]), line)


@cache
def _flags() -> dict[str, str]:
    """Each flag of the command line by its name in Python: `num_processes` is --num-processes."""
    main = cast(Verbs, typer.main.get_command(app))
    verbs = main.commands.values()
    flags = [flag for verb in verbs for parameter in verb.params for flag in parameter.opts if flag.startswith("--")]
    return {flag.removeprefix("--").replace("-", "_"): flag for flag in flags}
