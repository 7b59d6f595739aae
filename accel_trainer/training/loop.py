"""The training loop: epochs, what follows a step and an epoch, and the state of it all."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator

from accel_trainer.config import ResolvedJob
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.spans import Phase, span, spanned, timed
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.loader import ImageReader, Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, write_performance
from accel_trainer.training.build import Components
from accel_trainer.training.corrupt_images import CorruptShare
from accel_trainer.training.degraded import DegradedImages
from accel_trainer.training.epoch_validation import EpochValidation
from accel_trainer.training.failures import DivergenceCheck
from accel_trainer.training.histograms import Histogram, HistogramSchedule, histograms_of
from accel_trainer.training.optim.averaging import Averages
from accel_trainer.training.optim.optimizer import learning_rate
from accel_trainer.training.reporting import Plotter, Reporter
from accel_trainer.training.runtime.environment import this_environment
from accel_trainer.training.runtime.ranks import Agreement, Stopped
from accel_trainer.training.state.checkpoint import Progress, StateStore, TrainerState, TrainState
from accel_trainer.training.state.saving import EpochWeights, Save, Saver, WeightsFile, nothing
from accel_trainer.training.state.step_rows import StepRow
from accel_trainer.training.step import TrainingStep
from accel_trainer.training.tracking import Tracking


def nothing_of(*what: object) -> None:
    """Who listens to nothing."""


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
        swa_start = None if job.swa is None else job.swa.start
        self.averages = Averages(parts.model, ema_decay=job.ema, swa_start=swa_start).to(accelerator.device)
        self.step = TrainingStep(job, parts, accelerator, self.averages)
        self.objective, self.optimizer, self.meter = self.step.objective, self.step.optimizer, self.step.meter
        self.plain_model = self.step.plain_model
        self._to_compile = {"training", "validation"} if job.compile else set()
        if job.compile:
            self.plain_model.compile()
        self.world = this_environment(accelerator, loader.num_threads)
        self.world_size, self.rank = accelerator.num_processes, accelerator.process_index
        self.validation = EpochValidation(job, parts, self.step, self.averages, accelerator, loader)
        self.evaluator = self.validation.evaluator
        self.progress = Progress()
        self._check_trackers: Callable[[], None] = nothing
        self._log_step: Callable[[StepRow], None] = nothing_of
        self._log_histograms: Callable[[int, Mapping[str, Histogram]], None] = nothing_of
        self._histograms: Mapping[str, Histogram] = {}
        self._after_first_step: Callable[[], None] = nothing
        # Called by all ranks; what it gives is called before the state is written, on rank 0.
        self.before_save: Callable[[], Callable[[], None]] = lambda: nothing
        self.states, self.weights = StateStore(run), EpochWeights(job, run, writes=self.is_first)
        self.saver = Saver(job, run, self.states)
        self.agreement = Agreement(self.world_size, self.rank, 60 * job.save_every_minutes)
        self.corrupt = CorruptShare(accelerator, parts.train_reader)
        self.divergence = DivergenceCheck(
            self.plain_model, self.optimizer, parts.sampling, self.step.first_bad, accelerator.scaler
        )

    @property
    def readers(self) -> dict[str, ImageReader]:
        """What reads the images of each split."""
        eval_sets = {split: images.reader for split, images in self.parts.eval_sets.items()}
        return {"train": self.parts.train_reader, "val": self.parts.val.reader, **eval_sets}

    @property
    def num_corrupt(self) -> int:
        """How many corrupt images were met so far, in all splits; of several ranks all know it after each pass."""
        return sum(len(reader.met) for reader in self.readers.values())

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes."""
        return bool(self.accelerator.is_main_process)

    # -- the story ------------------------------------------------------------------------------------------

    def train(self, tracking: Tracking, plotter: Plotter | None, degraded: DegradedImages | None = None) -> None:
        """All epochs that are left. Raises Stopped or Diverged."""
        self._listen(tracking)
        self._after_first_step = nothing if plotter is None else plotter.start
        with self.saver.running():
            if degraded is not None:  # an earlier attempt may have been ended in the middle of it
                degraded.after_epoch(self.progress.epoch, tracking)
            while self.progress.epoch < self.job.num_epochs:
                epoch = self.progress.epoch + 1
                row = self._train_epoch(epoch)
                with self._compiling("validation"):
                    rows = [row, *self.validation.rows(epoch, self.progress.global_step, self)]
                is_measured = degraded is not None and degraded.is_due(epoch)
                self._end_epoch(epoch, rows, tracking, plotter, waits=is_measured)
                if self.is_first:
                    self.reporter.note_corrupt(self.num_corrupt)
                    self.reporter.report_epoch(self.progress, self.job.primary_metric)
                if degraded is not None and is_measured:
                    self.accelerator.wait_for_everyone()  # the first one has written the weights
                    degraded.after_epoch(epoch, tracking)
        if self.is_first:
            self.states.keep_only_newest()

    def _listen(self, tracking: Tracking) -> None:
        """Have the trackers told what there is to tell of steps."""
        self._check_trackers = tracking.check
        if self.is_first:
            self._log_step = tracking.log_step
            self._log_histograms = tracking.log_histograms
            if "wandb" in self.job.trackers and self.job.wandb.histograms is not None:
                self.step.before_update = self._take_histograms

    def _take_histograms(self) -> None:
        progress, schedule = self.progress, HistogramSchedule(self.job.wandb.histograms)
        if schedule.is_due(progress.global_step + 1, progress.step + 1, self.parts.sampling.steps_per_epoch):
            scaler, is_unscaled = self.accelerator.scaler, self.job.clip_grad_norm is not None
            scale = 1.0 if scaler is None or is_unscaled else scaler.get_scale()
            self._histograms = histograms_of(self.plain_model, scale)

    def _train_epoch(self, epoch: int) -> PerformanceRow:
        """The steps of an epoch that are left; what was measured in all of them."""
        sampling, progress = self.parts.sampling, self.progress
        if progress.step == 0:
            self.step_schedule(progress.epoch)
        self.step.train_mode()
        self.take_steps(sampling.micro_batches(epoch, self.rank, first_step=progress.step))
        self._check_finite()
        self.sync_stop()
        scores = self.objective.scores(self.evaluator.totals(self.meter.sums, self.parts.train_reader))
        return self.validation.as_row(epoch, "train", scores, sampling.examples_per_epoch, progress.epoch_seconds)

    def take_steps(self, plans: Iterable[BatchPlan]) -> None:
        """An optimizer step for every `accumulation` of these micro-batches, with all that belongs to it."""
        began = time.monotonic() - self.progress.epoch_seconds
        accumulation, end_step = self.parts.sampling.accumulation, partial(self._end_step, began)
        for number, batch in enumerate(timed(self.loader.batches(self.parts.train_reader, plans))):
            with span(Phase.STEP), self._compiling("training", ends=number + 1 == accumulation):
                if (micro_batch := number % accumulation) == 0:
                    self.parts.schedule.before_step()
                self.step(batch, self.progress.global_step, micro_batch, agree=end_step)

    @contextmanager
    def _compiling(self, what: str, *, ends: bool = True) -> Iterator[None]:
        """Where a model that is to be compiled may be, which has no steps: the first time. ends: whether that is over
        then."""
        if what not in self._to_compile:
            yield
            return
        with self.reporter.alive(f"compiling the model for the {what}"):
            yield
        if ends:
            self._to_compile.discard(what)

    def step_schedule(self, epoch: int) -> None:
        """Between this epoch and the next. Not after the last one: a schedule that ends there cannot be stepped
        further, and a run that is given more epochs later finds it as it was."""
        progress, metric = self.progress, self.job.primary_metric
        of_epoch = [row.scores for row in progress.history if row.epoch == epoch and row.split == "val"]
        if of_epoch and progress.best is not None:
            scores = of_epoch[0]
            self.parts.schedule.step(scores[metric if metric in scores else "loss"])
        elif epoch:  # nothing is known of it, or nothing that could be compared with what comes
            self.parts.schedule.skip(1)

    def replay_schedule(self) -> None:
        """Bring a schedule from its beginning to the end of the present epoch, by what is known of the epochs."""
        for epoch in range(1, self.progress.epoch + 1):
            self.parts.schedule.replay_steps(self.parts.sampling.steps_per_epoch)
            if epoch < self.progress.epoch:
                self.step_schedule(epoch)

    # -- between steps ---------------------------------------------------------------------------------------

    def _end_step(self, began: float) -> None:
        self.parts.schedule.after_step(is_taken=not self.step.was_skipped)
        progress = self.progress
        progress.step += 1
        progress.global_step += 1
        row = self.step.step_log.after_step(progress.global_step, lambda: learning_rate(self.optimizer))
        if row is not None:
            self._log_step(row)
        if taken := self._histograms:
            self._histograms = {}
            is_of_epoch = self.job.wandb.histograms == "epoch"
            self._log_histograms(progress.epoch + 1 if is_of_epoch else progress.global_step, taken)
        progress.epoch_seconds = time.monotonic() - began
        begin, self._after_first_step = self._after_first_step, nothing
        begin()
        self._after_step()

    @spanned(Phase.REPORTING)
    def _after_step(self) -> None:
        """Report now and then; do what all ranks agreed on: stop, save, or give up."""
        self.saver.check()
        diverged_at = None
        if self.reporter.is_due():
            self._check_trackers()
            diverged_at = self.divergence.read(self.progress.global_step)
            scores = self.objective.scores(self.meter.sums.tolist())
            self.reporter.note_corrupt(self.num_corrupt)
            self.reporter.report_step(self.progress, self.parts.sampling, scores, learning_rate(self.optimizer))
        decision = self.agreement.at_step(bool(self.stop), diverged_at, self.corrupt.note())
        self.corrupt.check(decision.corrupt)
        if decision.diverged_at is not None:
            self._check_finite()  # another rank may have seen it in an earlier step, and not looked yet
        if decision.save and not decision.stop:
            self.save_state(waits=False)
        self._stop_if(decision.stop)

    def _check_finite(self) -> None:
        """All ranks look whether every loss so far was finite, and what it made of the weights. Raises Diverged."""
        first = self.agreement.now(False, self.divergence.look(self.progress.global_step)).diverged_at
        if first is not None:
            raise self.divergence.at(first, self.progress)

    def note_validation(self, split: str, done: int, total: int) -> None:
        """How much of the validation on a split is done."""
        self.reporter.report_validation("validating" if split == "val" else f"validating {split}", done, total)

    def is_stopped(self) -> bool:
        """Whether this rank was asked to stop; also a sign of life, between two batches of an evaluation."""
        self.reporter.heartbeat()
        return bool(self.stop)

    def sync_stop(self) -> None:
        """Where ranks that have had different numbers of batches wait for each other. Raises Stopped, on all."""
        self._stop_if(self.agreement.now(bool(self.stop), None).stop)

    def _stop_if(self, stop: bool) -> None:
        if stop:
            self.save_state()
            raise Stopped

    # -- between epochs --------------------------------------------------------------------------------------

    def _end_epoch(
        self,
        epoch: int,
        rows: list[PerformanceRow],
        tracking: Tracking,
        plotter: Plotter | None,
        *,
        waits: bool = False,
    ) -> None:
        """Count the epoch, and save it while the next one is trained; or wait for that."""
        val = rows[1].scores
        if not math.isfinite(val["loss"]):
            raise self.divergence.in_validation(epoch, self.progress)
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
        history, ema, swa = self.progress.history, self.averages.ema, self.validation.finished_swa

        def tell() -> None:
            tracking.log_epoch(rows)
            tracking.summarize(history, *best)

        def show() -> None:
            write_performance(self.run, history)
            if plotter is not None:
                plotter.draw()

        files = self.weights.due(epoch, is_best=is_best, model=self.plain_model, ema=ema, swa=swa)
        self.save_state(files, tell, show, waits=waits or epoch == self.job.num_epochs)

    def _is_better(self, metric: float) -> bool:
        best = self.progress.best
        if math.isnan(metric):  # never best
            return False
        return best is None or (metric > best if self.job.higher_is_better else metric < best)

    # -- states ----------------------------------------------------------------------------------------------

    @spanned(Phase.SAVING)
    def save_state(
        self,
        weights: Sequence[WeightsFile] = (),
        tell: Callable[[], None] = nothing,
        show: Callable[[], None] = nothing,
        *,
        waits: bool = True,
    ) -> None:
        """Save all that is needed to resume from here, and what belongs to it: see `Save`. All ranks take part, rank 0
        writes.

        What is not finite is never saved: the state before stays the newest. waits: until it is on the disk; else it is
        written while the training goes on. Raises Diverged, and as `Saver.save`.
        """
        self._check_finite()
        record = self.before_save()
        state = self.state_dict()
        if self.is_first:
            self.saver.save(Save(weights, tell, record, state, show), waits=waits)
        self.agreement.just_saved()

    def state_dict(self) -> TrainState:
        """All that is needed to resume, of all ranks, which call this together."""
        sums = self.accelerator.gather(self.meter.sums[None].clone())
        self.corrupt.share()
        met = {split: sorted(reader.met) for split, reader in self.readers.items()}
        scaler = self.accelerator.scaler
        trainer = TrainerState(
            optimizer=self.optimizer.state_dict(),
            schedule=self.parts.schedule.state_dict(),
            scaler=scaler.state_dict() if scaler is not None else None,
            sums=sums.cpu(),
            averages=self.averages.state_dict(),
            world=self.world.as_record(),
            corrupt={split: torch.tensor(indices) for split, indices in met.items() if indices},
        )
        progress = replace(self.progress, steps=self.step.step_log.history())
        return TrainState(progress, self.plain_model.state_dict(), trainer, self.world_size)

    def load_state_dict(self, state: TrainState) -> None:
        """Be where a loop of the same job was, on however many processes."""
        self.progress = replace(state.progress)
        self.plain_model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.trainer.optimizer)
        self.parts.schedule.load_state_dict(dict(state.trainer.schedule))
        self.load_scaler(state)
        self.averages.load_state_dict(state.trainer.averages)
        for split, indices in state.trainer.corrupt.items():
            if split in self.readers:
                self.readers[split].met.update(indices.tolist())
        self.corrupt.all_know()
        self.step.step_log.go_on_from(state.progress.steps)
        self.meter.sums.copy_(state.trainer.sums_of(self.rank, self.world_size).to(self.meter.sums))

    def load_scaler(self, state: TrainState) -> None:
        """Scale losses as the state does, where both are trained in fp16."""
        if self.accelerator.scaler is not None and state.trainer.scaler:
            self.accelerator.scaler.load_state_dict(dict(state.trainer.scaler))
