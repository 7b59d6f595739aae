"""What a launcher and its workers tell each other."""

from pathlib import Path

# Of a line in a log that says what is wrong.
ERROR_PREFIX = "error: "
# Words between the process that launches a trainer and the trainer itself.
TOKEN_VARIABLE = "ACCEL_TRAIN_TOKEN"
# In place of a trainer's words: they will be in the file that follows, as a JSON array.
PREWARM = "--stand-by"


def prewarm_cancelled(words: Path) -> Path:
    """The file that is there when a process of those which wait for these words has gone, told to stop."""
    return words.with_suffix(".stood-down")
