"""`accelerate launch` of one process, which becomes the trainer itself: torch is imported once, and no launcher waits.

As for every launch Accelerate reads the options, checks them and makes the environment. Where its launcher would then
start a process and wait, the module that was to run in that process is run here. What is read while torch is imported
has been in the environment before (`Launch.beforehand`); where Accelerate decides otherwise, the process is replaced by
the one that it would have started.
"""

# While torch is imported there is nothing to save yet: a signal to stop ends this process at once.
import faulthandler

from accel_trainer.core.late_imports import import_late
from accel_trainer.core.processes import STACKS_SIGNAL, die_with_parent

if __name__ == "__main__":
    faulthandler.register(STACKS_SIGNAL, all_threads=True)
    die_with_parent()
    import_late()

import argparse
import logging
import os
import re
import runpy
import sys
from collections.abc import Mapping
from contextlib import suppress

from accel_trainer.core.giving_way import giving_way

# What nothing reads before Accelerate is used.
_READ_LATER = re.compile(r"ACCELERATE_\w+")


def main() -> None:
    """Do as `accelerate launch` with the arguments of this process."""
    handlers = logging.getLogger().handlers[:]
    with giving_way(sys.argv):
        from accelerate.commands import launch

    def become_worker(args: argparse.Namespace) -> None:
        command, environment = launch.prepare_simple_launcher_cmd_env(args)
        logging.getLogger().handlers[:] = handlers  # the launcher's own prints what a trainer prints itself
        if command[: -len(args.training_script_args) or None] != [sys.executable, "-m", args.training_script]:
            _replace(command, environment)
        if any(not _READ_LATER.fullmatch(name) for name in _changed(environment)):
            _replace(command, environment)
        os.environ |= environment
        sys.argv[1:] = args.training_script_args
        runpy.run_module(args.training_script, run_name="__main__", alter_sys=True)

    launch.simple_launcher = become_worker  # by whatever name another version calls it: that one starts a process
    launch.main()


def _changed(environment: Mapping[str, str]) -> set[str]:
    """The variables that have another value there than here, or are only in one of both."""
    return {name for name, _ in environment.items() ^ os.environ.items()}


def _replace(command: list[str], environment: Mapping[str, str]) -> None:
    """Run another program in this process. Raises OSError."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main()
