"""Jobs that fail at once pause their host where the machine may be why, and a small launch that works ends that."""

import asyncio
from pathlib import Path

import pytest

from accel_trainer.core.lease import this_host
from accel_trainer.launch import trial
from accel_trainer.launch.command import Launch, LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.trial import LaunchFailed, try_launch
from accel_trainer.queue import circuit_breaker
from accel_trainer.queue.circuit_breaker import CircuitBreaker, FailureCount
from accel_trainer.queue.control import Pause, Pauses
from accel_trainer.queue.events import Event, QueueResumed, TrialFailed
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState

FAILED = Outcome(OutcomeKind.FAILED, "why", RunState.FAILED)


# -- what counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (FAILED, True),
        (Outcome(OutcomeKind.FAILED, "stalled", RunState.STALLED), True),
        (Outcome(OutcomeKind.FAILED, "too large", RunState.OUT_OF_MEMORY), False),
        (Outcome(OutcomeKind.FAILED, "not finite", RunState.DIVERGED), False),
        (Outcome(OutcomeKind.FAILED, "refused", RunState.INVALID), False),
        (Outcome(OutcomeKind.FAILED, "changed since it was checked"), False),
        (Outcome(OutcomeKind.FAILED, "time_limit", RunState.PREEMPTED), False),
        (Outcome(OutcomeKind.CANCELED, "canceled by me", RunState.PREEMPTED), False),
        (Outcome(OutcomeKind.INTERRUPTED), False),
        (Outcome(OutcomeKind.SUPERSEDED), False),
    ],
    ids=lambda value: f"{value.kind.name} {value.reason}" if isinstance(value, Outcome) else "",
)
def test_only_what_the_machine_may_have_done_counts_as_its_failure(outcome: Outcome, counts: bool) -> None:
    count = FailureCount()
    reasons = [count.add(name, outcome, 1.0) for name in "abc"]
    assert reasons[:2] == [None, None]
    assert (reasons[2] is not None) == counts


@pytest.mark.parametrize(
    ("between", "seconds"),
    [
        (Outcome(OutcomeKind.DONE), 1.0),
        (Outcome(OutcomeKind.FAILED, "not finite", RunState.DIVERGED), 1.0),
        (FAILED, 61.0),
    ],
    ids=["done", "diverged", "late"],
)
def test_a_job_that_has_trained_starts_the_count_over(between: Outcome, seconds: float) -> None:
    count = FailureCount()
    assert [count.add(name, FAILED, 1.0) for name in "ab"] == [None, None]
    count.add("trained", between, seconds)
    assert [count.add(name, FAILED, 1.0) for name in "cd"] == [None, None]
    assert count.add("e", FAILED, 1.0) == "3 jobs in a row failed within 1m 00s of their start (c, d, e)"


def test_one_job_that_fails_again_and_again_is_counted_once() -> None:
    count = FailureCount()
    assert [count.add("a", FAILED, 1.0) for _ in range(9)] == [None] * 9


# -- the pause --------------------------------------------------------------------------------------------------------


class Lab:
    """A circuit breaker whose trials end as they are told to, and what it emits."""

    def __init__(self) -> None:
        self.queue, self.events, self.failing, self.num_trials = QueueStore(Path("queue")), list[Event](), 0, 0
        self.queue.create()
        self.breaker = CircuitBreaker(self.queue, self.events.append, self._trial)

    async def _trial(self) -> None:
        self.num_trials += 1
        if self.num_trials <= self.failing:
            raise LaunchFailed("no CUDA-capable device is detected")

    @property
    def pause(self) -> Pause | None:
        return Pauses(self.queue).of(this_host())

    def open(self) -> None:
        for name in "abc":
            self.breaker.add(name, FAILED, 1.0)

    async def look(self, times: int = 10) -> None:
        for _ in range(times):
            self.breaker.refresh(self.pause)
            await asyncio.sleep(0)


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_the_pause_ends_when_a_small_launch_works(lab: Lab) -> None:
    lab.open()
    assert (pause := lab.pause) is not None
    assert pause.until_launch_works
    assert "a, b, c" in str(pause.reason)
    asyncio.run(lab.look())
    assert (lab.pause, lab.num_trials, lab.events) == (None, 1, [QueueResumed(this_host())])


def test_a_launch_that_does_not_work_is_tried_again_with_growing_waits(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(circuit_breaker.time, "monotonic", lambda: now[0])
    lab.failing = 2
    lab.open()
    asyncio.run(lab.look())
    assert (lab.num_trials, lab.pause is None) == (1, False)
    now[0] += 61
    asyncio.run(lab.look())
    now[0] += 61
    asyncio.run(lab.look())
    assert lab.num_trials == 2
    now[0] += 60
    asyncio.run(lab.look())
    assert lab.pause is None
    reason = "no CUDA-capable device is detected"
    assert lab.events == [TrialFailed(reason, 60.0), TrialFailed(reason, 120.0), QueueResumed(this_host())]


def test_who_does_not_watch_gives_up_after_an_hour(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(circuit_breaker.time, "monotonic", lambda: now[0])
    lab.failing = 99
    lab.open()

    async def until_it_gives_up() -> None:
        while lab.breaker.is_trying(lab.pause):
            await lab.look(3)
            now[0] += 30.0

    asyncio.run(until_it_gives_up())
    assert 3600 < now[0] - 1000 < 6000
    assert lab.pause is not None


def test_a_pause_that_a_person_has_made_is_left_alone(lab: Lab) -> None:
    lab.open()
    Pauses(lab.queue).add(this_host(), "maintenance")
    asyncio.run(lab.look())
    assert lab.num_trials == 0
    assert not lab.breaker.is_trying(lab.pause)
    assert (pause := lab.pause) is not None
    assert pause.reason == "maintenance"


def test_a_pause_that_a_person_makes_during_a_trial_stays(lab: Lab) -> None:
    lab.open()

    async def pause_meanwhile() -> None:
        lab.breaker.refresh(lab.pause)
        Pauses(lab.queue).add(this_host(), "maintenance")
        await lab.look()

    asyncio.run(pause_meanwhile())
    assert (pause := lab.pause) is not None
    assert pause.reason == "maintenance"


def test_a_trial_that_is_under_way_ends_with_its_runner(lab: Lab) -> None:
    ended = []

    async def endless() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.append(True)

    async def run() -> None:
        breaker = CircuitBreaker(lab.queue, lab.events.append, endless)
        breaker.refresh(lab.pause)
        await asyncio.sleep(0)
        await breaker.close()

    lab.open()
    asyncio.run(run())
    assert ended == [True]


# -- the launch -------------------------------------------------------------------------------------------------------


def test_a_small_launch_says_why_it_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    python = "import sys; print('RuntimeError: no device', file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr(Launch, "argv", property(lambda self: ["python3", "-c", python]))
    with pytest.raises(LaunchFailed, match="accelerate launch has failed: RuntimeError: no device"):
        asyncio.run(try_launch(LaunchOptions(), Machine((), False, 2)))


def test_a_small_launch_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LIMIT_S", 0.3)
    monkeypatch.setattr(Launch, "argv", property(lambda self: ["sleep", "60"]))
    with pytest.raises(LaunchFailed, match="no answer within"):
        asyncio.run(try_launch(LaunchOptions(), Machine((), False, 2)))
