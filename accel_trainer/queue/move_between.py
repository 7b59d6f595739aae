"""Moves of jobs between queues.

On one file system the job is renamed to a name in the other queue's running/, and placed there. To another file system
it is copied, and at every moment the job is in one queue, whoever is killed when:

1. a record in moves/ of the first queue says where to, and a hidden copy is written in the other queue;
2. the job is taken, by a rename in the first queue;
3. the copy is renamed to a name in the other queue's running/: from now on the job is there;
4. the file that was taken is removed, and the record.

A look that finds a file that was taken, and its process dead, renames the copy, so that nobody else can, and returns
the job. Where there is no copy but the record, the job has arrived, and the file is removed.
"""

import errno
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from accel_trainer.core.files import MEBIBYTE, read_bytes, sync_folder
from accel_trainer.core.lease import is_dead_token
from accel_trainer.core.record_store import Passing, RecordStore
from accel_trainer.core.rename import is_refused, is_there, make_folder, remove_file, rename_unique, was_moved
from accel_trainer.queue.layout import ClaimedJob, QueuedJob, UndecidedMove, file_name, moving_owner
from accel_trainer.queue.moves import Mover, attributes, cannot_move, gone

MAX_JOB_BYTES = 16 * MEBIBYTE


def _hidden_copy(path: str) -> str:
    """What a record names is renamed and removed, and others may have written it: nothing but a copy is."""
    if not re.fullmatch(r"\..+\.json\.[0-9a-f]{4,32}\.moving", Path(path).name, re.DOTALL):
        raise ValueError("it is no copy of a job")
    return path


@dataclass(frozen=True)
class CopyRecord:
    """A job that is copied to another queue by the process with this token: where its copy is until it arrives."""

    token: str
    queue: str
    copy: Annotated[str, Passing(_hidden_copy)]

    @property
    def is_reachable(self) -> bool:
        """Whether the other queue is there: its disk may be mounted elsewhere only, or not answer."""
        with suppress(OSError):
            return Path(self.copy).parent == Path(self.queue) and (Path(self.queue) / "running").is_dir()
        return False

    @property
    def returned(self) -> Path:
        """The copy, when it is decided that the job is returned."""
        return Path(f"{self.copy}.returned")

    def return_copy(self) -> bool:
        """Keep the copy from arriving; False where it has arrived."""
        return is_there(self.returned) or rename_unique(Path(self.copy), self.returned)

    def remove_copy(self) -> None:
        """There is no more use for it."""
        for path in (Path(self.copy), self.returned):
            remove_file(path)


RECORDS = RecordStore(CopyRecord)


def move_between(mover: Mover, other: Mover, job: QueuedJob) -> Path:
    """Move a job to another queue, in the same state. Raises JobGone and QueueUnusable."""
    name = file_name(job.own_name)
    attributes(job)
    arriving = other.paths.claim(name, moving_owner(job.state))
    try:
        if not rename_unique(job.path, arriving):
            raise gone(job)
        mover.names.remove_others(arriving, job)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise cannot_move(job.path, arriving, error) from error
        try:
            _copy(mover, other, job, arriving)
        except OSError as failed:
            if not is_refused(job.path, arriving, failed):
                raise gone(job) from failed
            raise cannot_move(job.path, arriving, failed) from failed
    return other.place(arriving, name, job.state)


def _copy(mover: Mover, other: Mover, job: QueuedJob, arriving: Path) -> None:
    """Raises JobGone, QueueUnusable, and OSError: then the job is where it was."""
    name, before = file_name(job.own_name), attributes(job)
    number = secrets.token_hex(8)
    owner = moving_owner(job.state, number)
    taken = mover.paths.claim(name, owner)
    copy = other.paths.folder.resolve() / f".{name}.json.{number}.moving"
    record = CopyRecord(owner.token, str(copy.parent), str(copy))
    note = mover.paths.copy_record(number)
    try:
        make_folder(note.parent)
        RECORDS.write(note, record)
        _write_copy(job, copy, before)
        is_ours = rename_unique(job.path, taken)
    except BaseException:
        with suppress(OSError):
            remove_file(note)
            record.remove_copy()
        raise
    has_arrived = False
    try:
        if is_ours:
            mover.names.remove_others(taken, job)
            has_arrived = was_moved(before, taken) and rename_unique(copy, arriving)
    finally:
        if is_ours and not has_arrived:
            mover.place(taken, name, job.state)
        elif is_ours:
            remove_file(taken)
        remove_file(note)
        record.remove_copy()
    if not has_arrived:
        raise gone(job)


def _write_copy(job: QueuedJob, copy: Path, before: os.stat_result) -> None:
    """With the time of the job's file: it is the same submission."""
    with copy.open("xb") as file:
        file.write(read_bytes(job.path, MAX_JOB_BYTES, follow_links=False))
        file.flush()
        os.fsync(file.fileno())
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    sync_folder(copy.parent)


def settle(mover: Mover, job: ClaimedJob) -> Path | None:
    """Finish or undo a move whose process is dead; None where another process has done so.

    Raises QueueUnusable and UndecidedMove.
    """
    state, copy = job.destination, job.copy
    if state is None or copy is None or not is_there(note := mover.paths.copy_record(copy)):
        return mover.settle(job)
    record = RECORDS.read(note)
    if record is None:
        raise UndecidedMove(f"{job.name}: it was being moved to another queue, and the record {note} is damaged")
    if not (job.owner.is_of_this_machine and record.is_reachable):
        raise UndecidedMove(
            f"{job.name}: it was being moved to {record.queue}, which only {job.owner.host} reaches: reclaim it there"
        )
    taken = mover.paths.claim(job.name, moving_owner(state, copy))
    try:
        if not rename_unique(job.path, taken):
            return None
        # A record that is gone was removed with its copy, since nobody was seen to move this job.
        has_arrived = not record.return_copy() and is_there(note)
        if has_arrived:
            remove_file(taken)
    except OSError as error:
        raise cannot_move(job.path, taken, error) from error
    path = Path(record.queue) / f"{job.name}.json" if has_arrived else mover.place(taken, job.name, state)
    remove_file(note)
    record.remove_copy()
    return path


def forget_copies(mover: Mover) -> None:
    """Remove records and copies of processes that died before they had taken a job."""
    records = [(path, RECORDS.read(path)) for path in mover.paths.moves.glob("[!.]*.json")]
    left = [(path, record) for path, record in records if record is not None and is_dead_token(record.token)]
    if not left:
        return
    moving = {job.copy for job in mover.paths.claims()}
    for path, record in left:
        if path.stem not in moving and record.is_reachable:
            path.unlink(missing_ok=True)  # first: without the record, nobody takes a missing copy for one that arrived
            record.remove_copy()
