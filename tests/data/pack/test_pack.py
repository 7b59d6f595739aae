"""Packs: what is in them, where they go on, and what is refused."""

import errno
import json
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import file_names, own_disk, plant_no_file, said_by
from PIL import Image
from torchvision.transforms import v2

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data.augment.geometry import CenterCrop, RandomResizedCrop
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.dataset import ImageDataset, Splits
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.open import open_data_set, open_images, open_validation
from accel_trainer.data.pack import split_writer
from accel_trainer.data.pack.format import RECORD, Manifest, Packed, open_pack
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import damaged_images, pack
from accel_trainer.data.sources.folders import open_folders
from accel_trainer.data.views import Augmentations, Views

RAW, JPEG = PackSettings(32, "raw"), PackSettings(32, "jpeg", 90)
# Short sides below, at and above 32 pixels, upright and not; one is grey.
SHAPES = [(20, 24), (32, 40), (33, 32), (50, 97), (97, 50), (64, 64), (31, 200), (200, 31), (120, 90)]
CORRUPT = {"train/a/3.png": "the file is empty", "train/b/6.png": "not an image", "val/a/1.png": "the file is empty"}


def write_picture(path: Path, number: int, shape: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(shape[::-1], box=(0, 0, 5, 5))  # smooth, so that JPEG does it no harm
    (image.convert("L") if number == 4 else image).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the data set `set`: two classes of nine pictures each, and some that are corrupt."""
    for split in ("train", "val"):
        for number, shape in enumerate(2 * SHAPES):
            write_picture(tmp_path / "set" / split / "ab"[number // 9] / f"{number % 9}.png", number, shape)
    for name, why in CORRUPT.items():
        (tmp_path / "set" / name).write_bytes(b"" if "empty" in why else b"nothing")
    return tmp_path


def packed(root: Path, how: PackSettings = RAW, folder: str = "set.pack", num_threads: int = 2) -> Splits:
    files = open_folders(root, "set", ())
    pack(files, str(root / "set"), root / folder, how, num_threads, lambda done, total: None)
    return open_pack(root / folder)


def splits_of(root: Path, images: Splits) -> list[tuple[ImageDataset, ImageDataset]]:
    files = open_folders(root, "set", ())
    return [(files.train, images.train), (files.val, images.val)]


# -- what is in a pack --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [RAW, JPEG], ids=["raw", "jpeg"])
def test_a_pack_keeps_classes_labels_order_and_corrupt_images_of_its_source(root: Path, how: PackSettings) -> None:
    for files, ours in splits_of(root, packed(root, how)):
        assert ours.classes == files.classes
        assert ours.labels.dtype == np.int64
        assert ours.labels.tolist() == files.labels.tolist()
        for index in range(len(files.labels)):
            assert ours.describe(index) == f"{files.describe(index)} in {root / 'set.pack'}"
            name = Path(files.describe(index)).relative_to(root / "set").as_posix()
            if name in CORRUPT:
                with pytest.raises(CorruptImage, match=CORRUPT[name]):
                    ours.read(index)
            else:
                assert ours.read(index).shape[0] == 3


def test_packed_images_are_resized_as_torchvision_does_and_never_enlarged(root: Path) -> None:
    resized = v2.Resize(32, antialias=True)
    ((files, ours), _) = splits_of(root, packed(root))
    for index, shape in enumerate(SHAPES):
        if index == 3:  # corrupt
            continue
        original, stored = files.read(index), ours.read(index)
        if min(shape) <= 32:
            assert torch.equal(stored, original)
            continue
        assert min(stored.shape[1:]) == 32
        tolerance = 0 if "AVX" in torch.backends.cpu.get_cpu_capability() else 1
        torch.testing.assert_close(stored, resized(original), rtol=0, atol=tolerance)
        image = Image.fromarray(original.permute(1, 2, 0).numpy())
        by_pillow = np.asarray(image.resize(stored.shape[:0:-1], Image.Resampling.BILINEAR)).astype(float)
        assert np.abs(stored.permute(1, 2, 0).numpy() - by_pillow).mean() < 0.1


def test_jpeg_is_near_the_pixels_and_takes_less_room(root: Path) -> None:
    raw, good, poor = (packed(root, how, f"{how.quality}.pack") for how in (RAW, JPEG, PackSettings(32, "jpeg", 20)))
    far = [(images.train.read(8).to(torch.float32) - raw.train.read(8)).abs().mean() for images in (good, poor)]
    assert 0 < far[0] < 5 < far[1]
    sizes = [(root / f"{quality}.pack" / "train.pixels").stat().st_size for quality in (None, 90, 20)]
    assert sizes[0] > 2 * sizes[1] > 2 * sizes[2]


def test_pixels_in_a_pack_are_in_channels_last_memory_as_decoded_ones(root: Path) -> None:
    """In which they are resized three times as fast."""
    image = packed(root).train.read(0)
    assert image.stride()[0] == 1


def test_the_files_do_not_depend_on_the_number_of_threads(root: Path) -> None:
    packed(root, folder="one.pack", num_threads=1), packed(root, folder="four.pack", num_threads=4)
    for name in ("train.pixels", "train.index", "val.pixels", "val.index", "pack.json"):
        assert (root / "one.pack" / name).read_bytes() == (root / "four.pack" / name).read_bytes()


def test_a_reader_treats_the_corrupt_images_of_a_pack_as_those_of_files(root: Path) -> None:
    for files, ours in splits_of(root, packed(root, PackSettings(1000, "raw"))):
        for replace_corrupt in (True, False):
            views = Views(Augmentations(RandomResizedCrop(16)), on_device=True)
            read, other = (ImageReader(source, views, replace_corrupt=replace_corrupt) for source in (files, ours))
            plan = BatchPlan(1, 0, np.arange(18), np.arange(18))
            assert torch.equal(read(plan).inputs.images, other(plan).inputs.images)
            assert torch.equal(read(plan).labels, other(plan).labels)
            assert read.corrupt == other.corrupt


def test_validation_on_a_pack_of_256_equals_that_on_the_files(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, shape in enumerate([(300, 420), (257, 256), (500, 290)]):
            write_picture(tmp_path / "set" / split / "a" / f"{number}.png", number, shape)
    for files, ours in splits_of(tmp_path, packed(tmp_path, PackSettings(256, "raw"))):
        for index in range(3):
            crop = CenterCrop(224).crop
            assert torch.equal(crop(ours.read(index)), crop(files.read(index)))


# -- jobs ---------------------------------------------------------------------------------------------------------


def test_a_job_names_a_pack_as_any_folder(root: Path, make_job: Callable[..., Job]) -> None:
    packed(root)
    images = open_images(make_job(dataset="set.pack", data_root=str(root), class_subset=[1]))
    assert images.classes == ["b"]
    assert len(images.train.labels) == len(images.val.labels) == 9


def test_a_pack_is_a_data_set_to_validate_on(root: Path, make_job: Callable[..., Job]) -> None:
    packed(root)
    val = open_validation(make_job(data_root=str(root)), "set.pack", ["b", "a"])
    assert val.labels.tolist() == [1] * 9 + [0] * 9


def test_a_pack_can_be_packed_again(root: Path) -> None:
    pack(packed(root), "set.pack", root / "small.pack", PackSettings(16, "raw"), 1, lambda done, total: None)
    smaller = open_pack(root / "small.pack").train
    assert smaller.read(8).shape == (3, 21, 16)
    with pytest.raises(CorruptImage, match="the file is empty"):
        smaller.read(3)


def spoil(folder: Path, what: str) -> None:
    manifest = json.loads((folder / "pack.json").read_text())
    match what:
        case "no manifest":
            (folder / "pack.json").unlink()
        case "half a manifest":
            os.truncate(folder / "pack.json", 100)
        case "a manifest of a list":
            (folder / "pack.json").write_text("[1]")
        case "version":
            (folder / "pack.json").write_text(json.dumps({**manifest, "version": 2}))
        case "one split":
            del manifest["splits"]["val"]
            (folder / "pack.json").write_text(json.dumps(manifest))
        case "unfinished":
            manifest["splits"]["val"] |= {"index": None}
            (folder / "pack.json").write_text(json.dumps(manifest))
        case "no pixels":
            (folder / "train.pixels").unlink()
        case "fewer pixels":
            os.truncate(folder / "val.pixels", 1000)
        case "a shorter index":
            os.truncate(folder / "train.index", 5 * RECORD.itemsize)
        case "a byte of the index":
            content = bytearray((folder / "train.index").read_bytes())
            content[40] ^= 1
            (folder / "train.index").write_bytes(content)
        case "pipe":
            (folder / "train.pixels").unlink()
            plant_no_file(folder / "train.pixels", "pipe")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no manifest", "is no pack: it has no pack.json; `accel-train pack` makes one"),
        ("half a manifest", "pack.json is damaged; delete the pack and pack again"),
        ("a manifest of a list", "is not what `accel-train pack` writes; delete the pack and pack again"),
        ("version", "is a pack of version 2, not 1; delete the pack and pack again"),
        ("one split", "is not what `accel-train pack` writes; delete the pack and pack again"),
        ("unfinished", "is not complete; the same `accel-train pack` again resumes it"),
        ("no pixels", "train.pixels cannot be read: No such file or directory; delete the pack and pack again"),
        ("fewer pixels", "val.pixels has 1,000 bytes instead of "),
        ("a shorter index", "train.index is damaged; delete the pack and pack again"),
        ("a byte of the index", "train.index is damaged; delete the pack and pack again"),
        ("pipe", "train.pixels is not a regular file"),
    ],
)
def test_what_is_no_whole_pack_is_refused_when_a_job_is_checked(
    root: Path, make_job: Callable[..., Job], what: str, told: str
) -> None:
    packed(root)
    spoil(root / "set.pack", what)
    line = said_by(open_images, make_job(dataset="set.pack", data_root=str(root)))
    assert line.startswith("dataset: ")
    assert told in line


def test_an_index_that_cannot_be_is_refused_before_anything_is_read(root: Path) -> None:
    """Whoever made it, a checksum of it as well."""
    packed(root)
    for field, value in (("offset", 10), ("height", 10**6), ("label", 2), ("name_size", 2**31)):
        records = np.fromfile(root / "set.pack/train.index", RECORD)
        records[field][0] = value
        manifest = Manifest.model_validate_json((root / "set.pack/pack.json").read_text())
        forged = records.tobytes()
        index, folder = manifest.splits["train"], root / f"{field}.pack"
        folder.mkdir()
        (folder / "train.index").write_bytes(forged)
        (folder / "train.pixels").symlink_to(root / "set.pack/train.pixels")
        index.index = split_writer.digest(forged)
        with pytest.raises(UserError, match=r"train\.index is not what"):
            Packed(folder, "train", manifest)


def overwrite(path: Path, records: np.ndarray, index: int) -> None:
    """Other pixels in an image, of the same length and time."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(int(records["offset"][index]))
        file.write(bytes(int(records["size"][index])))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("how", [RAW, JPEG], ids=["raw", "jpeg"])
def test_an_image_that_is_not_what_was_packed_is_refused_when_it_is_read(root: Path, how: PackSettings) -> None:
    """As after a copy that was interrupted: its lengths may be right."""
    records = packed(root, how).train.records
    path = root / "set.pack" / "train.pixels"
    for index in (0, 3):  # the second is corrupt: why is in the file, too
        overwrite(path, records, index)
    train = open_pack(root / "set.pack").train
    for index in (0, 3):
        with pytest.raises(UserError) as caught:
            train.read(index)
        assert str(caught.value) == (
            f"dataset: {path} is damaged, or of another pack than the files beside it: image {index} is not what was "
            "packed; delete the pack and pack again"
        )
    assert train.read(1).shape[0] == 3


def test_the_file_of_another_pack_is_refused(root: Path) -> None:
    packed(root, folder="one.pack")
    write_picture(root / "set/train/a/8.png", 99, SHAPES[8])
    two = packed(root, folder="two.pack").train
    (root / "one.pack/train.pixels").replace(root / "two.pack/train.pixels")  # of the same length
    train = open_pack(root / "two.pack").train
    assert torch.equal(train.read(0), two.read(0))
    with pytest.raises(UserError, match="image 8 is not what was packed"):
        train.read(8)


@pytest.mark.parametrize("keeps_time", [True, False])
def test_a_file_that_took_the_place_of_one_while_a_disk_was_away_is_compared_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch, keeps_time: bool
) -> None:
    images = packed(root).train
    path = root / "set.pack" / "train.pixels"
    before = images.read(0)
    copy, times = path.with_suffix(".copy"), path.stat()
    copy.write_bytes(path.read_bytes())
    overwrite(copy, images.records, 1)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns if keeps_time else 0))
    images.read(1)
    copy.replace(path)
    assert images.read(1).any()  # still of the file that was opened

    def stale(*_: object) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", stale)
        with pytest.raises(OSError, match="Stale"):
            images.read(0)
    if keeps_time:
        assert torch.equal(images.read(0), before)
        with pytest.raises(UserError, match="image 1 is not what was packed"):
            images.read(1)
    else:
        with pytest.raises(OSError, match="another file has taken its place"):
            images.read(0)


# -- verifying ----------------------------------------------------------------------------------------------------


def test_a_changed_byte_of_any_image_is_found_with_the_images_name(root: Path) -> None:
    images = packed(root)
    folder = root / "set.pack"
    assert list(damaged_images(folder, 2, lambda done, total: None)) == []
    assert isinstance(images.val, Packed)
    for index in (0, 7, 17):
        offset = int(images.val.records["offset"][index])
        with (folder / "val.pixels").open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 4]))
    expected = [images.val.name(index) for index in (0, 7, 17)]
    assert list(damaged_images(folder, 2, lambda done, total: None)) == expected


# -- going on -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def pack_until(root: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> bool:
    """Pack, with an end at the n-th call that changes a file; of a write a part is done. Whether the end was reached
    before."""
    left = call

    def ending(real: Callable[..., int], *, half: bool) -> Callable[..., int]:
        def called(file: int, *words: bytes) -> int:
            nonlocal left
            left -= 1
            if left == 0:
                if half:
                    real(file, *(word[: len(word) // 2 + 1] for word in words))
                raise Killed
            return real(file, *words)

        return called

    with monkeypatch.context() as patched:
        patched.setattr(split_writer.os, "write", ending(os.write, half=True))
        patched.setattr(split_writer.os, "fsync", ending(os.fsync, half=False))
        patched.setattr(Path, "replace", ending(Path.replace, half=False))  # type: ignore[type-var]
        try:
            packed(root, num_threads=1)
        except Killed:
            return False
    return True


def is_complete(folder: Path) -> bool:
    path = folder / "pack.json"
    return path.exists() and Manifest.model_validate_json(path.read_text()).is_complete


def test_whoever_is_killed_at_any_moment_goes_on_to_the_same_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "CHUNK", 4)
    monkeypatch.setattr(split_writer, "SYNC_EVERY", 20_000)
    packed(root, folder="undisturbed.pack")
    call = 0
    while not pack_until(root, monkeypatch, call := call + 1):
        if not is_complete(root / "set.pack"):
            with pytest.raises(UserError):
                open_data_set("set.pack", root, None, None)
        packed(root)
        for name in ("train.pixels", "train.index", "val.pixels", "val.index", "pack.json"):
            assert (root / "set.pack" / name).read_bytes() == (root / "undisturbed.pack" / name).read_bytes(), call
        for path in (root / "set.pack").iterdir():
            path.unlink()
    assert call > 25


def test_what_is_there_is_not_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "CHUNK", 4)
    monkeypatch.setattr(split_writer, "SYNC_EVERY", 1)
    assert not pack_until(root, monkeypatch, 14)
    there = (root / "set.pack/train.index").stat().st_size // RECORD.itemsize
    assert 4 <= there < 18
    made: list[int] = []
    real = split_writer.downscaled
    monkeypatch.setattr(split_writer, "downscaled", lambda source, i, size: (made.append(i), real(source, i, size))[1])
    packed(root, num_threads=1)
    assert made == [*range(there, 18), *range(18)]
    made.clear()
    packed(root)
    assert made == []


def test_an_end_that_a_disk_has_lost_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as zeros after a power cut, although the disk had said that it was written."""
    monkeypatch.setattr(split_writer, "CHUNK", 4)
    packed(root, folder="undisturbed.pack")
    packed(root)
    spoil(root / "set.pack", "unfinished")
    size = (root / "set.pack/val.pixels").stat().st_size
    os.truncate(root / "set.pack/val.pixels", size - 5000)
    os.truncate(root / "set.pack/val.pixels", size)
    packed(root)
    assert (root / "set.pack/val.pixels").read_bytes() == (root / "undisturbed.pack/val.pixels").read_bytes()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(root: Path) -> None:
    everything = PackSettings(1000, "raw")
    packed(root, everything, "undisturbed.pack")
    with own_disk(root / "disk", "size=200k") as disk:
        said = said_by(packed, root, everything, "disk/set.pack")
        assert "No space left on device; fix that, and the same command resumes where it was" in said
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        packed(root, everything, "disk/set.pack")
        for name in ("train.pixels", "val.pixels", "train.index"):
            assert (disk / "set.pack" / name).read_bytes() == (root / "undisturbed.pack" / name).read_bytes()


def test_a_pack_of_something_else_is_not_touched(root: Path) -> None:
    packed(root)
    before = {path: path.read_bytes() for path in (root / "set.pack").iterdir()}
    assert "is a pack of size 32, raw; delete it, or" in said_by(packed, root, JPEG)
    assert "is a pack of size 32, raw; delete it, or" in said_by(packed, root, PackSettings(31, "raw"))
    write_picture(root / "set/train/b/99.png", 0, (5, 5))
    assert "set as it was before images came or went; delete it" in said_by(packed, root)
    assert before == {path: path.read_bytes() for path in (root / "set.pack").iterdir()}


def test_images_that_were_renamed_meanwhile_are_not_mixed_with_the_old_ones(root: Path) -> None:
    packed(root)
    spoil(root / "set.pack", "unfinished")
    (root / "set/val/b/8.png").rename(root / "set/val/b/80.png")
    assert "image 17 is " in said_by(packed, root)


@pytest.mark.parametrize("there", ["set", "a file"])
def test_what_is_no_pack_is_not_written_to(root: Path, there: str) -> None:
    (root / "a file").touch()
    before = file_names(root)
    assert "; choose another `output`" in said_by(packed, root, RAW, there)
    assert file_names(root) == before


def test_only_one_process_packs_into_a_folder(root: Path) -> None:
    def meanwhile(done: int, total: int) -> None:
        assert "another process is packing into it" in said_by(packed, root)

    pack(open_folders(root, "set", ()), str(root / "set"), root / "set.pack", RAW, 1, meanwhile)
    assert len(packed(root).train.labels) == 18


def test_a_corrupt_image_is_named_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    packed(root)
    packed(root)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [f"corrupt image {root / 'set' / name}: {why}" for name, why in CORRUPT.items()]


def test_a_disk_that_fails_is_not_taken_for_a_corrupt_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("accel_trainer.data.decode.files.read_bytes", fail)
    assert "cannot be read: Input/output error; the same command resumes where it was" in said_by(packed, root)
    monkeypatch.undo()
    assert len(packed(root).train.labels) == 18


def test_progress_of_packing_is_reported_up_to_the_end(root: Path) -> None:
    told: list[tuple[int, int]] = []
    files = open_folders(root, "set", ())
    pack(files, "set", root / "set.pack", RAW, 2, lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {36}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (36, 36)
