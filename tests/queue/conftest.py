"""What the tests of a runner share."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from accel_trainer.core.processes import StopRequest
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue import checker, reclaim, run_claim, runner, scheduler
from accel_trainer.queue.events import Event, WaitingForJobs
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.runner_options import RunnerOptions
from accel_trainer.queue.slots import Slots
from accel_trainer.queue.store import QueueStore

CPU = Machine((), False, 2)
T = TypeVar("T")


@pytest.fixture(autouse=True)
def signals_are_for_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that is meant to end pytest stops no runner of a test, which would fail for that; nor are later ones
    lost."""
    monkeypatch.setattr(StopRequest, "listen", lambda *_: None)


@pytest.fixture
def queue() -> QueueStore:
    """An empty queue in the test's folder."""
    queue = QueueStore(Path("training_queue"))
    queue.create()
    return queue


@pytest.fixture
def in_place_of_trainers(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Has runners go through attempts with another coroutine; nor are jobs looked at with torch, and nobody waits for
    long."""

    def put(go_through: object) -> None:
        monkeypatch.setattr(run_claim, "run_attempt", go_through)
        for module in (reclaim, scheduler):
            monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
        for module in (reclaim, runner):
            monkeypatch.setattr(module, "POLL_S", 0.005)
        monkeypatch.setattr(scheduler, "LARGEST_PART", 1.0)
        monkeypatch.setattr(checker, "SETTLED_S", 0.1)
        monkeypatch.setattr(sys, "executable", "/bin/false")

    return put


class Trained(list[str]):
    """The names of the jobs that were trained, in order. An attempt does what is in `when` for its job, and has the
    first of `endings`; without one, those in `failing` fail."""

    def __init__(self) -> None:
        self.when: dict[str, Callable[[Attempt], object]] = {}
        self.failing: set[str] = set()
        self.endings: list[Outcome] = []
        self.attempts: dict[str, Attempt] = {}

    async def train(self, attempt: Attempt, *_: object) -> Outcome:
        name = attempt.job.name
        self.append(name)
        self.attempts[name] = attempt
        self.when.get(name, lambda attempt: None)(attempt)
        if self.endings:
            return self.endings.pop(0)
        return Outcome(OutcomeKind.FAILED if name in self.failing else OutcomeKind.DONE)


@pytest.fixture
def trained(in_place_of_trainers: Callable[[object], None]) -> Trained:
    """In place of trainers."""
    trained = Trained()
    in_place_of_trainers(trained.train)
    return trained


class Recorder:
    """Keeps all events; does what is in `when_waiting`, one each time that a runner waits."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.when_waiting: list[Callable[[], object]] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, WaitingForJobs) and self.when_waiting:
            self.when_waiting.pop(0)()

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def make_runner(queue: QueueStore) -> Callable[..., Runner]:
    """Makes runners of the queue, whose events are recorded: `runner.emit.of(JobStuck)`."""

    def make(machine: Machine = CPU, slots: Slots | None = None, **options: object) -> Runner:
        return Runner(queue, machine, Recorder(), RunnerOptions(**options), slots)

    return make


@pytest.fixture(name="runner")
def a_runner(trained: Trained, make_runner: Callable[..., Runner]) -> Runner:
    """One that retries soon."""
    return make_runner(retry_after_s=0.2)


@pytest.fixture
def root() -> Iterator[Path]:
    """Of the file systems of `faults.interleave`: in memory, where that is possible, for the checks make a million
    calls."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="accel-train-moves-", dir=memory if os.access(memory, os.W_OK) else None))
    for name in ("one", "other"):
        (folder / name).mkdir()
    yield folder
    shutil.rmtree(folder)
