"""The page that says what the benchmarks have found."""

import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from machine import Machine
from results import Row, Section, rows

HEAD = """\
# Beside its peers

Written by `make bench`, which makes an environment with all peers in it, and runs everything again on your machine.
Contestants take turns: A B C, A B C, ... The numbers are medians over the rounds, with their range; comparisons are
made within each round, and are medians of that. Nobody's own meter counts: times are taken from outside.
"""

GPU_PAGE = Path(__file__).parent.parent / "docs/benchmarks-gpu.md"


def on_gpus(made: Path = GPU_PAGE) -> str:
    """Where the comparison on GPUs is, or that it was not made."""
    if made.exists():
        return f"[{made.name}]({made.name}) compares on GPUs; `make bench-gpu` writes it.\n"
    return f"`make bench-gpu` compares on GPUs and writes {made.name}, which was not made yet: no GPU was at hand.\n"


def page(
    sections: Sequence[Section],
    machine: Machine,
    versions: Mapping[str, str],
    rounds: int,
    day: date,
    notes: str = "",
    head: str = HEAD,
) -> str:
    parts = [head, about(machine, versions, rounds, day)]
    if machine.is_busy:
        parts.append(
            f"**The machine was busy** when this began (load average {machine.load:.1f} on {machine.cores} cores): "
            "these numbers are provisional.\n"
        )
    parts += [section_text(section) for section in sections]
    return "\n".join([*parts, *([notes] if notes else [])])


def about(machine: Machine, versions: Mapping[str, str], rounds: int, day: date) -> str:
    return table(
        ("", ""),
        [
            ("date", f"{day:%Y-%m-%d}"),
            ("rounds", str(rounds)),
            ("processor", f"{machine.processor}, {machine.cores} cores"),
            ("memory", f"{machine.memory_gb:.0f} GB"),
            ("system", machine.system),
            ("load average at the start", f"{machine.load:.2f}"),
            ("Python", machine.python),
            *versions.items(),
        ],
    )


def section_text(section: Section) -> str:
    comparison = section.comparison
    headings = ("", section.unit, "range", comparison.heading, "range", *(one.heading for one in section.columns))
    lines = [(*_cells(row, section), *_further(row.name, section)) for row in rows(section)]
    blank = [""] * (len(headings) - 2)
    lines += [(name, why, *blank) for name, why in section.missing.items()]
    parts = [f"## {section.title}\n", section.about + "\n", f"The baseline is: {section.baseline}.\n"]
    parts.append(table(headings, lines))
    if section.goals:
        goals = [(goal.text, f"{goal.found:.2f}", "yes" if goal.is_met else "**no**") for goal in section.goals]
        parts.append(table(("goal", "found", "reached"), goals))
    return "\n".join(parts)


def _cells(row: Row, section: Section) -> tuple[str, ...]:
    digits = section.digits
    cells = (row.name, f"{row.median:,.{digits}f}", f"{row.lowest:,.{digits}f} to {row.highest:,.{digits}f}")
    if row.compared is None:
        return (*cells, "", "")
    median, lowest, highest = (f"{value:.{section.comparison.digits}f}" for value in row.compared)
    return (*cells, median, f"{lowest} to {highest}")


def _further(name: str, section: Section) -> list[str]:
    return [f"{statistics.median(one.values[name]):,.{one.digits}f}" for one in section.columns]


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(headings) - 1)] if len(headings) > 2 else ["---"] * len(headings)
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, marks, *lines))
