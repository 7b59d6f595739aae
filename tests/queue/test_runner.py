"""Which job is next, what jobs wait for, and what does not stop a runner."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import as_another_machine, write_job

from accel_trainer.core import lease
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.process_space import space_name
from accel_trainer.launch import attempt_files
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.nvidia import Gpu
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.trial import LaunchFailed
from accel_trainer.queue import checker, circuit_breaker, run_claim, scheduler
from accel_trainer.queue import runner as runner_module
from accel_trainer.queue.check_process import Verdict
from accel_trainer.queue.control import Pauses
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.events import (
    GpusInUse,
    JobBlocked,
    JobsFound,
    JobTooLarge,
    QueuePaused,
    RetryScheduled,
)
from accel_trainer.queue.layout import JobState, QueuedJob, QueueUnusable
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.scheduler import choose_next
from accel_trainer.queue.slots import Allocation, Slots
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState


def jobs(*names: str) -> list[QueuedJob]:
    return [QueuedJob(name, Path(f"{name}.json"), JobState.PENDING) for name in names]


def chosen(given: dict[str, Requirements], waiting: Collection[str] = (), room: int = 1, most: int = 4) -> str | None:
    """The name of the next job, where there is room for so many processes now and for `most` at best."""
    found = choose_next(
        {job: given[job.name] for job in jobs(*given)},
        waiting,
        lambda needs: Allocation() if (needs.num_processes or 1) <= room else None,
        lambda needs: (needs.num_processes or 1) <= most,
    )
    return None if found is None else found[0].name


def test_the_first_job_that_waits_for_nothing_is_next():
    assert chosen({"a": Requirements(), "b": Requirements()}) == "a"
    assert chosen({"a": Requirements(), "b": Requirements()}, waiting={"a"}) == "b"
    assert chosen({"a": Requirements()}, waiting={"a"}) is None
    assert chosen({}) is None


def test_a_job_without_room_lets_equals_pass_but_no_lower_priorities():
    large, small = Requirements(num_processes=2), Requirements(num_processes=1)
    assert chosen({"a": large, "b": small}) == "b"
    assert chosen({"a": replace(large, priority=1), "b": small}) is None
    assert chosen({"a": replace(large, priority=1), "b": replace(small, priority=1), "c": small}) == "b"
    assert chosen({"a": replace(large, priority=1), "b": small}, waiting={"a"}) == "b"
    assert chosen({"a": replace(large, priority=1), "b": small}, most=1) == "b", "it will never have room here"


# -- jobs that wait for others -----------------------------------------------------------------------------------

PARENT = {"finetune": True, "finetune_args": {"starting_params": "parent"}}


def files(state: JobState) -> list[str]:
    return [job.name for job in QueueStore(Path("training_queue")).jobs(state)]


def test_jobs_run_after_those_that_they_wait_for(runner, trained):
    write_job(runner.queue.folder / "a.json", after=["c", "d"])
    write_job(runner.queue.folder / "b.json", **PARENT)
    write_job(runner.queue.folder / "c.json", after=["parent"])
    write_job(runner.queue.folder / "d.json")
    write_job(runner.queue.folder / "parent.json", model_dir="runs/it")
    runner.run()
    assert trained == ["d", "parent", "b", "c", "a"]
    assert (runner.num_failed, runner.num_blocked, runner.emit.of(JobBlocked)) == (0, 0, [])
    assert "--starting-params=runs/it" in trained.attempts["b"].worker_args
    assert trained.attempts["a"].starting_params is None
    assert not [word for word in trained.attempts["a"].worker_args if word.startswith("--starting-params")]


def test_a_finished_parent_is_no_reason_to_wait_unless_added_again(runner, trained):
    write_job(runner.queue.folder / "done/parent.json")
    write_job(runner.queue.folder / "child.json", after=["parent"])
    runner.run()
    assert trained == ["child"]
    write_job(runner.queue.folder / "child2.json", after=["parent"])
    write_job(runner.queue.folder / "parent.json", seed=1)
    runner.run()
    assert trained == ["child", "parent", "child2"]


def test_jobs_that_wait_for_impossible_parents_stay_and_are_reported(runner, trained):
    trained.endings = [Outcome(OutcomeKind.FAILED, "why")]
    folder = runner.queue.folder
    write_job(folder / "parent.json")
    write_job(folder / "child.json", **PARENT)
    write_job(folder / "grandchild.json", after=["child"])
    write_job(folder / "late.json", after=["nowhere", "kept"])
    write_job(folder / "held/kept.json")
    before = (folder / "late.json").stat()
    runner.run()
    assert trained == ["parent"]
    assert runner.emit.of(JobBlocked) == [JobBlocked("late", {"nowhere": None, "kept": JobState.HELD})]
    assert (runner.num_failed, runner.num_blocked) == (3, 1)
    assert files(JobState.PENDING) == ["late"]
    reasons = {job.name: runner.queue.reason(job) for job in runner.queue.jobs(JobState.FAILED)}
    assert reasons["child"] == "training_queue/child.json: after: 'parent' has failed: why"
    assert reasons["grandchild"].startswith("training_queue/grandchild.json: after: 'child' has failed: training_queue")
    after = (folder / "late.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_with_watch_a_missing_parent_may_come_and_is_reported_once(runner, trained):
    folder = runner.queue.folder
    write_job(folder / "child.json", after=["parent"])
    runner.emit.when_waiting = [
        lambda: None,
        lambda: None,
        lambda: write_job(folder / "parent.json"),
        lambda: setattr(runner.stop, "signal", 2),
    ]
    runner.run(watch=True)
    assert runner.emit.of(JobBlocked) == [JobBlocked("child", {"parent": None})]
    assert trained == ["parent", "child"]


def test_nobody_gives_up_while_another_runner_trains(runner, trained, monkeypatch):
    folder = runner.queue.folder
    write_job(folder / "parent.json")
    claimed = runner.queue.claim(runner.queue.jobs(JobState.PENDING)[0])
    write_job(folder / "child.json", after=["parent"])
    looks = []

    async def is_done_at_the_20th() -> None:
        looks.append(1)
        if len(looks) == 20:
            runner.queue.finish(claimed, JobState.DONE)

    monkeypatch.setattr(runner_module.Reclaimer, "is_due", True)
    monkeypatch.setattr(runner, "_reclaim", is_done_at_the_20th)
    runner.run()
    assert (trained, runner.emit.of(JobBlocked), runner.num_blocked) == (["child"], [], 0)


def test_jobs_that_wait_for_each_other_are_refused_before_anything_is_trained(runner, trained):
    write_job(runner.queue.folder / "a.json", after=["b"])
    write_job(runner.queue.folder / "b.json", finetune=True, finetune_args={"starting_params": "c"})
    write_job(runner.queue.folder / "c.json", after=["a"])
    write_job(runner.queue.folder / "d.json", after=["a"])
    write_job(runner.queue.folder / "self.json", after=["self"])
    runner.run()
    assert trained == []
    assert files(JobState.FAILED) == ["a", "b", "c", "d", "self"]
    reasons = {job.name: runner.queue.reason(job) for job in runner.queue.jobs(JobState.FAILED)}
    assert reasons["a"] == (
        "training_queue/a.json: after: the job waits for itself: 'a' waits for 'b', 'b' waits for 'c', "
        "'c' waits for 'a'; take one of these out"
    )
    assert "after: names the job itself" in reasons["self"]
    assert reasons["d"].startswith(
        "training_queue/d.json: after: 'a' has failed: training_queue/a.json: after: the job"
    )


def test_a_parent_that_is_no_job_any_more_fails_its_child(runner, trained):
    write_job(runner.queue.folder / "done/parent.json", batch_size=0)
    write_job(runner.queue.folder / "child.json", **PARENT)
    runner.run()
    assert trained == []
    (failed,) = runner.queue.jobs(JobState.FAILED)
    assert "finetune_args.starting_params: training_queue/done/parent.json: batch_size: 0" in runner.queue.reason(
        failed
    )


# -- jobs that are tried again -------------------------------------------------------------------------------------


def failed(state: RunState = RunState.FAILED) -> Outcome:
    return Outcome(OutcomeKind.FAILED, "why", state)


def test_a_job_is_retried_as_requested_while_others_are_trained(runner, trained):
    write_job(runner.queue.folder / "a.json", retries=2)
    write_job(runner.queue.folder / "b.json")
    trained.endings = [failed(), Outcome(OutcomeKind.DONE), failed(RunState.OUT_OF_MEMORY)]
    runner.run()
    assert trained == ["a", "b", "a", "a"]
    rests = [(event.name, event.number, event.retries) for event in runner.emit.of(RetryScheduled)]
    assert rests == [("a", 1, 2), ("a", 2, 2)]
    assert (files(JobState.DONE), runner.num_failed) == (["a", "b"], 0)
    assert list(runner.queue.paths.retries.iterdir()) == []


def test_a_failure_of_the_machine_is_tried_again_however_often(runner, trained):
    write_job(runner.queue.folder / "a.json", retries=1)
    trained.endings = [failed(RunState.MACHINE_FAILED)] * 3 + [failed(), failed(RunState.MACHINE_FAILED)]
    runner.run()
    assert trained == ["a"] * 6
    assert (files(JobState.DONE), runner.num_failed) == (["a"], 0)
    assert [event.number for event in runner.emit.of(RetryScheduled)] == [None, None, None, 1, None]
    assert list(runner.queue.paths.retries.iterdir()) == []


def test_a_job_that_has_failed_too_often_has_failed(runner, trained):
    write_job(runner.queue.folder / "a.json", retries=1)
    trained.endings = [failed(), failed()]
    runner.run()
    assert trained == ["a", "a"]
    assert (files(JobState.FAILED), runner.num_failed) == (["a"], 1)
    assert "why (tried 2 times)" in runner.queue.reason(runner.queue.jobs(JobState.FAILED)[0])
    assert list(runner.queue.paths.retries.iterdir()) == []


@pytest.mark.parametrize("state", [RunState.DIVERGED, RunState.INVALID, RunState.PREEMPTED])
def test_what_would_fail_again_is_not_tried_again(runner, trained, state):
    write_job(runner.queue.folder / "a.json", retries=5)
    trained.endings = [failed(state)]
    runner.run()
    assert trained == ["a"]
    assert files(JobState.FAILED) == ["a"]


def test_failures_of_a_runner_that_was_killed_count(runner, trained):
    write_job(runner.queue.folder / "a.json", retries=1)
    Retries(runner.queue, 0.2).add(runner.queue.jobs(JobState.PENDING)[0], 1, "why")
    trained.endings = [failed()]
    runner.run()
    assert trained == ["a"]
    assert files(JobState.FAILED) == ["a"]


def test_what_was_still_ending_in_the_beginning_is_cleared_up_in_the_end(runner, trained, temporary, monkeypatch):
    dead = f"{space_name()}-999999999-1-x"
    attempt_files.make_scratch(dead)
    with subprocess.Popen(["sleep", "60"], env={**os.environ, TOKEN_VARIABLE: dead}) as left:

        async def until_it_has_ended(*_: object) -> Outcome:
            assert attempt_files.scratch_folder(dead).exists()
            left.kill()
            left.wait()
            return Outcome(OutcomeKind.DONE)

        monkeypatch.setattr(run_claim, "run_attempt", until_it_has_ended)
        write_job(runner.queue.folder / "a.json")
        runner.run()
    assert not attempt_files.scratch_folder(dead).exists()


def test_what_killed_runners_have_left_half_written_is_removed(runner, trained):
    left = runner.queue.folder / "failed" / f".a.reason.txt.{space_name()}-1-1-abcd.tmp"
    others = [runner.queue.folder / f".b.json.{lease.Owner.new().token}.tmp", runner.queue.folder / ".c.json.tmp"]
    for path in (left, *others):
        path.touch()
    runner.run()
    assert not left.exists()
    assert all(path.exists() for path in others)


# -- several at once -----------------------------------------------------------------------------------------------


class SideBySide:
    """Attempts that all last until enough are running at once; and which GPUs each had."""

    def __init__(self, number: int) -> None:
        self.number, self.lasts_s = number, 0.05
        self.running: set[str] = set()
        self.most = 0
        self.gpus: dict[str, tuple[str, ...] | None] = {}
        self.cores: set[int] = set()
        self.error: Exception | None = None

    async def go_through(self, attempt: Attempt, flags: LaunchOptions, machine: Machine, *_: object) -> Outcome:
        name = attempt.job.name
        self.running.add(name)
        self.gpus[name] = flags.gpus
        self.cores.add(machine.cores)
        self.most = max(self.most, len(self.running))
        deadline = time.monotonic() + 10
        while self.most < self.number and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        # What fails is over before the others.
        await asyncio.sleep(self.lasts_s if self.error is None or name == "a" else 10 * self.lasts_s)
        self.running.discard(name)
        if self.error is not None and name == "a":
            raise self.error
        return Outcome(OutcomeKind.DONE)


GPUS = Machine(tuple(Gpu(str(index), "a GPU", "24 GiB") for index in range(4)), False, 8)


def with_slots(make_runner, monkeypatch, machine: Machine, number: int, **wishes: int) -> tuple[Runner, SideBySide]:
    several = SideBySide(number)
    monkeypatch.setattr(run_claim, "run_attempt", several.go_through)
    return make_runner(machine, Slots(machine, LaunchOptions(), **wishes)), several


def test_on_a_cpu_as_many_jobs_as_there_are_slots_share_the_cores(queue, trained, make_runner, monkeypatch):
    for name in "abcd":
        write_job(queue.folder / f"{name}.json")
    runner, several = with_slots(make_runner, monkeypatch, Machine((), False, 6), 3, slots=3)
    runner.run()
    assert several.most == 3
    assert several.cores == {2}
    assert files(JobState.DONE) == list("abcd")


def test_each_job_has_as_many_gpus_of_its_own_as_it_needs(queue, trained, make_runner, monkeypatch):
    write_job(queue.folder / "a.json")
    write_job(queue.folder / "b.json", num_processes=2)
    write_job(queue.folder / "c.json")
    runner, several = with_slots(make_runner, monkeypatch, GPUS, 3, gpus_per_job=1)
    runner.run()
    assert several.most == 3
    assert several.gpus == {"a": ("0",), "b": ("1", "2"), "c": ("3",)}


def test_a_job_that_needs_more_gpus_than_exist_stays_and_is_reported(queue, trained, make_runner, monkeypatch):
    write_job(queue.folder / "a.json", num_processes=8)
    write_job(queue.folder / "b.json")
    runner, several = with_slots(make_runner, monkeypatch, GPUS, 1)
    runner.run()
    told = runner.emit.of(JobTooLarge)
    assert several.gpus == {"b": ("0", "1", "2", "3")}
    assert (files(JobState.PENDING), told, runner.num_blocked) == (["a"], [JobTooLarge("a", 8)], 1)


def test_when_the_queue_becomes_unusable_the_other_trainers_go_on_to_their_end(
    queue, trained, make_runner, monkeypatch
):
    for name in "abc":
        write_job(queue.folder / f"{name}.json")
    runner, several = with_slots(make_runner, monkeypatch, Machine((), False, 2), 2, slots=2)
    several.error = QueueUnusable("no room")
    with pytest.raises(QueueUnusable, match="no room"):
        runner.run()
    assert files(JobState.DONE) == ["b"]
    assert files(JobState.PENDING) == ["c"]


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), QueueUnusable("cannot be read")])
def test_a_queue_unreadable_for_a_moment_does_not_end_a_trainer(queue, trained, make_runner, monkeypatch, error):
    write_job(queue.folder / "a.json")
    write_job(queue.folder / "b.json")
    runner, several = with_slots(make_runner, monkeypatch, Machine((), False, 2), 2, slots=2)
    look, failing = runner._scheduler.refresh, [1]

    def fails_once_while_training() -> None:
        if several.running and failing:
            failing.pop()
            raise error
        look()

    monkeypatch.setattr(runner._scheduler, "refresh", fails_once_while_training)
    several.lasts_s = 0.5
    runner.run()
    assert (failing, files(JobState.DONE)) == ([], ["a", "b"])


def test_what_is_more_urgent_goes_first(runner, trained):
    write_job(runner.queue.folder / "a.json")
    write_job(runner.queue.folder / "b.json", priority=-1)
    write_job(runner.queue.folder / "job10.json", priority=5)
    write_job(runner.queue.folder / "job2.json", priority=5)
    runner.run()
    assert trained == ["job2", "job10", "a", "b"]


# -- pauses -------------------------------------------------------------------------------------------------------


def test_a_paused_runner_starts_nothing_and_reports_why(runner, trained):
    write_job(runner.queue.folder / "a.json")
    pauses = Pauses(runner.queue)
    pauses.add("elsewhere")
    pause = pauses.add(None, "the disk is full")
    runner.run()
    assert (trained, runner.emit.of(QueuePaused), runner.num_blocked) == ([], [QueuePaused(pause)], 1)
    pauses.remove(None)
    runner.run()
    assert trained == ["a"]


def never_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise LaunchFailed("no device")

    monkeypatch.setattr(runner_module, "try_launch", fails)


def test_three_jobs_that_fail_at_once_pause_their_host(runner, trained, monkeypatch):
    never_launches(monkeypatch)
    for name in "abcde":
        write_job(runner.queue.folder / f"{name}.json")
    trained.endings = [failed(), Outcome(OutcomeKind.DONE), failed(), failed(), failed()]
    runner.run()
    assert trained == list("abcde")
    pause = Pauses(runner.queue).of(lease.this_host())
    assert pause.host == lease.this_host()
    assert pause.reason == "3 jobs in a row failed within 1m 00s of their start (c, d, e)"


def test_jobs_that_have_trained_for_a_while_pause_nobody(runner, trained, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "FAST_S", 0.0)
    for name in "abc":
        write_job(runner.queue.folder / f"{name}.json")
    trained.endings = [failed()] * 3
    runner.run()
    assert Pauses(runner.queue).all() == []


def test_a_queue_goes_on_by_itself_where_the_machine_can_launch(runner, trained, monkeypatch):
    async def works(*_: object) -> None:
        pass

    monkeypatch.setattr(runner_module, "try_launch", works)
    for name in "abcde":
        write_job(runner.queue.folder / f"{name}.json")
    trained.endings = [failed()] * 3
    runner.run()
    assert trained == list("abcde")
    assert (files(JobState.FAILED), files(JobState.DONE)) == (list("abc"), list("de"))
    assert Pauses(runner.queue).all() == []
    assert runner.num_blocked == 0


def test_a_queue_whose_machine_stays_broken_ends_with_its_jobs_pending(runner, trained, monkeypatch):
    never_launches(monkeypatch)
    monkeypatch.setattr(circuit_breaker, "TRIAL_WAITS_S", (0.01,) * 3)
    for name in "abcde":
        write_job(runner.queue.folder / f"{name}.json")
    trained.endings = [failed()] * 3
    runner.run()
    assert trained == list("abc")
    assert (files(JobState.PENDING), runner.num_blocked) == (list("de"), 2)


def test_a_runner_in_a_test_leaves_signals_to_pytest(runner):
    before = signal.getsignal(signal.SIGTERM)
    runner.run()
    assert signal.getsignal(signal.SIGTERM) is before


# -- other machines ------------------------------------------------------------------------------------------------


def claimed_elsewhere(runner: Runner, monkeypatch, name: str) -> QueuedJob:
    write_job(runner.queue.folder / f"{name}.json")
    with monkeypatch.context() as there:
        as_another_machine(there, "elsewhere")
        (job,) = [job for job in runner.queue.jobs(JobState.PENDING) if job.name == name]
        return runner.queue.claim(job)


def test_a_silent_runner_elsewhere_loses_its_job_only_where_that_is_wanted(runner, trained, make_runner, monkeypatch):
    claimed_elsewhere(runner, monkeypatch, "a")
    monkeypatch.setattr(lease, "STALE_S", 0.2)
    runner.run()
    assert trained == []
    wants = make_runner(reclaims_stale=True)
    write_job(runner.queue.folder / "b.json")
    time.sleep(0.3)
    wants.run()
    assert trained == ["a", "b"]


# -- beginning ---------------------------------------------------------------------------------------------------


class SlowCheck:
    """A check that knows at once that the first file is good, and of the others only when a job has been trained."""

    trained: list[str]

    has_hung = is_over = False

    def __init__(self) -> None:
        self._asked: list[int] = []
        self._told = 0

    def send(self, job, context, limit_s) -> int:
        self._asked.append(len(self._asked))
        return self._asked[-1]

    def verdicts(self):
        known = len(self._asked) if self.trained else 1
        found, self._told = self._asked[self._told : known], known
        return {number: Verdict() for number in found}

    def give_way(self) -> None: ...

    def end(self) -> None: ...


@pytest.mark.parametrize("patience_s", [0.2, 1e6])
def test_what_is_good_need_not_wait_for_long_until_all_is_checked(runner, trained, monkeypatch, patience_s):
    monkeypatch.setattr(checker, "CheckProcess", SlowCheck)
    monkeypatch.setattr(SlowCheck, "trained", trained, raising=False)
    monkeypatch.setattr(scheduler, "PATIENCE_S", patience_s)
    for name in ("a", "b", "c"):
        write_job(runner.queue.folder / f"{name}.json")
    if patience_s > 1:
        threading.Timer(2, lambda: runner.stop.note(signal.SIGTERM)).start()
    runner.run()
    assert trained == (["a", "b", "c"] if patience_s < 1 else [])
    assert runner.emit.of(JobsFound) == ([JobsFound(1, 0, 2)] if patience_s < 1 else [])


def test_the_runner_reports_which_gpus_jobs_wait_for(queue, trained, make_runner):
    answers = [{"0", "2"}, {"0", "2"}, {"2"}, set[str]()]
    machine = Machine(tuple(Gpu(str(number), "GPU", "24 GB") for number in range(3)), False, 4)
    runner = make_runner(machine, gpus_in_use=lambda gpus: answers.pop(0) if len(answers) > 1 else answers[0])
    write_job(queue.folder / "a.json")
    runner.run()
    assert trained == ["a"]
    assert runner.emit.of(GpusInUse) == [GpusInUse(("0", "2")), GpusInUse(("2",))]
