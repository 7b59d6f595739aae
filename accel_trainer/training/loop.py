"""The training loop."""

import logging
import math
import time
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from accel_trainer import randomness
from accel_trainer.config import Job
from accel_trainer.data.loader import Batch, ImageReader, Loader
from accel_trainer.data.mixing import Labels
from accel_trainer.data.sampling import evaluation_batches
from accel_trainer.processes import StopRequest
from accel_trainer.runs import RunFolder
from accel_trainer.training.agreement import Agreement
from accel_trainer.training.build import Parts
from accel_trainer.training.checkpoint import Progress, StateStore, TrainState, save_weights
from accel_trainer.training.metrics import Meter, Scores
from accel_trainer.training.reporting import Plotter, Reporter, performance_row, write_performance
from accel_trainer.training.schedule import learning_rate
from accel_trainer.training.start import Start
from accel_trainer.training.tracking import Tracking
from accel_trainer.zoo.registry import main_logits

log = logging.getLogger(__name__)


class Diverged(Exception):
    """A loss was not finite."""


class Stopped(Exception):
    """The run was asked to stop, and a state is saved."""


class TrainingLoop:
    """Trains the parts of one job from where `progress` says to `num_epochs`.

    All ranks run it; what is written is written by rank 0.
    """

    def __init__(
        self,
        job: Job,
        run: RunFolder,
        parts: Parts,
        accelerator: Accelerator,
        loader: Loader,
        stop: StopRequest,
        reporter: Reporter,
    ) -> None:
        self.job, self.run, self.parts = job, run, parts
        self.accelerator, self.loader, self.stop, self.reporter = accelerator, loader, stop, reporter
        self.objective = parts.objective.to(accelerator.device)
        self.model, self.optimizer = accelerator.prepare(parts.model, parts.optimizer)
        self.plain_model = accelerator.unwrap_model(self.model, keep_torch_compile=False)
        self.world_size, self.rank = accelerator.num_processes, accelerator.process_index
        self.meter, self.val_meter = Meter(accelerator.device), Meter(accelerator.device)
        self.progress = Progress()
        self.states = StateStore(run)
        self.agreement = Agreement(self.world_size, self.rank, 60 * job.save_every_minutes)
        # The first step whose loss was not finite, on the device, so that nobody has to wait to know.
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=accelerator.device)

    @property
    def is_first(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def num_val_images(self) -> int:
        return len(self.parts.images.val.labels)

    # -- the story ------------------------------------------------------------------------------------------

    def train(self, tracking: Tracking, plotter: Plotter | None) -> None:
        """All epochs that are left. Raises Stopped or Diverged."""
        while self.progress.epoch < self.job.num_epochs:
            epoch = self.progress.epoch + 1
            train, seconds = self._train_epoch(epoch)
            began = time.monotonic()
            val = self._evaluate()
            rate = learning_rate(self.optimizer)
            rows = [
                performance_row(epoch, "train", train, rate, self.parts.sampling.examples_per_epoch, seconds),
                performance_row(epoch, "val", val, rate, self.num_val_images, time.monotonic() - began),
            ]
            self._end_epoch(epoch, val, rows, tracking)
            if self.is_first:
                self.reporter.report_epoch(self.progress, self.job.primary_metric)
                if plotter is not None:
                    plotter.draw()
        if self.is_first:
            self.states.keep_only_newest()

    def _train_epoch(self, epoch: int) -> tuple[Scores, float]:
        """The steps of an epoch that are left; the epoch's training scores and how long it took in all."""
        sampling, progress = self.parts.sampling, self.progress
        if progress.step == 0:
            self._step_schedule()
        began = time.monotonic() - progress.epoch_seconds
        self.model.train()
        plans = sampling.micro_batches(epoch, self.rank, first_step=progress.step)
        for number, batch in enumerate(self.loader.batches(self.parts.read_train, plans)):
            with self.accelerator.accumulate(self.model):
                self._seed_model(number % sampling.accumulation)
                logits, labels, total = self._forward(self.model, batch)
                self.accelerator.backward(self._share(total, batch) * (self.world_size * sampling.accumulation))
                if self.accelerator.sync_gradients and self.job.clip_grad_norm is not None:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), self.job.clip_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            self._measure(self.meter, batch, logits, labels, total)
            self._note_bad_step(total)
            if self.accelerator.sync_gradients:
                progress.step += 1
                progress.global_step += 1
                progress.epoch_seconds = time.monotonic() - began
                self._after_step()
        self._settle()
        return self._scores(self.meter, self.parts.read_train), progress.epoch_seconds

    def _step_schedule(self) -> None:
        """Between two epochs. Not after the last one: a schedule that ends there cannot be stepped further, and a
        run that is given more epochs later finds it as it was."""
        if self.progress.history:
            last = self.progress.history[-1]
            metric = self.job.primary_metric
            self.parts.schedule.step(last[metric if metric in last else "loss"])
        elif self.progress.epoch:
            self.parts.schedule.skip(1)

    def _forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Labels, Tensor]:
        """Logits, labels on the device, and the sum of the losses of these examples."""
        output = model(batch.inputs.on(self.accelerator.device))
        labels = batch.labels.to(self.accelerator.device, non_blocking=True)
        return main_logits(output), labels, self.objective.total(output, labels)

    def _share(self, total: Tensor, batch: Batch) -> Tensor:
        """These images' share of the loss of the global batch: the shares of all processes add up to it."""
        return total / self.objective.divisor(batch.global_labels)

    def _seed_model(self, micro_batch: int) -> None:
        """Dropout and the like follow from the step, not from what was drawn before."""
        key = randomness.key(self.job.seed, "model", self.progress.global_step, micro_batch, self.rank)
        torch.manual_seed(key)

    def _measure(self, meter: Meter, batch: Batch, logits: Tensor, labels: Labels, total: Tensor) -> None:
        meter.add(total, self.objective.count(batch.labels), logits.detach(), labels)

    def _note_bad_step(self, total: Tensor) -> None:
        step = self.progress.global_step + 1
        is_first_bad = ~torch.isfinite(total.detach()) & (self.bad_step < 0)
        self.bad_step.masked_fill_(is_first_bad, step)

    @torch.inference_mode()
    def _evaluate(self) -> Scores:
        """Scores over the validation set, every image counted once whatever the number of processes."""
        self._share_buffers()
        self.plain_model.eval()
        self.val_meter.reset()
        plans = evaluation_batches(self.num_val_images, self._val_batch_size(), self.rank, self.world_size)
        for batch in self.loader.batches(self.parts.read_val, plans):
            if self.stop:
                break
            if len(batch.labels):
                self._measure(self.val_meter, batch, *self._forward(self.plain_model, batch))
        # Ranks have had different numbers of batches: only here do they meet again.
        self._leave_if(self.agreement.now(bool(self.stop), None).stop)
        return self._scores(self.val_meter, self.parts.read_val)

    def _val_batch_size(self) -> int:
        """Images for one forward pass, as many views as the global batch of a step shares out among processes."""
        views, val_views = self.parts.read_train.views.num_views, self.parts.read_val.views.num_views
        return max(1, self.parts.sampling.images_per_step * views // (self.world_size * val_views))

    # -- between steps and epochs ----------------------------------------------------------------------------

    def _after_step(self) -> None:
        """Report now and then; do what all ranks agreed on: stop, save, or give up."""
        diverged_at = None
        if self.reporter.is_due():
            diverged_at = self._first_bad_step()
            scores = Meter.scores(self.meter.sums.tolist())
            self.reporter.report_step(self.progress, self.parts.sampling, scores, learning_rate(self.optimizer))
        decision = self.agreement.at_step(bool(self.stop), diverged_at)
        self._give_up_if(decision.diverged_at)
        if decision.save and not decision.stop:
            self._save_state()
        self._leave_if(decision.stop)

    def _settle(self) -> None:
        """At the end of an epoch's training all ranks look whether every loss was finite."""
        decision = self.agreement.now(bool(self.stop), self._first_bad_step())
        self._give_up_if(decision.diverged_at)
        self._leave_if(decision.stop)

    def _first_bad_step(self) -> int | None:
        step = int(self.bad_step)
        return step if step >= 0 else None

    def _give_up_if(self, diverged_at: int | None) -> None:
        if diverged_at is not None:
            epoch = self.progress.epoch + 1
            raise Diverged(
                f"the loss was not finite at step {diverged_at} (epoch {epoch}, "
                f"learning rate {learning_rate(self.optimizer):g}); try a smaller learning rate or clip_grad_norm"
            )

    def _leave_if(self, stop: bool) -> None:
        if stop:
            self._save_state()
            raise Stopped

    def _end_epoch(self, epoch: int, val: Scores, rows: list[dict[str, Any]], tracking: Tracking) -> None:
        """Take the epoch in. The state comes last and makes it final: whoever is killed before repeats the epoch,
        and all that was written for it is written again, the same."""
        if not math.isfinite(val.loss):
            raise Diverged(
                f"the validation loss was not finite after step {self.progress.global_step} (epoch {epoch}); "
                "try a smaller learning rate or clip_grad_norm"
            )
        metric = val.by_name(self.job.criterion)[self.job.primary_metric]
        is_best = self._is_better(metric)
        best = (metric, epoch) if is_best else (self.progress.best, self.progress.best_epoch)
        self.meter.reset()
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
            tracking.summarise({f"best/{self.job.primary_metric}": best[0], "best/epoch": best[1]})
        self._save_state()
        if self.is_first:
            write_performance(self.run, self.progress.history)

    def _is_better(self, metric: float) -> bool:
        best = self.progress.best
        if math.isnan(metric):  # never best
            return False
        return best is None or (metric > best if self.job.higher_is_better else metric < best)

    def _save_epoch_weights(self, epoch: int, is_best: bool) -> None:
        weights = self.plain_model.state_dict()
        about = {"epoch": str(epoch), "architecture": self.job.architecture}
        interval = self.job.save_interval
        if epoch == self.job.num_epochs or (interval is not None and epoch % interval == 0):
            save_weights(self.run.weights(epoch), weights, **about)
        if is_best:
            save_weights(self.run.best_weights, weights, **about)

    # -- across processes -------------------------------------------------------------------------------------

    def _scores(self, meter: Meter, reader: ImageReader) -> Scores:
        """The scores over all processes; and how many corrupt images they met, if any, into the log."""
        corrupt = meter.sums.new_tensor([len(reader.corrupt)])
        *sums, corrupt_images = self.accelerator.reduce(torch.cat([meter.sums, corrupt]), reduction="sum").tolist()
        if corrupt_images and self.is_first:
            log.warning("%d corrupt images skipped; each was named once", corrupt_images)
        return Meter.scores(sums)

    def _share_buffers(self) -> None:
        """BatchNorm statistics differ between ranks after a step: all take rank 0's."""
        if self.world_size > 1:
            for buffer in self.plain_model.buffers():
                buffer.copy_(broadcast(buffer.clone(), from_process=0))

    # -- states -----------------------------------------------------------------------------------------------

    def _save_state(self) -> None:
        """Save all that is needed to go on from here. All ranks take part, rank 0 writes.

        After a loss that was not finite, which has spoilt the weights, the state before stays the newest.
        """
        sums = self.accelerator.gather(self.meter.sums[None].clone())
        if not torch.isfinite(sums).all():
            return
        if self.is_first:
            scaler = self.accelerator.scaler
            trainer = {
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.parts.schedule.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "sums": sums.cpu(),
            }
            progress = replace(self.progress)
            self.states.save(TrainState(progress, self.plain_model.state_dict(), trainer, self.world_size))
        self.agreement.just_saved()

    def begin(self, start: Start) -> None:
        """Take up the run where it was left. Weights that come without a state are in the model already."""
        if start.state is not None:
            self._load_state(start.state)
        elif start.epoch:
            self.progress.epoch = start.epoch
            self.progress.global_step = start.epoch * self.parts.sampling.steps_per_epoch
            self.parts.schedule.skip(start.epoch - 1)

    def _load_state(self, state: TrainState) -> None:
        """Go on from a state. The sums of an epoch's beginning go back to the ranks that had them."""
        self.progress = replace(state.progress)
        self.plain_model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.trainer["optimizer"])
        self.parts.schedule.load_state_dict(state.trainer["schedule"])
        if self.accelerator.scaler is not None and state.trainer["scaler"]:
            self.accelerator.scaler.load_state_dict(state.trainer["scaler"])
        sums = state.trainer["sums"].to(self.meter.sums)
        if state.num_processes == self.world_size:
            self.meter.sums.copy_(sums[self.rank])
        else:
            self.meter.sums.copy_(sums.sum(0) if self.rank == 0 else torch.zeros_like(sums[0]))
