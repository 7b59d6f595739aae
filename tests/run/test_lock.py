"""One process at a time has a run folder, and that of a dead one does not stay closed."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from faults.away import disk_of
from helpers import as_another_machine, plant_no_file, said_by

from accel_trainer.core import disk_calls, lease
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.process_space import machine_id, own_start, space_name
from accel_trainer.run import lock
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import FolderInUse, LockLost, RunLock, acquire, lock_silence_s

DEAD = Owner(this_host(), f"{space_name()}-{os.getpid()}-12345-abcd")  # our process id, given out again
LIVING = Owner(this_host(), f"{space_name()}-{os.getpid()}-{own_start()}-abcd")
FAR = Owner("another-host", "0123abcd-4711-99-abcd")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def leave_lock(run: RunFolder, owner: Owner | None, number: int = 1, age_s: float = 0.0) -> None:
    """A lock as somebody has left it; without an owner an empty one."""
    content = {} if owner is None else {"host": owner.host, "token": owner.token, "since": 1.7e9}
    run.lock(number).write_text(json.dumps(content) if content else "")
    os.utime(run.lock(number), (time.time() - age_s,) * 2)


def take_it(run: RunFolder, said: list[str] | None = None) -> RunLock:
    lines = [] if said is None else said
    return acquire(run, Owner.new(), end_leftovers=lambda token: lines.append(f"ended {token}"), say=lines.append)


def test_a_folder_is_one_process_s_until_it_gives_it_back(run: RunFolder) -> None:
    first = take_it(run)
    assert run.locks() == [1]
    said: list[str] = []
    line = said_by(take_it, run, said)
    assert not said, "what belongs to the living is not ended"
    assert line.startswith(f"model_dir: another process is training in {run.path}: process {os.getpid()} on ")
    assert f" on {this_host()}, since {time.strftime('%Y-')}" in line
    assert run.locks() == [1]
    first.release()
    assert run.locks() == []
    take_it(run)


@pytest.mark.parametrize(
    "dead",
    [
        DEAD,
        Owner(this_host(), f"{machine_id()}_anotherboot_0-{os.getpid()}-{own_start()}-abcd"),
        Owner(this_host(), f"{space_name()}-999999999-1-abcd"),
    ],
    ids=["process id given out again", "another boot", "no such process"],
)
def test_a_dead_owner_is_followed_once_nothing_is_left_of_it(run: RunFolder, dead: Owner) -> None:
    leave_lock(run, dead, number=7)
    said: list[str] = []
    taken = take_it(run, said)
    assert said == [f"ended {dead.token}"]
    assert run.locks() == [8]
    taken.release()
    assert run.locks() == []


def test_what_is_left_of_a_dead_owner_can_refuse(run: RunFolder) -> None:
    leave_lock(run, DEAD)

    def refuse(token: str) -> None:
        raise UserError(f"{token} is still there")

    with pytest.raises(UserError, match="is still there"):
        acquire(run, Owner.new(), end_leftovers=refuse, say=print)
    assert run.locks() == [1]


def test_an_owner_on_another_machine_is_given_up_when_it_is_silent(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock of the file server: that of this machine may say anything."""
    leave_lock(run, FAR, age_s=500)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 0.0)
        assert "process 4711 on another-host, since 2023-11-1" in said_by(take_it, run)
    leave_lock(run, FAR, age_s=700)
    said: list[str] = []
    take_it(run, said)
    assert run.locks() == [2]
    (line,) = (line for line in said if not line.startswith("ended"))
    assert line.startswith(
        f"{run.path} was taken over: nothing was heard of the process that trained in it, on another"
    )
    assert line.endswith("for 11m 40s")


@pytest.mark.parametrize("name", ["log.txt", "status.json"])
def test_what_is_written_late_in_an_open_file_is_in_none_of_its_successor(run: RunFolder, name: str) -> None:
    (run.path / name).write_text("written before")
    leave_lock(run, FAR, age_s=700)
    with (run.path / name).open("a") as late:
        take_it(run)
        late.write("written late")
    assert (run.path / name).read_text() == "written before"


def test_a_folder_in_use_may_be_free_when_a_silent_owners_lease_has_expired(run: RunFolder) -> None:
    def wait_s() -> float:
        with pytest.raises(FolderInUse) as caught:
            take_it(run)
        return caught.value.wait_s

    leave_lock(run, FAR, age_s=100)
    assert wait_s() == pytest.approx(500, abs=5)
    leave_lock(run, FAR, age_s=599)
    assert wait_s() == 60, "it may have been touched just now"
    leave_lock(run, LIVING)
    assert wait_s() == 60, "its end can be seen"
    leave_lock(run, None)
    assert wait_s() == 60


def test_how_long_the_lock_of_a_claim_was_not_touched_is_told_by_the_file_servers_clock(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert lock_silence_s(run, FAR.has_started) is None
    leave_lock(run, LIVING)
    assert lock_silence_s(run, FAR.has_started) is None, "it is another's"
    os.utime(run.lock(1), (time.time_ns() / 1e9 - 300,) * 2)
    assert lock_silence_s(run, LIVING.has_started) == pytest.approx(300, abs=5)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "h"}', '{"host": "h", "token": "t", "since": null}'])
def test_a_lock_that_cannot_be_read_is_being_taken_for_a_minute(run: RunFolder, content: str) -> None:
    run.lock(1).write_text(content)
    assert "another process has just begun to train in" in said_by(take_it, run)
    os.utime(run.lock(1), (time.time() - 70,) * 2)
    take_it(run)
    assert run.locks() == [2]


def test_a_living_owner_is_seen_below_a_dead_one(run: RunFolder) -> None:
    leave_lock(run, LIVING, number=1)
    leave_lock(run, DEAD, number=2)
    assert f"process {os.getpid()} on" in said_by(take_it, run)
    assert run.locks() == [2, 1]


def test_who_finds_another_after_taking_gives_it_back(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another has come with a number that was free again."""
    leave_lock(run, DEAD, number=1)
    create = lock._create

    def create_and_be_met(path: Path, owner: Owner) -> None:
        create(path, owner)
        leave_lock(run, LIVING, number=1)

    monkeypatch.setattr(lock, "_create", create_and_be_met)
    run.attempt_status("of the other").touch()
    assert f"process {os.getpid()} on" in said_by(take_it, run)
    assert run.locks() == [1]
    assert run.attempt_statuses(), "what the other may have written stays"
    assert run.asides() == []


def test_a_folder_that_is_full_or_missing_is_reported(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        assert said_by(take_it, run) == (
            f"model_dir: cannot write to {run.path}: No space left on device; "
            "the disk is full: the run goes on when that is over"
        )
    assert run.locks() == []


# -- signs of life ----------------------------------------------------------------------------------------------------


def test_a_sign_of_life_is_given_now_and_then(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = take_it(run)
    os.utime(run.lock(1), (0, 0))
    taken.heartbeat()
    assert run.lock(1).stat().st_mtime == 0, "it is not time yet"
    monkeypatch.setattr(lock, "BEAT_S", 0.0)
    taken.heartbeat()
    assert time.time() - run.lock(1).stat().st_mtime < 60


@pytest.mark.parametrize("is_there", [True, False])
def test_an_owner_whose_lease_expired_leaves_the_lock_of_the_next(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.0)
    taken = take_it(run)
    run.lock(1).unlink()
    if is_there:
        leave_lock(run, LIVING)
    with pytest.raises(LockLost, match=r"another process has taken .*run over"):
        taken.heartbeat()
    taken.release()
    assert run.locks() == ([1] if is_there else [])


def test_a_file_server_that_hangs_for_a_moment_takes_nothing_away(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.0)
    taken = take_it(run)

    def fail(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        taken.heartbeat()
    taken.heartbeat()


# -- races ------------------------------------------------------------------------------------------------------------

RACE = """
import json, multiprocessing, os, sys, time
from pathlib import Path
from accel_trainer.core.errors import UserError
from accel_trainer.run.lock import acquire
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.process_space import space_name
from accel_trainer.run.folder import RunFolder

dead = f"{space_name()}-{os.getpid()}-1-abcd"  # our process id, given out again
folder, context = Path(sys.argv[1]), multiprocessing.get_context("fork")

def try_to_take(run):
    try:
        return acquire(run, Owner.new(), end_leftovers=lambda token: None, say=lambda line: None)
    except UserError:
        return None

def in_parallel(work):
    barrier, told = context.Barrier(8), context.SimpleQueue()
    processes = [context.Process(target=work, args=(barrier, told)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    answers = []
    while not told.empty():
        answers.append(told.get())
    print(json.dumps(answers))
"""
ONE_WINS = """
def all_at_once(barrier, told):
    for number in range(20):
        run = RunFolder(folder / str(number))
        barrier.wait()
        taken = try_to_take(run)
        barrier.wait()  # whoever has it keeps it until all have tried
        if taken is not None:
            told.put((number, run.locks()))
in_parallel(all_at_once)
"""
NEVER_TWO = """
so_far = context.Value("i", 0)

def again_and_again(barrier, told):
    run, inside = RunFolder(folder), folder / "inside"
    barrier.wait()
    began = time.monotonic()
    while time.monotonic() < began + (5 if so_far.value > 3 else 60):  # of a busy machine
        if (taken := try_to_take(run)) is not None:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            time.sleep(0.001)
            inside.unlink()
            if time.monotonic_ns() % 2:  # or else leave the lock, as if dead
                taken.release()
            else:
                path = run.lock(run.locks()[0])
                path.write_text(json.dumps({"host": this_host(), "token": dead, "since": 0}))
            told.put(1)
            with so_far.get_lock():
                so_far.value += 1
in_parallel(again_and_again)
"""


def race(script: str, folder: Path) -> list:
    words = [sys.executable, "-c", RACE + script, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_of_eight_that_want_a_folder_at_once_one_has_it(tmp_path: Path) -> None:
    beginnings = [(None, 0.0), (DEAD, 0.0), (FAR, 3600.0), (None, 3600.0)]
    for number in range(20):
        run = RunFolder(tmp_path / str(number))
        run.create()
        if number % 4:
            leave_lock(run, beginnings[number % 4][0], age_s=beginnings[number % 4][1])
    winners = race(ONE_WINS, tmp_path)
    assert sorted(winners) == [[number, [2 if number % 4 else 1]] for number in range(20)]


def test_a_folder_is_never_two_processes_that_come_and_go(tmp_path: Path) -> None:
    assert len(race(NEVER_TWO, tmp_path)) > 3


def test_a_successor_of_another_machines_owner_takes_the_lock_at_once(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the next start of a claim of a cluster does, on another node; on this machine it can be seen who lives."""

    def follow(claim: Owner) -> RunLock:
        return acquire(
            run, claim.start(), end_leftovers=lambda token: None, say=lambda line: None, follows=claim.has_started
        )

    claim = Owner.of_cluster("lab")
    with monkeypatch.context() as there:
        as_another_machine(there, "another-node")
        leave_lock(run, claim.start())
    assert said_by(follow, Owner.of_cluster("lab")).startswith("model_dir: another process is training")
    first = follow(claim)
    assert run.locks() == [2]
    assert said_by(follow, claim).startswith("model_dir: another process is training")
    first.check()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_no_lock_and_blocks_nobody_who_trains(run: RunFolder, kind: str) -> None:
    plant_no_file(run.lock(3), kind)
    held = take_it(run)
    assert run.locks() == [4, 3]
    held.check()
    assert "another process is training" in said_by(take_it, run)
    held.release()
    assert run.locks() == [3]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_who_finds_something_else_in_the_place_of_its_lock_has_lost_it(run: RunFolder, kind: str) -> None:
    held = take_it(run)
    run.lock(1).unlink()
    plant_no_file(run.lock(1), kind)
    with pytest.raises(LockLost):
        held.check()
    held.release()
    assert os.path.lexists(run.lock(1))


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ENOTCONN], ids=errno.errorcode.get)
def test_a_disk_that_is_away_for_a_moment_at_any_call_keeps_nobody_from_a_folder(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    owner, ended = Owner.new(), list[str]()
    monkeypatch.setattr(disk_calls, "FIRST_PAUSE_S", 0.01)
    with disk_of(run.path, monkeypatch) as disk, disk_calls.retrying(10.0):
        for moment in range(1, 60):
            leave_lock(run, DEAD)
            disk.goes_away(error, moment, 0.03)
            taken = acquire(run, owner, end_leftovers=ended.append, say=ended.append)
            was_away, disk.error = bool(disk.times_away), 0
            assert run.locks() == [taken.number], (moment, disk.calls)
            taken.check()
            taken.release()
            assert run.locks() == []
            assert not run.asides()
            if not was_away:
                break
    assert moment > 8, "every call was tried"
    assert set(ended) == {DEAD.token}, "nothing of its own was ended"


def test_a_folder_whose_disk_is_gone_for_a_moment_is_waited_for(run: RunFolder, tmp_path: Path) -> None:
    run.path.rename(tmp_path / "away")
    threading.Timer(0.3, (tmp_path / "away").rename, [run.path]).start()
    with disk_calls.retrying(10.0):
        take_it(run).release()


def test_a_folder_in_which_another_has_files_open_is_in_use(run, monkeypatch):
    """As NFS keeps them, under names that cannot be removed; the job waits, and has not failed."""

    def keep(*_):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    with monkeypatch.context() as patched:
        as_another_machine(patched, "sleepy")
        acquire(run, Owner.new(), end_leftovers=print, say=print)
        patched.setattr(lease, "STALE_S", 0.0)
        as_another_machine(patched, "awake")
        patched.setattr(lock, "fence", keep)
        with pytest.raises(FolderInUse, match="has files open there"):
            acquire(run, Owner.new(), end_leftovers=print, say=print)
