"""The training loop."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from accel_trainer.config import ResolvedJob
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.spans import Phase, span, spanned, timed
from accel_trainer.core.text import listed
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.loader import Batch, ImageReader, Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, performance_row, write_performance
from accel_trainer.run.status import Divergence
from accel_trainer.training.build import Components
from accel_trainer.training.failures import Diverged, FiniteCheck
from accel_trainer.training.objectives.base import Meter
from accel_trainer.training.optim.averaging import Averages, update_batch_norm
from accel_trainer.training.optim.optimizer import learning_rate
from accel_trainer.training.reporting import Plotter, Reporter
from accel_trainer.training.runtime.accelerator import in_memory_format
from accel_trainer.training.runtime.environment import this_environment
from accel_trainer.training.runtime.ranks import Agreement, Stopped
from accel_trainer.training.state.checkpoint import Progress, StateStore, TrainState, save_weights
from accel_trainer.training.step import TrainingStep
from accel_trainer.training.tracking import Tracking
from accel_trainer.training.validation import EvaluationSet, Evaluator

log = logging.getLogger(__name__)
Row = dict[str, Any]


class TrainingLoop:
    """Trains the parts of one job from where `progress` says to `num_epochs`.

    All ranks run it; what is written is written by rank 0.
    """

    def __init__(
        self,
        job: ResolvedJob,
        run: RunFolder,
        parts: Components,
        accelerator: Accelerator,
        loader: Loader,
        stop: StopRequest,
        reporter: Reporter,
    ) -> None:
        self.job, self.run, self.parts = job, run, parts
        self.accelerator, self.loader, self.stop, self.reporter = accelerator, loader, stop, reporter
        # Before Accelerate wraps the model's forward pass, which a copy would share with the original.
        self.averages = Averages(job, parts.model).to(accelerator.device)
        self.step = TrainingStep(job, parts, accelerator)
        self.objective, self.optimizer = self.step.objective, self.step.optimizer
        self.plain_model = self.step.plain_model
        if job.compile:
            self.plain_model.compile()
        self.world = this_environment(accelerator, loader.num_threads)
        self.world_size, self.rank = accelerator.num_processes, accelerator.process_index
        self.evaluator = Evaluator(accelerator, loader, self.objective, partial(in_memory_format, job))
        self.meter = Meter(accelerator.device, self.objective.num_sums)
        self.progress = Progress()
        self.finished_swa: nn.Module | None = None
        self._check_trackers: Callable[[], None] = lambda: None
        self.states = StateStore(run)
        self.agreement = Agreement(self.world_size, self.rank, 60 * job.save_every_minutes)
        self.is_finite = FiniteCheck(self.plain_model, self.optimizer)
        # The first step whose loss or gradient was not finite, on the device, so that nobody has to wait to know.
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=accelerator.device)

    @property
    def is_first(self) -> bool:
        return bool(self.accelerator.is_main_process)

    # -- the story ------------------------------------------------------------------------------------------

    def train(self, tracking: Tracking, plotter: Plotter | None) -> None:
        """All epochs that are left. Raises Stopped or Diverged."""
        self._check_trackers = tracking.check
        while self.progress.epoch < self.job.num_epochs:
            epoch = self.progress.epoch + 1
            rows = [self._train_epoch(epoch), *self._evaluate_epoch(epoch)]
            self._end_epoch(epoch, rows, tracking)
            if self.is_first:
                self.reporter.report_epoch(self.progress, self.job.primary_metric)
                if plotter is not None:
                    plotter.draw()
        if self.is_first:
            self.states.keep_only_newest()

    def _train_epoch(self, epoch: int) -> Row:
        """The steps of an epoch that are left; what was measured in all of them."""
        sampling, progress = self.parts.sampling, self.progress
        if progress.step == 0:
            self.step_schedule(progress.epoch)
        self.step.train_mode()
        self.take_steps(sampling.micro_batches(epoch, self.rank, first_step=progress.step))
        self._check_finite()
        self._sync_stop()
        scores = self.objective.scores(self._over_all(self.meter.sums, self.parts.train_reader))
        return self._row(epoch, "train", scores, sampling.examples_per_epoch, progress.epoch_seconds)

    def take_steps(self, plans: Iterable[BatchPlan]) -> None:
        """An optimizer step for every `accumulation` of these micro-batches, with all that belongs to it."""
        began = time.monotonic() - self.progress.epoch_seconds
        for number, batch in enumerate(timed(self.loader.batches(self.parts.train_reader, plans))):
            with span(Phase.STEP):
                self._learn(batch, number % self.parts.sampling.accumulation)
                if self.accelerator.sync_gradients:
                    self._end_step(began)

    def _learn(self, batch: Batch, micro_batch: int) -> None:
        judged = self.step(batch, self.progress.global_step, micro_batch)
        with span(Phase.METRICS):
            self.meter.add(judged.sums)
            self._note_bad_step(judged.loss.detach().isfinite(), self.progress.global_step + 1)

    def _end_step(self, began: float) -> None:
        with span(Phase.AVERAGES):
            self.averages.after_step(self.plain_model)
        progress = self.progress
        progress.step += 1
        progress.global_step += 1
        progress.epoch_seconds = time.monotonic() - began
        self._after_step()

    def step_schedule(self, epoch: int) -> None:
        """Between this epoch and the next. Not after the last one: a schedule that ends there cannot be stepped
        further, and a run that is given more epochs later finds it as it was."""
        progress, metric = self.progress, self.job.primary_metric
        of_epoch = [row for row in progress.history if row["epoch"] == epoch and row["split"] == "val"]
        if of_epoch and progress.best is not None:
            row = of_epoch[0]
            self.parts.schedule.step(row[metric if metric in row else "loss"])
        elif epoch:  # nothing is known of it, or nothing that could be compared with what comes
            self.parts.schedule.skip(1)

    def _note_bad_step(self, is_finite: Tensor, step: int) -> None:
        self.bad_step.masked_fill_(~is_finite & (self.bad_step < 0), step)

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _evaluate_epoch(self, epoch: int) -> Iterator[Row]:
        """What the validation finds in the model, on further data sets too, and in the averages of its weights."""
        self._share_buffers(self.plain_model)
        yield self._evaluate(epoch, "val", self.plain_model)
        for split, images in self.parts.eval_sets.items():
            yield self._evaluate(epoch, split, self.plain_model, images)
        if (ema := self.averages.ema) is not None:
            self._share_buffers(ema)
            yield self._evaluate(epoch, "val_ema", ema)
        if (swa := self._finished_swa(epoch)) is not None:
            yield self._evaluate(epoch, "val_swa", swa)

    def _evaluate(self, epoch: int, split: str, model: nn.Module, further: EvaluationSet | None = None) -> Row:
        began = time.monotonic()
        images = self.parts.val if further is None else further
        sums = self.evaluator.measure(model, images, self._is_stopped)
        self._sync_stop()
        scores = self.objective.scores(self._over_all(sums, images.reader))
        if further is None and self._tests_neighbours(epoch):
            scores |= self._neighbour_score(model)
        return self._row(epoch, split, scores, images.num_images, time.monotonic() - began)

    def _tests_neighbours(self, epoch: int) -> bool:
        interval = self.job.knn_interval
        return interval > 0 and (epoch % interval == 0 or epoch == self.job.num_epochs)

    def _neighbour_score(self, model: nn.Module) -> dict[str, float]:
        """Accuracy of the nearest neighbours among the training images."""
        test = self.parts.knn
        own = test.local_bank(model, self.evaluator, self._is_stopped)
        self._sync_stop()
        hits = test.hits(model, own, self.evaluator, self._is_stopped)
        self._sync_stop()
        return test.scores(self._over_all(hits, test.val.reader))

    def _is_stopped(self) -> bool:
        """Between two batches of an evaluation."""
        self.reporter.heartbeat()
        return bool(self.stop)

    def _sync_stop(self) -> None:
        """Where ranks that have had different numbers of batches wait for each other, and leave together."""
        self._stop_if(self.agreement.now(bool(self.stop), None).stop)

    def _finished_swa(self, epoch: int) -> nn.Module | None:
        """After the last epoch, the averaged model with BatchNorm statistics of its own.

        They are those of the training images as the last epoch has seen them.
        """
        swa = self.averages.swa_after(epoch, self.plain_model) if epoch == self.job.num_epochs else None
        if swa is None:
            return None
        with torch.no_grad(), self.accelerator.autocast():
            renewed = update_batch_norm(swa, self._inputs_of_epoch(epoch), self.parts.frozen)
        self._sync_stop()
        for statistic in renewed:  # of as many batches on every rank
            statistic.copy_(self.accelerator.reduce(statistic.clone(), reduction="mean"))
        self.finished_swa = swa
        return swa

    def _inputs_of_epoch(self, epoch: int) -> Iterator[Tensor]:
        plans = self.parts.sampling.micro_batches(epoch, self.rank)
        for number, batch in enumerate(self.loader.batches(self.parts.train_reader, plans)):
            if self._is_stopped():
                return
            self.step.seed_model(self.progress.global_step, number)
            yield in_memory_format(self.job, batch.inputs.on(self.accelerator.device))

    # -- between steps and epochs ----------------------------------------------------------------------------

    @spanned(Phase.REPORTING)
    def _after_step(self) -> None:
        """Report now and then; do what all ranks agreed on: stop, save, or give up."""
        diverged_at = None
        if self.reporter.is_due():
            self._check_trackers()
            diverged_at = self._first_bad_step()
            scores = self.objective.scores(self.meter.sums.tolist())
            self.reporter.report_step(self.progress, self.parts.sampling, scores, learning_rate(self.optimizer))
        decision = self.agreement.at_step(bool(self.stop), diverged_at)
        if decision.diverged_at is not None:
            self._check_finite()  # another rank may have seen it in an earlier step, and not looked yet
        if decision.save and not decision.stop:
            self.save_state()
        self._stop_if(decision.stop)

    def _check_finite(self) -> None:
        """All ranks look whether every loss so far was finite, and what it made of the weights. Raises Diverged."""
        self._note_bad_step(self.is_finite(), self.progress.global_step)
        self._raise_diverged(self.agreement.now(False, self._first_bad_step()).diverged_at)

    def _first_bad_step(self) -> int | None:
        step = int(self.bad_step)
        return step if step >= 0 else None

    def _raise_diverged(self, diverged_at: int | None) -> None:
        if diverged_at is None:
            return
        where = self._divergence(diverged_at, self._samples_of(diverged_at))
        told = f"epoch {where.epoch}, learning rate {where.lr:g}, training images {listed(map(str, where.samples))}"
        raise Diverged(f"the loss or its gradient was not finite at step {diverged_at} ({told})", where)

    def _divergence(self, step: int, samples: Sequence[int] = ()) -> Divergence:
        rate = learning_rate(self.optimizer)
        return Divergence(step=step, epoch=self.progress.epoch + 1, lr=rate, samples=tuple(samples))

    def _samples_of(self, global_step: int) -> list[int]:
        """The training images of a step of the running epoch, on all processes. Of a corrupt image it is known only
        here that another took its place."""
        first_step = global_step - 1 - (self.progress.global_step - self.progress.step)
        plans = self.parts.sampling.micro_batches(self.progress.epoch + 1, rank=0, first_step=first_step)
        indices: list[int] = next(plans).global_indices.tolist()
        return indices

    def _stop_if(self, stop: bool) -> None:
        if stop:
            self.save_state()
            raise Stopped

    def _end_epoch(self, epoch: int, rows: list[Row], tracking: Tracking) -> None:
        """Take the epoch in. The state comes last and makes it final: whoever is killed before repeats the epoch,
        and all that was written for it is written again, the same."""
        val = rows[1]
        if not math.isfinite(val["loss"]):
            step = self.progress.global_step
            raise Diverged(
                f"the validation loss was not finite after step {step} (epoch {epoch})", self._divergence(step)
            )
        metric = val["loss" if self.job.primary_metric == self.job.criterion else self.job.primary_metric]
        is_best = self._is_better(metric)
        best = (metric, epoch) if is_best else (self.progress.best, self.progress.best_epoch)
        self.meter.reset()
        self.averages.after_epoch(epoch, self.plain_model)
        self.progress = Progress(
            epoch=epoch,
            global_step=self.progress.global_step,
            best=best[0],
            best_epoch=best[1],
            history=[*self.progress.history, *rows],
        )
        if self.is_first:
            self._save_epoch_weights(epoch, is_best)
            tracking.log_epoch(rows)
            tracking.summarize({f"best/{self.job.primary_metric}": best[0], "best/epoch": best[1]})
        self.save_state()
        if self.is_first:
            write_performance(self.run, map(PerformanceRow.from_record, self.progress.history))

    def _is_better(self, metric: float) -> bool:
        best = self.progress.best
        if math.isnan(metric):  # never best
            return False
        return best is None or (metric > best if self.job.higher_is_better else metric < best)

    def _save_epoch_weights(self, epoch: int, is_best: bool) -> None:
        about = {"epoch": str(epoch), "architecture": self.job.architecture}

        def save(path: Path, model: nn.Module) -> None:
            save_weights(path, model.state_dict(), **about)

        interval, is_last = self.job.save_interval, epoch == self.job.num_epochs
        if is_last or (interval is not None and epoch % interval == 0):
            save(self.run.weights(epoch), self.plain_model)
        if is_best:
            save(self.run.best_weights, self.plain_model)
        if self.averages.ema is not None:
            save(self.run.ema_weights, self.averages.ema)
        if is_last and self.finished_swa is not None:
            save(self.run.swa_weights, self.finished_swa)

    def _row(self, epoch: int, split: str, scores: Mapping[str, float], num_examples: int, seconds: float) -> Row:
        return performance_row(epoch, split, scores, learning_rate(self.optimizer), num_examples, seconds)

    # -- across processes -------------------------------------------------------------------------------------

    def _over_all(self, sums: Tensor, reader: ImageReader) -> list[float]:
        """Sums of this process, added up over all; and how many corrupt images they met, if any, into the log."""
        totals, corrupt_images = self.evaluator.reduce_sums(sums, reader)
        if corrupt_images and self.is_first:
            log.warning("%d corrupt images skipped; each was named once", corrupt_images)
        return totals

    def _share_buffers(self, model: nn.Module) -> None:
        """BatchNorm statistics differ between ranks after a step: all take rank 0's."""
        if self.world_size > 1:
            for buffer in model.buffers():
                buffer.copy_(broadcast(buffer.clone(), from_process=0))

    # -- states -----------------------------------------------------------------------------------------------

    @spanned(Phase.SAVING)
    def save_state(self) -> None:
        """Save all that is needed to go on from here. All ranks take part, rank 0 writes.

        What is not finite is never saved: the state before stays the newest. Raises Diverged.
        """
        self._check_finite()
        sums = self.accelerator.gather(self.meter.sums[None].clone())
        if self.is_first:
            scaler = self.accelerator.scaler
            trainer = {
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.parts.schedule.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "sums": sums.cpu(),
                "averages": self.averages.state_dict(),
                "world": self.world.as_record(),
            }
            progress = replace(self.progress)
            self.states.save(TrainState(progress, self.plain_model.state_dict(), trainer, self.world_size))
        self.agreement.just_saved()
