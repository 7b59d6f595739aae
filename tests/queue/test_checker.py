"""Mistakes are found before a job is claimed."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import write_job

from accel_trainer.core import files
from accel_trainer.core.giving_way import LOW_PRIORITY
from accel_trainer.launch import attempt as attempt_module
from accel_trainer.launch.accelerate_config import MachineUnusable, UnusableHere
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.queue import check_process as check_process_module
from accel_trainer.queue import checker as checker_module
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.events import Event, JobTooLarge
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.runner_options import RunnerOptions
from accel_trainer.queue.store import QueueStore


def look_until_settled(checker: PendingChecker, queue: QueueStore):
    while True:
        good, wrong = checker.check(queue.jobs(JobState.PENDING))
        if not checker.is_busy and len(good) + len(wrong) == len(queue.jobs(JobState.PENDING)):
            return [job.name for job in good], {job.name: reason for job, reason in wrong}
        time.sleep(0.05)


def test_valid_and_invalid_jobs_are_separated(queue):
    write_job(queue.folder / "good.json")
    write_job(queue.folder / "shape.json", batch_size=-1, scheduler="StepRL")
    write_job(queue.folder / "name.json", optimizer="AdamX", batch_size=66)
    checker = PendingChecker(LaunchOptions(num_processes=3), queue.folder)
    good, problems = look_until_settled(checker, queue)
    assert good == []
    assert "batch_size: -1 is not allowed" in problems["shape"]
    assert "scheduler: 'StepRL'" in problems["shape"], "what only torch knows is named in the same answer"
    assert "did you mean 'Adam" in problems["name"]
    assert "cannot be divided by 3 processes" in problems["good"], "the flags of the run count"
    checker.close()


def test_a_changed_file_is_checked_again_and_no_other(queue, forked_checks):
    path = write_job(queue.folder / "name.json", optimizer="AdamX")
    write_job(queue.folder / "good.json", batch_size=64)
    (queue.folder / "left.json").write_text("{}")
    checker = PendingChecker(LaunchOptions(num_processes=3), queue.folder)
    good, problems = look_until_settled(checker, queue)
    assert (good, problems.keys()) == ([], {"name", "good", "left"})
    write_job(path, batch_size=66)
    (queue.folder / "left.json").unlink()
    assert look_until_settled(checker, queue) == (["name"], {"good": problems["good"]})
    checker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is known of a process's environment")
def test_while_jobs_are_trained_what_checks_others_yields_to_them(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(requests: int, answers: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True))
        return started[0]

    monkeypatch.setattr(check_process_module, "start", start)
    write_job(queue.folder / "a.json")
    checker = PendingChecker(LaunchOptions(), queue.folder)
    checker.give_way()  # nothing is checked yet
    checker.check(queue.jobs(JobState.PENDING))
    assert os.getpriority(os.PRIO_PROCESS, started[0].pid) == os.nice(0)
    checker.give_way()
    assert os.getpriority(os.PRIO_PROCESS, started[0].pid) == LOW_PRIORITY
    checker.close()


def test_a_file_on_its_way_is_not_refused_before_it_has_settled(queue, monkeypatch):
    monkeypatch.setattr(checker_module, "SETTLED_S", 0.5)
    (queue.folder / "slow.json").write_text('{"architecture": ')
    checker = PendingChecker(LaunchOptions(), queue.folder)
    began = time.monotonic()
    while time.monotonic() - began < 0.4:
        assert checker.check(queue.jobs(JobState.PENDING)) == ({}, [])
        assert not checker.is_busy, "nor looked at by anybody else"
    time.sleep(0.3)
    _, problems = look_until_settled(checker, queue)
    assert "line 1" in problems["slow"]
    checker.close()


def test_a_file_that_the_machine_cannot_read_is_not_called_invalid(queue, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for name in "ab":
        write_job(queue.folder / f"{name}.json")
    checker, read_bytes = PendingChecker(LaunchOptions(), queue.folder), files.read_bytes

    def read(path, *args, **options):
        if path.stem == "a":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return read_bytes(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", read)
        good: list[str] = []
        while good != ["b"]:
            valid, wrong = checker.check(queue.jobs(JobState.PENDING))
            good = [job.name for job in valid]
            assert wrong == []
            time.sleep(0.05)
        (job,) = checker.unreadable
        assert job.name == "a"
        assert "Too many open files" in str(checker.unreadable[job])
    assert look_until_settled(checker, queue) == (["a", "b"], {})
    assert checker.unreadable == {}


def test_a_check_that_breaks_leaves_the_verdict_to_the_trainer(queue, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    write_job(queue.folder / "a.json")
    assert look_until_settled(PendingChecker(LaunchOptions(), queue.folder), queue) == (["a"], {})


def test_jobs_with_pending_parents_are_valid_but_not_with_missing_ones(queue, forked_checks):
    start = {"finetune": True, "finetune_args": {"starting_params": "parent"}}
    write_job(queue.folder / "child.json", **start)
    write_job(queue.folder / "later.json", finetune=True, after=["not-there-yet"], model_dir="run")
    write_job(queue.folder / "parent.json")
    write_job(queue.folder / "typo.json", **{**start, "finetune_args": {"starting_params": "parnt"}})
    checker = PendingChecker(LaunchOptions(), queue.folder)
    good, problems = look_until_settled(checker, queue)
    assert good == ["child", "later", "parent"]
    assert "'parnt' is neither a path nor a job of the queue training_queue" in problems["typo"]
    assert "did you mean 'parent'?" in problems["typo"]
    needs = {job.name: need for job, need in checker.check(queue.jobs(JobState.PENDING))[0].items()}
    assert needs == {
        "child": Requirements(parent="parent"),
        "later": Requirements(after=("not-there-yet",)),
        "parent": Requirements(),
    }
    checker.close()


def test_a_file_is_read_once_until_it_changes(queue, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    path = write_job(queue.folder / "a.json", after=["b"])
    checker = PendingChecker(LaunchOptions(), queue.folder)
    read = []
    read_job = checker_module.read_queue_job
    monkeypatch.setattr(checker_module, "read_queue_job", lambda path: (read.append(path), read_job(path))[1])
    for _ in range(2):
        look_until_settled(checker, queue)
    assert read == [path]
    write_job(path, after=["b", "c"])
    look_until_settled(checker, queue)
    (need,) = checker.check(queue.jobs(JobState.PENDING))[0].values()
    assert (read, need.after) == ([path, path], ("b", "c"))


# -- what is wrong with the machine is no mistake of a job ------------------------------------------------------------

FOUR_GPUS = "distributed_type: MULTI_GPU\nnum_processes: 4\n"


def write_default(text: str) -> None:
    path = Path.home() / ".cache/huggingface/accelerate/default_config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.mark.parametrize("text", ["distributed_type: FSDP\n", "a: [", FOUR_GPUS])
def test_a_default_of_the_machine_that_cannot_be_used_refuses_no_job(queue, text):
    write_default(text)
    write_job(queue.folder / "a.json")
    with pytest.raises(MachineUnusable):
        Runner(queue, Machine((), False, 1), lambda event: None).run()
    assert queue.states() == {"a": JobState.PENDING}


def test_an_option_that_cannot_be_used_refuses_no_job(queue):
    Path("c.yaml").write_text("distributed_type: FSDP\n")
    write_job(queue.folder / "a.json")
    options = RunnerOptions(LaunchOptions(config=Path("c.yaml")))
    with pytest.raises(UnusableHere, match="`config`"):
        Runner(queue, Machine((), False, 1), lambda event: None, options).run()
    assert queue.states() == {"a": JobState.PENDING}


def test_a_job_whose_config_is_for_more_gpus_than_are_here_is_left_for_another_machine(queue, forked_checks):
    Path("four.yaml").write_text(FOUR_GPUS)
    write_default("distributed_type: FSDP\n")  # it is for jobs without a config of their own
    write_job(queue.folder / "a.json", accelerate_config="four.yaml")
    seen: list[Event] = []
    runner = Runner(queue, Machine((), False, 1), seen.append)
    runner.run()
    assert queue.states() == {"a": JobState.PENDING}
    assert runner.num_blocked == 1
    assert [event for event in seen if isinstance(event, JobTooLarge)] == [JobTooLarge("a", 4)]


def test_a_default_that_breaks_after_the_claim_returns_the_job(queue, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")  # the check that needs torch leaves it to the trainer
    write_job(queue.folder / "a.json")

    def breaks(*args, **kwargs):
        raise MachineUnusable("broken meanwhile")

    monkeypatch.setattr(attempt_module, "plan_launch", breaks)
    with pytest.raises(MachineUnusable, match="broken meanwhile"):
        Runner(queue, Machine((), False, 1), lambda event: None).run()
    assert queue.states() == {"a": JobState.PENDING}


def test_a_job_that_was_away_while_it_was_checked_is_checked_when_it_is_back(queue, forked_checks):
    """It is held, or claimed elsewhere and returned: its file is then the same, and nothing has been read of it."""
    path = write_job(queue.folder / "a.json")
    write_job(queue.folder / "b.json")
    checker = PendingChecker(LaunchOptions(), queue.folder)
    jobs = queue.jobs(JobState.PENDING)
    checker.check(jobs)
    assert checker.is_busy, "its process has only begun"
    held = queue.hold(jobs[0])
    while checker.is_busy:
        checker.check(queue.jobs(JobState.PENDING))
        time.sleep(0.05)
    held.rename(path)
    assert look_until_settled(checker, queue) == (["a", "b"], {})
    checker.close()


def test_a_job_that_leaves_while_it_is_read_is_not_called_invalid(queue, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(checker_module, "SETTLED_S", 0.0)
    path = write_job(queue.folder / "a.json")
    (job,) = queue.jobs(JobState.PENDING)
    checker, lstat = PendingChecker(LaunchOptions(), queue.folder), os.lstat

    def remembered(file):
        return lstat(queue.folder / "held/a.json" if Path(file) == path and not path.exists() else file)

    checker.check([job])
    checker.close()
    checker = PendingChecker(LaunchOptions(), queue.folder)
    held = queue.hold(job)
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", remembered)  # as a client of a network drive
        for _ in range(3):
            assert checker.check([job]) == ({}, [])
            time.sleep(0.01)
    held.rename(path)
    assert look_until_settled(checker, queue) == (["a"], {})
