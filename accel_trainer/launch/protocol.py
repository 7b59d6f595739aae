"""What a launcher and its workers tell each other."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import is_dead_token
from accel_trainer.core.processes import pids_with_env, stop_request
from accel_trainer.core.text import listed
from accel_trainer.run.folder import RunFolder

# How often a prewarmed worker looks for its arguments, and whether its runner is alive.
ARGUMENTS_EVERY_S, RUNNER_EVERY_S = 0.02, 3.0

# Of a line in a log that says what is wrong.
ERROR_PREFIX = "error: "
# Words between the process that launches a trainer and the trainer itself.
TOKEN_VARIABLE = "ACCEL_TRAIN_TOKEN"
# In place of a trainer's words: they will be in the file that follows, as a JSON array.
PREWARM = "--stand-by"


def prewarm_cancelled(words: Path) -> Path:
    """The file that is there when a process of those which wait for these words has gone, told to stop."""
    return words.with_suffix(".stood-down")


def refuse_leftovers(run: RunFolder, token: str) -> None:
    """Raises UserError while processes run that an owner of a run folder, with this token, has started."""
    if left := pids_with_env(TOKEN_VARIABLE, token):
        raise UserError(
            f"model_dir: what a dead process has started is still ending in {run.path}: processes "
            f"{listed(map(str, left))}; try again when they are gone"
        )


def wait_for_arguments(file: Path, preload: Callable[[], object]) -> list[str] | None:
    """Preload, and wait for the arguments of a job in a JSON file; None after a signal to stop or the runner's end."""
    preload()
    token, looked_at = os.environ.get(TOKEN_VARIABLE, ""), -math.inf
    while not file.exists():
        # A runner that died before we could ask for a signal at its death has sent none.
        if time.monotonic() - looked_at > RUNNER_EVERY_S:
            looked_at = time.monotonic()
            if is_dead_token(token):
                return None
        if stop_request():
            # First this, then another look: either we see the arguments or the runner sees that we are gone.
            prewarm_cancelled(file).touch()
            if not file.exists():
                return None
        time.sleep(ARGUMENTS_EVERY_S)
    arguments: list[str] = json.loads(file.read_text())
    return arguments
