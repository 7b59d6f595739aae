"""A job file at a glance: where it trains and what it waits for, without a look at all else that it says.

Checking a whole job takes as long as starting Python, for who only lists jobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeGuard

from accel_trainer.config.places import FINETUNE_DIR, KIND_KEY, base_path, folder_inside, parent_in
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_bytes
from accel_trainer.core.record_store import strict_json

# As of a job that is read to be trained.
MAX_BYTES = 256 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class JobGlance:
    """What of a job file decides where it is listed. run_path, after, parent_job and retries are as those of `Job`."""

    run_path: Path
    after: tuple[str, ...] = ()
    parent_job: str | None = None
    retries: int = 0
    evaluates: str | None = None
    """The run that it evaluates, as its file says it; then `run_path` counts from there. None: it trains."""
    architecture: str | None = None
    dataset: str | None = None
    num_epochs: int | None = None
    """Of one that trains, as its file says it; the last two are None where it does not."""


def glance(path: Path, name: str) -> JobGlance | None:
    """What a job file says of these; None where that cannot be read, or is nothing that a job can say."""
    try:
        given = strict_json(read_bytes(path, MAX_BYTES, follow_links=False).removeprefix(_BOM))
        return _of(given, name) if isinstance(given, dict) else None
    except (OSError, ValueError, UserError):
        return None


def _of(given: Mapping[str, Any], name: str) -> JobGlance | None:
    """Raises UserError for a home that there is not."""
    said = {key: value for key, value in given.items() if value is not None}
    if KIND_KEY in said:
        return _of_evaluation(said, name)
    architecture, model_dir, retries = said.get("architecture"), said.get("model_dir"), said.get("retries", 0)
    finetune, args, after = said.get("finetune", False), said.get("finetune_args") or {}, said.get("after", [])
    if not (_is_text(architecture) and (model_dir is None or _is_path(model_dir)) and isinstance(args, dict)):
        return None
    if type(finetune) is not bool or type(retries) is not int or not isinstance(after, list):
        return None
    folder, parent = args.get("finetune_dir") or FINETUNE_DIR, args.get("starting_params")
    if not (_is_path(folder) and (parent is None or _is_text(parent)) and all(map(_is_text, after))):
        return None
    run, parent_job = base_path(architecture, name, model_dir), None
    if finetune:
        run, parent_job = run / folder_inside(run, folder), parent_in(parent)
    dataset, num_epochs = said.get("dataset"), said.get("num_epochs")
    return JobGlance(
        run,
        tuple(after),
        parent_job,
        retries,
        architecture=architecture,
        dataset=dataset if isinstance(dataset, str) else None,
        num_epochs=num_epochs if type(num_epochs) is int and num_epochs > 0 else None,
    )


def _of_evaluation(given: Mapping[str, Any], name: str) -> JobGlance:
    """Raises UserError for what is no evaluation. What reads it is loaded where there is one."""
    from accel_trainer.config.evaluation_job import EvaluationJob

    job = EvaluationJob.parse(given, name)
    return JobGlance(job.run_path, tuple(job.after), job.parent_job, job.retries, job.evaluate)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isprintable()


def _is_path(value: object) -> TypeGuard[str]:
    return _is_text(value) and ".." not in PurePath(value).parts
