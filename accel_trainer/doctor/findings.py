"""What a check says: all is well, this may hurt, or this will; in one line, with how to mend it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from accel_trainer.core.text import first_line


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was found; `fix` is there unless all is well."""

    grade: Grade
    said: str
    fix: str | None = None


def ok(said: str) -> Finding:
    return Finding(Grade.OK, said)


def warning(said: str, fix: str) -> Finding:
    return Finding(Grade.WARNING, said, fix)


def problem(said: str, fix: str) -> Finding:
    return Finding(Grade.PROBLEM, said, fix)


@dataclass(frozen=True)
class Check:
    """Something to look at, by the name that its line has."""

    name: str
    look: Callable[[], Finding]


def examine(checks: Iterable[Check]) -> Iterator[tuple[str, Finding]]:
    """The lines of some checks, each as soon as it is known. A check that breaks is a problem, too."""
    for check in checks:
        try:
            finding = check.look()
        except Exception as error:
            finding = problem(
                f"this check has broken: {type(error).__name__}: {first_line(error)}",
                "try what it names by hand; where that works, it is a mistake of accel-train",
            )
        yield check.name, finding
