"""Evaluate trained weights on a data set, exactly as the validation of the training does."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from accel_trainer.config import ResolvedJob
from accel_trainer.core.disk_calls import never
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.listing import Input
from accel_trainer.data.open import open_training, open_validation
from accel_trainer.data.pipeline import inputs_of, training_spectrum, training_views
from accel_trainer.data.views import Views
from accel_trainer.evaluation.trained_model import epoch_of, trained_model, with_data_in
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import is_anchor, needs_all_classes, trained_classes, trained_job, trained_weights
from accel_trainer.run.performance import PerformanceRow, write_performance
from accel_trainer.run.status import RunState, Status, write_status
from accel_trainer.training.build import make_objective
from accel_trainer.training.identity.check import input_differences
from accel_trainer.training.knn import knn_test
from accel_trainer.training.meta_model import cycle_axis, cycles_of
from accel_trainer.training.runtime.accelerator import Assembly, assembly
from accel_trainer.training.runtime.data_parallel import moves_model
from accel_trainer.training.runtime.kernels import in_memory_format, store_weights
from accel_trainer.training.validation import Evaluator, validation_set, validation_views


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    weights: as they were named; epoch: the one after which they were saved, if known; images: number of evaluated
    images, without the corrupt ones; scores: the loss, and accuracies in percent, named as in performance.csv.
    other_inputs: where the images are augmented from other files than in the training, which ones.
    """

    weights: str
    epoch: int | None
    dataset: str
    images: int
    corrupt: int
    scores: Mapping[str, float]
    other_inputs: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """All fields and scores as plain values; None for a score that is not finite. Without other_inputs where there
        are none."""
        scores = {name: value if math.isfinite(value) else None for name, value in self.scores.items()}
        others = {"other_inputs": list(self.other_inputs)} if self.other_inputs else {}
        fields = {key: value for key, value in asdict(self).items() if key not in ("scores", "other_inputs")}
        return {**fields, **scores, **others}


def evaluate(
    run: RunFolder, weights: str = "best", dataset: str | None = None, data_root: Path | None = None
) -> Evaluation:
    """Evaluate weights of a run on the validation images of its own data set or of another one.

    weights: see `trained_weights`; dataset: as in a job; data_root: the folder that it is in, by default the job's.
    Every process of a launch calls it and gets the same answer. The run folder is not changed, but for that of weights
    which were not trained here: what their own data set says of them is their performance.csv. Raises UserError.
    """
    began = time.monotonic()
    job = trained_job(run)
    name = job.dataset if dataset is None else dataset
    there = with_data_in(job, data_root)
    is_own = name == job.dataset
    job = there if is_own else job
    path, classes = trained_weights(run, job, weights), trained_classes(run)
    with waiting_out_until_interrupted(), assembly(job, run) as parts:
        source = open_validation(there, name, classes, needs_all=needs_all_classes(run, job, name))
        measuring = RunEvaluator(job, run, classes, trained_model(job, path, len(classes)), parts)
        scores, corrupt = measuring.validate(source)
        if is_own and job.knn_interval > 0:
            scores |= measuring.knn_scores(source)
    num_images = len(source.labels) - corrupt
    if is_own and weights == "best" and measuring.is_first and is_anchor(run):
        row = PerformanceRow.measured(0, "val", scores, 0.0, num_images, time.monotonic() - began)
        _note(run, job, row, corrupt)
    return Evaluation(weights, epoch_of(path), name, num_images, corrupt, scores, measuring.other_inputs)


def _note(run: RunFolder, job: ResolvedJob, row: PerformanceRow, corrupt: int) -> None:
    """Keep what weights that were not trained here have scored, where `compare` looks for it. Raises OSError."""
    write_performance(run, [row])
    metric = job.primary_metric
    best = row.scores.get(metric, row.scores["loss"])
    about = {"best": best, "best_epoch": 0, "primary_metric": metric, "corrupt_images": corrupt}
    write_status(run, Status(state=RunState.PRETRAINED, **about))


class RunEvaluator:
    """A trained model with what is needed to evaluate it as its training did."""

    def __init__(self, job: ResolvedJob, run: RunFolder, classes: list[str], model: nn.Module, parts: Assembly) -> None:
        accelerator = parts.accelerator
        self.run, self.is_first = run, parts.is_first
        self.other_inputs: tuple[str, ...] = ()
        self.job, self.classes, self.world_size = job, classes, accelerator.num_processes
        num_cycles = cycles_of(job, model, len(classes))
        self.objective = make_objective(job, len(classes), num_cycles, cycle_axis(model)).to(accelerator.device)
        store_weights(job, model, accelerator.device)
        # In the precision of the training, but not wrapped: ranks have different numbers of forward passes.
        self.model = accelerator.prepare_model(model, device_placement=moves_model(accelerator), evaluation_mode=True)
        self.evaluator = Evaluator(accelerator, parts.loader, self.objective, partial(in_memory_format, job))
        self.augment_on_device = parts.augment_on_device

    def validate(self, dataset: ImageDataset) -> tuple[dict[str, float], int]:
        """The scores of the objective on validation images, and the number of corrupt images."""
        on_device = self.augment_on_device

        def train_views() -> Views:
            spectrum = training_spectrum(self.job, lambda: self._train_images)
            views = training_views(self.job, spectrum, on_device=on_device)
            self._compare(inputs_of(self.job, views, spectrum))
            return views

        views = validation_views(self.job, train_views, augment_on_device=on_device)
        images = validation_set(self.job, dataset, views, self.world_size)
        sums = self.evaluator.measure(self.model, images, never)
        totals, corrupt = self.evaluator.reduce_sums(sums, images.reader)
        return self.objective.scores(totals), corrupt

    def knn_scores(self, source: ImageDataset) -> dict[str, float]:
        """The accuracy of a k-nearest-neighbor classifier on the run's training images."""
        test = knn_test(self.job, self._train_images, source, self.world_size)
        hits = test.hits(self.model, test.queries(self.model, self.evaluator, never), self.evaluator, never)
        return test.scores(self.evaluator.reduce_sums(hits, test.val.reader)[0])

    def _compare(self, inputs: Mapping[str, Input]) -> None:
        """Scores of augmented images are to be compared with those of the training."""
        if self.is_first:
            self.other_inputs = tuple(map(str, input_differences(self.job, self.run, inputs)))

    @cached_property
    def _train_images(self) -> ImageDataset:
        return open_training(self.job, self.classes)
