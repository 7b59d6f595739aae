"""Disks that cannot be written, in the words of the run that they end."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from loops import TINY, taken_up, train
from torch import Tensor

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState
from accel_trainer.training.failures import Diverged, known_failure
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.state import checkpoint
from accel_trainer.training.state.checkpoint import StateStore

MakeLoop = Callable[..., TrainingLoop]


def failing(number: int) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full: "),
        (errno.EDQUOT, "the disk quota is used up: "),
        (errno.EIO, "the disk has failed: "),
        (errno.EROFS, "the disk is read-only: "),
        (errno.EACCES, "permission is missing: "),
        (errno.EMFILE, "too many files are open in one process (`ulimit -n` allows more): "),
    ],
)
@pytest.mark.usefixtures("tiny_models")
def test_a_state_that_cannot_be_saved_ends_the_run_naming_the_kept_one(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    loop = make_loop(tmp_path / "run", **TINY, num_epochs=1)
    folder = f"cannot be saved in {loop.run.resume} ({os.strerror(number)}); "
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", failing(number))
        with pytest.raises(checkpoint.NotSaved) as caught:
            train(loop)
    assert known_failure(caught.value, "", 128, loop.states) == (
        RunState.MACHINE_FAILED,
        f"{said}the state of step 2 {folder}no state was saved before, so the run starts over",
    )
    train(taken_up(make_loop(tmp_path / "run", **TINY, num_epochs=1)))
    longer = taken_up(make_loop(tmp_path / "run", **TINY, num_epochs=2))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", failing(number))
        with pytest.raises(checkpoint.NotSaved) as caught:
            train(longer)
    assert known_failure(caught.value, "", 128, longer.states) == (
        RunState.MACHINE_FAILED,
        f"{said}the state of step 4 {folder}the state of step 2 is kept, and the run goes on from it",
    )


@pytest.mark.parametrize("file", ["params/002.safetensors", "performance.csv"])
@pytest.mark.usefixtures("tiny_models")
def test_another_file_that_cannot_be_written_is_named(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    loop = train(make_loop(tmp_path / "run", **TINY, num_epochs=1))
    loop = taken_up(make_loop(tmp_path / "run", **TINY, num_epochs=2))
    replace = Path.replace

    def replace_unless_full(self: Path, target: Path) -> Path:
        if target == loop.run.path / file:
            failing(errno.ENOSPC)()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_unless_full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        train(loop)
    step = 2 if file.startswith("params") else 4
    assert known_failure(caught.value, "", 128, loop.states) == (
        RunState.MACHINE_FAILED,
        f"the disk is full: {loop.run.path / file} cannot be written (No space left on device); "
        f"the state of step {step} is kept, and the run goes on from it",
    )


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/data/occluders/1.png"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "RUN/params"),
        ValueError("another error"),
    ],
    ids=repr,
)
def test_other_errors_are_not_explained_by_guesses(run: RunFolder, error: Exception) -> None:
    if isinstance(error, OSError) and str(error.filename).startswith("RUN"):
        error.filename = str(run.params)
    assert known_failure(error, "", 128, StateStore(run)) is None


@pytest.mark.parametrize("init_scale", [2.0**-146, 8.0])
@pytest.mark.usefixtures("tiny_models")
def test_fp16_that_skips_every_step_has_diverged_when_its_scale_is_gone(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init_scale: float
) -> None:
    """With torch's own GradScaler, which is 0 after four more steps of the first kind."""
    prepare = Accelerator.prepare

    def with_scaler(self: Accelerator, *parts: Any, **options: Any) -> Any:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
        return prepare(self, *parts, **options)

    monkeypatch.setattr(Accelerator, "prepare", with_scaler)
    loop = make_loop(tmp_path / "run", **{**TINY, "batch_size": 16, "num_epochs": 1})

    def overflow(gradient: Tensor) -> Tensor:
        return gradient * torch.inf

    for parameter in loop.plain_model.parameters():
        parameter.register_hook(overflow)
    if init_scale > 1:  # so far it may yet find a scale that fits
        train(loop)
        assert loop.progress.epoch == 1
        return
    with pytest.raises(Diverged, match=r"every step up to .* was skipped, .*; use mixed_precision 'bf16'") as caught:
        train(loop)
    assert caught.value.where.epoch == 1
    assert loop.states.newest() is None, "nothing of it is kept"
