"""What runners have left that are dead: jobs which are put back, once nothing is left of their trainers."""

import asyncio
import time
from collections.abc import AsyncIterator

from accel_trainer.launch.process_group import POLL_S, ending_leftovers
from accel_trainer.queue.outlook import LOOK_EVERY_S
from accel_trainer.queue.pulses import LEASE_S, Observer
from accel_trainer.queue.recording import take_over
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import JobState, Queue, QueuedJob


class Abandoned:
    """The abandoned jobs of one queue, as seen by one runner."""

    def __init__(self, queue: Queue, retries: Retries, *, with_stale: bool) -> None:
        """with_stale: also those of runners on other machines from which nothing was heard for long."""
        self._queue, self._retries, self._with_stale = queue, retries, with_stale
        self._observer = Observer(queue)
        self._looked = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._looked > LOOK_EVERY_S / 4

    def forget_dead(self) -> None:
        """Remove the signs of life of runners that are dead."""
        self._observer.remove_dead()

    async def put_back(self) -> AsyncIterator[QueuedJob]:
        """Puts them back one by one, and gives those with which nobody was faster. Raises QueueUnusable."""
        running = self._queue.jobs(JobState.RUNNING)
        silent = self._observer.silences_s(running)
        for job in running:
            if job.owner is None:
                continue
            is_stale = self._with_stale and silent.get(job.path.name, 0.0) > LEASE_S
            if not (is_stale or job.owner.is_dead()):
                continue
            for _ in ending_leftovers(job.owner.token):
                await asyncio.sleep(POLL_S)
            if take_over(self._queue, self._retries, job):
                yield job
        self._looked = time.monotonic()
