"""What is wrong with one job, one record or one device stops nothing else: it is named, and the others go on."""

import ctypes
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import dead_token, wait_until, write_job

from accel_trainer.core import rename
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import this_host
from accel_trainer.core.outage import PATIENCE_VARIABLE
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.nvidia import Gpu
from accel_trainer.queue import check_process, stuck_jobs
from accel_trainer.queue import checker as checker_module
from accel_trainer.queue import runner as runner_module
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.control import Pauses
from accel_trainer.queue.events import JobStuck, JobTooLarge, RunnerTrouble, StrayFile
from accel_trainer.queue.layout import JobState, QueueUnusable
from accel_trainer.queue.store import QueueStore


def names(queue: QueueStore, state: JobState) -> list[str]:
    return [job.name for job in queue.jobs(state)]


@pytest.fixture
def immovable(monkeypatch) -> Iterator[Callable[[str], list[str]]]:
    """Has the system refuse to move files whose paths have a text in them, as of one that is immutable."""
    lists: list[list[str]] = []
    system_call = rename._system_call()

    def renameat2(source: bytes, target: bytes) -> int:
        if any(text in os.fsdecode(source) for refused in lists for text in refused):
            ctypes.set_errno(1)
            return -1
        return system_call(source, target)

    if system_call is not None:
        monkeypatch.setattr(rename, "_system_call", lambda: renameat2)

    def refuse(name: str) -> list[str]:
        refused = [name]
        lists.append(refused)

        def hook(event: str, args: tuple[object, ...]) -> None:
            if refused and event in ("os.rename", "os.link") and refused[0] in str(args[0]):
                raise PermissionError(1, "Operation not permitted", args[0])

        sys.addaudithook(hook)
        return refused

    yield refuse
    for refused in lists:
        refused.clear()


# -- files that cannot be moved ------------------------------------------------------------------------------------


def test_a_job_whose_file_cannot_be_claimed_is_named_and_the_others_are_trained(queue, trained, make_runner, immovable):
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    immovable("training_queue/a.json")
    runner = make_runner()
    runner.run()
    assert trained == ["b"]
    ((name, problem),) = [(event.name, event.problem) for event in runner.emit.of(JobStuck)]
    assert name == "a"
    assert "Operation not permitted" in problem
    assert (names(queue, JobState.PENDING), runner.num_blocked) == (["a"], 1)


def test_an_invalid_job_that_cannot_be_moved_to_failed_is_named_once(queue, trained, make_runner, immovable):
    write_job(queue.folder / "a.json", batch_size=-1)
    write_job(queue.folder / "b.json")
    immovable("training_queue/a.json")
    runner = make_runner()
    runner.run()
    assert (trained, [event.name for event in runner.emit.of(JobStuck)], runner.num_blocked) == (["b"], ["a"], 1)


def test_a_finished_job_that_cannot_be_moved_is_moved_later_and_the_next_goes_on(
    queue, trained, make_runner, immovable, monkeypatch
):
    monkeypatch.setattr(stuck_jobs, "AGAIN_S", 0.1)
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    refused = immovable("running/a@")
    trained.when["b"] = lambda attempt: refused.clear()
    runner = make_runner()
    runner.run()
    assert (trained, names(queue, JobState.DONE)) == (["a", "b"], ["a", "b"])
    assert [event.name for event in runner.emit.of(JobStuck)] == ["a"]
    assert (runner.num_failed, runner.num_blocked) == (0, 0)


@pytest.fixture
def dead() -> str:
    return dead_token()


def test_a_dead_runners_claim_that_cannot_be_moved_stops_no_other(dead, queue, trained, make_runner, immovable):
    write_job(queue.paths.of(JobState.RUNNING) / f"a@{this_host()}.{dead}.json")
    write_job(queue.folder / "b.json")
    immovable("running/a@")
    runner = make_runner()
    runner.run()
    assert trained == ["b"]
    assert [event.name for event in runner.emit.of(JobStuck)] == ["a"]
    assert runner.num_blocked == 1


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("chattr"), reason="only root can make a file immutable")
def test_an_immutable_file_on_a_real_disk_is_named_and_left(queue, trained, make_runner):
    write_job(queue.folder / "a.json")
    write_job(queue.folder / "b.json")
    if os.system(f"chattr +i {queue.folder}/a.json 2>/dev/null"):
        pytest.skip("this file system has no such files")
    try:
        runner = make_runner()
        runner.run()
    finally:
        os.system(f"chattr -i {queue.folder}/a.json")
    assert (trained, [event.name for event in runner.emit.of(JobStuck)]) == (["b"], ["a"])


# -- an attempt that breaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(22, "Invalid argument"), RuntimeError("what?"), UserError("no")])
def test_whatever_breaks_an_attempt_fails_its_job_alone_and_is_in_its_log(queue, trained, make_runner, error):
    def fail(attempt: Attempt) -> None:
        raise error

    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    trained.when["a"] = fail
    runner = make_runner()
    runner.run()
    assert (names(queue, JobState.FAILED), names(queue, JobState.DONE), runner.num_failed) == (["a"], ["b"], 1)
    (failed,) = queue.jobs(JobState.FAILED)
    assert f"{type(error).__name__}: " in queue.reason(failed)
    assert "Traceback" in (queue.paths.logs / "a.1.log").read_text()


def test_a_folder_of_logs_that_is_deleted_meanwhile_is_made_again(queue, trained, make_runner):
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    trained.when["a"] = lambda attempt: shutil.rmtree(queue.paths.logs)
    runner = make_runner()
    runner.run()
    assert names(queue, JobState.DONE) == ["a", "b"]


def test_a_queue_that_is_moved_away_ends_the_runner_and_is_not_made_again(queue, trained, make_runner, monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.2")
    monkeypatch.setattr(runner_module, "PATIENCE_S", 0.2)
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    trained.when["a"] = lambda attempt: queue.folder.rename("elsewhere")
    runner = make_runner()
    with pytest.raises(QueueUnusable, match="training_queue is gone"):
        runner.run()
    assert not queue.folder.exists()
    moved = QueueStore(Path("elsewhere"))
    assert (names(moved, JobState.RUNNING), names(moved, JobState.PENDING)) == (["a"], ["b"])


# -- run folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["training_queue", ".", "training_queue/running", "training_queue/runs/a", "link"])
def test_a_run_folder_that_is_part_of_the_queue_or_has_it_inside_is_refused(queue, trained, make_runner, place):
    Path("link").symlink_to("training_queue")
    write_job(queue.folder / "a.json", model_dir=place)
    write_job(queue.folder / "b.json")
    runner = make_runner()
    runner.run()
    assert (trained, names(queue, JobState.FAILED)) == (["b"], ["a"])
    (failed,) = queue.jobs(JobState.FAILED)
    assert f"model_dir: {place} " in queue.reason(failed)
    assert not (queue.folder / "status.json").exists()


def test_a_run_that_was_begun_inside_the_queues_folder_before_goes_on(queue, trained, make_runner):
    begun = queue.folder / "runs/a"
    begun.mkdir(parents=True)
    (begun / "config.json").write_text("{}")
    write_job(queue.folder / "a.json", model_dir=str(begun))
    make_runner().run()
    assert trained == ["a"]


def test_whether_a_queue_is_paused_must_be_seen(queue, monkeypatch):
    def refuse(event: str, args: tuple[object, ...]) -> None:
        if hidden and event in ("open", "os.listdir") and "paused" in str(args[0]):
            raise PermissionError(13, "Permission denied", args[0])

    hidden = [True]
    sys.addaudithook(refuse)
    monkeypatch.setattr(Path, "lstat", _denied)
    try:
        for look in (lambda: Pauses(queue).all(), lambda: Pauses(queue).of("host")):
            with pytest.raises(QueueUnusable, match="cannot be seen whether the queue is paused"):
                look()
    finally:
        hidden.clear()


def _denied(path: object) -> None:
    raise PermissionError(13, "Permission denied", path)


# -- files that are no jobs ----------------------------------------------------------------------------------------


def test_files_that_are_no_jobs_are_named_once_and_neither_trained_nor_reclaimed(dead, queue, trained, make_runner):
    strays = ["a (conflicted copy 2026-01-02).json", "b.JSON", "c.yaml", "d.json.txt", "e.json~"]
    strays.append(f"running/r@{this_host()}.{dead} (conflicted copy 2026-01-02).json")
    for name in ("a.json", *strays):
        write_job(queue.folder / name)
    runner = make_runner()
    runner.run()
    assert trained == ["a"]
    assert [event.path for event in runner.emit.of(StrayFile)] == sorted(queue.folder / name for name in strays)
    assert all((queue.folder / name).exists() for name in strays)


# -- machines and records ------------------------------------------------------------------------------------------


def test_gpus_that_cannot_be_looked_at_once_are_looked_at_again(queue, trained, make_runner):
    answers: list[Exception | set[str]] = [UserError("GPU 0 cannot be looked at: Unknown Error"), OSError("?"), set()]

    def look(gpus: list[str]) -> set[str]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    write_job(queue.folder / "a.json")
    runner = make_runner(Machine((Gpu("0", "GPU", "24 GB"),), False, 2), gpus_in_use=look)
    runner.run()
    assert trained == ["a"]
    assert [event.problem for event in runner.emit.of(RunnerTrouble)] == [
        "GPU 0 cannot be looked at: Unknown Error",
        "?",
    ]


def test_a_job_that_needs_a_thousand_processes_on_a_cpu_is_named_and_stays(queue, trained, make_runner):
    write_job(queue.folder / "a.json", num_processes=1024, batch_size=1024)
    write_job(queue.folder / "b.json")
    runner = make_runner()
    runner.run()
    assert (trained, runner.emit.of(JobTooLarge), runner.num_blocked) == (["b"], [JobTooLarge("a", 1024)], 1)


ODD = [b"NaN", b"[]", b"{}", b'"text"', b"1e400", b"\xff\xfe", b'{"boot": 5, "seen": [1]}', b"[" * 100_000]
ODD += [
    json.dumps({"host": None, "by": "x", "since": number, "submission": "", "number": 10**6, "time": number}).encode()
    for number in (1e300, float("nan"), float("-inf"), "soon", None)
]


@pytest.mark.parametrize("content", ODD)
def test_no_record_ends_a_runner_whatever_is_in_it(queue, trained, make_runner, content):
    write_job(queue.folder / "a.json")
    write_job(queue.paths.of(JobState.RUNNING) / "r@elsewhere.x_1-2-3-4.json")
    for folder in (queue.paths.runners, queue.paths.observed, queue.paths.retries, queue.paths.requests):
        folder.mkdir(exist_ok=True)
        for name in ("a", "r", "elsewhere.x_1-2-3", f"{this_host()}.x-1-2", "x_1-2-3-4"):
            (folder / f"{name}.json").write_bytes(content)
    runner = make_runner(reclaims_stale=True)
    runner.run()
    assert trained == ["a"]


# -- checks --------------------------------------------------------------------------------------------------------

SLOW = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
CHATTY = "os.write(answers, b'{\\n[1, 2\\nno verdict\\n')"


def checks_with(monkeypatch: pytest.MonkeyPatch, folder: Path, first: str) -> None:
    """Have the process that checks do something at each file that is named a, and then say that all are good."""
    program = folder / "checks"
    program.write_text(
        f"#!{sys.executable} -IS\n"
        "import json, os, sys\n"
        "requests, answers = int(sys.argv[4]), int(sys.argv[6])\n"
        "for line in os.fdopen(requests):\n"
        "    request = json.loads(line)\n"
        "    if 'check' in request:\n"
        f"        if request['file'].endswith('/a.json'): {first}\n"
        "        answer = {'check': request['check'], 'problems': [], 'summary': None, 'end': 'done'}\n"
        "        os.write(answers, json.dumps(answer).encode() + b'\\n')\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_what_a_checked_model_prints_is_no_verdict(queue, monkeypatch, tmp_path):
    checks_with(monkeypatch, tmp_path, CHATTY)
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    checker = PendingChecker(LaunchOptions(), queue.folder)
    valid = wait_until(lambda: len(found := checker.check(queue.jobs(JobState.PENDING))[0]) == 2 and found, 30)
    assert [job.name for job in valid] == ["a", "b"]
    checker.close()


def test_a_check_that_never_ends_keeps_no_other_job_and_is_refused_in_the_end(queue, monkeypatch, tmp_path):
    checks_with(monkeypatch, tmp_path, SLOW)
    for constant, value in {"END_S": 0.2, "START_S": 0.1, "MODEL_S": 0.1}.items():
        monkeypatch.setattr(check_process, constant, value)
    monkeypatch.setattr(checker_module, "CHECK_S", 0.3)
    monkeypatch.setattr(checker_module, "LONG_CHECK_S", 1.0)
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    checker = PendingChecker(LaunchOptions(), queue.folder)
    order: list[str] = []

    def look() -> bool:
        valid, invalid = checker.check(queue.jobs(JobState.PENDING))
        order.extend(job.name for job in valid if job.name not in order)
        order.extend(reason for _, reason in invalid if reason not in order)
        return len(order) == 2

    wait_until(look, 60)
    assert order[0] == "b"
    assert "a.json: its check had not ended after" in order[1]
    began = time.monotonic()
    checker.close()
    assert time.monotonic() - began < 30
