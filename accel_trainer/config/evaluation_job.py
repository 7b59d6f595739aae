"""A job of the queue that evaluates a trained run: its file, and what follows from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from accel_trainer.config.cross_checks import after_problems
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.config.marks import PathKind
from accel_trainer.config.parameters import QueueParameters
from accel_trainer.config.path_checks import path_problem
from accel_trainer.config.places import KIND_KEY, evaluation_path, parent_in
from accel_trainer.config.problems import few_problems, problems_of
from accel_trainer.core.errors import InvalidJob, Problem

PATHS = {
    "evaluate": PathKind.PATH,
    "dataset": PathKind.DATASET,
    "data_root": PathKind.PATH,
    "degraded_set": PathKind.PATH,
    "occluder_dir": PathKind.PATH,
    "accelerate_config": PathKind.CONFIG,
}


class EvaluationParameters(QueueParameters, EvaluationPlan):
    """Evaluation of a trained run, as a job of its own"""

    evaluate: Annotated[str, Field(min_length=1)]
    """The run: a run folder, whose weights are measured as soon as they are there; or the name of a job of the queue,
    for which this one waits."""


class EvaluationJob(QueueParameters):
    """A job file with the key `evaluate`. name: that of the file, without `.json`."""

    name: str
    evaluate: str
    plan: EvaluationPlan

    @classmethod
    def parse(cls, given: Mapping[str, Any], name: str) -> Self:
        """The job of what a job file says; null is absent. Raises InvalidJob with a problem for each mistake."""
        said = {key: value for key, value in given.items() if value is not None}
        foreign = _training_keys(said)
        problems = [Problem("is of jobs that train; this one evaluates a run", key=key) for key in sorted(foreign)]
        try:
            found = EvaluationParameters.model_validate(
                {key: value for key, value in said.items() if key not in foreign}
            )
        except ValidationError as error:
            raise InvalidJob(*few_problems([*problems, *problems_of(error, EvaluationParameters)])) from error
        problems += [*_path_problems(found), *after_problems(found.after, name)]
        if problems:
            raise InvalidJob(*few_problems(problems))
        plan = EvaluationPlan.model_validate({key: said[key] for key in EvaluationPlan.model_fields if key in said})
        queued = {key: getattr(found, key) for key in QueueParameters.model_fields}
        return cls(name=name, evaluate=found.evaluate, plan=plan, **queued)

    @property
    def parent_job(self) -> str | None:
        """The job of the queue that an `evaluate` names which may be no path."""
        return parent_in(self.evaluate)

    @property
    def run_path(self) -> Path:
        """The folder that is written, inside the evaluated run: `evaluate` is taken for the path of that."""
        return evaluation_path(self.evaluate, self.plan.folder_name)

    @property
    def base_path(self) -> Path:
        """As with a job that trains: what follows from its name, of which nothing does here."""
        return self.run_path

    def of_run(self, path: Path) -> Self:
        """The same job with the path of the run in place of a job's name."""
        return self.model_copy(update={"evaluate": str(path)})

    def completed(self) -> dict[str, Any]:
        """Every parameter with its value, as JSON has it; a job file of the same job."""
        queued = self.model_dump(mode="json", exclude={"name", "plan", KIND_KEY})
        return {KIND_KEY: self.evaluate, **self.plan.model_dump(mode="json"), **queued}

    def said(self) -> dict[str, Any]:
        """The same without what is so by default."""
        queued = self.model_dump(mode="json", exclude={"name", "plan", KIND_KEY}, exclude_defaults=True)
        return {KIND_KEY: self.evaluate, **self.plan.model_dump(mode="json", exclude_defaults=True), **queued}


def _training_keys(given: Mapping[str, Any]) -> set[str]:
    from accel_trainer.config.derived import JobParameters

    return (given.keys() & JobParameters.model_fields.keys()) - EvaluationParameters.model_fields.keys()


def _path_problems(found: EvaluationParameters) -> list[Problem]:
    paths = {key: getattr(found, key) for key in PATHS}
    checked = (path_problem(key, path, PATHS[key]) for key, path in paths.items() if path is not None)
    return [problem for problem in checked if problem is not None]
