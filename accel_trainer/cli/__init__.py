"""The command line: each verb parses, calls and prints; exit codes."""

import os
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
        print_problems(error.problems)
        return QUEUE_UNUSABLE if isinstance(error, SetupUnusable) else MISTAKE
    except MachineFailure as error:
        print_problems(error.problems)
        return SOME_FAILED
    except OSError as error:
        print_problems(system_error(error, None).problems)
        return MISTAKE
    except KeyboardInterrupt:
        return SIGNALED + 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else SOME_FAILED
    return 0
