"""The runner: choose jobs, claim them, train them side by side, record how they ended, and again."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.disk_calls import watched
from accel_trainer.core.errors import UserError
from accel_trainer.core.event_loop import run_async
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.attempt import STOP_SIGNALS
from accel_trainer.launch.attempt_events import Tick
from accel_trainer.launch.attempt_files import remove_abandoned
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.process_group import POLL_S
from accel_trainer.launch.trial import try_launch
from accel_trainer.queue.broken_disks import BrokenDisks
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.circuit_breaker import CircuitBreaker
from accel_trainer.queue.disk_patience import patient_with_disk
from accel_trainer.queue.events import (
    ChangeNotifier,
    CheckingJobs,
    DiskBroken,
    DiskWorks,
    Emit,
    JobReclaimed,
    JobRejected,
    JobsFound,
    JobStuck,
    WaitingForJobs,
)
from accel_trainer.queue.layout import QueuedJob, QueueUnusable
from accel_trainer.queue.placement import Placement
from accel_trainer.queue.reclaim import Reclaimer
from accel_trainer.queue.results import FinishedAttempt, Results
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.runner_options import DEFAULT_OPTIONS, RunnerOptions
from accel_trainer.queue.running_claims import RunningClaims
from accel_trainer.queue.scheduler import Scheduler
from accel_trainer.queue.slots import Allocation, Slots
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs

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
        self.num_run = self.num_blocked = self._num_rejected = 0
        self._checker = PendingChecker(options.launch, queue.folder, machine)
        self._retries = Retries(queue, options.retry_after_s)
        self._stuck = StuckJobs(queue, lambda job, problem: emit(JobStuck(job.name, problem)))
        self._disks = BrokenDisks(queue.folder, self._report_disk)
        self._scheduler = Scheduler(queue, self._checker, self._retries, self._reject, self._stuck, self._disks)
        self._reclaimer = Reclaimer(queue, self._retries, with_expired=options.reclaims_stale, stuck=self._stuck)
        self._notifier = ChangeNotifier(emit)
        self._slots = Slots(machine, options.launch) if slots is None else slots
        self._placement = Placement(self._scheduler, self._slots, options.gpus_in_use, self._notifier)
        self._results = Results(queue, self._retries, self._stuck, emit, self._note_outcome)
        self._running = RunningClaims(queue, machine, self._slots, options, self.stop, emit, self._take_result)
        self._circuit_breaker = CircuitBreaker(queue, emit, lambda: try_launch(options.launch, machine))
        self._failing_since: float | None = None
        self._is_counted, self._wants_look, self._has_listed_anew = False, True, False
        self._has_begun_to_check = False

    @property
    def num_failed(self) -> int:
        """The jobs that were refused, or have failed for good."""
        return self._num_rejected + self._results.num_failed

    def run(self, *, watch: bool = False) -> None:
        """Until nothing is pending that could be run; with `watch`, until stopped. Raises QueueUnusable, and
        UnusableHere where no job can be launched on this machine.

        `num_blocked` then has how many jobs are left that wait for others, have no room here or are kept by a pause.
        """
        self.stop.listen(*STOP_SIGNALS)
        with patient_with_disk(self.queue.folder, self.stop, self.emit):
            self.queue.create()
            self._run_patiently(watch)

    def _run_patiently(self, watch: bool) -> None:
        for tidy in (remove_abandoned, self.queue.remove_half_written, self._reclaimer.forget_dead):
            with suppress(OSError, ValueError):  # what cannot be removed does no harm
                tidy()
        try:
            run_async(lambda: self._run(watch))
        finally:
            self._checker.close()
            self._running.stop_heartbeat()
            with suppress(OSError, ValueError):
                remove_abandoned()  # also of trainers that were still ending at the start

    async def _run(self, watch: bool) -> None:
        await self._reclaim()
        try:
            while not self.stop:
                with watched(self.queue.folder):
                    self._running.beat()
                    self._collect()
                    has_looked = self._look_if_due()
                    has_begun = self._claim_what_fits()
                    if self._running:
                        self._checker.give_way()
                    self._circuit_breaker.refresh(self._scheduler.pause)
                    self._disks.refresh()
                await self._running.prewarm(self._scheduler)
                if has_looked and not has_begun and await self._is_over(watch):
                    return
                self.emit(Tick())
                await asyncio.sleep(POLL_S)
        finally:
            await self._running.end_prewarmed()
            await self._circuit_breaker.close()
            # What is running is asked to stop with this process, or runs to its end.
            while self._running:
                self._running.beat()
                self.emit(Tick())
                await self._running.wait(POLL_S)
                self._collect()
            self._results.try_again(at_once=True)
            self.num_blocked += len(self._stuck)

    def _collect(self) -> None:
        """Let go of what is over, and move what could not be moved before. Raises QueueUnusable and UnusableHere."""
        self._wants_look |= self._running.collect()
        self._results.try_again()

    # -- looking ---------------------------------------------------------------------------------------------------

    def _look_if_due(self) -> bool:
        if not self._scheduler.is_due(wanted=self._wants_look or not self._scheduler.is_checked):
            return False
        try:
            is_waiting = self.queue.return_left_claims()  # pending again before it is looked what is
            self._scheduler.refresh()
        except UnusableHere:
            if not self._running:
                raise
            return False  # no reason to end a trainer
        except (OSError, QueueUnusable) as error:
            self._note_failed_look(error)
            return False
        self._failing_since = None
        self._notifier.trouble(None)
        self._notifier.strays(self._scheduler.strays)
        self._wants_look = self._scheduler.has_rejected or is_waiting
        if not self._is_counted and not self._has_begun_to_check and self._scheduler.pending:
            self._has_begun_to_check = True
            self.emit(CheckingJobs(len(self._scheduler.pending)))
        if not self._is_counted and self._scheduler.may_begin and (pending := len(self._scheduler.pending)):
            self._is_counted, valid = True, len(self._scheduler.valid)
            self.emit(JobsFound(valid, self.num_failed, pending - valid))
        return self._scheduler.is_checked

    def _note_failed_look(self, error: OSError | QueueUnusable) -> None:
        """The next look may be luckier: a drive may not answer for a moment, and a trainer goes on. Raises the error
        where that lasts."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if not self._running and now - self._failing_since > PATIENCE_S:
            raise error
        self._notifier.trouble(str(error))

    async def _is_over(self, watch: bool) -> bool:
        """Whether nothing is left to do, as far as has just been seen."""
        scheduler = self._scheduler
        self._notifier.pause(scheduler.pause)
        if not self._slots.is_full and self._reclaimer.is_due:
            await self._reclaim()
        if self._running or self._wants_look:
            return False
        if scheduler.pending and self._circuit_breaker.is_trying(scheduler.pause):
            return False
        left = self._placement.will_not_run()
        if scheduler.pending and len(left) < len(scheduler.pending):
            return False  # another runner trains what these wait for, or they back off
        if watch:
            self._placement.notify_why_nothing_runs()
            self.emit(WaitingForJobs())
            return False
        if not self._has_listed_anew:  # what others have added may not be seen here yet
            self.queue.list_pending_anew()
            self._has_listed_anew = self._wants_look = True
            return False
        if scheduler.pending:
            self._placement.notify_why_nothing_runs()
            self.num_blocked = len(left)
        return True

    def _reject(self, job: QueuedJob, reason: str) -> None:
        self._num_rejected += 1
        self.emit(JobRejected(job, reason))

    def _report_disk(self, place: Path, problem: str | None) -> None:
        self.emit(DiskWorks(place) if problem is None else DiskBroken(place, problem))

    # -- claiming --------------------------------------------------------------------------------------------------

    def _claim_what_fits(self) -> bool:
        """Whether any job was begun."""
        scheduler, has_begun = self._scheduler, False
        if scheduler.pause is not None or not scheduler.may_begin or not scheduler.valid or self._slots.is_full:
            return False
        if (occupied := self._placement.gpus_in_use()) is None:
            return False
        while not self.stop and not self._slots.is_full and (chosen := self._placement.next_job(occupied)):
            job, place = chosen
            scheduler.take(job)
            has_begun |= self._claim(job, place)
        return has_begun

    def _claim(self, pending: QueuedJob, place: Allocation) -> bool:
        """Claim a job and have it trained; False if another runner was faster."""
        self._wants_look = True
        try:
            if (claimed := self.queue.claim(pending, self._running.next_owner)) is None:
                return False
        except (UserError, OSError) as error:
            self._stuck.add(pending, error)
            return False
        self._stuck.remove(pending)
        self.num_run, self._has_listed_anew = self.num_run + 1, False
        self._running.start(claimed, place)
        return True

    # -- what comes of them ----------------------------------------------------------------------------------------

    def _take_result(self, over: FinishedAttempt) -> None:
        outcome = over.result.outcome
        if outcome.is_machines_failure:
            self._disks.note(over.result.run, outcome)
        elif outcome.kind is OutcomeKind.FOLDER_IN_USE:  # that the job is to wait may not be written where it should be
            self._disks.note(None, outcome)
        self._results.add(over)

    def _note_outcome(self, name: str, outcome: Outcome, seconds: float) -> None:
        if not (outcome.is_machines_failure and self._disks):  # no launch would tell more
            self._circuit_breaker.add(name, outcome, seconds)

    async def _reclaim(self) -> None:
        try:
            async for job in self._reclaimer.reclaim():
                self._wants_look = True
                self.emit(JobReclaimed(job))
        except (OSError, QueueUnusable) as error:
            self._note_failed_look(error)
