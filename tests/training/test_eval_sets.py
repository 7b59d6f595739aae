"""Further data sets that every epoch is evaluated on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from loops import records
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.loader import Loader
from accel_trainer.report.compare import compare
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, read_performance, write_performance
from accel_trainer.run.status import RunState, Status
from accel_trainer.training import tracking as tracking_module
from accel_trainer.training.build import build
from accel_trainer.training.check import JobChecker
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.tracking import RunAbout, Tracking

one_core = pytest.fixture(autouse=True)(helpers.one_core)


@pytest.fixture
def job(make_job: Callable[..., Job], tmp_path: Path) -> Callable[..., Job]:
    """Jobs on two digits, beside a set `white` that has only white images of the second."""
    write_images(tmp_path / "sets" / "white" / "val" / "1")
    few = {
        "architecture": "small_cnn", "architecture_args": {"features": [4, 4, 4]}, "image_size": 8,
        "class_subset": [0, 1], "num_epochs": 2, "batch_size": 64, "data_root": str(tmp_path / "sets"),
        "optimizer_args": {"lr": 0.001},
    }  # fmt: skip
    return lambda **given: make_job(**{**few, **given})


def write_images(folder: Path, number: int = 3) -> None:
    folder.mkdir(parents=True)
    for index in range(number):
        Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(folder / f"{index}.png")


@pytest.fixture
def train(run: RunFolder) -> Iterator[Callable[[Job], TrainingLoop]]:
    def train(job: Job) -> TrainingLoop:
        reporter = Reporter(run, Status(state=RunState.STARTING), writes=True)
        with Loader(0) as loader:
            accelerator = Accelerator(cpu=True)
            loop = TrainingLoop(job, run, build(job, world_size=1), accelerator, loader, StopRequest(), reporter)
            loop.train(Tracking(accelerator, job, run, RunAbout("id")), plotter=None)
        return loop

    yield train
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def test_every_epoch_has_a_row_for_each_of_them(
    job: Callable[..., Job], train: Callable[[Job], TrainingLoop], run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[list[str]] = []
    log_epoch = Tracking.log_epoch
    monkeypatch.setattr(
        tracking_module.Tracking,
        "log_epoch",
        lambda self, rows: logged.append([row.split for row in rows]) or log_epoch(self, rows),
    )
    train(job(eval_sets=["digits", "white"], ema=0.9, knn_interval=1))
    rows = read_performance(run)
    splits = ["train", "val", "val_digits", "val_white", "val_ema"]
    assert [(row.epoch, row.split) for row in rows] == [(epoch, split) for epoch in (1, 2) for split in splits]
    assert logged == [splits, splits]
    for epoch in (1, 2):
        own, same, white = (
            row.scores for row in rows if row.epoch == epoch and row.split in ("val", "val_digits", "val_white")
        )
        # The data set of the job itself, with its classes: the same images.
        assert same == {name: value for name, value in own.items() if name != "knn"}
        assert white["acc1"] in (0, 100)  # three times the same image


def test_they_do_not_decide_what_is_best_and_may_change(
    job: Callable[..., Job], train: Callable[[Job], TrainingLoop], run: RunFolder
) -> None:
    with_white = job(eval_sets=["white"])
    loop = train(with_white)
    val = [row["acc1"] for row in records(loop) if row["split"] == "val"]
    assert loop.progress.best == max(val)
    assert not job().incompatible_diff(with_white.completed())
    # In a table too, whatever the others have.
    run.config.write_text('{"architecture": "small_cnn", "num_epochs": 2, "primary_metric": "acc1"}')
    history = [{**row, "acc1": 100.0} if row["split"] == "val_white" else row for row in records(loop)]
    write_performance(run, map(PerformanceRow.from_record, history))
    assert compare([run])[0].best == pytest.approx(max(val))


@pytest.mark.parametrize(
    ("eval_sets", "said"),
    [
        (
            ["white", "wite"],
            "eval_sets: no folder {root}/wite; {root} has white; bundled: digits; did you mean 'white'?",
        ),
        (["odd"], "eval_sets: 'odd' has classes that training has not: 7; it has 0, 1; rename the class folders"),
        (["flat"], "eval_sets: {root}/flat has no folder val/"),
    ],
)
def test_what_is_wrong_with_one_is_found_on_paper(
    job: Callable[..., Job], tmp_path: Path, eval_sets: list[str], said: str
) -> None:
    check = JobChecker()
    assert check(job(), world_size=1).classes == 2
    root = tmp_path / "sets"
    if "odd" in eval_sets:
        write_images(root / "odd" / "val" / "7")
    if "flat" in eval_sets:
        write_images(root / "flat" / "0")
    with pytest.raises(UserError) as caught:
        check(job(eval_sets=eval_sets), world_size=1)
    (line,) = caught.value.problems
    assert line.startswith(said.format(root=root))


def test_a_contrastive_job_compares_as_many_images_there_as_in_training(job: Callable[..., Job]) -> None:
    given: dict[str, Any] = {"criterion": "SimCLRLoss", "num_views": 2, "eval_sets": ["digits"]}
    parts = build(job(**given), world_size=1)
    assert parts.eval_sets["val_digits"].images_per_batch == parts.val.images_per_batch == 32
    assert parts.eval_sets["val_digits"].is_contrastive
