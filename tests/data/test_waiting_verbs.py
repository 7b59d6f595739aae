"""What reads images without training on them waits for their disk too, as long as nobody interrupts."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import wait_until
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.core import outage
from accel_trainer.core.outage import MachineFailure, persistently, waiting_out_until_interrupted
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack import writer
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.preview import preview


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for number in range(8):
            path = tmp_path / "set" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    return tmp_path


def pack(root: Path) -> None:
    images = open_data_set("set", root, None, None)
    writer.pack(images, "set", root / "set.pack", PackSettings(8, "raw"), 2, lambda done, total: None)


def draw(root: Path) -> None:
    preview(
        Job(
            architecture="resnet18",
            dataset="set",
            data_root=str(root),
            image_size=8,
            batch_size=8,
            num_epochs=1,
            trackers=[],
        ),
        epoch=1,
    )


@pytest.fixture
def comes_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The training images are away until somebody waits for them."""
    monkeypatch.setattr(outage, "FIRST_PAUSE_S", 0.01)
    (root / "set" / "train").rename(root / "away")
    (root / "set" / "train").symlink_to(root / "gone" / "set")

    def come_back() -> None:
        wait_until(lambda: outage._outage._waiting)
        (root / "set" / "train").unlink()
        (root / "away").rename(root / "set" / "train")

    thread = threading.Thread(target=come_back)
    thread.start()
    yield
    thread.join()


@pytest.mark.usefixtures("comes_back")
@pytest.mark.parametrize("verb", [pack, draw])
def test_verbs_wait_for_a_disk_that_is_away(root: Path, verb: Callable[[Path], None]) -> None:
    with waiting_out_until_interrupted(), outage.expecting([str(root / "set")]):
        verb(root)


def test_a_pack_that_cannot_be_read_is_not_called_damaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(root)
    monkeypatch.setenv(outage.PATIENCE_VARIABLE, "0.01")

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with waiting_out_until_interrupted(), pytest.raises(MachineFailure, match=r"train\.pixels cannot be read"):
        list(writer.damaged_images(root / "set.pack", 1, lambda done, total: None))


def test_ctrl_c_ends_the_waiting_of_all_threads() -> None:
    def away() -> None:
        raise OSError(errno.EIO, "Input/output error", "/x")

    stopped: list[BaseException] = []

    def wait() -> None:
        try:
            persistently(away, lambda: "x")
        except outage.StoppedWaiting as error:
            stopped.append(error)

    before = signal.getsignal(signal.SIGINT)
    threads = [threading.Thread(target=wait) for _ in range(2)]

    def interrupted() -> None:
        with waiting_out_until_interrupted():
            for thread in threads:
                thread.start()
            wait_until(lambda: outage._outage._waiting == 2)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                for thread in threads:
                    thread.join(timeout=60)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(stopped) == 2
    assert signal.getsignal(signal.SIGINT) is before
