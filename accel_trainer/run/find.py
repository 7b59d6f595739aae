"""The run folders below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from accel_trainer.run.folder import RunFolder

# Of a run folder, where nothing is but its own files.
NO_RUNS = ("params", "resume", "logs", "evaluations")


def runs_below(folder: Path) -> Iterator[RunFolder]:
    """Those of which a training was begun or tried, in the order of their paths; earlier ones, in `previous/`, are left
    out."""
    return (RunFolder(path) for path in sorted(_folders(folder)))


def _folders(folder: Path) -> Iterator[Path]:
    for place, inside, files in os.walk(folder):
        run = RunFolder(Path(place))
        is_run = run.config.name in files or (run.log.name in files and run.params.name in inside)
        if is_run:
            yield run.path
        skipped = NO_RUNS if is_run else ()
        inside[:] = [name for name in inside if not name.startswith(".") and name not in (*skipped, run.previous.name)]
