"""What pydantic finds wrong with a job, as one problem for each parameter, in the terms of a job file."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from accel_trainer.config.cross_checks import Contradiction
from accel_trainer.config.derived import JobParameters
from accel_trainer.config.fields import SectionMistakes
from accel_trainer.config.marks import sections_in
from accel_trainer.config.migration.old_words import MIGRATE, old_word_at
from accel_trainer.core.errors import Problem
from accel_trainer.core.text import did_you_mean, near_misses

# Of what is reported of a file: mistakes, and characters of each.
MAX_PROBLEMS, MAX_LINE = 20, 1000
# Names that people look for at the top.
BELONGS_INTO = {
    **dict.fromkeys(("lr", "learning_rate", "momentum", "weight_decay", "nesterov", "betas"), "optimizer_args"),
    **dict.fromkeys(("step_size", "gamma", "T_max", "milestones", "patience"), "scheduler_args"),
    **dict.fromkeys(("label_smoothing", "temperature"), "criterion_args"),
}
# How pydantic names the alternatives of a union in the path of an error.
TYPE_NAMES = ("int", "float", "bool", "str", "list")


def few_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, and no more of them, and no longer ones, than a person reads."""
    some = [_shortened(problem) for problem in first_problems(problems)]
    some[MAX_PROBLEMS:] = [Problem("and more mistakes", some[0].where)] if len(some) > MAX_PROBLEMS else []
    return list(dict.fromkeys(some))


def first_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Those that are reported, and one more where there are more: of thousands no others are looked for."""
    return list(islice(problems, MAX_PROBLEMS + 1))


def _shortened(problem: Problem) -> Problem:
    if (excess := len(str(problem)) - MAX_LINE) <= 0:
        return problem
    return replace(problem, message=f"{problem.message[: max(0, len(problem.message) - excess)]}...")


def problems_of(error: ValidationError, whole: type[BaseModel] = JobParameters) -> Iterator[Problem]:
    """One for each parameter that is wrong, however many alternatives pydantic tried for it. whole: what was read; of
    a job, words of older files are known too."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        by_key.setdefault(_key(detail), []).append(detail)
    for key in sorted(by_key, key=len, reverse=True):
        # The alternatives of a union fail at different depths: one mistake, one line.
        above = next((key[:i] for i, character in enumerate(key) if character == "." and key[:i] in by_key), None)
        if above is not None:
            by_key[above] += by_key.pop(key)
    unknown = {key: details for key, details in by_key.items() if details[0]["type"] == "extra_forbidden"}
    # The most specific first: a word that nobody knows, then a value of a known one.
    for key, details in sorted(by_key.items(), key=lambda item: item[1][0]["type"] != "extra_forbidden"):
        if details[0]["type"] == "missing" and any(_is_meant(whole, key, *other) for other in unknown.items()):
            continue  # it is there, by another name
        contradictions = [found for detail in details for found in _contradictions(detail)]
        if (old := _old_word(whole, key, details)) is not None:
            yield old
        else:
            yield from contradictions or [Problem(sentence, key=key or None) for sentence in _sentences(whole, details)]


def _is_meant(whole: type[BaseModel], place: str, key: str, details: list[ErrorDetails]) -> bool:
    """Whether an unknown key is meant for a place, where that is known or probable. A file may have thousands: what is
    not near that place is not compared with all others."""
    if whole is JobParameters and (word := old_word_at(key)) is not None:
        return place in word.places
    (*outer, last), (*above, name) = key.rpartition("."), place.rpartition(".")
    if outer != above or not near_misses(last, [name]):
        return False
    return near_misses(last, _known_keys(whole, details[0]["loc"][:-1]))[:1] == [name]


def _old_word(whole: type[BaseModel], key: str, details: list[ErrorDetails]) -> Problem | None:
    """What an unknown key has become, where it is of older files."""
    if whole is not JobParameters or details[0]["type"] != "extra_forbidden":
        return None
    if (word := old_word_at(key)) is not None:
        return Problem(f"a word of older files; it {word.became}", key=key, hint=f"{MIGRATE} writes today's job")
    return None


def _key(detail: ErrorDetails) -> str:
    """`optimizer_args.lr` rather than pydantic's path, which names the alternatives of a union too."""
    first, rest = detail["loc"][:1], detail["loc"][1:]
    last: tuple[int | str, ...] = ()
    if detail["type"] == "extra_forbidden" and rest:  # the user's own key, whatever is in it
        rest, last = rest[:-1], rest[-1:]
    inner = [p for p in rest if isinstance(p, int) or (p.isidentifier() and p not in TYPE_NAMES)]
    return ".".join(str(part) if part != "" else '""' for part in (*first, *inner, *last))


def is_contradiction(detail: ErrorDetails) -> bool:
    """Whether an error is of the cross-checks of a whole job, which come after all others."""
    return bool(_contradictions(detail))


def _contradictions(detail: ErrorDetails) -> tuple[Problem, ...]:
    """What the cross-checks of a whole job have found."""
    match detail.get("ctx"):
        case {"error": Contradiction(problems=problems)}:
            return problems
        case _:
            return ()


def _sentences(whole: type[BaseModel], details: list[ErrorDetails]) -> Sequence[str]:
    match details[0].get("ctx"):
        case {"error": SectionMistakes(messages=messages)}:
            return messages
        case _:
            return [_sentence(whole, details)]


def _sentence(whole: type[BaseModel], details: list[ErrorDetails]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return "missing; it has no default"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        if whole is JobParameters and len(first["loc"]) == 1 and (place := BELONGS_INTO.get(key)):
            return f"unknown key; it belongs into {place}"
        return f"unknown key{did_you_mean(key, _known_keys(whole, first['loc'][:-1]))}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    expected = " or ".join(dict.fromkeys(_expectation(detail) for detail in details))
    value = json.dumps(first["input"], default=str)
    near = did_you_mean(first["input"], _literals(whole, details)) if isinstance(first["input"], str) else ""
    return f"{value if len(value) < 80 else value[:77] + '...'} is not allowed: {expected}{near}"


def _expectation(detail: ErrorDetails) -> str:
    message = re.sub(r"a valid dictionary or instance of \w+", "an object {...}", detail["msg"])
    return (
        message.replace("Input should be", "it should be")
        .replace("a valid integer", "an integer")
        .replace("valid ", "")
    )


def _literals(whole: type[BaseModel], details: Iterable[ErrorDetails]) -> list[str]:
    """The texts that the field of an error allows, where it allows only some."""
    locations = [detail["loc"] for detail in details if detail["type"] == "literal_error"]
    return list(dict.fromkeys(text for location in locations for text in _texts_in(_annotation_at(whole, location))))


def _texts_in(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (value for value in get_args(annotation) if isinstance(value, str))
    else:
        for part in get_args(annotation):
            yield from _texts_in(part)


def _annotation_at(whole: type[BaseModel], location: tuple[int | str, ...]) -> Any:
    """The type of the field at a place in a job; that of the innermost field, for a place inside its value."""
    annotation: Any = whole
    for part in location:
        fields = {name: field for section in sections_in(annotation) for name, field in section.model_fields.items()}
        if part in fields:
            annotation = fields[str(part)].annotation
    return annotation


def _known_keys(whole: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in a job file: those of the job, or of one of its objects."""
    keys = [name for section in sections_in(_annotation_at(whole, location)) for name in section.model_fields]
    return keys if location or whole is not JobParameters else [key for key in keys if key != "name"]
