"""Workers that a verb sends for an answer, and what becomes of their folder."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from accel_trainer.cli.app import SIGNALLED, SOME_FAILED, tell
from accel_trainer.queue.launcher import Launch

# What the worker writes, in the folder that it is given.
ANSWER = "answer.json"


@dataclass
class Back:
    """What came of it: a row, None of a machine that is not the first of several. `place` goes with the context, unless
    its log is kept."""

    row: dict[str, Any] | None
    place: Path
    is_kept: bool = False

    def keep_log(self) -> Path:
        self.is_kept = True
        return self.place / "log.txt"


@contextmanager
def sent(verb: str, plan: Callable[[Path], Launch], what: str) -> Iterator[Back]:
    """Launch what is planned for a temporary folder, and wait for its answer there; a signal ends it.

    Raises UserError, and typer.Exit where it was stopped or had no answer: then its output is kept, and named.
    """
    from accel_trainer.core.processes import StopRequest
    from accel_trainer.queue.attempt import STOP_SIGNALS
    from accel_trainer.queue.errand import NoAnswer, send

    back = Back(None, Path(tempfile.mkdtemp(prefix=f"accel-train-{verb}-")))
    stop = StopRequest()
    stop.listen(*STOP_SIGNALS)
    try:
        back.row = send(plan(back.place), back.place / ANSWER, back.place / "log.txt", stop)
        if stop.signal is not None:
            raise typer.Exit(SIGNALLED + stop.signal)
        yield back
    except NoAnswer as error:
        tell([f"{what} has failed: {error}; all output: {back.keep_log()}"])
        raise typer.Exit(SOME_FAILED) from error
    finally:
        if not back.is_kept:
            shutil.rmtree(back.place)
