"""What is measured at the end of an epoch: of the model, of the averages of its weights, on all data sets."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from accel_trainer.config import ResolvedJob
from accel_trainer.data.loader import Loader
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.training.build import Components
from accel_trainer.training.optim.averaging import Averages, update_batch_norm
from accel_trainer.training.optim.optimizer import learning_rate
from accel_trainer.training.runtime.kernels import in_memory_format
from accel_trainer.training.step import TrainingStep
from accel_trainer.training.validation import EvaluationSet, Evaluator


class Interruptions(Protocol):
    """How an evaluation can be stopped, and who is told how far it is."""

    def note_validation(self, split: str, done: int, total: int) -> None:
        """So many batches of a split are done, of how many."""
        ...

    def is_stopped(self) -> bool:
        """Whether this rank was asked to stop; looked at between two batches."""
        ...

    def sync_stop(self) -> None:
        """Where ranks that have had different numbers of batches wait for each other. Raises Stopped, on all."""
        ...


class EpochValidation:
    """Evaluates what a training has come to. finished_swa: after the last epoch, the stochastic average."""

    def __init__(
        self,
        job: ResolvedJob,
        parts: Components,
        step: TrainingStep,
        averages: Averages,
        accelerator: Accelerator,
        loader: Loader,
    ) -> None:
        self._job, self._parts, self._step, self._averages = job, parts, step, averages
        self._accelerator, self._loader = accelerator, loader
        self.evaluator = Evaluator(accelerator, loader, step.objective, partial(in_memory_format, job))
        self.finished_swa: nn.Module | None = None

    def rows(self, epoch: int, global_step: int, interruptions: Interruptions) -> Iterator[PerformanceRow]:
        """A row for each split: the validation set, further data sets, and the averages on the validation set."""
        model, val = self._step.plain_model, self._parts.val
        self._share_buffers(model)
        yield self.row(epoch, "val", model, val, interruptions, with_neighbors=True)
        for split, images in self._parts.eval_sets.items():
            yield self.row(epoch, split, model, images, interruptions)
        if (ema := self._averages.ema) is not None:
            self._share_buffers(ema)
            yield self.row(epoch, "val_ema", ema, val, interruptions, with_neighbors=True)
        if (swa := self._swa_after(epoch, global_step, interruptions)) is not None:
            yield self.row(epoch, "val_swa", swa, val, interruptions, with_neighbors=True)

    def row(
        self,
        epoch: int,
        split: str,
        model: nn.Module,
        images: EvaluationSet,
        interruptions: Interruptions,
        *,
        with_neighbors: bool = False,
    ) -> PerformanceRow:
        """What a model scores on images. with_neighbors: in epochs that have it, the k-nearest-neighbor test too."""
        began = time.monotonic()
        sums = self.evaluator.measure(model, images, self._noting(split, images, interruptions))
        interruptions.sync_stop()
        scores = self._step.objective.scores(self.evaluator.totals(sums, images.reader))
        if with_neighbors and self._tests_neighbors(epoch):
            scores |= self._neighbor_scores(model, interruptions)
        return self.as_row(epoch, split, scores, images.num_images, time.monotonic() - began)

    def _noting(self, split: str, images: EvaluationSet, interruptions: Interruptions) -> Callable[[], bool]:
        """Whether to stop; asked before each batch, which is also told."""
        batches = math.ceil(images.num_images / images.images_per_batch / self._accelerator.num_processes)
        done = itertools.count()

        def is_stopped() -> bool:
            interruptions.note_validation(split, next(done), max(1, batches))
            return interruptions.is_stopped()

        return is_stopped

    def as_row(
        self, epoch: int, split: str, scores: Mapping[str, float], num_examples: int, seconds: float
    ) -> PerformanceRow:
        """A row of performance.csv, with the learning rate of now."""
        rate = learning_rate(self._step.optimizer)
        return PerformanceRow.measured(epoch, split, scores, rate, num_examples, seconds)

    def _tests_neighbors(self, epoch: int) -> bool:
        interval = self._job.knn_interval
        return interval > 0 and (epoch % interval == 0 or epoch == self._job.num_epochs)

    def _neighbor_scores(self, model: nn.Module, interruptions: Interruptions) -> dict[str, float]:
        """Accuracy of the nearest neighbors among the training images."""
        test = self._parts.knn
        queries = test.queries(model, self.evaluator, interruptions.is_stopped)
        interruptions.sync_stop()
        hits = test.hits(model, queries, self.evaluator, interruptions.is_stopped)
        interruptions.sync_stop()
        return test.scores(self.evaluator.totals(hits, test.val.reader))

    def _swa_after(self, epoch: int, global_step: int, interruptions: Interruptions) -> nn.Module | None:
        """After the last epoch, the averaged model with BatchNorm statistics of its own: those of the training images
        as the last epoch has seen them."""
        is_last = epoch == self._job.num_epochs
        swa = self._averages.swa_after(epoch, self._step.plain_model) if is_last else None
        if swa is None:
            return None
        with torch.no_grad(), self._accelerator.autocast():
            inputs = self._inputs_of_epoch(epoch, global_step, interruptions)
            renewed = update_batch_norm(swa, inputs, self._parts.frozen)
        interruptions.sync_stop()
        for statistic in renewed:  # of as many batches on every rank
            statistic.copy_(self._accelerator.reduce(statistic.clone(), reduction="mean"))
        self.finished_swa = swa
        return swa

    def _inputs_of_epoch(self, epoch: int, global_step: int, interruptions: Interruptions) -> Iterator[Tensor]:
        plans = self._parts.sampling.micro_batches(epoch, self._accelerator.process_index)
        for number, batch in enumerate(self._loader.batches(self._parts.train_reader, plans)):
            if interruptions.is_stopped():
                return
            self._step.seed_model(global_step, number)
            yield in_memory_format(self._job, batch.inputs.on(self._accelerator.device))

    def _share_buffers(self, model: nn.Module) -> None:
        """BatchNorm statistics differ between ranks after a step: all take rank 0's."""
        if self._accelerator.num_processes > 1:
            for buffer in model.buffers():
                buffer.copy_(broadcast(buffer.clone(), from_process=0))
