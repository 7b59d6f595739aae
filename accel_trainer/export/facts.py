"""What an export says of its run: job, data, scores, environment. Without paths and names of the machine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from accel_trainer.config.dataset_names import HF, is_hugging_face, last_part, place_of
from accel_trainer.core.errors import UserError
from accel_trainer.export.source import Source
from accel_trainer.report.compare import compare
from accel_trainer.run.dataset_record import read_dataset_record
from accel_trainer.run.load import run_job
from accel_trainer.run.performance import read_performance
from accel_trainer.run.records import read_environment
from accel_trainer.training.wandb_run import recipe

_ENVIRONMENT = ("python", "device", "device_name", "cuda", "num_processes", "git_commit")


@dataclass(frozen=True)
class Facts:
    """job: the parameters that decide what is trained. dataset: without the folders that it is in; hub_dataset: its
    name on the Hugging Face hub, if it is of there. splits: by name, how many classes and images there are. scores: of
    the exported weights on the validation images, accuracies in percent. degraded: their accuracy by degradation."""

    job: Mapping[str, Any]
    dataset: str
    hub_dataset: str | None
    splits: Mapping[str, Mapping[str, int]]
    data_identity: str | None
    scores: Mapping[str, float]
    degraded: Mapping[str, float]
    epochs: int
    seconds: float
    environment: Mapping[str, Any]
    packages: Mapping[str, str]


def facts_of(source: Source) -> Facts:
    """Of a run and the weights of it. Raises UserError for a record that cannot be read."""
    job, run = without_folders(recipe(run_job(source.run))), compare([source.run])[0]
    splits, identity = _data(source)
    attempts = read_environment(source.run).get("attempts") or [{}]
    newest = attempts[-1]
    is_best = source.epoch is not None and source.epoch == run.best_epoch and _split(source) == "val"
    packages = newest.get("packages") or {}
    return Facts(
        job=job,
        dataset=last_part(job.get("dataset", source.job.dataset)),
        hub_dataset=_hub_name(source.job.dataset),
        splits=splits,
        data_identity=identity,
        scores=_scores(source),
        degraded=run.degraded if is_best else {},
        epochs=run.epochs,
        seconds=run.seconds,
        environment={key: newest[key] for key in _ENVIRONMENT if newest.get(key) not in (None, "")},
        packages={name: version for name, version in packages.items() if version},
    )


def without_folders(value: Any) -> Any:
    """The same, with the last part alone of every path that begins at the root of a disk or at a home folder."""
    match value:
        case str() if is_hugging_face(value):
            return f"{HF}{without_folders(place_of(value))}"
        case str() if value.startswith(("/", "~")):
            return PurePath(value).name
        case Mapping():
            return {key: without_folders(part) for key, part in value.items()}
        case Sequence() if not isinstance(value, str):
            return [without_folders(part) for part in value]
        case _:
            return value


def _hub_name(dataset: str) -> str | None:
    """`owner/name` of a data set on the hub; None for what may be a folder."""
    place = place_of(dataset).partition(":")[0]
    owner, slash, name = place.partition("/")
    is_named_so = is_hugging_face(dataset) and slash and owner not in ("", ".", "..", "~") and "/" not in name
    return place if is_named_so and not owner.startswith("~") else None


def _data(source: Source) -> tuple[dict[str, dict[str, int]], str | None]:
    try:
        record = read_dataset_record(source.run)
    except UserError:
        return {}, None  # a card can do without
    if record is None:
        return {}, None
    counts = {
        split: {"classes": len(about.classes), "images": sum(one.images or 0 for one in about.classes)}
        for split, about in record.splits.items()
        if split in ("train", "val")
    }
    return counts, record.summary.rpartition(", ")[2]


def _split(source: Source) -> str:
    """What performance.csv calls the validation of these weights."""
    return f"val_{source.word}" if source.word in ("ema", "swa") else "val"


def _scores(source: Source) -> dict[str, float]:
    """Those of the validation after the weights' epoch; of an average, the last ones. Empty if there are none."""
    rows = [row for row in read_performance(source.run) if row.split == _split(source)]
    if source.epoch is not None:
        rows = [row for row in rows if row.epoch == source.epoch]
    return {name: value for name, value in rows[-1].scores.items() if math.isfinite(value)} if rows else {}
