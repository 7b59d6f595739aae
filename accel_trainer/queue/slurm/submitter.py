"""Hands the jobs of a queue to Slurm, each as a job of its own, and stays until all are over.

It may be killed at any time. What it has submitted goes on and is recorded by itself; what it was just submitting
is found by the next one: a claim is made first, and has its token in the comment of the job of Slurm.
"""

import time
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch.attempt import STOP_SIGNALS
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.process_group import POLL_S
from accel_trainer.queue.broken_disks import BrokenDisks
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.disk_patience import patient_with_disk
from accel_trainer.queue.events import (
    ChangeNotifier,
    DiskBroken,
    DiskWorks,
    Emit,
    JobRejected,
    JobsFound,
    JobStuck,
    JobSubmitted,
    SlurmJobChanged,
    SlurmJobOver,
    SlurmProblem,
    WaitingForJobs,
)
from accel_trainer.queue.layout import Ending, JobState, QueuedJob
from accel_trainer.queue.retries import FIRST_WAIT_S, Retries
from accel_trainer.queue.scheduler import Scheduler, choose_next
from accel_trainer.queue.slots import Allocation
from accel_trainer.queue.slurm import client
from accel_trainer.queue.slurm.client import SlurmError, SlurmJob, SlurmTimeout, SubmitLimit
from accel_trainer.queue.slurm.reconcile import Reconciler, Record, Records, Settled, this_user
from accel_trainer.queue.slurm.script import SlurmOptions, arguments, script
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs
from accel_trainer.run.status import RunState

# Slurm is asked so often, or for this part of the time where it is slow.
ASK_EVERY_S, LARGEST_PART = 5.0, 0.05
# The wait after Slurm has taken no more for now, or has not answered.
BACKOFF_S = 30.0


class Submitter:
    """Hands over the jobs of one queue to the cluster of this machine."""

    def __init__(
        self,
        queue: QueueStore,
        launch: LaunchOptions,
        options: SlurmOptions,
        emit: Emit,
        retry_after_s: float = FIRST_WAIT_S,
    ) -> None:
        """Raises UserError for options that make no sense, and where there is no Slurm."""
        options.refuse_wrong()
        self.queue, self.stop = queue, StopRequest()
        self.num_failed = self.num_run = self.num_blocked = 0
        self._launch, self._options, self._emit = launch, options, emit
        self._cluster, self._nodes = client.cluster_name(), _nodes_of(options.partition)
        self._retries, self._records = Retries(queue, retry_after_s), Records(queue)
        self._checker = PendingChecker(launch, queue.folder)
        self._stuck = StuckJobs(queue, lambda job, problem: emit(JobStuck(job.name, problem)))
        self._disks = BrokenDisks(queue.folder, self._report_disk, trains_here=False)
        self._scheduler = Scheduler(queue, self._checker, self._retries, self._rejected, self._stuck, self._disks)
        self._reconciler = Reconciler(queue, self._retries, self._cluster)
        self._notifier = ChangeNotifier(emit)
        self._in_slurm: dict[str, str] = {}  # by the names of jobs: what was last printed of each
        self._runs: dict[str, Path | None] = {}  # of those that this process has handed over: their run folders
        self._is_counted, self._problem = False, ""
        self._asked, self._ask_after_s, self._backs_off_until = 0.0, 0.0, 0.0

    @property
    def has_jobs_in_slurm(self) -> bool:
        """Whether any job is still in Slurm."""
        return bool(self._in_slurm)

    def run(self, *, watch: bool = False) -> None:
        """Until all jobs are over, or wait for what is not to come; with `watch`, until stopped.

        Told to stop, it leaves at once. Raises QueueUnusable, and UserError where sbatch refuses what is asked of it.
        """
        self.stop.listen(*STOP_SIGNALS)
        with patient_with_disk(self.queue.folder, self.stop, self._emit):
            self.queue.create()
            self._run(watch)

    def _run(self, watch: bool) -> None:
        with suppress(OSError):  # what cannot be removed does no harm
            self.queue.remove_half_written()
        try:
            while not self.stop and not self._turn(watch):
                time.sleep(POLL_S)
        finally:
            self._checker.close()

    def _turn(self, watch: bool) -> bool:
        """Whether that was all."""
        self._ask_if_due()
        self._disks.refresh()
        if not self._scheduler.is_due(wanted=not self._scheduler.is_checked or self._scheduler.has_rejected):
            return False
        self._scheduler.refresh()
        self._notifier.strays(self._scheduler.strays)
        self._note_what_is_over()
        if not self._scheduler.is_checked:
            return False
        if not self._is_counted and self._scheduler.pending:
            self._is_counted = True
            self._emit(JobsFound(len(self._scheduler.valid), self.num_failed, 0))
        return not self._hand_over() and self._is_over(watch)

    def _is_over(self, watch: bool) -> bool:
        scheduler = self._scheduler
        self._notifier.pause(scheduler.pause)
        if self._in_slurm or self._reconciler.claims() or scheduler.has_rejected:
            return False
        left = len(scheduler.pending)
        if left and scheduler.pause is None and not scheduler.is_blocked:
            return False  # some back off, or runners train what they wait for
        self._notifier.unmet(scheduler.missing)
        self.num_blocked = left + len(self._stuck)
        if watch:
            self._emit(WaitingForJobs())
        return not watch

    def _rejected(self, job: QueuedJob, reason: str) -> None:
        self.num_failed += 1
        self._emit(JobRejected(job, reason))

    # -- handing over ----------------------------------------------------------------------------------------------

    def _hand_over(self) -> bool:
        """Hand over all that may be run, in its order; whether there was anything."""
        scheduler, has_begun = self._scheduler, False
        if scheduler.pause is not None or self._is_backing_off:
            return bool(scheduler.valid) and scheduler.pause is None
        while not (self.stop or self._is_backing_off):
            chosen = choose_next(scheduler.valid, scheduler.waiting, lambda needs: Allocation())
            if chosen is None:
                break
            job, needs = chosen[0], scheduler.valid[chosen[0]]
            scheduler.take(job)
            has_begun = True
            try:
                self._submit(job, needs)
            except SubmitLimit as error:
                self._back_off(error)
        return has_begun

    def _submit(self, pending: QueuedJob, needs: Requirements) -> None:
        """Claim a job and hand it to sbatch. Raises SubmitLimit and, where sbatch refuses it for good, UserError."""
        try:
            self._options.refuse_unfit(needs)
            owner = Owner.of_cluster(self._cluster)
            words = arguments(pending.name, owner.token, needs, self._options, self.queue.paths.logs, self._nodes)
        except UserError as error:
            self._scheduler.refuse(pending, f"{pending.path}: {error}")
            return
        self._records.write(owner.token, Record(this_user()))
        try:
            claimed = self.queue.claim(pending, owner)
        except (UserError, OSError) as error:
            self._records.forget(owner.token)
            self._stuck.add(pending, error)
            return
        if claimed is None:
            self._records.forget(owner.token)
            return
        self._note_in_slurm(pending.name)
        self._runs[pending.name] = None if needs.run is None else Path(needs.run)
        try:
            job_id = client.submit(words, script(self.queue.folder, owner.token, self._launch, self._options.nodes))
        except SlurmTimeout as error:  # it may be there all the same: the claim stays until that is known
            self._back_off(error)
        except SlurmError:
            self._in_slurm.pop(pending.name)
            self.queue.release(claimed)
            self._records.forget(owner.token)
            raise
        else:
            self._records.note_id(owner.token, this_user(), job_id)
            self._emit(JobSubmitted(pending.name, job_id))

    @property
    def _is_backing_off(self) -> bool:
        return time.monotonic() < self._backs_off_until

    def _back_off(self, error: SlurmError) -> None:
        self._backs_off_until = time.monotonic() + BACKOFF_S
        self._report_problem(str(error))

    # -- what becomes of them ----------------------------------------------------------------------------------------

    def _ask_if_due(self) -> None:
        if time.monotonic() - self._asked < self._ask_after_s:
            return
        began = time.monotonic()
        try:
            left, settled = self._reconciler.reconcile()
        except SlurmError as error:
            self._report_problem(str(error))
        else:
            self._problem = ""
            for job, found in left.items():
                self._show(job.name, found)
            for one in settled:
                self._report_settled(one)
        self._asked = time.monotonic()
        self._ask_after_s = max(ASK_EVERY_S, (self._asked - began) / LARGEST_PART)

    def _note_in_slurm(self, name: str) -> None:
        if name not in self._in_slurm:
            self.num_run += 1
            self._in_slurm[name] = ""

    def _show(self, name: str, found: SlurmJob | None) -> None:
        """Of each job that is in Slurm, also those that another process has submitted."""
        self._note_in_slurm(name)
        text = "" if found is None else found.description
        if text and self._in_slurm[name] != text:
            self._emit(SlurmJobChanged(name, text))
        self._in_slurm[name] = text

    def _report_settled(self, settled: Settled) -> None:
        name, reason = settled.job.name, settled.finished.outcome.reason
        self._note_in_slurm(name)
        if reason:
            self._emit(SlurmJobChanged(name, reason))

    def _note_what_is_over(self) -> None:
        """Tell of the jobs that were in Slurm and have left running/, by whomever they were moved."""
        gone = self._in_slurm.keys() - {job.name for job in self._scheduler.running}
        if not gone:
            return
        states = self.queue.states()
        for name in sorted(gone):
            state = states.get(name)
            if state is JobState.RUNNING:
                continue
            del self._in_slurm[name]
            self._report_over(name, state)

    def _report_over(self, name: str, state: JobState | None) -> None:
        found = None if state is None else self.queue.find(name)
        run = self._runs.pop(name, None)
        if found is not None and state is JobState.PENDING:
            self._note_machine(found, run)
        reason = self.queue.reason(found) if found is not None and state is JobState.FAILED else None
        self.num_failed += found is not None and state is JobState.FAILED and self.queue.ending(found) is Ending.FAILED
        self._emit(SlurmJobOver(name, state, reason))

    def _note_machine(self, returned: QueuedJob, run: Path | None) -> None:
        """Look at the disks of a job that is to be tried again, if the machine has failed it."""
        failures = self._retries.of(returned)
        if failures is not None and failures.of_machine:
            self._disks.note(run, Outcome(OutcomeKind.FAILED, failures.reason, RunState.MACHINE_FAILED))

    def _report_disk(self, place: Path, problem: str | None) -> None:
        self._emit(DiskWorks(place) if problem is None else DiskBroken(place, problem))

    def _report_problem(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._emit(SlurmProblem(problem))


def _nodes_of(partition: str | None) -> client.NodeKind | None:
    """None where Slurm does not say it: its own defaults, or the user's words for sbatch, decide then."""
    with suppress(SlurmError):
        return client.nodes_of(partition)
    return None
