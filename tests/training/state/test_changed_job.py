"""A run goes on with another job: with its weights, and with everything else as the new job says."""

import csv
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import TINY, assert_same, outcome, records, train, train_until
from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.run.records import read_environment
from accel_trainer.training import session, trainer
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.resume import resume
from accel_trainer.training.session import SessionOptions
from accel_trainer.training.state.checkpoint import Progress, shape_mismatch
from accel_trainer.training.state.restore import best_so_far, measures_the_same, reusable_averages
from accel_trainer.training.state.starting_point import find_starting_point

MakeJob = Callable[..., Job]
MakeLoop = Callable[..., TrainingLoop]

pytestmark = pytest.mark.usefixtures("sessions_in_caplog", "tiny_models")

# No dropout: its draws follow from the count of steps, which goes on where an epoch is begun again.
THEN: dict[str, Any] = {
    **TINY,
    "architecture_args": {"dropout": 0.0},
    "scheduler_args": {"step_size": 1, "gamma": 0.5},
}
SLOWER = {"optimizer_args": {"lr": 0.004, "momentum": 0.5, "weight_decay": 0.1}}


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "accel_trainer")


def begun(loop: TrainingLoop) -> TrainingLoop:
    """Take up what is in the run folder, as a session does, and say there whose job it is now."""
    resume(loop, find_starting_point(loop.job, loop.run, "", is_first=True, wait_for_all=lambda: None))
    loop.run.config.write_text(json.dumps(loop.job.completed()))
    return loop


def rates(loop: TrainingLoop) -> list[float]:
    return [row["lr"] for row in records(loop) if row["split"] == "train"]


def model_of(came_to: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in came_to["tensors"].items() if name.startswith("model.")}


def by_hand(make_loop: MakeLoop, old: TrainingLoop, folder: Path, **now: Any) -> TrainingLoop:
    """A loop of the new job that is put where the end of the old one is."""
    loop = make_loop(folder, **now)
    loop.plain_model.load_state_dict(old.plain_model.state_dict())
    pairs = zip(old.plain_model.parameters(), loop.plain_model.parameters(), strict=True)
    for theirs, ours in pairs:
        loop.optimizer.state[ours]["momentum_buffer"] = old.optimizer.state[theirs]["momentum_buffer"].clone()
    loop.progress = old.progress
    for _ in range(old.progress.epoch - 1):
        loop.parts.schedule.skip(1)
    return loop


def test_the_new_hyper_parameters_and_the_new_schedule_are_in_effect(
    make_loop: MakeLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = train(begun(make_loop(tmp_path / "run", **THEN)))
    now = {**THEN, **SLOWER, "num_epochs": 4, "scheduler_args": {"step_size": 2, "gamma": 0.1}}
    reference = by_hand(make_loop, old, tmp_path / "reference", **now)
    loop = begun(make_loop(tmp_path / "run", **now, allow_changes=True))
    assert caplog.messages[-1] == (
        "the job has changed: num_epochs 2 -> 4, optimizer_args.lr 0.05 -> 0.004, optimizer_args.momentum 0.9 -> 0.5, "
        "optimizer_args.weight_decay 0 -> 0.1, scheduler_args.step_size 1 -> 2, scheduler_args.gamma 0.5 -> 0.1; "
        "going on"
    )
    ours, theirs = outcome(train(loop)), outcome(train(reference))
    assert_same({**ours, "tensors": model_of(ours)}, {**theirs, "tensors": model_of(theirs)})
    assert rates(loop) == pytest.approx([0.05, 0.025, 0.0004, 0.0004])
    assert [group["weight_decay"] for group in loop.optimizer.param_groups] == [0.1]


# -- what the optimizer keeps -----------------------------------------------------------------------------------------


ADAM: dict[str, Any] = {"optimizer": "AdamW", "optimizer_args": {"lr": 0.001}}


@pytest.mark.parametrize(
    ("then", "now", "is_kept"),
    [
        ({}, SLOWER, True),
        ({}, {"clip_grad_norm": 1.0}, True),
        ({}, {"batch_size": 64}, True),
        ({}, ADAM, False),
        ({}, {"decay_norm_and_bias": False}, False),
        (ADAM, {**ADAM, "optimizer_args": {"lr": 0.1, "betas": [0.5, 0.9]}}, True),
        (ADAM, {**ADAM, "optimizer_args": {"lr": 0.001, "amsgrad": True}}, False),
        ({**ADAM, "optimizer_args": {"lr": 0.001, "amsgrad": True}}, ADAM, True),
        ({"optimizer_args": {"lr": 0.05, "momentum": 0}}, {}, True),  # nothing to keep
    ],
)
def test_what_the_optimizer_has_kept_is_used_where_it_fits(
    make_loop: MakeLoop,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    then: dict[str, Any],
    now: dict[str, Any],
    is_kept: bool,
) -> None:
    old = train(begun(make_loop(tmp_path / "run", **{**THEN, **then})))
    kept = old.optimizer.state_dict()["state"]
    loop = begun(make_loop(tmp_path / "run", **{**THEN, **now, "num_epochs": 3}, allow_changes=True))
    found = loop.optimizer.state_dict()["state"]
    if is_kept:
        assert found.keys() == kept.keys()
        assert all(torch.equal(found[n][name], value) for n, of in kept.items() for name, value in of.items())
    else:
        assert not found
    assert ("reset: what the optimizer keeps" in caplog.messages) is not is_kept
    train(loop)


# -- the epoch that was begun -----------------------------------------------------------------------------------------


def test_an_epoch_that_was_begun_is_begun_again(
    make_loop: MakeLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = {**THEN, **SLOWER, "batch_size": 32, "num_epochs": 2, "allow_changes": True}
    at_the_end = begun(make_loop(tmp_path / "end", **{**THEN, "num_epochs": 1}))
    train(at_the_end)
    expected = train(begun(make_loop(tmp_path / "end", **now)))

    stopped = begun(make_loop(tmp_path / "run", **THEN))
    look = 1
    while not (stopped.progress.epoch == 1 and stopped.progress.step == 1):
        look += 1
        stopped = begun(make_loop(tmp_path / f"run{look}", **THEN))
        assert not train_until(stopped, look)
    loop = begun(make_loop(stopped.run.path, **now))
    assert "epoch 2 is begun again" in caplog.messages
    assert (loop.progress.epoch, loop.progress.step, loop.progress.epoch_seconds) == (1, 0, 0.0)
    train(loop)
    ours, theirs = outcome(loop), outcome(expected)
    assert_same({**ours, "tensors": model_of(ours)}, {**theirs, "tensors": model_of(theirs)})


def test_where_the_state_before_the_epoch_is_gone_its_newest_weights_are_used(
    make_loop: MakeLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = begun(make_loop(tmp_path / "run", **{**THEN, "batch_size": 32}))
    assert not train_until(stopped, 2)  # in the first epoch
    assert (stopped.progress.epoch, stopped.progress.step) == (0, 2)
    weights = {name: value.clone() for name, value in stopped.plain_model.state_dict().items()}
    loop = begun(make_loop(tmp_path / "run", **{**THEN, **SLOWER}, allow_changes=True))
    assert "epoch 1 is begun again, with the weights of its step 2: older are not kept" in caplog.messages
    assert (loop.progress.epoch, loop.progress.step, loop.progress.global_step) == (0, 0, 2)
    assert all(torch.equal(value, weights[name]) for name, value in loop.plain_model.state_dict().items())
    assert not loop.meter.sums.any()
    train(loop)
    assert rates(loop) == pytest.approx([0.004, 0.002])


def test_a_run_killed_just_after_the_change_resumes_with_the_new_job(make_loop: MakeLoop, tmp_path: Path) -> None:
    """Before config.json was written, and after."""
    now = {**THEN, **SLOWER, "num_epochs": 4, "ema": 0.9}
    outcomes = []
    for name in ("undisturbed", "before", "after"):
        train(begun(make_loop(tmp_path / name, **THEN)))
        loop = make_loop(tmp_path / name, **now, allow_changes=True)
        if name == "before":
            resume(loop, find_starting_point(loop.job, loop.run, "", is_first=True, wait_for_all=lambda: None))
            loop = make_loop(tmp_path / name, **now, allow_changes=True)
        begun(loop)
        if name == "after":
            loop = begun(make_loop(tmp_path / name, **now))  # no difference is left
        outcomes.append(outcome(train(loop)))
    assert_same(outcomes[1], outcomes[0])
    assert_same(outcomes[2], outcomes[0])


# -- schedules that look at the validation ----------------------------------------------------------------------------

PLATEAU: dict[str, Any] = {
    **THEN,
    "num_epochs": 3,
    "scheduler": "ReduceLROnPlateau",
    "scheduler_args": {"patience": 0, "factor": 0.5, "threshold": 1e9},
    "primary_metric": "CrossEntropyLoss",
}


def test_a_plateau_is_seen_again_in_the_epochs_before(make_loop: MakeLoop, tmp_path: Path) -> None:
    train(begun(make_loop(tmp_path / "run", **PLATEAU)))
    now = {**PLATEAU, "num_epochs": 5, "optimizer_args": {"lr": 0.8, "momentum": 0.9}, "clip_grad_norm": 0.01}
    loop = train(begun(make_loop(tmp_path / "run", **now, allow_changes=True)))
    assert rates(loop) == pytest.approx([0.05, 0.025, 0.0125, 0.1, 0.05])


def test_a_plateau_of_what_can_not_be_compared_begins_anew(make_loop: MakeLoop, tmp_path: Path) -> None:
    train(begun(make_loop(tmp_path / "run", **PLATEAU)))
    now = {**PLATEAU, "num_epochs": 6, "criterion_args": {"label_smoothing": 0.1}}
    loop = begun(make_loop(tmp_path / "run", **now, allow_changes=True))
    assert loop.progress.best is None
    train(loop)
    assert rates(loop)[3:] == pytest.approx([0.05, 0.025, 0.0125])
    assert loop.progress.best_epoch in (4, 5, 6)


# -- averages ---------------------------------------------------------------------------------------------------------


def test_averages_that_are_new_start_afresh_and_those_that_are_gone_are_dropped(
    make_loop: MakeLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = train(begun(make_loop(tmp_path / "run", **THEN, swa={"start": 1})))
    assert old.averages.state_dict().keys() == {"swa"}
    loop = begun(make_loop(tmp_path / "run", **{**THEN, "num_epochs": 3, "ema": 0.5}, allow_changes=True))
    assert caplog.messages[-1] == "reset: the ema average"
    assert loop.averages.state_dict().keys() == {"ema"}
    assert loop.averages.state_dict()["ema"]["n_averaged"] == 0
    state = loop.states.newest()
    assert state is not None
    assert state.trainer.averages.keys() == {"ema"}
    train(loop)
    assert [row["epoch"] for row in records(loop) if row["split"] == "val_ema"] == [3]


@pytest.mark.parametrize(
    ("differences", "kept"),
    [
        ({}, {"ema", "swa"}),
        ({"ema": (0.9, 0.99)}, {"ema", "swa"}),
        ({"swa": ({"start": 2, "swa_lr": None}, {"start": 2, "swa_lr": 0.1})}, {"ema", "swa"}),
        ({"swa": ({"start": 2}, {"start": 3})}, {"ema"}),
    ],
)
def test_a_stochastic_average_is_of_the_epochs_that_the_job_names(differences: dict[str, Any], kept: set[str]) -> None:
    assert reusable_averages({"ema": {}, "swa": {}}, differences).keys() == kept


# -- the best epoch ---------------------------------------------------------------------------------------------------

CONTRASTIVE = {"criterion": "SimCLRLoss", "num_views": 2}


@pytest.mark.parametrize(
    ("given", "key", "expected"),
    [
        ({}, "optimizer_args", True),
        ({}, "cutmix", True),
        ({}, "criterion", True),
        ({}, "dataset", False),
        ({}, "class_subset", False),
        ({}, "image_size", False),
        ({"primary_metric": "CrossEntropyLoss"}, "criterion_args", False),
        ({"primary_metric": "CrossEntropyLoss"}, "cutmix", True),
        (CONTRASTIVE, "transform_type", False),
        (CONTRASTIVE, "criterion_args", False),
        (CONTRASTIVE, "optimizer", True),
    ],
)
def test_what_a_validation_measures_depends_on(
    make_job: MakeJob, given: dict[str, Any], key: str, expected: bool
) -> None:
    assert measures_the_same(make_job(**given), {key: (1, 2)}) is expected


HISTORY = [
    PerformanceRow(epoch, split, {"loss": loss, "acc1": acc1, "acc5": acc5}, lr=0.1, images_per_s=1.0, seconds=1.0)
    for epoch, loss, acc1, acc5 in [(1, 2.0, 30.0, 70.0), (2, 1.0, 50.0, 90.0), (3, 0.5, math.nan, 95.0)]
    for split in ("train", "val")
]


@pytest.mark.parametrize(
    ("metric", "differences", "best_epoch", "expected"),
    [
        ("acc1", {"ema"}, 2, (50.0, 2)),
        ("acc5", {"primary_metric"}, 3, (95.0, 3)),
        ("CrossEntropyLoss", {"primary_metric"}, 3, (0.5, 3)),
        ("acc1", {"primary_metric"}, 2, (50.0, 2)),
        ("acc5", {"primary_metric"}, 2, (None, None)),  # the weights of epoch 3 are not those that are kept as best
        ("acc5", {"primary_metric"}, None, (None, None)),
    ],
)
def test_the_best_epoch_is_one_whose_weights_are_kept(
    make_job: MakeJob, metric: str, differences: set[str], best_epoch: int | None, expected: tuple[Any, Any]
) -> None:
    progress = Progress(epoch=3, best=50.0, best_epoch=best_epoch, history=HISTORY)
    changes = dict.fromkeys(differences, (1, 2))
    assert best_so_far(make_job(primary_metric=metric), changes, progress) == expected


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Linear(2, 3), None),
        (nn.Linear(2, 4), "weight is (3, 2), not (4, 2)"),
        (nn.Linear(2, 3, bias=False), "bias has no place"),
        (nn.Sequential(nn.Linear(2, 3)), "0.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_are_reported(model: nn.Module, said: str | None) -> None:
    assert shape_mismatch(nn.Linear(2, 3).state_dict(), model) == said


def test_weights_of_another_architecture_are_refused_in_one_line(make_loop: MakeLoop, run: RunFolder) -> None:
    parts = make_loop(run.path, **THEN).parts
    with pytest.raises(UserError) as caught:
        trainer._refuse_misfit({**parts.model.state_dict(), "decoder.weight": torch.zeros(3, 8)}, parts)
    assert str(caught.value) == (
        "checkpoint: the saved weights do not fit this architecture: decoder.weight is (3, 8), not (2, 8); "
        "choose another model_dir, or set checkpoint to -1 to start over"
    )


# -- the whole ---------------------------------------------------------------------------------------------------------


def train_in(run: RunFolder, job: Job) -> list[float]:
    """Train in this process, as a worker does; the rates of all epochs. Raises what ended it."""
    session.train(job, run, StopRequest(), SessionOptions(submission="first")).check()
    with run.performance.open() as file:
        return [float(row["lr"]) for row in csv.DictReader(file) if row["split"] == "train"]


@pytest.fixture
def make_small(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return lambda **given: make_job(**{**THEN, "class_subset": [0, 1], "num_epochs": 1, "num_workers": 0, **given})


def test_the_next_attempt_finds_the_new_job(make_small: MakeJob, run: RunFolder) -> None:
    train_in(run, make_small())
    first, images = run.weights(0).read_bytes(), run.sample_inputs.read_bytes()
    now = {**SLOWER, "num_epochs": 2, "transform_type": "none"}
    with pytest.raises(UserError, match=r"optimizer_args\.lr was 0\.05, is 0\.004"):
        train_in(run, make_small(**now))
    assert train_in(run, make_small(**now, allow_changes=True)) == pytest.approx([0.05, 0.002])
    assert train_in(run, make_small(**{**now, "num_epochs": 3})) == pytest.approx([0.05, 0.002, 0.001])
    assert json.loads(run.config.read_text()) == make_small(**{**now, "num_epochs": 3}).completed()
    before, changed, after = read_environment(run)["attempts"]
    assert "changes" not in before
    assert changed["changes"].keys() == {"num_epochs", "optimizer_args", "transform_type"}
    assert changed["changes"]["num_epochs"] == [1, 2]
    assert after["changes"] == {"num_epochs": [2, 3]}
    assert run.weights(0).read_bytes() == first
    assert run.sample_inputs.read_bytes() != images


def contents(run: RunFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_what_cannot_fit_is_refused_and_the_run_left_as_it_is(make_small: MakeJob, run: RunFolder) -> None:
    train_in(run, make_small())
    before = contents(run)
    with pytest.raises(UserError, match=r"the saved weights do not fit this architecture: decoder\.weight is \(2, 8\)"):
        train_in(run, make_small(class_subset=[0, 1, 2], num_epochs=2, allow_changes=True))
    run.remove_leftovers()  # as who holds the lock does
    assert contents(run) == before


def test_a_run_that_has_not_saved_a_state_begins_as_the_new_job(make_small: MakeJob, run: RunFolder) -> None:
    train_in(run, make_small())
    first = run.weights(0).read_bytes()
    shutil.rmtree(run.resume)
    run.performance.unlink()
    assert train_in(run, make_small(seed=1, **SLOWER, allow_changes=True)) == pytest.approx([0.004])
    assert run.weights(0).read_bytes() != first
