"""Moves to queues on other file systems, and what a look makes of those that were killed."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import dead_token

from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.process_space import space_name
from accel_trainer.core.record_store import RecordStore
from accel_trainer.queue.layout import ClaimedJob, JobState, QueueUnusable, UndecidedMove
from accel_trainer.queue.move_between import CopyRecord
from accel_trainer.queue.reclaim import Reclaimer, requeue
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import submission_of


@pytest.fixture
def queue(tmp_path: Path) -> QueueStore:
    queue = QueueStore(tmp_path / "here" / "queue")
    queue.create()
    queue.add("a", b"{}")
    return queue


@pytest.fixture
def other(tmp_path: Path) -> QueueStore:
    other = QueueStore(tmp_path / "there" / "queue")
    other.create()
    return other


@pytest.fixture
def other_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between `here` and `there` nothing can be renamed."""
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if ("here" in Path(source).parts) != ("here" in Path(target).parts):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)


def files(queue: QueueStore) -> list[str]:
    return sorted(str(path.relative_to(queue.folder)) for path in queue.folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("other_disk")
def test_a_job_moves_to_another_disk_as_the_same_submission(queue: QueueStore, other: QueueStore) -> None:
    before = submission_of(queue.folder / "a.json")
    assert queue.move_to(other, queue.jobs(JobState.PENDING)[0]) == other.folder / "a.json"
    assert (files(queue), files(other)) == ([], ["a.json"])
    assert submission_of(other.folder / "a.json") == before


@pytest.mark.usefixtures("other_disk")
def test_a_move_to_a_disk_that_is_full_leaves_the_job_and_nothing_else(
    queue: QueueStore, other: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        if "there" in Path(f"/proc/self/fd/{descriptor}").readlink().parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    job = queue.jobs(JobState.PENDING)[0]
    with monkeypatch.context() as there:
        there.setattr(os, "fsync", full)
        with pytest.raises(QueueUnusable, match="No space left on device"):
            queue.move_to(other, job)
    assert (files(queue), files(other)) == (["a.json"], [])


def stopped_move(queue: QueueStore, other: QueueStore, owner: Owner) -> tuple[ClaimedJob, Path]:
    """A move whose process died when it had taken the job: its file, and the copy."""
    copy = other.folder / ".a.json.12ab.moving"
    copy.write_bytes(b"{}")
    queue.paths.moves.mkdir()
    record = CopyRecord(owner.token, str(other.folder), str(copy))
    RecordStore(CopyRecord).write(queue.paths.copy_record("12ab"), record)
    moving = Owner(owner.host, f"{owner.token}-copy_12ab-to-pending")
    path = queue.paths.claim("a", moving)
    (queue.folder / "a.json").rename(path)
    return ClaimedJob("a", path, owner=moving), copy


@pytest.fixture
def dead() -> Owner:
    return Owner(this_host(), dead_token())


def look(queue: QueueStore) -> None:
    queue.remove_half_written()
    for job in queue.claims():
        if job.owner.is_dead():
            requeue(queue, Retries(queue), job)


@pytest.mark.parametrize("has_arrived", [False, True])
def test_a_killed_move_is_undone_or_finished_by_where_its_copy_is(
    queue: QueueStore, other: QueueStore, dead: Owner, has_arrived: bool
) -> None:
    _, copy = stopped_move(queue, other, dead)
    if has_arrived:
        copy.rename(other.folder / "a.json")
    look(queue)
    assert (files(queue), files(other)) == (([], ["a.json"]) if has_arrived else (["a.json"], []))


def test_a_look_that_was_killed_while_it_returned_a_job_is_finished_by_the_next(
    queue: QueueStore, other: QueueStore, dead: Owner
) -> None:
    _, copy = stopped_move(queue, other, dead)
    copy.rename(f"{copy}.returned")
    look(queue)
    assert (files(queue), files(other)) == (["a.json"], [])


def test_of_a_move_killed_before_it_took_the_job_nothing_is_left(
    queue: QueueStore, other: QueueStore, dead: Owner
) -> None:
    job, _ = stopped_move(queue, other, dead)
    job.path.rename(queue.folder / "a.json")
    look(queue)
    assert (files(queue), files(other)) == (["a.json"], [])


def _unmounted(other: QueueStore, job: ClaimedJob, queue: QueueStore) -> ClaimedJob:
    other.folder.rename(other.folder.with_name("elsewhere"))
    return job


def _of_another_machine(other: QueueStore, job: ClaimedJob, queue: QueueStore) -> ClaimedJob:
    owner = Owner("grey", job.token.replace(space_name(), "0grey_0grey_0"))
    path = job.path.rename(queue.paths.claim("a", owner))
    return ClaimedJob("a", path, owner=owner)


def _of_no_record(other: QueueStore, job: ClaimedJob, queue: QueueStore) -> ClaimedJob:
    queue.paths.copy_record("12ab").write_text("no record")
    return job


@pytest.mark.parametrize("change", [_unmounted, _of_another_machine, _of_no_record])
def test_a_move_to_another_disk_is_decided_only_where_that_disk_is_there(
    queue: QueueStore,
    other: QueueStore,
    dead: Owner,
    change: Callable[[QueueStore, ClaimedJob, QueueStore], ClaimedJob],
) -> None:
    job = change(other, stopped_move(queue, other, dead)[0], queue)
    with pytest.raises(UndecidedMove, match="a: it was being moved to "):
        queue.settle(job)
    queue.remove_half_written()
    assert job.path.exists()


def test_who_was_killed_while_it_moved_a_job_is_no_runner(queue: QueueStore, dead: Owner) -> None:
    """The destination is in the name: what was to be held is held, not pending again."""
    moving = Owner(dead.host, f"{dead.token}-to-held")
    (queue.folder / "a.json").rename(queue.paths.claim("a", moving))
    (report,) = Reclaimer(queue, Retries(queue)).reports(queue.claims())
    assert report.job.destination is JobState.HELD
    look(queue)
    assert files(queue) == ["held/a.json"]


@pytest.mark.parametrize(
    "name", ["thesis.tex", ".a.json.12ab12ab12ab12ab.moving/../thesis.tex", "elsewhere/.a.json.12ab12ab12ab12ab.moving"]
)
def test_a_record_of_a_stranger_removes_no_other_file(queue: QueueStore, other: QueueStore, name: str) -> None:
    target = other.folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("mine")
    note = queue.paths.copy_record("12ab12ab12ab12ab")
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"token": dead_token(), "queue": str(other.folder), "copy": str(target)}))
    look(queue)
    queue.settle_all()
    assert target.read_text() == "mine"


def test_what_is_no_file_is_not_waited_for_by_a_move_to_another_disk(
    queue: QueueStore, other: QueueStore, other_disk: None
) -> None:
    os.mkfifo(queue.folder / "pipe.json")
    before = files(queue)
    job = queue.find("pipe")
    assert job is not None
    with pytest.raises(QueueUnusable, match="not a regular file"):
        queue.move_to(other, job)
    assert (queue.folder / "pipe.json").exists()
    assert (files(queue), files(other)) == (before, [])


def test_a_queue_whose_disk_does_not_answer_keeps_no_look_from_others(
    queue: QueueStore, other: QueueStore, dead: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving, _ = stopped_move(queue, other, dead)
    is_dir = Path.is_dir

    def not_answering(path: Path, **given: bool) -> bool:
        if path.is_relative_to(other.folder):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return is_dir(path, **given)

    monkeypatch.setattr(Path, "is_dir", not_answering)
    queue.settle_all()
    queue.remove_half_written()
    assert [job.path for job in queue.claims()] == [moving.path]
    with pytest.raises(UndecidedMove):
        queue.settle(moving)
