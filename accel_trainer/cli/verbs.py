"""All verbs of the command line, and which module has each: only that of the verb which is called is imported."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

# In the order of the help. What a verb does is said by its own docstring.
MODULES = {
    "hold": "control",
    "release": "control",
    "cancel": "control",
    "retry": "control",
    "rm": "control",
    "move": "control",
    "pause": "control",
    "resume": "control",
    "reclaim": "control",
    "doctor": "doctor",
    "degrade": "degrade",
    "validate": "job_files",
    "show": "job_files",
    "schema": "job_files",
    "models": "job_files",
    "preview": "job_files",
    "make-occluders": "job_files",
    "add": "job_files",
    "measure": "measure",
    "migrate": "migrate",
    "pack": "pack",
    "profile": "profile",
    "compare": "compare",
    "evaluate": "results",
    "features": "features",
    "probe": "probe",
    "leet": "leet",
    "rdm": "representations",
    "rsa": "representations",
    "run-queue": "run_queue",
    "sweep": "sweep",
    "train": "train",
    "status": "watch",
    "logs": "watch",
    "wait": "watch",
}

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
    return typer.main.get_command(IMPORTED[name])


class Verbs(TyperGroup):
    """All verbs. One that is called is imported; for the help all are."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # of which none is ever added or taken out
