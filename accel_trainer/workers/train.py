"""What `accelerate launch` starts, once for each process: trains one job and reports how it ended.

The outcome of a run is the state in status.json. Exit codes are for people: launchers do not pass them on.
"""

# Signals are noted and the parent is watched from the first moment on; torch takes seconds to import.
import faulthandler

from accel_trainer.core.child_environment import begin_worker
from accel_trainer.core.late_imports import import_late
from accel_trainer.core.processes import STACKS_SIGNAL, die_with_parent, exit_now, stop_request

if __name__ == "__main__":
    begin_worker()
    stop_request()
    faulthandler.register(STACKS_SIGNAL, all_threads=True)
    die_with_parent()
    import_late()

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from accel_trainer.config import Job, read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.giving_way import giving_way
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.outage import waiting_out
from accel_trainer.launch.protocol import ERROR_PREFIX, LOCK, PREWARM, WITH_WANDB, owned_folder, wait_for_arguments
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState
from accel_trainer.training import session
from accel_trainer.training.degraded import Measure
from accel_trainer.training.session import SessionOptions

# Not 0: the launcher ends the other processes as well, which would wait for this one.
CANCELLED_CODE = 1

EXIT_CODES = {RunState.FINISHED: 0, RunState.PREEMPTED: 0, RunState.INVALID: 2}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the job of the arguments; the exit code for people."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == [PREWARM]:
        told = wait_for_arguments(Path(arguments[1]), partial(_preload, arguments))
        if told is None:
            return CANCELLED_CODE
        arguments = told
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.train", description=__doc__)
    parser.add_argument("job", type=Path, help="the job file")
    parser.add_argument("--name", required=True, help="name of the job")
    parser.add_argument("--group", help="group of runs in the trackers")
    parser.add_argument("--submission", default="", help="differs from one submission of the job to the next")
    parser.add_argument("--starting-params", type=Path, help="what the name in the job's starting_params stands for")
    parser.add_argument(LOCK, type=int, help="the number of the lock that the launcher holds")
    args = parser.parse_args(arguments)
    rank, token = int(os.environ.get("RANK", 0)), os.environ.get(TOKEN_VARIABLE, "")
    resources = ExitStack()
    try:
        job = read_job(args.job, args.name)
        if args.starting_params is not None:
            job = job.starting_from(args.starting_params)
        run = RunFolder(job.run_path)
        run.create()
        owned = resources.enter_context(owned_folder(run, rank, token, lock_number=args.lock))
    except UserError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
        return EXIT_CODES[RunState.INVALID]
    with resources:
        options = SessionOptions(
            rank=rank, token=token, submission=args.submission, group=args.group, measure=_measure_of(job)
        )
        state = session.train(job, owned, stop_request(), options).state
    return EXIT_CODES.get(state, 1)


def _measure_of(job: Job) -> Measure | None:
    """What measures degraded images, which few jobs have: it is imported for these alone."""
    if not job.degradations:
        return None
    from accel_trainer.evaluation.in_training import measure_in_training

    return measure_in_training


def _preload(arguments: Sequence[str]) -> None:
    """Import what takes seconds: torch above all, and wandb where the job that is expected wants it."""
    with giving_way(arguments):
        import numpy.random  # noqa: F401
        import PIL.Image
        import psutil  # noqa: F401

        import accel_trainer.training.trainer  # noqa: F401

        PIL.Image.preinit()  # imports what writes the picture of a first batch
        if WITH_WANDB in arguments:
            with suppress(ImportError):
                import wandb  # noqa: F401 - for the job


if __name__ == "__main__":
    with waiting_out(lambda: bool(stop_request())):  # also before the session
        exit_now(main())
