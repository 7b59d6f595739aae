"""Where a run starts, from what is in its folder and what the job says."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import trainer_state

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import write_config
from accel_trainer.training.check import JobChecker
from accel_trainer.training.state.checkpoint import Progress, StateStore, TrainState, save_weights
from accel_trainer.training.state.starting_point import (
    Fresh,
    FromState,
    FromWeights,
    StartingPoint,
    find_starting_point,
)

MakeJob = Callable[..., Job]


def start(job: Job, run: RunFolder, submission: str = "first") -> StartingPoint:
    return find_starting_point(job, run, submission, is_first=True, wait_for_all=lambda: None)


def weights(epoch: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), float(epoch))}


def save_state(run: RunFolder, epoch: int, step: int = 0) -> None:
    progress = Progress(epoch=epoch, step=step, global_step=10 * epoch + step)
    StateStore(run).save(TrainState(progress, weights(epoch), trainer_state(), 1))


@pytest.fixture
def trained(run: RunFolder, make_job: MakeJob) -> RunFolder:
    """A run of three epochs, of which the weights of 0 and 2 and the state of 3 are kept."""
    run.config.write_text(json.dumps(make_job().completed()))
    run.performance.write_text("epoch\n")
    for epoch in (0, 2):
        save_weights(run.weights(epoch), weights(epoch))
    save_state(run, 3)
    return run


def came_from(found: StartingPoint) -> tuple[str, int]:
    """What a start is, and which epoch its weights are of."""
    match found:
        case FromState(state):
            assert state.model["w"][0] == state.progress.epoch
            return "state", state.progress.epoch
        case FromWeights(weights, epoch):
            assert weights["w"][0] == epoch
            return "weights", epoch
        case Fresh():
            return "nothing", 0


# What each value of `checkpoint` begins with in the trained run.
BEGINNINGS: dict[int, tuple[str, int]] = {-1: ("nothing", 0), 0: ("weights", 0), 2: ("weights", 2), 3: ("state", 3)}
checkpoints = pytest.mark.parametrize("checkpoint", BEGINNINGS)


def test_an_empty_folder_starts_from_nothing(run: RunFolder, make_job: MakeJob) -> None:
    assert start(make_job(), run) == Fresh()


def test_without_a_checkpoint_a_run_goes_on_from_its_newest_state(trained: RunFolder, make_job: MakeJob) -> None:
    assert came_from(start(make_job(), trained)) == ("state", 3)
    save_state(trained, 3, step=4)
    found = start(make_job(), trained).state
    assert found is not None
    assert (found.progress.epoch, found.progress.step) == (3, 4)
    assert not (trained.path / "previous").exists()


def test_a_run_whose_states_are_gone_starts_from_nothing(trained: RunFolder, make_job: MakeJob) -> None:
    for path in trained.resume.rglob("*.safetensors"):
        path.write_bytes(b"")
    assert start(make_job(), trained) == Fresh()


@checkpoints
def test_a_checkpoint_starts_over_and_keeps_the_older_run(
    trained: RunFolder, make_job: MakeJob, checkpoint: int
) -> None:
    assert came_from(start(make_job(checkpoint=checkpoint), trained)) == BEGINNINGS[checkpoint]
    assert not trained.has_run
    previous = RunFolder(trained.path / "previous" / "1")
    assert previous.has_run
    assert previous.performance.exists()
    assert previous.weights(2).exists()
    assert StateStore(previous).newest() is not None
    assert not trained.next_runs()


@pytest.mark.parametrize("checkpoint", [-1, 0, 2])
def test_the_same_submission_goes_on_and_the_next_starts_over(
    trained: RunFolder, make_job: MakeJob, checkpoint: int
) -> None:
    job = make_job(checkpoint=checkpoint)
    start(job, trained)
    assert came_from(start(job, trained)) == BEGINNINGS[checkpoint]  # before a state was saved
    trained.config.write_text(json.dumps(job.completed()))
    for epoch in (0, 2):
        save_weights(trained.weights(epoch), weights(epoch))
    save_state(trained, 5)
    assert came_from(start(job, trained)) == ("state", 5)
    assert len(list((trained.path / "previous").iterdir())) == 1
    assert came_from(start(job, trained, "second")) == BEGINNINGS[checkpoint]
    assert len(list((trained.path / "previous").iterdir())) == 2


@pytest.mark.parametrize("checkpoint", [-1, 0])
def test_starting_over_where_nothing_is_starts_from_nothing(run: RunFolder, make_job: MakeJob, checkpoint: int) -> None:
    assert start(make_job(checkpoint=checkpoint), run) == Fresh()
    assert not (run.path / "previous").exists()


def test_a_missing_epoch_lists_those_that_are_there(trained: RunFolder, make_job: MakeJob) -> None:
    with pytest.raises(UserError) as caught:
        start(make_job(checkpoint=7), trained)
    assert str(caught.value) == f"checkpoint: {trained.path} has no weights of epoch 7; there are: 000, 002"
    assert trained.has_run
    assert came_from(start(make_job(), trained)) == ("state", 3)


def test_a_missing_epoch_of_no_run_is_reported(run: RunFolder, make_job: MakeJob) -> None:
    with pytest.raises(UserError, match="has no weights of epoch 1; there are: none"):
        start(make_job(checkpoint=1), run)


class Killed(BaseException):
    pass


def start_until_killed(
    job: Job, run: RunFolder, monkeypatch: pytest.MonkeyPatch, renames: int, submission: str = "first"
) -> None:
    """Start, but be killed before the given number of files and folders has been moved."""
    left, rename = iter(range(renames)), Path.rename

    def rename_until_killed(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Path, "rename", rename_until_killed)
        start(job, run, submission)


# At most eight: for checkpoint 3 the new state, then four of the older run, then the parts of the new one.
@checkpoints
@pytest.mark.parametrize("renames", range(8))
def test_starting_over_that_was_interrupted_is_finished_by_the_next_attempt(
    trained: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, checkpoint: int, renames: int
) -> None:
    job = make_job(checkpoint=checkpoint)
    start_until_killed(job, trained, monkeypatch, renames)
    trained.create()  # as every attempt does first
    assert came_from(start(job, trained)) == BEGINNINGS[checkpoint]
    assert came_from(start(job, trained)) == BEGINNINGS[checkpoint]
    kept = [path.name for path in (trained.path / "previous").rglob("*") if path.is_file()]
    assert kept.count("config.json") == 1
    assert {"config.json", "performance.csv", "000.safetensors", "002.safetensors", "trainer.pt"} <= set(kept)


@pytest.mark.parametrize("renames", [*range(8), 99])
def test_a_run_that_went_back_and_never_began_makes_way_for_the_next(
    trained: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Whether from nothing, or from the epoch that it went back to."""
    start(make_job(checkpoint=3), trained)
    assert not trained.has_run
    with monkeypatch.context() as patch:
        start_until_killed(make_job(checkpoint=-1), trained, patch, renames, "second")
    trained.create()
    assert start(make_job(checkpoint=-1), trained, "second") == Fresh()
    assert StateStore(trained).newest() is None
    assert (trained.path / "previous" / "1" / "config.json").exists()


def test_a_run_that_went_back_and_never_began_can_go_back_again(trained: RunFolder, make_job: MakeJob) -> None:
    for submission in ("first", "second", "third"):
        assert came_from(start(make_job(checkpoint=3), trained, submission)) == ("state", 3)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 32}, {"architecture": "resnet18"}])
def test_another_job_in_the_folder_is_refused(trained: RunFolder, make_job: MakeJob, change: dict[str, Any]) -> None:
    ((key, value),) = change.items()
    then = make_job().completed()[key]
    with pytest.raises(UserError) as caught:
        start(make_job(**change), trained)
    assert f"model_dir: {trained.path} holds a run of another job ({key} was {then!r}, is {value!r})" in str(
        caught.value
    )
    assert "checkpoint to -1" in str(caught.value)
    assert "or allow_changes to true to go on with what is new" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert came_from(start(make_job(**change, checkpoint=-1), trained)) == ("nothing", 0)


def test_more_epochs_do_not_make_another_job(trained: RunFolder, make_job: MakeJob) -> None:
    assert came_from(start(make_job(num_epochs=500, num_workers=0), trained)) == ("state", 3)


@pytest.mark.parametrize(
    ("change", "told", "differences"),
    [
        ({"num_epochs": 4, "trackers": ["wandb"]}, 'num_epochs 100 -> 4, trackers [] -> ["wandb"]', set()),
        ({"description": "x", "priority": 0, "after": ["other"], "allow_changes": True}, None, set()),
        ({"seed": 1, "allow_changes": True, "save_interval": 2}, "save_interval absent -> 2, seed 0 -> 1", {"seed"}),
    ],
)
def test_changes_of_the_job_are_reported_in_one_line(
    trained: RunFolder,
    make_job: MakeJob,
    heard_log: pytest.LogCaptureFixture,
    change: dict[str, Any],
    told: str | None,
    differences: set[str],
) -> None:
    heard_log.set_level(logging.INFO, "accel_trainer")
    found = start(make_job(**change), trained)
    assert heard_log.messages == ([] if told is None else [f"the job has changed: {told}; going on"])
    assert found.differences.keys() == differences
    assert came_from(found) == ("state", 3)


@pytest.mark.parametrize("allows", [True, False])
def test_a_job_that_starts_over_has_not_changed(trained: RunFolder, make_job: MakeJob, allows: bool) -> None:
    assert not start(make_job(seed=1, checkpoint=2, allow_changes=allows), trained).changes


@pytest.mark.parametrize(("seed", "expected"), [(0, (3, 4, 34)), (1, (3, 0, 34))])
def test_only_another_job_begins_an_epoch_again(
    trained: RunFolder, make_job: MakeJob, seed: int, expected: tuple[int, int, int]
) -> None:
    save_state(trained, 3, step=4)
    found = start(make_job(seed=seed, allow_changes=True), trained).state
    assert found is not None
    assert (found.progress.epoch, found.progress.step, found.progress.global_step) == expected


def test_other_ranks_wait_and_move_nothing(trained: RunFolder, make_job: MakeJob) -> None:
    """Rank 1 is let in first and rank 0 does its part while it waits; both start alike."""
    job, waits, answers = make_job(checkpoint=2), iter(range(2)), []

    def rank_0_works() -> None:
        if next(waits) == 0:
            assert trained.has_run
        else:
            answers.append(start(job, trained))

    answers.append(find_starting_point(job, trained, "first", is_first=False, wait_for_all=rank_0_works))
    assert [came_from(answer) for answer in answers] == [("weights", 2)] * 2


def test_results_without_a_state_to_go_on_from_are_not_overwritten(run: RunFolder, make_job: MakeJob) -> None:
    run.config.write_text(json.dumps(make_job().completed()))
    run.performance.write_text("epoch,split\n1,train\n1,val\n")
    with pytest.raises(UserError, match=r"has results in performance\.csv but no whole state in resume/"):
        start(make_job(), run)
    assert came_from(start(make_job(checkpoint=-1), run)) == ("nothing", 0)


@pytest.mark.parametrize("outside", ["../secret/000.safetensors", "/absolute/000.safetensors", 7, ["a"], {"a": 1}])
@pytest.mark.parametrize("epoch", [0, "0", None, 1.5, "../../secret/000"])
def test_the_folder_decides_where_a_run_resumes_whatever_records_claim(
    trained: RunFolder, make_job: MakeJob, outside: Any, epoch: Any
) -> None:
    job = make_job(checkpoint=0)
    start(job, trained)
    secret = RunFolder(trained.path.parent / "secret")
    secret.path.mkdir()
    save_weights(secret.path / "000.safetensors", weights(9))
    trained.origin.write_text(json.dumps({"submission": "first", "weights": outside, "epoch": epoch}))
    found = start(job, trained)
    assert not isinstance(found, FromWeights) or found.weights["w"][0] == 0


def test_an_origin_that_cannot_be_read_is_none(trained: RunFolder, make_job: MakeJob) -> None:
    trained.origin.write_text("[" * 100_000)
    assert came_from(start(make_job(), trained)) == ("state", 3)


@pytest.mark.parametrize(
    ("checkpoint", "meant"), [(None, ""), (-1, ""), (0, "/params/000.pt"), (43, "/params/043.pt"), (7, "")]
)
@pytest.mark.parametrize("has_args", [True, False])
def test_a_run_of_other_code_is_left_alone_with_a_way_to_start_from_it(
    run: RunFolder, make_job: MakeJob, checkpoint: int | None, meant: str, has_args: bool
) -> None:
    for name in ("000", "043", "best_040"):
        torch.save({"model": weights(0)}, run.params / f"{name}.pt")
    run.performance.write_text("time,step,epoch,train_eval,lr,acc1\n24/01/01,1024,0,train,0.1,3\n")
    if has_args:
        (run.path / "args.json").write_text("{}")
    there = sorted(path for path in run.path.rglob("*"))
    job = make_job(checkpoint=checkpoint, model_dir=str(run.path))
    for look in (lambda: start(job, run), lambda: JobChecker()(job, 1)):
        with pytest.raises(UserError) as caught:
            look()
        said = str(caught.value)
        found = "args.json, params/000.pt" if has_args else "params/000.pt"
        assert said.startswith(f"model_dir: {run.path} holds a run of other code ({found}, ")
        assert said.endswith(f'finetune_args to {{"starting_params": "{run.path}{meant}"}}')
    assert sorted(path for path in run.path.rglob("*")) == there


def test_a_run_that_was_doubled_is_named_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_job: MakeJob
) -> None:
    monkeypatch.chdir(tmp_path)
    args = {"starting_params": "w.pt", "finetune_dir": "runs/parent/tuned"}
    job = make_job(model_dir="runs/parent", finetune=True, finetune_args=args)
    here, doubled = RunFolder(job.run_path), RunFolder(Path("runs/parent/runs/parent/tuned"))
    assert str(here.path) == "runs/parent/tuned"
    doubled.create()
    assert start(job, here) == Fresh()
    write_config(doubled, job.completed())
    for look in (lambda: start(job, here), lambda: JobChecker()(job, 1)):
        with pytest.raises(
            UserError, match=r"is in runs/parent/runs/parent/tuned, where version 0\.2 put it"
        ) as caught:
            look()
        assert "mv runs/parent/runs/parent/tuned runs/parent/tuned" in str(caught.value)
    doubled.path.rename(here.path)
    start(job, here)


def test_a_fine_tuned_run_may_lie_in_a_run_of_other_code(run: RunFolder, make_job: MakeJob) -> None:
    torch.save({"model": weights(0)}, run.params / "best_040.pt")
    (run.path / "args.json").write_text("{}")
    inside = RunFolder(run.path / "finetune")
    inside.create()
    assert start(make_job(checkpoint=0), inside) == Fresh()
