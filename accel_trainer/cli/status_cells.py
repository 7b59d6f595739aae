"""A job of a queue as cells of a table."""

from accel_trainer.cli.app import count_of
from accel_trainer.core.text import duration
from accel_trainer.queue.status_table import JobStatus

COLUMNS = ("job", "state", "epoch", "best", "where", "elapsed", "left", "note")


def row_texts(row: JobStatus) -> tuple[str | None, ...]:
    """Its COLUMNS, for people; None for what is not known."""
    epoch = None if row.epoch is None else f"{row.epoch}/{row.num_epochs}"
    if row.num_images:
        epoch = f"{row.images:,}/{row.num_images:,} images"
    best = None if row.best is None else f"{row.best:.4g} {row.metric or ''}".strip()
    gpus = f" gpu {','.join(row.devices)}" if row.devices else ""
    where = None if row.host is None else f"{row.host}{gpus}"
    corrupt = count_of(row.corrupt_images, "corrupt image") if row.corrupt_images else None
    note = "; ".join(filter(None, (row.note, corrupt))) or None
    times = [None if seconds is None else duration(seconds) for seconds in (row.elapsed_s, row.left_s)]
    return (row.job, row.state, epoch, best, where, *times, note)
