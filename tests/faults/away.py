"""A folder on a disk that goes away before one of the calls on it, or again and again, without a line for it in the
code that is tested.

Every process of Python announces its calls on files; what it does not announce is replaced.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.core import rename

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "os.link", "os.utime")


@dataclass
class Disk:
    """Below `folder` calls fail for some `seconds` with `error`, from the n-th on, and from every n-th if that is
    wanted; 0: no call fails."""

    folder: str
    error: int = 0
    nth: int = 0
    seconds: float = 0.0
    is_repeated: bool = False
    number: int = 0
    times_away: int = 0
    until: float = 0.0
    calls: list[str] = field(default_factory=list)

    def goes_away(self, error: int, nth: int, seconds: float, *, is_repeated: bool = False) -> None:
        """From the n-th call from now on."""
        self.number, self.times_away, self.until, self.calls = 0, 0, 0.0, []
        self.nth, self.seconds, self.is_repeated, self.error = nth, seconds, is_repeated, error

    def look(self, call: str, *places: object) -> None:
        """Raises OSError while the disk is away."""
        if not self.error:
            return
        paths = [os.path.abspath(os.fsdecode(place)) for place in places if isinstance(place, str | bytes | Path)]  # noqa: PTH100
        if not any(f"{path}/".startswith(f"{self.folder}/") for path in paths):
            return
        now = time.monotonic()
        if now >= self.until:
            self.number += 1
            self.calls.append(f"{call} {paths[0]}")
            if self.number == self.nth:
                self.times_away, self.until = self.times_away + 1, now + self.seconds
                self.number = 0 if self.is_repeated else self.number
        if now < self.until:
            raise OSError(self.error, os.strerror(self.error), paths[0])


_disks: list[Disk] = []
_hooks: list[Any] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _disks and event in EVENTS:
        _disks[-1].look(event, *args[:2])


@contextmanager
def disk_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """In this context what is below a folder is on a disk that can go away."""
    if not _hooks:
        sys.addaudithook(_hook)  # for good
        _hooks.append(_hook)
    disk = Disk(os.path.abspath(folder))  # noqa: PTH100
    for name in ("stat", "lstat"):
        original = getattr(os, name)

        def looked(path: Any, *args: Any, original: Any = original, **rest: Any) -> Any:
            disk.look("stat", path)
            return original(path, *args, **rest)

        monkeypatch.setattr(os, name, looked)
    exclusive = rename.rename_noreplace

    def renamed(source: Path, target: Path) -> None:
        disk.look("rename", source)
        exclusive(source, target)

    # Looked up in what each module has: asking a module of torch by getattr may build classes, and warn.
    for module in [one for one in sys.modules.values() if vars(one).get("rename_noreplace") is exclusive]:
        monkeypatch.setattr(module, "rename_noreplace", renamed)
    _disks.append(disk)
    try:
        yield disk
    finally:
        disk.error = 0
        _disks.remove(disk)
