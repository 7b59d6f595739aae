import errno
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from accel_trainer.core import outage
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import MachineFailure, waiting_out
from accel_trainer.data.augment.geometry import CenterCrop, RandomResizedCrop
from accel_trainer.data.batch_plan import BatchPlan, TrainBatchPlanner, evaluation_batches
from accel_trainer.data.loader import READY_AHEAD, Batch, ImageReader, Loader, default_num_threads
from accel_trainer.data.sources.digits import Digits
from accel_trainer.data.sources.folders import ImageFolder
from accel_trainer.data.views import Augmentations, Inputs, Views


def plan(*indices: int, step: int = 0) -> BatchPlan:
    return BatchPlan(1, step, np.array(indices, dtype=np.int64), np.array(indices, dtype=np.int64))


def uncoloured(transform: CenterCrop | RandomResizedCrop) -> Views:
    """Views whose batches are still uint8."""
    return Views(Augmentations(transform), on_device=True)


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


# -- threads -----------------------------------------------------------------------------------------------


def batches_with(num_threads: int) -> list[Batch]:
    source = Digits("train")
    read = ImageReader(source, uncoloured(RandomResizedCrop(16)), replace_corrupt=True)
    plans = TrainBatchPlanner(len(source.labels), 64, accumulation=1, world_size=2, seed=0).micro_batches(1, rank=1)
    with Loader(num_threads) as loader:
        return list(loader.batches(read, plans))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_batches_do_not_depend_on_the_number_of_threads(num_threads: int) -> None:
    expected, found = batches_with(0), batches_with(num_threads)
    assert [batch.step for batch in found] == [batch.step for batch in expected] == list(range(1347 // 64))
    for batch, other in zip(found, expected, strict=True):
        assert torch.equal(batch.inputs.images, other.inputs.images)
        assert torch.equal(batch.labels, other.labels)
        assert torch.equal(batch.global_labels, other.global_labels)


def test_a_batch_has_the_images_and_labels_of_its_plan() -> None:
    source = Digits("val")
    read = ImageReader(source, uncoloured(CenterCrop(8)), replace_corrupt=False)
    batch = read(BatchPlan(1, 5, np.array([7, 3]), np.array([7, 3, 9, 1])))
    assert batch.inputs.images.shape == (2, 3, 8, 8)
    assert batch.inputs.images.dtype == torch.uint8
    assert batch.labels.tolist() == source.labels[[7, 3]].tolist()
    assert batch.global_labels.tolist() == source.labels[[7, 3, 9, 1]].tolist()
    assert batch.step == 5


@pytest.mark.parametrize("num_threads", [1, 3])
def test_only_a_few_batches_are_under_way(num_threads: int) -> None:
    lock, started, taken, most = threading.Lock(), itertools.count(1), 0, 0

    def load(wanted: BatchPlan) -> Batch:
        nonlocal most
        with lock:
            most = max(most, next(started) - taken)
        return Batch(Inputs(torch.empty(0)), torch.empty(0), torch.empty(0), wanted.step)

    endless = (plan(step=step) for step in itertools.count())
    with Loader(num_threads) as loader:
        for batch in itertools.islice(loader.batches(load, endless), 50):
            assert batch.step == taken
            taken += 1
            time.sleep(0.001)
    assert 1 < most <= 1 + READY_AHEAD  # whatever the number of threads


class Meeting:
    """Images that come when as many threads ask for one."""

    classes, labels = ("only",), np.zeros(48, dtype=np.int64)

    def __init__(self, num_threads: int) -> None:
        self.barrier = threading.Barrier(num_threads)

    def read(self, index: int) -> torch.Tensor:
        self.barrier.wait(timeout=60)
        return torch.full((3, 8, 8), index, dtype=torch.uint8)

    def describe(self, index: int) -> str:
        return str(index)


def test_all_threads_load_one_batch_together() -> None:
    """So the first batch of an epoch is there as soon as can be."""
    read = ImageReader(Meeting(3), uncoloured(CenterCrop(8)), replace_corrupt=True)
    with Loader(3) as loader:
        (batch,) = loader.batches(read, [plan(*range(48))])
    assert batch.inputs.images[:, 0, 0, 0].tolist() == list(range(48))


def test_without_threads_a_batch_is_loaded_when_it_is_asked_for() -> None:
    loaded: list[int] = []
    with Loader(0) as loader:
        batches = loader.batches(lambda wanted: loaded.append(wanted.step), map(plan, range(9)))  # type: ignore[arg-type, func-returns-value]
        next(batches)
        assert len(loaded) == 1


def endless_digits(loader: Loader) -> Iterator[Batch]:
    read = ImageReader(Digits("val"), uncoloured(CenterCrop(8)), replace_corrupt=False)
    return loader.batches(read, (plan(step % 450) for step in itertools.count()))


def test_leaving_in_the_middle_leaves_no_thread_behind() -> None:
    with Loader(3) as loader:
        next(endless_digits(loader))
        assert loader_threads()
    assert not loader_threads()


def test_an_error_in_the_middle_leaves_no_thread_behind() -> None:
    def train() -> None:
        with Loader(3) as loader:
            for _ in endless_digits(loader):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert not loader_threads()


def test_one_loader_serves_many_passes_in_turn() -> None:
    with Loader(2) as loader:
        for _ in range(3):
            assert [batch.step for batch in itertools.islice(endless_digits(loader), 4)] == [0] * 4


@pytest.mark.parametrize(("cores", "processes", "threads"), [(8, 2, 4), (8, 3, 2), (2, 4, 1), (64, 1, 8), (1, 1, 1)])
def test_processes_share_the_cores_of_their_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_num_threads(processes) == threads


# -- images that cannot be read ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, write_image: Callable[..., Path]) -> ImageFolder:
    """Classes a, b and c with three images each; the n-th image of all has brightness 10 n."""
    for number in range(9):
        write_image(tmp_path / "set" / "abc"[number // 3] / f"{number}.png", brightness=10 * number)
    return ImageFolder(tmp_path / "set")


def break_images(folder: ImageFolder, *indices: int) -> None:
    for index in indices:
        Path(folder.describe(index)).write_bytes(b"\x89PNG broken")


def brightness(batch: Batch) -> list[int]:
    return [int(value) // 10 for value in batch.inputs.images[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("broken", "given"),
    [
        ([1], [0, 2, 2, 3]),
        ([2], [0, 1, 0, 3]),  # after the last of a class comes its first
        ([0, 1], [2, 2, 2, 3]),
        ([3], [0, 1, 2, 4]),
        ([3, 4], [0, 1, 2, 5]),
    ],
)
@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_corrupt_training_image_gives_way_to_the_next_of_its_class(
    folder: ImageFolder, broken: list[int], given: list[int], num_threads: int
) -> None:
    break_images(folder, *broken)
    read = ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=True)
    with Loader(num_threads) as loader:
        (batch,) = loader.batches(read, [plan(0, 1, 2, 3)])
    assert brightness(batch) == given
    assert batch.labels.tolist() == [0, 0, 0, 1]
    assert batch.global_labels.tolist() == [0, 0, 0, 1]
    assert read.corrupt == set(broken)


def test_a_corrupt_image_is_left_out_of_an_evaluation(folder: ImageFolder) -> None:
    break_images(folder, 1, 3, 4, 5)
    read = ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=False)
    batches = [read(wanted) for wanted in evaluation_batches(9, batch_size=3, rank=0, world_size=1)]
    assert [brightness(batch) for batch in batches] == [[0, 2], [], [6, 7, 8]]
    assert [batch.labels.tolist() for batch in batches] == [[0, 0], [], [2, 2, 2]]
    assert len(batches[1].inputs.images) == 0


def test_a_corrupt_image_is_named_once(folder: ImageFolder, caplog: pytest.LogCaptureFixture) -> None:
    break_images(folder, 1)
    read = ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=True)
    for _ in range(3):
        read(plan(0, 1))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"skipped corrupt image {folder.describe(1)}: ")


def test_a_class_without_a_good_image_is_the_users_error(folder: ImageFolder) -> None:
    break_images(folder, 3, 4, 5)
    read = ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=True)
    with Loader(2) as loader, pytest.raises(UserError, match="dataset: every training image of class 'b' is corrupt"):
        list(loader.batches(read, [plan(0), plan(4), plan(1)]))


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("failing", ["read", "transform"])
def test_an_unexpected_error_names_the_image(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch, num_threads: int, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    read = ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=True)
    if failing == "read":
        monkeypatch.setattr(folder, "read", fail)
        monkeypatch.setattr(folder, "encoded", fail)
    else:
        monkeypatch.setattr(read.views.crop, "cuts", fail)
    with Loader(num_threads) as loader, pytest.raises(RuntimeError, match=r"b/4\.png: of all things"):
        list(loader.batches(read, [plan(4)]))


class Away:
    """Images of a disk that is away for a while: each is read twice."""

    classes, labels = ("only",), np.zeros(48, dtype=np.int64)

    def __init__(self, error: OSError, *, forever: bool = False) -> None:
        self.error, self.forever, self.asked = error, forever, set[int]()

    def read(self, index: int) -> torch.Tensor:
        if self.forever or index not in self.asked:
            self.asked.add(index)
            raise self.error
        return torch.full((3, 8, 8), index, dtype=torch.uint8)

    def describe(self, index: int) -> str:
        return f"image {index}"


@pytest.mark.parametrize("num_threads", [0, 3])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOENT])
def test_a_disk_that_was_away_changes_no_batch(
    number: int, num_threads: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE_S", 0.001)
    source = Away(OSError(number, "away", "x.png"))
    read = ImageReader(source, uncoloured(CenterCrop(8)), replace_corrupt=True)
    with waiting_out(lambda: False), Loader(num_threads) as loader:
        (batch,) = loader.batches(read, [plan(*range(48))])
    assert batch.inputs.images[:, 0, 0, 0].tolist() == list(range(48))
    assert not read.corrupt
    assert "corrupt" not in caplog.text


@pytest.mark.parametrize("num_threads", [0, 3])
def test_an_image_that_cannot_be_read_is_the_machines_failure(num_threads: int) -> None:
    read = ImageReader(Away(OSError(errno.EIO, "away"), forever=True), uncoloured(CenterCrop(8)), replace_corrupt=False)
    with Loader(num_threads) as loader, pytest.raises(MachineFailure, match=r"^image 7 cannot be read: away$"):
        list(loader.batches(read, [plan(7)]))


def test_an_occluder_that_cannot_be_read_for_a_while_is_the_machines_failure_too(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=True)
    monkeypatch.setattr(read.views.crop, "cuts", Mock(side_effect=MachineFailure("no mask")))
    with Loader(1) as loader, pytest.raises(MachineFailure, match=r"^no mask$"):
        list(loader.batches(read, [plan(4)]))


def test_an_error_of_the_users_code_keeps_its_type(folder: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an occluder that cannot be read: the image has nothing to do with it."""

    def fail(*_: object) -> None:
        raise UserError("Occlusion: no")

    read = ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=True)
    monkeypatch.setattr(read.views.crop, "cuts", fail)
    with Loader(1) as loader, pytest.raises(UserError, match=r"^Occlusion: no$"):
        list(loader.batches(read, [plan(4)]))


def test_an_error_comes_in_its_turn(folder: ImageFolder) -> None:
    def load(wanted: BatchPlan) -> Batch:
        if wanted.step == 3:
            raise RuntimeError("the fourth")
        return ImageReader(folder, uncoloured(CenterCrop(4)), replace_corrupt=True)(wanted)

    seen = []
    with Loader(3) as loader, pytest.raises(RuntimeError, match="the fourth"):
        seen += [batch.step for batch in loader.batches(load, (plan(0, step=step) for step in range(9)))]
    assert not loader_threads()
