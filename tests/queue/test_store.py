"""The queue as folders: claims, changes of state, owners."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from accel_trainer.core import lease, rename
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.core.process_space import space_name
from accel_trainer.launch.attempt_files import new_log
from accel_trainer.queue.layout import JobState, QueuePaths, QueueUnusable, natural_key
from accel_trainer.queue.store import JobGone, QueueStore


@pytest.fixture
def queue(tmp_path: Path) -> QueueStore:
    queue = QueueStore(tmp_path / "training_queue")
    queue.create()
    return queue


def names(queue: QueueStore, state: JobState) -> list[str]:
    return [job.name for job in queue.jobs(state)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["job10", "job2", "job1"], ["job1", "job2", "job10"]),
        (["b", "a10b2", "a10b10", "10", "9"], ["9", "10", "a10b2", "a10b10", "b"]),
        (["v1.10", "v1.9"], ["v1.9", "v1.10"]),
        (
            ["ab", "a1", "a", "a01", "B2", "a!", "a\u0664", "a12345678901"],
            ["a", "a01", "a1", "a\u0664", "a12345678901", "a!", "ab", "B2"],
        ),
    ],
)
def test_numbers_in_names_sort_as_people_count(given, expected):
    assert sorted(given, key=natural_key) == expected


def test_only_visible_json_files_are_jobs(queue):
    for name in ("a.json", ".b.json", "c.txt", "d.json.tmp"):
        (queue.folder / name).write_text("{}")
    (queue.folder / "examples").mkdir()
    assert names(queue, JobState.PENDING) == ["a"]


def test_a_job_is_added_whole_and_once(queue):
    queue.add("a", b"{}")
    with pytest.raises(UserError, match="in the queue already"):
        queue.add("a", b"{}")
    queue.add("a", b"[]", replace=True)
    assert (queue.folder / "a.json").read_bytes() == b"[]"
    assert not list(queue.folder.glob(".*"))


@pytest.mark.parametrize("name", ["plain", "with space", "v1.2@home.net", "Größe", "a.b.c"])
def test_a_claim_names_the_job_and_its_living_owner(queue, name):
    queue.add(name, b"{}")
    claimed = queue.claim(queue.jobs(JobState.PENDING)[0])
    assert claimed is not None
    assert names(queue, JobState.PENDING) == []
    (running,) = queue.jobs(JobState.RUNNING)
    assert running == claimed
    assert running.name == name
    assert not running.owner.is_dead()


def test_of_many_claims_exactly_one_wins_the_job(queue):
    for number in range(50):
        queue.add(f"job{number}", b"{}")
    pending = queue.jobs(JobState.PENDING)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(queue.claim, pending * 8))
    won = [claim.name for claim in claims if claim is not None]
    assert sorted(won) == sorted(job.name for job in pending)


def test_a_rename_that_succeeds_and_reports_an_error_is_a_claim(queue, monkeypatch):
    """As NFS does when the answer to a rename is lost and the client asks again."""
    queue.add("a", b"{}")
    rename = Path.rename

    def lost_answer(self: Path, target: Path) -> Path:
        rename(self, target)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "rename", lost_answer)
    assert queue.claim(queue.jobs(JobState.PENDING)[0]) is not None


def test_an_owner_is_dead_when_its_process_is(queue):
    code = "from accel_trainer.core.lease import Owner; o = Owner.new(); print(o.token, o.is_dead())"
    token, was_dead = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert was_dead == "False"
    assert Owner(lease.this_host(), token).is_dead()
    assert Owner("another-host", token).is_dead(), "a machine may be renamed"


def test_finishing_keeps_the_reason_beside_the_job(queue):
    queue.add("a", b"{}")
    claimed = queue.claim(queue.jobs(JobState.PENDING)[0])
    queue.finish(claimed, JobState.FAILED, "it broke")
    (failed,) = queue.jobs(JobState.FAILED)
    assert (failed.name, queue.reason(failed)) == ("a", "it broke")


def test_a_done_job_never_overwrites_another_of_its_name(queue):
    for content in (b'{"seed": 1}', b'{"seed": 2}', b'{"seed": 2}'):
        queue.add("a", content)
        queue.finish(queue.claim(queue.jobs(JobState.PENDING)[0]), JobState.DONE)
    contents = {path.name: path.read_bytes() for path in (queue.folder / "done").iterdir()}
    assert contents == {"a.json": b'{"seed": 1}', "a~2.json": b'{"seed": 2}'}


def test_a_released_job_is_pending_again_with_its_time_stamp(queue):
    queue.add("a", b"{}")
    before = (queue.folder / "a.json").stat().st_mtime_ns
    queue.release(queue.claim(queue.jobs(JobState.PENDING)[0]))
    assert (queue.folder / "a.json").stat().st_mtime_ns == before


def test_a_job_that_somebody_has_moved_is_gone(queue):
    queue.add("a", b"{}")
    claimed = queue.claim(queue.jobs(JobState.PENDING)[0])
    claimed.path.unlink()
    with pytest.raises(JobGone):
        queue.finish(claimed, JobState.DONE)


def test_logs_of_the_attempts_are_numbered_upward(tmp_path):
    assert [new_log(tmp_path / "logs", "a").name for _ in range(3)] == ["a.1.log", "a.2.log", "a.3.log"]


def test_a_queue_below_a_file_is_unusable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueUnusable, match="cannot be used"):
        QueueStore(tmp_path / "file").create()


def test_a_released_job_keeps_its_name_and_a_newcomer_gets_another(queue):
    """A job's run folder follows from its name."""
    queue.add("a", b'{"seed": 1}')
    claimed = queue.claim(queue.jobs(JobState.PENDING)[0])
    queue.add("a", b'{"seed": 2}')
    queue.release(claimed)
    contents = {path.name: path.read_bytes() for path in queue.folder.glob("*.json")}
    assert contents == {"a.json": b'{"seed": 1}', "a~2.json": b'{"seed": 2}'}


def test_a_move_that_is_not_permitted_is_reported_and_not_retried(queue, monkeypatch):
    queue.add("a", b"{}")

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(QueueUnusable, match=r"cannot be moved to .*running: Permission denied"):
        queue.claim(queue.jobs(JobState.PENDING)[0])


@pytest.mark.parametrize("name", ["it's & so on #1", "a" * 120, "ü" * 60])
def test_a_good_name_stays_as_it_is(queue, name):
    queue.add(name, b"{}")
    queue.release(queue.claim(queue.jobs(JobState.PENDING)[0]))
    assert names(queue, JobState.PENDING) == [name]
    queue.finish(queue.claim(queue.jobs(JobState.PENDING)[0]), JobState.FAILED, "why")
    assert names(queue, JobState.FAILED) == [name]


def test_a_job_that_another_runner_has_returned_is_left_where_it_is(queue):
    queue.add("a", b"{}")
    claimed = queue.claim(queue.jobs(JobState.PENDING)[0])
    queue.release(claimed)
    with pytest.raises(JobGone):
        queue.release(claimed)
    assert names(queue, JobState.PENDING) == ["a"]


def test_a_job_in_several_states_counts_as_unfinished_then_done_then_failed(queue):
    for place in (
        "held/a.json", "done/a.json", "running/b@host.1-2-3.json", "done/b.json", "done/c~2.json", "failed/c.json",
        "failed/d~3.json", "e~2.json",
    ):  # fmt: skip
        (queue.folder / place).write_text("{}")
    assert queue.states() == {
        "a": JobState.HELD, "b": JobState.RUNNING, "c": JobState.DONE, "c~2": JobState.DONE, "d": JobState.FAILED,
        "d~3": JobState.FAILED, "e~2": JobState.PENDING,
    }  # fmt: skip
    for name, state in queue.states().items():
        found = queue.find(name)
        assert found is not None
        assert found.state is state
    assert queue.find("e") is None


def test_a_job_released_during_a_listing_is_not_counted_as_done(queue, monkeypatch):
    queue.add("a", b"{}")
    claimed = queue.claim(queue.jobs(JobState.PENDING)[0])
    (queue.folder / "done/a.json").write_text("{}")
    folder_of = QueuePaths.of

    def release_first(paths: QueuePaths, state: JobState) -> Path:
        if state is JobState.RUNNING and claimed.path.exists():
            claimed.path.rename(queue.folder / "a.json")
        return folder_of(paths, state)

    monkeypatch.setattr(QueuePaths, "of", release_first)
    assert queue.states() == {"a": JobState.PENDING}


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PENDING])
def test_a_folder_of_the_queue_that_is_a_link_is_refused(queue, tmp_path, state):
    (tmp_path / "elsewhere").mkdir()
    queue.paths.of(state).rmdir()
    queue.paths.of(state).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QueueUnusable, match=rf"{state.value} is a symbolic link, which may lead where no rename"):
        queue.create()


def test_the_queue_itself_and_its_logs_may_be_links(tmp_path):
    for name in ("queue", "logs"):
        (tmp_path / f"real-{name}").mkdir()
    (tmp_path / "queue").symlink_to("real-queue")
    (tmp_path / "queue" / "logs").symlink_to(tmp_path / "real-logs")
    queue = QueueStore(tmp_path / "queue")
    queue.create()
    queue.add("a", b"{}")
    assert queue.claim(queue.jobs(JobState.PENDING)[0]) is not None


@pytest.mark.parametrize("kind", ["not UTF-8", "pipe", "device"])
def test_a_reason_that_cannot_be_read_is_none(queue, kind):
    queue.add("a", b"{}")
    queue.finish(queue.jobs(JobState.PENDING)[0], JobState.FAILED, "boom")
    (job,) = queue.jobs(JobState.FAILED)
    reason = queue.paths.of(JobState.FAILED) / "a.reason.txt"
    reason.unlink()
    match kind:
        case "not UTF-8":
            reason.write_bytes(b"boom \xff")
        case "pipe":
            os.mkfifo(reason)
        case "device":
            reason.symlink_to("/dev/null")
    assert queue.reason(job) == ("boom \ufffd" if kind == "not UTF-8" else None)


@pytest.mark.parametrize("pid", ["\u00b2", "9" * 5000, "9" * 18, "-1", "0", "1/../../etc", " 1", ""])
def test_a_token_that_nobody_has_made_is_of_nobody(pid):
    """Tokens stand in names of files, and in status.json, which others may have written."""
    assert Owner(lease.this_host(), f"{space_name()}-{pid}-1-word").is_dead()


@pytest.mark.parametrize("name", ["a~2", "~2", "a~2~3"])
@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED])
def test_a_name_that_ends_like_a_number_is_kept_through_all_states(queue, name, state):
    queue.add(name, b"{}")
    queue.finish(queue.claim(queue.jobs(JobState.PENDING)[0]), state, "why")
    assert names(queue, state) == [name]
    assert queue.states() == {name: state}
    queue.retry(queue.find(name))
    assert names(queue, JobState.PENDING) == [name]
    assert list(queue.paths.of(state).iterdir()) == []


def test_a_number_that_was_given_is_told_from_a_name_that_ends_like_one(queue):
    for name, content in (("a", b"1"), ("a", b"2"), ("a~2", b"3"), ("a", b"4"), ("a~2", b"5")):
        queue.add(name, content)
        queue.finish(queue.claim(queue.jobs(JobState.PENDING)[0]), JobState.FAILED, "why")
    own = {job.path.read_bytes(): job.own_name for job in queue.jobs(JobState.FAILED)}
    assert own == {b"1": "a", b"2": "a", b"3": "a~2", b"4": "a", b"5": "a~2"}
    for job in queue.jobs(JobState.FAILED):
        queue.remove(job)
    assert list(queue.paths.of(JobState.FAILED).iterdir()) == []


def test_a_job_moved_to_another_queue_keeps_a_name_that_ends_like_a_number(queue, tmp_path):
    other = QueueStore(tmp_path / "other")
    other.create()
    queue.add("a~2", b"{}")
    queue.finish(queue.find("a~2"), JobState.FAILED, "why")
    queue.move_to(other, queue.find("a~2"))
    assert [job.own_name for job in other.jobs(JobState.FAILED)] == ["a~2"]
    assert other.reason(other.find("a~2")) == "why"
    assert list(queue.paths.of(JobState.FAILED).iterdir()) == []


def test_who_removes_a_job_that_is_gone_is_told(queue):
    queue.add("a", b"{}")
    job = queue.find("a")
    queue.hold(job)
    with pytest.raises(JobGone, match=r"its file .*a\.json is gone"):
        queue.remove(job)
    assert names(queue, JobState.HELD) == ["a"]


def test_a_running_job_that_is_held_keeps_its_name_and_the_one_held_before_gets_another(queue):
    queue.add("a", b'{"seed": 1}')
    queue.hold(queue.find("a"))
    queue.add("a", b'{"seed": 2}')
    queue.hold(queue.claim(queue.jobs(JobState.PENDING)[0]))
    contents = {path.name: path.read_bytes() for path in queue.paths.of(JobState.HELD).iterdir()}
    assert contents == {"a.json": b'{"seed": 2}', "a~2.json": b'{"seed": 1}'}


@pytest.mark.parametrize("refused", [False, True])
def test_a_job_stays_where_it_is_when_the_folder_of_its_new_state_is_gone(queue, monkeypatch, refused):
    if refused:
        monkeypatch.setattr(rename, "_system_call", lambda: None)
    queue.add("a", b"{}")
    claimed = queue.claim(queue.find("a"))
    queue.paths.of(JobState.DONE).rmdir()
    with pytest.raises(QueueUnusable, match=r"cannot be moved to .*done: No such file or directory"):
        queue.finish(claimed, JobState.DONE)
    assert list(queue.claims()) == [claimed]


def test_an_empty_file_that_may_be_taking_a_name_is_left_alone_and_a_stale_one_is_not(queue):
    """Without hard links, a file that moves takes its name by an empty one first."""
    path = queue.folder / "a.json"
    path.touch()
    job = queue.find("a")
    assert queue.claim(job) is None
    with pytest.raises(JobGone, match="empty: another process is just writing it"):
        queue.remove(job)
    os.utime(path, (0, 0))
    queue.remove(job)
    assert names(queue, JobState.PENDING) == []


def test_a_job_keeps_its_name_beside_one_that_looks_like_it(queue, monkeypatch):
    """On sshfs times are whole seconds: two jobs of one size and second differ by nothing but their content."""
    monkeypatch.setattr(rename, "_system_call", lambda: None)
    for number in (1, 2):
        path = queue.add("a", b'{"seed": %d}' % number)
        os.utime(path, (1e9, 1e9))
        if number == 1:
            claimed = queue.claim(queue.find("a"))
    queue.release(claimed)
    contents = {path.name: path.read_bytes() for path in queue.folder.glob("*.json")}
    assert contents == {"a.json": b'{"seed": 1}', "a~2.json": b'{"seed": 2}'}


def test_a_folder_that_is_named_like_a_job_is_not_removed_and_stays_where_it_is(queue):
    (queue.folder / "a.json").mkdir()
    (job,) = queue.jobs(JobState.PENDING)
    with pytest.raises(UserError, match="is a folder, and no job; remove it by hand"):
        queue.remove(job)
    assert names(queue, JobState.PENDING) == ["a"]
    assert names(queue, JobState.RUNNING) == []
