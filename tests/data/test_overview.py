from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hf_sets import image_files, parquet_files

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data import overview
from accel_trainer.data.overview import describe_data

MakeJob = Callable[..., Job]
LONG = 600  # seconds that nothing here takes


def test_the_bundled_set_is_counted(make_job: MakeJob, tmp_path: Path) -> None:
    lines = describe_data(make_job(dataset="digits", data_root=str(tmp_path)), LONG)
    assert lines[0] == "digits:"
    train, val = (int(line.split()[1].replace(",", "")) for line in lines[1:3])
    assert train + val == 1797
    assert lines[1].endswith(" images of 10 classes")
    assert lines[3] == "  classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_folders_are_counted_with_what_was_left_out(make_job: MakeJob, tmp_path: Path) -> None:
    names = ("train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png")
    image_files(tmp_path / "pets", *names)
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("")
    lines = describe_data(make_job(dataset="pets", data_root=str(tmp_path)), LONG)
    assert lines[:4] == [
        f"{tmp_path}/pets:",
        "  train: 3 images of 2 classes",
        "  val: 2 images of 2 classes",
        "  classes: cat, dog",
    ]
    assert any("txt" in line for line in lines[4:])


def test_tables_are_counted_without_being_converted(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    folder = parquet_files(tmp_path / "pets", train=[0, 1, 1], val=[0, 1])
    monkeypatch.setattr(datasets, "load_dataset", None)
    (line,) = describe_data(make_job(dataset=f"hf:{folder}"), LONG)
    assert line == f"hf:{folder}: train (3 images, trained on), val (2, validated on)"
    (line,) = describe_data(make_job(dataset="hf:my-lab/pets:en"), LONG)
    assert line.startswith("hf:my-lab/pets:en is to be read from the Hugging Face hub; ")


def test_what_is_not_there_is_named(make_job: MakeJob, tmp_path: Path) -> None:
    (line,) = describe_data(make_job(dataset="pets", data_root=str(tmp_path)), LONG)
    assert line.startswith(f"{tmp_path}/pets is to be read: ")


def test_what_takes_long_is_not_waited_for(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = Event()

    def open_slowly(job: Job) -> Any:
        end.wait()
        raise UserError("too late")

    monkeypatch.setattr(overview, "open_images", open_slowly)
    try:
        (line,) = describe_data(make_job(dataset="pets", data_root=str(tmp_path)), 0.01)
    finally:
        monkeypatch.undo()
        end.set()
    assert line.startswith(f"{tmp_path}/pets: not counted here")
