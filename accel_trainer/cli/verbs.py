"""All verbs of the command line, and which module has each: only that of the verb which is called is imported."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from accel_trainer.cli.examples import EXAMPLES


@dataclass(frozen=True)
class VerbEntry:
    """Which module has a verb, and what the help of all verbs says of it: a line of LINE characters at most."""

    module: str
    line: str


LINE = 60

# By what a verb is about, in the order of use.
GROUPS = {
    "Jobs": {
        "init": VerbEntry("init", "Start a folder with a queue and a job to begin with."),
        "validate": VerbEntry("job_files", "Check job files, their models and data, without training."),
        "show": VerbEntry("job_files", "Print a job with all its defaults."),
        "preview": VerbEntry("job_files", "Draw what the model will see, augmented as in training."),
        "add": VerbEntry("job_files", "Check job files and put them into the queue."),
        "sweep": VerbEntry("sweep", "Make a job of every combination of some values."),
        "train": VerbEntry("train", "Train one job without the queue."),
        "profile": VerbEntry("profile", "Say where the time of a training goes."),
        "models": VerbEntry("job_files", "List the models that a job can name."),
        "schema": VerbEntry("job_files", "Print the JSON schema of job files, for editors."),
        "migrate": VerbEntry("migrate", "Translate job files of the older program."),
    },
    "Queue": {
        "run-queue": VerbEntry("run_queue", "Train the jobs of the queue, here or in Slurm."),
        "status": VerbEntry("status", "List the jobs: how far they are, where, and why not."),
        "logs": VerbEntry("logs", "Print the output of a job's newest attempt, or another."),
        "wait": VerbEntry("wait", "Wait for jobs to end."),
        "hold": VerbEntry("control", "Keep jobs back; what runs is saved and stopped first."),
        "release": VerbEntry("control", "Let held jobs run again."),
        "cancel": VerbEntry("control", "Give jobs up; what runs is saved and stopped first."),
        "retry": VerbEntry("control", "Put failed or canceled jobs back; they go on."),
        "rm": VerbEntry("control", "Remove jobs from the queue, not what they trained."),
        "move": VerbEntry("control", "Move jobs to another queue."),
        "pause": VerbEntry("control", "Start no more jobs until resume."),
        "resume": VerbEntry("control", "End a pause."),
        "allow": VerbEntry("allow", "Let jobs import models from packages of yours."),
        "reclaim": VerbEntry("control", "Put back jobs whose runners are dead."),
    },
    "Runs": {
        "compare": VerbEntry("compare", "Compare trained runs, or groups of them."),
        "plot": VerbEntry("plot", "Draw curves of runs, or of groups of them."),
        "evaluate": VerbEntry("results", "Evaluate trained weights."),
        "measure": VerbEntry("measure", "Compute figures from trials of models and people."),
        "features": VerbEntry("features", "Write what layers give for images."),
        "probe": VerbEntry("probe", "Learn classes from features, and test."),
        "rdm": VerbEntry("representations", "Write dissimilarity matrices of features."),
        "rsa": VerbEntry("representations", "Compare matrices with those of brains or people."),
        "export": VerbEntry("export", "Write a trained model so that others can load it."),
        "push": VerbEntry("push", "Upload an exported model to the Hugging Face hub."),
        "leet": VerbEntry("leet", "Browse what Weights & Biases has on this disk."),
    },
    "Data": {
        "pack": VerbEntry("pack", "Store a data set small and ready to be read."),
        "degrade": VerbEntry("degrade", "List, draw and write degraded images."),
        "make-occluders": VerbEntry("job_files", "Make occluders as of the Visual Occluders Dataset."),
    },
    "Machine": {
        "doctor": VerbEntry("doctor", "Check libraries, devices, disks and the queue's folder."),
    },
}
MODULES = {verb: entry.module for group in GROUPS.values() for verb, entry in group.items()}

# As the help says it, by a part of typer's name.
PLAIN_TYPES = {"path": "PATH", "file": "PATH", "int": "N", "float": "NUMBER"}

# An application for each verb whose module is imported.
IMPORTED: dict[str, typer.Typer] = {}


class _Commands(Mapping[str, Any]):
    """The commands by the names of their verbs, each made when it is asked for. Who only wants the names, as the hint
    at a mistyped verb does, imports nothing."""

    def __getitem__(self, name: str) -> Any:
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


@cache
def _command(name: str) -> Any:
    """Raises KeyError where there is no such verb."""
    import_module(f".{MODULES[name]}", __package__)
    command: Any = typer.main.get_command(IMPORTED[name])
    command.rich_help_panel, entry = next((group, verbs[name]) for group, verbs in GROUPS.items() if name in verbs)
    command.short_help, command.examples = entry.line, EXAMPLES.get(name, ())
    return command


def with_plain_types(options: list[Any]) -> list[Any]:
    """The same options, whose help says as manuals do of what kind a value is: PATH, TEXT or N; of a flag nothing."""
    for option in options:
        by_typer = type(option).display_type_rich.__get__(option)
        option.display_type_rich = lambda ctx, option=option, by_typer=by_typer: _plain_type(option, by_typer(ctx=ctx))
    return options


def _plain_type(option: Any, by_typer: str | None) -> str | None:
    if getattr(option, "is_flag", False) or by_typer is None:
        return None
    if option.metavar is not None:
        return None if option.param_type_name == "argument" else str(option.metavar)
    kind = next((plain for word, plain in PLAIN_TYPES.items() if word in by_typer.lower()), "TEXT")
    return f"{kind}..." if option.nargs != 1 else kind


class Verbs(TyperGroup):
    """All verbs. One that is called is imported; for the help all are."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # of which none is ever added or taken out

    def get_params(self, ctx: Any) -> list[Any]:
        """Those of typer too: --install-completion, --show-completion and --help."""
        return with_plain_types(super().get_params(ctx))
