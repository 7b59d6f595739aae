"""Logs of attempts: `<folder>/<name>.<n>.log`, one for each."""

import re
from contextlib import suppress
from pathlib import Path


def new_log(folder: Path, name: str) -> Path:
    """Make one, empty, with the first n that is free."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / f"{name}.{number}.log"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1


def newest_log(folder: Path, name: str) -> Path | None:
    """That of the last attempt; None before the first."""
    found = (re.fullmatch(rf"{re.escape(name)}\.(\d+)\.log", path.name) for path in folder.glob("*.log"))
    number = max((int(match[1]) for match in found if match is not None), default=None)
    return None if number is None else folder / f"{name}.{number}.log"
