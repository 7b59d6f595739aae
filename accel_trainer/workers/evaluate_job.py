"""What `accelerate launch` starts for a job of the queue that evaluates a run, once for each process.

The outcome is the state in the status.json of the evaluation's own folder, as that of a training is in its run folder.
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
from contextlib import ExitStack
from pathlib import Path

from accel_trainer.config import EvaluationJob, read_queue_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.outage import waiting_out
from accel_trainer.evaluation.job_session import measure
from accel_trainer.launch.protocol import ERROR_PREFIX, LOCK, owned_folder
from accel_trainer.run.launched_evaluation import folder_of
from accel_trainer.run.status import RunState
from accel_trainer.training.session import SessionOptions

EXIT_CODES = {RunState.FINISHED: 0, RunState.PREEMPTED: 0, RunState.INVALID: 2}


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the run of the arguments; the exit code for people."""
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.evaluate_job", description=__doc__)
    parser.add_argument("job", type=Path, help="the job file")
    parser.add_argument("--name", required=True, help="name of the job")
    parser.add_argument("--run", type=Path, required=True, help="the run folder that the job names")
    parser.add_argument("--submission", default="", help="differs from one submission of the job to the next")
    parser.add_argument(LOCK, type=int, help="the number of the lock that the launcher holds")
    args = parser.parse_args(arguments)
    rank, token = int(os.environ.get("RANK", 0)), os.environ.get(TOKEN_VARIABLE, "")
    resources = ExitStack()
    try:
        job = read_queue_job(args.job, args.name)
        if not isinstance(job, EvaluationJob):
            raise UserError(f"{args.job} trains, and evaluates nothing")
        job = job.of_run(args.run)
        folder = folder_of(job)
        folder.create()
        owned = resources.enter_context(owned_folder(folder, rank, token, lock_number=args.lock))
    except UserError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
        return EXIT_CODES[RunState.INVALID]
    with resources:
        options = SessionOptions(rank=rank, token=token, submission=args.submission)
        return EXIT_CODES.get(measure(job, owned, stop_request(), options).state, 1)


if __name__ == "__main__":
    with waiting_out(lambda: bool(stop_request())):  # also before the session
        exit_now(main())
