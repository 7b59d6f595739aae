"""Disks on which nothing can be written for now: jobs that would train there wait, the others do not.

What hands jobs to Slurm looks from its own machine, at the disks that its nodes share with it: at those of the queue
and of run folders that it can see, and not at folders for temporary files, which each node has itself.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder
from accel_trainer.core.machine_errors import try_to_write, why_of_machine
from accel_trainer.launch.outcome import Outcome
from accel_trainer.run.folder import RunFolder

# How often it is tried whether a disk works again.
AGAIN_S = 5.0
# How much room there has to be: for the states of a run, so many times its weights.
TRIAL_BYTES, TIMES_WEIGHTS = 2**20, 4
# For what is noted of a job in the queue.
RECORD_BYTES = 4096
# Is given a place, and what is wrong with it; None where that is over.
Report = Callable[[Path, str | None], None]


@dataclass
class _Disk:
    """place: where it was tried. num_bytes: the room there has to be. shared: whether every job writes there."""

    place: Path
    num_bytes: int
    shared: bool
    tried: float = field(default_factory=time.monotonic)


class BrokenDisks:
    """What this runner knows of disks that are full, read-only or the like. What nothing was reported of is well."""

    def __init__(self, queue: Path, report: Report, *, trains_here: bool = True) -> None:
        """queue: the folder of the queue. report: called when a disk is found to be broken, and when it works again.
        trains_here: whether jobs run on this machine, and not on nodes of a cluster."""
        self._queue, self._report, self._trains_here = queue, report, trains_here
        self._disks: dict[int, _Disk] = {}

    def __bool__(self) -> bool:
        return bool(self._disks)

    def note(self, run: Path | None, outcome: Outcome) -> None:
        """Look where an attempt wrote that the machine has failed."""
        if run is not None and (self._trains_here or run.is_dir()):
            self._try(run, _room_for(run), shared=False)
        self._try(self._queue, RECORD_BYTES, shared=True)
        for place in self._shared_places():
            if str(place) in (outcome.reason or ""):
                self._try(place, TRIAL_BYTES, shared=True)

    def waiting(self, runs: Mapping[str, str | None]) -> set[str]:
        """Of jobs, by their names and run folders, those that are to wait."""
        if not self._disks:
            return set()
        if any(disk.shared for disk in self._disks.values()):
            return set(runs)
        return {name for name, run in runs.items() if run is not None and _device(_existing(run)) in self._disks}

    def refresh(self) -> None:
        """Try disks again that are due; to be called again and again."""
        now = time.monotonic()
        for device, disk in list(self._disks.items()):
            if now - disk.tried >= AGAIN_S:
                disk.tried = now
                if _problem(disk.place, disk.num_bytes) is None:
                    del self._disks[device]
                    self._report(disk.place, None)

    def _shared_places(self) -> Iterable[Path]:
        """Where every job writes beside its run folder."""
        yield self._queue / "logs"
        if not self._trains_here:
            return
        with suppress(OSError):
            yield Path(tempfile.gettempdir())
        with suppress(UserError):
            yield cache_folder()

    def _try(self, folder: Path, num_bytes: int, *, shared: bool) -> None:
        place = _existing(folder)
        problem, device = _problem(place, num_bytes), _device(place)
        if problem is None or device is None:
            return
        if (known := self._disks.get(device)) is not None:
            known.shared |= shared
            return
        self._disks[device] = _Disk(place, num_bytes, shared)
        self._report(place, problem)


def _room_for(run: Path) -> int:
    """How many bytes a run needs that goes on."""
    with suppress(OSError):
        return max(TRIAL_BYTES, TIMES_WEIGHTS * RunFolder(run).weights(0).stat().st_size)
    return TRIAL_BYTES


def _problem(place: Path, num_bytes: int) -> str | None:
    """Why so much cannot be written, if that is the machine's."""
    try:
        try_to_write(place, min(num_bytes, TRIAL_BYTES))
        free = shutil.disk_usage(place).free
    except OSError as error:
        return why_of_machine(error)
    return "the disk is full" if free < num_bytes else None


def _existing(folder: str | Path) -> Path:
    """The folder, or the nearest above it that is there."""
    path = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay
    return next((place for place in (path, *path.parents) if os.path.isdir(place)), path)  # noqa: PTH112 - never raises


def _device(place: Path) -> int | None:
    with suppress(OSError):
        return place.stat().st_dev
    return None
