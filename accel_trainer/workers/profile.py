"""Launched by `accelerate launch`, once per process, to profile a job; rank 0 writes the result to a file."""

# The parent is watched from the first moment on; torch takes seconds to import.
from accel_trainer.core.child_environment import begin_worker
from accel_trainer.core.late_imports import import_late
from accel_trainer.core.processes import die_with_parent, exit_now

if __name__ == "__main__":
    begin_worker()
    die_with_parent()
    import_late()

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_trainer.config import read_job
from accel_trainer.launch.call_worker import answer


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and profile. Gives the exit code of the process."""
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.profile", description=__doc__)
    parser.add_argument("job", type=Path, help="the job file")
    parser.add_argument("--name", required=True, help="name of the job")
    parser.add_argument("--place", type=Path, required=True, help="folder to write everything in")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    args = parser.parse_args(argv)
    rank = int(os.environ.get("RANK", 0))

    def profile_job() -> dict[str, Any]:
        from accel_trainer.profiling.measure import profile

        job = read_job(args.job, args.name)
        trace = args.place / "trace.json"
        return profile(job, args.place / "run", args.steps, args.warm_up, trace).as_row()

    return answer(args.place / "answer.json", rank, profile_job)


if __name__ == "__main__":
    exit_now(main())
