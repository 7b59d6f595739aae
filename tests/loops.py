"""Trainings in this process: to their end, or to where a test stops them."""

import math
from typing import Any

import torch
from safetensors.torch import load_file

from accel_trainer.core.processes import StopRequest
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.resume import resume
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.state.checkpoint import TrainerState
from accel_trainer.training.state.starting_point import Fresh, FromState, StartingPoint
from accel_trainer.training.tracking import RunAbout, Tracking

# A job whose every part is small: images of 8x8, two steps in an epoch.
TINY: dict[str, Any] = {
    "architecture": "tiny_models:NormAndDropout",
    "image_size": 8,
    "batch_size": 128,
    "optimizer_args": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0},
}


class StopAt(StopRequest):
    """Somebody asks for a stop when the loop looks whether they do for the n-th time."""

    def __init__(self, number: float = math.inf) -> None:
        super().__init__()
        self.number, self.looks = number, 0

    def __bool__(self) -> bool:
        self.looks += 1
        return self.looks >= self.number


def train(loop: TrainingLoop) -> TrainingLoop:
    loop.train(Tracking(loop.accelerator, loop.job, loop.run, RunAbout("id")), plotter=None)
    return loop


def train_until(loop: TrainingLoop, look: float) -> bool:
    """Train, with a stop at the n-th look; whether the end was reached before."""
    loop.stop = StopAt(look)
    try:
        train(loop)
    except Stopped:
        return False
    return True


def at_newest(loop: TrainingLoop) -> StartingPoint:
    """The newest state in the folder of a loop, or its beginning."""
    state = loop.states.newest()
    return Fresh() if state is None else FromState(state)


def trainer_state(**given: Any) -> TrainerState:
    """What is saved beside the model, with as little in it as is given."""
    empty: dict[str, Any] = {"optimizer": {}, "schedule": {}, "scaler": None, "sums": torch.zeros(1, 5)}
    return TrainerState(**{**empty, **given})


def taken_up(loop: TrainingLoop) -> TrainingLoop:
    """A fresh loop that goes on from the newest state in its folder."""
    resume(loop, at_newest(loop))
    return loop


def outcome(loop: TrainingLoop) -> dict[str, Any]:
    """All that a run comes to, but for how long it took: what it has and what it wrote."""
    tensors = {f"model.{name}": value for name, value in loop.plain_model.state_dict().items()}
    for average, state in loop.averages.state_dict().items():
        tensors |= {f"{average}.{name}": value for name, value in state.items()}
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in records(loop)]
    for path in loop.run.params.iterdir():
        tensors |= {f"{path.name}.{name}": value for name, value in load_file(path).items()}
    return {"tensors": tensors, "rows": rows, "best": loop.progress.best}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bit for bit."""
    assert one["tensors"].keys() == other["tensors"].keys()
    assert [n for n, value in one["tensors"].items() if not torch.equal(value, other["tensors"][n])] == []
    assert repr(one["rows"]) == repr(other["rows"])  # NaN is like NaN
    assert one["best"] == other["best"]


def records(loop: TrainingLoop) -> list[dict[str, Any]]:
    """The rows of performance.csv of a loop, flat: epoch, split, scores, lr, and how long each took."""
    return [row.as_record() for row in loop.progress.history]
