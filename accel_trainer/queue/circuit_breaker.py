"""The circuit breaker: several jobs in a row that fail at once pause their host, until a small launch works there."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from accel_trainer.core.lease import this_host
from accel_trainer.core.text import duration
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.trial import LaunchFailed
from accel_trainer.queue.control import Pause, Pauses
from accel_trainer.queue.events import Emit, QueueResumed, TrialFailed
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState

# So many different jobs, so soon.
FAST_FAILURES, FAST_S = 3, 60.0
# The first small launch follows at once. Between the later ones; the last of these again and again.
TRIAL_WAITS_S = (60.0, 120.0, 240.0, 480.0, 960.0, 1800.0)
# What the machine may have done. A loss that is not finite, a mistake in a job or a batch that is too large has not.
MAY_BE_THE_MACHINE = (RunState.FAILED, RunState.STALLED, RunState.MACHINE_FAILED)
# Launches as little as possible. Raises LaunchFailed.
Trial = Callable[[], Awaitable[object]]


class FailureCount:
    """Counts the jobs in a row that failed soon after their start, for what the machine may have done."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def add(self, name: str, outcome: Outcome, seconds: float) -> str | None:
        """Note how a job has ended, so long after its start; gives the reason to claim no more, if there is one."""
        is_failure = outcome.kind is OutcomeKind.FAILED and outcome.state in MAY_BE_THE_MACHINE
        has_trained = outcome.kind is OutcomeKind.DONE or outcome.state is RunState.DIVERGED
        if has_trained or (is_failure and seconds > FAST_S):
            self._names.clear()
        elif is_failure and name not in self._names:
            self._names.append(name)
        if len(self._names) < FAST_FAILURES:
            return None
        names = ", ".join(self._names)
        self._names.clear()
        return f"{FAST_FAILURES} jobs in a row failed within {duration(FAST_S)} of their start ({names})"


class CircuitBreaker:
    """Pauses this host after such failures, and ends such a pause as soon as a small launch works.

    It may be the jobs, or the GPU, the driver, the installation: a launch without a job tells.
    """

    def __init__(self, queue: QueueStore, emit: Emit, trial: Trial) -> None:
        self._pauses, self._emit, self._trial = Pauses(queue), emit, trial
        self._failures = FailureCount()
        self._running: asyncio.Task[object] | None = None
        self._next_trial, self._num_failed = 0.0, 0

    def add(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Note how a job has ended, so long after its start."""
        if (reason := self._failures.add(name, outcome, seconds)) is not None:
            self._num_failed, self._next_trial = 0, 0.0
            with suppress(OSError):
                self._pauses.add(this_host(), reason, until_launch_works=True)

    def is_trying(self, pause: Pause | None) -> bool:
        """Whether a pause may still end by itself; after about an hour who does not watch the queue gives up."""
        return pause is not None and pause.until_launch_works and self._num_failed <= len(TRIAL_WAITS_S)

    def refresh(self, pause: Pause | None) -> None:
        """Begin a trial where one is due, and end the pause where one has worked; to be called again and again.

        pause: that of this host.
        """
        if self._running is not None:
            if self._running.done():
                self._conclude(self._running)
                self._running = None
            return
        is_due = time.monotonic() >= self._next_trial
        if is_due and pause is not None and pause.until_launch_works:
            self._running = asyncio.ensure_future(self._trial())

    async def close(self) -> None:
        """End a trial that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    def _conclude(self, trial: "asyncio.Task[object]") -> None:
        try:
            trial.result()
        except (LaunchFailed, OSError) as error:
            wait_s = TRIAL_WAITS_S[min(self._num_failed, len(TRIAL_WAITS_S) - 1)]
            self._num_failed += 1
            self._next_trial = time.monotonic() + wait_s
            self._emit(TrialFailed(str(error), wait_s))
            return
        self._num_failed = 0
        self._next_trial = time.monotonic() + TRIAL_WAITS_S[0]  # what was seen of the pause may be from before
        host = this_host()
        with suppress(OSError):
            # Meanwhile a person may have paused it.
            if (pause := self._pauses.of_host(host)) is not None and pause.until_launch_works:
                self._pauses.remove(host)
        self._emit(QueueResumed(host))
