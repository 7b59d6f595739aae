"""Runs that are out of memory: recognised, let go of, and told what would fit."""

import gc
import json
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers import one_core

from accel_trainer.config import Job
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found
from accel_trainer.run.status import (
    RankError,
    RunState,
    Status,
    first_rank_error,
    read_status,
    write_rank_error,
    write_status,
)
from accel_trainer.training import session, trainer
from accel_trainer.training.failures import is_out_of_memory
from accel_trainer.training.session import SessionOptions
from accel_trainer.training.tune import batch_size
from accel_trainer.training.tune.range_verdict import Verdict

MakeJob = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("tiny_models", "one_core_and_fresh_accelerate")


@pytest.fixture
def one_core_and_fresh_accelerate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield from one_core()
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def huge() -> None:
    torch.empty(10**15)


def because_of(error: Exception) -> Exception:
    try:
        raise RuntimeError("image 3 of the data set") from error
    except RuntimeError as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("whatever"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (because_of(MemoryError()), True),
        (because_of(ValueError("cut short")), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_a_lack_of_memory_is_distinguished_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_the_allocator_of_the_cpu_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        huge()
    assert is_out_of_memory(caught.value)


# -- a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hungry(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    """A job on two digits whose model is out of memory with more than 20 images at a time. As on a GPU, what fits is
    tried with the model itself."""
    monkeypatch.setattr(batch_size, "memory_check", fits_when_tried)
    monkeypatch.setattr(session, "run_log", lambda *_, **__: nullcontext(lambda: None))
    no_plotter = SimpleNamespace(start=lambda: None, draw=lambda: None, close=lambda: None)
    monkeypatch.setattr(trainer, "Plotter", lambda _: no_plotter)

    def make(**given: Any) -> Job:
        few = {
            "architecture": "tiny_models:Hungry",
            "architecture_args": {"image_size": 8, "most": 20},
            "class_subset": [0, 1],
            "image_size": 8,
            "batch_size": 64,
            "num_epochs": 1,
            "num_workers": 0,
            "optimizer_args": {"lr": 0.01},
        }
        job = make_job(**{**few, **{key: value for key, value in given.items() if key != "retries"}})
        return job.model_copy(update={"retries": given.get("retries", 0)})

    return make


def fits_when_tried(job: Job, parts: Any, accelerator: Any) -> Callable[[int], bool]:
    trial = batch_size.MemoryTrial(job, parts, accelerator)
    share = job.num_views * accelerator.num_processes * job.gradient_accumulation
    return lambda size: trial(size // share)


def attempt(job: Job, path: Path, submission: str = "first") -> Status:
    run = RunFolder(path)
    run.create()
    session.train(job, run, StopRequest(), SessionOptions(token="token", submission=submission))
    status = read_status(run)
    assert status is not None
    return status


OUT = (
    "out of memory at step 1 (epoch 1) with batch_size 64 (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a "
)


def test_a_run_that_is_out_of_memory_reports_it(hungry: MakeJob, tmp_path: Path) -> None:
    said = attempt(hungry(), tmp_path / "run")
    assert said.state is RunState.OUT_OF_MEMORY
    assert said.error == f"{OUT}total capacity); {batch_size.SMALLER_BATCH_HINT}"
    assert (said.fitting_batch_size, said.failed_at is not None) == (None, True)


@pytest.mark.parametrize(
    ("given", "helps"),
    [
        ({}, "16 would fit; gradient_accumulation 4 keeps the batch of 64"),
        ({"gradient_accumulation": 2}, "32 would fit; gradient_accumulation 4 keeps the batch of 64"),
        ({"architecture_args": {"image_size": 8, "most": 1}}, "no smaller batch_size would fit either; use a smaller "),
    ],
)
def test_where_there_are_retries_what_fits_is_found(
    hungry: MakeJob, tmp_path: Path, given: dict[str, Any], helps: str
) -> None:
    said = attempt(hungry(retries=1, **given), tmp_path / "run")
    assert said.state is RunState.OUT_OF_MEMORY
    assert said.error is not None
    assert f"); {helps}" in said.error
    size = helps.split()[0]
    assert said.fitting_batch_size == (int(size) if size.isdigit() else None)


def test_the_search_for_what_fits_starts_with_all_memory_free(
    hungry: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[torch.nn.Module]] = []
    make = tiny_models.Hungry.__init__

    def make_and_watch(self: torch.nn.Module, *args: Any, **keywords: Any) -> None:
        make(self, *args, **keywords)
        models.append(weakref.ref(self))

    alive: list[int] = []

    def build(*_: object, **__: object) -> None:
        alive.append(sum(model() is not None for model in models))
        raise ValueError("enough")

    monkeypatch.setattr(tiny_models.Hungry, "__init__", make_and_watch)
    monkeypatch.setattr(batch_size, "build", build)
    gc.disable()
    try:
        said = attempt(hungry(retries=1), tmp_path / "run")
    finally:
        gc.enable()
    assert models
    assert alive == [0]
    assert said.state is RunState.OUT_OF_MEMORY, "a search that fails takes nothing back"
    assert said.error is not None
    assert said.error.endswith(batch_size.SMALLER_BATCH_HINT)


def test_auto_does_not_choose_again_what_did_not_fit(
    hungry: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And rates that were found for the larger batch are found anew."""
    caplog.set_level(logging.INFO, "accel_trainer")
    monkeypatch.setattr("accel_trainer.training.tune.resolve.memory_check", lambda *_: lambda size: size <= 64)
    job, run = hungry(batch_size="auto", optimizer_args={"lr": "batch_linear"}), RunFolder(tmp_path / "run")
    said = attempt(job, run.path)
    assert said.state is RunState.OUT_OF_MEMORY
    assert said.error == f"{OUT}total capacity); 16 would fit; the next attempt takes no more"
    assert read_found(run) == {"auto": 64, "batch_linear": 2.0}
    said = attempt(job, run.path)
    assert said.state is RunState.FINISHED, said.error
    assert read_found(run) == {"auto": 16, "batch_linear": 0.5}
    assert json.loads(run.config.read_text())["batch_size"] == 16
    assert "batch_size: 16 (32 did not fit into memory in an earlier attempt)" in caplog.messages
    caplog.clear()
    assert attempt(job, run.path).state is RunState.FINISHED
    assert "auto is 16, as found when the run began" in caplog.messages


def test_what_fitted_is_of_one_submission(hungry: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel_trainer.training.tune.resolve.memory_check", lambda *_: lambda size: size <= 64)
    job = hungry(batch_size="auto")
    assert attempt(job, tmp_path / "run", "first").fitting_batch_size == 16
    again = attempt(job, tmp_path / "run", "second")
    assert again.error is not None
    assert "with batch_size 64" in again.error


def test_a_lack_of_memory_while_a_rate_is_looked_for_counts_too(
    hungry: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accel_trainer.training.tune.resolve.memory_check", lambda *_: lambda size: size <= 64)
    job, run = hungry(batch_size="auto", optimizer_args={"lr": "LRfinder"}), RunFolder(tmp_path / "run")
    said = attempt(job, run.path)
    assert said.error is not None
    assert said.error.startswith("out of memory before the first step with batch_size 64 (CUDA")
    assert said.fitting_batch_size == 16
    # Of so few images the curve is too noisy for a rate, and here it may be any.
    monkeypatch.setattr("accel_trainer.training.tune.resolve.judge", lambda tried: Verdict(0.01, 1.0))
    assert attempt(job, run.path).state is RunState.FINISHED
    assert read_found(run)["auto"] == 16


def test_a_run_that_has_begun_keeps_its_batch(hungry: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel_trainer.training.tune.resolve.memory_check", lambda *_: lambda size: size <= 16)
    job, run = hungry(batch_size="auto", num_epochs=1), RunFolder(tmp_path / "run")
    assert attempt(job, run.path).state is RunState.FINISHED
    job = job.model_copy(update={"num_epochs": 2})
    monkeypatch.setattr(tiny_models.Hungry, "__init__", less_memory(8))
    for _ in range(2):
        said = attempt(job, run.path)
        assert said.error is not None
        assert "out of memory at step 17 (epoch 2) with batch_size 16 " in said.error
        assert said.error.endswith(
            "8 would fit; but the run has begun with 16: free memory, or start over with batch_size 8 (checkpoint -1)"
        )
        assert read_found(run) == {"auto": 16}


def less_memory(most: int) -> Callable[..., None]:
    make = tiny_models.Hungry.__init__

    def make_smaller(self: tiny_models.Hungry, *args: Any, **keywords: Any) -> None:
        make(self, *args, **{**keywords, "most": most})

    return make_smaller


def test_a_lack_of_memory_in_the_validation_is_reported(
    hungry: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = tiny_models.Pixels.forward

    def greedy(self: tiny_models.Pixels, images: torch.Tensor) -> torch.Tensor:
        return forward(self, images) if self.training or images.is_meta else torch.empty(10**15)

    monkeypatch.setattr(tiny_models.Pixels, "forward", greedy)
    said = attempt(hungry(batch_size=16), tmp_path / "run")
    assert said.error is not None
    assert said.error.startswith("out of memory in the validation of epoch 1 with batch_size 16 ([enforce fail at ")


def test_another_rank_leaves_what_it_was(hungry: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 then dies of that the other is gone; the runner takes the first."""
    run = RunFolder(tmp_path / "run")
    run.create()
    session.train(hungry(retries=1), run, StopRequest(), SessionOptions(rank=1, token="token", submission="first"))
    first = first_rank_error(run, "token")
    assert first is not None
    assert (first.state, first.fitting_batch_size) == (RunState.OUT_OF_MEMORY, 16)
    assert first.error == f"rank-1: {OUT}total capacity); 16 would fit; gradient_accumulation 4 keeps the batch of 64"
    assert read_status(run) is None


def test_what_another_rank_has_found_to_fit_counts_in_the_next_attempt(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    write_status(run, Status(state=RunState.FAILED, token="then", submission="first"))
    write_rank_error(run, 1, RankError("then", "out of memory", 0.0, RunState.OUT_OF_MEMORY, 32))
    assert session._fitting_batch_size(run, "first") == 32
    assert session._fitting_batch_size(run, "second") is None
    write_status(run, Status(state=RunState.FAILED, token="then", submission="first", fitting_batch_size=16))
    assert session._fitting_batch_size(run, "first") == 16
