"""What of a job that has mistakes can be looked at all the same, so that all its mistakes are found at once."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from accel_trainer.config.cross_checks import CROSS_CHECKS
from accel_trainer.config.derived import JobParameters
from accel_trainer.config.migration.old_words import ARCHITECTURES, old_word_at
from accel_trainer.config.problems import BELONGS_INTO
from accel_trainer.core.errors import Problem
from accel_trainer.core.text import near_misses

# Whose defaults follow from another parameter: they are not known where that is not.
FOLLOWS_FROM = {
    "criterion": ("primary_metric", "knn_interval"),
    "optimizer": ("optimizer_args",),
    "scheduler": ("scheduler_args",),
    "video": ("view_dependence",),
    "finetune": ("finetune_args",),
}
# A name that stands for one that is missing or wrong, and what is right or wrong by the model alone.
PLACEHOLDER = "resnet18"
OF_THE_MODEL = frozenset({"architecture_args", "finetune", "finetune_args", "pretrained", "loss_cycle", "video"})


class Unknown(Exception):
    """A parameter of a job is wrong: what it was meant to be is not known."""


class _Partial(JobParameters):
    """A job of which some parameters are not known: whoever asks for one gets Unknown."""

    def forget(self, names: Iterable[str]) -> None:
        """These are not known."""
        for name in names:
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        """What is not among the values."""
        if name in JobParameters.model_fields:
            raise Unknown(name)
        raise AttributeError(name)


def unknown_parameters(given: Mapping[str, Any], problems: Collection[Problem]) -> frozenset[str]:
    """The parameters whose meaning is not known in a job with these problems: those that are wrong, those that an
    unknown key may be meant as, and those that follow from any of them."""
    unknown: set[str] = set()
    for key in (problem.key for problem in problems if problem.key is not None):
        head = key.partition(".")[0]
        if head in JobParameters.model_fields:
            unknown.add(head)
        else:
            unknown |= (
                {BELONGS_INTO[head]} if head in BELONGS_INTO else set(near_misses(head, JobParameters.model_fields))
            )
        if (word := old_word_at(key)) is not None:
            unknown |= {place.partition(".")[0] for place in word.places}
    unknown |= {name for one in unknown for name in FOLLOWS_FROM.get(one, ()) if given.get(name) is None}
    return frozenset(unknown)


def not_to_be_judged(given: Mapping[str, Any], problems: Collection[Problem]) -> frozenset[str]:
    """The parameters of which nothing can be found out in such a job: those that are not known, and with an unknown
    architecture what only its model could tell. An older name of an architecture is known."""
    unknown = unknown_parameters(given, problems)
    has_no_model = "architecture" not in given or ("architecture" in unknown and _todays_name(given) is None)
    return unknown | OF_THE_MODEL if has_no_model else unknown


def remaining(given: Mapping[str, Any], unknown: Collection[str]) -> dict[str, Any]:
    """The parameters of a job that are known; the architecture is always there."""
    rest = {key: value for key, value in given.items() if key in JobParameters.model_fields and key not in unknown}
    return {"architecture": _todays_name(given) or PLACEHOLDER, **rest}


def _todays_name(given: Mapping[str, Any]) -> str | None:
    """What an architecture is called that a job calls as older files did."""
    name = given.get("architecture")
    return ARCHITECTURES.get(name.lower()) if isinstance(name, str) else None


def further_contradictions(given: Mapping[str, Any], problems: Collection[Problem]) -> list[Problem]:
    """What contradicts itself in a job that has these problems, whatever the parameters that are wrong may be meant to
    be. given: completed with the defaults that follow from others."""
    unknown = unknown_parameters(given, problems)
    try:
        partial = _Partial(**remaining(given, unknown))
    except ValidationError:  # there is more to it than its problems say
        return []
    partial.forget(unknown)
    found: list[Problem] = []
    for check in CROSS_CHECKS:
        try:
            found += check(partial)
        except Unknown:
            continue
    return found
