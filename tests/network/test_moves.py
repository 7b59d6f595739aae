"""Changes of state on network drives: a link that is done and fails, and what a client believes missing."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from helpers import write_job
from network.fixtures import need
from network.mounts import Mount, server_folder, sshd, why_no_fuse, why_no_sshfs, worst_fs

from accel_trainer.core.disk_calls import retrying
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.store import JobGone, QueueStore

pytestmark = pytest.mark.slow
Change = Callable[[QueueStore], object]
PENDING, HELD, DONE, FAILED = JobState.PENDING, JobState.HELD, JobState.DONE, JobState.FAILED
SFTP = {"own_inodes": True, "whole_seconds": True, "counts_names": False}
CACHES = {"attr_s": 30, "entry_s": 30, "listing_s": 30}
CONTENT = b'{"from": "here"}'


def each(queue: QueueStore, state: JobState, act: Callable[[QueuedJob], object]) -> None:
    """Do something to each job that is in a state now."""
    queue.look_anew()
    for job in queue.jobs(state):
        act(job)


def run(queue: QueueStore) -> None:
    each(queue, PENDING, lambda job: queue.finish(queue.claim(job), DONE))


def run_and_remove(queue: QueueStore) -> None:
    run(queue)
    each(queue, DONE, queue.remove)


# Where the job is first, what moves it, and what becomes of it when that has reported an error.
MOVES: dict[str, tuple[str, Change]] = {
    "add": ("", lambda queue: queue.add("a", CONTENT)),
    "release": ("held", lambda queue: each(queue, HELD, queue.release)),
    "retry": ("failed", lambda queue: each(queue, FAILED, queue.retry)),
}
NEXT: dict[str, tuple[Change, int]] = {
    "is claimed": (lambda queue: each(queue, PENDING, queue.claim), 1),
    "is done": (run, 1),
    "is done and removed": (run_and_remove, 0),
    "is held": (lambda queue: each(queue, PENDING, queue.hold), 1),
    "is removed": (lambda queue: each(queue, PENDING, queue.remove), 0),
}


@contextmanager
def links_fail(
    monkeypatch: pytest.MonkeyPatch, folder: Path, then: Callable[[], object], is_done: bool
) -> Iterator[None]:
    """The first link in a folder reports an error, done or not, after something else has happened."""
    link, calls = os.link, []

    def failing(source: Path, target: Path) -> None:
        if not str(source).startswith(str(folder)) or calls:
            link(source, target)
            return
        calls.append(target)
        if is_done:
            link(source, target)
        then()
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))

    with monkeypatch.context() as patched, retrying(30.0):
        patched.setattr(os, "link", failing)
        yield
    assert calls, "no link was tried"


@pytest.fixture(scope="module", params=["NFS", "SFTP", "sshfs", "sshfs without caches"])
def clients(request: pytest.FixtureRequest) -> Iterator[list[Mount]]:
    """Two clients of one drive, for tests that each have folders of their own on it."""
    with ExitStack() as stack:
        if request.param.startswith("sshfs"):
            need(why_no_sshfs)
            daemon, options = stack.enter_context(sshd()), ("dir_cache=no",) if "without" in request.param else ()
            yield [stack.enter_context(daemon.mount(name, *options)) for name in ("one", "other")]
        else:
            need(why_no_fuse)
            drive, habits = stack.enter_context(server_folder()), SFTP if request.param == "SFTP" else {}
            yield [stack.enter_context(worst_fs(drive, name, **CACHES, **habits)) for name in ("one", "other")]


def submissions(server: Path) -> list[str]:
    """Where each job file is, hidden and half-moved ones too."""
    folders = (server, *(server / state for state in ("held", "running", "done", "failed")))
    found = [path for folder in folders for path in folder.iterdir() if path.suffix in (".json", ".tmp")]
    return [str(path.relative_to(server)) for path in found]


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("move", MOVES)
def test_a_job_whose_link_has_failed_is_in_one_place_whatever_became_of_it(
    clients: list[Mount], move: str, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (what, (change, is_left)) in enumerate(NEXT.items()):
        name = f"{move}-{is_done}-{number}"
        here, there = (QueueStore(client.folder / name) for client in clients)
        there.create()
        where, act = MOVES[move]
        if where:
            (there.folder / where / "a.json").write_bytes(CONTENT)
        with links_fail(monkeypatch, here.folder, lambda there=there, change=change: change(there), is_done):
            act(here)
        left = submissions(clients[0].server / name)
        assert len(left) == (is_left if is_done else 1), (what, left)


def test_no_client_is_waited_for_that_believes_a_job_missing_which_it_has_moved(
    mount: Callable[..., Mount],
) -> None:
    one = mount("one", negative_s=40, lost_replies=1, lost_only="queue")
    queue = QueueStore(one.folder / "queue")
    queue.create()
    for name in ("a", "b", "c"):
        write_job(one.server / f"queue/{name}.json")
    began = time.monotonic()
    queue.hold(queue.find("a"))
    queue.release(queue.find("a"))
    queue.finish(queue.find("b"), FAILED, "why")
    queue.retry(queue.find("b"))
    assert all(queue.claim(job) is None for job in queue.jobs(PENDING))
    assert not queue.return_left_claims()
    assert time.monotonic() - began < 20
    assert sorted(submissions(one.server / "queue")) == ["a.json", "b.json", "c.json"]
    queue.remove(queue.find("c"))
    with pytest.raises(JobGone):
        queue.hold(QueuedJob("c", queue.folder / "c.json", PENDING))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("error", ["EIO", "ETIMEDOUT", "ENOENT", "ESTALE", "EEXIST"])
@pytest.mark.parametrize("habits", [{}, SFTP], ids=["NFS", "SFTP"])
def test_a_server_that_does_what_it_reports_as_failed_doubles_and_loses_no_job(
    mount: Callable[..., Mount], error: str, habits: dict[str, bool]
) -> None:
    """Each rename, link, unlink and mkdir is done, and reports an error."""
    one = mount("one", **habits, lost_replies=1, lost_only="queue", lost_error=error)
    queue, other = (QueueStore(one.folder / name) for name in ("queue", "other_queue"))
    steps: tuple[Callable[[], object], ...] = (
        lambda: queue.add("a", CONTENT),
        lambda: each(queue, PENDING, queue.hold),
        lambda: each(queue, HELD, queue.release),
        lambda: each(queue, PENDING, lambda job: queue.finish(queue.claim(job), FAILED, "why")),
        lambda: each(queue, FAILED, queue.retry),
        lambda: each(queue, PENDING, lambda job: queue.release(queue.claim(job))),
        lambda: each(queue, PENDING, partial(queue.move_to, other)),
        lambda: each(other, PENDING, partial(other.move_to, queue)),
        lambda: queue.add("a", CONTENT * 2, replace=True),
        lambda: run(queue),
        lambda: each(queue, DONE, queue.remove),
    )
    where = ("a", "held/a", "a", "failed/a", "a", "a", "other_queue/a", "a", "a", "done/a", None)
    with retrying(30.0):
        for store in (queue, other):
            store.create()
        for step, (act, place) in enumerate(zip(steps, where, strict=True)):
            act()
            found = [f"other_queue/{name}" for name in submissions(one.server / "other_queue")]
            found += submissions(one.server / "queue")
            assert found == ([] if place is None else [f"{place}.json"]), step
            if step == 8:
                assert (one.server / "queue/a.json").read_bytes() == CONTENT * 2
