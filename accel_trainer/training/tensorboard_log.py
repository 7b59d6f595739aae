"""What earlier attempts at a run have left in TensorBoard's files."""

from contextlib import suppress
from pathlib import Path

EVENT_FILES = "events.out.tfevents*"


def logged_values(folder: Path) -> set[tuple[str, int]]:
    """The names of values and the steps that they were logged at, in the event files of a folder. Of files that cannot
    be read, as without tensorboard, nothing is known."""
    found = set[tuple[str, int]]()
    if not any(folder.glob(EVENT_FILES)):
        return found
    with suppress(Exception):  # of files that are cut off, in every way there is
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

        events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}, purge_orphaned_data=False).Reload()
        for name in events.Tags()[SCALARS]:
            found |= {(name, event.step) for event in events.Scalars(name)}
    return found
