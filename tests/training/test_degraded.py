"""Degraded images measured while a run is trained: the same training without, and the same tables after a stop."""

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers import said_by
from safetensors.torch import load_file
from tiny_runs import tiny_job

from accel_trainer.config import Job
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import StopRequest
from accel_trainer.evaluation.in_training import measure_in_training
from accel_trainer.evaluation.run_plan import run_plan
from accel_trainer.report.compare import compare
from accel_trainer.run.evaluations import evaluations_of, read_accuracies, read_evaluation
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import acquire
from accel_trainer.run.performance import read_performance
from accel_trainer.run.status import RunState
from accel_trainer.training import session
from accel_trainer.training.degraded import plan_of
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import SessionOptions

one_core = pytest.fixture(autouse=True)(helpers.one_core)
pytestmark = pytest.mark.usefixtures("tiny_models")

# With dropout, BatchNorm and random crops: all that a training has of random numbers and buffers.
LEARNT: dict[str, Any] = {
    "architecture": "tiny_models:NormAndDropout",
    "architecture_args": {},
    "num_epochs": 3,
    "batch_size": 64,
    "save_interval": 1,
    "ema": 0.9,
}
DEGRADED: dict[str, Any] = {
    "degradations": [{"name": "noise/gaussian", "levels": [1, 0.4]}, {"name": "blur", "levels": 2}],
    "degradation_interval": 2,
}
NAMES = ("noise-gaussian+blur", "noise-gaussian+blur-at-2")


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch, no_plots: None) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """The same job without and with degradations."""
    folder = tmp_path_factory.mktemp("runs")
    found = {"without": RunFolder(folder / "without"), "with": RunFolder(folder / "with")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as every other test of this file has it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accel_trainer.training.trainer.Plotter", lambda run: _NoPlotter())
        patch.setenv(ALLOW_VARIABLE, "tiny_models")
        for name, run in found.items():
            run.create()
            job = tiny_job(run.path, **LEARNT, **(DEGRADED if name == "with" else {}))
            train(job, run, measure_in_training).check()
    torch.set_num_threads(threads)
    return found


class _NoPlotter:
    def start(self) -> None: ...

    def draw(self, *, now: bool = False) -> None: ...

    def close(self) -> None: ...


def tables(run: RunFolder) -> dict[str, bytes]:
    """The trials of all evaluations of a run, and the table of epochs."""
    found = {name.rpartition("-")[0]: folder.trials.read_bytes() for name, folder in evaluations_of(run).items()}
    (epochs,) = run.evaluations.glob("*-epochs.csv")
    return {**found, "epochs": epochs.read_bytes()}


def test_the_training_comes_to_the_same_bits_without(runs: dict[str, RunFolder]) -> None:
    without, measured = runs["without"], runs["with"]
    names = sorted(path.name for path in without.params.iterdir())
    assert names == sorted(path.name for path in measured.params.iterdir())
    for name in names:
        before, after = (load_file(run.params / name) for run in (without, measured))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    scores = [[(row.epoch, row.split, row.scores) for row in read_performance(run)] for run in (without, measured)]
    assert scores[0] == scores[1]


def test_the_tables_are_those_of_an_evaluation_of_the_saved_weights(runs: dict[str, RunFolder]) -> None:
    run = runs["with"]
    job = Job(**LEARNT, **DEGRADED)
    found = {name.rpartition("-")[0]: folder for name, folder in evaluations_of(run).items()}
    assert sorted(found) == sorted(NAMES)
    for name, weights in zip(NAMES, ("best", "2"), strict=True):
        record = read_evaluation(found[name])
        assert record is not None
        assert record.complete
        own = EvaluationPlan.model_validate(
            {**plan_of(job, weights).model_dump(exclude_none=True), "name": f"{weights}!"}
        )
        again = run_plan(run, own)
        assert again.folder.trials.read_bytes() == found[name].trials.read_bytes()
        assert again.record.degraded_sha256 == record.degraded_sha256
        shutil.rmtree(again.folder.path)
    (epochs,) = run.evaluations.glob("*-epochs.csv")
    with epochs.open() as file:
        rows = list(csv.DictReader(file))
    expected = read_accuracies(found[NAMES[1]])
    assert [(row["epoch"], row["degradation"], row["level"], float(row["accuracy"])) for row in rows] == [
        ("2", one.degradation, one.level, one.accuracy) for one in expected
    ]
    neutral = next(one for one in expected if (one.degradation, one.level) == ("noise/gaussian", "1"))
    val = next(row for row in read_performance(run) if (row.epoch, row.split) == (2, "val"))
    assert 100 * neutral.accuracy == pytest.approx(val.scores["acc1"], abs=1e-4)


def test_compare_has_the_mean_over_levels_of_the_best_weights(runs: dict[str, RunFolder]) -> None:
    (row,) = compare([runs["with"]])
    best = read_accuracies(next(folder for name, folder in evaluations_of(runs["with"]).items() if "-at-" not in name))
    noise = [100 * one.accuracy for one in best if one.degradation == "noise/gaussian"]
    assert list(row.degraded) == ["blur", "noise/gaussian"]
    assert len(noise) == 2
    assert row.degraded["noise/gaussian"] == pytest.approx(sum(noise) / 2)
    assert compare([runs["without"]])[0].degraded == {}


@pytest.mark.parametrize("stopped_at", [1, 3, 5])
def test_one_that_is_stopped_while_it_measures_comes_to_the_same(
    runs: dict[str, RunFolder], tmp_path: Path, stopped_at: int
) -> None:
    """In the middle of epoch 2's images, and of the best weights' after the last step."""
    job = tiny_job(tmp_path / "with", **LEARNT, **DEGRADED)
    folder = RunFolder(tmp_path / "with")
    folder.create()
    states = []
    for limit in (stopped_at, stopped_at, None):
        states.append(train(job, folder, stopping_after(limit)).state)
        if states[-1] is RunState.FINISHED:
            break
    assert states[:-1]
    assert set(states[:-1]) == {RunState.PREEMPTED}
    assert states[-1] is RunState.FINISHED
    assert tables(folder) == tables(runs["with"])
    final = [load_file(run.weights(3)) for run in (folder, runs["with"])]
    assert all(torch.equal(final[0][key], final[1][key]) for key in final[0])


def train(job: Job, folder: RunFolder, measure: Any) -> TrainingResult:
    options = replace(SessionOptions(prints=False, cpu=True), measure=measure)
    return session.train(job, folder, StopRequest(), options)


def stopping_after(limit: int | None) -> Any:
    """Measures as ever, and is stopped after so many batches of one call."""

    def measure(run: Any, plan: Any, parts: Any, on_progress: Callable[[int, int], None], is_stopped: Any) -> bool:
        seen: list[int] = []

        def note(done: int, total: int) -> None:
            seen.append(done)
            on_progress(done, total)

        return measure_in_training(run, plan, parts, note, lambda: len(seen) == limit or is_stopped())

    return measure


def test_a_run_that_goes_on_measures_its_new_best_weights_and_keeps_the_older_table(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    given = {**LEARNT, "degradations": "blur"}
    train(tiny_job(folder.path, **{**given, "num_epochs": 1}), folder, measure_in_training).check()
    (name,) = evaluations_of(folder)
    before = evaluations_of(folder)[name].trials.read_bytes()
    result = train(tiny_job(folder.path, **given), folder, measure_in_training)
    result.check()
    found = evaluations_of(folder)
    best = compare([folder])[0].best_epoch
    assert best is not None
    assert best > 1
    assert sorted(found) == [name, f"{name}-of-epoch-1"]
    records = [read_evaluation(evaluation) for evaluation in found.values()]
    assert sorted((one.epoch, one.complete) for one in records if one is not None) == [(1, True), (best, True)]
    assert found[f"{name}-of-epoch-1"].trials.read_bytes() == before
    own = [one.accuracy for one in read_accuracies(found[name])]
    assert compare([folder])[0].degraded == {"blur": pytest.approx(100 * sum(own) / len(own))}


def test_a_training_leaves_to_somebody_else_what_they_measure_just_now(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    job = tiny_job(folder.path, **{**LEARNT, "num_epochs": 1}, degradations="blur")
    place = RunFolder(folder.evaluations / plan_of(job).folder_name)
    place.path.mkdir(parents=True)
    lock = acquire(place, Owner.new(), end_leftovers=lambda token: None, say=print)
    assert train(job, folder, measure_in_training).state is RunState.FINISHED
    assert not evaluations_of(folder)
    lock.release()
    train(job, folder, measure_in_training).check()
    assert list(evaluations_of(folder)) == ["blur"]


def test_what_cannot_be_measured_is_a_mistake() -> None:
    problem = said_by(lambda: Job(architecture="resnet18", criterion="SimCLRLoss", num_views=2, degradations="noise"))
    assert problem.startswith("degradations: SimCLRLoss trains embeddings")
    assert said_by(lambda: Job(architecture="resnet18", degradation_interval=2)) == (
        "degradation_interval: there are no `degradations` to measure"
    )
