"""The runner: choose a job, claim it, have it trained, record how it ended, go on with the next."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from accel_trainer.config import read_job
from accel_trainer.errors import UserError
from accel_trainer.processes import StopRequest
from accel_trainer.queue.attempt import STOP_SIGNALS, Attempt, run_attempt
from accel_trainer.queue.checker import Checker
from accel_trainer.queue.ending import Ending, EndingKind
from accel_trainer.queue.launcher import Flags, Machine
from accel_trainer.queue.retries import FIRST_WAIT_S, Failures, Retries, submission_of
from accel_trainer.queue.scratch import remove_abandoned
from accel_trainer.queue.store import JobGone, JobState, Queue, QueuedJob, QueueUnusable
from accel_trainer.queue.supervision import AttemptWatcher
from accel_trainer.queue.trainer import POLL_S, end_leftovers
from accel_trainer.queue.waiting import Missing, Needs, cycles, starting_params
from accel_trainer.runs import RunFolder

LOOK_EVERY_S = 2.0


class QueueWatcher(AttemptWatcher, Protocol):
    """Who is told how a queue goes."""

    def found(self, good: int, wrong: int) -> None:
        """All pending jobs have been checked."""

    def rejected(self, job: QueuedJob, reason: str) -> None: ...

    def reclaimed(self, job: QueuedJob) -> None: ...

    def blocked(self, name: str, missing: Missing) -> None:
        """Nothing is left that could be run, and this job waits for others. Said once for each change of them."""

    def ended(self, name: str, ending: Ending, log: Path) -> None: ...

    def resting(self, name: str, seconds: float, number: int, retries: int) -> None:
        """A job that has just failed will be tried again, for the n-th time of so many."""

    def waiting(self) -> None:
        """There is nothing to do, but there may be."""


class Runner:
    """Runs the jobs of one queue, one after the other."""

    def __init__(
        self,
        queue: Queue,
        flags: Flags,
        machine: Machine,
        watcher: QueueWatcher,
        *,
        retry_after_s: float = FIRST_WAIT_S,
    ) -> None:
        self.queue, self.flags, self.machine, self.watcher = queue, flags, machine, watcher
        self.stop = StopRequest()
        self.num_failed = 0
        self.num_run = 0
        self.num_blocked = 0
        self._checker = Checker(flags, queue.folder)
        self._retries = Retries(queue, retry_after_s)
        self._looked = 0.0
        self._blocked_since: float | None = None
        self._told: dict[str, Missing] = {}

    def run(self, *, watch: bool = False) -> None:
        """Until nothing is pending that could be run; with `watch`, until stopped. Raises QueueUnusable.

        `num_blocked` then has how many jobs are left that wait for others which have failed, are held or not there.
        """
        self.queue.create()
        self.stop.listen(*STOP_SIGNALS)
        self._reclaim_dead()
        remove_abandoned()
        self.queue.remove_half_written()
        try:
            self._run(watch)
        finally:
            self._checker.close()

    def _run(self, watch: bool) -> None:
        is_counted = False
        while not self.stop:
            pending = self.queue.jobs(JobState.PENDING)
            good = self._look(pending)
            if not is_counted and not self._checker.is_busy and pending:
                is_counted = True
                self.watcher.found(len(good), self.num_failed)
            if self._checker.is_busy:
                time.sleep(POLL_S)
                continue
            missing = self._missing(good)
            running = self.queue.jobs(JobState.RUNNING)
            is_blocked = self._is_blocked(pending, missing, running)
            if (job := choose_next(good, running, waiting={*missing, *self._retries.resting(good)})) is not None:
                self._run_one(job)
            elif pending and not is_blocked:
                time.sleep(LOOK_EVERY_S / 4)
                self._reclaim_dead()
            elif pending and not watch:
                self._tell(missing)
                self.num_blocked = len(missing)
                return
            elif watch:
                self._tell(missing)
                self.watcher.waiting()
                time.sleep(LOOK_EVERY_S)
                self._reclaim_dead()
            elif not self._reclaim_dead():
                return

    def _look(self, pending: Sequence[QueuedJob]) -> dict[QueuedJob, Needs]:
        """The good jobs; what is wrong goes to failed/."""
        good, wrong = self._checker.look(pending)
        self._refuse(wrong)
        return good

    def _refuse(self, wrong: Iterable[tuple[QueuedJob, str]]) -> None:
        for job, reason in wrong:
            try:
                self.queue.finish(job, JobState.FAILED, reason)
            except JobGone:
                continue  # another runner has refused it
            self.num_failed += 1
            self.watcher.rejected(job, reason)

    def _missing(self, good: Mapping[QueuedJob, Needs]) -> dict[str, Missing]:
        """What the jobs that wait are waiting for. Those that wait for themselves go to failed/."""
        if not any(good.values()):
            return {}
        states = self.queue.states()
        missing = {job.name: needs.missing(states) for job, needs in good.items()}
        waiting: dict[str, Missing] = {name: names for name, names in missing.items() if names}
        in_a_cycle = cycles(waiting)
        self._refuse((job, f"{job.path}: {in_a_cycle[job.name]}") for job in good if job.name in in_a_cycle)
        return waiting

    def _is_blocked(
        self, pending: Sequence[QueuedJob], missing: Collection[str], running: Collection[QueuedJob]
    ) -> bool:
        """Whether nobody trains and all that is pending waits, and not only for a moment: folders are not read all at
        once, and a job that moves from one to another is then in none."""
        if not pending or running or not all(job.name in missing for job in pending):
            self._blocked_since = None
            return False
        if self._blocked_since is None:
            self._blocked_since = time.monotonic()
        return time.monotonic() - self._blocked_since > LOOK_EVERY_S

    def _tell(self, missing: dict[str, Missing]) -> None:
        for name, names in missing.items():
            if self._told.get(name) != names:
                self.watcher.blocked(name, names)
        self._told = missing

    def _run_one(self, pending: QueuedJob) -> None:
        if (claimed := self.queue.claim(pending)) is None:
            return
        assert claimed.owner is not None
        self.num_run += 1
        try:
            job = read_job(claimed.path, claimed.name)
            start = starting_params(job, self.queue)
        except UserError as error:  # changed since it was checked, or the job that it starts from was
            self._record(claimed, Ending(EndingKind.FAILED, str(error)), claimed.path)
            return
        attempt = Attempt(
            job=job,
            file=claimed.path,
            token=claimed.owner.token,
            log=self.queue.next_log(claimed.name),
            group=self.queue.folder.resolve().name,
            submission=submission_of(claimed.path),
            starting_params=start,
        )
        ending = run_attempt(attempt, self.flags, self.machine, self.stop, self)
        self._record(claimed, ending, attempt.log, retries=job.retries)

    def _record(self, claimed: QueuedJob, ending: Ending, log: Path, retries: int = 0) -> None:
        failures: Failures | None = None
        try:
            match ending.kind:
                case EndingKind.DONE:
                    self.queue.finish(claimed, JobState.DONE)
                case EndingKind.BACK_TO_PENDING:
                    self.queue.release(claimed)
                case EndingKind.FAILED:
                    failures = self._fail(claimed, ending, log, retries)
        except JobGone as error:
            ending = Ending(EndingKind.FAILED, str(error))
        self.watcher.ended(claimed.name, ending, log)
        if failures is not None:
            self.watcher.resting(claimed.name, self._retries.rest_s(failures), failures.number, retries)
        elif ending.kind is not EndingKind.BACK_TO_PENDING:
            self._retries.forget(claimed.name)
            self.num_failed += ending.kind is EndingKind.FAILED

    def _fail(self, claimed: QueuedJob, ending: Ending, log: Path, retries: int) -> Failures | None:
        """Put a job that has failed back, where it is to be tried again, and give its failures; else into failed/."""
        before = self._retries.of(claimed)
        number = 1 if before is None else before.number + 1
        reason = ending.reason or "no reason given"
        if ending.may_be_retried and number <= retries:
            failures = self._retries.add(claimed, number, reason)  # first: whoever is killed now has counted it
            self.queue.release(claimed)
            return failures
        tried = f" (tried {number} times)" if number > 1 else ""
        self.queue.finish(claimed, JobState.FAILED, f"{reason}{tried}\nlog: {log}")
        return None

    def _reclaim_dead(self) -> bool:
        """Put back the jobs of runners of this machine that died, once their trainers are gone; whether any."""
        found = False
        for job in self.queue.jobs(JobState.RUNNING):
            if job.owner is not None and job.owner.is_dead():
                end_leftovers(job.owner.token)
                try:
                    self.queue.release(job)
                except JobGone:
                    continue  # another runner was faster
                found = True
                self.watcher.reclaimed(job)
        return found

    # -- as the watcher of an attempt: look at new files now and then, and pass everything on ---------------------

    def started(self, name: str, run: RunFolder, log: Path) -> None:
        self.watcher.started(name, run, log)

    def stopping(self) -> None:
        self.watcher.stopping()

    def cutting(self, reason: str) -> None:
        self.watcher.cutting(reason)

    def tick(self) -> None:
        self.watcher.tick()
        if time.monotonic() - self._looked >= LOOK_EVERY_S and not self.stop:
            self._looked = time.monotonic()
            with suppress(OSError, QueueUnusable):  # no reason to end a trainer; the next look may be luckier
                self._look(self.queue.jobs(JobState.PENDING))


def choose_next(
    good: Iterable[QueuedJob], running: Iterable[QueuedJob], waiting: Collection[str] = ()
) -> QueuedJob | None:
    """The job to run next, of those that may be claimed: the first by name, unless one of its name is running or it is
    waiting for others."""
    taken = {*waiting, *(job.name for job in running)}
    return next((job for job in good if job.name not in taken), None)
