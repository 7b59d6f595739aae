"""Errors on corrupted images, over those of AlexNet: mCE and relative mCE (Hendrycks and Dietterich, 2019)."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Cell, in_table_order

# AlexNet's top-1 error on the 15 corruptions of ImageNet-C, the mean over five severities, on all 50,000 images.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
# Its error on the images themselves, as the paper's table has it.
ALEXNET_CLEAN_ERROR = 0.435

# Published beside the 15, and in no mean over the benchmark.
EXTRA_CORRUPTIONS = frozenset({"speckle_noise", "gaussian_blur", "spatter", "saturate"})
SEVERITIES = 5
NO_CORRUPTION = ("none", "clean", "")


@dataclass(frozen=True)
class CorruptionErrors:
    """Top-1 errors (0..1): by corruption, each the mean over severities; and of the images themselves, where known."""

    by_corruption: Mapping[str, float]
    clean: float | None = None


ALEXNET = CorruptionErrors(ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR)


def corruption_errors(accuracies: Iterable[Figure], corruption: str, severity: str) -> dict[Cell, CorruptionErrors]:
    """The errors of each observer from its `accuracy` at each corruption and severity (names of conditions).

    Severity 0, and a corruption called none or clean, are the images themselves. Raises UserError for an observer that
    has not five severities of a corruption.
    """
    values: defaultdict[Cell, defaultdict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    clean = defaultdict[Cell, list[Figure]](list)
    for figure in accuracies:
        levels = figure.cell.levels
        if levels[severity] in ("0", "0.0") or levels[corruption] in NO_CORRUPTION:
            clean[figure.cell.who].append(figure)
        elif levels[severity] in values[figure.cell.who][levels[corruption]]:
            raise UserError(f"{levels[corruption]} {levels[severity]} is there twice of {figure.cell.observer}")
        else:
            values[figure.cell.who][levels[corruption]][levels[severity]] = figure.value
    for who, of_who in values.items():
        if short := [f"{name} ({len(found)})" for name, found in of_who.items() if len(found) != SEVERITIES]:
            raise UserError(f"{who.observer}: a corruption has {SEVERITIES} severities, but {listed(short)}")
    return {
        who: CorruptionErrors(
            {name: float(np.mean([1 - value for value in found.values()])) for name, found in of_who.items()},
            _mean_error(clean[who]),
        )
        for who, of_who in values.items()
    }


def _mean_error(clean: Sequence[Figure]) -> float | None:
    """The images themselves may be there once for each corruption, all with the same number of trials."""
    return float(np.mean([1 - figure.value for figure in clean])) if clean else None


def mean_corruption_error(errors: CorruptionErrors, baseline: CorruptionErrors) -> float:
    """mCE in percent: for each corruption of the baseline the error over the baseline's, and the mean of these."""
    return 100 * float(np.mean([errors.by_corruption[name] / e for name, e in baseline.by_corruption.items()]))


def relative_mean_corruption_error(errors: CorruptionErrors, baseline: CorruptionErrors) -> float:
    """Relative mCE in percent: what is lost by each corruption over what the baseline loses by it, and the mean of
    these; NaN where an error on the images themselves is not known."""
    if errors.clean is None or baseline.clean is None:
        return math.nan
    ratios = [
        (errors.by_corruption[name] - errors.clean) / (error - baseline.clean)
        for name, error in baseline.by_corruption.items()
    ]
    return 100 * float(np.mean(ratios))


def corruption_figures(
    errors: Mapping[Cell, CorruptionErrors], baseline: CorruptionErrors | None, corruption: str = "corruption"
) -> list[Figure]:
    """For each observer the mean accuracy over corruptions (0..1), and with a baseline `ce` of each corruption, `mce`
    and `relative_mce` in percent; without one `unnormalised_error` and `unnormalised_relative_error`, in percent too.

    Corruptions that the baseline has not are left out of what is over it; where all 15 of ImageNet-C are there, its
    four extra ones are in no mean. Raises UserError where one of the baseline's is missing. n: the number of
    corruptions.
    """
    figures = list[Figure]()
    for who in sorted(errors, key=in_table_order):
        own = errors[who]
        values = _of_benchmark(own.by_corruption)
        figures.append(Figure(who, "corruption_accuracy", 1 - float(np.mean(values)), n=len(values)))
        if baseline is None:
            lost = math.nan if own.clean is None else 100 * (float(np.mean(values)) - own.clean)
            found = [("unnormalised_error", 100 * float(np.mean(values))), ("unnormalised_relative_error", lost)]
        else:
            if missing := [name for name in baseline.by_corruption if name not in own.by_corruption]:
                words = f"{who.observer} was not measured with {listed(missing)}, and there is no mCE without"
                raise UserError(words, hint="`baseline` none gives unnormalised errors")
            values = list(baseline.by_corruption.values())
            figures += [
                Figure(who.under(**{corruption: name}), "ce", 100 * own.by_corruption[name] / error, n=SEVERITIES)
                for name, error in baseline.by_corruption.items()
            ]
            found = [
                ("mce", mean_corruption_error(own, baseline)),
                ("relative_mce", relative_mean_corruption_error(own, baseline)),
            ]
        figures += [Figure(who, name, value, n=len(values)) for name, value in found if not math.isnan(value)]
    return figures


def _of_benchmark(errors: Mapping[str, float]) -> list[float]:
    is_whole = errors.keys() >= ALEXNET_ERRORS.keys()
    return [error for name, error in errors.items() if not (is_whole and name in EXTRA_CORRUPTIONS)]


def baseline_of(errors: Mapping[Cell, CorruptionErrors], name: str) -> CorruptionErrors:
    """The errors of the observer of this name. Raises UserError where there is none."""
    found = [of_who for who, of_who in errors.items() if who.observer == name]
    if len(found) != 1:
        near = did_you_mean(name, [who.observer for who in errors])
        raise UserError(f"{len(found) or 'no'} observers are called {name!r}{near}", option="baseline")
    return found[0]
