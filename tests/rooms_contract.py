"""A contract of import-linter: the rooms of the house, and which of them each may import.

It is an allow-list: a room that the table does not name is broken as well. docs/internals.md shows the same table.
"""

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

from accel_trainer.core.text import with_part

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
MARKS = "<!-- rooms: begin -->", "<!-- rooms: end -->"


def parse(lines: list[str]) -> dict[str, tuple[str, ...]]:
    """{"config": ("core",)} of ["config -> core"]."""
    table = (line.partition("->") for line in lines)
    return {room.strip(): tuple(allowed.split()) for room, _, allowed in table}


def rooms() -> dict[str, tuple[str, ...]]:
    """The table of pyproject.toml."""
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (lines,) = [contract["rooms"] for contract in contracts if contract["id"] == "rooms"]
    return parse(lines)


class RoomsContract(Contract):
    """rooms: a line for each package, "name -> those it may import". root: what the package file itself may import."""

    rooms = fields.ListField(subfield=fields.StringField())
    root = fields.StringField(required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Every import between two rooms, against the table."""
        (package,) = self.session_options["root_packages"]
        table = parse(self.rooms) | {"": (self.root or "",)}
        problems = []
        for importer in sorted(graph.modules):
            if importer.partition(".")[0] != package:
                continue
            here = _room(importer, package)
            if here not in table:
                problems.append(f"{importer}: the table has no room {here!r}")
                continue
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                there = _room(imported, package)
                if imported.partition(".")[0] == package and there not in (here, "", *table[here]):
                    problems.append(f"{importer} -> {imported}: {here!r} may not import {there!r}")
        return ContractCheck(kept=not problems, metadata={"problems": problems})

    def render_broken_contract(self, check: Any) -> None:
        """One line for each import that the table does not allow."""
        for problem in check.metadata["problems"]:
            output.print_error(problem)


def _room(module: str, package: str) -> str:
    return module.removeprefix(package).lstrip(".").partition(".")[0]


def markdown() -> str:
    """The table for docs/internals.md; what is in a room is said by its package file."""
    rows = [
        f"| `{room}` | {_purpose(room)} | {', '.join(f'`{name}`' for name in allowed) or 'nothing of ours'} |"
        for room, allowed in rooms().items()
    ]
    return "\n".join(["| room | what is in it | may import |", "| --- | --- | --- |", *rows])


def _purpose(room: str) -> str:
    file = PYPROJECT.parent / "accel_trainer" / room / "__init__.py"
    return " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split())


def with_table(text: str) -> str:
    """A page with the table of today between its marks."""
    return with_part(text, MARKS, markdown())


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text()))
