"""From answers on the disk to the table of trials and its summary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accel_trainer.core.files import write_atomic
from accel_trainer.core.text import one_line
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.evaluation.answer_files import AnswerFiles, States
from accel_trainer.evaluation.answers import AnswerKind, Records
from accel_trainer.evaluation.conditions import Shown
from accel_trainer.evaluation.identity import image_names
from accel_trainer.evaluation.rows_on_disk import DONE
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.calibration import calibration
from accel_trainer.measures.factor import Factor
from accel_trainer.measures.figures import as_csv
from accel_trainer.measures.trials import Trials
from accel_trainer.measures.trials_file import trial_blocks, writing_trials

# Of a part of the table that is in memory at once.
BLOCK_BYTES = 2**23


@dataclass(frozen=True)
class Shows:
    """What the rows are of. observer: the model's name; sources: the images of all conditions, or those of each."""

    observer: str
    sources: Sequence[ImageDataset]
    classes: Sequence[str]

    def source(self, shown: Shown) -> int:
        """The place of the images under a condition."""
        return shown.pixels if len(self.sources) > 1 else 0

    def names(self, source: int) -> list[str]:
        """What the images of a source are called, each in a line."""
        return [one_line(name) for name in image_names(self.sources[source])]


def write_trials(path: Path, files: AnswerFiles, conditions: Sequence[Shown], shows: Shows) -> bool:
    """Write all answers, condition by condition and image by image, without those to corrupt images; whether all
    probabilities are numbers. The file appears whole. Raises OSError."""
    states = files.states()
    are_numbers = True
    with writing_trials(path) as add:
        for source, of_source in groupby(conditions, key=shows.source):
            names = shows.names(source)
            for trials in chain.from_iterable(_of_condition(files, shown, states, names, shows) for shown in of_source):
                add(trials)
                are_numbers &= trials.entropy is not None and bool(np.isfinite(trials.entropy).all())
    return are_numbers


def write_summary(path: Path, trials: Path, *, with_calibration: bool) -> None:
    """Accuracy, and where it is known the calibration error, of each condition and cycle, as CSV in long form."""
    figures = accuracy(trial_blocks(trials, probabilities=False))
    if with_calibration:
        figures += calibration(trial_blocks(trials))
    write_atomic(path, as_csv(figures))


def _of_condition(files: AnswerFiles, shown: Shown, states: States, names: list[str], shows: Shows) -> Iterator[Trials]:
    of_image = files.kind.num_cycles * (files.kind.dtype.itemsize + 64)
    size = max(1, BLOCK_BYTES // of_image)
    labels = shows.sources[shows.source(shown)].labels
    for start in range(0, files.num_images, size):
        is_there = states[shown.pixels, start : start + size] == DONE
        if is_there.any():
            records = files.records(shown.pixels, start, len(is_there))[is_there]
            indices = start + np.flatnonzero(is_there)
            yield _trials([names[index] for index in indices], labels[indices], records, shown, files.kind, shows)


def _trials(
    names: Sequence[str], truth: npt.NDArray[np.int64], records: Records, shown: Shown, kind: AnswerKind, shows: Shows
) -> Trials:
    flat = records.reshape(-1)
    length, cycles = len(flat), kind.num_cycles
    classes = tuple(shows.classes)
    labels = np.repeat(truth, cycles).astype(np.int32)
    response = flat["response"]
    return Trials(
        image=Factor(np.repeat(np.arange(len(names), dtype=np.int32), cycles), tuple(names)),
        true_class=Factor(labels, classes),
        response=Factor(response.astype(np.int32), classes),
        correct=response == labels,
        observer=Factor.constant(shows.observer, length),
        conditions={name: Factor.constant(level, length) for name, level in shown.columns.items()},
        cycle=np.tile(np.arange(cycles, dtype=np.int32), len(names)) if cycles > 1 else None,
        classes=classes,
        probabilities=flat["probabilities"] if kind.num_probabilities else None,
        top_classes=flat["top_classes"] if kind.num_probabilities and not kind.has_all else None,
        entropy=flat["entropy"],
    )
