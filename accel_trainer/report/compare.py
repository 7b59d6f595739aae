"""Run folders to rows of a table, as `accel-train compare` prints it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accel_trainer.config.derived import keys
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, flatten, listed
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of
from accel_trainer.run.performance import PerformanceRow, read_performance
from accel_trainer.run.records import read_config, read_environment
from accel_trainer.run.status import read_status

# Of the parameters that differ, those that a table has anyway, and those that only say whose a run is and where.
NO_SETTINGS = keys(lambda mark: not mark.is_setting)

MAX_EPOCHS = 2**53


@dataclass(frozen=True)
class Comparison:
    """One run in a table. `best` is the primary metric's; images_per_s is the median over training epochs;
    seconds are those of training and validation, without start-up; settings: parameters, {"optimizer_args.lr": 0.1};
    corrupt: how many images could not be decoded."""

    job: str
    architecture: str
    parameters: int | None
    state: str
    epochs: int
    num_epochs: int
    metric: str
    best: float | None
    best_epoch: int | None
    images_per_s: float | None
    seconds: float
    settings: Mapping[str, Any]
    corrupt: int | None = None


def compare(runs: Sequence[RunFolder]) -> list[Comparison]:
    """One row per run, in the given order, with all parameters. Raises UserError for a folder that holds no run."""
    return [_compare_one(run) for run in runs]


def _compare_one(run: RunFolder) -> Comparison:
    config = read_config(run)
    if missing := [key for key in ("architecture", "num_epochs", "primary_metric") if key not in config]:
        raise UserError(f"{run.config} is not the config of a run: it has no {missing[0]}")
    if type(config["num_epochs"]) is not int or not 0 <= config["num_epochs"] < MAX_EPOCHS:
        raise UserError(f"{run.config} is damaged: num_epochs is {config['num_epochs']!r}"[:300])
    status = read_status(run)
    rows = read_performance(run)
    metric = str(config["primary_metric"])
    best = _best(rows, metric)
    environment = read_environment(run)
    speeds = sorted(row.images_per_s for row in rows if row.split == "train")
    return Comparison(
        job=job_of(run, environment),
        architecture=str(config["architecture"]),
        parameters=parameters if type(parameters := environment.get("parameters")) is int else None,
        state=status.state if status else "unknown",
        epochs=max((row.epoch for row in rows), default=0),
        num_epochs=config["num_epochs"],
        metric=metric,
        best=best[0] if best else None,
        best_epoch=best[1] if best else None,
        images_per_s=speeds[len(speeds) // 2] if speeds else None,
        seconds=sum(row.seconds for row in rows),
        settings=flatten(config),
        corrupt=status.corrupt_images if status else None,
    )


def varying_parameters(runs: Sequence[Comparison]) -> list[str]:
    """The parameters that differ among runs of one group, such as those of a sweep."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if (group := run.settings.get("wandb.group")) is not None:
            groups.setdefault(str(group), []).append(run.settings)
    return [
        key
        for key in _keys(runs)
        if key not in NO_SETTINGS
        and any(one.get(key) != group[0].get(key) for group in groups.values() for one in group)
    ]


def find_parameters(names: Sequence[str], runs: Sequence[Comparison]) -> list[str]:
    """The full names of parameters, such as optimizer_args.lr for lr: the last part of a name is enough, and the name
    of a section stands for all parameters in it.

    Raises UserError for a name of no parameter, or of several.
    """
    keys, found = _keys(runs), dict[str, None]()
    for name in names:
        inside = [key for key in keys if key == name or key.startswith(f"{name}.")]
        matching = inside or [key for key in keys if key.endswith(f".{name}")]
        if not matching:
            near = did_you_mean(name, [*keys, *(key.rpartition(".")[2] for key in keys)])
            raise UserError(f"no run has a parameter {name!r}{near}", option="columns")
        if not inside and len(matching) > 1:
            raise UserError(f"{name!r} may be {listed(matching)}", hint="give one of them", option="columns")
        found |= dict.fromkeys(matching)
    return list(found)


def select_parameters(keys: Sequence[str], runs: Sequence[Comparison]) -> list[Comparison]:
    """The runs with these parameters only; one that a run does not have is None."""
    return [replace(run, settings={key: run.settings.get(key) for key in keys}) for run in runs]


def _keys(runs: Sequence[Comparison]) -> list[str]:
    """The parameters of any run, in the order of a job's."""
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def _best(rows: Sequence[PerformanceRow], metric: str) -> tuple[float, int] | None:
    """(value, epoch) of the best validation; the first one where several are equal."""
    is_loss = not any(metric in row.scores for row in rows)  # that goes by the criterion's name
    name = "loss" if is_loss else metric
    values = [(row.scores.get(name, math.nan), row.epoch) for row in rows if row.split == "val"]
    values = [(value, epoch) for value, epoch in values if not math.isnan(value)]
    if not values:
        return None
    return min(values, key=lambda pair: (pair[0] if is_loss else -pair[0], pair[1]))
