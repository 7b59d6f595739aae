"""Jobs that evaluate runs: what they are called, and what their `evaluate` says."""

import os
from collections.abc import Iterator
from pathlib import Path

from accel_trainer.config import EvaluationJob
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.config.file_names import MAX_NAME_BYTES
from accel_trainer.config.glance import glance
from accel_trainer.config.places import evaluation_path
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore


def evaluation_job(run: str | os.PathLike[str], plan: EvaluationPlan, queue: QueueStore) -> EvaluationJob:
    """A job that evaluates a run by a plan, named after both. run: a run folder, or the name of a job of the queue.
    Raises UserError."""
    evaluate = _evaluate(os.fspath(run), queue)
    given = {"evaluate": evaluate, **plan.model_dump(mode="json", exclude_defaults=True)}
    writes = evaluation_path(evaluate, plan.folder_name)
    name = next(name for name in _names(evaluate, plan.folder_name) if _is_free(name, writes, queue))
    return EvaluationJob.parse(given, name)


def _evaluate(run: str, queue: QueueStore) -> str:
    """What a job file says of a run that was named on a command line."""
    is_word = "/" not in run and not run.startswith("~")
    if is_word and (trainer := queue.find(run)) is not None:
        job = glance(trainer.path, run) if trainer.state is JobState.DONE else None
        return run if job is None or job.evaluates is not None else str(job.run_path)
    path = os.path.normpath(run)
    if ".." in Path(path).parts:
        return os.path.abspath(path)  # noqa: PTH100 - links stay
    return f"./{path}" if is_word and Path(path).exists() else path


def _names(evaluate: str, folder_name: str) -> Iterator[str]:
    """Names for the job, the shortest first: of the run's folder, then of those above it too; then with a number."""
    parts = [part for part in Path(evaluate).parts if part not in ("/", ".", "~")]
    ending = f"-{folder_name}"
    longest = MAX_NAME_BYTES - len(os.fsencode(ending)) - 4
    for number in range(1, len(parts) + 1):
        stem = "-".join(parts[-number:]).lstrip(".-")
        if len(os.fsencode(stem)) <= longest:
            yield f"{stem}{ending}"
    stem = os.fsencode(parts[-1].lstrip(".-"))[:longest].decode(errors="ignore")
    yield from (f"{stem}{ending}-{number}" for number in range(1, 1000))


def _is_free(name: str, writes: Path, queue: QueueStore) -> bool:
    """Whether no other job has a name; one that writes the same evaluation is the same, as is then said."""
    if (found := queue.find(name)) is None:
        return True
    job = glance(found.path, name)
    return job is not None and job.evaluates is not None and os.path.realpath(job.run_path) == os.path.realpath(writes)
