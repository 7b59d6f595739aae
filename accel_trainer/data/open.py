"""A data set by the name that a job gives it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from accel_trainer.config import Job
from accel_trainer.config.dataset_names import is_hugging_face, place_of
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.files import expand_home_if_any
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.core.outage import persistently
from accel_trainer.core.text import listed
from accel_trainer.data.dataset import ClassSubset, ImageDataset, Relabeled, Splits, normal_form
from accel_trainer.data.pack.format import is_pack, open_pack, open_packed_split
from accel_trainer.data.sources.digits import BUNDLED, Digits
from accel_trainer.data.sources.folders import open_folders, open_validation_folder

T = TypeVar("T")


def open_images(job: Job) -> Splits:
    """The data sets that a job names, with its class_subset. Raises UserError."""
    mistakes = Mistakes()
    whole = open_data_set(job.dataset, Path(job.data_root), job.image_column, job.label_column)
    images = mistakes.of(lambda: _chosen(job, whole))
    eval_sets = mistakes.of(lambda: _open_eval_sets(job, (images or whole).classes))
    mistakes.raise_found()
    return replace(images or whole, eval_sets=eval_sets or {})


def _chosen(job: Job, images: Splits) -> Splits:
    """The images of the job's classes. Raises UserError where one has none."""
    if job.class_subset is not None:
        train, val = (ClassSubset(source, job.class_subset) for source in (images.train, images.val))
        images = replace(images, train=train, val=val)
    for split, source in (("train", images.train), ("val", images.val)):
        counts = np.bincount(source.labels, minlength=len(source.classes))
        if empty := [name for name, count in zip(source.classes, counts, strict=True) if count == 0]:
            raise UserError(
                f"{job.dataset!r} has no {split} images of class {listed(empty)}",
                key="dataset",
                hint="; ".join(note for note in images.notes if "suffixes" in note) or None,
            )
    return images


def check_eval_sets(job: Job) -> None:
    """Whether the job's further data sets are there, whatever the classes of its own. Raises UserError."""
    mistakes = Mistakes()
    for name in job.eval_sets:
        mistakes.of(partial(_in_eval_sets, partial(_open_validation, job, name)))
    mistakes.raise_found()


def _open_eval_sets(job: Job, classes: Sequence[str]) -> dict[str, ImageDataset]:
    opened, mistakes = dict[str, ImageDataset](), Mistakes()
    for split, name in job.eval_splits.items():
        source = mistakes.of(partial(_in_eval_sets, partial(open_validation, job, name, classes)))
        if source is not None:
            opened[split] = source
    mistakes.raise_found()
    return opened


def _in_eval_sets(look: Callable[[], T]) -> T:
    """What a function gives; its errors are of `eval_sets`."""
    try:
        return look()
    except UserError as error:
        raise UserError(*map(_of_eval_sets, error.details)) from error


def _of_eval_sets(problem: Problem) -> Problem:
    """A problem of a data set as one of `eval_sets`, which names it; that of another parameter still names that."""
    message = problem.message if problem.key in ("dataset", None) else f"{problem.key}: {problem.message}"
    return replace(problem, key="eval_sets", message=message)


def open_validation(job: Job, name: str, classes: Sequence[str], *, needs_all: bool = False) -> ImageDataset:
    """The validation images of a data set, labeled as the classes of a run, by name; whichever of them it has, unless
    it needs all.

    name: as in `dataset`, a folder below the job's data_root. Raises UserError.
    """
    has_others = name == job.dataset and job.class_subset is not None
    source = _open_validation(job, name)
    if needs_all:
        require_classes(source, classes, name)
    return with_classes(source, classes, name, leave_out_others=has_others)


def validation_classes(job: Job, name: str) -> list[str]:
    """The classes of a data set's validation images, in its order. Raises UserError."""
    return list(_open_validation(job, name).classes)


def open_training(job: Job, classes: Sequence[str]) -> ImageDataset:
    """The training images of a job's data set, labeled as the classes of a run, by name. Raises UserError also where a
    class has none."""
    source = open_data_set(job.dataset, Path(job.data_root), job.image_column, job.label_column).train
    require_classes(source, classes, job.dataset)
    return with_classes(source, classes, job.dataset, leave_out_others=job.class_subset is not None)


def require_classes(source: ImageDataset, classes: Sequence[str], name: str) -> None:
    """Refuse a data set in which images of some classes of a run are missing. Raises UserError."""
    there = np.bincount(source.labels, minlength=len(source.classes)) > 0
    known = {normal_form(one): one for one, is_there in zip(source.classes, there.tolist(), strict=True) if is_there}
    if missing := [one for one in classes if normal_form(one) not in known]:
        raise UserError(
            f"{name!r} has no images of classes that the run was trained on: {listed(missing, 5)}; it has "
            f"{listed(sorted(known.values()), 5)}",
            key="dataset",
            hint="were class folders renamed or removed since?",
        )


def _open_validation(job: Job, name: str) -> ImageDataset:
    if is_hugging_face(name):
        from accel_trainer.data.sources.hugging_face import open_hugging_face_validation

        return open_hugging_face_validation(place_of(name), job.image_column, job.label_column)
    root = expand_home_if_any(job.data_root)
    if _is_bundled(name, root):
        return Digits("val")
    if _is_pack(root / name, "val"):
        return open_packed_split(root / name, "val")
    return open_validation_folder(root, name, BUNDLED)


def _is_bundled(name: str, root: Path) -> bool:
    """Whether a data set comes with the package. Raises UserError where there is a folder of that name, too."""
    if name not in BUNDLED:
        return False
    if (root / name).is_dir():
        raise UserError(
            f"{name!r} is a data set that comes with accel-train, and there is a folder {root / name}",
            key="dataset",
            hint="rename the folder to mean that, or give a data_root without one to mean the other",
        )
    return True


def with_classes(
    source: ImageDataset, classes: Sequence[str], name: str, *, leave_out_others: bool = False
) -> ImageDataset:
    """The images of a data set with the labels that their classes, by name, have among `classes`.

    Raises UserError for images of any other class, unless those are to be left out, and where no image is left.
    """
    number = {normal_form(name): label for label, name in enumerate(classes)}
    new_labels = np.array([number.get(normal_form(name), -1) for name in source.classes])
    there = np.bincount(source.labels, minlength=len(source.classes)) > 0
    others = [source.classes[label] for label in np.flatnonzero(there & (new_labels < 0)).tolist()]
    if others and not leave_out_others:
        raise UserError(
            f"{name!r} has classes that training has not: {listed(others, 5)}; it has {listed(classes, 5)}; "
            "rename the class folders, or take these out",
            key="dataset",
        )
    if not (there & (new_labels >= 0)).any():
        raise UserError(f"{name!r} has no validation images of {listed(classes, 5)}", key="dataset")
    return Relabeled(source, new_labels, classes)


def open_data_set(name: str, data_root: Path, image_column: str | None, label_column: str | None) -> Splits:
    """A data set by the name that a job gives it, with all its classes. Raises UserError."""
    if is_hugging_face(name):
        from accel_trainer.data.sources.hugging_face import open_hugging_face

        return open_hugging_face(place_of(name), image_column, label_column)
    root = expand_home_if_any(data_root)
    if _is_bundled(name, root):
        return Splits(Digits("train"), Digits("val"))
    return open_pack(root / name) if _is_pack(root / name, "train") else open_folders(root, name, BUNDLED)


def _is_pack(folder: Path, split: str) -> bool:
    """Whether it is a pack, and no data set of folders with this split. Waits for one that was there before: which of
    both it is cannot be seen while its disk is away."""

    def look() -> bool:
        if is_pack(folder):
            return True
        (folder / split).stat()
        return False

    try:
        return persistently(look, lambda: str(folder / split), may_be_missing=True)
    except OSError:  # who opens it says what is wrong
        return False
