"""A run goes on with the data set that it began with, and with no other unless its job allows it."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from loops import TINY
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.data.sources.image_column import ImageArrays
from accel_trainer.evaluation.accuracy import evaluate
from accel_trainer.run.dataset_record import read_dataset_record
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_classes
from accel_trainer.run.status import RunState
from accel_trainer.training import trainer
from accel_trainer.training.identity import recorder
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import SessionOptions, train

MakeJob = Callable[..., Job]
pytestmark = pytest.mark.usefixtures("tiny_models")
CLASSES = ("ant", "bee", "cow")


def write(path: Path, seed: int, width: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of three classes: eight images of each to train on, two to validate on."""
    for split, count in (("train", 8), ("val", 2)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                write(tmp_path / "sets" / "set" / split / name / f"{number}.png", 100 * label + number)
    return tmp_path / "sets" / "set"


Begin = Callable[..., TrainingResult]


@pytest.fixture
def begin(make_job: MakeJob, root: Path, tmp_path: Path) -> Begin:
    """Train a job on the data set to its end; `epochs` more each time."""

    def start(epochs: int = 1, **given: Any) -> TrainingResult:
        few = {"batch_size": 8, "dataset": "set", "data_root": str(root.parent), "num_epochs": epochs}
        run = RunFolder(tmp_path / "run")
        run.create()
        return train(make_job(**{**TINY, **few, **given}), run, StopRequest(), SessionOptions(cpu=True, prints=False))

    return start


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_run_records_its_classes_counts_names_and_sizes(begin: Begin, run: RunFolder) -> None:
    begin().check()
    record = read_dataset_record(run)
    assert record is not None
    assert {split: [(one.name, one.images) for one in about.classes] for split, about in record.splits.items()} == {
        "train": [("ant", 8), ("bee", 8), ("cow", 8)],
        "val": [("ant", 2), ("bee", 2), ("cow", 2)],
        "model": [("tiny_models", 1)],
    }
    assert all(about.is_complete for about in record.splits.values())
    before = {path: path.stat().st_mtime_ns for path in (run.dataset, run.dataset_listing, run.classes)}
    begin(2).check()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def rename(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "bee").rename(root / split / "wasp")


def add_class(root: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(root / split / "bee", root / split / "asp")


def remove_class(root: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(root / split / "ant")


def swap_classes(root: Path) -> None:
    for split in ("train", "val"):
        for old, new in (("ant", "x"), ("bee", "ant"), ("x", "bee")):
            (root / split / old).rename(root / split / new)


def remove_images(root: Path) -> None:
    for number in (1, 2, 5, 6):
        (root / "train/cow" / f"{number}.png").unlink()


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "renamed": (rename, "train: 1 class renamed (bee -> wasp); val: 1 class renamed (bee -> wasp)"),
    "added": (add_class, "train: 1 class new (asp); val: 1 class new (asp)"),
    "removed": (remove_class, "train: 1 class gone (ant); val: 1 class gone (ant)"),
    "images gone": (remove_images, "train: 4 images gone (cow/1.png, cow/2.png, cow/5.png and 1 more)"),
    "image new": (lambda root: write(root / "train/bee/x.png", 5), "train: 1 image new (bee/x.png)"),
    "image replaced": (lambda root: write(root / "train/bee/3.png", 5, 9), "train: 1 image changed (bee/3.png)"),
    "of validation": (lambda root: write(root / "val/bee/1.png", 5, 9), "val: 1 image changed (bee/1.png)"),
    "image moved": (
        lambda root: (root / "train/ant/0.png").rename(root / "train/cow/x.png"),
        "train: 1 image gone (ant/0.png); train: 1 image new (cow/x.png)",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_data_set_is_refused_before_any_step_with_what_differs(
    begin: Begin, run: RunFolder, root: Path, change: str
) -> None:
    begin().check()
    kept = (run.dataset, run.classes, run.config, run.performance)
    before = {path: path.read_bytes() for path in kept}
    alter, what = CHANGES[change]
    alter(root)
    result = begin(2)
    assert result.state is RunState.INVALID
    assert str(result.error) == (
        f"dataset: 'set' is not what the run in {run.path} began with: {what}; restore it, set checkpoint to -1 to "
        "start over (the old run is kept in previous/), or allow_changes to true to go on with what is there now"
    )
    assert {path: path.read_bytes() for path in kept} == before


def test_classes_that_were_swapped_are_refused(begin: Begin, root: Path) -> None:
    """Their names and their order are the same."""
    begin().check()
    swap_classes(root)
    for path in (root / "train/ant").iterdir():  # sizes that differ, as those of photographs do
        path.write_bytes(path.read_bytes() + b"\0")
    assert "train: 8 images changed" in str(begin(2).error)


def test_the_same_set_elsewhere_goes_on(begin: Begin, root: Path, tmp_path: Path) -> None:
    """As on a disk of each machine."""
    begin().check()
    shutil.copytree(root, tmp_path / "elsewhere" / "set")
    shutil.rmtree(root)
    begin(2, data_root=str(tmp_path / "elsewhere")).check()


def test_with_allow_changes_a_run_goes_on_and_records_the_new_set(begin: Begin, run: RunFolder, root: Path) -> None:
    begin().check()
    rename(root)
    assert begin(2).state is RunState.INVALID
    begin(2, allow_changes=True).check()
    assert read_classes(run) == ["ant", "wasp", "cow"] or read_classes(run) == ["ant", "cow", "wasp"]
    assert [entry["class"] for entry in json.loads((run.path / "classes-1.json").read_text())] == list(CLASSES)
    assert "the data set has changed: train: 1 class renamed (bee -> wasp)" in run.log.read_text()
    begin(3).check()


def test_a_run_that_is_over_is_not_compared_and_its_record_stays(begin: Begin, run: RunFolder, root: Path) -> None:
    begin().check()
    before = run.dataset.read_bytes()
    rename(root)
    begin().check()
    assert run.dataset.read_bytes() == before


def test_starting_over_takes_what_is_there(begin: Begin, run: RunFolder, root: Path) -> None:
    begin().check()
    rename(root)
    begin(checkpoint=-1).check()
    assert sorted(read_classes(run)) == ["ant", "cow", "wasp"]
    assert sorted(read_classes(RunFolder(run.path / "previous" / "1"))) == list(CLASSES)
    for folder, third in ((run.path, "wasp"), (run.path / "previous" / "1", "cow")):
        record = read_dataset_record(RunFolder(folder))
        assert record is not None
        assert record.splits["train"].classes[-1].name == third


def shift_labels(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "ant").rename(root / split / "zebra")


@pytest.mark.parametrize("kept", ["state", "weights"])
def test_going_back_to_an_epoch_with_another_data_set_is_refused_before_the_run_is_moved(
    begin: Begin, run: RunFolder, root: Path, kept: str
) -> None:
    """Labels would be shifted under weights that have learned them."""
    begin(2, save_interval=1).check()
    begin(3, save_interval=1).check()
    epoch = 3 if kept == "state" else 2
    if kept == "weights":
        shutil.rmtree(next(run.resume.glob("*2*"), run.path / "none"), ignore_errors=True)
    shift_labels(root)
    result = begin(4, checkpoint=epoch)
    assert result.state is RunState.INVALID
    assert "train: 1 class renamed (ant -> zebra); val: 1 class renamed (ant -> zebra)" in str(result.error)
    assert not (run.path / "previous").exists()
    assert read_classes(run) == list(CLASSES)
    begin(4, checkpoint=epoch, allow_changes=True).check()
    assert read_classes(run) == ["bee", "cow", "zebra"]
    assert read_classes(RunFolder(run.path / "previous" / "1")) == list(CLASSES)


def test_a_data_set_that_changes_after_going_back_to_an_epoch_is_refused(
    begin: Begin, run: RunFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt that went back was killed before its first step; every image read then counts, too."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    begin(2).check()
    contents = run.dataset_contents.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_config", killed)
        begin(3, checkpoint=2)
    assert not run.has_run
    assert run.dataset_contents.read_bytes() == contents
    remove_images(root)
    result = begin(3, checkpoint=2)
    assert "train: 4 images gone (cow/1.png, cow/2.png, cow/5.png and 1 more)" in str(result.error)
    assert not run.has_run


def test_going_back_to_before_the_first_epoch_takes_what_is_there(begin: Begin, run: RunFolder, root: Path) -> None:
    begin(save_interval=1).check()
    shift_labels(root)
    begin(checkpoint=0).check()
    assert read_classes(run) == ["bee", "cow", "zebra"]


def test_going_back_to_an_epoch_of_a_version_without_a_record_compares_classes(
    begin: Begin, run: RunFolder, root: Path
) -> None:
    begin(2).check()
    run.dataset.unlink()
    run.dataset_listing.unlink()
    shift_labels(root)
    assert "train: 1 class new (zebra); train: 1 class gone (ant)" in str(begin(3, checkpoint=2).error)


def test_a_run_without_a_record_is_given_one_and_its_classes_are_compared(
    begin: Begin, run: RunFolder, root: Path
) -> None:
    begin().check()
    run.dataset.unlink()
    run.dataset_listing.unlink()
    begin(2).check()
    assert read_dataset_record(run) is not None
    run.dataset.unlink()
    rename(root)
    assert "train: 1 class new (wasp); train: 1 class gone (bee)" in str(begin(3).error)


def test_what_is_not_known_before_the_first_step_is_recorded_later(
    begin: Begin, run: RunFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "WAIT_S", 0.0)
        begin().check()
        begin(2).check()
    begin(3).check()
    record = read_dataset_record(run)
    assert record is not None
    assert record.splits["train"].is_complete
    write(root / "train/bee/3.png", 5, 9)
    assert "1 image changed (bee/3.png)" in str(begin(4).error)


def test_without_the_names_only_classes_are_named(begin: Begin, run: RunFolder, root: Path) -> None:
    begin().check()
    run.dataset_listing.write_bytes(b"PK nothing")
    remove_images(root)
    assert "train: other images in cow;" in str(begin(2).error)


def test_a_damaged_record_is_the_users_to_delete(begin: Begin, run: RunFolder) -> None:
    begin().check()
    run.dataset.write_text("{")
    assert "dataset.json: is damaged" in str(begin(2).error)
    run.dataset.unlink()
    begin(2).check()


def test_a_pack_of_other_images_is_refused(begin: Begin, root: Path) -> None:
    def pack_again() -> None:
        shutil.rmtree(root.parent / "set.pack", ignore_errors=True)
        images = open_data_set("set", root.parent, None, None)
        pack(images, "set", root.parent / "set.pack", PackSettings(8, "raw"), 1, lambda done, total: None)

    pack_again()
    assert begin_on("set.pack", begin).state is RunState.FINISHED
    assert begin_on("set.pack", begin, 2).state is RunState.FINISHED
    write(root / "train/bee/3.png", 5)
    pack_again()
    assert "train: 1 image changed (bee/11)" in str(begin_on("set.pack", begin, 3).error)


def test_pixels_of_a_pack_that_were_overwritten_are_refused(begin: Begin, root: Path) -> None:
    images = open_data_set("set", root.parent, None, None)
    pack(images, "set", root.parent / "set.pack", PackSettings(8, "raw"), 1, lambda done, total: None)
    assert begin_on("set.pack", begin).state is RunState.FINISHED
    path = root.parent / "set.pack" / "train.pixels"
    path.write_bytes(bytes(path.stat().st_size))
    result = begin_on("set.pack", begin, 2)
    assert result.state is RunState.INVALID
    assert f"{path} is damaged, or of another pack than the files beside it: image " in str(result.error)


def begin_on(dataset: str, begin: Begin, epochs: int = 1) -> TrainingResult:
    return begin(epochs, dataset=dataset)


@pytest.mark.parametrize("kind", ["parquet", "disk"])
def test_an_hf_data_set_of_other_images_is_refused(begin: Begin, root: Path, tmp_path: Path, kind: str) -> None:
    def save() -> None:
        folder = tmp_path / "hf"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        splits = {}
        for split, name in (("train", "train"), ("val", "validation")):
            paths = sorted((root / split).rglob("*.png"))
            rows = {
                "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
                "label": [CLASSES.index(path.parent.name) for path in paths],
            }
            features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
            splits[name] = datasets.Dataset.from_dict(rows, features=features)
        if kind == "disk":
            datasets.DatasetDict(splits).save_to_disk(folder)
        else:
            for name, rows in splits.items():
                rows.to_parquet(folder / f"{name}.parquet")

    save()
    name = f"hf:{tmp_path / 'hf'}"
    begin_on(name, begin).check()
    begin_on(name, begin, 2).check()
    write(root / "train/bee/3.png", 5, 9)
    save()
    assert "train: 1 image changed (bee/row 11)" in str(begin_on(name, begin, 3).error)


@pytest.mark.parametrize("subset", [None, [0, 1]])
def test_arrays_of_an_hf_data_set_are_compared_and_runs_that_recorded_sums_go_on(
    begin: Begin, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subset: list[int] | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    features = datasets.Features(
        {"image": datasets.Array3D((8, 8, 3), "uint8"), "label": datasets.ClassLabel(names=list(CLASSES))}
    )

    def save() -> str:
        folder = tmp_path / "arrays"
        folder.mkdir(exist_ok=True)
        for split in ("train", "validation"):
            rows = {"image": pixels.tolist(), "label": 4 * [0, 1, 2]}
            datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
        return f"hf:{folder}"

    def start(epochs: int) -> TrainingResult:
        return begin(epochs, dataset=save(), class_subset=subset, batch_size=4)

    with monkeypatch.context() as patch:
        patch.setattr(ImageArrays, "marks", ImageArrays.earlier_marks)
        start(1).check()
    start(2).check()
    shutil.rmtree(run.path)
    start(1).check()
    pixels[3] = pixels[3, :, ::-1]
    assert "train: 1 image changed (ant/row 3); val: 1 image changed (ant/row 3)" in str(start(2).error)


# -- evaluation later -------------------------------------------------------------------------------------------------


def test_an_evaluation_goes_by_the_names_of_classes(begin: Begin, run: RunFolder, root: Path) -> None:
    begin().check()
    before = evaluate(run)
    (root / "val" / "ant").rename(root / "val" / "zebra ant")
    with pytest.raises(UserError, match="'set' has no images of classes that the run was trained on: ant;"):
        evaluate(run)
    (root / "val" / "zebra ant").rename(root / "val" / "ant")
    add_class(root)
    with pytest.raises(UserError, match="'set' has classes that training has not: asp"):
        evaluate(run)
    shutil.rmtree(root / "val" / "asp")
    assert evaluate(run).scores == before.scores


def test_an_evaluation_waits_for_a_disk_that_is_away(
    begin: Begin, run: RunFolder, caplog: Any, monkeypatch: Any
) -> None:
    begin().check()
    before, failures, scandir = evaluate(run), iter(range(3)), os.scandir

    def away(folder: Any) -> Any:
        if str(folder).endswith("val") and next(failures, None) is not None:
            raise OSError(errno.EIO, "Input/output error", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", away)
    assert evaluate(run).scores == before.scores
    assert "reading works again" in caplog.text
