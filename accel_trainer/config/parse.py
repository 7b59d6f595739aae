"""From a job file to a Job, or to one clear line for each mistake."""

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accel_trainer.config.base import standing_alone
from accel_trainer.config.evaluation_job import EvaluationJob
from accel_trainer.config.file_names import job_name
from accel_trainer.config.job import Job, mistakes_beside
from accel_trainer.config.job_text import JobText, read_text
from accel_trainer.config.migration.old_words import MIGRATE, MIGRATE_VERB
from accel_trainer.config.places import BASE_KEY, KIND_KEY
from accel_trainer.config.problems import few_problems
from accel_trainer.core.errors import InvalidJob, Problem

# Of whatever kind a job of the queue is.
QueueJob = Job | EvaluationJob


def read_job(path: Path, name: str | None = None) -> Job:
    """The job in a file, which trains, with what its base says. Raises InvalidJob with a problem for each mistake."""
    name = job_name(path) if name is None else name
    return parse_job(standing_alone(path), name, where=str(path))


def read_queue_job(path: Path, name: str | None = None) -> QueueJob:
    """As `read_job`, of whatever kind the job is."""
    name = job_name(path) if name is None else name
    return parse_queue_job(standing_alone(path), name, where=str(path))


def parse_job(content: bytes, name: str, where: str) -> Job:
    """The job in the bytes of a job file that stands alone.

    Raises InvalidJob with a problem for each mistake, with that `where`: slips of JSON first, in their order, and then
    what is wrong with the parameters as they were meant.
    """
    text = _alone(content, where)
    if text.given is not None and KIND_KEY in text.given:
        message = "evaluates a run; what trains is a job without it"
        raise InvalidJob(message, where=where, key=KIND_KEY, hint="`accel-train add` puts this file into a queue")
    return _training(text, name, where)


def parse_queue_job(content: bytes, name: str, where: str) -> QueueJob:
    """As `parse_job`, of whatever kind the job is: its key `evaluate` says that it is one of an evaluation."""
    text = _alone(content, where)
    if text.given is not None and KIND_KEY in text.given:
        return _evaluation(text, name, where)
    return _training(text, name, where)


def _alone(content: bytes, where: str) -> JobText:
    """What the bytes of a job file say. A base in them is a mistake: only a file's place tells which file that is."""
    text = read_text(content, where)
    if text.given is None or BASE_KEY not in text.given:
        return text
    message = "a job in the queue stands alone, whatever becomes of other files"
    problem = Problem(message, where, BASE_KEY, hint="`accel-train add` puts it there with what its base says")
    given = {key: value for key, value in text.given.items() if key != BASE_KEY}
    return JobText(given, (*text.problems, problem))


def _training(text: JobText, name: str, where: str) -> Job:
    problems = [*text.problems]
    if text.given is not None and "name" in text.given:
        problems.append(Problem("a job has the name of its file", where, "name", hint="remove this key"))
    if text.given is not None:
        try:
            job = Job(**{**text.given, "name": name})
            if not problems:
                return job
        except InvalidJob as error:
            found = mistakes_beside(text.given, text.problems) if text.problems else error.details
            problems += [naming_file(problem, where) for problem in found]
    raise InvalidJob(*few_problems(problems))


def _evaluation(text: JobText, name: str, where: str) -> EvaluationJob:
    problems = [*text.problems]
    try:
        found = EvaluationJob.parse(text.given or {}, name)
        if not problems:
            return found
    except InvalidJob as error:
        problems += [replace(problem, where=where) for problem in error.details]
    raise InvalidJob(*few_problems(problems))


def job_from(given: Mapping[str, Any], name: str) -> QueueJob:
    """The job of parameters by their names, of whatever kind. Raises InvalidJob with a problem for each mistake."""
    return EvaluationJob.parse(given, name) if KIND_KEY in given else Job(**given, name=name)


def rest_of_job(content: bytes, path: Path, problems: Collection[Problem]) -> tuple[Job, frozenset[str]] | None:
    """What is not wrong in a file of this content with these problems, as `Job.of_remaining` has it; None where nothing
    whole is left, and for one of an evaluation, whose mistakes are all found at once."""
    text = _alone(content, str(path))
    if text.given is None or KIND_KEY in text.given:
        return None
    return Job.of_remaining({**text.given, "name": job_name(path)}, problems)


def naming_file(problem: Problem, where: str) -> Problem:
    """A problem of a job as one of its file: hints that name a file name this one."""
    hint = None if problem.hint is None else problem.hint.replace(MIGRATE, f"{MIGRATE_VERB} {shlex.quote(where)}")
    return replace(problem, where=where, hint=hint)
