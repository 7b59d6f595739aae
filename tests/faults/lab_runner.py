"""A runner whose trainings are trivial, on a file system that may lie, as a process forked of that of the tests.

With a seed, renames and links now and then fail after they have succeeded, and listings are now and then those of
before; with an odd one, no rename can be kept from replacing a file.
"""

import asyncio
import errno
import os
import random
import sys
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from accel_trainer.core import exclusive_move, process_space, rename
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue import moves, other_names, reclaim, run_claim, runner, scheduler
from accel_trainer.queue.store import QueueStore

# Tests of runners in their own process replace it.
LISTEN = StopRequest.listen


async def train(attempt: Attempt, *_: object) -> Outcome:
    """One line in the run folder for every attempt that came to its end."""
    attempt.run.create()
    await asyncio.sleep(random.uniform(0, 0.03))
    with (attempt.run.path / "attempts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Outcome(OutcomeKind.DONE)


class Listing(list["os.DirEntry[str]"]):
    """What os.scandir gives."""

    def __enter__(self) -> "Listing":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Liar:
    """A file layer as network drives have them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed, self.rename, self.link, self.scandir = seed, Path.rename, os.link, os.scandir
        self.rename_noreplace = rename.rename_noreplace
        self.listings: dict[str, Listing] = {}

    def renamed(self, source: Path, target: Path) -> Path:
        done = self.rename(source, target)
        if self.random.random() < 0.2:
            raise FileNotFoundError(2, "No such file or directory", str(source))
        return done

    def renamed_noreplace(self, source: Path, target: Path) -> None:
        if self.seed % 2:
            raise OSError(errno.EINVAL, "Invalid argument", str(source))
        self.rename_noreplace(source, target)
        if self.random.random() < 0.2:
            raise FileNotFoundError(2, "No such file or directory", str(source))

    def linked(self, source: Path, target: Path) -> None:
        self.link(source, target)
        if self.random.random() < 0.2:
            raise FileExistsError(17, "File exists", str(target))

    def listed(self, folder: object = ".") -> object:
        if not isinstance(folder, Path):
            return self.scandir(folder)  # type: ignore[call-overload]
        name = os.fspath(folder)
        if name not in self.listings or self.random.random() < 0.5:
            with self.scandir(name) as entries:
                self.listings[name] = Listing(entries)
        return self.listings[name]


def start(queue: Path, seed: int | None = None) -> BaseProcess:
    """Begin a runner of a queue: Python and pydantic take longer to start than its trainings."""
    runner = get_context("fork").Process(target=_run, args=(queue, seed))
    runner.start()
    return runner


def _run(queue: Path, seed: int | None) -> None:
    process_space.own_start.cache_clear()  # it is another process than the one that knew this
    random.seed()
    StopRequest.listen = LISTEN  # type: ignore[method-assign]
    if seed is not None:
        liar = Liar(seed)
        Path.rename = lambda source, target: liar.renamed(source, target)  # type: ignore[method-assign, assignment]
        os.scandir = liar.listed  # type: ignore[assignment]
        os.link = liar.linked  # type: ignore[assignment]
        for module in (exclusive_move, moves, other_names):
            module.rename_noreplace = liar.renamed_noreplace
    run_claim.run_attempt = train
    runner.POLL_S = 0.005
    reclaim.LOOK_EVERY_S, scheduler.LOOK_EVERY_S = 0.05, 0.2
    scheduler.LARGEST_PART = 0.5
    sys.executable = "/bin/false"  # a file is not looked at with torch
    runner.Runner(QueueStore(queue), Machine((), False, 2), lambda event: None).run()
