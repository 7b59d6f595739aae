"""What is to be known of a queue beside its jobs, as lines."""

from collections.abc import Sequence
from pathlib import Path

from accel_trainer.core.text import one_line
from accel_trainer.queue.control import Pauses
from accel_trainer.queue.store import QueueStore

# Of damaged records, so many are named.
FEW = 20


def notes_of(queue: QueueStore, damaged: Sequence[Path]) -> list[str]:
    """Files that are no jobs, pauses, and records that are damaged."""
    strays = [f"not a job: {one_line(path)}: {one_line(hint)}" for path, hint in queue.paths.strays().items()]
    records = [f"{one_line(path)} is damaged{_what_now(queue, path)}" for path in damaged[:FEW]]
    more = [f"and {len(damaged) - FEW} more records that are damaged"] if len(damaged) > FEW else []
    return [*strays, *map(str, Pauses(queue).all()), *records, *more]


def _what_now(queue: QueueStore, record: Path) -> str:
    if record.parent == queue.paths.moves:
        return ": a job that was being moved to another queue stays where it is until somebody has looked there"
    return " and counts as none; it can be removed"
