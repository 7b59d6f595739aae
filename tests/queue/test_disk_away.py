"""A runner whose disk is away: for a moment it goes on, for good it ends with one line, and no job is lost."""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from faults.away import Disk, disk_of
from helpers import write_job

from accel_trainer.core.outage import PATIENCE_VARIABLE
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue import disk_patience, stuck_jobs
from accel_trainer.queue import runner as runner_module
from accel_trainer.queue.events import DiskNotice
from accel_trainer.queue.layout import JobState, QueueUnusable
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.store import QueueStore

ERRORS = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOENT)
JOBS = ("a", "b", "c")
# Of the calls on the disk, that before which it goes away.
MOMENTS = range(20, 240, 27)


def moments_of(error: int) -> range:
    """All, of the error that may also mean that a job was taken; the others are known for what they are, and take
    turns."""
    return MOMENTS if error == errno.ENOENT else MOMENTS[ERRORS.index(error) :: len(ERRORS) - 1]


@pytest.fixture
def disk(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """That of the queue."""
    with disk_of(queue.folder, monkeypatch) as disk:
        yield disk


@pytest.fixture
def attempts(in_place_of_trainers: Callable[[object], None]) -> Counter[str]:
    """How often each job was trained to its end, which takes a moment."""
    ended: Counter[str] = Counter()

    async def train(attempt: Attempt, *_: object) -> Outcome:
        await asyncio.sleep(0.05)
        ended[attempt.job.name] += 1
        return Outcome(OutcomeKind.DONE)

    in_place_of_trainers(train)
    return ended


def places(queue: QueueStore) -> dict[str, list[JobState]]:
    return {name: [job.state for state in JobState for job in queue.jobs(state) if job.name == name] for name in JOBS}


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_disk_that_is_away_for_a_moment_before_any_call_disturbs_no_job(
    queue: QueueStore, disk: Disk, attempts: Counter[str], make_runner: Callable[..., Runner], error: int
) -> None:
    for moment in moments_of(error):
        for name in JOBS:
            write_job(queue.folder / f"{name}.json")
        attempts.clear()
        disk.goes_away(error, moment, 0.1)
        runner = make_runner()
        runner.run()
        was_away, disk.error = bool(disk.times_away), 0
        assert places(queue) == {name: [JobState.DONE] for name in JOBS}, (moment, disk.calls)
        assert attempts == Counter(JOBS), (moment, disk.calls)
        assert runner.num_failed == 0
        if not was_away:
            break
        for name in JOBS:
            (queue.paths.of(JobState.DONE) / f"{name}.json").unlink()
    assert moment > MOMENTS[2], "most of what a runner does was tried"


def unusable_of(runner: Runner) -> str | None:
    """With what a runner ends; None where it comes to its end."""
    try:
        runner.run()
    except QueueUnusable as unusable:
        return str(unusable)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_disk_that_stays_away_ends_the_runner_with_a_line_and_the_next_one_does_it_all(
    queue: QueueStore,
    disk: Disk,
    attempts: Counter[str],
    make_runner: Callable[..., Runner],
    error: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.15")
    monkeypatch.setattr(runner_module, "PATIENCE_S", 0.15)
    monkeypatch.setattr(stuck_jobs, "AGAIN_S", 0.05)
    for moment in moments_of(error):
        for name in JOBS:
            write_job(queue.folder / f"{name}.json")
        attempts.clear()
        disk.goes_away(error, moment, float("inf"))
        said = unusable_of(make_runner())
        assert bool(disk.times_away) == (said is not None), (moment, said, disk.calls[-10:])
        assert said is None or (str(queue.folder) in said and "\n" not in said)
        was_away, disk.error = bool(disk.times_away), 0
        for job in queue.claims():  # this process is not dead: as a person does who knows better
            queue.release(job)
        make_runner().run()
        assert places(queue) == {name: [JobState.DONE] for name in JOBS}, (moment, disk.calls)
        assert all(number >= 1 for number in attempts.values())
        if not was_away:
            break
        for name in JOBS:
            (queue.paths.of(JobState.DONE) / f"{name}.json").unlink()


def test_what_is_tried_again_is_said_with_the_limit(
    queue: QueueStore, disk: Disk, attempts: Counter[str], make_runner: Callable[..., Runner]
) -> None:
    write_job(queue.folder / "a.json")
    disk.goes_away(errno.ESTALE, 40, 0.3)
    runner = make_runner()
    runner.run()
    said = [event.text for event in runner.emit.of(DiskNotice)]  # type: ignore[attr-defined]
    assert len(said) == 2
    assert f"{os.strerror(errno.ESTALE)}; trying again for up to 1m 00s" in said[0]
    assert said[1].startswith("the disk works again, after ")
    assert disk_patience.PATIENCE_S == 60
