"""Checks of a job before it is trained."""

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from accel_trainer.config import EvaluationJob, Job, QueueJob
from accel_trainer.config.base import standing_alone
from accel_trainer.config.derived import keys
from accel_trainer.config.file_names import job_name
from accel_trainer.config.parse import parse_queue_job, rest_of_job
from accel_trainer.core.allow_imports import current_folder_searched
from accel_trainer.core.errors import InvalidJob, Problem, UserError
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.core.text import canonical
from accel_trainer.launch.accelerate_config import MachineUnusable, TooFewGpus, UnusableHere
from accel_trainer.launch.command import LaunchOptions, num_processes_wanted, plan_launch
from accel_trainer.launch.machine import this_machine
from accel_trainer.queue.dependencies import find_evaluated, with_parent_path
from accel_trainer.queue.layout import QueuedJob
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder

T = TypeVar("T")
Check = Callable[[Job], dict[str, Any]]
# What may be anything; of model_dir only where it is.
UNCHECKED = keys(lambda mark: not mark.is_checked)


def make_check(flags: LaunchOptions, on_images: Callable[[], None] = lambda: None) -> Check:
    """What looks at whole jobs. It needs torch, which takes seconds to import: not before the first job that is
    worth a look. on_images: called when a job's data set is known, and its model is looked at."""
    checkers: list[Callable[[Job, int], Any]] = []

    def check(job: Job) -> dict[str, Any]:
        mistakes = Mistakes()
        num_processes, on_cpu = mistakes.of(lambda: _launch(job, flags)) or (1, None)
        if not checkers:
            from accel_trainer.training.check import JobChecker

            checkers.append(JobChecker(on_images))
        with current_folder_searched():
            summary = mistakes.of(lambda: asdict(checkers[0](job, num_processes)))
        mistakes.raise_found()
        return {**summary, "on_cpu": on_cpu} if summary else {}

    return check


def optimization_lines(job: Job) -> list[str]:
    """The optimizer of a job with all its settings, and its schedule with the rates, in a line each. Raises UserError.
    It needs torch, and no model or data set."""
    from accel_trainer.training.check import optimization_lines as lines

    return lines(job)


def _launch(job: Job, flags: LaunchOptions) -> tuple[int, bool | None]:
    """On how many processes a job is trained, and whether on the CPU, where that is known.

    That the user's default on this machine cannot be used, or that GPUs are lacking, is no mistake of the job, which
    may be for another machine."""
    try:
        launch = plan_launch(job, flags, this_machine(cpu=flags.cpu))
        return launch.num_processes, launch.is_on_cpu
    except (TooFewGpus, UnusableHere):
        return _num_processes_elsewhere(job, flags), None


def _num_processes_elsewhere(job: Job, flags: LaunchOptions) -> int:
    with suppress(MachineUnusable):
        if (wanted := num_processes_wanted(job, flags)) is not None:
            return wanted
    return job.num_processes or max(1, len(flags.gpus or this_machine(cpu=flags.cpu).together))


def check_job(job: Job, check: Check, queue: QueueStore, coming: Collection[str] = ()) -> dict[str, Any]:
    """The summary of a good job. Raises UserError, with a line for each mistake.

    A job may start from one that is in the queue, or whose name is among those that are coming.
    """
    mistakes = Mistakes()
    mistakes.of(lambda: queue.paths.refuse_run_folder(job.run_path))
    whole = mistakes.of(lambda: with_parent_path(job, queue, coming)) or job
    try:
        summary = mistakes.of(lambda: check(whole))
        if job.degradations:
            mistakes.of(lambda: _check_degradations(job))
    except OSError as error:  # such as a folder of the data set that may not be read
        problem = Problem(f"{error.filename or job.dataset}: {error.strerror or error}")
        raise UserError(*mistakes.found, problem) from error
    mistakes.raise_found()
    return summary or {}


def _check_degradations(job: Job) -> None:
    from accel_trainer.evaluation.check import check_plan
    from accel_trainer.training.degraded import plan_of

    try:
        check_plan(plan_of(job), None)
    except UserError as error:
        raise UserError(*(replace(one, option=None, key=one.key or "degradations") for one in error.details)) from error


def check_evaluation(job: EvaluationJob, queue: QueueStore, coming: Collection[str] = ()) -> dict[str, Any]:
    """The summary of a job that evaluates: what it measures, as far as that is there. Raises UserError, with a line for
    each mistake. It needs torch."""
    from accel_trainer.evaluation.check import check_plan

    mistakes = Mistakes()
    found = mistakes.of(lambda: find_evaluated(job, queue, coming))
    run = found if isinstance(found, Path) else None
    if run is not None:
        mistakes.of(lambda: queue.paths.refuse_run_folder(job.of_run(run).run_path))
    with current_folder_searched():
        summary = mistakes.of(lambda: check_plan(job.plan, None if run is None else RunFolder(run)))
    mistakes.raise_found()
    waits_for = found.own_name if isinstance(found, QueuedJob) else job.parent_job if run is None else None
    return {"evaluates": str(run or job.evaluate), "waits_for": waits_for, **(summary or {})}


def in_whole_file(path: Path, look: Callable[[QueueJob], T], content: bytes | None = None) -> T:
    """What a function gives of the job in a file. content: of the file, where that is known.

    Raises UserError with all mistakes, those of the file and those that the function finds: where the file has some, in
    what is not wrong in itself. Lines of the function may begin with the file's name.
    """
    name = job_name(path)
    content = standing_alone(path) if content is None else content
    try:
        job = parse_queue_job(content, name, where=str(path))
    except InvalidJob as error:
        if (rest := rest_of_job(content, path, error.details)) is None:
            raise
        remaining, unknown = rest
        try:
            look(remaining)
        except UserError as further:
            prefix = f"{path}: "
            lines = [line.removeprefix(prefix) for line in further.problems]
            more = [f"{prefix}{line}" for line in lines if not is_of(unknown, line)]
            raise UserError(*dict.fromkeys([*error.problems, *more])) from error
        raise
    try:
        return look(job)
    except UserError as error:
        if not isinstance(job, EvaluationJob):
            raise
        raise UserError(*map(_of_a_key, error.details)) from error


def _of_a_key(problem: Problem) -> Problem:
    """A mistake of an option as one of the key of a job file that says the same."""
    if problem.option is None:
        return problem
    key = "degradations" if problem.option in ("degrade", "levels") else problem.option
    return replace(problem, option=None, key=key)


def is_of(parameters: Collection[str], line: str) -> bool:
    """Whether a line about a job is about one of these parameters."""
    return re.split(r"[.:]", line, maxsplit=1)[0] in parameters


def checked_alike(job: Job) -> str:
    """The same text for jobs of which one verdict is enough: they differ in nothing that a check looks at."""
    where = [part for part in job.run_path.parts if part != job.name]
    return canonical([_checked(job.completed()), where])


def _checked(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What a check looks at, of a job or of one of its objects."""
    return {
        key: _checked(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in UNCHECKED
    }
