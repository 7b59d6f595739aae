"""What a launcher and its workers tell each other."""

from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import pids_with_env
from accel_trainer.core.text import listed
from accel_trainer.run.folder import RunFolder

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
