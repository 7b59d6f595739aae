"""Trained weights measured again: the numbers are those of the training."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.pipeline import evaluation_views
from accel_trainer.data.sources.digits import Digits
from accel_trainer.evaluation.accuracy import evaluate
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import trained_job
from accel_trainer.run.performance import PerformanceRow, read_performance
from accel_trainer.run.records import read_config
from accel_trainer.run.status import RunState
from accel_trainer.training.meta_model import make_model
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import train
from accel_trainer.training.validation import evaluation_set
from accel_trainer.workers import evaluate as worker

one_core = pytest.fixture(autouse=True)(helpers.one_core)


@pytest.fixture(autouse=True)
def not_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharded tensors take a moment to import, and a single process has none."""

    def ask(model: nn.Module) -> bool:
        raise AssertionError("Accelerate asks whether a tensor is sharded")

    monkeypatch.setattr("accelerate.accelerator.model_has_dtensor", ask, raising=False)


SMALL: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [8, 8, 8]},
    "dataset": "digits",
    "class_subset": [2, 0, 1],
    "image_size": 16,
    "transform_type": "none",
    "num_epochs": 2,
    "batch_size": 32,
    "optimizer": "AdamW",
    "optimizer_args": {"lr": 0.003},
    "num_workers": 0,
    "trackers": [],
}
RECURRENT: dict[str, Any] = {
    "architecture": "blt_bl",
    "architecture_args": {
        "features": [4, 6, 8, 5],
        "kernel_sizes": [5, 3, 3, 1],
        "num_cycles": 2,
        "return_cycles": "all",
    },
    "num_epochs": 1,
    "mixed_precision": "bf16",
    "channels_last": True,
}
# Augmented views are compared, with noise of the training images' spectrum; the batch has a last, smaller one.
CONTRASTIVE: dict[str, Any] = {
    "criterion": "SupConLoss",
    "num_views": 2,
    "transform_type": "contrastive",
    "Noise": {"noise_types": ["fourier"], "ssnrs": [0.5], "probs": 0.5},
    "architecture_args": {"features": [8, 8, 8], "num_classes": 16},
    "num_epochs": 1,
}


def forget_accelerate() -> None:
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(autouse=True)
def fresh_accelerate(monkeypatch: pytest.MonkeyPatch, no_plots: None) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    forget_accelerate()


def finish(folder: Path, **changes: Any) -> RunFolder:
    """Train a job to its end in this process."""
    job = Job.model_validate({**SMALL, "model_dir": str(folder), **changes})
    run = RunFolder(job.run_path)
    run.create()
    assert train(job, run, StopRequest()) == TrainingResult(RunState.FINISHED)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two epochs of three digits, whose classes are in no order, with all kinds of weights. Only to be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        return finish(tmp_path_factory.mktemp("trained") / "run", save_interval=1, ema=0.9, swa={"start": 1})


def row(run: RunFolder, epoch: int | None, split: str = "val") -> PerformanceRow:
    (found,) = [row for row in read_performance(run) if (row.epoch, row.split) == (epoch, split)]
    return found


def assert_same(found: dict[str, float], logged: dict[str, float]) -> None:
    assert list(found) == list(logged)
    for name, value in logged.items():
        assert found[name] == pytest.approx(value, rel=1e-6)


def problem(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(UserError) as caught:
        evaluate(*args, **kwargs)
    (line,) = caught.value.problems
    return line


def write_digits(folder: Path, *names: str, corrupt: int = 0) -> dict[str, int]:
    """The validation digits of some classes as `val/<name>/<n>.png`; how many there are of each."""
    source, count = Digits("val"), Counter[str]()
    for index, label in enumerate(source.labels.tolist()):
        if (name := str(label)) in names:
            path = folder / "val" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.read(index).permute(1, 2, 0).numpy()).save(path)
            count[name] += 1
    for path in list((folder / "val").rglob("*.png"))[:corrupt]:
        path.write_bytes(b"no image")
    return count


# -- on the run's own data set --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "epoch", "split"),
    [("final", 2, "val"), ("1", 1, "val"), ("ema", 2, "val_ema"), ("swa", 2, "val_swa")],
)
def test_weights_have_the_scores_that_were_logged_for_them(
    trained: RunFolder, weights: str, epoch: int, split: str
) -> None:
    found = evaluate(trained, weights)
    assert (found.weights, found.epoch, found.images, found.corrupt) == (weights, epoch, 135, 0)
    assert_same(dict(found.scores), dict(row(trained, epoch, split).scores))


def test_the_best_weights_are_measured_and_the_folder_stays_as_it_is(trained: RunFolder) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in trained.path.rglob("*")}

    before = state()
    found = evaluate(trained)
    best = max(r.scores["acc1"] for r in read_performance(trained) if r.split == "val")
    assert found.scores["acc1"] == pytest.approx(best, abs=1e-6)
    assert best > 50, "it has learnt something"
    assert state() == before


def test_the_initialization_is_that_before_the_first_epoch(trained: RunFolder) -> None:
    found = evaluate(trained, "0")
    assert found.epoch == 0
    assert found.scores["loss"] > row(trained, 1).scores["loss"]


@pytest.mark.parametrize("kind", [RECURRENT, CONTRASTIVE])
def test_every_kind_of_run_has_the_scores_that_were_logged(tmp_path: Path, kind: dict[str, Any]) -> None:
    run = finish(tmp_path / "run", **kind)
    found = evaluate(run)
    assert_same(dict(found.scores), dict(row(run, 1).scores))
    names = {"acc1_cycle0", "acc1_cycle1"} if kind is RECURRENT else {"contrastive_acc", "knn"}
    assert names < found.scores.keys()


def test_a_fine_tuned_run_is_measured_wherever_it_is_moved(trained: RunFolder, tmp_path: Path) -> None:
    run = finish(tmp_path / "parent", num_epochs=1, finetune=True, finetune_args={"starting_params": str(trained.path)})
    moved = RunFolder(run.path.rename(tmp_path / "elsewhere"))
    (tmp_path / "parent").rmdir()
    assert_same(dict(evaluate(moved).scores), dict(row(moved, 1).scores))


# -- on another data set ----------------------------------------------------------------------------------------


def test_classes_of_another_data_set_are_found_by_their_names(trained: RunFolder, tmp_path: Path) -> None:
    """Those of the run are 2, 0, 1; of the other set 1 and 2, and in this order."""
    count = write_digits(tmp_path / "other", "1", "2")
    found = evaluate(trained, dataset="other", data_root=tmp_path)
    assert (found.dataset, found.images) == ("other", sum(count.values()))
    model = plain_model(trained)
    source, transform = Digits("val"), v2.Compose([v2.Resize(18, antialias=True), v2.CenterCrop(16)])
    chosen = np.flatnonzero(np.isin(source.labels, (1, 2)))
    images = torch.stack([transform(source.read(index)) for index in chosen.tolist()]) / 255
    images = v2.functional.normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    labels = torch.tensor([{2: 0, 1: 2}[label] for label in source.labels[chosen].tolist()])
    with torch.no_grad():
        logits = model(images)
    assert found.scores["acc1"] == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item(), rel=1e-6)
    assert found.scores["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def plain_model(run: RunFolder) -> nn.Module:
    model = make_model(trained_job(run), 3).eval()
    model.load_state_dict(load_file(run.best_weights))
    return model


def test_corrupt_images_are_left_out_and_counted(trained: RunFolder, tmp_path: Path) -> None:
    count = write_digits(tmp_path / "other", "0", "1", "2", corrupt=5)
    found = evaluate(trained, dataset="other", data_root=tmp_path)
    assert (found.images, found.corrupt) == (sum(count.values()) - 5, 5)


def test_mistakes_in_another_data_set_are_reported_clearly(trained: RunFolder, tmp_path: Path) -> None:
    write_digits(tmp_path / "more", "0", "7", "8")
    (tmp_path / "flat" / "0").mkdir(parents=True)
    (tmp_path / "empty" / "val" / "0").mkdir(parents=True)
    said = problem(trained, dataset="more", data_root=tmp_path)
    assert said.startswith("dataset: 'more' has classes that training has not: 7, 8; it has 2, 0, 1; rename")
    said = problem(trained, dataset="flat", data_root=tmp_path)
    assert said == f"dataset: {tmp_path}/flat has no folder val/ with a folder for each class; it has 0/"
    said = problem(trained, dataset="empty", data_root=tmp_path)
    assert said == "dataset: 'empty' has no validation images of 2, 0, 1"
    assert "no folder" in problem(trained, dataset="mor", data_root=tmp_path)


# -- mistakes -------------------------------------------------------------------------------------------------------


def test_weights_that_are_not_there_are_answered_with_those_there_are(trained: RunFolder) -> None:
    there = "there are: 000, 001, 002, best, ema, swa"
    assert problem(trained, "7") == f"`weights`: {trained.path} has no 7 weights (007.safetensors); {there}"
    assert problem(trained, "last").startswith("`weights`: 'last' is neither an epoch's number nor best, final")
    assert problem(trained, "last").endswith(there)


@pytest.fixture
def copied(trained: RunFolder, tmp_path: Path) -> Callable[..., RunFolder]:
    """A copy of the run with some changes to its config."""

    def copy(**changes: Any) -> RunFolder:
        run = RunFolder(tmp_path / "copy")
        run.create()
        run.best_weights.write_bytes(trained.best_weights.read_bytes())
        run.classes.write_bytes(trained.classes.read_bytes())
        run.config.write_text(json.dumps({**read_config(trained), **changes}))
        return run

    return copy


def test_what_is_no_run_of_this_version_is_refused(copied: Callable[..., RunFolder], tmp_path: Path) -> None:
    assert problem(RunFolder(tmp_path)) == f"{tmp_path} is not a run folder: it has no config.json"
    run = copied(flux=1)
    assert problem(run) == f"{run.config}: flux: unknown key"
    run = copied(architecture_args={"features": [8, 8, 16]})
    said = problem(run)
    assert said.startswith(f"{run.best_weights}: the weights do not fit small_cnn: ")
    run.classes.unlink()
    assert problem(run).startswith(f"{run.classes}: the classes of the run cannot be read")


def test_a_config_of_a_version_that_knew_less_has_defaults(copied: Callable[..., RunFolder]) -> None:
    run = copied()
    config = dict(read_config(run))
    for name in ("label_column", "video", "swa", "ema", "eval_sets"):
        del config[name]
    run.config.write_text(json.dumps(config))
    assert evaluate(run).images == 135


# -- on any number of processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 3, 7, 40])
@pytest.mark.parametrize("compares", [False, True])
def test_every_image_is_seen_once_on_numbers_of_processes_that_divide_nothing(world_size: int, compares: bool) -> None:
    job = Job.model_validate({**SMALL, "batch_size": 32})
    source = Digits("val")
    on = evaluation_set(job, source, evaluation_views(job), world_size, is_contrastive=compares)
    batches = [plan.indices for rank in range(world_size) for plan in on.batches(rank, world_size)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(450))
    if compares:  # their number of negatives is that of training
        assert sorted(map(len, batches)) == [2, *[32] * 14]


# -- the worker ------------------------------------------------------------------------------------------------------


def test_the_worker_writes_a_row_or_what_is_wrong(trained: RunFolder, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    assert worker.main([str(trained.path), "--answer", str(answer), "--weights", "1"]) == 0
    told = json.loads(answer.read_text())
    logged = row(trained, 1)
    assert list(told) == ["weights", "epoch", "dataset", "images", "corrupt", *logged.scores]
    assert told["acc1"] == pytest.approx(logged.scores["acc1"])
    forget_accelerate()
    assert worker.main([str(trained.path), "--answer", str(answer), "--dataset", "nothing"]) == 2
    (line,) = json.loads(answer.read_text())["problems"]
    assert line.startswith("dataset: no folder")
