"""An image that another one has replaced, of the same name and size, is noticed when it is read."""

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import TINY, StopAt
from PIL import Image
from ranks import run_two_ranks

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.augment import spectrum
from accel_trainer.data.augment.spectrum import ListedSpectrum
from accel_trainer.data.contents import Contents
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import SessionOptions, train

pytestmark = pytest.mark.usefixtures("tiny_models")


def write(path: Path, seed: int) -> None:
    """All of one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("val", 4)):
        for number in range(2 * count):
            write(tmp_path / "sets" / "set" / split / "ab"[number % 2] / f"{number}.bmp", number)
    return tmp_path / "sets" / "set"


Begin = Callable[..., TrainingResult]


@pytest.fixture
def begin(make_job: Callable[..., Job], root: Path, tmp_path: Path) -> Begin:
    def start(
        epochs: int = 1,
        stop: StopRequest | None = None,
        on_status: Callable[[Status], None] = lambda status: None,
        **given: Any,
    ) -> TrainingResult:
        few = {"batch_size": 4, "dataset": "set", "data_root": str(root.parent), "num_epochs": epochs}
        run = RunFolder(tmp_path / "run")
        run.create()
        options = SessionOptions(cpu=True, prints=False, on_status=on_status)
        return train(make_job(**{**TINY, **few, **given}), run, StopRequest() if stop is None else stop, options)

    return start


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def known(run: RunFolder) -> dict[str, int]:
    """How many images of each split are known."""
    with np.load(run.dataset_contents) as arrays:
        return {split: int((arrays[f"{split}/checksums"] != 0).sum()) for split in ("train", "val")}


@pytest.mark.parametrize("name", ["train/a/2.bmp", "val/b/1.bmp"])
def test_a_replaced_image_is_refused_by_name_unless_that_is_allowed(
    begin: Begin, run: RunFolder, root: Path, name: str
) -> None:
    begin().check()
    assert known(run) == {"train": 16, "val": 8}
    write(root / name, 99)
    result = begin(2)
    assert result.state is RunState.INVALID
    assert str(result.error).startswith(f"dataset: {root / name} is another image than the run has read before")
    begin(2, allow_changes=True).check()
    assert f"{root / name} is another image than before; going on with it" in run.log.read_text()
    begin(3).check()


def test_an_image_that_is_replaced_in_the_middle_of_a_run_ends_it(begin: Begin, root: Path) -> None:
    replaced: list[int] = []

    def replace(status: Status) -> None:
        if status.best is not None and not replaced:  # after the first epoch
            write(root / "train/a/2.bmp", 99)
            replaced.append(1)

    result = begin(6, on_status=replace)
    assert "train/a/2.bmp is another image than the run has read before" in str(result.error)


def test_what_was_read_before_an_interruption_is_known_after_it(begin: Begin, run: RunFolder, root: Path) -> None:
    assert begin(stop=StopAt(3)).state is RunState.PREEMPTED
    with np.load(run.dataset_contents) as arrays:
        read = np.flatnonzero(arrays["train/checksums"])
    assert len(read) > 0
    names = sorted(f"a/{number}.bmp" for number in range(0, 16, 2)) + sorted(f"b/{n}.bmp" for n in range(1, 16, 2))
    name = names[int(read[0])]
    write(root / "train" / name, 99)
    result = begin(2)  # its place in the epoch may be over: at the latest in the next one
    assert f"{name} is another image" in str(result.error)


def test_a_copy_of_the_data_set_is_the_same(begin: Begin, root: Path, tmp_path: Path) -> None:
    begin().check()
    shutil.copytree(root, tmp_path / "elsewhere" / "set", copy_function=shutil.copyfile)
    begin(2, data_root=str(tmp_path / "elsewhere")).check()


def test_a_run_of_before_there_were_checksums_is_given_them(begin: Begin, run: RunFolder) -> None:
    begin().check()
    before = run.dataset_contents.read_bytes()
    run.dataset_contents.unlink()
    begin(2).check()
    assert run.dataset_contents.read_bytes() == before


@pytest.mark.parametrize("how", ["cut", "empty", "no archive", "an array", "a bit"])
def test_damaged_checksums_are_the_users_to_delete(begin: Begin, run: RunFolder, root: Path, how: str) -> None:
    """As if there were none, an image replaced meanwhile would go unnoticed."""
    begin().check()
    whole = run.dataset_contents.read_bytes()
    array = BytesIO()
    np.save(array, np.zeros(3))
    middle, inside = len(whole) // 2, whole.index(b".npy") + 40
    run.dataset_contents.write_bytes(
        {
            "cut": whole[:middle],
            "empty": b"",
            "no archive": b"damaged",
            "an array": array.getvalue(),
            "a bit": whole[:inside] + bytes([whole[inside] ^ 1]) + whole[inside + 1 :],
        }[how]
    )
    write(root / "train/a/2.bmp", 99)
    result = begin(2)
    assert result.state is RunState.INVALID
    assert str(result.error) == (
        f"{run.dataset_contents}: is damaged, so it is not known whether the data set is still that of the run; "
        "delete it to go on with what is there; it is then made anew"
    )
    run.dataset_contents.unlink()
    begin(2).check()


def test_checksums_are_those_of_zlib_and_one_byte_is_enough() -> None:
    contents = Contents(2, accepts_changes=False)
    contents.note(0, b"123456789", "x")
    assert contents.checksums.tolist() == [0xCBF43926, 0]  # the check value of CRC-32
    contents.note(0, b"123456789", "x")
    with pytest.raises(UserError, match="x is another image"):
        contents.note(0, b"123456788", "x")


def test_a_measured_spectrum_of_other_images_is_refused_before_any_step(
    begin: Begin, run: RunFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = {"Noise": {"noise_types": "fourier", "ssnrs": 0.5}}
    begin(**noise).check()
    begin(2, **noise).check()
    for path in (root / "train").rglob("*.bmp"):
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(path)
    result = begin(3, **noise)
    assert f"the measured spectrum is not what the run in {run.path} began with: spectrum: other amplitudes" in str(
        result.error
    )


def test_a_run_that_recorded_no_amplitudes_goes_on(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = {"Noise": {"noise_types": "fourier", "ssnrs": 0.5}}
    with monkeypatch.context() as patch:
        patch.setattr(spectrum, "_rounded", lambda amplitudes: 0)
        begin(**noise).check()
    begin(2, **noise).check()


def test_the_last_bits_of_a_measured_spectrum_do_not_count() -> None:
    amplitudes = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    marks = [
        ListedSpectrum(one, is_measured=True).known_marks
        for one in (amplitudes, amplitudes * (1 + 2e-7), amplitudes.flip(0), amplitudes * 1.1)
    ]
    assert marks[0] == marks[1] != marks[2]
    assert marks[3] not in marks[:3]


ON_RANKS = """
import json
import os
from pathlib import Path
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
from accelerate import Accelerator
from accel_trainer.data.dataset import Splits
from accel_trainer.data.sources.folders import open_folders
from accel_trainer.run.dataset_record import DataSetRecord
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.check import sources_of
from accel_trainer.training.identity.contents import ContentRecord
from accel_trainer.training.identity.listing import list_split

images = open_folders(Path(folder) / "sets", "set", ())
now = DataSetRecord("set", {split: list_split(source).record for split, source in sources_of(images).items()})
record = ContentRecord(RunFolder(Path(folder)), images, now, Accelerator(cpu=True), accepts_changes=True)
for index in range(rank, 16, 2):
    images.train.read(index)
images.val.read(0)
record.share()()
if rank:  # one of them finds a change
    images.train.contents.note(3, b"another", "x")
record.share()()
record.share()()
found = [split.contents.checksums.tolist() for split in (images.train, images.val)]
Path(folder, f"found-{rank}").write_text(json.dumps(found))
"""


def test_all_ranks_know_what_one_of_them_has_read(root: Path, tmp_path: Path, run: RunFolder) -> None:
    run_two_ranks(ON_RANKS, tmp_path)
    first, second = (json.loads((tmp_path / f"found-{rank}").read_text()) for rank in (0, 1))
    assert first == second
    train_, val = first
    assert all(train_)
    assert [bool(checksum) for checksum in val] == [True] + 7 * [False]
    other = Contents(1, accepts_changes=False)
    other.note(0, b"another", "x")
    assert train_[3] == int(other.checksums[0])
    with np.load(tmp_path / "dataset_contents.npz") as arrays:
        assert arrays["train/checksums"].tolist() == train_
