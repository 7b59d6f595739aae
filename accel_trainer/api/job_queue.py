"""A queue folder for scripts: put jobs into it, and see how far they are. `accel-train run-queue` trains them."""

import json
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from accel_trainer.api.checking import check_apart
from accel_trainer.api.evaluation_jobs import evaluation_job
from accel_trainer.api.queue_contents import AlreadyQueued, QueueContents, RunFolders
from accel_trainer.api.verdicts import in_whole_file
from accel_trainer.config import EvaluationJob, Job, QueueJob, job_name
from accel_trainer.config.base import standing_alone
from accel_trainer.config.doubts import doubts
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.config.known import ONLY_TO_DOUBT, Known
from accel_trainer.config.parse import parse_queue_job
from accel_trainer.core.allow_imports import imports_allowed
from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.files import expand_path
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.status_table import JobStatus, status_rows
from accel_trainer.queue.store import QueueStore


class Queue:
    """The jobs of a folder, which is made by the first `add`.

    options: of the launches that jobs are checked for; by default those of `accel-train run-queue`.
    """

    def __init__(self, folder: str | os.PathLike[str] = "training_queue", options: LaunchOptions | None = None) -> None:
        self.folder = expand_path(folder)
        self._store = QueueStore(self.folder)
        self._contents = QueueContents(self._store)
        self._options = options or LaunchOptions()

    def __repr__(self) -> str:
        return f"Queue({str(self.folder)!r})"

    def check(
        self, job: QueueJob | str | os.PathLike[str], *, allow: str | Iterable[str] = (), coming: Collection[str] = ()
    ) -> dict[str, Any]:
        """Check a job as `add` does, without adding it; what it comes to: parameters, classes, images, steps, and
        `warnings`: a line for each thing that can hardly be meant.

        Arguments and errors are those of `add`.
        """
        if isinstance(job, Job | EvaluationJob):
            return self._checked(job.name, job, allow, coming)
        path = expand_path(job)
        return in_whole_file(path, lambda found: self._checked(str(path), found, allow, coming))

    def _checked(
        self, where: str, job: QueueJob, allow: str | Iterable[str], coming: Collection[str]
    ) -> dict[str, Any]:
        try:
            with imports_allowed(allow):
                summary = check_apart(job, self.folder, self._options, coming)
        except SetupUnusable:
            raise
        except UserError as error:
            raise _in_file(where, error.problems) from error
        if isinstance(job, EvaluationJob):
            return {**summary, "warnings": []}
        known = Known.of(summary)
        shown = {key: value for key, value in summary.items() if key not in ONLY_TO_DOUBT}
        return {**shown, "warnings": [str(doubt) for doubt in doubts(job, known)]}

    def run_folders(self) -> RunFolders:
        """Which run folders the jobs have that are not over. Raises QueueUnusable."""
        return self._contents.run_folders()

    def add(
        self,
        job: QueueJob | str | os.PathLike[str],
        *,
        force: bool = False,
        allow: str | Iterable[str] = (),
        coming: Collection[str] = (),
        warn: Callable[[str], None] = lambda line: None,
    ) -> Path:
        """Check a job, down to its model and data set, and put it into the queue; its file there.

        job: one with a name of its own, `Job(name=...)`, or the path of a job file, of which a copy is put there.
        force: also one whose name, content or run folder is that of another in the queue. allow: packages of yours that
        the job's model may be imported from. coming: names of jobs that will be added and that it may start from.
        warn: called with a line for each thing that can hardly be meant.

        Raises UserError, with a line for each mistake; AlreadyQueued where the same job is there by this name.
        """
        if isinstance(job, Job | EvaluationJob):
            where, content = job.name, _content(job)
        else:
            path = expand_path(job)
            where, content = str(path), standing_alone(path)
        self._store.create()
        if isinstance(job, Job | EvaluationJob):
            summary = self._checked(where, job, allow, coming)
        else:
            job, summary = in_whole_file(
                path, lambda found: (found, self._checked(where, found, allow, coming)), content
            )
        if not force:
            self._refuse_what_is_there(where, job)
        for line in summary["warnings"]:
            warn(f"{where}: {line}")
        return self._store.add(job.name, content, replace=force)

    def _refuse_what_is_there(self, where: str, job: QueueJob) -> None:
        try:
            problems = self._contents.problems(job)
        except AlreadyQueued as error:
            raise error.at(where) from error
        if problems:
            raise _in_file(where, problems)

    def add_evaluation(
        self,
        run: str | os.PathLike[str],
        plan: EvaluationPlan | None = None,
        *,
        force: bool = False,
        allow: str | Iterable[str] = (),
    ) -> Path:
        """Put a job into the queue that evaluates a run, named after both; its file there.

        run: a run folder, whose weights are measured as soon as they are there; or the name of a job of the queue, for
        which this one waits. plan: what is measured, by default the run's validation. The rest is as in `add`.
        """
        self._store.create()
        return self.add(evaluation_job(run, plan or EvaluationPlan(), self._store), force=force, allow=allow)

    def jobs(self, most: int | None = None) -> list[JobStatus]:
        """Every job: those that run first, then pending, held, failed and done ones. Raises UserError.

        most: of so many that do not run, in each state, more is given than their names. All the others' files need not
        be read.
        """
        return list(status_rows(self._store, most))


def _in_file(where: str, problems: Iterable[str]) -> UserError:
    return UserError(*(f"{where}: {problem}" for problem in problems))


def _content(job: QueueJob) -> bytes:
    """The file of a job: what was given, without defaults. Raises UserError for a name that no file can have."""
    if job_name(Path(f"{job.name}.json")) != job.name:
        raise UserError(f"{job.name!r}: a job's name may not contain '/'")
    content = json.dumps(job.said(), indent=2).encode() + b"\n"
    parse_queue_job(content, job.name, where=job.name)  # a copy of a job may have been changed unchecked
    return content
