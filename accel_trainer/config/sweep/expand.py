"""A sweep: one job, and values for some of its parameters, become many jobs, each with a run folder of its own.

Nothing here touches a disk.
"""

import copy
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from accel_trainer.config.derived import ARGUMENTS_OF, default_args
from accel_trainer.config.file_names import MAX_NAME_BYTES, job_name
from accel_trainer.config.job import Job
from accel_trainer.config.parameters import FinetuneParameters
from accel_trainer.config.parse import parse_job
from accel_trainer.config.places import default_path
from accel_trainer.config.problems import MAX_PROBLEMS
from accel_trainer.config.sweep.axes import Settings
from accel_trainer.core.errors import InvalidJob, Problem, UserError
from accel_trainer.core.text import canonical, format_value, shortest_suffixes

MAX_VALUE = 32  # of the characters that a value has in a name
MAX_TAG = 64  # Weights & Biases takes no longer ones


@dataclass(frozen=True)
class Base:
    """What all jobs of a sweep are made from: a job file's content, its name, and where it is."""

    given: Mapping[str, Any]
    name: str
    where: str


@dataclass(frozen=True)
class SweptJob:
    """One job of a sweep, and the content of its file."""

    name: str
    settings: Settings
    content: bytes
    job: Job


@dataclass(frozen=True)
class Remaining:
    """What is not wrong in a job of a sweep that has mistakes. unknown: the parameters that have their defaults
    instead."""

    settings: Settings
    job: Job
    unknown: frozenset[str]


@dataclass
class Expansion:
    """The jobs of a sweep, the mistakes of those that are none, and what is left of these."""

    jobs: list[SweptJob] = field(default_factory=list)
    mistakes: list[tuple[Settings, Problem]] = field(default_factory=list)
    remaining: list[Remaining] = field(default_factory=list)


def expand(base: Base, sweep: str, combinations: Sequence[Settings]) -> Expansion:
    """A job for each combination, or what is wrong with it."""
    found = Expansion()
    for name, settings in zip(job_names(sweep, combinations), combinations, strict=True):
        given: dict[str, Any] | None = None
        try:
            given = _given(base, sweep, name, settings)
            content = f"{json.dumps(given, indent=2, ensure_ascii=False)}\n".encode()
            found.jobs.append(SweptJob(name, settings, content, parse_job(content, name, base.where)))
        except UserError as error:
            found.mistakes += [(settings, problem) for problem in error.details]
            if given is not None and (rest := Job.of_remaining({**given, "name": name}, error.details)) is not None:
                found.remaining.append(Remaining(settings, *rest))
    return found


def swept_jobs(base: Base, sweep: str, combinations: Sequence[Settings]) -> list[SweptJob]:
    """A job for each combination. Raises UserError with a line for each mistake, if there is one in any of them."""
    found = expand(base, sweep, combinations)
    if found.mistakes:
        raise InvalidJob(*group_problems(base.where, found.mistakes))
    return found.jobs


def _given(base: Base, sweep: str, name: str, settings: Settings) -> dict[str, Any]:
    given = copy.deepcopy(dict(base.given))
    for key in sorted(settings, key=lambda key: key.count(".")):  # an optimizer before its arguments
        _put(given, key, settings[key])
    _assign_run_folder(given, base.name, name)
    _assign_group(given, sweep, settings)
    return given


def group_problems(where: str, mistakes: Sequence[tuple[Settings, Problem]]) -> list[Problem]:
    """Each problem once, in the first combination that has it, with how many others do."""
    counts = Counter(replace(problem, where=None) for _, problem in mistakes)
    first: dict[Problem, Settings] = {}
    for settings, problem in mistakes:
        first.setdefault(replace(problem, where=None), settings)
    grouped = []
    for problem, number in counts.items():
        others = f" (and {number - 1} more)" if number > 1 else ""
        grouped.append(replace(problem, where=f"{where} with {_assignments(first[problem])}{others}"))
    return grouped if len(grouped) <= MAX_PROBLEMS else [*grouped[:MAX_PROBLEMS], Problem("and more mistakes")]


def _assignments(settings: Settings) -> str:
    return ", ".join(f"{key}={format_value(value)}" for key, value in settings.items())


# -- the content of a job of a sweep ---------------------------------------------------------------------------------


def _put(given: dict[str, Any], key: str, value: Any) -> None:
    """Set a value inside nested objects; one that is absent is made, with the defaults that the job would have."""
    top, *inner = key.split(".")
    if not inner:
        given[top] = value
        return
    if given.get(top) is None and top in ARGUMENTS_OF:
        given[top] = default_args(top, given)
    place, path = given, top
    for name, following in zip((top, *inner[:-1]), inner, strict=True):
        if place.get(name) is None or isinstance(place[name], bool):  # `cutmix: true` is an object with its defaults
            place[name] = {}
        if not isinstance(place[name], dict):
            message = f"{format_value(place[name])} is no object {{...}} in which {following} could be set"
            raise InvalidJob(message, key=path)
        place, path = place[name], f"{path}.{following}"
    place[inner[-1]] = value


def _assign_run_folder(given: dict[str, Any], base_name: str, name: str) -> None:
    """Jobs may never share a run folder. By default it has the job's name; one that is given gets one inside.

    With `finetune` model_dir may be where the weights come from: then it stays, and finetune_dir has the folder inside.
    What is no text or object is left to be refused.
    """
    model_dir = given.get("model_dir")
    if given.get("finetune") is not True:
        if isinstance(model_dir, str) and model_dir:
            given["model_dir"] = str(PurePath(model_dir, name))
        return
    args = given.get("finetune_args") or {}
    if not isinstance(args, dict) or (model_dir is None and args.get("starting_params") is not None):
        return
    if model_dir is None:
        given["model_dir"] = str(default_path(str(given.get("architecture")), base_name))
    folder = args.get("finetune_dir")
    folder = FinetuneParameters().finetune_dir if folder is None else folder
    if isinstance(folder, str) and folder:
        given["finetune_args"] = {**args, "finetune_dir": str(PurePath(folder, name))}


def _assign_group(given: dict[str, Any], sweep: str, settings: Settings) -> None:
    """One group in Weights & Biases for the sweep, of that job type, with a tag for each of its values."""
    section = given.get("wandb") or {}
    tags = (section.get("tags") or []) if isinstance(section, dict) else None
    if not isinstance(tags, list):  # is refused
        return
    labels = shortest_suffixes(settings)
    own = [_tag(sweep), *(_tag(f"{labels[key]}={format_value(value)}") for key, value in settings.items())]
    tags = [*tags, *(tag for tag in own if tag not in tags)]
    group = section.get("group") if "wandb.group" in settings or "wandb" in settings else None
    given["wandb"] = {"job_type": "sweep", **section, "group": group or sweep, "tags": tags}


def _tag(text: str) -> str:
    """Of a long one the beginning, and what distinguishes it from others that begin like it."""
    ending = f"~{_digest(text)}"
    return text if len(text) <= MAX_TAG else text[: MAX_TAG - len(ending)] + ending


# -- names -------------------------------------------------------------------------------------------------------


def check_sweep_name(name: str) -> str:
    """The name of a sweep, with which those of its jobs begin. Raises UserError."""
    if "/" in name or not name:
        raise UserError(f"{name!r} begins the names of job files", hint="use a name such as lr-search")
    return job_name(Path(f"{name}.json"))


def job_names(sweep: str, combinations: Sequence[Settings]) -> list[str]:
    """`<sweep>-lr0.1-seed2`: a name for each combination that is valid for a file and unlike all others.

    It follows from what varies and from the combination, so that more values later leave the names as they are; but
    for those that some file system would take for one, which have a hash.
    """
    names = [_name(sweep, settings) for settings in combinations]
    alike = Counter(map(_folded, names))
    return [
        name if alike[_folded(name)] == 1 else _marked(name, settings)
        for name, settings in zip(names, combinations, strict=True)
    ]


def _folded(name: str) -> str:
    """What names have in common that are one file on some systems."""
    return unicodedata.normalize("NFC", name.casefold())


def _name(sweep: str, settings: Settings) -> str:
    labels = shortest_suffixes(settings)
    name = "-".join([sweep, *(_part(_filed(labels[key]), value) for key, value in settings.items())])
    return name if len(os.fsencode(name)) <= MAX_NAME_BYTES else _marked(name, settings)


def _marked(name: str, settings: Settings) -> str:
    """A name with the hash of its combination at the end, cut before that to what a name may have."""
    ending = f"-{_digest(settings)}"
    return os.fsencode(name)[: MAX_NAME_BYTES - len(ending)].decode(errors="ignore") + ending


def _part(label: str, value: Any) -> str:
    """`lr0.1`, `optimizer_AdamW`, `ssnrs0.2_0.4`; with a hash where that is not all of the value."""
    text, is_whole = _text(value)
    if not is_whole:
        text = f"{text}_{_digest(value)}" if text else _digest(value)
    is_number = text[:1] in tuple("-0123456789") and is_whole
    return f"{label}{text}" if is_number and not label[-1].isdigit() else f"{label}_{text}"


def _text(value: Any) -> tuple[str, bool]:
    """A value as it stands in a name, and whether that is all of it."""
    match value:
        case dict() | []:
            return "", False
        case list():
            parts = [("", False) if isinstance(part, list) else _text(part) for part in value]
            text, is_whole = "_".join(text for text, _ in parts), all(whole for _, whole in parts)
        case _:
            text = _filed(format_value(value))
            is_whole = text == format_value(value) and text != ""
    return text[:MAX_VALUE], is_whole and len(text) <= MAX_VALUE


def _filed(text: str) -> str:
    """Without what a file system, a shell or the queue gives a meaning to."""
    return re.sub(r"[^\w.+-]|\.\.+", "_", text)


def _digest(value: Any) -> str:
    return hashlib.blake2b(canonical(value).encode(), digest_size=4).hexdigest()
