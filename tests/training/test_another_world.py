"""A run that is taken up by another number of processes, in the middle of an epoch, is the same run."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from loops import outcome
from ranks import launched, run_two_ranks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from worlds import Seen, train_on

from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.state.step_rows import StepRow

JOB: dict[str, Any] = {
    "architecture": "tiny_models:Double",
    "architecture_args": {"image_size": 8},
    "dataset": "digits",
    "class_subset": [0, 1, 2],
    "image_size": 8,
    "num_epochs": 3,
    "batch_size": 64,
    "gradient_accumulation": 2,
    "optimizer_args": {"lr": 0.05, "momentum": 0.9},
    "clip_grad_norm": 0.5,
    "cutmix": True,
    "ema": 0.9,
    "trackers": ["tensorboard"],
    "log_every_steps": 4,
}
ON_TWO = launched("""
import json
from pathlib import Path
from worlds import train_on

loop, seen = train_on(Path(RUN), json.loads(JOB), STOP_AFTER)
assert loop.world_size == 2
torch.save(seen, f"{folder}/{rank}.pt")
""")


@pytest.fixture(autouse=True)
def fresh_accelerate(tiny_models: None) -> Iterator[None]:
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def on_two(run: Path, folder: Path, stop_after: int) -> Seen:
    folder.mkdir()
    given = f"RUN, JOB, STOP_AFTER = {str(run)!r}, {json.dumps(JOB)!r}, {stop_after}\n"
    run_two_ranks(given + ON_TWO, folder)
    return [image for rank in range(2) for image in torch.load(folder / f"{rank}.pt")]


def test_from_one_process_to_two_and_back_in_the_middle_of_epochs(tmp_path: Path) -> None:
    alone, expected = train_on(tmp_path / "alone", JOB, math.inf)
    assert alone.parts.sampling.steps_per_epoch == 6
    run = tmp_path / "run"
    first, seen = train_on(run, JOB, 2)
    assert (first.progress.epoch, first.progress.step) == (0, 2)
    of_two = on_two(run, tmp_path / "two", 14)
    last, of_one = train_on(run, JOB, math.inf)
    assert {epoch for epoch, *_ in of_two} == {1, 2, 3}
    assert {(epoch, step) for epoch, step, *_ in of_one} == {(3, step) for step in range(3, 6)}
    assert sorted(seen + of_two + of_one) == sorted(expected)

    assert_rows_of_steps_are_the_same(last, alone)
    ours, theirs = outcome(last), outcome(alone)
    assert ours["tensors"].keys() == theirs["tensors"].keys()
    for name, tensor in ours["tensors"].items():
        torch.testing.assert_close(tensor, theirs["tensors"][name], rtol=0, atol=1e-10, msg=name)
    for row, other in zip(ours["rows"], theirs["rows"], strict=True):
        assert row == pytest.approx(other, abs=1e-5)


def assert_rows_of_steps_are_the_same(ours: TrainingLoop, theirs: TrainingLoop) -> None:
    """Means over all images, of whichever process; two rows are of steps of one process and of two. In TensorBoard each
    is there once."""
    found, expected = ([(row.step, row.scores | {"lr": row.lr}) for row in rows_of(loop)] for loop in (ours, theirs))
    assert [step for step, _ in found] == [step for step, _ in expected] == [4, 8, 12, 16]
    for (_, scores), (_, others) in zip(found, expected, strict=True):
        assert scores == pytest.approx(others, abs=1e-9)
    events = EventAccumulator(str(ours.run.path / "accel-train")).Reload()
    logged = events.Scalars("steps/loss")
    assert [event.step for event in logged] == [4, 8, 12, 16]
    assert [event.value for event in logged] == pytest.approx([scores["loss"] for _, scores in expected], rel=1e-6)


def rows_of(loop: TrainingLoop) -> list[StepRow]:
    history = loop.step.step_log.history()
    assert history is not None
    return history.rows
