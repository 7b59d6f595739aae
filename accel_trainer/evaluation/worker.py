"""What `accelerate launch` starts, once for each process, to evaluate a run: rank 0 writes what was found to a file.

That is one JSON object: a row, or {"problems": [...]} for mistakes. Exit codes and output tell nothing.
"""

# The parent is watched from the first moment on; torch takes seconds to import.
from accel_trainer.processes import die_with_parent, leave

if __name__ == "__main__":
    die_with_parent()

import argparse
import json
import logging
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_trainer.errors import UserError
from accel_trainer.files import write_atomic
from accel_trainer.runs import RunFolder

log = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="accel_trainer.evaluation.worker", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--answer", type=Path, required=True, help="file to write")
    parser.add_argument("--weights", default="best")
    parser.add_argument("--dataset")
    parser.add_argument("--data-root", type=Path)
    args = parser.parse_args(words)
    rank = int(os.environ.get("RANK", 0))
    try:
        from accel_trainer.evaluation.accuracy import evaluate
        from accel_trainer.training.reporting import begin_logging

        begin_logging(None, rank)
        answer: dict[str, Any] = evaluate(RunFolder(args.run), args.weights, args.dataset, args.data_root).as_row()
    except UserError as mistake:
        log.error("error: %s", mistake)
        answer = {"problems": mistake.problems}
    except BaseException:
        traceback.print_exc()
        return 1
    if rank == 0:
        write_atomic(args.answer, json.dumps(answer), durable=False)
    return 2 if "problems" in answer else 0


if __name__ == "__main__":
    leave(main())
