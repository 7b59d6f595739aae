"""accel-train, with trainers that are over in a moment: `python instant.py run-queue --cpu`.

A trainer leaves a file of its token's name in `attempts/` of its run folder when it has come to its end. It takes
between nothing and $INSTANT_S seconds, and stops when it is asked to. What goes wrong is for the real code, and so are
claims, signs of life and all moves; nothing looks at a job file with torch.
"""

import asyncio
import os
import random
import time

from accel_trainer.cli import main
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.supervision import Supervision
from accel_trainer.queue import checker, control, reclaim, run_claim, runner, scheduler

LONGEST_S = float(os.environ.get("INSTANT_S", "0"))


async def train(attempt: Attempt, _: LaunchOptions, __: Machine, supervision: Supervision) -> Outcome:
    """In place of `run_attempt`."""
    until = time.monotonic() + random.uniform(0, LONGEST_S)
    while time.monotonic() < until:
        if supervision.stop:
            return Outcome(OutcomeKind.INTERRUPTED)
        if (reason := supervision.stop_check()) is not None:
            return Outcome(reason.kind, reason.reason, reason.state)
        await asyncio.sleep(0.02)
    folder = attempt.run.path / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / attempt.token).touch()
    return Outcome(OutcomeKind.DONE)


def take_for_good(self: checker.PendingChecker, versions: list[checker.Version], _: float) -> None:
    """In place of a check with torch."""
    self._problems.update((version, []) for version in versions)


if __name__ == "__main__":
    run_claim.run_attempt = train
    runner.POLL_S = 0.01
    reclaim.LOOK_EVERY_S, scheduler.LOOK_EVERY_S, control.LOOK_EVERY_S = 0.1, 0.2, 0.1
    scheduler.LARGEST_PART = 0.5
    checker.AT_ONCE = 10_000
    checker.PendingChecker._begin = take_for_good  # type: ignore[method-assign]
    main()
