"""Corrupt images are counted, the same number however the training is carried out, and many of them end it."""

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loops import TINY, StopAt, at_newest, train, train_until
from PIL import Image
from ranks import run_two_ranks

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data.loader import Loader
from accel_trainer.report.compare import compare
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, read_status
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.resume import resume
from accel_trainer.training.session import SessionOptions
from accel_trainer.training.session import train as session

MakeLoop = Callable[..., TrainingLoop]
pytestmark = pytest.mark.usefixtures("tiny_models")


@cache
def gray_png(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_set(root: Path, corrupt: int = 0, of_validation: int = 0) -> dict[str, Any]:
    """400 training images of two classes and 200 to validate on, of which so many are corrupt."""
    for split, count, broken in (("train", 400, corrupt), ("val", 200, of_validation)):
        for number in range(count):
            path = root / "set" / split / "ab"[number % 2] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < 7 * broken and number % 7 == 0:
                path.write_bytes(b"\x89PNG broken")
            else:
                path.write_bytes(gray_png(number % 256))
    return {"dataset": "set", "data_root": str(root), "class_subset": None, "batch_size": 40, "num_epochs": 2}


def counted(loop: TrainingLoop) -> dict[str, list[int]]:
    return {split: sorted(reader.met) for split, reader in loop.readers.items()}


@pytest.mark.parametrize("num_threads", [0, 3])
def test_the_count_does_not_depend_on_threads_and_survives_an_interruption(
    make_loop: MakeLoop, tmp_path: Path, num_threads: int
) -> None:
    job = {**TINY, **make_set(tmp_path, corrupt=3, of_validation=2)}
    whole = counted(train(make_loop(tmp_path / "whole", **job)))
    assert [len(found) for found in whole.values()] == [3, 2]
    for look in (3, 9, 14):
        folder = tmp_path / f"stopped at {look}"
        with Loader(num_threads) as loader:
            first = make_loop(folder, **job)
            first.loader = loader
            train_until(first, look)
            second = make_loop(folder, **job)
            resume(second, at_newest(second))
            second.loader = loader
            second.stop = StopAt()
            train(second)
        assert counted(second) == whole
        assert second.num_corrupt == 5


ON_RANKS = """
import json
import os
from pathlib import Path
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
import worlds
from accel_trainer.data.loader import Loader

class Threads(Loader):
    seen = []

worlds.WatchingLoader = lambda: Threads(2)
loop, _ = worlds.train_on(Path(folder) / "run", json.loads((Path(folder) / "job.json").read_text()), float("inf"))
found = [len(reader.met) for reader in loop.readers.values()]
Path(folder, f"found-{rank}").write_text(json.dumps(found))
"""


def test_all_ranks_count_what_one_of_them_has_met(tmp_path: Path) -> None:
    job = {**TINY, **make_set(tmp_path, corrupt=3, of_validation=2), "trackers": []}
    (tmp_path / "job.json").write_text(json.dumps({k: v for k, v in job.items() if v is not None}))
    run_two_ranks(ON_RANKS, tmp_path)
    assert [json.loads((tmp_path / f"found-{rank}").read_text()) for rank in (0, 1)] == [[3, 2], [3, 2]]


REFUSED_ON_RANKS = """
import json
import os
from pathlib import Path
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
import worlds
from accel_trainer.core.errors import UserError
from accel_trainer.data.loader import Loader

class Threads(Loader):
    seen = []

worlds.WatchingLoader = lambda: Threads(2)
try:
    worlds.train_on(Path(folder) / "run", json.loads((Path(folder) / "job.json").read_text()), float("inf"))
except UserError as error:
    Path(folder, f"found-{rank}").write_text(str(error))
"""


@pytest.mark.parametrize(("corrupt", "is_early"), [(40, True), (5, False)])
def test_too_many_end_a_run_at_the_same_step_on_one_and_two_ranks(
    make_loop: MakeLoop, tmp_path: Path, corrupt: int, is_early: bool
) -> None:
    job = {**TINY, **make_set(tmp_path, corrupt), "trackers": []}
    with pytest.raises(UserError, match="of 400 training images are corrupt") as refused:
        train(make_loop(tmp_path / "one", **job))
    assert (int(str(refused.value).split()[1]) < corrupt) == is_early
    (tmp_path / "job.json").write_text(json.dumps({k: v for k, v in job.items() if v is not None}))
    run_two_ranks(REFUSED_ON_RANKS, tmp_path)
    assert [(tmp_path / f"found-{rank}").read_text() for rank in (0, 1)] == 2 * [str(refused.value)]


Begin = Callable[..., Any]


@pytest.fixture
def begin(make_job: Callable[..., Job], tmp_path: Path) -> Begin:
    def start(**given: Any) -> Any:
        run = RunFolder(tmp_path / "run")
        run.create()
        return session(make_job(**{**TINY, **given}), run, StopAt(), SessionOptions(cpu=True, prints=False))

    return start


def test_status_and_compare_have_the_count(begin: Begin, tmp_path: Path) -> None:
    begin(**make_set(tmp_path, corrupt=3, of_validation=1)).check()
    run = RunFolder(tmp_path / "run")
    status = read_status(run)
    assert status is not None
    assert status.corrupt_images == compare([run])[0].corrupt == 4
    begin(**make_set(tmp_path, corrupt=3, of_validation=1)).check()  # it is over
    status = read_status(run)
    assert status is not None
    assert status.corrupt_images == 4


@pytest.mark.parametrize(("corrupt", "of_validation", "what"), [(5, 0, "5 of 400 training"), (0, 3, "3 of 200 valid")])
def test_more_than_one_percent_ends_a_run(
    begin: Begin, tmp_path: Path, corrupt: int, of_validation: int, what: str
) -> None:
    result = begin(**make_set(tmp_path, corrupt, of_validation))
    assert result.state is RunState.INVALID
    assert f"dataset: {what}" in str(result.error)
    assert "a/000.png" in str(result.error)
    assert "which is more than 1%" in str(result.error)


@pytest.mark.parametrize(("corrupt", "of_validation"), [(4, 2), (0, 0)])
def test_one_percent_does_not_and_nor_does_a_single_image(
    begin: Begin, tmp_path: Path, corrupt: int, of_validation: int
) -> None:
    begin(**make_set(tmp_path, corrupt, of_validation)).check()


@pytest.mark.parametrize(("corrupt", "of_validation"), [(1, 0), (0, 1)])
def test_a_job_may_forbid_corrupt_images(begin: Begin, tmp_path: Path, corrupt: int, of_validation: int) -> None:
    result = begin(**make_set(tmp_path, corrupt, of_validation), corrupt_images="forbid")
    assert result.state is RunState.INVALID
    assert isinstance(result.error, UserError)
    assert str(result.error).startswith("corrupt_images: ")
    assert "a/000.png: not an image; repair it" in str(result.error)


def test_a_validation_set_of_which_nothing_can_be_read_is_no_divergence(begin: Begin, tmp_path: Path) -> None:
    given = make_set(tmp_path)
    for path in (tmp_path / "set" / "val").glob("*/*"):
        path.unlink()
    for name in "ab":
        (tmp_path / "set" / "val" / name / "only.png").write_bytes(b"\x89PNG broken")
    result = begin(**given)
    assert result.state is RunState.INVALID
    assert "2 of 2 validation images are corrupt" in str(result.error)
