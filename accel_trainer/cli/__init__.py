"""The command line: each verb parses, calls and prints; exit codes."""

import os
import signal
import sys

from accel_trainer.cli.app import (
    MISTAKE,
    QUEUE_UNUSABLE,
    SIGNALED,
    SOME_FAILED,
    app,
    noting_arguments,
    print_problems,
    say,
    system_error,
)
from accel_trainer.cli.console import lost_output, protect_streams, use_utf8
from accel_trainer.core.disk_calls import saying_hangs
from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.machine_errors import as_system_error, lack_of_threads
from accel_trainer.core.outage import MachineFailure
from accel_trainer.core.processes import exit_now

__all__ = ["app", "main"]


# Of these the output is only to be watched: what they do counts, whatever has become of the terminal.
WATCHED = ("run-queue", "train")


def main() -> None:
    """The console script: every UserError is one clear line and an exit code, never a traceback."""
    use_utf8()
    protect_streams()
    code = _run()
    if (error := lost_output()) is not None and code == 0 and sys.argv[1:2] != [] and sys.argv[1] not in WATCHED:
        print_problems([f"standard output: {error.strerror}"])
        code = SOME_FAILED
    if sys.flags.inspect and os.environ.get("PYTHONINSPECT"):
        exit_now(code)  # left over in a shell, it has Python forget the code and wait for input
    sys.exit(code)


def _run() -> int:
    try:
        with saying_hangs(say), noting_arguments():
            app()
    except UserError as error:
        return _said(error)
    except MachineFailure as error:
        print_problems(error.problems)
        return SOME_FAILED
    except OSError as error:
        return _said(system_error(error, None))
    except (RuntimeError, MemoryError, ImportError) as error:
        if (scarce := as_system_error(error)) is None:
            raise
        return _said(system_error(scarce, None))
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as end:
        if end.code == SIGNALED + signal.SIGINT:  # as typer ends for it
            return _interrupted()
        return end.code if isinstance(end.code, int) else 0 if end.code is None else SOME_FAILED
    return 0


def _interrupted() -> int:
    """The exit code of who got SIGINT: by a person, or by OpenBLAS, which interrupts its own process where it can start
    no thread."""
    if sys.argv[1:2] != [] and sys.argv[1] not in WATCHED and (scarce := lack_of_threads()) is not None:
        return _said(system_error(scarce, None))
    return SIGNALED + signal.SIGINT


def _said(error: UserError) -> int:
    """Print the lines of an error, and give the exit code for it."""
    print_problems(error.problems)
    return QUEUE_UNUSABLE if isinstance(error, SetupUnusable) else MISTAKE
