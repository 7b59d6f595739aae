"""What features and answers have in common on the disk: a state for each row, and how rows are written there."""

import os
from typing import Any

TODO, DONE, CORRUPT = range(3)
# What was computed since the files were last known to be on the disk is computed again after a kill.
FLUSH_EVERY_S = 5.0


def write_all(descriptor: int, content: Any, offset: int) -> None:
    """Write bytes at a place of a file. Raises OSError."""
    piece = memoryview(content)
    while piece:
        written = os.pwrite(descriptor, piece[: 2**30], offset)  # the system takes two gigabytes in one call
        piece, offset = piece[written:], offset + written
