import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pytest
from hf_sets import PETS, picture, split, stored
from pyarrow import parquet

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data.dataset import Splits
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.open import open_validation
from accel_trainer.data.sources.hugging_face import HuggingFace

TRAIN, VAL = [0, 1, 1, 0], [1, 0, 1]


Open = Callable[..., Splits]


def stored_as(kind: str, folder: Path) -> Path:
    """The pets in one of the layouts that the library has."""
    match kind:
        case "arrow":
            return stored(folder, train=split(TRAIN), validation=split(VAL))
        case "parquet":
            folder.mkdir()
            for name, labels in (("train-00000-of-00001", TRAIN), ("test-00000-of-00001", VAL)):
                split(labels).to_parquet(str(folder / f"{name}.parquet"))
        case "parquet in folders":
            for name, labels in (("train", TRAIN), ("validation", VAL)):
                (folder / name).mkdir(parents=True)
                split(labels).to_parquet(str(folder / name / "0.parquet"))
        case "imagefolder":
            for name, labels in (("train", TRAIN), ("val", VAL)):
                for n, label in enumerate(labels):
                    path = folder / name / PETS.names[label] / f"{n}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture(n).save(path)
    return folder


@pytest.mark.parametrize("kind", ["arrow", "parquet", "parquet in folders", "imagefolder"])
def test_images_and_labels_are_found_in_every_layout(tmp_path: Path, open_hf: Open, kind: str) -> None:
    images = open_hf(stored_as(kind, tmp_path / "pets"))
    assert list(images.classes) == ["cat", "dog"]
    for source, labels in ((images.train, TRAIN), (images.val, VAL)):
        of_image = {int(source.read(i)[0, 0, 0]): int(label) for i, label in enumerate(source.labels)}
        assert of_image == dict(enumerate(labels))
        assert source.read(0).shape == (3, 4, 5)
        assert "row 0" in source.describe(0)


def test_labels_may_be_words_and_columns_may_have_other_names(tmp_path: Path, open_hf: Open) -> None:
    word = datasets.Value("string")
    path = stored(
        tmp_path / "pets",
        train=split(["dog", "cat", "dog"], word, image="img", label="species"),
        test=split(["cat", "dog"], word, image="img", label="species"),
    )
    images = open_hf(path, image_column="img", label_column="species")
    assert list(images.classes) == ["cat", "dog"]
    assert images.train.labels.tolist() == [1, 0, 1]
    assert images.val.labels.tolist() == [0, 1]
    with pytest.raises(UserError, match="label_column: cannot tell which column has the labels; name one of img, sp"):
        open_hf(path)


def test_a_class_has_the_same_number_in_both_splits(tmp_path: Path, open_hf: Open) -> None:
    """The splits list their classes in different orders: what is a cat in one must be a cat in the other."""
    swapped = datasets.ClassLabel(names=["dog", "cat"])
    images = open_hf(stored(tmp_path / "pets", train=split([0, 1, 1]), val=split([0, 0, 1], swapped)))
    names = [images.classes[label] for label in images.val.labels]
    assert names == ["dog", "dog", "cat"]


@pytest.mark.parametrize("given", [{"image_column": "imag"}, {"label_column": "lable"}])
def test_a_missing_column_is_reported_with_the_nearest_name(
    tmp_path: Path, open_hf: Open, given: dict[str, str]
) -> None:
    ((key, column),) = given.items()
    with pytest.raises(UserError, match=f"{key}: no column '{column}'; there are image, label; did you mean"):
        open_hf(stored_as("arrow", tmp_path / "pets"), **given)


@pytest.mark.parametrize("given", [{"image_column": "label"}, {"label_column": "image"}])
def test_a_column_of_the_wrong_kind_is_reported(tmp_path: Path, open_hf: Open, given: dict[str, str]) -> None:
    with pytest.raises(UserError, match=next(iter(given))):
        open_hf(stored_as("arrow", tmp_path / "pets"), **given)


def test_a_column_that_only_one_split_has_is_reported(tmp_path: Path, open_hf: Open) -> None:
    path = stored(tmp_path / "pets", train=split(TRAIN), val=split(VAL, label="species"))
    with pytest.raises(UserError, match=r"label"):
        open_hf(path)


def test_several_image_columns_need_a_name(tmp_path: Path, open_hf: Open) -> None:
    features = datasets.Features({"left": datasets.Image(), "right": datasets.Image(), "label": PETS})
    pairs = datasets.Dataset.from_dict(
        {"left": [picture(1), picture(2)], "right": [picture(3), picture(4)], "label": [0, 1]}, features
    )
    path = stored(tmp_path / "pets", train=pairs, val=pairs)
    with pytest.raises(UserError, match="image_column: cannot tell which column has the images; name one of left, ri"):
        open_hf(path)
    assert int(open_hf(path, image_column="right").val.read(1)[0, 0, 0]) == 4


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": TRAIN, "extra": VAL}, "has no split val or validation or valid or dev or test; it has train, extra"),
        ({"test": VAL}, "has no split train or training; it has test"),
    ],
)
def test_a_missing_split_of_the_hub_is_reported(
    tmp_path: Path, open_hf: Open, splits: dict[str, list[int]], said: str
) -> None:
    path = stored(tmp_path / "pets", **{name: split(labels) for name, labels in splits.items()})
    with pytest.raises(UserError, match=f"dataset: 'hf:{path}' {said}"):
        open_hf(path)


@pytest.mark.parametrize(
    ("labels", "kind"), [([0, 1, -1], PETS), ([0, 1, None], PETS), (["cat", "dog", None], datasets.Value("string"))]
)
def test_an_image_without_a_label_is_reported(tmp_path: Path, open_hf: Open, labels: list[Any], kind: Any) -> None:
    path = stored(tmp_path / "pets", train=split(labels, kind), val=split(labels[:2], kind))
    with pytest.raises(UserError, match=r"dataset: some images have no label .*'label'"):
        open_hf(path)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "nobody/has-this", "two words"])
def test_a_name_neither_here_nor_on_the_hub_is_reported(open_hf: Open, name: str) -> None:
    with pytest.raises(UserError, match=f"dataset: 'hf:{name}' is neither a folder here nor a data set that the hub"):
        open_hf(name)


def test_a_row_without_an_image_is_corrupt_and_named(tmp_path: Path, open_hf: Open) -> None:
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"not an image", "path": "b.png"}, None, picture(3)], "label": [0, 1, 0]},
        datasets.Features({"image": datasets.Image(), "label": PETS}),
    )
    source = open_hf(stored(tmp_path / "pets", train=rows, val=split(VAL))).train
    with pytest.raises(CorruptImage, match="not an image"):
        source.read(0)
    assert source.describe(0) == "row 0 (b.png)"
    with pytest.raises(CorruptImage, match="the row has no image"):
        source.read(1)
    assert source.describe(1) == "row 1"
    assert int(source.read(2)[0, 0, 0]) == 3


# -- only to validate on ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
def test_a_set_to_evaluate_needs_no_training_split_or_equal_columns(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    path = stored(tmp_path / "pets", validation=split(VAL, image="photo", label="species"))
    job = make_job(dataset="hf:other", image_column="image", label_column="label")
    source = open_validation(job, f"hf:{path}", ["dog", "horse", "cat"])
    assert source.labels.tolist() == [0, 2, 0]
    assert int(source.read(2)[0, 0, 0]) == 2
    names = stored(tmp_path / "names", test=split(["cat", "dog"], datasets.Value("string")))
    assert open_validation(job, f"hf:{names}", ["dog", "cat"]).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="has no split val or validation or valid or dev or test; it has train"):
        open_validation(job, f"hf:{stored(tmp_path / 'train', train=split(TRAIN))}", ["dog", "cat"])


# -- data sets made to do harm ---------------------------------------------------------------------------------


def test_a_script_in_a_data_set_is_not_run(tmp_path: Path, open_hf: Open) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "pets.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'was-run')!r}).touch()\n")
    with pytest.raises(UserError, match="is here, but cannot be read as a data set"):
        open_hf(folder)
    assert not (tmp_path / "was-run").exists()


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pandas", "./pandas", "here"])
def test_a_pickle_is_not_a_data_set(tmp_path: Path, open_hf: Open, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The library has a reader of pickles, by a name that a job could say; it looks in the current folder."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "pandas", tmp_path / "here"):
        folder.mkdir(exist_ok=True)
        for name_of_split in ("train", "validation"):
            (folder / f"{name_of_split}.pkl").write_bytes(pickle.dumps(Harm(tmp_path / "was-run")))
    with pytest.raises(UserError, match="is here, but cannot be read as a data set"):
        open_hf(name)
    assert not (tmp_path / "was-run").exists()


def test_the_reader_of_pickles_is_refused_before_the_library_is_asked(
    tmp_path: Path, open_hf: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions of it differ in whether they refuse it themselves. A folder of that name is a folder."""
    asked: list[str] = []

    def load_dataset(name: str) -> Any:
        asked.append(name)
        raise FileNotFoundError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset)
    with pytest.raises(UserError, match="whose files can hold code"):
        open_hf("pandas")
    assert not asked
    (tmp_path / "pandas").mkdir()
    with pytest.raises(UserError):
        open_hf("pandas")
    assert asked == [str(tmp_path / "pandas")]


def test_a_row_that_names_a_file_without_end_is_corrupt(tmp_path: Path, open_hf: Open) -> None:
    """An image column may hold paths of any files of this machine in place of images."""
    rows = {"image": [{"bytes": None, "path": "/dev/null"}, {"bytes": None, "path": str(tmp_path)}], "label": [0, 1]}
    schema = datasets.Features({"image": datasets.Image(), "label": PETS}).arrow_schema
    folder = tmp_path / "pets"
    folder.mkdir()
    for name in ("train", "validation"):  # not by the library, which would read those files to have them in its own
        parquet.write_table(pyarrow.table(rows, schema=schema), folder / f"{name}.parquet")
    images = open_hf(folder)
    for index in range(2):
        with pytest.raises(CorruptImage, match="not a regular file"):
            images.train.read(index)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a/1.png", "x/a/2.png", "x/b/1.png"], ["a/1.png", "a/2.png", "b/1.png"]),
        (["a/1.png", "b/1.png", "c/3.png"], ["a/1.png", "b/1.png", "c/3.png"]),
        (["/a/1.png", "/b/1.png", "/b/2.png"], ["/a/1.png", "/b/1.png", "/b/2.png"]),
        (["/x/1.png", "/x/2.png", "/x/a/3.png"], ["1.png", "2.png", "a/3.png"]),
        (["/x/1.png", "2.png", "3.png"], ["/x/1.png", "2.png", "3.png"]),
        (["x/1.png", "/x/2.png", "3.png"], ["x/1.png", "/x/2.png", "3.png"]),
        (["1.png", "a/2.png", "/3.png"], ["1.png", "a/2.png", "/3.png"]),
        (["1.png", "1.png", "2.png"], ["row 0", "row 1", "row 2"]),
    ],
)
def test_names_tell_images_apart_whatever_their_paths_are(paths: list[str], names: list[str]) -> None:
    rows = [{"bytes": b"", "path": path} for path in paths]
    table = datasets.Dataset.from_dict({"image": rows}, features=datasets.Features({"image": datasets.Image()}))
    source = HuggingFace(table, "image", np.zeros(len(paths), np.int64), ["all"])
    assert source.names(np.arange(len(paths))) == names
