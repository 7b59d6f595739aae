"""Whole checks of jobs, in a process of their own: no model of a user can end, stop or print to the one that asks."""

import atexit
import os
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accel_trainer.config import QueueJob
from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.machine_errors import is_scarce, told
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue import check_process
from accel_trainer.queue.check_process import CheckEnd, CheckProcess, Context, Verdict


def check_apart(job: QueueJob, queue: Path, options: LaunchOptions, coming: Collection[str] = ()) -> dict[str, Any]:
    """The summary of a good job. All calls of this process share the one that checks, which imports torch once.

    options: of the launch that the job is checked for. coming: names of jobs that it may start from beside those of the
    queue. Raises UserError, with a line for each mistake.
    """
    paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100 - plain texts
    verdict = _SHARED.check(job, Context.here(queue, options, coming, paths))
    match verdict:
        case Verdict(end=CheckEnd.HUNG, problems=[]):
            raise UserError(check_process.hung(check_process.LONG_CHECK_S))
        case Verdict(end=CheckEnd.LACKING, problems=problems):
            raise SetupUnusable(*problems)
        case Verdict(problems=[_, *_] as problems):
            raise UserError(*problems)
        case Verdict(summary=summary):
            return summary or {}


@dataclass
class _Shared:
    """The process that checks for this one. After a fork the child starts one of its own."""

    process: CheckProcess | None = None
    owner: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, job: QueueJob, context: Context) -> Verdict:
        with self.lock:
            is_used = False
            try:
                process = self._running()
                verdict = process.wait(process.send(job, context, check_process.LONG_CHECK_S))
                is_used = not process.is_over and not process.has_hung
                return verdict
            except OSError as error:
                kind = SetupUnusable if is_scarce(error) else UserError
                raise kind(f"no process can be started that checks jobs: {told(error)}") from error
            finally:
                if not is_used:  # it has ended, or we are interrupted
                    self.end()

    def _running(self) -> CheckProcess:
        if self.process is not None and (self.owner != os.getpid() or self.process.is_over):
            self.end()
        if self.process is None:
            self.process, self.owner = CheckProcess(), os.getpid()
        return self.process

    def end(self) -> None:
        """End the process, if it is ours."""
        process, self.process = self.process, None
        if process is not None and self.owner == os.getpid():
            process.end()


_SHARED = _Shared()
atexit.register(_SHARED.end)
