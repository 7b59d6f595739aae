"""Launched by `accelerate launch`, once per process, to probe layers of a run; rank 0 learns, and writes the answer."""

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

from accel_trainer.api.trained_run import load_run
from accel_trainer.launch.call_worker import answer


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and probe the layers. Gives the exit code of the process."""
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.probe", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--answer", type=Path, required=True, help="file to write")
    parser.add_argument("--layer", action="append", required=True, dest="layers")
    parser.add_argument("--readout", action="append", required=True, dest="readouts")
    parser.add_argument("--c", action="append", type=float, required=True)
    parser.add_argument("--k", action="append", type=int, required=True)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--dataset")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--weights", default="best")
    parser.add_argument("--pool", default="flatten")
    parser.add_argument("--name", default="probe")
    parser.add_argument("--batch-size", type=int, required=True)
    args = vars(parser.parse_args(argv))
    run, path, layers = load_run(args.pop("run")), args.pop("answer"), args.pop("layers")
    rank = int(os.environ.get("RANK", 0))

    def probe() -> dict[str, Any]:
        found = run.probe(layers, **args)
        return {} if found is None else found.as_row()

    return answer(path, rank, probe)


if __name__ == "__main__":
    exit_now(main())
