"""Checks job files for a queue, in a process of its own, which may import torch.

Writes one JSON object per line, each as soon as it is known: {"file", "problems"}. It is written to a descriptor that
nothing else is written to: models of users print.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from accel_trainer.api.job_queue import Queue
from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import LaunchOptions


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and check one file after the other."""
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.validate", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="job files")
    parser.add_argument("--queue", type=Path, required=True, help="the queue whose jobs they may start from")
    parser.add_argument("--answers", type=int, required=True, help="descriptor to write to")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--gpus")
    args = parser.parse_args(argv)
    gpus = None if args.gpus is None else tuple(args.gpus.split(","))
    queue = Queue(args.queue, LaunchOptions(args.config, args.num_processes, gpus))
    coming = {file.stem for file in args.files}
    os.set_inheritable(args.answers, False)  # not for what a model starts
    for file in args.files:
        problems: list[str] = []
        try:
            queue.check(file, coming=coming)
        except UserError as error:
            problems = error.problems
        except (Exception, SystemExit):
            problems = []  # no mistake that a user could fix: the trainer will report it, with its log
        os.write(args.answers, json.dumps({"file": str(file), "problems": problems}).encode() + b"\n")


if __name__ == "__main__":
    main()
