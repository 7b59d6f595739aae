"""The command line: each verb parses, calls and prints; exit codes."""

import sys

from accel_trainer.cli import control, doctor, job_files, pack, profile, results, run_queue, sweep, train, watch
from accel_trainer.cli.app import MISTAKE, QUEUE_UNUSABLE, SIGNALED, app, print_problems
from accel_trainer.core.errors import UserError
from accel_trainer.launch.accelerate_config import MachineUnusable
from accel_trainer.queue.layout import QueueUnusable

__all__ = [
    "app",
    "control",
    "doctor",
    "job_files",
    "main",
    "pack",
    "profile",
    "results",
    "run_queue",
    "sweep",
    "train",
    "watch",
]


def main() -> None:
    """The console script: every UserError is one clear line and an exit code, never a traceback."""
    try:
        app()
    except UserError as error:
        print_problems(error.problems)
        sys.exit(QUEUE_UNUSABLE if isinstance(error, QueueUnusable | MachineUnusable) else MISTAKE)
    except KeyboardInterrupt:
        sys.exit(SIGNALED + 2)
