"""Which submission of a job a file is: the same for every machine, through whatever client of a network drive.

A file keeps its time and its content when it is moved, and clients show one time differently: sshfs in whole seconds,
some by another clock. So the first attempt at a submission notes how it is called and what was in the file, and gives
the note the time of the file. Both times are of one server: who looks later compares them with each other, as one
client shows them, and the content.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.files import MEBIBYTE, read_bytes, replacing
from accel_trainer.core.record_store import Line, RecordStore
from accel_trainer.core.rename import make_folder
from accel_trainer.queue.layout import QueuedJob, QueuePaths

# Two times are one where they differ by less: a client may show, and set, whole seconds.
SAME_TIME_NS = 10**9
MAX_JOB_BYTES = 16 * MEBIBYTE


@dataclass(frozen=True)
class SubmissionRecord:
    """How a submission is called, and a digest of its file."""

    submission: Line
    digest: Line


RECORDS = RecordStore(SubmissionRecord)


def submission_of(file: Path) -> str:
    """How a submission is called of which nothing is noted: by what this client shows of its file. Raises OSError."""
    about = on_disk(file.stat, file)
    return f"{about.st_mtime_ns}-{about.st_size}"


class Submissions:
    """Those of one queue, in `submissions/<name>.submission`. A note that is damaged counts as none."""

    def __init__(self, paths: QueuePaths) -> None:
        self._folder = paths.submissions

    def of(self, job: QueuedJob) -> str:
        """Distinguishes this submission of a job from the next: a file keeps it when it is moved. Raises OSError."""
        return self.noted(job) or submission_of(job.path)

    def note(self, job: QueuedJob) -> str:
        """The same, for all who look from now on. Raises OSError where the file cannot be read."""
        if (noted := self.noted(job)) is not None:
            return noted
        submission = submission_of(job.path)
        self.take_over(job, job.path, submission)
        return submission

    def take_over(self, job: QueuedJob, file: Path, submission: str) -> None:
        """Note of a job's file, wherever it is now, as which submission it has been known. Raises OSError where the
        file cannot be read; without a note it is known by what each client shows."""
        modified_ns, record = file.stat().st_mtime_ns, SubmissionRecord(submission, _digest(file))
        with suppress(OSError):  # the disk is full
            make_folder(self._folder)
            with replacing(self._path(job)) as aside:
                aside.write_bytes(RECORDS.encode(record))
                os.utime(aside, ns=(modified_ns, modified_ns))

    def is_of(self, job: QueuedJob, submission: str) -> bool:
        """Whether a submission of which something was kept is this one. Raises OSError."""
        return submission in (submission_of(job.path), self.noted(job))

    def forget(self, job: QueuedJob) -> None:
        """A job is done, or has left the queue."""
        with suppress(OSError):
            self._path(job).unlink(missing_ok=True)

    def noted(self, job: QueuedJob) -> str | None:
        """What `note` has noted of it. Raises OSError where the file cannot be read."""
        path = self._path(job)
        if (record := RECORDS.read(path)) is None:
            return None
        with suppress(FileNotFoundError):
            modified_ns = path.stat().st_mtime_ns
            is_same_time = abs(modified_ns - job.path.stat().st_mtime_ns) < SAME_TIME_NS
            if is_same_time and record.digest == _digest(job.path):
                return record.submission
        return None

    def _path(self, job: QueuedJob) -> Path:
        return self._folder / f"{job.own_name}.submission"


def _digest(file: Path) -> str:
    return hashlib.blake2b(read_bytes(file, MAX_JOB_BYTES), digest_size=16, person=b"accel-train").hexdigest()
