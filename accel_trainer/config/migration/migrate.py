"""From a job of the older program to one of today: every change with its reason, and nothing that is a guess."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accel_trainer.config.file_names import job_name
from accel_trainer.config.job import Job
from accel_trainer.config.job_text import read_bytes, read_text
from accel_trainer.config.migration.draft import ABSENT, Draft
from accel_trainer.config.migration.old_meanings import TODAYS, say_defaults, translate_constants, translate_values
from accel_trainer.config.migration.old_words import OLD_WORDS
from accel_trainer.config.migration.other_meanings import say_other_meanings
from accel_trainer.core.errors import InvalidJob, Problem
from accel_trainer.core.files import expand_path
from accel_trainer.core.text import listed


@dataclass(frozen=True)
class Migration:
    """Today's form of a job. `job`: its parameters, for `Job(**job)` or a file; `changes`: what was changed and why, a
    line each; `notes`: what stays as it is and is worth a look, a line each."""

    job: Mapping[str, Any]
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_todays(self) -> bool:
        """Whether there was nothing to change."""
        return not self.changes


def migrate(old: Mapping[str, Any] | str | os.PathLike[str]) -> Migration:
    """Today's form of a job of the program that this one is modeled on (docs/migrating.md).

    old: the parameters, or the path of a job file, which stays as it is. Migrating what is migrated changes nothing.
    Raises InvalidJob, with a problem for each thing that cannot be translated, and for each mistake that today's job
    would have.
    """
    if isinstance(old, Mapping):
        return _migrated(old, (), where=None, name="job")
    path = expand_path(old)
    return migrate_content(read_bytes(path), job_name(path), where=str(path))


def migrate_content(content: bytes, name: str, where: str) -> Migration:
    """The same for the bytes of a job file, which may have constants, quotes and comments of Python."""
    text = read_text(content, where)
    if text.given is None or (text.problems and text.certain is None):
        raise InvalidJob(*text.problems)
    slips = [f"{problem.message}{f'; {problem.hint}' if problem.hint else ''}" for problem in text.problems]
    return _migrated(text.given, tuple(slips), where=where, name=name)


def _migrated(given: Mapping[str, Any], slips: tuple[str, ...], where: str | None, name: str) -> Migration:
    draft = Draft(given)
    translate_constants(draft)
    old_words = [word for word in OLD_WORDS if draft.get(word.old) is not ABSENT]
    for word in old_words:
        if draft.get(word.old) is not ABSENT:
            word.translate(draft, word)
    todays = sorted(TODAYS.intersection(given))
    is_old = bool(old_words) or not todays
    translate_values(draft, is_old=is_old)
    if is_old:
        say_defaults(draft)
        say_other_meanings(draft)
    elif absent := [key for key in ("batch_size", "eval_crop") if not draft.has(key)]:
        reason = f"{listed(todays, 3)} is of today's program: what the file does not say has today's defaults"
        draft.note(", ".join(absent), f"left out, as {reason}")
    if "name" in given:
        draft.refuse("name", "a job has the name of its file", "remove this key")
    problems = [*draft.refusals, *_mistakes(draft, name)]
    if problems:
        raise InvalidJob(*problems).at(where)
    return Migration(draft.values, (*slips, *map(str, draft.changes)), tuple(map(str, draft.notes)))


def _mistakes(draft: Draft, name: str) -> list[Problem]:
    """What is wrong with today's job, whatever there is on this machine to start from."""
    refused = {problem.key for problem in draft.refusals}
    try:
        Job(**{**draft.values, "name": name})
    except InvalidJob as error:
        return [problem for problem in error.details if problem.key not in refused and problem.key != "finetune"]
    return []
