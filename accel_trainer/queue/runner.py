"""The runner: choose jobs, claim them, train them side by side, record how they ended, and again."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.text import first_line
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.attempt import STOP_SIGNALS, Attempt
from accel_trainer.launch.attempt_events import Tick
from accel_trainer.launch.attempt_files import remove_abandoned
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome
from accel_trainer.launch.process_group import POLL_S
from accel_trainer.launch.supervision import spawn
from accel_trainer.launch.trial import try_launch
from accel_trainer.queue.broken_disks import BrokenDisks
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.circuit_breaker import CircuitBreaker
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.events import (
    ChangeNotifier,
    DiskBroken,
    DiskWorks,
    Emit,
    JobReclaimed,
    JobRejected,
    JobsFound,
    JobStuck,
    WaitingForJobs,
)
from accel_trainer.queue.finish import AttemptResult
from accel_trainer.queue.heartbeat import HeartbeatWriter
from accel_trainer.queue.layout import ClaimedJob, QueuedJob, QueueUnusable
from accel_trainer.queue.prewarm import PrewarmedWorker, Prewarmer, RunningAttempt
from accel_trainer.queue.reclaim import Reclaimer
from accel_trainer.queue.results import FinishedAttempt, Results
from accel_trainer.queue.retries import FIRST_WAIT_S, Retries
from accel_trainer.queue.run_claim import ClaimRun
from accel_trainer.queue.scheduler import Scheduler, choose_next
from accel_trainer.queue.slots import Allocation, Slots
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs


def nobody_else(gpus: list[str]) -> set[str] | None:
    """Of these GPUs, those that others use: none, without a look."""
    return set()


@dataclass(frozen=True)
class RunnerOptions:
    """How a runner works.

    launch: overrides what a job has for its launch.
    retry_after_s: the wait before the first retry of a job; it doubles with each further one.
    reclaims_stale: whether it takes also the jobs of runners on other machines of which nothing was heard for long.
    prewarms: whether it starts the trainer of the next job while another still works.
    gpus_in_use: which of some GPUs others use, which are not given to a job; None while that is not known.
    """

    launch: LaunchOptions = field(default_factory=LaunchOptions)
    retry_after_s: float = FIRST_WAIT_S
    reclaims_stale: bool = False
    prewarms: bool = False
    gpus_in_use: Callable[[list[str]], set[str] | None] = nobody_else


DEFAULT_OPTIONS = RunnerOptions()
# How long a queue without a trainer may not be readable.
PATIENCE_S = 10.0


class Runner:
    """Runs the jobs of one queue, as many at once as there are places.

    num_run, num_failed: the jobs that were claimed, and those that have failed. num_blocked: those that are left after
    `run` because they wait for others, have no room here, or because of a pause.
    """

    def __init__(
        self,
        queue: QueueStore,
        machine: Machine,
        emit: Emit,
        options: RunnerOptions = DEFAULT_OPTIONS,
        slots: Slots | None = None,
    ) -> None:
        """emit: called with all that happens. slots: the places for jobs; without them one job has all GPUs.

        Raises UserError.
        """
        self.queue, self.machine, self.emit, self.options = queue, machine, emit, options
        self.stop = StopRequest()
        self.num_run = self._num_rejected = 0
        self.num_blocked = 0
        self._slots = Slots(machine, options.launch) if slots is None else slots
        self._checker = PendingChecker(options.launch, queue.folder, machine)
        self._retries = Retries(queue, options.retry_after_s)
        self._stuck = StuckJobs(queue, lambda job, problem: emit(JobStuck(job.name, problem)))
        self._disks = BrokenDisks(queue.folder, self._report_disk)
        self._scheduler = Scheduler(queue, self._checker, self._retries, self._reject, self._stuck, self._disks)
        self._heartbeat = HeartbeatWriter(queue, self._slots.number)
        self._reclaimer = Reclaimer(queue, self._retries, with_expired=options.reclaims_stale, stuck=self._stuck)
        self._prewarmer = Prewarmer(queue, options.launch, machine, is_wanted=options.prewarms)
        self._running: dict[str, RunningAttempt] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._failing_since: float | None = None
        self._is_counted = False
        self._wants_look = True
        self._notifier = ChangeNotifier(emit)
        self._circuit_breaker = CircuitBreaker(queue, emit, lambda: try_launch(options.launch, machine))
        self._results = Results(queue, self._retries, self._stuck, emit, self._note_outcome)

    @property
    def num_failed(self) -> int:
        """The jobs that were refused, or have failed for good."""
        return self._num_rejected + self._results.num_failed

    def run(self, *, watch: bool = False) -> None:
        """Until nothing is pending that could be run; with `watch`, until stopped. Raises QueueUnusable, and
        UnusableHere where no job can be launched on this machine.

        `num_blocked` then has how many jobs are left that wait for others, have no room here or are kept by a pause.
        """
        self.queue.create()
        self.stop.listen(*STOP_SIGNALS)
        for tidy in (remove_abandoned, self.queue.remove_half_written, self._reclaimer.forget_dead):
            with suppress(OSError, ValueError):  # what cannot be removed does no harm
                tidy()
        try:
            asyncio.run(self._run(watch))
        finally:
            self._checker.close()
            self._heartbeat.stop()
            with suppress(OSError, ValueError):
                remove_abandoned()  # also of trainers that were still ending at the start

    async def _run(self, watch: bool) -> None:
        await self._reclaim()
        try:
            while not self.stop:
                self._heartbeat.beat()
                self._collect()
                has_looked = self._look_if_due()
                has_begun = self._begin_what_fits()
                self._circuit_breaker.refresh(self._scheduler.pause)
                self._disks.refresh()
                await self._prewarm()
                if has_looked and not has_begun and await self._is_over(watch):
                    return
                self.emit(Tick())
                await asyncio.sleep(POLL_S)
        finally:
            await self._prewarmer.close()
            await self._circuit_breaker.close()
            # What is running is asked to stop with this process, or runs to its end.
            while self._attempts:
                self._heartbeat.beat()
                self.emit(Tick())
                await asyncio.wait(self._attempts, timeout=POLL_S)
                self._collect()
            self._results.try_again(at_once=True)
            self.num_blocked += len(self._stuck)

    async def _prewarm(self) -> None:
        try:
            await self._prewarmer.refresh(self._scheduler, self._slots, self._running.values())
        except Exception:  # it only saves time: the next attempt will report what is wrong
            await self._prewarmer.close()

    def _collect(self) -> None:
        """Let go of the attempts that are over. Raises what they raised: the queue cannot be used."""
        over = {task for task in self._attempts if task.done()}
        self._attempts -= over
        self._wants_look |= bool(over)
        for task in over:
            task.result()
        self._results.try_again()

    # -- looking ---------------------------------------------------------------------------------------------------

    def _look_if_due(self) -> bool:
        wanted = self._wants_look or not self._scheduler.is_checked
        if not self._scheduler.is_due(wanted=wanted):
            return False
        try:
            self._scheduler.refresh()
        except UnusableHere:
            if not self._attempts:
                raise
            return False  # no reason to end a trainer
        except (OSError, QueueUnusable) as error:
            self._note_failed_look(error)
            return False
        self._failing_since = None
        self._notifier.trouble(None)
        self._notifier.strays(self._scheduler.strays)
        self._wants_look = self._scheduler.has_rejected
        if not self._is_counted and self._scheduler.may_begin and (pending := len(self._scheduler.pending)):
            self._is_counted = True
            valid = len(self._scheduler.valid)
            self.emit(JobsFound(valid, self.num_failed, pending - valid))
        return self._scheduler.is_checked

    def _note_failed_look(self, error: OSError | QueueUnusable) -> None:
        """The next look may be luckier: a drive may not answer for a moment, and a trainer goes on. Raises the error
        where that lasts."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if not self._attempts and now - self._failing_since > PATIENCE_S:
            raise error
        self._notifier.trouble(str(error))

    async def _is_over(self, watch: bool) -> bool:
        """Whether nothing is left to do, as far as has just been seen."""
        scheduler = self._scheduler
        self._notifier.pause(scheduler.pause)
        if not self._slots.is_full and self._reclaimer.is_due:
            await self._reclaim()
        if self._attempts or self._wants_look:
            return False
        if scheduler.pending and self._circuit_breaker.is_trying(scheduler.pause):
            return False
        left = self._will_not_run()
        if scheduler.pending and len(left) < len(scheduler.pending):
            return False  # another runner trains what these wait for, or they back off
        if watch:
            self._notify_why_nothing_runs()
            self.emit(WaitingForJobs())
            return False
        if scheduler.pending:
            self._notify_why_nothing_runs()
            self.num_blocked = len(left)
        return True

    def _will_not_run(self) -> set[str]:
        """Names of the pending jobs that this runner can do nothing for."""
        scheduler = self._scheduler
        if scheduler.pause is not None:
            return {job.name for job in scheduler.pending}
        waits = set(scheduler.missing) if scheduler.is_blocked else set()
        return waits | self._too_large().keys()

    def _too_large(self) -> dict[str, int]:
        """The jobs that will never have room here, and how many processes each of them needs."""
        valid = self._scheduler.valid.items()
        return {job.name: needs.num_processes or 1 for job, needs in valid if not self._could_fit(needs)}

    def _notify_why_nothing_runs(self) -> None:
        self._notifier.unmet(self._scheduler.missing)
        self._notifier.too_large(self._too_large())

    def _reject(self, job: QueuedJob, reason: str) -> None:
        self._num_rejected += 1
        self.emit(JobRejected(job, reason))

    def _report_disk(self, place: Path, problem: str | None) -> None:
        self.emit(DiskWorks(place) if problem is None else DiskBroken(place, problem))

    def _note_outcome(self, name: str, outcome: Outcome, seconds: float) -> None:
        if not (outcome.is_machines_failure and self._disks):  # no launch would tell more
            self._circuit_breaker.add(name, outcome, seconds)

    # -- starting jobs ---------------------------------------------------------------------------------------------

    def _begin_what_fits(self) -> bool:
        """Whether any job was begun."""
        scheduler, has_begun = self._scheduler, False
        if scheduler.pause is not None or not scheduler.may_begin or not scheduler.valid or self._slots.is_full:
            return False
        if (occupied := self._gpus_in_use()) is None:
            return False
        while not self.stop and not self._slots.is_full:
            chosen = choose_next(scheduler.valid, scheduler.waiting, self._fits_beside(occupied), self._could_fit)
            if chosen is None:
                self._notify_of_gpus_in_use(occupied)
                break
            job, place = chosen
            scheduler.take(job)
            has_begun |= self._begin(job, place)
        return has_begun

    def _gpus_in_use(self) -> set[str] | None:
        """Which GPUs others use; None where that is not known now: a driver fails in many ways, and may work again."""
        try:
            occupied = self.options.gpus_in_use(self._slots.unused_gpus)
        except Exception as error:
            self._notifier.trouble(first_line(error), of="GPUs")
            return None
        if occupied is not None:
            self._notifier.trouble(None, of="GPUs")
        return occupied

    def _notify_of_gpus_in_use(self, occupied: set[str]) -> None:
        """Notify for which GPUs the jobs wait that could run on them."""
        valid, waiting = self._scheduler.valid, self._scheduler.waiting
        if occupied and choose_next(valid, waiting, self._fits_beside(set()), self._could_fit) is None:
            occupied = set()
        self._notifier.gpus_in_use(occupied)

    def _fits_beside(self, occupied: set[str]) -> Callable[[Requirements], Allocation | None]:
        return lambda needs: self._slots.fit(needs.num_processes, occupied)

    def _could_fit(self, needs: Requirements) -> bool:
        return needs.gpus_lacking is None and self._slots.could_fit(needs.num_processes)

    def _begin(self, pending: QueuedJob, place: Allocation) -> bool:
        """Claim a job and have it trained; False if another runner was faster."""
        self._wants_look = True
        try:
            claimed = self.queue.claim(pending, self._prewarmer.owner)
        except (UserError, OSError) as error:
            self._stuck.add(pending, error)
            return False
        if claimed is None:
            return False
        self._stuck.remove(pending)
        prewarmed = self._prewarmer.take()
        self.num_run += 1
        self._slots.take(place)
        self._heartbeat.begin(claimed.token, place.gpus)
        self._attempts.add(asyncio.get_running_loop().create_task(self._run_claim(claimed, place, prewarmed)))
        return True

    async def _run_claim(self, claimed: ClaimedJob, place: Allocation, prewarmed: PrewarmedWorker | None) -> None:
        token, began = claimed.token, time.monotonic()

        def note(attempt: Attempt) -> None:
            self._running[token] = RunningAttempt(attempt.run, token, place)

        run = ClaimRun(
            self.queue,
            claimed,
            token,
            place.options(self.options.launch),
            place.machine(self.machine),
            self.stop,
            self.emit,
            note,
            spawn if prewarmed is None else prewarmed.start,
        )
        try:
            result = await self._result(run)
            if result.outcome.is_machines_failure:
                self._disks.note(result.run, result.outcome)
            self._results.add(FinishedAttempt(claimed, result, began))
        finally:
            self._running.pop(token, None)
            self._slots.leave(place)
            self._heartbeat.end(token)
            if prewarmed is not None:
                await prewarmed.end()

    async def _result(self, run: ClaimRun) -> AttemptResult:
        try:
            return await run.result()
        except UnusableHere:  # since it was checked; no mistake of the job
            with suppress(UserError, OSError):
                self.queue.release(run.claimed)
            raise

    async def _reclaim(self) -> None:
        try:
            async for job in self._reclaimer.reclaim():
                self._wants_look = True
                self.emit(JobReclaimed(job))
        except (OSError, QueueUnusable) as error:
            self._note_failed_look(error)
