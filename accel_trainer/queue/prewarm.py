"""A trainer that is started before its job's turn comes: what takes seconds to import is then imported already.

It touches no GPU before it has a job. Its processes carry the token of the next claim, which is made for that.
"""

import json
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from accel_trainer.config import EvaluationJob, Job, read_queue_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import write_atomic
from accel_trainer.core.giving_way import GIVE_WAY
from accel_trainer.core.lease import Owner
from accel_trainer.launch.attempt_files import make_scratch
from accel_trainer.launch.command import Launch, LaunchOptions, num_processes_wanted, plan_launch
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.process_group import ProcessGroup
from accel_trainer.launch.protocol import PREWARM, WITH_WANDB, prewarm_cancelled
from accel_trainer.queue.layout import QueuedJob
from accel_trainer.queue.scheduler import Scheduler, choose_next
from accel_trainer.queue.slots import Allocation, Slots
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import attempt_status

# So long before a job is over the next one's trainer is started. It needs some ten seconds, and more beside others.
AHEAD_S = 20.0
LOOK_EVERY_S = 1.0


class PrewarmedWorker:
    """One trainer without a job. The next claim is made in the name of `owner`."""

    def __init__(self, queue: QueueStore, launch: Launch) -> None:
        """launch: that of the job which is expected; its worker's arguments say what to do until the job is there.
        Raises OSError."""
        self.owner = Owner.new()
        self._has_job = False
        self._launch = _of_any_job(launch)
        self._arguments_file = Path(make_scratch(self.owner.token)["TMPDIR"]) / "words.json"
        # Named as what is half-written: after a kill it is removed like that.
        self._log = queue.paths.logs / f".standby.{self.owner.token}.tmp"
        waiting = replace(launch, worker_args=(PREWARM, str(self._arguments_file), *launch.worker_args))
        self._trainer = ProcessGroup(waiting, self.owner.token, self._log)

    @property
    def has_died(self) -> bool:
        """Whether its launcher has ended."""
        return self._trainer.exit_code is not None

    async def start(self, launch: Launch, token: str, log: Path) -> ProcessGroup:
        """The same as `ProcessGroup`, sooner where the claim is that of `owner` and the job is launched as the one that
        was expected. Raises OSError."""
        if token == self.owner.token and not self.has_died and _of_any_job(launch) == self._launch:
            self._trainer.log_to(log)
            write_atomic(self._arguments_file, json.dumps(launch.worker_args), durable=False)
            self._has_job = not prewarm_cancelled(self._arguments_file).exists()
        if self._has_job:
            return self._trainer
        await self.end()
        return ProcessGroup(launch, token, log)

    async def end(self) -> None:
        """At once, if it has got no job."""
        if not self._has_job:
            self._trainer.kill()
            await self._trainer.stop()
            self._log.unlink(missing_ok=True)


def _of_any_job(launch: Launch) -> Launch:
    return replace(launch, worker_args=())


@dataclass(frozen=True)
class RunningAttempt:
    """An attempt that is under way: how long it will still take, and what it has of the machine."""

    run: RunFolder
    token: str
    place: Allocation

    @property
    def is_about_to_end(self) -> bool:
        """Whether the trainer has reported that it needs only a few seconds more."""
        status = attempt_status(self.run, self.token.__eq__)
        return status is not None and status.eta_s is not None and status.eta_s < AHEAD_S


class Prewarmer:
    """Prewarms a trainer when a job is about to end, or while the first ones are checked."""

    def __init__(self, queue: QueueStore, options: LaunchOptions, machine: Machine, *, is_wanted: bool) -> None:
        self._queue, self._options, self._machine, self._is_wanted = queue, options, machine, is_wanted
        self._prewarmed: PrewarmedWorker | None = None
        self._looked = 0.0

    async def refresh(self, scheduler: Scheduler, slots: Slots, running: Collection[RunningAttempt]) -> None:
        """Start a trainer where one will be needed soon, and end one that will not; to be called again and again."""
        now = time.monotonic()
        if not self._is_wanted or now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        is_idle = scheduler.is_checked and not running and not scheduler.valid
        if self._prewarmed is not None and (self._prewarmed.has_died or is_idle or scheduler.pause is not None):
            await self.close()
        elif self._prewarmed is None and (launch := self._next_launch(scheduler, slots, running)) is not None:
            with suppress(OSError):  # the disk is full: the next attempt will report that
                self._prewarmed = PrewarmedWorker(self._queue, launch)

    @property
    def owner(self) -> Owner | None:
        """In whose name the next claim is to be made; None where no worker waits."""
        return None if self._prewarmed is None else self._prewarmed.owner

    def take(self) -> PrewarmedWorker | None:
        """The worker that waits, for the claim that was made in the name of `owner`."""
        prewarmed, self._prewarmed = self._prewarmed, None
        return prewarmed

    async def close(self) -> None:
        """End the worker that waits, if there is one."""
        if (prewarmed := self.take()) is not None:
            await prewarmed.end()

    def _next_launch(self, scheduler: Scheduler, slots: Slots, running: Collection[RunningAttempt]) -> Launch | None:
        """How the next job will be launched, if its place will be free in a moment."""
        if scheduler.pause is not None:
            return None
        if not running and not scheduler.may_begin:
            # The first is not checked yet; so it will be launched if it is valid.
            wanted = (
                self._launch(queued, lambda job: slots.fit(num_processes_wanted(job, self._options)))
                for queued in scheduler.pending
            )
            return next(wanted, None)
        left = next((attempt.place for attempt in running if attempt.is_about_to_end), None)
        if left is None:
            return None
        chosen = choose_next(
            scheduler.valid,
            scheduler.waiting,
            lambda needs: slots.fit_after(left, needs.num_processes),
            lambda needs: slots.could_fit(needs.num_processes),
        )
        if chosen is None:
            return None
        queued, place = chosen
        return self._launch(queued, lambda job: place, gives_way=True)

    def _launch(
        self, queued: QueuedJob, place_of: Callable[[Job], Allocation | None], *, gives_way: bool = False
    ) -> Launch | None:
        try:
            job = read_queue_job(queued.path, queued.name)
            if isinstance(job, EvaluationJob):
                return None  # it is not a trainer that it needs
            if (place := place_of(job)) is None:
                return None
            ahead = [GIVE_WAY] * gives_way + [WITH_WANDB] * ("wandb" in job.trackers)
            return plan_launch(job, place.options(self._options), place.machine(self._machine), ahead)
        except UserError:
            return None  # the runner reports it of the job
