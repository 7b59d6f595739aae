"""Claims that this process may have without knowing.

Their names have its token, and nobody else gives them. Where a job is not there after it was renamed to one, another
process was faster, or the answer was lost and what the client of a network drive shows is old. A listing made anew
tells; the names are kept for a while after it, for a client that has old listings all the same.
"""

import time
from pathlib import Path

from accel_trainer.core.rename import LONGEST_MEMORY_S, list_anew
from accel_trainer.queue.layout import ClaimedJob, JobState, QueuePaths

# For so long names are looked for that no listing has.
KEPT_S = 2 * LONGEST_MEMORY_S


class Doubts:
    """The names of one queue's claims that were not there."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._is_new = False

    def add(self, path: Path) -> None:
        """Note the path of a claim that was not there after the rename to it."""
        self._since[path.name], self._is_new = time.monotonic(), True

    def found(self, paths: QueuePaths) -> list[ClaimedJob]:
        """The claims of these names that are there all the same, whether the client can open them yet or not."""
        oldest = time.monotonic() - KEPT_S
        self._since = {name: since for name, since in self._since.items() if since > oldest}
        if not self._since:
            return []
        if self._is_new:
            list_anew(paths.of(JobState.RUNNING))
            self._is_new = False
        return [job for job in paths.claims() if job.path.name in self._since]

    def remove(self, path: Path) -> None:
        """It is known by now what became of this one."""
        self._since.pop(path.name, None)
