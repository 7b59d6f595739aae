"""Run folders to rows of a table, as `accel-train compare` prints it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from accel_trainer.config.derived import keys
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, flatten, listed
from accel_trainer.report.metric_names import LOSS, VALIDATION, metric_of, split_and_score
from accel_trainer.run.evaluations import degraded_accuracies
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of
from accel_trainer.run.performance import PerformanceRow, read_performance
from accel_trainer.run.records import read_config, read_environment
from accel_trainer.run.status import RunState, read_status

# Of the parameters that differ, those that a table has anyway, and those that only say whose a run is and where.
NO_SETTINGS = keys(lambda mark: not mark.is_setting)

MAX_EPOCHS = 2**53
MAX_DIGITS = 16


@dataclass(frozen=True)
class Comparison:
    """One run in a table. `best` is the primary metric's; images_per_s is the median over training epochs;
    seconds are those of training and validation, without start-up; settings: parameters, {"optimizer_args.lr": 0.1};
    corrupt: how many images could not be decoded; values: of the metrics that were asked for, {"train/loss": 0.3}, None
    for one that was not measured."""

    job: str
    architecture: str | None
    parameters: int | None
    state: str
    epochs: int
    num_epochs: int | None
    metric: str | None
    best: float | None
    best_epoch: int | None
    images_per_s: float | None
    seconds: float
    settings: Mapping[str, Any]
    corrupt: int | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    degraded: Mapping[str, float] = field(default_factory=dict)
    """Accuracy of the best weights by degradation, in percent, the mean over the levels that were measured."""
    folder: str = ""
    """Where the run is, as it was given."""


@dataclass(frozen=True)
class At:
    """After which epoch a metric is: the one with the best primary metric, the last one, or the epoch of a number."""

    epoch: Literal["best", "final"] | int = "best"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises UserError."""
        if text in ("best", "final"):
            return cls("best" if text == "best" else "final")
        if text.isascii() and text.isdigit() and len(text) < MAX_DIGITS:
            return cls(int(text))
        raise UserError(f"{text!r} is neither best, final nor the number of an epoch", option="at")

    def of(self, rows: Sequence[PerformanceRow], best_epoch: int | None) -> int | None:
        """The number of the epoch; None where there is none yet. rows: of one split."""
        match self.epoch:
            case "best":
                return best_epoch
            case "final":
                return max((row.epoch for row in rows), default=None)
            case number:
                return number


BEST = At()


def compare(runs: Sequence[RunFolder], metrics: Sequence[str] = (), at: At = BEST) -> list[Comparison]:
    """One row per run, in the given order, with all parameters. Raises UserError for a folder that holds no run.

    metrics: columns of performance.csv, of the validation or of another split: acc1, train/loss, val_ema/acc1.
    """
    return [_compare_one(run, metrics, at) for run in runs]


def never_measured(rows: Sequence[Comparison]) -> list[str]:
    """The metrics that were asked for and that no run has there."""
    return [name for name in (rows[0].values if rows else ()) if all(row.values[name] is None for row in rows)]


def refuse_unknown_metrics(names: Sequence[str], runs: Sequence[RunFolder], option: str = "metric") -> None:
    """Raises UserError of an option, for a metric that no run has ever measured."""
    if not names:
        return
    known = {metric_of(row.split, name) for run in runs for row in read_performance(run) for name in row.scores}
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or f"; there are: {listed(sorted(known)) or 'none'}"
            raise UserError(f"no run has measured {name!r}{near}", option=option)


def _compare_one(run: RunFolder, metrics: Sequence[str], at: At) -> Comparison:
    if not run.has_run and run.was_tried:
        return _without_config(run, metrics)
    config = read_config(run)
    if missing := [key for key in ("architecture", "num_epochs", "primary_metric") if key not in config]:
        raise UserError(f"{run.config} is not the config of a run: it has no {missing[0]}")
    if type(config["num_epochs"]) is not int or not 0 <= config["num_epochs"] < MAX_EPOCHS:
        raise UserError(f"{run.config} is damaged: num_epochs is {config['num_epochs']!r}"[:300])
    status = read_status(run)
    rows = read_performance(run)
    metric = str(config["primary_metric"])
    best = best_of(rows, metric)
    environment = read_environment(run)
    speeds = sorted(row.images_per_s for row in rows if row.split == "train")
    return Comparison(
        job=job_of(run, environment),
        architecture=str(config["architecture"]),
        parameters=parameters if type(parameters := environment.get("parameters")) is int else None,
        state=status.state if status else "unknown",
        epochs=max((row.epoch for row in rows), default=0),
        num_epochs=None if status and status.state is RunState.PRETRAINED else config["num_epochs"],
        metric=metric,
        best=best[0] if best else None,
        best_epoch=best[1] if best else None,
        images_per_s=speeds[len(speeds) // 2] if speeds else None,
        seconds=sum(row.seconds for row in rows),
        settings=flatten(config),
        corrupt=status.corrupt_images if status else None,
        values={name: _value(rows, name, at, best[1] if best else None) for name in metrics},
        degraded=degraded_accuracies(run, best[1] if best else None),
        folder=str(run.path),
    )


def _without_config(run: RunFolder, metrics: Sequence[str]) -> Comparison:
    """Of a training that has ended before it began."""
    status = read_status(run)
    return Comparison(
        job=run.path.name,
        architecture=None,
        parameters=None,
        state="failed" if status is None else status.state,
        epochs=0,
        num_epochs=None,
        metric=None,
        best=None,
        best_epoch=None,
        images_per_s=None,
        seconds=0.0,
        settings={},
        values=dict.fromkeys(metrics),
        folder=str(run.path),
    )


def _value(rows: Sequence[PerformanceRow], metric: str, at: At, best_epoch: int | None) -> float | None:
    """Of a metric; None where it was not measured, or is no number."""
    split, name = split_and_score(metric)
    of_split = [row for row in rows if row.split == split]
    epoch = at.of(of_split, best_epoch)
    value = next((row.scores.get(name) for row in of_split if row.epoch == epoch), None)
    return None if value is None or math.isnan(value) else value


def varying_parameters(runs: Sequence[Comparison]) -> list[str]:
    """The parameters that differ among runs of one group, such as those of a sweep."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if (group := run.settings.get("wandb.group")) is not None:
            groups.setdefault(str(group), []).append(run.settings)
    return [
        key
        for key in names_of_parameters(runs)
        if key not in NO_SETTINGS
        and any(one.get(key) != group[0].get(key) for group in groups.values() for one in group)
    ]


def differing_parameters(runs: Sequence[Comparison]) -> list[str]:
    """The parameters of which not all runs have the same value."""
    first = runs[0].settings if runs else {}
    return [
        key
        for key in names_of_parameters(runs)
        if key not in NO_SETTINGS and any(run.settings.get(key) != first.get(key) for run in runs)
    ]


def find_parameters(names: Sequence[str], runs: Sequence[Comparison], option: str = "columns") -> list[str]:
    """The full names of parameters, such as optimizer_args.lr for lr: the last part of a name is enough, and the name
    of a section stands for all parameters in it.

    Raises UserError for a name of no parameter, or of several.
    """
    keys, found = names_of_parameters(runs), dict[str, None]()
    for name in names:
        inside = [key for key in keys if key == name or key.startswith(f"{name}.")]
        matching = inside or [key for key in keys if key.endswith(f".{name}")]
        if not matching:
            near = did_you_mean(name, [*keys, *(key.rpartition(".")[2] for key in keys)])
            raise UserError(f"no run has a parameter {name!r}{near}", option=option)
        if not inside and len(matching) > 1:
            raise UserError(f"{name!r} may be {listed(matching)}", hint="give one of them", option=option)
        found |= dict.fromkeys(matching)
    return list(found)


def select_parameters(keys: Sequence[str], runs: Sequence[Comparison]) -> list[Comparison]:
    """The runs with these parameters only; one that a run does not have is None."""
    return [replace(run, settings={key: run.settings.get(key) for key in keys}) for run in runs]


def names_of_parameters(runs: Sequence[Comparison]) -> list[str]:
    """The parameters of any run, in the order of a job's."""
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def primary_score(rows: Sequence[PerformanceRow], metric: str) -> str:
    """The column of performance.csv that a primary metric is: the loss goes by its criterion's name there."""
    return metric if any(metric in row.scores for row in rows) else LOSS


def best_of(rows: Sequence[PerformanceRow], metric: str) -> tuple[float, int] | None:
    """(value, epoch) of the best validation by a primary metric; the first one where several are equal."""
    name = primary_score(rows, metric)
    values = [(row.scores.get(name, math.nan), row.epoch) for row in rows if row.split == VALIDATION]
    values = [(value, epoch) for value, epoch in values if not math.isnan(value)]
    if not values:
        return None
    sign = 1 if name == LOSS else -1
    return min(values, key=lambda pair: (sign * pair[0], pair[1]))
