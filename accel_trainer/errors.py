"""Errors that are meant for people: what is wrong, where, and how to fix it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend. Its text is shown as it is, without a traceback.

    `problems` has one line for each mistake; `str(error)` joins them.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean …?' for a misspelt word, or '' when nothing known is near it."""
    by_lower_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=2, cutoff=0.6)
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(by_lower_case[name]) for name in near) + "?"


def listed(names: Iterable[str], at_most: int = 12) -> str:
    """'a, b, c' for a message; a long list ends in how many more there are."""
    names = [name if name.isprintable() else repr(name) for name in names]
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def printable(text: str) -> str:
    """Text for a terminal: what could move its cursor or change its colours is written out, as \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """What an exception of a library says, in one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__
