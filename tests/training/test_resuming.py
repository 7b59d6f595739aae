"""A run that is stopped or killed, wherever it is, and taken up by fresh objects comes to the same as one that was
not."""

import errno
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loops import TINY, assert_same, outcome, records, taken_up, train, train_until

from accel_trainer.training import loop as loop_module
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.state import saving
from accel_trainer.training.state.checkpoint import StateStore
from accel_trainer.training.tracking import Tracking

MakeLoop = Callable[..., TrainingLoop]

pytestmark = pytest.mark.usefixtures("tiny_models")

# The rate moves in every epoch: a warm-up, a plateau that acts at once, and SWA's own.
AVERAGED: dict[str, Any] = {
    **TINY,
    "num_epochs": 6,
    "ema": 0.9,
    "swa": {"start": 4, "swa_lr": 0.02, "anneal_epochs": 2},
    "warmup_scheduler": "LinearLR",
    "warmup_scheduler_args": {"start_factor": 0.1, "total_iters": 1},
    "scheduler": "ReduceLROnPlateau",
    "scheduler_args": {"patience": 0, "factor": 0.5, "threshold": 1e9},
    "primary_metric": "CrossEntropyLoss",
}
CONTRASTIVE: dict[str, Any] = {
    **TINY,
    "architecture_args": {"num_classes": 5},
    "criterion": "SimCLRLoss",
    "num_views": 2,
    "knn_interval": 1,
    "primary_metric": "contrastive_acc",
}
CYCLES: dict[str, Any] = {
    **TINY,
    "architecture": "cornet_rt",
    "architecture_args": {"features": [32] * 4, "num_cycles": 4, "return_cycles": "all"},
    "loss_cycle": "uniform",
    "gradient_accumulation": 2,
}


@pytest.mark.parametrize("given", [AVERAGED, CONTRASTIVE, CYCLES], ids=["averaged", "contrastive", "cycles"])
def test_a_run_that_is_stopped_wherever_it_can_be_comes_to_the_same(
    make_loop: MakeLoop, tmp_path: Path, given: dict[str, Any]
) -> None:
    """After every step, at every batch of an evaluation or of SWA's statistics, and between all of these."""
    undisturbed = make_loop(tmp_path / "undisturbed", **given)
    assert train_until(undisturbed, math.inf)
    loop = make_loop(tmp_path / "stopped", **given)
    num_stops, look, before = 0, 1, (0, 0)
    while not train_until(loop, look):
        num_stops += 1
        after = loop.progress.epoch, loop.progress.step
        # What is done between two states begins anew when it is stopped in between: next time one look later.
        look, before = (look + 1 if after == before else 1), after
        loop = taken_up(make_loop(tmp_path / "stopped", **given))
    assert num_stops >= undisturbed.stop.looks
    assert_same(outcome(loop), outcome(undisturbed))


def test_the_rate_of_the_run_that_is_stopped_moves_in_every_epoch(make_loop: MakeLoop, tmp_path: Path) -> None:
    loop = train(make_loop(tmp_path / "run", **AVERAGED))
    rates = [row["lr"] for row in records(loop) if row["split"] == "train"]
    assert rates == pytest.approx([0.005, 0.05, 0.025, 0.0125, (0.0125 + 0.02) / 2, 0.02])


# What is written at the end of an epoch.
WRITES = {
    "save_weights": saving,
    "log_epoch": Tracking,
    "summarize": Tracking,
    "save": StateStore,
    "write_performance": loop_module,
}


class Killed(BaseException):
    pass


def test_a_kill_before_any_write_after_epochs_resumes_to_the_same_bits(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run that is killed before every single write, those of SWA in the last epoch too."""
    written: list[str] = []
    kill_at = math.inf

    def watched(name: str, write: Callable[..., None]) -> Callable[..., None]:
        def write_unless_killed(*args: Any, **keywords: Any) -> None:
            if len(written) == kill_at:
                raise Killed
            written.append(name)
            write(*args, **keywords)

        return write_unless_killed

    for name, place in WRITES.items():
        monkeypatch.setattr(place, name, watched(name, getattr(place, name)))
    given = {**TINY, "ema": 0.9, "swa": {"start": 1}, "save_interval": 1}
    undisturbed = train(make_loop(tmp_path / "undisturbed", **given))
    num_writes = len(written)
    assert num_writes >= 5 + 2 * 4  # the weights of both epochs, of their EMA and of SWA; the others once for each
    loop, num_kills, kill_at = make_loop(tmp_path / "killed", **given), 0, 0
    while loop.progress.epoch < 2:
        written.clear()
        before = loop.progress.epoch
        with pytest.raises(Killed):
            train(loop)
        num_kills += 1
        loop = taken_up(make_loop(tmp_path / "killed", **given))
        kill_at = kill_at + 1 if loop.progress.epoch == before else 0
    assert num_kills == num_writes
    assert_same(outcome(loop), outcome(undisturbed))


PATH_OPEN, PATH_MKDIR = Path.open, Path.mkdir


class FullDisk:
    """The n-th call of those that write to a disk finds it full."""

    CALLS = ((Path, "mkdir"), (Path, "open"), (os, "fsync"), (Path, "replace"), (Path, "rename"))

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
        self.full_at, self.calls = full_at, 0
        self.not_made = set[Any]()  # folders, whichever time it is tried
        for place, name in self.CALLS:
            monkeypatch.setattr(place, name, self._watched(getattr(place, name)))

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        fsync, path_open, path_mkdir = os.fsync, PATH_OPEN, PATH_MKDIR

        def call_unless_full(*args: Any, **keywords: Any) -> Any:
            if call is fsync and stat.S_ISDIR(os.fstat(args[0]).st_mode):  # some disks cannot, and need not
                return call(*args, **keywords)
            if call is path_open and "r" in (args[1] if len(args) > 1 else keywords.get("mode", "r")):
                return call(*args, **keywords)
            self.calls += 1
            if self.calls - 1 == self.full_at or args[0] in self.not_made:
                self.not_made |= {args[0]} if call is path_mkdir else set()
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **keywords)

        return call_unless_full


def test_a_full_disk_at_any_write_after_epochs_resumes_to_the_same_bits(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**TINY, "save_interval": 1}
    undisturbed = train(make_loop(tmp_path / "undisturbed", **given))
    loop, num_failures, full_at = make_loop(tmp_path / "run", **given), 0, 0
    monkeypatch.setattr(loop_module.Reporter, "is_due", lambda _: False)
    monkeypatch.setattr(loop_module.Reporter, "report_epoch", lambda *_: None)
    while loop.progress.epoch < 2:
        before = loop.progress.epoch
        with monkeypatch.context() as patch:
            FullDisk(patch, full_at)
            with pytest.raises(OSError, match="No space left on device"):
                train(loop)
        assert not list(tmp_path.rglob("*.tmp"))
        num_failures += 1
        loop = taken_up(make_loop(tmp_path / "run", **given))
        full_at = full_at + 1 if loop.progress.epoch == before else 0
    # The weights; two folders, three files and the rename of a state; the table, which is then made up for.
    assert num_failures >= 2 * (3 + (2 + 3 * 2 + 1) + 1)
    assert_same(outcome(loop), outcome(undisturbed))
