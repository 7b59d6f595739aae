"""What is saved while the training goes on: it is of one moment, in order, and all that goes wrong is said."""

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import TINY, assert_same, outcome, taken_up, train
from torch import Tensor

from accel_trainer.core import files
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockLost
from accel_trainer.run.status import RunState
from accel_trainer.training.failures import known_failure
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.state import checkpoint
from accel_trainer.training.state.checkpoint import NotSaved, StateStore, TrainState
from accel_trainer.training.tracking import Tracking

MakeLoop = Callable[..., TrainingLoop]

pytestmark = pytest.mark.usefixtures("tiny_models")

LIMIT_S = 60
EVERY_STEP: dict[str, Any] = {
    **TINY,
    "optimizer": "AdamW",
    "optimizer_args": {"lr": 0.01, "amsgrad": True},
    "num_epochs": 3,
    "ema": 0.9,
    "swa": {"start": 1},
    "save_interval": 1,
    "save_every_minutes": 1e-9,
}


def is_aside() -> bool:
    """Whether this is not the thread of the training."""
    return threading.current_thread() is not threading.main_thread()


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {key: tensor for at, one in inside for key, tensor in tensors(one, f"{name}.{at}").items()}


def saved(loop: TrainingLoop, monkeypatch: pytest.MonkeyPatch, *, late: bool) -> list[TrainState]:
    """All states of a run, as they are read. late: each is written when the training has gone on, by a step or to the
    end of the epoch."""
    states, save = list[TrainState](), StateStore.save

    def save_late(store: StateStore, state: TrainState) -> None:
        deadline = time.monotonic() + LIMIT_S
        moment = state.progress.epoch, state.progress.step
        while late and is_aside() and (loop.progress.epoch, loop.progress.step) == moment:
            assert time.monotonic() < deadline, "the training waits"
            time.sleep(0.001)
        save(store, state)
        newest = store.newest()
        assert newest is not None
        states.append(newest)

    with monkeypatch.context() as patch:
        patch.setattr(StateStore, "save", save_late)
        if not late:
            patch.setattr(loop.saver, "running", nullcontext)
        train(loop)
    return states


def test_a_state_is_of_one_moment_however_late_it_is_written(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_loop, aside = (make_loop(tmp_path / name, **EVERY_STEP) for name in ("in the loop", "aside"))
    expected = saved(in_the_loop, monkeypatch, late=False)
    found = saved(aside, monkeypatch, late=True)
    assert len(found) == len(expected) == 3 * (2 + 1)
    for one, other in zip(found, expected, strict=True):
        assert one.progress.global_step == other.progress.global_step
        ours = tensors([dict(one.model), one.trainer.as_record()])
        theirs = tensors([dict(other.model), other.trainer.as_record()])
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
        assert ours[".1.optimizer.state.0.step"] == one.progress.global_step
    assert_same(outcome(aside), outcome(in_the_loop))


def test_all_that_is_saved_after_an_epoch_is_written_in_its_order(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state makes the epoch final; the table shows what is final."""
    seen: list[tuple[str, bool]] = []
    replace, log_epoch = files.rename_over, Tracking.log_epoch

    def see(aside: Path, path: Path) -> Path:
        if path.name != "status.json":
            seen.append((path.name, is_aside()))
        return replace(aside, path)

    def log(tracking: Tracking, rows: Any) -> None:
        seen.append(("trackers", is_aside()))
        log_epoch(tracking, rows)

    def record() -> Callable[[], None]:
        return lambda: seen.append(("record", is_aside()))

    monkeypatch.setattr(files, "rename_over", see)
    monkeypatch.setattr(Tracking, "log_epoch", log)
    loop = make_loop(tmp_path / "run", **{**EVERY_STEP, "save_every_minutes": 60, "num_epochs": 2})
    loop.before_save = record
    train(loop)
    first = ["001.safetensors", "best.safetensors", "ema.safetensors", "trackers", "record", "000000002-0001"]
    assert seen[:7] == [(name, True) for name in [*first, "performance.csv"]]
    last = [name for name, _ in seen[7:] if name != "best.safetensors"]
    assert last == [
        "002.safetensors", "ema.safetensors", "swa.safetensors", "trackers", "record", "000000004-0002",
        "performance.csv",
    ]  # fmt: skip
    assert not any(aside for _, aside in seen[7:]), "the last one is waited for"


def test_what_cannot_be_saved_ends_the_training_at_its_next_step(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words that it would have if the training had waited."""
    given = {**TINY, "batch_size": 16, "num_epochs": 3}
    loop = make_loop(tmp_path / "run", **given)
    steps, has_failed = loop.parts.sampling.steps_per_epoch, threading.Event()

    def fail(*_: Any) -> None:
        assert is_aside()
        has_failed.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", fail)
        with pytest.raises(NotSaved) as caught:
            train(loop)
    assert (loop.progress.epoch, has_failed.is_set()) == (1, True)
    assert loop.progress.step < steps
    assert known_failure(caught.value, "", 16, loop.states) == (
        RunState.MACHINE_FAILED,
        f"the disk is full: the state of step {steps} cannot be saved in {loop.run.resume} "
        "(No space left on device); no state was saved before, so the run starts over",
    )
    undisturbed = train(make_loop(tmp_path / "undisturbed", **given))
    assert_same(outcome(train(taken_up(make_loop(tmp_path / "run", **given)))), outcome(undisturbed))


def test_a_stop_while_a_state_is_written_has_its_own_saved_after_it(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(tmp_path / "run", **{**TINY, "num_epochs": 3})
    steps, save = list[tuple[int, bool]](), StateStore.save

    def save_late(store: StateStore, state: TrainState) -> None:
        if is_aside():
            loop.stop.signal = 15
            time.sleep(0.1)
        save(store, state)
        steps.append((state.progress.global_step, is_aside()))

    monkeypatch.setattr(StateStore, "save", save_late)
    with pytest.raises(Stopped):
        train(loop)
    (first, last) = steps
    assert first == (2, True)
    assert last[0] in (3, 4)
    assert not last[1]
    newest = loop.states.newest()
    assert newest is not None
    assert newest.progress.global_step == last[0] == loop.progress.global_step


@pytest.mark.parametrize("name", ["001.safetensors", "000000002-0001", "performance.csv"])
def test_who_loses_the_folder_while_it_saves_shows_nothing_more_there(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """However long it takes to write: the folder is looked at just before what is written could be seen."""
    loop = make_loop(tmp_path / "run", **{**TINY, "num_epochs": 3, "save_interval": 1})
    sync, lost, before = files._sync, threading.Event(), dict[Path, bytes]()

    def all_files() -> dict[Path, bytes]:
        found = (path for path in loop.run.path.rglob("*") if path.is_file() and path.name != "status.json")
        return {path: path.read_bytes() for path in found if ".tmp" not in str(path)}

    def sync_and_lose(path: Path) -> None:
        sync(path)
        if path.name.startswith(f".{name}") and not lost.is_set():
            before.update(all_files())
            lost.set()

    def check_owner() -> None:
        if lost.is_set():
            raise LockLost("another process has it")

    object.__setattr__(loop.run, "check_owner", check_owner)
    monkeypatch.setattr(files, "_sync", sync_and_lose)
    with pytest.raises(LockLost):
        train(loop)
    assert lost.is_set()
    assert all_files() == before
    assert not (loop.run.path / name).exists()
    assert list(RunFolder(loop.run.path).path.rglob("*.tmp")) == []
