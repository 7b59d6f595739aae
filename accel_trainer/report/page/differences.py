"""What differs between runs: parameters, those of a section that differ together as one, and whose each value is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accel_trainer.core.text import canonical, format_value, shortest_suffixes
from accel_trainer.report.columns import place_in_order
from accel_trainer.report.compare import Comparison, differing_parameters
from accel_trainer.report.tables import OWN_FIELDS


@dataclass(frozen=True)
class Value:
    """A value as a person reads it, and the places of the runs that have it; None: those without the parameter."""

    text: str | None
    runs: list[int]


@dataclass(frozen=True)
class Difference:
    """key: as in a job file, `optimizer_args.lr`, of several the first one; keys: all of them. title: the last part of
    a key, where that is enough, and of several their section. short: what tells values apart in a few words, by the
    `canonical` value of the first key."""

    key: str
    keys: list[str]
    title: str
    values: list[Value]
    short: dict[str, str]


def what_differs(runs: Sequence[Comparison]) -> list[Difference]:
    """Of the runs that were begun, architecture and number of epochs included; values in their order."""
    begun = [(place, run) for place, run in enumerate(runs) if run.settings]
    own = [name for name in OWN_FIELDS if len({run.settings.get(name) for _, run in begun}) > 1]
    keys = [*own, *differing_parameters([run for _, run in begun])]
    titles = shortest_suffixes(keys)
    together: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for key in keys:
        section = key.rpartition(".")[0]
        # Of no section: never together with others.
        together.setdefault((section or f"{key}.", _partition(key, begun)), []).append(key)
    sections = [section for (section, _), inside in together.items() if len(inside) > 1]
    return [
        _difference(inside, section if len(inside) > 1 and sections.count(section) == 1 else titles[inside[0]], begun)
        for (section, _), inside in together.items()
    ]


def _partition(key: str, runs: Sequence[tuple[int, Comparison]]) -> tuple[int, ...]:
    """For each run the number of its value: the same for parameters that tell the same runs apart."""
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(canonical(run.settings.get(key)), len(numbers)) for _, run in runs)


def _difference(keys: list[str], title: str, runs: Sequence[tuple[int, Comparison]]) -> Difference:
    found: dict[str, tuple[Any, list[int]]] = {}
    for place, run in runs:
        value = run.settings.get(keys[0])
        found.setdefault(canonical(value), (run, []))[1].append(place)
    ordered = sorted(found.values(), key=lambda pair: place_in_order(pair[0].settings.get(keys[0])))
    ordered.sort(key=lambda pair: pair[0].settings.get(keys[0]) is None)
    values = [Value(_text(keys, run), places) for run, places in ordered]
    given = [run.settings[keys[0]] for run, _ in ordered if run.settings.get(keys[0]) is not None]
    short = {
        canonical(value): _short(title, value, is_section=len(keys) > 1, is_only=len(given) == 1) for value in given
    }
    return Difference(keys[0], keys, title, values, short)


def _text(keys: Sequence[str], run: Comparison) -> str | None:
    there = {key: value for key in keys if (value := run.settings.get(key)) is not None}
    if not there:
        return None
    if len(keys) == 1:
        return format_value(there[keys[0]])
    return ", ".join(f"{key.rpartition('.')[2]} {format_value(value)}" for key, value in there.items())


def _short(title: str, value: Any, *, is_section: bool, is_only: bool) -> str:
    """`resnet18`, `lr 0.1`; of a section that others have not at all its name is enough."""
    if is_section and is_only:
        return title
    return value if isinstance(value, str) else f"{title} {format_value(value)}"
