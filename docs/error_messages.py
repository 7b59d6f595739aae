"""Every message that the program can print for a mistake, with its cure, read from its source: the tables of errors.md.

A message is the first argument of an error, or of a finding of the doctor, its cure the hint or fix beside it. What a
message is filled with when it is printed is three dots here. What is put together elsewhere is not listed.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "accel_trainer"
FILLED = "…"
# Where errors.md has the tables.
HERE = "<!-- messages: here (made by `make site`) -->"
ROOTS = frozenset({"AccelTrainError", "Problem"})
FINDINGS = frozenset({"warning", "problem"})
# The name of a class, and its bases.
_CLASS = re.compile(r"^ *class (\w+)\(([^)]*)\):", re.M)
# What each part of the program is called here, and the page that says more.
PARTS = {
    "config": ("A job file", "parameters.md"),
    "data": ("Images", "data.md"),
    "zoo": ("Models", "models.md"),
    "training": ("Training", "training.md"),
    "run": ("The run folder", "run_folder.md"),
    "queue": ("The queue", "queue.md"),
    "launch": ("Starting processes", "hardware.md"),
    "degradations": ("Degraded images", "degradations.md"),
    "evaluation": ("Evaluating", "evaluate.md"),
    "measures": ("Figures from trials", "measures.md"),
    "representations": ("Features and dissimilarities", "rsa.md"),
    "export": ("Exporting", "export.md"),
    "report": ("Comparing", "compare.md"),
    "profiling": ("Profiling", "profile.md"),
    "api": ("Python and what is behind the commands", "python.md"),
    "cli": ("The command line", "start.md"),
    "workers": ("Processes of the program's own", "internals.md"),
    "core": ("Files, disks and imports", "faults.md"),
}


@dataclass(frozen=True, order=True)
class Message:
    """What is printed, and what to do about it; "" where the message says it."""

    text: str
    cure: str


def messages() -> dict[str, list[Message]]:
    """The messages of each part of the program, and of `doctor`, without doubles."""
    sources = {path: path.read_text() for path in sorted(PACKAGE.glob("*/**/*.py"))}
    errors = _errors(chain.from_iterable(map(_CLASS.findall, sources.values())))
    found: dict[str, set[Message]] = {}
    for path, source in sources.items():
        part = path.relative_to(PACKAGE).parts[0]
        names = errors | FINDINGS if part == "doctor" else errors
        of_part = found.setdefault(part, set())
        if re.search(rf"\b({'|'.join(names)})\(", source):  # most have none, and to parse them takes long
            of_part.update(_messages_in(ast.parse(source), names))
    return {part: sorted(those, key=lambda one: one.text.strip(f"{FILLED}: ").lower()) for part, those in found.items()}


def tables() -> str:
    """The messages as sections of Markdown, a table each."""
    found = messages()
    lines = ["### What `accel-train doctor` finds", "", *_table(found["doctor"])]
    for part, (title, page) in PARTS.items():
        if found.get(part):
            lines += [f"### {title}", "", f"More is in [{page.removesuffix('.md')}]({page}).", "", *_table(found[part])]
    return "\n".join(lines)


def _errors(classes: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The names of all classes of errors that a user sees. classes: the name of each, and its bases."""
    bases = {name: set(re.findall(r"\w+", those)) for name, those in classes}
    known = set(ROOTS)
    while more := {name for name, those in bases.items() if name not in known and known & those}:
        known |= more
    return frozenset(known)


def _messages_in(tree: ast.AST, names: frozenset[str]) -> Iterator[Message]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or _name(call.func) not in names or not call.args:
            continue
        given = {one.arg: one.value for one in call.keywords}
        text = _text(call.args[0])
        hint = given.get("hint", call.args[1] if len(call.args) > 1 and _name(call.func) in FINDINGS else None)
        if text is None or not any(letter.isalpha() for letter in text.partition("; ")[0]):
            continue
        subject = ": ".join(part for part in (_text(given.get("key")), text) if part)
        said, _, cure = subject.partition("; ")
        yield Message(said, "; ".join(part for part in (cure, _text(hint)) if part))


def _name(node: ast.AST) -> str:
    return getattr(node, "id", None) or getattr(node, "attr", None) or ""


def _text(node: ast.AST | None) -> str | None:
    """A text of the source; None where it is not written there."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(one) or FILLED for one in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [_text(left), _text(right)]
            return None if parts == [None, None] else "".join(part or FILLED for part in parts)
        case _:
            return None


def _table(rows: list[Message]) -> list[str]:
    cells = ((_cell(row.text), _cell(row.cure)) for row in rows)
    return list(chain(["| message | what to do |", "| --- | --- |"], (f"| {a} | {b} |" for a, b in cells), [""]))


def _cell(text: str) -> str:
    """A text as it is printed, in a cell: nothing of it is Markdown, but for words in backticks."""
    plain, *quoted = " ".join(text.split()).replace(FILLED * 2, FILLED).split("`")
    parts = [_escaped(plain)]
    for number, part in enumerate(quoted):
        is_code = number % 2 == 0 and number + 1 < len(quoted)
        parts.append(part.replace("|", "\\|") if is_code else _escaped(part))
    return "`".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"([\\|*_<\[#])", r"\\\1", text)
