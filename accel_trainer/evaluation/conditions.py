"""The conditions of an evaluation: what a plan names, looked up, and which of them show the same pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from accel_trainer.config.dataset_names import last_part
from accel_trainer.config.degradations import DegradationChoice
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.degradations.degradation import NONE, Condition, Degradation, level_text
from accel_trainer.degradations.registry import Resources, find_degradations
from accel_trainer.degradations.stored_names import IMAGENET_C, OCCLUSION
from accel_trainer.degradations.stored_sets import open_stored

BENCHMARK, DEGRADATION, LEVEL = "benchmark", "degradation", "level"
# Columns of quantities by which figures are looked up, by what a degradation calls its levels. `corruption` is the name
# that published tables know a corruption by.
QUANTITIES = {"visibility": "visibility", "signal / (signal + noise)": "ssnr", "severity": "severity"}
SEVERITY, CORRUPTION = "severity", "corruption"
# The images themselves by each quantity.
UNDEGRADED = {"visibility": "1", "ssnr": "1", SEVERITY: "0"}
NOISE = "noise"


@dataclass(frozen=True)
class Shown:
    """A condition as the table of trials has it. columns: its level by the name of each condition; pixels: the place of
    what is shown among `Conditions.distinct`."""

    columns: Mapping[str, str]
    pixels: int

    @property
    def name(self) -> str:
        """Such as imagenet-c/fog/3."""
        return f"{self.columns[DEGRADATION]}/{self.columns[LEVEL]}" if DEGRADATION in self.columns else "validation"


@dataclass(frozen=True)
class Conditions:
    """All conditions, in their order. distinct: each way to show an image once; None: the image itself, which the
    neutral levels of all degradations share. stored: of a set on disk, in place of the data set's images, those of
    each."""

    shown: Sequence[Shown]
    distinct: Sequence[Condition | None]
    stored: Sequence[ImageDataset] = ()


@dataclass
class _Collecting:
    shown: dict[str, Shown] = field(default_factory=dict)
    distinct: dict[str, Condition | None] = field(default_factory=dict)

    def add(self, condition: Condition, columns: Mapping[str, str]) -> None:
        key = "" if condition.is_neutral else condition.name
        if key not in self.distinct:
            self.distinct[key] = None if condition.is_neutral else condition
        self.shown.setdefault(condition.name, Shown(columns, list(self.distinct).index(key)))


def conditions_of(plan: EvaluationPlan, dataset: str, classes: Sequence[str] | None = None) -> Conditions:
    """The conditions of a plan; without degradations the images of `dataset` as they are. classes: those that images of
    a set on disk are labeled as; None: its own. Raises UserError with a line for each name and each level that there is
    not."""
    if plan.degraded_set is not None:
        return _stored(Path(plan.degraded_set), classes)
    if not plan.degradations:
        return Conditions([Shown({BENCHMARK: last_part(dataset)}, 0)], [None])
    mistakes = Mistakes()
    resources = Resources() if plan.occluder_dir is None else Resources(occluder_dir=Path(plan.occluder_dir))
    chosen = list[Condition]()
    for choice in plan.degradations:
        for degradation in mistakes.of(partial(_degradations, choice, resources)) or []:
            chosen += mistakes.of(partial(_at_levels, degradation, choice)) or []
    mistakes.raise_found()
    names = list(dict.fromkeys(_quantity(one.degradation) for one in chosen))
    quantities = [name for name in QUANTITIES.values() if name in names]
    if SEVERITY in quantities:
        quantities = [CORRUPTION, *quantities]
    collecting = _Collecting()
    for condition in chosen:
        collecting.add(condition, _columns(condition, quantities))
    return Conditions(list(collecting.shown.values()), list(collecting.distinct.values()))


def _stored(folder: Path, classes: Sequence[str] | None) -> Conditions:
    """Those of a set on disk, with the columns that the same have which are made here."""
    try:
        found = open_stored(folder, classes)
    except UserError as error:
        raise UserError(*(one if one.where else replace(one, where=folder) for one in error.details)) from error
    quantities = {one.name: _quantity_of_stored(one.columns[DEGRADATION]) for one in found}
    wanted = [name for name in QUANTITIES.values() if name in quantities.values()]
    if SEVERITY in wanted:
        wanted = [CORRUPTION, *wanted]
    shown = []
    for place, one in enumerate(found):
        group, _, own = one.columns[DEGRADATION].partition("/")
        columns = {BENCHMARK: group, **one.columns}
        for name in wanted:
            is_its = quantities[one.name] == (SEVERITY if name == CORRUPTION else name)
            level = UNDEGRADED[name] if one.columns[LEVEL] == NONE and name in UNDEGRADED else one.columns[LEVEL]
            columns[name] = "" if not is_its else own if name == CORRUPTION else level
        shown.append(Shown(columns, place))
    return Conditions(shown, [None] * len(found), [one.images for one in found])


def _quantity_of_stored(name: str) -> str:
    """By the degradation of that name that is made here; "" where there is none."""
    group = name.partition("/")[0]
    if group == OCCLUSION:
        return "visibility"
    if group == NOISE:
        return "ssnr"
    return SEVERITY if group == IMAGENET_C else ""


def _degradations(choice: DegradationChoice, resources: Resources) -> list[Degradation]:
    try:
        return find_degradations([choice.name], resources)
    except UserError as error:
        raise UserError(*(_of_degrade(problem) for problem in error.details)) from error


def _of_degrade(problem: Problem) -> Problem:
    """A problem with what was named, as one of the option; what has a key, as an occluder's folder, has it still."""
    return problem if problem.key or problem.option or problem.where else replace(problem, option="degrade")


def _at_levels(degradation: Degradation, choice: DegradationChoice) -> list[Condition]:
    if choice.levels is None:
        return degradation.conditions()
    mistakes = Mistakes()
    called = (level if isinstance(level, str) else level_text(level) for level in choice.levels)
    found = [mistakes.of(partial(degradation.condition_called, level)) for level in called]
    if mistakes.found:
        raise UserError(*(replace(problem, option="levels") for problem in mistakes.found))
    return sorted((condition for condition in found if condition is not None), key=_from_the_weakest)


def _from_the_weakest(condition: Condition) -> tuple[bool, float]:
    """The key that sorts levels as a publication does, in whatever order they were given."""
    if condition.is_neutral:
        return False, 0.0
    first, last = condition.degradation.levels[0], condition.degradation.levels[-1]
    return True, float(condition.level) if first < last else -float(condition.level)


def _quantity(degradation: Degradation) -> str:
    return QUANTITIES.get(degradation.what, "")


def _columns(condition: Condition, quantities: Sequence[str]) -> dict[str, str]:
    """A quantity that a degradation has not is "": its trials have no part in figures over that."""
    degradation = condition.degradation
    group, _, own = degradation.name.partition("/")
    columns = {BENCHMARK: group, DEGRADATION: degradation.name, LEVEL: condition.level_text}
    level = degradation.neutral if condition.is_neutral else condition.level
    is_corruption = _quantity(degradation) == SEVERITY
    for name in quantities:
        if name == CORRUPTION:
            columns[name] = own if is_corruption else ""
        else:
            columns[name] = level_text(level) if _quantity(degradation) == name else ""
    return columns
