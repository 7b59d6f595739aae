"""What a queue has already, looked through before each job that is added."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from accel_trainer.api import queue_contents
from accel_trainer.api.queue_contents import QueueContents
from accel_trainer.config import Job, read_job
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore


@pytest.fixture
def store(tmp_path: Path) -> QueueStore:
    store = QueueStore(tmp_path / "queue")
    store.create()
    return store


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each job's file was read."""
    counts = Counter[str]()

    def counted(path: Path, name: str) -> Job:
        counts[name] += 1
        return read_job(path, name)

    monkeypatch.setattr(queue_contents, "read_queue_job", counted)
    return counts


def put(store: QueueStore, name: str, seed: int, **parameters: object) -> None:
    store.add(name, json.dumps({"architecture": "small_cnn", "seed": seed, **parameters}).encode())


def job(name: str, seed: int, **parameters: object) -> Job:
    return Job(architecture="small_cnn", name=name, seed=seed, **parameters)


def test_each_file_is_read_once_however_many_jobs_are_added(store: QueueStore, reads: Counter[str]) -> None:
    for number in range(20):
        put(store, f"old{number}", number)
    contents = QueueContents(store)
    for number in range(20, 30):
        assert contents.problems(job(f"new{number}", number)) == []
        put(store, f"new{number}", number)
    held = store.hold(next(one for one in store.jobs(JobState.PENDING) if one.name == "old3"))
    assert contents.problems(job("another", 3)) == [
        "the same as 'old3', which is held in the queue; `force` adds it anyway"
    ]
    assert held.exists()
    assert len(reads) == 30
    assert set(reads.values()) == {1}


def test_what_others_add_change_and_finish_meanwhile_is_seen(store: QueueStore) -> None:
    contents = QueueContents(store)
    assert contents.problems(job("mine", 1)) == []
    put(store, "mine", 2)
    assert contents.problems(job("mine", 1)) == [
        "a job 'mine' is pending in the queue, and this one has seed 2 -> 1; rename it, or add it with `force`"
    ]
    assert "the same as 'mine'" in contents.problems(job("other", 2))[0]
    before = (store.folder / "mine.json").stat()
    (store.folder / "mine.json").write_text(json.dumps({"architecture": "small_cnn", "seed": 9}))  # of as many bytes
    os.utime(store.folder / "mine.json", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert contents.problems(job("other", 2)) == []
    assert "the same as 'mine'" in contents.problems(job("other", 9))[0]
    claimed = store.claim(store.jobs(JobState.PENDING)[0])
    assert claimed is not None
    assert "is running in the queue" in contents.problems(job("mine", 1))[0]
    store.finish(claimed, JobState.FAILED, "it broke")
    assert contents.problems(job("mine", 9)) == [], "one that has failed may be tried again"


def test_jobs_are_the_same_whose_folders_follow_from_their_names_or_are_one(store: QueueStore) -> None:
    put(store, "plain", 1)
    put(store, "placed", 2, model_dir="runs/there")
    put(store, "default", 3, model_dir="models/small_cnn/default")
    contents = QueueContents(store)
    assert "the same as 'plain'" in contents.problems(job("other", 1))[0]
    assert contents.problems(job("other", 1, model_dir="runs/elsewhere")) == []
    assert "the same as 'placed'" in contents.problems(job("other", 2, model_dir="runs/there"))[0]
    assert "the run folder of 'placed' too" in contents.problems(job("other", 4, model_dir="runs/there"))[0]
    assert contents.problems(job("other", 4, model_dir="runs/there", after=["placed"])) == []
    assert contents.problems(job("other", 3)) == []
    assert contents.problems(job("plain2", 3, model_dir="models/small_cnn/default")) != []


def test_the_first_of_several_is_named_and_what_is_damaged_is_passed_over(store: QueueStore) -> None:
    for name in ("b10", "b2"):
        put(store, name, 1)
    (store.folder / "a.json").write_text("{")
    contents = QueueContents(store)
    assert "the same as 'b2'" in contents.problems(job("other", 1))[0]
    assert "a job 'a' is pending" in contents.problems(job("a", 5))[0]
    (store.folder / "a.json").write_text(json.dumps({"architecture": "small_cnn", "seed": 6}))
    assert "the same as 'a'" in contents.problems(job("other", 6))[0]
