"""What can be read out of the layers of a trained model, in each cycle: classifiers of frozen features."""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from accel_trainer.config import ResolvedJob
from accel_trainer.config.evaluation import usable_name
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import remove_tree, write_atomic
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.open import open_data_set, open_training, open_validation
from accel_trainer.evaluation.answer_files import errors_named
from accel_trainer.evaluation.by_first import by_first
from accel_trainer.evaluation.features import (
    Pool,
    Wanted,
    description_of,
    extraction_of,
    written_features,
)
from accel_trainer.evaluation.identity import image_names
from accel_trainer.evaluation.owned_folder import owned_folder
from accel_trainer.evaluation.readouts import Labels, Probabilities, Readout, Sgd
from accel_trainer.evaluation.run_plan import observer_of, versions
from accel_trainer.evaluation.trained_model import epoch_of, with_data_in
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.factor import Factor
from accel_trainer.measures.figures import Figure, as_csv, records
from accel_trainer.measures.trials import Trials
from accel_trainer.measures.trials_file import trial_blocks, writing_trials
from accel_trainer.representations.feature_folder import Features, read_features
from accel_trainer.representations.layer_names import layer_and_cycle
from accel_trainer.representations.rows import Chosen, Rows
from accel_trainer.run.evaluations import EvaluationFolder, EvaluationRecord, read_evaluation, write_evaluation
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import needs_all_classes, trained_classes, trained_job, trained_weights

READOUT = "readout"


@dataclass(frozen=True)
class ProbeSettings:
    """Which layers, by which readouts, of what. dataset: with training and validation images, and classes that may be
    others than the run's; by default the run's own. name: of the folder in `evaluations/`."""

    layers: Sequence[str]
    readouts: Sequence[Readout]
    weights: str = "best"
    pool: Pool = "flatten"
    batch_size: int = 64
    dataset: str | None = None
    data_root: Path | None = None
    name: str = "probe"


@dataclass(frozen=True)
class Probed:
    """What came of it. figures: `<readout>_accuracy` of each layer and cycle; notes: what is to be said of a
    readout."""

    folder: Path
    images: int
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {**asdict(self), "folder": str(self.folder), "figures": records(self.figures)}


def probe(run: RunFolder, settings: ProbeSettings) -> Probed | None:
    """Take features of training and validation images as the validation of the run sees them, learn from the former,
    and test on the latter; into `evaluations/<name>/` of the run. What an earlier call, ended anywhere, has left there
    is gone on with.

    Every process of a launch calls it; only the first learns, and gets the answer. Raises UserError, also where that
    folder has something else; OSError.
    """
    job = trained_job(run)
    train, val = _images(run, with_data_in(job, settings.data_root), settings.dataset)
    folder = EvaluationFolder(run.evaluations / _checked(settings.name))
    wanted = Wanted(settings.layers, settings.weights, settings.pool, settings.batch_size)
    with ExitStack() as resources:
        with extraction_of(run, wanted) as extraction:
            accelerator = extraction.parts.accelerator
            place = resources.enter_context(owned_folder(folder.path, None, accelerator))
            by_first(accelerator, lambda: _begin(folder, place, _record(run, job, (train, val), settings, wanted)))
            accelerator.wait_for_everyone()
            is_there, is_first, device = _there(folder).complete, accelerator.is_main_process, str(accelerator.device)
            accelerator.wait_for_everyone()  # who is first goes on to write it
            if not is_there:
                for shape, readout in product(extraction.shapes.values(), settings.readouts):
                    readout.check(len(train.labels), math.prod(shape))
                for split, source in (("train", train), ("val", val)):
                    written_features(run, source, extraction, folder.unfinished / split, "npy")
        if not is_first:
            return None
        if not is_there:
            shown = _Shown(_there(folder).observer, image_names(val), train.labels, val.labels, tuple(train.classes))
            with errors_named(folder.path):
                _finish(folder, place, _learned(folder, _on(device, settings.readouts), shown))
    return Probed(folder.path, len(val.labels), tuple(_figures(folder.trials)), tuple(_there(folder).notes))


def _checked(name: str) -> str:
    try:
        return usable_name(name)
    except ValueError as error:
        raise UserError(str(error), option="name") from error


def _on(device: str, readouts: Sequence[Readout]) -> list[Readout]:
    return [replace(readout, device=device) if isinstance(readout, Sgd) else readout for readout in readouts]


def _images(run: RunFolder, job: ResolvedJob, dataset: str | None) -> tuple[ImageDataset, ImageDataset]:
    """Training and validation images, labeled alike."""
    if needs_all_classes(run, job, dataset or job.dataset):
        classes = trained_classes(run)
        return open_training(job, classes), open_validation(job, job.dataset, classes, needs_all=True)
    splits = open_data_set(dataset or job.dataset, Path(job.data_root), job.image_column, job.label_column)
    return splits.train, splits.val


def _record(
    run: RunFolder, job: ResolvedJob, splits: Sequence[ImageDataset], settings: ProbeSettings, wanted: Wanted
) -> EvaluationRecord:
    """Of one that is begun."""
    train, val = (description_of(run, source, image_names(source), wanted, job) for source in splits)
    readouts = {readout.name: asdict(readout) for readout in settings.readouts}  # type: ignore[call-overload]
    for one in readouts.values():
        one.pop("device", None)  # which decides no more than the last bits
    measured = {"train": train, "val": val, "layers": list(settings.layers), "readouts": readouts}
    return EvaluationRecord(
        plan={"probe": json.loads(json.dumps({"layers": list(settings.layers), "readouts": readouts}))},
        measured=json.loads(json.dumps(measured)),
        observer=observer_of(run, settings.weights),
        architecture=job.architecture,
        dataset=settings.dataset or job.dataset,
        epoch=epoch_of(trained_weights(run, job, settings.weights)),
        images=len(splits[1].labels),
        versions=versions(),
    )


def _begin(folder: EvaluationFolder, place: RunFolder, own: EvaluationRecord) -> None:
    """What is not complete, and of something else, makes way. Raises UserError where something else is complete."""
    there = read_evaluation(folder)
    if there is not None:
        keys = sorted(there.measured.keys() | own.measured.keys())
        differ = [key for key in keys if there.measured.get(key) != own.measured.get(key)]
        if differ and there.complete:
            raise UserError(
                f"{folder.path} has an evaluation of something else: other {', '.join(differ)}",
                option="name",
                hint="give another, or remove it",
            )
        if differ not in ([], ["readouts"]):
            remove_tree(folder.unfinished)
        if there.complete:
            return
    with errors_named(folder.path):
        folder.unfinished.mkdir(parents=True, exist_ok=True)
        write_evaluation(folder, own, place)


def _there(folder: EvaluationFolder) -> EvaluationRecord:
    if (record := read_evaluation(folder)) is None:
        raise UserError("is gone: somebody has removed it", where=folder.record)
    return record


def _finish(folder: EvaluationFolder, place: RunFolder, notes: Sequence[str]) -> None:
    """All trials are there: what is computed from them, and then evaluation.json, which says so."""
    place.check_owner()
    write_atomic(folder.summary, as_csv(_figures(folder.trials)))
    write_evaluation(folder, replace(_there(folder), complete=True, notes=list(notes)), place)
    remove_tree(folder.unfinished)


@dataclass(frozen=True)
class _Shown:
    """observer: the model's name; names: of the validation images."""

    observer: str
    names: Sequence[str]
    train_labels: Labels
    val_labels: Labels
    classes: tuple[str, ...]


def _learned(folder: EvaluationFolder, readouts: Sequence[Readout], shown: _Shown) -> list[str]:
    """Write the trials of all layers and readouts; what is to be said of them."""
    train, val = (read_features(folder.unfinished / split) for split in ("train", "val"))
    known, seen = (_not_corrupt(features) for features in (train, val))
    notes = list[str]()
    with writing_trials(folder.trials) as add:
        for name, rows in train.layers.items():
            of_train, of_val = _rows(rows, known), _rows(val.layers[name], seen)
            for readout in readouts:
                labels = shown.train_labels[known]
                found, said = readout.probabilities(of_train, labels, of_val, len(shown.classes))
                add(_trials(found, seen, name, readout.name, shown))
                notes += [f"{name}, {readout.name}: {note}" for note in said]
    return notes


def _not_corrupt(features: Features) -> Labels:
    """Indices of images."""
    return np.array([index for index, name in enumerate(features.names) if name not in features.corrupt], np.int64)


def _rows(rows: Rows, indices: Labels) -> Rows:
    return rows if len(indices) == rows.shape[0] else Chosen(rows, indices)


def _trials(found: Probabilities, indices: Labels, layer: str, readout: str, shown: _Shown) -> Trials:
    """Of one layer in one cycle. A layer that is called once has cycle 0."""
    number, labels = len(indices), shown.val_labels[indices]
    area, cycle = layer_and_cycle(layer)
    response = found.argmax(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(found > 0, found * np.log(found), 0.0)
    names = tuple(shown.names[index] for index in indices.tolist())
    return Trials(
        image=Factor(np.arange(number, dtype=np.int32), names),
        true_class=Factor(labels.astype(np.int32), shown.classes),
        response=Factor(response.astype(np.int32), shown.classes),
        correct=response == labels,
        observer=Factor.constant(shown.observer, number),
        conditions={READOUT: Factor.constant(readout, number)},
        layer=Factor.constant(area, number),
        cycle=np.full(number, cycle or 0, np.int32),
        classes=shown.classes,
        probabilities=found,
        entropy=-terms.sum(1).astype(np.float32),
    )


def _figures(trials: Path) -> list[Figure]:
    """`<readout>_accuracy`, with Wilson's intervals."""
    found = accuracy(trial_blocks(trials, probabilities=False))
    return [replace(figure, cell=figure.cell.who, metric=f"{figure.cell.levels[READOUT]}_accuracy") for figure in found]
