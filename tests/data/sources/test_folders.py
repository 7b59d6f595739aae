import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import MachineFailure, expecting, waiting_out
from accel_trainer.data.open import open_images, open_validation
from accel_trainer.data.sources import walk
from accel_trainer.data.sources.folders import ImageFolder

TREE = (
    "cat/b.png", "cat/a.PNG", "cat/10.jpeg", "cat/9.jpg", "cat/old/z.png", "cat/old/older/a.png", "cat/new/a.png",
    "Dog/1.png", "Dog/sub folder/Größe.png", "ant/only.jpg", "zebra/1.png", "zebra/2.png",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for number, name in enumerate(TREE):
        write_image(tmp_path / "set" / name, brightness=20 * number, size=(6, 5 + number))
    return tmp_path / "set"


def found(source: ImageFolder) -> list[str]:
    return [str(Path(source.describe(i)).relative_to(source.folder)) for i in range(len(source.labels))]


def test_a_folder_has_the_classes_labels_order_and_pixels_of_torchvision(tree: Path) -> None:
    ours, theirs = ImageFolder(tree), datasets.ImageFolder(str(tree))
    assert list(ours.classes) == theirs.classes == ["Dog", "ant", "cat", "zebra"]
    assert ours.labels.dtype == np.int64
    assert ours.labels.tolist() == theirs.targets
    assert [ours.describe(i) for i in range(len(TREE))] == [path for path, _ in theirs.samples]
    for index, (image, _) in enumerate(theirs):
        difference = ours.read(index).permute(1, 2, 0).numpy().astype(int) - np.asarray(image)
        assert abs(difference).max() <= 1  # two JPEG decoders


def test_paths_are_those_of_the_files_whatever_their_names(
    tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["cat/a\udcff.png", "cat/Größe.png", "ant/" + "x" * 200 + ".png"]
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "a.png").rename(tmp_path / "set" / name)
    monkeypatch.chdir(tmp_path / "set")
    for folder in (Path(), tmp_path / "set"):
        images = ImageFolder(folder)
        theirs = datasets.ImageFolder(str(folder))
        assert [Path(images.describe(i)) for i in range(3)] == [Path(path) for path, _ in theirs.samples]
        assert {images.read(i).shape for i in range(3)} == {images.read(0).shape}


@pytest.mark.parametrize("other", ["a-b", "a b", "a.b", "a+b"])
def test_nested_folders_come_in_the_order_of_torchvision(
    tmp_path: Path, write_image: Callable[..., Path], other: str
) -> None:
    for name in ("a/1.png", "a/c/2.png", f"{other}/3.png"):
        write_image(tmp_path / "set" / "cat" / name)
    theirs = datasets.ImageFolder(str(tmp_path / "set"))
    assert [str(tmp_path / "set" / name) for name in found(ImageFolder(tmp_path / "set"))] == [
        path for path, _ in theirs.samples
    ]


def test_other_files_are_named_and_skipped(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cat/labels.txt", "cat/old/thumbs.db", "README"):
        (tree / name).write_text("not an image")
    assert len(ImageFolder(tree).labels) == len(TREE)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        f"skipped {tree}/cat/labels.txt: not an image file",
        f"skipped {tree}/cat/old/thumbs.db: not an image file",
        f"2 files that are not images were skipped in {tree}",
    ]


def test_many_other_files_do_not_flood_the_log(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(100):
        (tree / "cat" / f"{number}.txt").touch()
    ImageFolder(tree)
    assert len(caplog.records) == 21
    assert "100 files" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("hidden", ["cat/.a.png", "cat/._b.png", "cat/.thumbnails/a.png", ".cache/a.png"])
def test_hidden_images_are_not_part_of_the_set(
    tree: Path, write_image: Callable[..., Path], hidden: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tree / hidden)
    source = ImageFolder(tree)
    assert len(source.labels) == len(TREE)
    assert len(source.classes) == 4
    assert not caplog.records


def test_links_to_class_folders_are_followed(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "subset").mkdir()
    (tmp_path / "subset" / "cats").symlink_to(tree / "cat")
    assert found(ImageFolder(tmp_path / "subset"))[0] == "cats/10.jpeg"
    assert len(ImageFolder(tmp_path / "subset").labels) == 7


def test_a_file_that_is_gone_is_no_corrupt_image(tree: Path) -> None:
    source = ImageFolder(tree)
    Path(source.describe(3)).unlink()
    with pytest.raises(FileNotFoundError):
        source.read(3)


# -- links that would count an image twice ----------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["cat/up", "cat/old/up", "cat/old/older/up", "up"])
@pytest.mark.parametrize("target", [".", "..", "../..", "cat", "cat/old", "absolute"])
def test_a_link_to_a_folder_that_it_lies_in_adds_nothing(
    tree: Path, link: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    there = tree if target == "absolute" else tree / target if target.startswith("cat") else target
    if (target == "cat" and link == "up") or (target == "cat/old" and link in ("cat/up", "up")):
        pytest.skip("it leads down or aside")
    before = found(ImageFolder(tree))
    (tree / link).symlink_to(there)
    source = ImageFolder(tree)
    assert found(source) == before
    assert list(source.classes) == ["Dog", "ant", "cat", "zebra"]
    assert [record.getMessage() for record in caplog.records] == [
        f"skipped {tree / link}: a link to what is there anyway",
        f"1 links were skipped in {tree}",
    ]


def test_of_several_ways_to_one_folder_the_one_without_a_link_counts(tree: Path) -> None:
    before = found(ImageFolder(tree))
    for name in ("again", "zzz"):
        (tree / "cat" / name).symlink_to("old")
    (tree / "cat" / "a.png").symlink_to("b.png")
    assert found(ImageFolder(tree)) == before


def test_links_in_a_circle_elsewhere_have_an_end(tree: Path, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("one", "two"):
        write_image(tmp_path / "pool" / name / "1.png")
        (tmp_path / "pool" / name / "other").symlink_to(tmp_path / "pool" / ("two" if name == "one" else "one"))
        (tmp_path / "pool" / name / "up").symlink_to("..")
    (tree / "cat" / "more").symlink_to(tmp_path / "pool" / "one")
    more = [name for name in found(ImageFolder(tree)) if name.startswith("cat/more")]
    assert more == ["cat/more/1.png", "cat/more/other/1.png"]


def test_what_others_link_to_is_theirs_too(tree: Path, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """A store that keeps equal files once, as data sets have them."""
    blob = write_image(tmp_path / "blobs" / "1")
    for name in ("ant/x.png", "ant/y.png", "cat/x.png"):
        (tree / name).symlink_to(blob)
    names = found(ImageFolder(tree))
    assert len(names) == len(TREE) + 3
    assert {"ant/x.png", "ant/y.png", "cat/x.png"} <= set(names)


@pytest.mark.parametrize(
    ("link", "target", "told"),
    [
        ("lynx", "Dog", "lynx is Dog, lynx/sub folder is Dog/sub folder"),
        ("cat/more", "../ant", "cat/more is ant"),
        ("ant/more", "../cat/old", "cat/old is ant/more, cat/old/older is ant/more/older"),
        ("cat/x.png", "../ant/only.jpg", "cat/x.png is ant/only.jpg"),
        ("ant/x.png", "absolute", "ant/x.png is cat/old/z.png"),
    ],
)
def test_links_that_give_an_image_two_labels_are_refused(tree: Path, link: str, target: str, told: str) -> None:
    (tree / link).symlink_to(tree / "cat/old/z.png" if target == "absolute" else target)
    with pytest.raises(UserError) as caught:
        ImageFolder(tree)
    assert str(caught.value) == (
        f"dataset: {tree} has images that count under two classes: {told}; remove the links, so that each image has "
        "one class"
    )


def test_a_folder_elsewhere_that_two_classes_link_to_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / "ant").rename(tmp_path / "ant")
    for name in ("ant", "cat/ants"):
        (tree / name).symlink_to(tmp_path / "ant")
    with pytest.raises(UserError, match="two classes: cat/ants is ant;"):
        ImageFolder(tree)


def test_a_folder_without_images_may_be_below_several_classes(tree: Path) -> None:
    (tree.parent / "notes").mkdir()
    (tree.parent / "notes" / "a.txt").touch()
    for name in ("ant", "cat"):
        (tree / name / "notes").symlink_to(tree.parent / "notes")
    assert len(ImageFolder(tree).labels) == len(TREE)


def test_links_below_classes_that_lead_nowhere_are_named_with_what_to_do(tree: Path) -> None:
    """Images that were not fetched, and folders on a disk that is away, which could be read as no image files."""
    (tree / "cat" / "more").symlink_to("/nowhere/cat")
    (tree / "cat" / ".hidden").symlink_to("/nowhere/cat")
    with pytest.raises(UserError, match="set has a link that leads nowhere: cat/more; fetch"):
        ImageFolder(tree)
    for number in range(3):
        (tree / "ant" / f"{number}.png").symlink_to("../.git/annex/objects/x")
    (tree / "cat" / "old" / "self.png").symlink_to("self.png")
    with pytest.raises(UserError) as caught:
        ImageFolder(tree)
    assert str(caught.value) == (
        f"dataset: {tree} has 5 links that lead nowhere: ant/0.png, ant/1.png, ant/2.png, cat/more, cat/old/self.png; "
        "fetch what they lead to (`git annex get`, `dvc pull`), mount the disk that it is on, or remove them"
    )


def test_a_run_waits_for_a_linked_folder_whose_disk_is_away(
    tree: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    elsewhere = write_image(tmp_path / "disk" / "a.png").parent
    (tree / "cat" / "more").symlink_to(elsewhere)
    before = found(ImageFolder(tree))
    elsewhere.rename(tmp_path / "away")
    looks = []

    def comes_back() -> bool:
        looks.append(1)
        if len(looks) == 3:
            (tmp_path / "away").rename(elsewhere)
        return False

    with expecting([str(tree)]), waiting_out(comes_back):
        assert found(ImageFolder(tree)) == before
    assert "cat/more/a.png" in before
    elsewhere.rename(tmp_path / "away")
    with expecting([str(tree)], is_told=True), pytest.raises(MachineFailure, match="leads nowhere: cat/more"):
        ImageFolder(tree)


@pytest.mark.parametrize("target", ["nowhere", "lynx"])
def test_a_class_whose_link_leads_nowhere_is_not_left_out(tree: Path, target: str) -> None:
    (tree / "lynx").symlink_to(target)
    (tree / ".hidden").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"^dataset: .*/set has links that lead nowhere: lynx$"):
        ImageFolder(tree)


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def fail(path: str) -> object:
        if str(path).endswith("/older"):
            raise OSError(errno.EIO, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(walk.os, "scandir", fail)
    with pytest.raises(UserError, match=r"^dataset: .*/cat/old/older cannot be read: Input/output error$"):
        ImageFolder(tree)


# -- a training and a validation folder -------------------------------------------------------------------------


@pytest.fixture
def two_splits(tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]) -> Job:
    """A job on a set of two classes, with two images of each for training and one for validation."""
    for name in ("train/a/1.png", "train/a/2.png", "train/b/1.png", "train/b/2.png", "val/a/1.png", "val/b/1.png"):
        write_image(tmp_path / "sets" / "pets" / name)
    return make_job(dataset="pets", data_root=str(tmp_path / "sets"))


def test_a_set_has_a_training_and_a_validation_part(two_splits: Job) -> None:
    images = open_images(two_splits)
    assert list(images.classes) == ["a", "b"]
    assert images.train.labels.tolist() == [0, 0, 1, 1]
    assert images.val.labels.tolist() == [0, 1]


def test_home_stands_for_itself_in_data_root(two_splits: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(two_splits.data_root).parent))
    images = open_images(two_splits.model_copy(update={"data_root": "~/sets"}))
    assert len(images.train.labels) == 4


def test_a_missing_set_lists_what_is_there(two_splits: Job) -> None:
    with pytest.raises(UserError) as caught:
        open_images(two_splits.model_copy(update={"dataset": "pet"}))
    assert str(caught.value) == (
        f"dataset: no folder {two_splits.data_root}/pet; {two_splits.data_root} has pets; bundled: digits"
        "; did you mean 'pets'?"
    )


def test_a_missing_data_root_is_reported_with_its_path(two_splits: Job) -> None:
    with pytest.raises(UserError, match="dataset: no folder /nowhere/pets; there are no folders in /nowhere"):
        open_images(two_splits.model_copy(update={"data_root": "/nowhere"}))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_of_folders_is_reported(two_splits: Job, split: str) -> None:
    folder = Path(two_splits.data_root, "pets")
    (folder / split).rename(folder / "test")
    with pytest.raises(UserError, match=rf"dataset: .*/pets has no folder {split}/ with a folder for each class"):
        open_images(two_splits)


@pytest.mark.parametrize(
    ("split", "name"),
    [("val", "validation"), ("val", "valid"), ("val", "dev"), ("val", "test"), ("val", "Val"), ("train", "training")],
)
def test_a_split_of_another_name_is_reported_with_what_is_there(two_splits: Job, split: str, name: str) -> None:
    folder = Path(two_splits.data_root, "pets")
    (folder / split).rename(folder / name)
    with pytest.raises(UserError) as caught:
        open_images(two_splits)
    there = ", ".join(f"{one}/" for one in sorted({"train", "val", name} - {split}))
    assert str(caught.value) == (
        f"dataset: {folder} has no folder {split}/ with a folder for each class; it has {there}; "
        f"rename {name}/ to {split}/, or name it as 'hf:{folder}', where that name is read too"
    )


def test_of_two_splits_that_could_be_meant_the_one_to_validate_on_is_named(two_splits: Job) -> None:
    folder = Path(two_splits.data_root, "pets")
    (folder / "val").rename(folder / "valid")
    (folder / "test").mkdir()
    with pytest.raises(UserError, match=r"it has test/, train/, valid/; rename valid/ to val/"):
        open_images(two_splits)


def test_a_split_without_class_folders_is_reported(two_splits: Job) -> None:
    folder = Path(two_splits.data_root, "pets", "val")
    for name in ("a", "b"):
        (folder / name).rename(folder.parent / name)
    with pytest.raises(UserError, match=r"dataset: .*/val has no class folders in it"):
        open_images(two_splits)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_any_images_is_reported(two_splits: Job, split: str) -> None:
    for path in Path(two_splits.data_root, "pets", split, "b").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=f"dataset: 'pets' has no {split} images of class b"):
        open_images(two_splits)


@pytest.mark.parametrize(("split", "where"), [("train", "c only in train"), ("val", "c only in val")])
def test_splits_with_different_classes_are_refused(
    two_splits: Job, write_image: Callable[..., Path], split: str, where: str
) -> None:
    write_image(Path(two_splits.data_root, "pets", split, "c", "1.png"))
    with pytest.raises(UserError, match=f"'pets' has other classes in train than in val: {where}"):
        open_images(two_splits)


# -- names of classes --------------------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def two_classes(root: Path, train: str, val: str, write_image: Callable[..., Path]) -> None:
    for split, name in (("train", train), ("val", val)):
        for number, one in enumerate((name, "zoo")):
            write_image(root / split / one / "1.png", 10 * number)


def test_two_forms_of_unicode_of_one_class_are_refused_in_a_split(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]
) -> None:
    two_classes(tmp_path / "set", COMPOSED, COMPOSED, write_image)
    write_image(tmp_path / "set" / "train" / DECOMPOSED / "2.png")
    said = r"train has two classes that are written alike, 'cafe\\u0301' and 'caf\\xe9'; .*NFC and NFD"
    with pytest.raises(UserError, match=said):
        open_images(make_job(dataset="set", data_root=str(tmp_path)))


def test_two_forms_of_unicode_of_one_class_in_two_splits_are_one_class_and_named(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]
) -> None:
    two_classes(tmp_path / "set", COMPOSED, DECOMPOSED, write_image)
    job = make_job(dataset="set", data_root=str(tmp_path), class_subset=[1, 0])
    images = open_images(job)
    assert list(images.classes) == list(images.val.classes) == ["zoo", COMPOSED]
    for source in (images.train, images.val):
        for index, label in enumerate(source.labels):
            assert int(source.read(index)[0, 0, 0]) == (10 if label == 0 else 0)
    assert any("another form of Unicode" in note for note in images.notes)
    assert open_validation(job, "set", [DECOMPOSED, "zoo"]).labels.tolist() == [0, 1]


def test_classes_that_differ_in_capitals_or_spaces_only_are_named(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]
) -> None:
    for number, (train, val) in enumerate((("Cat", "cat"), ("big cat", "big  cat"))):
        two_classes(tmp_path / str(number), train, val, write_image)
        with pytest.raises(UserError, match=f"'{train}' and '{val}' differ in capitals or spaces only: rename one"):
            open_images(make_job(dataset=str(number), data_root=str(tmp_path)))


@pytest.mark.parametrize("name", ["a cat", "\U0001f408", "c\udce9t", "-cat", "train", "0"])
def test_a_class_may_have_any_name(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job], name: str
) -> None:
    """Latin-1 on a disk of UTF-8, too."""
    two_classes(tmp_path / "set", name, name, write_image)
    images = open_images(make_job(dataset="set", data_root=str(tmp_path)))
    assert sorted(images.classes) == sorted([name, "zoo"])
    assert int(images.train.read(images.train.labels.tolist().index(list(images.classes).index(name)))[0, 0, 0]) == 0


def test_an_image_may_have_a_name_that_is_no_text(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]
) -> None:
    two_classes(tmp_path / "set", "cat", "cat", write_image)
    (tmp_path / "set/train/cat/1.png").rename(tmp_path / "set/train/cat/\udce9.png")
    images = open_images(make_job(dataset="set", data_root=str(tmp_path)))
    assert images.train.read(0).shape == (3, 6, 5)
    assert images.train.describe(0).endswith("\udce9.png")


# -- what is said of a folder ------------------------------------------------------------------------------------------


def test_what_is_left_out_of_a_folder_is_named(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]
) -> None:
    two_classes(tmp_path / "set", "cat", "cat", write_image)
    folder = tmp_path / "set" / "train"
    for name in (".cat/1.png", "__MACOSX/1.png", "cat/@eaDir/1.png/thumb.png", "cat/__MACOSX/2.png"):
        write_image(folder / name)
    for name in ("cat/1.avif", "cat/2.avif", "cat/photo", "cat/Thumbs.db"):
        (folder / name).write_bytes(b"x")
    images = open_images(make_job(dataset="set", data_root=str(tmp_path)))
    assert len(images.train.labels) == 2
    assert images.notes == [
        f"files in {folder} that are not read as images, by their suffixes: .avif (2), .db (1), none (1)",
        f"{folder} has folders that are no classes, by their names: .cat, __MACOSX",
    ]


def test_a_class_whose_files_all_have_other_suffixes_says_so(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]
) -> None:
    two_classes(tmp_path / "set", "cat", "cat", write_image)
    path = tmp_path / "set/train/cat/1.png"
    path.rename(path.with_suffix(".heic"))
    with pytest.raises(UserError, match=r"no train images of class cat; files in .* by their suffixes: \.heic \(1\)"):
        open_images(make_job(dataset="set", data_root=str(tmp_path)))


@pytest.mark.parametrize("name", ["1.JPEG", "1.webp", "1.PNG", "1.Tif"])
def test_the_suffix_of_an_image_may_be_wrong_or_in_capitals(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job], name: str
) -> None:
    two_classes(tmp_path / "set", "cat", "cat", write_image)
    path = tmp_path / "set/train/cat/1.png"
    path.rename(path.with_name(name))
    assert open_images(make_job(dataset="set", data_root=str(tmp_path))).train.read(0).shape == (3, 6, 5)


def test_a_folder_with_the_name_of_a_bundled_set_is_said_and_not_shadowed(
    tmp_path: Path, write_image: Callable[..., Path], make_job: Callable[..., Job]
) -> None:
    digits = make_job(dataset="digits", data_root=str(tmp_path))
    assert len(open_images(digits).classes) == 10
    two_classes(tmp_path / "digits", "cat", "cat", write_image)
    said = f"'digits' is a data set that comes with accel-train, and there is a folder {tmp_path}/digits; rename"
    for call in (open_images, lambda job: open_validation(job, "digits", ["0", "1"])):
        with pytest.raises(UserError, match=said):
            call(digits)
