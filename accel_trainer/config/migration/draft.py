"""A job on its way from old words to today's: its values, and what was said of each change."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from accel_trainer.core.errors import Problem
from accel_trainer.core.text import format_value


class Absent:
    """What is not in a job file."""


ABSENT = Absent()


class Draft:
    """The values of a job, which change place; `changes`, `notes` and `refusals` say what was done, and why.

    A place is a key, or the keys of nested objects with dots between them: `Occlusion.form`.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = deepcopy(dict(given))
        self.changes: list[Problem] = []
        self.notes: list[Problem] = []
        self.refusals: list[Problem] = []

    def get(self, place: str) -> Any:
        """The value at a place, or ABSENT."""
        inside, key = self._inside(place)
        return ABSENT if inside is None else inside.get(key, ABSENT)

    def has(self, place: str) -> bool:
        """Whether there is a value other than null."""
        return self.get(place) not in (ABSENT, None)

    def change(self, place: str, value: Any, why: str) -> None:
        """Another value at a place that is there, or a new last one."""
        before = self.get(place)
        self._put(place, value)
        what = "added" if before is ABSENT else f"{format_value(before)} ->"
        self.changes.append(Problem(f"{what} {format_value(value)}", key=place, hint=why))

    def move(self, old: str, new: str, why: str, value: Any = ABSENT) -> None:
        """Put what is at an old place where it belongs today, as another value where one is given. A value that stands
        there already is not replaced: another one than this is a contradiction."""
        given = self.get(old)
        value = given if value is ABSENT else value
        known = self.get(new) if new != old else ABSENT
        if known not in (ABSENT, None) and known != value:
            self.refuse(old, f"is {new} today, which is given too and is {format_value(known)}", "remove one of them")
            return
        if not self._can_hold(new):
            self.refuse(old, f"belongs into {new.partition('.')[0]}, which is no object")
            return
        if "." not in old and "." not in new:
            self.values = {new if key == old else key: item for key, item in self.values.items() if key != new}
            self.values[new] = value
        else:
            self._take(old)
            self._put(new, value)
        shown = "" if value == given else f" = {format_value(value)}"
        self.changes.append(Problem(f"-> {new}{shown}", key=old, hint=why))

    def drop(self, place: str, why: str) -> None:
        """Remove what means nothing."""
        self.changes.append(Problem(f"removed {format_value(self._take(place))}", key=place, hint=why))

    def refuse(self, place: str, message: str, hint: str | None = None) -> None:
        """Say what cannot be translated."""
        self.refusals.append(Problem(message, key=place, hint=hint))

    def note(self, place: str, message: str) -> None:
        """Say what stays as it is, and is worth a look."""
        self.notes.append(Problem(message, key=place))

    def _inside(self, place: str) -> tuple[dict[str, Any] | None, str]:
        """The object that a place is in, if there is one, and the last key."""
        *outer, key = place.split(".")
        inside: Any = self.values
        for name in outer:
            inside = inside.get(name) if isinstance(inside, dict) else None
        return (inside if isinstance(inside, dict) else None), key

    def _can_hold(self, place: str) -> bool:
        outer = place.rpartition(".")[0]
        return not outer or self.get(outer) in (ABSENT, None) or isinstance(self.get(outer), dict)

    def _put(self, place: str, value: Any) -> None:
        *outer, key = place.split(".")
        inside = self.values
        for name in outer:
            if not isinstance(inside.get(name), dict):
                inside[name] = {}
            inside = inside[name]
        inside[key] = value

    def _take(self, place: str) -> Any:
        """Remove and give; an object that is empty then goes too, unless it was the job's own."""
        inside, key = self._inside(place)
        return ABSENT if inside is None else inside.pop(key, ABSENT)
