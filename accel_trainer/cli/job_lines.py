"""Mistakes of a job file with the line that they are in: `mine.json:7: num_epochs: ...`, as editors open it."""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

_OF_A_KEY = re.compile(r"(?P<file>[^\n]+?\.json): (?P<key>[\w.]+)(?=[:, ])")


def with_line(problem: str) -> str:
    """A problem of a key of a job file, with the number of the line where the key stands, in that file or its base. One
    of something else stays as it is, and so does one in a file of a single line."""
    if (found := _OF_A_KEY.match(problem)) is None:
        return problem
    lines, key = _lines(Path(found["file"])), found["key"]
    while key and key not in lines:
        key = key.rpartition(".")[0]
    if not key:
        return problem
    file, number = lines[key]
    return f"{file}:{number}{problem[found.end('file') :]}"


@cache
def _lines(file: Path) -> Mapping[str, tuple[Path, int]]:
    from accel_trainer.config.key_lines import lines_of_file

    with suppress(OSError):  # that it cannot be read may be what the line is about
        return lines_of_file(file) if file.is_file() else {}
    return {}
