"""A job: all parameters of one training run, complete and consistent."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import PrivateAttr, ValidationError, model_validator

from accel_trainer.config.cross_checks import Contradiction, cross_check
from accel_trainer.config.derived import ARGUMENTS_OF, MARKS, JobParameters, default_args, with_default_optimizer_args
from accel_trainer.config.diff import UNREPORTED, is_harmless, moves_apart
from accel_trainer.config.fields import LR_RULES
from accel_trainer.config.marks import sections_in
from accel_trainer.config.parameters import CONTRASTIVE, FinetuneParameters, Positive
from accel_trainer.config.problems import MAX_PROBLEMS, few_problems, first_problems, is_contradiction, problems_of
from accel_trainer.config.rules import changes_for, old_defaults
from accel_trainer.config.salvage import further_contradictions, not_to_be_judged, remaining, unknown_parameters
from accel_trainer.core.errors import InvalidJob, Problem, UserError

# How often what is wrong is taken out of a job, each time with what contradicts the rest.
MOST_PASSES = 4


class Job(JobParameters):
    """One job file, completed. `name` is that of the file, without `.json`."""

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, /, **given: Any) -> None:
        """given: parameters by their names. Raises InvalidJob with a problem for each mistake."""
        try:
            super().__init__(**given)
        except ValidationError as error:
            problems = first_problems(problems_of(error))
            details = error.errors(include_url=False)
            if len(problems) <= MAX_PROBLEMS and not any(map(is_contradiction, details)):
                problems += further_contradictions(_with_defaults(given), problems)
            raise InvalidJob(*few_problems(problems)) from error
        self._given = given

    @classmethod
    def of_remaining(
        cls, given: Mapping[str, Any], problems: Collection[Problem]
    ) -> tuple[Self, frozenset[str]] | None:
        """A job of what is not wrong in one with these problems, to find out what is wrong there, and the parameters
        of which that cannot be found; they have their defaults. None where nothing whole is left."""
        for _ in range(MOST_PASSES):
            unknown = not_to_be_judged(given, problems)
            try:
                return cls(**remaining(given, unknown)), unknown
            except InvalidJob as error:
                problems = [*problems, *error.details]
        return None

    def says(self, key: str) -> bool:
        """Whether the job was given a value for a parameter, be it the default."""
        return self._given.get(key) is not None

    @property
    def given(self) -> dict[str, Any]:
        """What its file said."""
        return self._given

    def __eq__(self, other: object) -> bool:
        """Whether all parameters are the same, however they were given."""
        return isinstance(other, type(self)) and dict(self) == dict(other)

    def under(self, rules: int) -> Self:
        """The same job by other rules: what its file leaves open has the defaults of these. Raises InvalidJob where
        they do not allow what it says."""
        if rules == self.rules:
            return self
        by_own, by_others = (Job(**{**self._given, "rules": version}) for version in (self.rules, rules))
        changed = {
            key: value
            for key, value in by_others
            if value != getattr(by_own, key) and getattr(self, key) == getattr(by_own, key)
        }
        return self.model_copy(update={**changed, "rules": rules})

    def starting_from(self, path: Path) -> Self:
        """The same job with a path as its starting_params, in place of the name of another job."""
        text = str(path) if "/" in str(path) else f"./{path}"  # without a slash it would be the name of a job again
        args = self.finetune_args or FinetuneParameters()
        return self.model_copy(update={"finetune_args": args.model_copy(update={"starting_params": text})})

    @property
    def lr_rule(self) -> str | None:
        """The rule or search that gives the learning rate, such as `batch_linear`; None where that is a number."""
        lr = self.optimizer_args.get("lr")
        return lr if isinstance(lr, str) else None

    @property
    def is_resolved(self) -> bool:
        """Whether the batch size and the learning rate are numbers."""
        return self.batch_size != "auto" and self.lr_rule is None

    def with_found(self, found: Mapping[str, Any]) -> Self:
        """The same job with the numbers that were found: {"auto": batch size, rule of the learning rate: number}. What
        is not among them stays as it is."""
        changes: dict[str, Any] = {}
        if self.batch_size in found:
            changes["batch_size"] = found[str(self.batch_size)]
        if self.lr_rule in found:
            changes["optimizer_args"] = {**self.optimizer_args, "lr": found[str(self.lr_rule)]}
        return self.model_copy(update=changes)

    def resolve(self, found: Mapping[str, Any] = MappingProxyType({})) -> "ResolvedJob":
        """The same job with all its numbers, of which those in `found` were looked for: {"auto": batch size, rule of
        the learning rate: number}. Raises UserError for a number that is not known."""
        job = self.with_found(found)
        if job.batch_size == "auto":
            raise UserError("'auto' is not resolved yet", key="batch_size")
        if job.lr_rule is not None:
            raise UserError(f"{job.lr_rule!r} is not resolved yet", key="optimizer_args.lr")
        resolved = ResolvedJob.model_construct(self.model_fields_set, **dict(job))
        resolved._given = self._given
        return resolved

    def with_placeholders(self, batch_size: int) -> "ResolvedJob":
        """The same job with some numbers where others are to be found, to look at what does not depend on them."""
        return self.resolve({"auto": batch_size, **dict.fromkeys(LR_RULES, 1e-3)})

    def said(self) -> dict[str, Any]:
        """Of these what was given; a job file of the same job."""
        return self.model_dump(mode="json", exclude_unset=True)

    def completed(self) -> dict[str, Any]:
        """Every parameter with its value, as JSON has it; a job file of the same job."""
        # By the serializer of Job, which validation has made: that of ResolvedJob would be made for this alone.
        return {**Job.__pydantic_serializer__.to_python(self, mode="json"), "model_dir": str(self.base_path)}

    def diff(
        self, config: Mapping[str, Any], found: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, tuple[Any, Any]]:
        """What is otherwise than in the run with that config.json, but for what needs no report:
        {key: (then, now)}.

        found: the numbers in there that stand for words of the run's job file, {word: number}. A job that says such a
        word, or the number, is the same; one that says another word is not.
        """
        now = self.with_found(found).completed()
        # A run of a version that did not know a parameter had its default.
        then = {**Job(architecture=self.architecture).completed(), **config}
        is_known = type(then["rules"]) is int
        if is_known:
            then = old_defaults(then, then["rules"])
        then = {key: _filled(key, value) for key, value in then.items()}
        # By other rules that mean the same for this job it is the same.
        alike = {"rules"} if is_known and not changes_for(self, then["rules"], self.rules) else set()
        changes = {
            key: (then.get(key), now.get(key))
            for key in sorted((now.keys() | then.keys()) - alike)
            if key not in UNREPORTED and then.get(key) != now.get(key)
        }
        return dict(moves_apart(changes))

    def incompatible_diff(
        self, config: Mapping[str, Any], found: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, tuple[Any, Any]]:
        """Of these changes those that make this job another run than the one with that config.json."""
        return {key: both for key, both in self.diff(config, found).items() if not is_harmless(key)}

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        return _with_defaults(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Cross-checks that need no torch. Raises Contradiction."""
        if problems := cross_check(self):
            raise Contradiction(problems)
        return self


def mistakes_beside(given: Mapping[str, Any], known: Collection[Problem]) -> list[Problem]:
    """What is wrong with the parameters of a job beside what is known to be: nothing that follows from that."""
    try:
        Job(**given)
    except InvalidJob as error:
        found: list[Problem] = []
        match error.__cause__:
            case ValidationError() as cause if not any(map(is_contradiction, cause.errors(include_url=False))):
                unknown = unknown_parameters(given, known)
                found = first_problems(problem for problem in problems_of(cause) if not _is_of(unknown, problem))
        if len(found) > MAX_PROBLEMS:
            return found
        return [*found, *further_contradictions(_with_defaults(given), [*known, *found])]
    return []


def _is_of(parameters: Collection[str], problem: Problem) -> bool:
    return problem.key is not None and problem.key.partition(".")[0] in parameters


def _with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """null means absent; some defaults follow from other parameters."""
    given = {key: value for key, value in given.items() if value is not None}
    if type(rules := given.get("rules")) is int:
        given = old_defaults(given, rules)
    if given.get("video") is True:
        given.setdefault("view_dependence", True)
    if not given.get("finetune") and given.get("finetune_args") == {}:
        del given["finetune_args"]
    for key in ARGUMENTS_OF:
        given.setdefault(key, default_args(key, given))
    given = with_default_optimizer_args(given)
    if given.get("criterion") in CONTRASTIVE:
        given.setdefault("primary_metric", given["criterion"])
        given.setdefault("knn_interval", 10)
    return given


def _filled(key: str, value: Any) -> Any:
    """A value of a config.json with the defaults of what it does not say in a nested object."""
    if key in JobParameters.model_fields and isinstance(value, Mapping):
        for section in sections_in(JobParameters.model_fields[key].annotation):
            value = {**section.model_construct().model_dump(mode="json"), **value}
    return value


class ResolvedJob(Job):
    """A job whose numbers are all known: the batch size, and the learning rate where `optimizer_args` has one. Only
    such a job can be trained. Made by `Job.resolve`."""

    batch_size: Annotated[Positive, MARKS["batch_size"]] = 256
