"""Which files of a folder are trained on. The oracle is the datasets library, where it gives a sound answer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pytest
from hf_sets import PETS, encoded, image_files, parquet_files, split, stored
from pyarrow import parquet

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data.dataset import ImageDataset, Splits
from accel_trainer.data.open import open_validation
from accel_trainer.data.sources.split_names import Role, role_of

Open = Callable[..., Splits]
TRAIN, VAL = [0, 1, 1, 0], [1, 0, 1]


def pairs(source: ImageDataset) -> list[tuple[int, str]]:
    """(brightness, class) of each image."""
    return sorted(
        (int(source.read(index)[0, 0, 0]), source.classes[label]) for index, label in enumerate(source.labels)
    )


def pairs_of_library(dataset: datasets.Dataset) -> list[tuple[int, str]]:
    names = dataset.features["label"].names
    return sorted((int(np.asarray(row["image"])[0, 0, 0]), names[row["label"]]) for row in dataset)


@pytest.mark.parametrize(
    ("files", "of_library"),
    [
        ({"train-00000-of-00002": TRAIN, "train-00001-of-00002": [1], "test-00000-of-00001": VAL}, "test"),
        ({"data__train-00000-of-00001": TRAIN, "data__validation-00000-of-00001": VAL}, "validation"),
        ({"data__train-00000-of-00001": TRAIN, "data__val-00000-of-00001": VAL}, "val"),
        ({"train_0": TRAIN, "train_1": VAL, "valid_0": VAL}, "validation"),
        ({"pets-train": TRAIN, "pets-dev": VAL}, "validation"),
        ({"train__0000": TRAIN, "dev__0000": VAL}, "validation"),
        (
            {"default__train__0000": TRAIN, "default__validation__0000": VAL, "default__test__0000": [1, 1]},
            "validation",
        ),
        ({"Training": TRAIN, "Evaluation": VAL}, None),
    ],
)
def test_parquet_files_are_the_splits_that_the_library_finds(
    tmp_path: Path, open_hf: Open, files: dict[str, Any], of_library: str | None
) -> None:
    folder = parquet_files(tmp_path / "pets", **files)
    images = open_hf(folder)
    if of_library is None:  # it knows small letters only, and would train on everything
        assert (len(images.train.labels), len(images.val.labels)) == (len(TRAIN), len(VAL))
        return
    expected = datasets.load_dataset(str(folder))
    assert pairs(images.train) == pairs_of_library(expected["train"])
    assert pairs(images.val) == pairs_of_library(expected[of_library])


@pytest.mark.parametrize(
    "names",
    [
        ("train/cat/0.png", "train/dog/1.png", "val/cat/2.png", "val/dog/3.png"),
        ("pets/training/cat/0.png", "pets/training/dog/1.png", "pets/test/cat/2.png", "pets/test/dog/3.png"),
        (
            "train/.hidden/0.png",
            "train/cat/.1.png",
            "train/cat/2.png",
            "train/dog/3.png",
            "val/cat/4.png",
            "val/dog/5.png",
        ),
        ("train2017/cat/0.png", "train2017/dog/1.png", "val2017/cat/2.png", "val2017/dog/3.png"),
    ],
)
def test_folders_of_images_are_the_splits_that_the_library_finds(
    tmp_path: Path, open_hf: Open, names: tuple[str, ...]
) -> None:
    folder = image_files(tmp_path / "pets", *names)
    images, expected = open_hf(folder), datasets.load_dataset(str(folder))
    assert pairs(images.train) == pairs_of_library(expected["train"])
    assert pairs(images.val) == pairs_of_library(expected["test" if "test" in expected else "validation"])


def test_a_class_called_train_leaks_no_validation_image_into_training(tmp_path: Path, open_hf: Open) -> None:
    names = ("train/train/0.png", "train/test/1.png", "val/train/2.png", "val/test/3.png")
    folder = image_files(tmp_path / "pets", *names)
    images = open_hf(folder)
    assert pairs(images.train) == [(0, "train"), (1, "test")]
    assert pairs(images.val) == [(2, "train"), (3, "test")]
    assert len(datasets.load_dataset(str(folder))["train"]) == 3  # the library's own answer, which is no oracle here


def test_links_that_lead_nowhere_are_named(tmp_path: Path, open_hf: Open) -> None:
    """Also images that were not fetched, which the library leaves out."""
    tables = parquet_files(tmp_path / "tables", train=TRAIN, val=VAL)
    images = image_files(tmp_path / "images", "train/a/0.png", "train/b/1.png", "val/a/2.png", "val/b/3.png")
    for folder, name in ((tables, "train_more.parquet"), (images, "train/a/gone.png")):
        (folder / name).symlink_to("nowhere")
        with pytest.raises(UserError) as caught:
            open_hf(folder)
        assert str(caught.value).startswith(
            f"dataset: 'hf:{folder}' has a link that leads nowhere: {name}; fetch what they lead to"
        )


def test_a_path_with_signs_of_patterns_is_read_as_it_is(tmp_path: Path, open_hf: Open) -> None:
    names = ("train/a*b/0.png", "train/[c]/1.png", "val/a*b/2.png", "val/[c]/3.png")
    assert len(open_hf(image_files(tmp_path / "pets[1]", *names)).train.labels) == 2
    folder = parquet_files(tmp_path / "pets?[2]", train=TRAIN, val=VAL)
    assert len(open_hf(folder).train.labels) == len(TRAIN)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"train": TRAIN, "val": VAL, "extra": VAL},
            r"files whose split is not known: extra\.parquet, beside files of",
        ),
        ({"part1": TRAIN, "part2": VAL}, r"files whose split is not known: part1\.parquet, part2\.parquet; name them"),
        ({"train_val": TRAIN, "test": VAL}, r"train_val\.parquet names more than one split"),
        ({"train__val": TRAIN, "test": VAL}, r"train/val\.parquet names more than one split"),
        (
            {"train": TRAIN, "training": TRAIN, "val": VAL},
            "more than one split that could be trained on: train, traini",
        ),
        ({"train": TRAIN, "val": VAL, "dev__0": VAL}, "more than one split that could be validated on: val, dev"),
        ({"train": TRAIN, "dev-0": VAL, "valid-0": VAL}, "more than one split that could be validated on: dev, valid"),
        ({"train-00000-of-00003": TRAIN, "val": VAL}, "of the 3 files of split train 2 are missing, 00001-of-00003"),
        (
            {"en__train": TRAIN, "en__val": VAL, "fr__train": TRAIN},
            r"several configurations: en, fr; name one of them, as",
        ),
        ({"unsupervised-00000-of-00001": TRAIN, "test": VAL}, "has no split train or training; it has test, unsup"),
    ],
)
def test_what_is_in_doubt_is_refused_with_what_is_there(
    tmp_path: Path, open_hf: Open, files: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        open_hf(parquet_files(tmp_path / "pets", **files))


def test_files_that_the_library_leaves_beside_a_set_are_not_trained_on(tmp_path: Path, open_hf: Open) -> None:
    folder = stored(tmp_path / "saved", train=split(TRAIN), val=split(VAL))
    kept = datasets.load_from_disk(str(folder))["train"].filter(lambda row: row["label"] == 1)  # leaves cache-*.arrow
    assert len(kept) == 2
    assert list((folder / "train").glob("cache-*.arrow"))
    assert len(open_hf(folder).train.labels) == len(TRAIN)
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("train", "val"):
        shutil.copy(next((folder / name).glob("data-*.arrow")), plain / f"pets-{name}.arrow")
    shutil.copy(next((folder / "train").glob("cache-*.arrow")), plain)
    (plain / ".hidden").mkdir()
    shutil.copy(plain / "pets-train.arrow", plain / ".hidden" / "train.arrow")
    images = open_hf(plain)
    assert (len(images.train.labels), len(images.val.labels)) == (len(TRAIN), len(VAL))


def test_splits_that_were_saved_one_by_one_are_found(tmp_path: Path, open_hf: Open) -> None:
    for name, labels in (("train", TRAIN), ("validation", VAL)):
        split(labels).save_to_disk(str(tmp_path / "pets" / name))
    assert len(open_hf(tmp_path / "pets").val.labels) == len(VAL)
    with pytest.raises(UserError, match=r"has no split val .*; it has train"):
        open_hf(tmp_path / "pets" / "train")


def test_what_the_library_itself_has_prepared_is_read_from_its_cache(tmp_path: Path, open_hf: Open) -> None:
    datasets.load_dataset(str(parquet_files(tmp_path / "pets", train=TRAIN, val=VAL)))
    (prepared,) = (tmp_path / "cache").glob("*/*/*/*/dataset_info.json")
    images = open_hf(prepared.parent)
    assert (len(images.train.labels), len(images.val.labels)) == (len(TRAIN), len(VAL))


def test_the_readme_of_a_set_says_which_files_are_of_which_split(tmp_path: Path, open_hf: Open) -> None:
    folder = parquet_files(tmp_path / "pets", a=TRAIN, b=VAL)
    (folder / "README.md").write_text(readme(default={"train": "a.parquet", "validation": "b.parquet"}))
    assert pairs(open_hf(folder).train) == pairs_of_library(datasets.load_dataset(str(folder))["train"])


def test_each_split_is_named_with_its_count_and_use(tmp_path: Path, open_hf: Open) -> None:
    files = parquet_files(tmp_path / "pets", train=TRAIN, val=VAL, test=[1, 0], **{"extra-00000-of-00001": [1]})
    said = "train (4 images, trained on), val (3, validated on), extra (1, not used), test (2, not used)"
    assert open_hf(files).notes == [f"'hf:{files}' has {said}"]
    saved = stored(tmp_path / "saved", train=split(TRAIN), val=split(VAL), test=split([1]))
    assert open_hf(saved).notes == [
        f"'hf:{saved}' has train (4 images, trained on), val (3, validated on), test (1, not used)"
    ]
    names = ("train/cat/0.png", "train/dog/1.png", "val/cat/2.png", "val/dog/3.png", "more/cat/4.png")
    folder = image_files(tmp_path / "images", *names)
    assert open_hf(folder).notes == [
        f"'hf:{folder}' has train (2 images, trained on), val (2, validated on), more (1, not used)"
    ]


def test_a_split_alone_can_be_evaluated_by_the_name_of_its_folder(
    tmp_path: Path, offline: None, make_job: Callable[..., Job]
) -> None:
    folder = parquet_files(tmp_path / "test", **{"0000": VAL})
    assert len(open_validation(make_job(), f"hf:{folder}", ["cat", "dog"]).labels) == len(VAL)


@pytest.mark.parametrize("order", [["dog", "cat"], ["cat", "dog"]])
def test_each_split_of_parquet_keeps_the_names_behind_its_own_numbers(
    tmp_path: Path, open_hf: Open, order: list[str]
) -> None:
    """The library gives all splits of one call the types of the first."""
    folder = parquet_files(tmp_path / "pets", train=TRAIN)
    split([0, 0, 1], datasets.ClassLabel(names=order)).to_parquet(str(folder / "val.parquet"))
    assert [name for _, name in pairs(open_hf(folder).val)] == [order[0], order[0], order[1]]


def test_files_of_one_split_with_other_orders_of_classes_are_refused(tmp_path: Path, open_hf: Open) -> None:
    folder = parquet_files(tmp_path / "pets", **{"train-00000-of-00002": TRAIN, "val": VAL})
    other = split([0], datasets.ClassLabel(names=["dog", "cat"]))
    other.to_parquet(str(folder / "train-00001-of-00002.parquet"))
    with pytest.raises(
        UserError, match="have other names for the numbers of the column 'label': cat, dog, and dog, cat"
    ):
        open_hf(folder)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["train", "train_backup"], r"train\.parquet, train_backup\.parquet; keep one of them there; or number"),
        (["train", "train_small", "train-old"], r"train-old\.parquet, train\.parquet, train_small\.parquet"),
        (["train", "train copy"], r"train copy\.parquet, train\.parquet"),
        (["train", "train (1)"], r"train \(1\)\.parquet"),
        (["train", "train2017"], r"train2017\.parquet"),
        (["train2014", "train2017"], r"train2014\.parquet, train2017\.parquet"),
        (["train", "pets-train"], r"pets-train\.parquet"),
        (["train_0", "train_2"], r"train_0\.parquet, train_2\.parquet"),
        (["train_1", "train_01"], r"train_01\.parquet, train_1\.parquet"),
        (["train-00000-of-00001", "train"], r"train\.parquet"),
        (["train-00000-of-00001", "train-00000-of-00001-0123456789abcdef"], "0123456789abcdef"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "train-00001-of-00002"),
        (["train__0000", "train__0000_backup"], r"train/0000\.parquet, train/0000_backup\.parquet"),
        (["train__0000", "train__old__0000"], r"train/0000\.parquet, train/old/0000\.parquet"),
        (["train__0000", "train"], r"train\.parquet, train/0000\.parquet|train/0000\.parquet, train\.parquet"),
    ],
)
def test_files_of_one_split_that_are_no_parts_of_one_table_are_refused(
    tmp_path: Path, open_hf: Open, files: list[str], said: str
) -> None:
    """The library joins them: training data doubled, or a small selection counted twice."""
    folder = parquet_files(tmp_path / "pets", val=VAL, **dict.fromkeys(files, TRAIN))
    with pytest.raises(UserError, match=rf"{len(files)} files of split train are not the parts of one table: .*{said}"):
        open_hf(folder)
    assert len(datasets.load_dataset(str(folder))["train"]) in {len(TRAIN), len(files) * len(TRAIN)}


@pytest.mark.parametrize(
    "files",
    [
        ["train_0", "train_1"],
        ["train-1", "train-2", "train-3"],
        [f"train{number}" for number in range(12)],
        ["part-00000-0f3a-c000-train", "part-00001-0f3a-c000-train"],
        ["train-00000-of-00002-0123456789abcdef", "train-00001-of-00002-fedcba9876543210"],
        ["train__0000", "train__0001"],
        ["train__data-00000-of-00002", "train__data-00001-of-00002"],
        ["train2017"],
        ["train_backup"],
    ],
)
def test_numbered_files_are_the_parts_of_one_table(tmp_path: Path, open_hf: Open, files: list[str]) -> None:
    folder = parquet_files(tmp_path / "pets", val=VAL, **dict.fromkeys(files, TRAIN))
    assert pairs(open_hf(folder).train) == pairs_of_library(datasets.load_dataset(str(folder))["train"])


def test_a_folder_of_a_split_itself_has_parts_of_one_table(
    tmp_path: Path, offline: None, make_job: Callable[..., Job]
) -> None:
    folder = parquet_files(tmp_path / "test", **{"0000": VAL, "0000 copy": VAL})
    with pytest.raises(
        UserError, match=r"split test are not the parts of one table: 0000 copy\.parquet, 0000\.parquet"
    ):
        open_validation(make_job(), f"hf:{folder}", ["cat", "dog"])


def test_archives_that_the_library_would_join_are_refused(tmp_path: Path, open_hf: Open) -> None:
    source, folder = image_files(tmp_path / "packed", "0.png", "1.png"), tmp_path / "pets"
    for number in (0, 1):
        (source / f"{number}.cls").write_text(str(number))
    for name in ("train", "val", "train_backup"):
        shutil.make_archive(str(folder / name), "tar", source)
    columns = {"image_column": "png", "label_column": "cls"}
    assert len(datasets.load_dataset(str(folder))["train"]) == 4
    with pytest.raises(UserError, match=r"split train are not the parts of one table: train\.tar, train_backup\.tar"):
        open_hf(folder, **columns)
    (folder / "train_backup.tar").unlink()
    assert len(open_hf(folder, **columns).train.labels) == 2


def test_the_readme_chooses_among_files_of_one_split(tmp_path: Path, open_hf: Open) -> None:
    folder = parquet_files(tmp_path / "pets", train=TRAIN, train_backup=TRAIN, val=VAL)
    (folder / "README.md").write_text(readme(default={"train": "train.parquet", "validation": "val.parquet"}))
    images = open_hf(folder)
    assert (len(images.train.labels), len(images.val.labels)) == (len(TRAIN), len(VAL))


def test_what_is_named_as_a_split_and_not_read_is_said(tmp_path: Path, open_hf: Open) -> None:
    folder = parquet_files(tmp_path / "pets", train=TRAIN, val=VAL)
    (folder / "train_more.jsonl").write_text("{}")
    (folder / "notes.csv").write_text("")
    image_files(folder, "train/cat/0.png")
    said = "; not read, since it is of another kind: train_more.jsonl, images in train/"
    assert open_hf(folder).notes[0].endswith(said)
    images = image_files(tmp_path / "images", "train/cat/0.png", "train/dog/1.png", "val/cat/2.png", "val/dog/3.png")
    (images / "train.zip").write_bytes(b"")
    assert open_hf(images).notes[0].endswith("; not read, since it is of another kind: train.zip")


def readme(**configurations: dict[str, str]) -> str:
    """The head of a README.md with {split: path of its files} for each configuration."""
    lines = ["---", "configs:"]
    for name, splits in configurations.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [f"  - split: {one}\n    path: {path}" for one, path in splits.items()]
    return "\n".join([*lines, "---", ""])


def test_a_configuration_is_named_behind_a_colon(tmp_path: Path, open_hf: Open) -> None:
    folder = parquet_files(tmp_path / "pets", a=TRAIN, b=VAL, c=[1, 0])
    first, second = {"train": "a.parquet", "validation": "b.parquet"}, {"train": "c.parquet", "validation": "b.parquet"}
    (folder / "README.md").write_text(readme(first=first, second=second))
    with pytest.raises(
        UserError, match=r"has several configurations: first, second; name one of them, as 'hf:.*:first'"
    ):
        open_hf(folder)
    assert len(open_hf(f"{folder}:first").train.labels) == len(TRAIN)
    assert len(open_hf(f"{folder}:second").train.labels) == 2
    with pytest.raises(UserError, match=r"has no configuration 'secnd'; it has first, second"):
        open_hf(f"{folder}:secnd")
    plain = parquet_files(tmp_path / "plain", train=TRAIN, val=VAL)
    with pytest.raises(UserError, match=r"lists no configurations in a README\.md"):
        open_hf(f"{plain}:first")
    colon = parquet_files(tmp_path / "a:b", train=TRAIN, val=VAL)
    assert len(open_hf(colon).train.labels) == len(TRAIN)


def test_a_configuration_of_the_hub_is_asked_for_by_its_name(
    tmp_path: Path, open_hf: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load_dataset(*args: Any) -> datasets.DatasetDict:
        asked.append(args)
        if args[1] is None:
            raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['de', 'en']")
        return datasets.DatasetDict(train=split(TRAIN), test=split(VAL))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda path: {"lab/pets": ["de", "en"]}[path])
    assert len(open_hf("lab/pets:de").train.labels) == len(TRAIN)
    with pytest.raises(UserError, match="several configurations: de, en; name one of them, as 'hf:lab/pets:de'"):
        open_hf("lab/pets")
    assert asked == [("lab/pets", "de"), ("lab/pets", None)]


def test_files_of_two_kinds_are_refused(tmp_path: Path, open_hf: Open) -> None:
    folder = parquet_files(tmp_path / "pets", train=TRAIN)
    saved = stored(tmp_path / "saved", val=split(VAL))
    shutil.copy(next((saved / "val").glob("*.arrow")), folder / "val.arrow")
    with pytest.raises(UserError, match=r"has files of \.arrow and of \.parquet; keep one kind"):
        open_hf(folder)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", Role.TRAIN),
        ("Train2017", Role.TRAIN),
        ("train_01", Role.TRAIN),
        ("dev", Role.VALIDATION),
        ("eval", Role.TEST),
        ("test tube", None),
        ("pretrain", None),
        ("trainer", None),
        ("2017", None),
    ],
)
def test_only_known_words_are_the_name_of_a_split(name: str, role: Role | None) -> None:
    assert role_of(name) is role


# -- the labels of parts ----------------------------------------------------------------------------------------------


def parts(folder: Path, *labels: Any, column: str = "label", of_split: str = "train_{}") -> Path:
    """Files of one split and one to validate on. labels: an arrow array or a datasets.ClassLabel of each part."""
    folder.mkdir()
    for number, one in enumerate((*labels, labels[0])):
        name = "val" if number == len(labels) else of_split.format(number)
        path = str(folder / f"{name}.parquet")
        if isinstance(one, datasets.ClassLabel):
            split([0, 1], one, label=column).to_parquet(path)
        else:
            images = pyarrow.array([{"bytes": encoded(n), "path": None} for n in range(len(one))])
            parquet.write_table(pyarrow.table({"image": images, column: one}), path)
    return folder


BOOLEANS, INTEGERS, FRACTIONS = pyarrow.array([True, False]), pyarrow.array([1, 0]), pyarrow.array([1.0, 0.0])
NUMBERS_AS_TEXT, NAMES = pyarrow.array(["1", "0"]), pyarrow.array(["cat", "dog"])


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (BOOLEANS, INTEGERS, "true or false, and integers"),
        (INTEGERS, BOOLEANS, "integers, and true or false"),
        (PETS, INTEGERS, "a ClassLabel of cat, dog, and integers"),
        (INTEGERS, PETS, "integers, and a ClassLabel of cat, dog"),
        (NAMES, PETS, "names, and a ClassLabel of cat, dog"),
        (INTEGERS, NUMBERS_AS_TEXT, "integers, and names"),
        (NUMBERS_AS_TEXT, INTEGERS.cast(pyarrow.int8()), "names, and integers"),
        (NAMES.dictionary_encode(), INTEGERS.dictionary_encode(), "names, and integers"),
        (INTEGERS, FRACTIONS, "integers, and fractions"),
    ],
)
@pytest.mark.parametrize("is_described", [False, True])
def test_parts_of_one_split_whose_labels_are_of_other_kinds_are_refused(
    tmp_path: Path, open_hf: Open, first: Any, second: Any, said: str, is_described: bool
) -> None:
    folder = parts(tmp_path / "pets", first, second)
    if is_described:
        (folder / "README.md").write_text(readme(default={"train": "train_*.parquet", "validation": "val.parquet"}))
    said = rf"train_0.parquet and train_1.parquet have other kinds of values in the column 'label': {said}; they are"
    with pytest.raises(UserError, match=said):
        open_hf(folder)


def test_the_label_column_that_a_job_names_is_compared_and_no_other(tmp_path: Path, open_hf: Open) -> None:
    folder = parts(tmp_path / "pets", BOOLEANS, INTEGERS, column="is_cat")
    with pytest.raises(UserError, match="in the column 'is_cat': true or false, and integers"):
        open_hf(folder, label_column="is_cat")
    for number, path in enumerate(sorted((tmp_path / "pets").glob("*.parquet"))):
        table = parquet.read_table(path).append_column("species", INTEGERS)
        parquet.write_table(table.append_column("label", (INTEGERS, FRACTIONS, INTEGERS)[number]), path)
    assert list(open_hf(folder, label_column="species").classes) == ["0", "1"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (PETS, NAMES.take([1, 0]), ["cat", "dog", "dog", "cat"]),
        (INTEGERS.cast(pyarrow.int8()), INTEGERS.take([1, 0]), ["1", "0", "0", "1"]),
        (NAMES, NAMES.take([1, 0]).cast(pyarrow.large_string()), ["cat", "dog", "dog", "cat"]),
        (NAMES.dictionary_encode(), NAMES.take([1, 0]).dictionary_encode(), ["cat", "dog", "dog", "cat"]),
    ],
    ids=["names of a ClassLabel", "integers of two widths", "strings of two kinds", "two dictionaries"],
)
def test_parts_that_mean_the_same_are_one_table(
    tmp_path: Path, open_hf: Open, first: Any, second: Any, expected: list[str]
) -> None:
    images = open_hf(parts(tmp_path / "pets", first, second))
    assert [images.train.classes[label] for label in images.train.labels] == expected


def test_a_folder_whose_parts_cannot_be_joined_is_not_said_to_be_missing(tmp_path: Path, open_hf: Open) -> None:
    folder = parts(tmp_path / "pets", INTEGERS.cast(pyarrow.int8()), pyarrow.array([300, 1]))
    with pytest.raises(UserError, match=r"pets' is here, but cannot be read as a data set: .*300"):
        open_hf(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"---\nconfigs: [a\n---\n", "while parsing a flow sequence"),
        (b"---\ntitle: caf\xe9\n---\n", "'utf-8' codec can't decode byte 0xe9"),
        (b"---\nconfigs: 3\n---\n", "Expected configs to be a list, but got '3'"),
    ],
    ids=["YAML", "UTF-8", "configurations"],
)
def test_a_readme_that_cannot_be_read_is_named(tmp_path: Path, open_hf: Open, content: bytes, said: str) -> None:
    folder = parquet_files(tmp_path / "pets", train=TRAIN, val=VAL)
    (folder / "README.md").write_bytes(content)
    with pytest.raises(UserError, match=rf"^dataset: .*pets/README\.md cannot be read: {said}.*; the part between"):
        open_hf(folder)
