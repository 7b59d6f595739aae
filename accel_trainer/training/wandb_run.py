"""A run as Weights & Biases shows it: its group, its configuration, its metrics, its summary."""

import hashlib
import statistics
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

from accel_trainer.config import Job
from accel_trainer.config.dataset_names import last_part
from accel_trainer.config.derived import parameters
from accel_trainer.config.marks import Affects
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import canonical
from accel_trainer.run.dataset_record import read_dataset_record
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.run.records import read_environment
from accel_trainer.training.state.step_rows import StepRow
from accel_trainer.training.wandb_log import EPOCH, STEP, STEPS, Kind

if TYPE_CHECKING:
    import wandb

# How a run is carried out, watched and stored trains nothing; how far it goes does.
NOT_OF_RECIPE = parameters(lambda mark: mark.affects is Affects.RUN) - {"num_epochs"}
SEED = "seed"
WANDB_TIMEOUT_S = 30


def settings(job: Job, run: RunFolder, *, id_: str, name: str, group: str | None, job_type: str) -> dict[str, Any]:
    """With what wandb is started for a run of a job, beside the project and the mode."""
    return {
        "name": name,
        "id": id_,
        "entity": job.wandb.entity,
        "group": group,
        "job_type": job_type,
        "tags": job.wandb.tags,
        "notes": job.description or None,
        "dir": str(run.path),
        "settings": {"console": "off", "silent": True, "init_timeout": WANDB_TIMEOUT_S},
    }


def recipe(job: Job) -> dict[str, Any]:
    """The parameters that decide what is trained, as they are in a job file; without those that are absent."""
    return {key: value for key, value in job.completed().items() if key not in NOT_OF_RECIPE and value is not None}


def replicates(job: Job) -> str:
    """A name that runs have in common which differ in the seed alone: resnet18-digits-3f2a1b."""
    same = {key: value for key, value in recipe(job).items() if key != SEED}
    digest = hashlib.sha256(canonical(same).encode()).hexdigest()[:6]
    return f"{job.architecture.rpartition(':')[2]}-{last_part(job.dataset)}-{digest}"


def configuration(job: Job, run: RunFolder, queue: str | None) -> dict[str, Any]:
    """What the dashboard filters and groups by: the recipe, the size of the model, the data set and the environment."""
    environment = read_environment(run)
    attempts = environment.get("attempts") or [{}]
    newest = attempts[-1]
    return {
        **recipe(job),
        "parameters": environment.get("parameters"),
        "queue": queue,
        "data": _data(run),
        "environment": {
            key: newest.get(key)
            for key in ("host", "python", "packages", "device", "device_name", "cuda", "num_processes", "platform")
        },
        "git": {"commit": newest.get("git_commit"), "changes": newest.get("git_changes")},
    }


def _data(run: RunFolder) -> dict[str, Any] | None:
    """How many classes and images there are, and the digest that says whether those of two runs are the same."""
    with suppress(UserError):
        if (record := read_dataset_record(run)) is not None:
            splits = {
                split: {"classes": len(about.classes), "images": sum(one.images or 0 for one in about.classes)}
                for split, about in record.splits.items()
            }
            return {"identity": record.summary, **splits}
    return None


def epochs_of(history: Sequence[PerformanceRow]) -> list[list[PerformanceRow]]:
    """The rows of each epoch, in their order."""
    return [list(rows) for _, rows in groupby(history, key=lambda row: row.epoch)]


def values_of(rows: Sequence[PerformanceRow]) -> dict[str, float]:
    """What is logged of an epoch: train/loss, val/acc1, ..., the learning rate, and the training's images/s."""
    values = {f"{row.split}/{name}": value for row in rows for name, value in row.scores.items()}
    return values | {"lr": rows[0].lr, "images_per_s": rows[0].images_per_s}


def values_of_steps(row: StepRow) -> dict[str, float]:
    """What is logged of some steps: steps/loss, steps/acc1, ..., steps/lr."""
    return {f"{STEPS}{name}": value for name, value in {**row.scores, "lr": row.lr}.items()}


def better(name: str) -> str | None:
    """Whether the smallest value of a series is the best one, or the largest: `min`, `max`; None for what is no
    score, or of a few steps only."""
    if "/" not in name or name.startswith(STEPS):
        return None
    return "min" if name.rpartition("/")[2] == "loss" else "max"


def define_axes(run: "wandb.Run") -> None:
    """What series are drawn over. Of histograms there are too many to be named."""
    for axis in (EPOCH, STEP):
        run.define_metric(axis, hidden=True)


def define_series(run: "wandb.Run", names: Sequence[str], kind: Kind) -> None:
    """Each series over epochs or steps, with what its summary is: of scores of an epoch the best value and the last."""
    for name in names:
        direction = better(name)
        run.define_metric(name, step_metric=kind.axis, summary=None if direction is None else f"{direction},last")


def summary(
    history: Sequence[PerformanceRow], primary: str, best: float | None, best_epoch: int | None
) -> dict[str, Any]:
    """What the table of runs shows, over all attempts: best and last of each series, speed, time."""
    series: dict[str, list[float]] = {}
    for rows in epochs_of(history):
        for name, value in values_of(rows).items():
            series.setdefault(name, []).append(value)
    found: dict[str, Any] = {name: _summed_up(name, values) for name, values in series.items()}
    speeds = [row.images_per_s for row in history if row.split == "train"]
    found["images_per_s"] = statistics.median(speeds) if speeds else None
    found["seconds"] = sum(row.seconds for row in history)
    return found | {f"best/{primary}": best, "best/epoch": best_epoch}


def _summed_up(name: str, values: Sequence[float]) -> Any:
    match better(name):
        case "min":
            return {"min": min(values), "last": values[-1]}
        case "max":
            return {"max": max(values), "last": values[-1]}
        case _:
            return values[-1]


def log_weights(run: "wandb.Run", folder: RunFolder, id_: str, epoch: int | None) -> None:
    """The best weights as an artifact of the type model, with what is needed to load them."""
    import wandb

    artifact = wandb.Artifact(f"{id_}-weights", type="model", metadata={"epoch": epoch})
    for path in (folder.best_weights, folder.config, folder.classes):
        if path.is_file():
            artifact.add_file(str(path), name=path.name)
    run.log_artifact(artifact, aliases=["best", *([f"epoch-{epoch}"] if epoch else [])])
