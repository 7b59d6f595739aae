"""The claims of a runner whose jobs are trained now, side by side: what each has of the machine, until it is over."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.supervision import spawn
from accel_trainer.queue.events import Emit, HeartbeatLost, HeartbeatWritten
from accel_trainer.queue.finish import AttemptResult
from accel_trainer.queue.heartbeat import HeartbeatWriter
from accel_trainer.queue.layout import ClaimedJob
from accel_trainer.queue.prewarm import PrewarmedWorker, Prewarmer, RunningAttempt
from accel_trainer.queue.results import FinishedAttempt
from accel_trainer.queue.run_claim import ClaimRun
from accel_trainer.queue.runner_options import RunnerOptions
from accel_trainer.queue.scheduler import Scheduler
from accel_trainer.queue.slots import Allocation, Slots
from accel_trainer.queue.store import QueueStore


class RunningClaims:
    """Has claimed jobs trained, each in a task of the running event loop, and the next one's trainer started before its
    turn. True while any is trained."""

    def __init__(
        self,
        queue: QueueStore,
        machine: Machine,
        slots: Slots,
        options: RunnerOptions,
        stop: StopRequest,
        emit: Emit,
        take_result: Callable[[FinishedAttempt], None],
    ) -> None:
        """stop: asks all of them to stop. take_result: called with each attempt that is over, while it still has its
        place; may raise QueueUnusable."""
        self._queue, self._machine, self._slots, self._launch = queue, machine, slots, options.launch
        self._stop, self._emit, self._take_result = stop, emit, take_result
        self._heartbeat = HeartbeatWriter(queue, slots.number, self._report_heartbeat)
        self._prewarmer = Prewarmer(queue, options.launch, machine, is_wanted=options.prewarms)
        self._attempts: dict[str, RunningAttempt] = {}  # by the tokens of claims, those whose trainer has been started
        self._tasks: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    @property
    def next_owner(self) -> Owner | None:
        """In whose name the next claim is to be made, for which a trainer waits; None where that does not matter."""
        return self._prewarmer.owner

    def start(self, claimed: ClaimedJob, place: Allocation) -> None:
        """Have a job trained in a place that is free."""
        prewarmed = self._prewarmer.take()
        self._slots.take(place)
        self._heartbeat.begin(claimed.token, place.gpus)
        self._tasks.add(asyncio.get_running_loop().create_task(self._train(claimed, place, prewarmed)))

    def collect(self) -> bool:
        """Let go of the attempts that are over, and tell whether there were any. Raises what they raised: the queue
        cannot be used, or no job can be launched here."""
        over = {task for task in self._tasks if task.done()}
        self._tasks -= over
        for task in over:
            task.result()
        return bool(over)

    async def wait(self, timeout_s: float) -> None:
        """Wait until any is over, but not for longer."""
        await asyncio.wait(self._tasks, timeout=timeout_s)

    def beat(self) -> None:
        """Write the heartbeat of this runner if it is time; to be called again and again."""
        self._heartbeat.beat()

    async def prewarm(self, scheduler: Scheduler) -> None:
        """Start the trainer of the next job if it is time; to be called again and again."""
        try:
            await self._prewarmer.refresh(scheduler, self._slots, self._attempts.values())
        except Exception:  # it only saves time: the next attempt will report what is wrong
            await self._prewarmer.close()

    async def end_prewarmed(self) -> None:
        """End the trainer that waits for a job: no other will be claimed."""
        await self._prewarmer.close()

    def stop_heartbeat(self) -> None:
        """The runner ends."""
        self._heartbeat.stop()

    def _report_heartbeat(self, problem: str | None) -> None:
        self._emit(HeartbeatWritten() if problem is None else HeartbeatLost(problem))

    async def _train(self, claimed: ClaimedJob, place: Allocation, prewarmed: PrewarmedWorker | None) -> None:
        token, began = claimed.token, time.monotonic()

        def note(attempt: Attempt) -> None:
            self._attempts[token] = RunningAttempt(attempt.run, token, place)

        run = ClaimRun(
            self._queue,
            claimed,
            token,
            place.options(self._launch),
            place.machine(self._machine),
            self._stop,
            self._emit,
            note,
            spawn if prewarmed is None else prewarmed.start,
        )
        try:
            self._take_result(FinishedAttempt(claimed, await self._result(run), began))
        finally:
            self._attempts.pop(token, None)
            self._slots.leave(place)
            self._heartbeat.end(token)
            if prewarmed is not None:
                await prewarmed.end()

    async def _result(self, run: ClaimRun) -> AttemptResult:
        try:
            return await run.result()
        except UnusableHere:  # since it was checked; no mistake of the job
            with suppress(UserError, OSError):
                self._queue.release(run.claimed)
            raise
