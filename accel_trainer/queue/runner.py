"""The runner: choose jobs, claim them, have them trained side by side, record how they ended, go on."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from accel_trainer.config import read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import this_host
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch.attempt import STOP_SIGNALS, run_attempt, spawn
from accel_trainer.launch.attempt_files import remove_abandoned
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.events import AttemptFinished, Tick
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.process_group import POLL_S
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.control import ClaimControl, Pauses
from accel_trainer.queue.dependencies import Requirements, starting_params
from accel_trainer.queue.events import (
    ChangeNotifier,
    Emit,
    GpusInUse,
    JobReclaimed,
    JobRejected,
    JobsFound,
    JobTooLarge,
    RetryScheduled,
    WaitingForJobs,
)
from accel_trainer.queue.finish import Reclaimer, finish_claim
from accel_trainer.queue.heartbeat import HeartbeatWriter
from accel_trainer.queue.layout import ClaimedJob, QueuedJob
from accel_trainer.queue.prewarm import PrewarmedWorker, Prewarmer, RunningAttempt
from accel_trainer.queue.retries import FIRST_WAIT_S, CircuitBreaker, Retries
from accel_trainer.queue.run_claim import attempt_of_queue
from accel_trainer.queue.scheduler import Scheduler, choose_next
from accel_trainer.queue.slots import Allocation, Slots
from accel_trainer.queue.store import QueueStore, QueueUnusable


def nobody_else(gpus: list[str]) -> set[str]:
    """GPUs that others use, of these: not looked at."""
    return set()


class Runner:
    """Runs the jobs of one queue, as many at once as there are places."""

    def __init__(
        self,
        queue: QueueStore,
        flags: LaunchOptions,
        machine: Machine,
        emit: Emit,
        *,
        slots: Slots | None = None,
        occupied: Callable[[list[str]], set[str]] = nobody_else,
        retry_after_s: float = FIRST_WAIT_S,
        reclaims_stale: bool = False,
        starts_ahead: bool = False,
    ) -> None:
        """occupied: which of some GPUs are used by others. reclaims_stale: also take up the jobs of runners on other
        machines from which nothing was heard for long. starts_ahead: start the next job's trainer while another still
        works. Raises UserError."""
        self.queue, self.flags, self.machine, self.emit = queue, flags, machine, emit
        self.stop = StopRequest()
        self.num_failed = 0
        self.num_run = 0
        self.num_blocked = 0
        self._slots = Slots(machine, flags) if slots is None else slots
        self._occupied = occupied
        self._checker = PendingChecker(flags, queue.folder)
        self._retries = Retries(queue, retry_after_s)
        self._scheduler = Scheduler(queue, self._checker, self._retries, self._rejected)
        self._heartbeat = HeartbeatWriter(queue, self._slots.number)
        self._reclaimer = Reclaimer(queue, self._retries, with_stale=reclaims_stale)
        self._prewarmer = Prewarmer(queue, flags, machine, is_wanted=starts_ahead)
        self._running: dict[str, RunningAttempt] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._is_counted = False
        self._wants_look = True
        self._notifier = ChangeNotifier(emit)
        self._told_large: set[str] = set()
        self._told_occupied: Collection[str] = ()
        self._circuit_breaker = CircuitBreaker()

    def run(self, *, watch: bool = False) -> None:
        """Until nothing is pending that could be run; with `watch`, until stopped. Raises QueueUnusable.

        `num_blocked` then has how many jobs are left that wait for others, have no room here or are kept by a pause.
        """
        self.queue.create()
        self.stop.listen(*STOP_SIGNALS)
        remove_abandoned()
        self.queue.remove_half_written()
        self._reclaimer.forget_dead()
        try:
            asyncio.run(self._run(watch))
        finally:
            self._checker.close()
            self._heartbeat.stop()
            remove_abandoned()  # also of trainers that were still ending when we began

    async def _run(self, watch: bool) -> None:
        await self._put_back_abandoned()
        try:
            while not self.stop:
                self._heartbeat.beat()
                self._collect()
                has_looked = self._look_if_due()
                has_begun = self._begin_what_fits()
                await self._prewarmer.refresh(self._scheduler, self._slots, self._running.values())
                if has_looked and not has_begun and await self._is_over(watch):
                    return
                self.emit(Tick())
                await asyncio.sleep(POLL_S)
        finally:
            await self._prewarmer.close()
            # What is running is told to stop with us, or goes on to its end.
            while self._attempts:
                self._heartbeat.beat()
                self.emit(Tick())
                await asyncio.wait(self._attempts, timeout=POLL_S)
                self._collect()

    def _collect(self) -> None:
        """Let go of the attempts that are over. Raises what they raised: the queue cannot be used."""
        over = {task for task in self._attempts if task.done()}
        self._attempts -= over
        self._wants_look |= bool(over)
        for task in over:
            task.result()

    # -- looking ---------------------------------------------------------------------------------------------------

    def _look_if_due(self) -> bool:
        wanted = self._wants_look or not self._scheduler.is_checked
        if not self._scheduler.is_due(wanted=wanted):
            return False
        try:
            self._scheduler.refresh()
        except (OSError, QueueUnusable):
            if not self._attempts:
                raise
            return False  # no reason to end a trainer; the next look may be luckier
        self._wants_look = self._scheduler.has_refused
        if not self._is_counted and self._scheduler.may_begin and (pending := len(self._scheduler.pending)):
            self._is_counted = True
            good = len(self._scheduler.valid)
            self.emit(JobsFound(good, self.num_failed, pending - good))
        return self._scheduler.is_checked

    async def _is_over(self, watch: bool) -> bool:
        """Whether nothing is left to do, as far as has just been seen."""
        outlook = self._scheduler
        self._notifier.pause(outlook.pause)
        if not self._slots.is_full and self._reclaimer.is_due:
            await self._put_back_abandoned()
        if self._attempts or self._wants_look:
            return False
        left = self._will_not_run()
        if outlook.pending and len(left) < len(outlook.pending):
            return False  # another runner trains what these wait for, or they rest
        if watch:
            self._tell_why_nothing_runs()
            self.emit(WaitingForJobs())
            return False
        if outlook.pending:
            self._tell_why_nothing_runs()
            self.num_blocked = len(left)
        return True

    def _will_not_run(self) -> set[str]:
        """Names of the pending jobs that this runner can do nothing for."""
        outlook = self._scheduler
        if outlook.pause is not None:
            return {job.name for job in outlook.pending}
        waits = set(outlook.missing) if outlook.is_blocked else set()
        return waits | self._too_large().keys()

    def _too_large(self) -> dict[str, int]:
        """The jobs that will never have room here, and how many processes each of them wants."""
        good = self._scheduler.valid.items()
        return {job.name: needs.num_processes or 1 for job, needs in good if not self._could_fit(needs)}

    def _tell_why_nothing_runs(self) -> None:
        self._notifier.unmet(self._scheduler.missing)
        for name, num_processes in self._too_large().items():
            if name not in self._told_large:
                self._told_large.add(name)
                self.emit(JobTooLarge(name, num_processes))

    def _rejected(self, job: QueuedJob, reason: str) -> None:
        self.num_failed += 1
        self.emit(JobRejected(job, reason))

    # -- taking up -------------------------------------------------------------------------------------------------

    def _begin_what_fits(self) -> bool:
        """Whether any job was begun."""
        outlook, has_begun = self._scheduler, False
        if outlook.pause is not None or not outlook.may_begin or not outlook.valid or self._slots.is_full:
            return False
        occupied = self._occupied(self._slots.unused_gpus)
        while not self.stop and not self._slots.is_full:
            chosen = choose_next(outlook.valid, outlook.waiting, self._fits_beside(occupied), self._could_fit)
            if chosen is None:
                self._tell_occupied(occupied)
                break
            job, place = chosen
            outlook.take(job)
            has_begun |= self._begin(job, place)
        return has_begun

    def _tell_occupied(self, occupied: set[str]) -> None:
        """Say for which GPUs the jobs wait that could run on them."""
        good, waiting = self._scheduler.valid, self._scheduler.waiting
        if occupied and choose_next(good, waiting, self._fits_beside(set()), self._could_fit) is None:
            occupied = set()
        if occupied and occupied != self._told_occupied:
            self.emit(GpusInUse(tuple(sorted(occupied, key=int))))
        self._told_occupied = occupied

    def _fits_beside(self, occupied: set[str]) -> Callable[[Requirements], Allocation | None]:
        return lambda needs: self._slots.fit(needs.num_processes, occupied)

    def _could_fit(self, needs: Requirements) -> bool:
        return self._slots.could_fit(needs.num_processes)

    def _begin(self, pending: QueuedJob, place: Allocation) -> bool:
        """Claim a job and have it trained; whether nobody was faster."""
        self._wants_look = True
        if (claimed := self.queue.claim(pending, self._prewarmer.owner)) is None:
            return False
        standby = self._prewarmer.take()
        self.num_run += 1
        self._slots.take(place)
        self._heartbeat.begin(claimed.token, place.gpus)
        self._attempts.add(asyncio.get_running_loop().create_task(self._attempt(claimed, place, standby)))
        return True

    async def _attempt(self, claimed: ClaimedJob, place: Allocation, standby: PrewarmedWorker | None) -> None:
        token = claimed.token
        began, limit, log = time.monotonic(), 0, claimed.path
        try:
            try:
                job = read_job(claimed.path, claimed.name)
                start = starting_params(job, self.queue)
            except UserError as error:  # changed since it was checked, or the job that it starts from was
                ending = Outcome(OutcomeKind.FAILED, str(error))
            else:
                limit, log = job.retries, self.queue.next_log(claimed.name)
                attempt = attempt_of_queue(self.queue, claimed, job, token, log, start)
                self._running[token] = RunningAttempt(attempt.run, token, place)
                ending = await run_attempt(
                    attempt,
                    place.flags(self.flags),
                    place.machine(self.machine),
                    self.stop,
                    self.emit,
                    ClaimControl(self.queue, claimed),
                    spawn if standby is None else standby.start,
                )
            self._record(claimed, ending, log, limit, time.monotonic() - began)
        finally:
            if standby is not None:
                await standby.end()
            self._running.pop(token, None)
            self._slots.leave(place)
            self._heartbeat.end(token)

    def _record(self, claimed: ClaimedJob, ending: Outcome, log: Path, limit: int, seconds: float) -> None:
        ending, failures = recorded = finish_claim(self.queue, self._retries, claimed, ending, log, limit)
        self.num_failed += recorded.has_failed
        self.emit(AttemptFinished(claimed.name, ending, log))
        if failures is not None:
            backoff_s = self._retries.backoff_s(failures)
            self.emit(RetryScheduled(claimed.name, backoff_s, failures.number, limit))
        self._note_failure(claimed.name, ending, seconds)

    def _note_failure(self, name: str, ending: Outcome, seconds: float) -> None:
        """Pause this host where one job after the other fails at once: its GPU, its disk or its data may be why."""
        if (reason := self._circuit_breaker.add(name, ending, seconds)) is not None:
            with suppress(OSError):
                Pauses(self.queue).add(this_host(), reason)

    async def _put_back_abandoned(self) -> None:
        async for job in self._reclaimer.put_back():
            self._wants_look = True
            self.emit(JobReclaimed(job))
