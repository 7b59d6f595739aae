"""A trainer that is cut off at any call of a save, or of its end, and wakes up when its folder is another's."""

import csv
import errno
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
import torch
from faults.interleave import LOCAL, FileSystem, Process, Run, further, intercepted
from loops import trainer_state
from safetensors.torch import load_file

from accel_trainer.config import Job
from accel_trainer.core import exclusive_move, files, lease
from accel_trainer.core.fence import discard
from accel_trainer.core.files import _aside as aside
from accel_trainer.core.lease import Owner
from accel_trainer.launch.outcome import Outcome, OutcomeKind, record
from accel_trainer.run import folder, lock
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockGuard, LockLost, RunLock, acquire
from accel_trainer.run.older_run import set_aside
from accel_trainer.run.performance import PerformanceRow, write_performance
from accel_trainer.run.records import write_config
from accel_trainer.run.status import RankError, RunState, Status, read_status, write_rank_error, write_status
from accel_trainer.training.state.checkpoint import Progress, StateStore, TrainState
from accel_trainer.training.state.saving import Save, Saver, WeightsFile, nothing
from accel_trainer.training.state.starting_point import FromState, find_starting_point

FIRST, SECOND = 1.0, 2.0
FAR = Owner("far", "0123abcd-4711-99-abcd")
OLDER_SEED = 4711


def history(epoch: int, who: float) -> list[PerformanceRow]:
    """The rows until an epoch, with who has written them in the place of seconds."""
    return [PerformanceRow(number, "train", {"loss": 1 / number}, 0.1, 1.0, who) for number in range(1, epoch + 1)]


def state(epoch: int, who: float) -> TrainState:
    progress = Progress(epoch=epoch, global_step=10 * epoch, history=history(epoch, who))
    return TrainState(progress, {"weight": torch.tensor([float(epoch)])}, trainer_state(), num_processes=1)


@dataclass
class Trainer:
    """What a trainer does to its run folder, without training."""

    run: RunFolder
    lock: RunLock
    token: str
    who: float

    def __post_init__(self) -> None:
        self.run = LockGuard(self.lock).owned(self.run)
        self.states = StateStore(self.run)
        self.saver = Saver(Mock(architecture="none"), self.run, self.states)

    def report(self, epoch: int, state: RunState = RunState.TRAINING) -> None:
        write_status(self.run, Status(state=state, token=self.token, epoch=epoch))

    def save(self, epoch: int) -> None:
        best = WeightsFile(self.run.best_weights, epoch, {"who": torch.tensor([self.who, float(epoch)])})
        rows = history(epoch, self.who)
        show = partial(write_performance, self.run, rows)
        self.saver._write(Save([best], nothing, nothing, state(epoch, self.who), show))

    def train(self, until: int) -> None:
        newest = self.states.newest()
        if newest is None:  # its successor has removed what was just read
            self.run.check_owner()
        assert newest is not None, "a whole state is always there"
        self.states.go_on_from(newest.progress)
        for epoch in range(newest.progress.epoch + 1, until + 1):
            self.save(epoch)
            self.report(epoch)
        self.states.keep_only_newest()


@dataclass
class TakenOver:
    """One trainer and its successor in one folder. It begins with the states of so many epochs: the next save removes
    one, as all later ones do."""

    BEGINS: ClassVar[int] = 2
    LAST_EPOCH: ClassVar[int] = 4
    place: Path
    file_system: FileSystem
    locked: list[RunLock] = field(default_factory=list)
    acquired: int = 0

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.place / "run")

    def set_up(self) -> None:
        """A folder as the first trainer has left it: made once, and copied for each schedule."""
        shutil.rmtree(self.run.path, ignore_errors=True)
        made = self.place / "made once"
        if not self.locked:
            self.make()
            shutil.copytree(self.run.path, made)
        else:
            shutil.copytree(made, self.run.path)

    def make(self) -> None:
        """A folder with the first states, which are the first trainer's."""
        self.run.create()
        first = Trainer(self.run, self._acquire(FAR), FAR.token, FIRST)
        for epoch in range(1, self.BEGINS + 1):
            first.save(epoch)
        first.report(self.BEGINS)
        self.locked = [first.lock]

    def _acquire(self, owner: Owner) -> RunLock:
        return acquire(self.run, owner, end_leftovers=lambda token: None, say=lambda line: None)

    def first(self) -> None:
        """Goes on, and fails in its last epoch, which its runner records; at the end of the attempt it tidies up."""
        trainer = Trainer(self.run, self.locked[0], FAR.token, FIRST)
        try:
            trainer.train(until=self.BEGINS + 1)
            record(Outcome(OutcomeKind.FAILED, "why", RunState.FAILED), trainer.run, trainer.token)
        finally:
            trainer.lock.release()

    def second(self) -> str:
        """Takes the folder over and finishes the run; its token."""
        owner = Owner.new()
        trainer = Trainer(self.run, self._acquire(owner), owner.token, SECOND)
        self.acquired = len(LOCAL.run.decisions) if LOCAL.run is not None else 0
        write_rank_error(self.run, 1, RankError(owner.token, "an error of its own"))
        trainer.train(until=self.LAST_EPOCH)
        trainer.report(self.LAST_EPOCH, RunState.FINISHED)
        assert self.run.rank_errors()
        trainer.lock.release()
        return owner.token

    def under(self, choices: Sequence[int]) -> tuple[Run, list[str]]:
        """Both under one schedule, and what is wrong afterwards."""
        self.set_up()
        first, second = processes = [Process(0, self.first), Process(1, self.second)]
        run = Run(processes, choices)
        with intercepted(self.file_system):
            run.go()
        wrong = [f"first: {first.error!r}"] if not isinstance(first.error, LockLost | None) else []
        if second.error is not None:
            return run, [*wrong, f"second: {second.error!r}"]
        return run, wrong + self.found_wrong(str(second.result))

    def chosen(self, schedules: Iterable[Sequence[int]]) -> list[Sequence[int]]:
        """All of them where one call moves and replaces nothing. Other file systems make a lock in other ways, and do
        all else as that one: there those in which the second is cut off while it makes its own, and a few others."""
        every = list(schedules)
        if self.file_system.has_noreplace:
            return every
        at_lock = [choices for choices in every if choices[0] == 1 and len(choices) <= self.acquired]
        return [*at_lock, *(choices for choices in every[::5] if choices not in at_lock)]

    def found_wrong(self, token: str) -> list[str]:
        status, run, last = read_status(self.run), self.run, self.LAST_EPOCH
        found = []
        if status is None or (status.state, status.token) != (RunState.FINISHED, token):
            found.append(f"the status is {status}")
        rows = list(csv.DictReader(run.performance.read_text().splitlines()))
        if [(int(row["epoch"]), float(row["seconds"])) for row in rows] != [(n, SECOND) for n in range(1, last + 1)]:
            found.append("the table is the first trainer's")
        if load_file(run.best_weights)["who"].tolist() != [SECOND, last]:
            found.append("the best weights are the first trainer's")
        if (states := [path.name for path in run.resume.iterdir()]) != [f"{10 * last:09d}-{last:04d}"]:
            found.append(f"resume/ has {states}")
        newest = StateStore(run).newest()
        if newest is None or newest.progress.history != history(last, SECOND):
            found.append("the newest state is the first trainer's")
        left = [path.name for path in run.path.rglob(".*")]
        return [*found, *([f"left over: {left}"] if left else [])]


class StartsOver(TakenOver):
    """The same, of a run that starts over from an epoch of an older one, which is moved away first."""

    BEGINS, LAST_EPOCH = 1, 3
    JOB = Job(architecture="resnet18", dataset="digits", model_dir="run", checkpoint=1)

    def make(self) -> None:
        super().make()
        write_config(self.run, {**self.JOB.completed(), "seed": OLDER_SEED})

    def first(self) -> None:
        held = self.locked[0]
        run = LockGuard(held).owned(self.run)
        try:
            self._start(run)
        except Exception:
            run.check_owner()  # what it finds is its successor's by now, or on its way
            raise
        finally:
            held.release()

    def second(self) -> str:
        held = self._acquire(owner := Owner.new())
        self._start(LockGuard(held).owned(self.run))
        trainer = Trainer(self.run, held, owner.token, SECOND)
        trainer.train(until=self.LAST_EPOCH)
        trainer.report(self.LAST_EPOCH, RunState.FINISHED)
        held.release()
        return owner.token

    def _start(self, run: RunFolder) -> None:
        start = find_starting_point(self.JOB, run, "the new", is_first=True, wait_for_all=lambda: None)
        assert isinstance(start, FromState)
        assert start.state.progress.epoch == 1
        write_config(run, self.JOB.completed())

    def found_wrong(self, token: str) -> list[str]:
        found = super().found_wrong(token)
        kept = [
            path for path in self.run.previous.rglob("*") if path.is_file() and path.name != self.run.status_file.name
        ]
        older = {path.name: path for path in kept}
        whole = {
            "best.safetensors",
            "config.json",
            "manifest.json",
            "model.safetensors",
            "performance.csv",
            "trainer.pt",
        }
        if older.keys() != whole or len(kept) != len(whole):
            return [*found, f"of the older run there is {sorted(map(str, kept))}"]
        seeds = [json.loads(path.read_bytes())["seed"] for path in (older["config.json"], self.run.config)]
        return found + ([] if seeds == [OLDER_SEED, self.JOB.seed] else [f"the seeds of the runs are {seeds}"])


SLOW = (pytest.param(kind, marks=pytest.mark.slow) for kind in ("no flags", "no links"))


@pytest.fixture(params=["local", *SLOW])
def taken_over(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TakenOver:
    monkeypatch.setattr(lease, "STALE_S", 0.0)  # who is far is given up at once
    kind = {"has_noreplace": request.param == "local", "has_links": request.param != "no links"}
    return TakenOver(tmp_path, FileSystem(tmp_path, **kind))


def test_a_trainer_cut_off_at_any_call_disturbs_nothing_of_its_successor(taken_over: TakenOver) -> None:
    """Before each call to the file system of a save, a status, the removal of older states, the end of the attempt; and
    the successor's before each of its own."""
    undisturbed, wrong = taken_over.under(())
    schedules = taken_over.chosen(further(undisturbed, 1, most_kills=0))
    for choices in schedules:
        run, found = taken_over.under(choices)
        wrong += found
        schedules += taken_over.chosen(further(run, 1, most_kills=0))
    assert len(schedules) > (200 if taken_over.file_system.has_noreplace else 60)
    assert wrong == []


@pytest.mark.slow
def test_a_trainer_that_wakes_up_while_its_successor_writes_disturbs_nothing(taken_over: TakenOver) -> None:
    """Of the schedules in which the first goes on at a moment of the second, which goes on after it, some."""
    chance, wrong = random.Random(0), list[str]()
    undisturbed, _ = taken_over.under(())
    for _ in range(100 if taken_over.file_system.has_noreplace else 20):
        once, found = taken_over.under(chance.choice(list(further(undisturbed, 1, most_kills=0))))
        if twice := list(further(once, 2, most_kills=0)):
            found += taken_over.under(chance.choice(twice))[1]
        wrong += found
    assert wrong == []


def test_who_starts_a_run_over_and_is_cut_off_at_any_call_moves_nothing_of_its_successor(
    taken_over: TakenOver,
) -> None:
    starts_over = StartsOver(taken_over.place, taken_over.file_system)
    undisturbed, wrong = starts_over.under(())
    schedules = starts_over.chosen(further(undisturbed, 1, most_kills=0))
    for choices in schedules:
        wrong += starts_over.under(choices)[1]
    assert len(schedules) > (100 if taken_over.file_system.has_noreplace else 20)
    assert Counter(wrong) == Counter()


def _beside(path: Path, folder: Path | None = None) -> Any:
    return aside(path, None)


def _not_fenced(*args: Any) -> None: ...


# A part of the fence, and what is there without it.
PARTS = {
    "writes in an own folder": (TakenOver, files, "_aside", _beside),
    "removals through it": (TakenOver, folder, "discard", lambda path, through: discard(path, None)),
    "looks at the lock": (TakenOver, LockGuard, "check", _not_fenced),
    "removal of the former owner's folder": (TakenOver, lock, "fence", _not_fenced),
    "taking over of what was being moved": (StartsOver, lock, "take_over", _not_fenced),
}


def is_found_wrong(scene: TakenOver, undisturbed: Run) -> bool:
    """Whether something is, where the first one is cut off at each of its calls, and wakes up when the second is at its
    end, or at some of its calls: in an order in which what is near each other in time comes apart."""
    chance = random.Random(0)
    schedules = list(further(undisturbed, 1, most_kills=0))
    chance.shuffle(schedules)
    for choices in schedules:
        once, wrong = scene.under(choices)
        twice = list(further(once, 2, most_kills=0))
        if wrong or (twice and scene.under(chance.choice(twice))[1]):
            return True
    return False


@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_the_fence_can_be_done_without(
    taken_over: TakenOver, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedules as those above find it."""
    kind, place, name, without = PARTS[part]
    scene = kind(taken_over.place, taken_over.file_system)
    undisturbed, wrong = scene.under(())
    assert wrong == []
    monkeypatch.setattr(place, name, without)
    assert is_found_wrong(scene, undisturbed)


@contextmanager
def answer_lost(system: FileSystem, nth: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The n-th call that changes a name below a folder does so, and is answered as if it had been sent twice."""
    calls: list[str] = []

    def losing(name: str, raw: Callable[..., Any], number: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not str(args[0]).startswith(str(system.root)):
                return raw(*args, **kwargs)
            system.refuse(name, args)
            result = raw(*args, **kwargs)
            calls.append(f"{name} {args}")
            if len(calls) == nth:
                raise OSError(number, os.strerror(number), str(args[0]))
            return result

        return call

    gone, there = errno.ENOENT, errno.EEXIST
    answers = {"rename": gone, "replace": gone, "unlink": gone, "remove": gone, "rmdir": gone, "mkdir": there}
    with monkeypatch.context() as patch:
        for name, number in {**answers, "link": there}.items():
            patch.setattr(os, name, losing(name, getattr(os, name), number))
        patch.setattr(exclusive_move, "rename_noreplace", losing("noreplace", exclusive_move.rename_noreplace, there))
        yield calls


def test_no_answer_that_is_lost_ends_or_changes_a_run(taken_over: TakenOver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each rename, link, folder made and removal: of the lock, weights, states, the table, the status."""
    for nth in count(1):
        taken_over.set_up()
        with answer_lost(taken_over.file_system, nth, monkeypatch) as calls:
            token = taken_over.second()
        if len(calls) < nth:
            break
        assert (calls[nth - 1], taken_over.found_wrong(token)) == (calls[nth - 1], [])
    assert nth > 20


def test_no_answer_that_is_lost_mixes_a_run_that_starts_over_with_the_older(
    taken_over: TakenOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nth in count(1):
        taken_over.set_up()
        run = LockGuard(taken_over.locked[0]).owned(taken_over.run)
        write_config(run, {"model_dir": "before"})
        before = run.best_weights.read_bytes()
        with answer_lost(taken_over.file_system, nth, monkeypatch) as calls:
            previous = set_aside(run)
        assert previous is not None
        assert (previous / "params" / run.best_weights.name).read_bytes() == before
        assert [run.has_run, run.params.exists(), run.resume.exists()] == [False] * 3
        if len(calls) < nth:
            break
