"""What a launch of ours tells the processes that it starts, by variables, and whether this is one of them.

Such variables may be left over in a shell, as in one that a training has begun. They count only where the token among
them is of a launch that is alive, and where those of others were removed (`core.child_environment`).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from accel_trainer.core.lease import is_dead_token

# The token of the lock that the launch holds for the processes that it starts.
TOKEN_VARIABLE = "ACCEL_TRAIN_TOKEN"
# How many processes a launcher has started for the job. It is set in each of them, and nowhere else.
PROCESSES_VARIABLE = "ACCEL_TRAIN_PROCESSES"
# Set where each of these processes is to train on a GPU of its own: none then trains on the CPU.
GPU_VARIABLE = "ACCEL_TRAIN_ON_GPU"
# How many cores a job may take that is not alone on its machine.
CORES_VARIABLE = "ACCEL_TRAIN_CORES"
# What NVIDIA's driver has answered to a process that starts others, which then do not ask it.
DRIVER_VARIABLE = "ACCEL_TRAIN_DRIVER"
# Names of what was set aside for a process, for its log and its record.
SET_ASIDE_VARIABLE = "ACCEL_TRAIN_SET_ASIDE"

_is_gone_through = False


def is_launched(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a launch of ours that is alive has made this environment, by default this process's own."""
    if environment is None or environment is os.environ:
        if _is_gone_through:
            return True
        environment = os.environ
    token = environment.get(TOKEN_VARIABLE, "")
    return bool(token) and not is_dead_token(token)


def told(name: str) -> str:
    """What the launch says by a variable; empty where nothing of ours has launched this process."""
    return os.environ.get(name, "") if is_launched() else ""


@contextmanager
def gone_through() -> Iterator[None]:
    """In this context the variables of a launch in this process's environment are its own."""
    global _is_gone_through
    before = _is_gone_through
    _is_gone_through = True
    try:
        yield
    finally:
        _is_gone_through = before


def keep_gone_through() -> None:
    """The same, from now on."""
    global _is_gone_through
    _is_gone_through = True
