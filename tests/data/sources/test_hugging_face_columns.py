"""Columns of images and labels of every type that tables have them in; most are as pandas writes them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
from hf_sets import PETS, encoded, picture, split, stored
from pyarrow import parquet

from accel_trainer.core.errors import UserError
from accel_trainer.data.dataset import Splits
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.sources.image_column import ImageArrays

Open = Callable[..., Splits]
LABELS = [0, 1, 1, 0]
WORDS = ["cat", "dog", "dog", "cat"]


def table(folder: Path, train: Any, val: Any = None, **columns: Any) -> Path:
    """A folder of two parquet files. train, val: labels; columns: others of both in place of `image`."""
    folder.mkdir()
    for name, labels in (("train", train), ("val", train if val is None else val)):
        rows: dict[str, Any] = columns or {"image": pyarrow.array([encoded(n) for n in range(4)])}
        parquet.write_table(pyarrow.table({**rows, "label": labels}), folder / f"{name}.parquet")
    return folder


# -- images ----------------------------------------------------------------------------------------------------------

BYTES = [encoded(number) for number in range(4)]
ARRAYS = [np.full((4, 5, 3), number, np.uint8).tolist() for number in range(4)]
GRAY = [np.full((4, 5), number, np.uint8).tolist() for number in range(4)]


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([{"bytes": content, "path": None} for content in BYTES]),
        pyarrow.array([{"bytes": content, "path": "a.png"} for content in BYTES]),
        pyarrow.array([{"bytes": content} for content in BYTES]),
        pyarrow.array(BYTES),
        pyarrow.array(BYTES, pyarrow.large_binary()),
        pyarrow.array(ARRAYS),
        pyarrow.array(ARRAYS, pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.uint8())))),
        pyarrow.array(GRAY, pyarrow.large_list(pyarrow.large_list(pyarrow.uint8()))),
    ],
    ids=["dicts", "dicts with paths", "dicts of bytes", "bytes", "large bytes", "arrays", "bytes in arrays", "gray"],
)
def test_images_are_read_from_every_type_that_tables_have_them_in(
    tmp_path: Path, open_hf: Open, column: pyarrow.Array
) -> None:
    images = open_hf(table(tmp_path / "pets", pyarrow.array(LABELS), image=column))
    for number in range(4):
        assert (images.train.read(number).permute(1, 2, 0).numpy() == np.asarray(picture(number))).all()


def test_images_that_pandas_has_written_are_read(tmp_path: Path, open_hf: Open) -> None:
    frame = pandas.DataFrame({"image": BYTES, "label": pandas.Categorical(WORDS)})
    (tmp_path / "pets").mkdir()
    for name in ("train", "val"):
        frame.to_parquet(tmp_path / "pets" / f"{name}.parquet")
    images = open_hf(tmp_path / "pets")
    assert [images.train.classes[label] for label in images.train.labels] == WORDS
    assert int(images.train.read(3)[0, 0, 0]) == 3


def test_a_table_replaced_by_one_of_the_same_size_and_time_is_read_anew(tmp_path: Path, open_hf: Open) -> None:
    """As cp -p, tar and touch -r leave it; the library goes by paths and times."""

    def save(brightness: int) -> Path:
        content = [np.full((4, 5, 3), brightness, np.uint8).tobytes() for _ in LABELS]
        rows = [b"P6 5 4 255 " + pixels for pixels in content]
        folder = table(tmp_path / f"pets{brightness}", pyarrow.array(LABELS), image=pyarrow.array(rows))
        shutil.copytree(folder, tmp_path / "pets", dirs_exist_ok=True)
        for path in (tmp_path / "pets").iterdir():
            os.utime(path, ns=(10**18, 10**18))
        return tmp_path / "pets"

    def pixels(folder: Path) -> list[int]:
        images = open_hf(folder)
        return [int(split.read(0)[0, 0, 0]) for split in (images.train, images.val)]

    assert pixels(save(10)) == [10, 10]
    sizes = [path.stat().st_size for path in (tmp_path / "pets").iterdir()]
    assert pixels(save(100)) == [100, 100]
    assert sizes == [path.stat().st_size for path in (tmp_path / "pets").iterdir()]
    (tmp_path / "pets" / "README.md").write_text(README)
    assert pixels(tmp_path / "pets") == [100, 100]
    assert pixels(save(50)) == [50, 50]


README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.parquet
  - split: validation
    path: val.parquet
---
"""


def test_arrays_are_marked_by_their_pixels_and_shape(tmp_path: Path, open_hf: Open) -> None:
    """Not by what a mirrored or reshaped image has, too."""
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    others = [image, image[:, ::-1], image[::-1], image.reshape(6, 4, 3)]
    images = open_hf(
        table(tmp_path / "pets", pyarrow.array(LABELS), image=pyarrow.array([one.tolist() for one in others]))
    )
    assert isinstance(images.train, ImageArrays)
    every = np.arange(4)
    assert len(set(images.train.marks(every, lambda: False).tolist())) == 4
    assert len(set(images.train.earlier_marks(every, lambda: False).tolist())) == 1


def test_the_librarys_own_arrays_are_read_as_images(tmp_path: Path, open_hf: Open) -> None:
    features = datasets.Features({"image": datasets.Array3D((4, 5, 3), "uint8"), "label": PETS})
    rows = datasets.Dataset.from_dict({"image": ARRAYS, "label": LABELS}, features)
    images = open_hf(stored(tmp_path / "pets", train=rows, val=rows))
    assert int(images.val.read(2)[0, 0, 0]) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([[[300] * 3] * 2] * 2, "its pixels are from 300 to 300, not from 0 to 255"),
        ([[[1] * 4] * 2] * 2, r"an array of shape \(2, 2, 4\)"),
        ([[[1] * 3], [[1] * 3] * 2], "its rows are of different lengths"),
        (None, "the row has no image"),
    ],
)
def test_an_array_that_is_no_image_is_corrupt(tmp_path: Path, open_hf: Open, row: Any, said: str) -> None:
    column = pyarrow.array([row, *ARRAYS[1:]])
    images = open_hf(table(tmp_path / "pets", pyarrow.array(LABELS), image=column))
    with pytest.raises(CorruptImage, match=said):
        images.train.read(0)


@pytest.mark.parametrize("column", [["/a.png"] * 4, [0.5] * 4, [[1, 2]] * 4, [[[0.5]]] * 4])
def test_a_column_of_paths_or_fractions_has_no_images(tmp_path: Path, open_hf: Open, column: list[Any]) -> None:
    """A path would mean another file wherever a job runs."""
    folder = table(tmp_path / "pets", pyarrow.array(LABELS), image=pyarrow.array(column))
    for given in ({}, {"image_column": "image"}):
        with pytest.raises(UserError, match="image_column: "):
            open_hf(folder, **given)


def test_a_column_with_the_name_and_one_with_the_type_are_in_doubt(tmp_path: Path, open_hf: Open) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64"), "color": PETS})
    columns = {"image": [picture(n) for n in range(4)], "label": [2, 3, 3, 2], "color": LABELS}
    rows = datasets.Dataset.from_dict(columns, features)
    folder = stored(tmp_path / "pets", train=rows, val=rows)
    with pytest.raises(
        UserError, match="label_column: cannot tell which column has the labels; name one of color, lab"
    ):
        open_hf(folder)
    assert list(open_hf(folder, label_column="label").classes) == ["2", "3"]


# -- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pyarrow.array(WORDS), ["cat", "dog"]),
        (pyarrow.array(WORDS, pyarrow.large_string()), ["cat", "dog"]),
        (pyarrow.array(WORDS, pyarrow.string_view()), ["cat", "dog"]),
        (pyarrow.array(WORDS).dictionary_encode(), ["cat", "dog"]),
        (pyarrow.array([10, 9, 9, 10], pyarrow.int8()), ["9", "10"]),
        (pyarrow.array([2**40, 7, 7, 2**40], pyarrow.uint64()), ["7", str(2**40)]),
        (pyarrow.array([False, True, True, False]), ["False", "True"]),
    ],
    ids=["string", "large string", "string view", "dictionary", "int8", "uint64", "bool"],
)
def test_labels_of_every_type_become_classes_in_order(
    tmp_path: Path, open_hf: Open, labels: pyarrow.Array, classes: list[str]
) -> None:
    images = open_hf(table(tmp_path / "pets", labels))
    assert list(images.classes) == classes
    expected = [str(label) for label in labels.to_pylist()]
    for source in (images.train, images.val):
        assert [source.classes[label] for label in source.labels] == expected


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, -1, 0], "some images have no label .*: 1 of 4, the first in row 2"),
        ([0, None, None, 0], "some images have no label .*: 2 of 4, the first in row 1"),
        (["cat", "", "dog", "cat"], "some images have no label .*: 1 of 4, the first in row 1"),
        (["cat", "dog", None, "cat"], "some images have no label .*: 1 of 4, the first in row 2"),
        ([0.0, 1.0, None, 0.0], "label_column: .* of type double; missing labels make numbers of integers"),
        ([[0], [1], [1], [0]], "label_column: the column 'label' of train .* has neither class numbers nor names"),
    ],
)
def test_labels_that_are_missing_or_no_labels_are_refused(
    tmp_path: Path, open_hf: Open, labels: list[Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        open_hf(table(tmp_path / "pets", pyarrow.array(labels)))


def test_a_number_beyond_the_declared_classes_is_refused(tmp_path: Path, open_hf: Open) -> None:
    (tmp_path / "pets").mkdir()
    rows = {"image": [{"bytes": content, "path": None} for content in BYTES], "label": [0, 1, 2, 0]}
    schema = datasets.Features({"image": datasets.Image(), "label": PETS}).arrow_schema
    for name in ("train", "val"):
        parquet.write_table(pyarrow.table(rows, schema=schema), tmp_path / "pets" / f"{name}.parquet")
    with pytest.raises(UserError, match=r"has label 2 in row 2, and there are 2 classes|hub gives out"):
        open_hf(tmp_path / "pets")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (pyarrow.array(WORDS), pyarrow.array(LABELS)),
        (pyarrow.array(LABELS), pyarrow.array(WORDS)),
        (pyarrow.array(LABELS), pyarrow.array([False, True, True, False])),
    ],
)
def test_splits_whose_labels_cannot_be_compared_are_refused(
    tmp_path: Path, open_hf: Open, train: pyarrow.Array, val: pyarrow.Array
) -> None:
    with pytest.raises(
        UserError, match=r"has (names|numbers) for labels in train \(.*\) and .* in val .*store both alike"
    ):
        open_hf(table(tmp_path / "pets", train, val))


def test_numbers_and_declared_names_are_not_taken_for_each_other(tmp_path: Path, open_hf: Open) -> None:
    numbers = split(LABELS, datasets.Value("int64"))
    for one, other in ((split(LABELS), numbers), (numbers, split(LABELS))):
        folder = stored(tmp_path / str(one.features["label"].dtype + type(one.features["label"]).__name__), train=one)
        other.save_to_disk(str(folder / "val"))
        (folder / "dataset_dict.json").unlink()
        with pytest.raises(UserError, match=r"for labels in train .* in val"):
            open_hf(folder)


def test_names_in_one_split_and_declared_classes_in_the_other_are_the_same_classes(
    tmp_path: Path, open_hf: Open
) -> None:
    declared, plain = split([0, 1, 1, 0]), split(["dog", "cat"], datasets.Value("large_string"))
    for number, (train, val) in enumerate(((declared, plain), (plain, declared))):
        folder = tmp_path / str(number)
        train.save_to_disk(str(folder / "train"))
        val.save_to_disk(str(folder / "val"))
        images = open_hf(folder)
        assert list(images.classes) == ["cat", "dog"]
        of_declared = (images.train, images.val)[number]
        assert [of_declared.classes[label] for label in of_declared.labels] == WORDS


def test_two_spellings_of_one_name_in_a_column_are_refused(tmp_path: Path, open_hf: Open) -> None:
    labels = pyarrow.array(["caf\u00e9", "cafe\u0301", "dog", "dog"])
    with pytest.raises(UserError, match=r"train of 'hf:.*' has two classes that are written alike, .*NFC and NFD"):
        open_hf(table(tmp_path / "pets", labels))


def test_spellings_of_one_name_that_differ_between_splits_are_one_class(tmp_path: Path, open_hf: Open) -> None:
    train, val = ["caf\u00e9", "dog", "dog", "caf\u00e9"], ["dog", "cafe\u0301", "dog", "dog"]
    images = open_hf(table(tmp_path / "pets", pyarrow.array(train), pyarrow.array(val)))
    assert list(images.classes) == ["caf\u00e9", "dog"]
    assert images.val.labels.tolist() == [1, 0, 1, 1]
