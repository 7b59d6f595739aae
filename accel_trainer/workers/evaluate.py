"""Launched by `accelerate launch`, once per process, to evaluate a run; rank 0 writes the result to a file."""

# The parent is watched from the first moment on; torch takes seconds to import.
from accel_trainer.core.child_environment import begin_worker
from accel_trainer.core.late_imports import import_late
from accel_trainer.core.processes import die_with_parent, exit_now

if __name__ == "__main__":
    begin_worker()
    die_with_parent()
    import_late()

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_trainer.api.trained_run import load_run
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.evaluation.tracked import log_evaluation, log_scores
from accel_trainer.launch.call_worker import ProgressNote, answer
from accel_trainer.run.evaluations import EvaluationFolder
from accel_trainer.run.folder import RunFolder


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and evaluate. Gives the exit code of the process."""
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.evaluate", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--answer", type=Path, required=True, help="file to write")
    parser.add_argument("--weights", default="best")
    parser.add_argument("--dataset")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--plan", help="an EvaluationPlan as JSON, in place of the other options")
    args = parser.parse_args(argv)
    rank = int(os.environ.get("RANK", 0))

    def evaluate_run() -> dict[str, Any]:
        run = load_run(args.run)
        if args.plan is not None:
            plan = EvaluationPlan.parse(json.loads(args.plan))
            measured = run.evaluate_plan(plan, on_progress=ProgressNote(args.answer, rank))
            if rank == 0:
                log_evaluation(RunFolder(args.run), EvaluationFolder(measured.path))
            return measured.as_row()
        found = run.evaluate(args.dataset, weights=args.weights, data_root=args.data_root)
        if rank == 0:
            log_scores(RunFolder(args.run), found)
        return found.as_row()

    return answer(args.answer, rank, evaluate_run)


if __name__ == "__main__":
    exit_now(main())
