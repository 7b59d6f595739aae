"""Programs of others that are asked about this machine, none of which is waited for without end."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress

from accel_trainer.core.child_environment import tool_environment


def tool_output(command: Sequence[str], limit_s: float) -> str:
    """What a program prints that is asked about this machine. Raises OSError with one line where it fails, and
    TimeoutError where it has not ended in time.

    One that hangs in the system cannot be killed: it is left behind, with all that it has started told to end.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=tool_environment(),
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        _leave(process)
        raise TimeoutError(f"no answer within {limit_s:g} s") from error
    except BaseException:
        _leave(process)
        raise
    if process.returncode:
        lines = (output + errors).strip().splitlines()
        raise OSError(lines[0] if lines else f"exit code {process.returncode}")
    return output


def _leave(process: "subprocess.Popen[str]") -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    threading.Thread(target=process.wait, daemon=True).start()
