"""Figures of files of trials: what `accel-train measure` computes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.measures.accuracy import accuracy, class_accuracy, confusion
from accel_trainer.measures.calibration import calibration
from accel_trainer.measures.consistency import error_consistency, mean_consistency
from accel_trainer.measures.correlation import condition_correlation, noise_ceiling
from accel_trainer.measures.corruption_error import ALEXNET, baseline_of, corruption_errors, corruption_figures
from accel_trainer.measures.factor import Factor, number_of
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.psychometric import thresholds
from accel_trainer.measures.published import is_parquet, read_published, without_left_out
from accel_trainer.measures.reaction_time import reaction_time_figures
from accel_trainer.measures.shape_bias import shape_bias
from accel_trainer.measures.sixteen_classes import is_imagenet, to_sixteen_classes
from accel_trainer.measures.trials import Cell, Trials, whole
from accel_trainer.measures.trials_file import is_trials_file, trial_blocks


class Measure(StrEnum):
    """What can be measured; docs/measures.md defines the figures of each."""

    ACCURACY = "accuracy"
    CLASS_ACCURACY = "class-accuracy"
    CONFUSION = "confusion"
    CALIBRATION = "calibration"
    MCE = "mce"
    CONSISTENCY = "consistency"
    CONSISTENCY_OF_PAIRS = "consistency-of-pairs"
    CORRELATION = "correlation"
    NOISE_CEILING = "noise-ceiling"
    THRESHOLDS = "thresholds"
    SHAPE_BIAS = "shape-bias"
    REACTION_TIME = "reaction-time"


# Of `baseline`: AlexNet's published errors, and no baseline.
PUBLISHED, NONE = "published", "none"
BENCHMARK = "benchmark"
CORRUPTION_COLUMNS = ("corruption", "degradation")
SEVERITY_COLUMNS = ("severity", "level")
OVER_COLUMNS = ("visibility", "ssnr")
# What says how much an image is degraded: figures over one of these are of none of the others.
LEVEL_COLUMNS = (*SEVERITY_COLUMNS, *OVER_COLUMNS)
# Of a condition that a trial has no part in: the visibility of an image with noise.
NO_LEVEL = ""
# Settings that choose or put together trials.
OF_TRIALS = ("by", "only", "without", "pool", "sixteen_classes")


@dataclass(frozen=True)
class Settings:
    """How to measure.

    by: conditions that figures are of; None: all.
    only, without: levels by column: other trials, or these, are left out.
    benchmark: the name of a published file's data set.
    pool: all observers are one.
    sixteen_classes: responses of an ImageNet model become the 16 categories.
    baseline: of mCE, the name of an observer, "published" for AlexNet's errors, or "none"; None: published where the
    classes are ImageNet's.
    over, chance: of thresholds. entropy: of reaction times, the threshold in nats.
    all_conditions: error consistency leaves out no condition.
    """

    by: Sequence[str] | None = None
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    benchmark: str | None = None
    pool: bool = False
    sixteen_classes: bool = False
    baseline: str | None = None
    over: str | None = None
    chance: float | None = None
    entropy: float | None = None
    all_conditions: bool = False


@dataclass(frozen=True)
class Measured:
    """Figures, and what there is to say of them: a line each."""

    figures: list[Figure]
    notes: list[str]


def measure(
    files: Sequence[Path], what: Measure, settings: Settings | None = None, against: Sequence[Path] = ()
) -> Measured:
    """Read tables of trials (`writing_trials`, or as published) and compute figures of them.

    against: tables of those whom error consistency and correlation compare the observers with. Raises UserError for
    files that cannot be read, and for what these trials do not give; OSError.
    """
    settings = settings or Settings()
    source, others = _Source(files, settings), _Source(against, settings) if against else None
    if others is not None and what not in (Measure.CONSISTENCY, Measure.CONSISTENCY_OF_PAIRS, Measure.CORRELATION):
        raise UserError(f"{what} compares with nobody", option="against")
    measured = _measured(what, settings, source, others)
    for one in (source, others):
        if one is not None:
            one.refuse_unknown_levels()
    return measured


def _measured(what: Measure, settings: Settings, source: "_Source", others: "_Source | None") -> Measured:
    notes = list[str]()
    match what:
        case Measure.ACCURACY:
            figures = _accuracies(source, settings.by)
        case Measure.CLASS_ACCURACY:
            figures = class_accuracy(source, settings.by)
        case Measure.CONFUSION:
            figures = [figure for one in confusion(source, settings.by) for figure in one.figures()]
        case Measure.CALIBRATION:
            figures = calibration(source.with_probabilities(), settings.by)
        case Measure.MCE:
            figures = _mce(source, settings)
        case Measure.CONSISTENCY | Measure.CONSISTENCY_OF_PAIRS:
            figures, notes = _consistency(source, others, settings)
            if what is Measure.CONSISTENCY:
                figures = mean_consistency(figures, of_each=others is not None)
        case Measure.CORRELATION:
            if others is None:
                raise UserError("correlations are with others: name their trials", option="against")
            own, theirs = whole(source), whole(others)
            figures = condition_correlation(own, theirs, _without_one_benchmark(own, settings.by))
        case Measure.NOISE_CEILING:
            trials = whole(source)
            figures = noise_ceiling(trials, _without_one_benchmark(trials, settings.by))
        case Measure.THRESHOLDS:
            figures = _thresholds(whole(source), settings)
        case Measure.SHAPE_BIAS:
            figures = shape_bias(whole(source), settings.by)
        case Measure.REACTION_TIME:
            if settings.entropy is None:
                raise UserError("reaction times need a threshold of entropy, in nats", option="entropy")
            figures = reaction_time_figures(source.with_probabilities(), settings.entropy, settings.by)
        case _:
            assert_never(what)
    return Measured(figures, notes)


def _accuracies(source: "_Source", by: Sequence[str] | None) -> list[Figure]:
    if (tables := source.accuracies()) is None:
        return accuracy(source, by)
    return tables


def _mce(source: "_Source", settings: Settings) -> list[Figure]:
    accuracies, classes = source.accuracies(), set[tuple[str, ...]]()
    corruption, severity = CORRUPTION_COLUMNS[0], SEVERITY_COLUMNS[0]
    if accuracies is None:
        corruption, severity = source.column_of(CORRUPTION_COLUMNS), source.column_of(SEVERITY_COLUMNS)
        parts = (_with_level(part, severity) for part in _noting_classes(source, classes))
        accuracies = accuracy(parts, [corruption, severity])
    errors = corruption_errors(accuracies, corruption, severity)
    of_imagenet = bool(classes) and all(map(is_imagenet, classes))
    match settings.baseline:
        case "none":
            baseline = None
        case None:
            baseline = ALEXNET if of_imagenet else None
        case "published":
            if classes and not of_imagenet:
                raise UserError("AlexNet's errors are over ImageNet's classes, and these are others", option="baseline")
            baseline = ALEXNET
        case name:
            baseline = baseline_of(errors, name)
    return corruption_figures(errors, baseline, corruption)


def _with_level(trials: Trials, name: str) -> Trials:
    """The trials that have a level of a condition."""
    return trials.select(~trials.condition(name).is_in([NO_LEVEL]))


def _noting_classes(blocks: Iterable[Trials], classes: set[tuple[str, ...]]) -> Iterator[Trials]:
    for block in blocks:
        classes.add(block.classes)
        yield block


def _consistency(source: "_Source", others: "_Source | None", settings: Settings) -> tuple[list[Figure], list[str]]:
    own, theirs = whole(source), None if others is None else whole(others)
    left_out = dict[str, tuple[str, ...]]()
    if not settings.all_conditions:
        own, left_out = without_left_out(own)
        if theirs is not None:
            theirs, of_others = without_left_out(theirs)
            left_out |= of_others
    notes = [f"{name}: left out, as published: {listed(levels)}" for name, levels in left_out.items()]
    return error_consistency(own, theirs, settings.by), notes


def _without_one_benchmark(trials: Trials, by: Sequence[str] | None) -> list[str]:
    """All conditions by default, but not the name of the only benchmark: that of others may be another one."""
    if by is not None:
        return list(by)
    is_one = BENCHMARK in trials.conditions and len(trials.conditions[BENCHMARK].used()) == 1
    return [name for name in trials.conditions if not (is_one and name == BENCHMARK)]


def _thresholds(trials: Trials, settings: Settings) -> list[Figure]:
    over = settings.over or _first_of(OVER_COLUMNS, trials.conditions, "over")
    trials = _with_level(trials, over)
    left_out = (over, BENCHMARK, *LEVEL_COLUMNS)
    by = [name for name in trials.conditions if name not in left_out] if settings.by is None else settings.by
    if BENCHMARK not in trials.conditions or BENCHMARK in by:
        return thresholds(trials, by, over, settings.chance)
    # Each has images themselves of its own.
    benchmark = trials.conditions[BENCHMARK]
    return [
        replace(figure, cell=replace(figure.cell, conditions=((BENCHMARK, name), *figure.cell.conditions)))
        for name in benchmark.used()
        for figure in thresholds(trials.select(benchmark.is_in([name])), by, over, settings.chance)
    ]


def _first_of(names: Sequence[str], known: Iterable[str], option: str | None = None) -> str:
    known = list(known)
    if (found := next((name for name in names if name in known), None)) is None:
        words = f"trials have no condition {' or '.join(names)}"
        raise UserError(words, hint=f"there are: {listed(known) or 'none'}", option=option)
    return found


class _Source:
    """Files, read anew each time that it is iterated over, in parts as they are to be measured."""

    def __init__(self, files: Sequence[Path], settings: Settings, *, probabilities: bool = False) -> None:
        self.files = files
        self.settings = settings
        self.probabilities = probabilities or settings.sixteen_classes
        self.seen: dict[str, set[str]] = {}

    def with_probabilities(self) -> "_Source":
        """The same files, of which probabilities are read too."""
        source = _Source(self.files, self.settings, probabilities=True)
        source.seen = self.seen
        return source

    def __iter__(self) -> Iterator[Trials]:
        found = dict[Cell, int]()
        for number, file in enumerate(self.files):
            for block in self._blocks(file):
                if len(self.files) > 1 and not self.settings.pool and _is_ours(file):
                    self._note(found, number, block)
                part = self._chosen(to_sixteen_classes(block) if self.settings.sixteen_classes else block)
                yield part.pooled() if self.settings.pool else part

    def _note(self, found: dict[Cell, int], number: int, block: Trials) -> None:
        """Raises UserError where a file before has trials of the same model under a condition: both would be one."""
        for cell in block.grouped()[1]:
            if (before := found.setdefault(cell, number)) != number:
                where = ", ".join(level for _, level in cell.conditions)
                raise UserError(
                    f"{self.files[before]} and {self.files[number]} both have trials of {cell.observer!r} ({where})",
                    hint="measure them one by one, or `pool` them",
                )

    def _blocks(self, file: Path) -> Iterable[Trials]:
        if _is_ours(file):
            return trial_blocks(file, probabilities=self.probabilities)
        table = read_published(file, self.settings.benchmark)
        if not isinstance(table, Trials):
            raise UserError("a table of accuracies has no trials", where=file, hint="it gives accuracy and mce")
        return [table]

    def accuracies(self) -> list[Figure] | None:
        """Where the files are tables of accuracies, these; None where they are trials."""
        found = list[Figure]()
        for file in self.files:
            if _is_ours(file) or isinstance(table := read_published(file), Trials):
                if found:
                    raise UserError("trials beside a table of accuracies", where=file, hint="measure them one by one")
                return None
            found += table
        if used := [name for name in OF_TRIALS if getattr(self.settings, name)]:
            raise UserError("a table of accuracies has no trials to choose or put together", option=used[0])
        return found

    def column_of(self, names: Sequence[str]) -> str:
        """The first of these conditions that the trials have. Raises UserError where they have none."""
        for block in self:
            return _first_of(names, block.conditions)
        raise UserError("no trials")

    def _chosen(self, trials: Trials) -> Trials:
        for name, levels in self.settings.only.items():
            trials = trials.select(self._rows(trials, name, levels))
        for name, levels in self.settings.without.items():
            trials = trials.select(~self._rows(trials, name, levels))
        return trials

    def _rows(self, trials: Trials, name: str, levels: Sequence[str]) -> NDArray[np.bool_]:
        column = _column(trials, name)
        self.seen.setdefault(name, set()).update(column.levels)
        return column.is_in([level for level in column.levels if any(_same(level, wanted) for wanted in levels)])

    def refuse_unknown_levels(self) -> None:
        """Raises UserError for a level to be chosen or left out that no trial had."""
        for option, chosen in (("only", self.settings.only), ("without", self.settings.without)):
            for name, levels in chosen.items():
                known = self.seen.get(name, set())
                for level in levels:
                    if not any(_same(level, one) for one in known):
                        near = did_you_mean(level, known) or f"; there are: {listed(sorted(known))}"
                        raise UserError(f"no trial has {name} {level!r}{near}", option=option)


def _is_ours(file: Path) -> bool:
    return is_parquet(file) and is_trials_file(file)


def _column(trials: Trials, name: str) -> Factor:
    match name:
        case "observer":
            return trials.observer
        case "layer" if trials.layer is not None:
            return trials.layer
        case _:
            return trials.condition(name)


def _same(level: str, wanted: str) -> bool:
    """As texts, or as numbers: 1 and 1.0."""
    number = number_of(level)
    return level == wanted or (number is not None and number == number_of(wanted))
