"""Which job is next, what jobs wait for, and what does not stop a runner."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import write_job

from accel_trainer import processes
from accel_trainer.queue import checker as checker_module
from accel_trainer.queue import runner as runner_module
from accel_trainer.queue.attempt import Attempt
from accel_trainer.queue.ending import Ending, EndingKind
from accel_trainer.queue.launcher import Flags, Machine
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.runner import Runner, choose_next
from accel_trainer.queue.store import JobState, Queue, QueuedJob, QueueUnusable
from accel_trainer.runs import RunState


def jobs(*names: str) -> list[QueuedJob]:
    return [QueuedJob(name, Path(f"{name}.json"), JobState.PENDING) for name in names]


def test_the_first_job_is_next_unless_one_of_its_name_is_running():
    assert choose_next(jobs("a", "b"), []).name == "a"
    assert choose_next(jobs("a", "b"), jobs("a")).name == "b"
    assert choose_next(jobs("a"), jobs("a")) is None
    assert choose_next([], []) is None


def test_a_job_that_waits_lets_others_pass():
    assert choose_next(jobs("a", "b", "c"), jobs("b"), waiting={"a"}).name == "c"
    assert choose_next(jobs("a"), [], waiting={"a"}) is None


class Silent:
    """A watcher that says nothing."""

    def __getattr__(self, name: str):
        return lambda *_: None


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), QueueUnusable("cannot be read")])
def test_a_queue_that_cannot_be_read_for_a_moment_does_not_end_a_trainer(tmp_path, monkeypatch, error):
    runner = Runner(Queue(tmp_path), Flags(), Machine((), False, 2), Silent())

    def fails(state: JobState):
        raise error

    monkeypatch.setattr(runner.queue, "jobs", fails)
    runner.tick()


# -- jobs that wait for others -----------------------------------------------------------------------------------

PARENT = {"finetune": True, "finetune_args": {"starting_params": "parent"}}


class Recorder(Silent):
    """A watcher that keeps what it is told of jobs that wait."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, JobState | None]]] = []
        self.when_waiting: list[Callable[[], object]] = []
        self.rests: list[tuple[str, int, int]] = []

    def blocked(self, name: str, missing: dict[str, JobState | None]) -> None:
        self.told.append((name, missing))

    def resting(self, name: str, seconds: float, number: int, retries: int) -> None:
        self.rests.append((name, number, retries))

    def waiting(self) -> None:
        if self.when_waiting:
            self.when_waiting.pop(0)()


class Trained(list[str]):
    """The names of the jobs that were trained in the end, in order; those in `failing` fail."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.endings: list[Ending] = []
        self.attempts: dict[str, Attempt] = {}

    def run_attempt(self, attempt: Attempt, *_: object) -> Ending:
        self.append(attempt.job.name)
        self.attempts[attempt.job.name] = attempt
        if self.endings:
            return self.endings.pop(0)
        return Ending(EndingKind.FAILED if attempt.job.name in self.failing else EndingKind.DONE)


@pytest.fixture
def trained(monkeypatch) -> Trained:
    """In place of trainers; nor are the jobs looked at with torch, and nobody waits for long."""
    trained = Trained()
    monkeypatch.setattr(runner_module, "run_attempt", trained.run_attempt)
    monkeypatch.setattr(runner_module, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(checker_module, "SETTLED_S", 0.1)
    monkeypatch.setattr(checker_module.sys, "executable", "/bin/false")
    return trained


@pytest.fixture
def runner(trained, monkeypatch) -> Runner:
    runner = Runner(Queue(Path("training_queue")), Flags(), Machine((), False, 2), Recorder(), retry_after_s=0.2)
    monkeypatch.setattr(runner.stop, "listen", lambda *_: None)
    runner.queue.create()
    return runner


def files(state: JobState) -> list[str]:
    return [job.name for job in Queue(Path("training_queue")).jobs(state)]


def test_jobs_run_after_those_that_they_wait_for(runner, trained):
    write_job(runner.queue.folder / "a.json", after=["c", "d"])
    write_job(runner.queue.folder / "b.json", **PARENT)
    write_job(runner.queue.folder / "c.json", after=["parent"])
    write_job(runner.queue.folder / "d.json")
    write_job(runner.queue.folder / "parent.json", model_dir="runs/it")
    runner.run()
    assert trained == ["d", "parent", "b", "c", "a"]
    assert (runner.num_failed, runner.num_blocked, runner.watcher.told) == (0, 0, [])
    assert "--starting-params=runs/it" in trained.attempts["b"].worker_args
    assert trained.attempts["a"].starting_params is None
    assert not [word for word in trained.attempts["a"].worker_args if word.startswith("--starting-params")]


def test_a_parent_that_was_done_before_is_no_reason_to_wait_and_one_that_is_put_in_again_is(runner, trained):
    write_job(runner.queue.folder / "done/parent.json")
    write_job(runner.queue.folder / "child.json", after=["parent"])
    runner.run()
    assert trained == ["child"]
    write_job(runner.queue.folder / "child2.json", after=["parent"])
    write_job(runner.queue.folder / "parent.json", seed=1)
    runner.run()
    assert trained == ["child", "parent", "child2"]


def test_what_waits_for_what_cannot_be_run_stays_and_is_told(runner, trained):
    trained.failing = {"parent"}
    folder = runner.queue.folder
    write_job(folder / "parent.json")
    write_job(folder / "child.json", **PARENT)
    write_job(folder / "grandchild.json", after=["child"])
    write_job(folder / "late.json", after=["nowhere", "kept"])
    write_job(folder / "held/kept.json")
    before = (folder / "late.json").stat()
    runner.run()
    assert trained == ["parent"]
    assert dict(runner.watcher.told) == {
        "child": {"parent": JobState.FAILED},
        "grandchild": {"child": JobState.PENDING},
        "late": {"nowhere": None, "kept": JobState.HELD},
    }
    assert len(runner.watcher.told) == 3
    assert (runner.num_failed, runner.num_blocked) == (1, 3)
    assert files(JobState.PENDING) == ["child", "grandchild", "late"]
    after = (folder / "late.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_with_watch_what_is_waited_for_may_come_and_is_told_once(runner, trained):
    folder = runner.queue.folder
    write_job(folder / "child.json", after=["parent"])
    runner.watcher.when_waiting = [
        lambda: None,
        lambda: None,
        lambda: write_job(folder / "parent.json"),
        lambda: setattr(runner.stop, "signal", 2),
    ]
    runner.run(watch=True)
    assert runner.watcher.told == [("child", {"parent": None})]
    assert trained == ["parent", "child"]


def test_nobody_gives_up_while_another_runner_trains(runner, trained, monkeypatch):
    folder = runner.queue.folder
    write_job(folder / "parent.json")
    claimed = runner.queue.claim(runner.queue.jobs(JobState.PENDING)[0])
    write_job(folder / "child.json", after=["parent"])
    looks = []

    def is_done_at_the_20th() -> bool:
        looks.append(1)
        if len(looks) == 20:
            runner.queue.finish(claimed, JobState.DONE)
        return False

    monkeypatch.setattr(runner, "_reclaim_dead", is_done_at_the_20th)
    runner.run()
    assert (trained, runner.watcher.told, runner.num_blocked) == (["child"], [], 0)


def test_jobs_that_wait_for_each_other_are_refused_before_anything_is_trained(runner, trained):
    write_job(runner.queue.folder / "a.json", after=["b"])
    write_job(runner.queue.folder / "b.json", finetune=True, finetune_args={"starting_params": "c"})
    write_job(runner.queue.folder / "c.json", after=["a"])
    write_job(runner.queue.folder / "d.json", after=["a"])
    write_job(runner.queue.folder / "self.json", after=["self"])
    runner.run()
    assert trained == []
    assert files(JobState.FAILED) == ["a", "b", "c", "self"]
    reasons = {job.name: runner.queue.reason(job) for job in runner.queue.jobs(JobState.FAILED)}
    assert reasons["a"] == (
        "training_queue/a.json: after: the job waits for itself: 'a' waits for 'b', 'b' waits for 'c', "
        "'c' waits for 'a'; take one of these out"
    )
    assert "after: names the job itself" in reasons["self"]
    assert runner.watcher.told == [("d", {"a": JobState.FAILED})]


def test_a_parent_whose_file_is_no_job_any_more_fails_the_child_that_starts_from_it(runner, trained):
    write_job(runner.queue.folder / "done/parent.json", batch_size=0)
    write_job(runner.queue.folder / "child.json", **PARENT)
    runner.run()
    assert trained == []
    (failed,) = runner.queue.jobs(JobState.FAILED)
    assert "finetune_args.starting_params: training_queue/done/parent.json: batch_size: 0" in runner.queue.reason(
        failed
    )


# -- jobs that are tried again -------------------------------------------------------------------------------------


def failed(state: RunState = RunState.FAILED) -> Ending:
    return Ending(EndingKind.FAILED, "why", state)


def test_a_job_is_tried_again_as_often_as_it_says_while_others_are_trained(runner, trained):
    write_job(runner.queue.folder / "a.json", retries=2)
    write_job(runner.queue.folder / "b.json")
    trained.endings = [failed(), Ending(EndingKind.DONE), failed(RunState.OUT_OF_MEMORY)]
    runner.run()
    assert trained == ["a", "b", "a", "a"]
    assert runner.watcher.rests == [("a", 1, 2), ("a", 2, 2)]
    assert (files(JobState.DONE), runner.num_failed) == (["a", "b"], 0)
    assert list(runner.queue.retries.iterdir()) == []


def test_a_job_that_has_failed_too_often_has_failed(runner, trained):
    write_job(runner.queue.folder / "a.json", retries=1)
    trained.endings = [failed(), failed()]
    runner.run()
    assert trained == ["a", "a"]
    assert (files(JobState.FAILED), runner.num_failed) == (["a"], 1)
    assert "why (tried 2 times)" in runner.queue.reason(runner.queue.jobs(JobState.FAILED)[0])
    assert list(runner.queue.retries.iterdir()) == []


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


def test_what_killed_runners_have_left_half_written_is_removed(runner, trained):
    left = runner.queue.folder / "failed" / f".a.reason.txt.{processes.boot_id()}-1-1-abcd.tmp"
    others = [runner.queue.folder / f".b.json.{processes.Owner.new().token}.tmp", runner.queue.folder / ".c.json.tmp"]
    for path in (left, *others):
        path.touch()
    runner.run()
    assert not left.exists()
    assert all(path.exists() for path in others)
