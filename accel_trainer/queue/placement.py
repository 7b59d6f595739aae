"""Which pending jobs have room on this machine: now, later or never. GPUs that others use are left to them."""

from accel_trainer.core.text import first_line
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.events import ChangeNotifier
from accel_trainer.queue.layout import QueuedJob
from accel_trainer.queue.runner_options import GpusInUse
from accel_trainer.queue.scheduler import Scheduler, choose_next
from accel_trainer.queue.slots import Allocation, Slots


class Placement:
    """Finds places for the jobs that a scheduler has seen, and notifies why some have none."""

    def __init__(self, scheduler: Scheduler, slots: Slots, gpus_in_use: GpusInUse, notifier: ChangeNotifier) -> None:
        self._scheduler, self._slots, self._look, self._notifier = scheduler, slots, gpus_in_use, notifier

    def gpus_in_use(self) -> set[str] | None:
        """Which GPUs others use; None where that is not known now: a driver fails in many ways, and may work again."""
        try:
            occupied = self._look(self._slots.unused_gpus)
        except Exception as error:
            self._notifier.trouble(first_line(error), of="GPUs")
            return None
        if occupied is not None:
            self._notifier.trouble(None, of="GPUs")
        return occupied

    def next_job(self, occupied: set[str]) -> tuple[QueuedJob, Allocation] | None:
        """The job to run next and its place beside GPUs that others occupy; None where there is none for now."""
        if (chosen := self._choose(occupied)) is None:
            could_run = bool(occupied) and self._choose(set()) is not None
            self._notifier.gpus_in_use(occupied if could_run else set())
        return chosen

    def will_not_run(self) -> set[str]:
        """Names of the pending jobs that this runner can do nothing for."""
        scheduler = self._scheduler
        if scheduler.pause is not None:
            return {job.name for job in scheduler.pending}
        waits = set(scheduler.missing) if scheduler.is_blocked else set()
        return waits | self._too_large().keys()

    def notify_why_nothing_runs(self) -> None:
        """Notify what jobs wait for, and which are too large for this machine."""
        self._notifier.unmet(self._scheduler.missing)
        self._notifier.too_large(self._too_large())

    def _choose(self, occupied: set[str]) -> tuple[QueuedJob, Allocation] | None:
        def fit(needs: Requirements) -> Allocation | None:
            return self._slots.fit(needs.num_processes, occupied)

        return choose_next(self._scheduler.valid, self._scheduler.waiting, fit, self._could_fit)

    def _could_fit(self, needs: Requirements) -> bool:
        return needs.gpus_lacking is None and self._slots.could_fit(needs.num_processes)

    def _too_large(self) -> dict[str, int]:
        """The jobs that will never have room here, and how many processes each of them needs."""
        valid = self._scheduler.valid.items()
        return {job.name: needs.num_processes or 1 for job, needs in valid if not self._could_fit(needs)}
