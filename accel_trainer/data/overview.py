"""What a job's data is, in a line or two and within a moment: nothing is decoded, converted or fetched."""

from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np

from accel_trainer.config import Job
from accel_trainer.config.dataset_names import is_hugging_face, place_of
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home, expand_home_if_any
from accel_trainer.core.text import first_line, listed
from accel_trainer.data.open import open_images
from accel_trainer.data.sources.split_loading import describe_files

PATIENCE_S = 0.8
_LATER = "`accel-train validate` opens and counts it"


def describe_data(job: Job, patience_s: float = PATIENCE_S) -> list[str]:
    """The splits of a job's data set with their numbers of images and of classes, a line each; what would be read,
    where that is not at hand or takes longer.

    patience_s: how long to look. What is looked at may be a disk that never answers.
    """
    place = _place(job)
    answers: SimpleQueue[list[str]] = SimpleQueue()
    look: Callable[[Job], list[str]] = _of_hugging_face if is_hugging_face(job.dataset) else _of_images
    thread = Thread(target=lambda: answers.put(_looked(look, job)), name="overview", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads may be started
        return _looked(look, job)
    try:
        return answers.get(timeout=patience_s)
    except Empty:
        return [f"{place}: not counted here, which would take longer; {_LATER}"]


def _place(job: Job) -> str:
    return job.dataset if is_hugging_face(job.dataset) else str(Path(job.data_root) / job.dataset)


def _looked(look: Callable[[Job], list[str]], job: Job) -> list[str]:
    try:
        return look(job)
    except UserError as error:
        return [f"{_place(job)} is to be read: {problem.message}" for problem in error.details[:1]]
    except (OSError, ValueError) as error:  # a folder that may not be read, a table that is damaged
        return [f"{_place(job)} is to be read: {first_line(error)}"]


def _of_images(job: Job) -> list[str]:
    images = open_images(job)
    there = (expand_home_if_any(job.data_root) / job.dataset).exists()
    splits = {"train": images.train, "val": images.val, **images.eval_sets}
    lines = [f"{_place(job) if there else job.dataset}:"]
    for name, source in splits.items():
        num_classes = len(np.unique(source.labels))
        lines.append(f"  {name}: {len(source.labels):,} images of {num_classes:,} classes")
    lines.append(f"  classes: {listed(images.train.classes, 10)}")
    return [*lines, *(f"  {note}" for note in images.notes)]


def _of_hugging_face(job: Job) -> list[str]:
    """Of tables and folders here their names and numbers of rows; whatever else there is would have to be opened."""
    path = expand_home(place_of(job.dataset))
    said = describe_files(path, place_of(job.dataset)) if path.exists() else None
    if said is None:
        return [f"{job.dataset} is to be read{'' if path.exists() else ' from the Hugging Face hub'}; {_LATER}"]
    return [f"{job.dataset}: {said}"]
