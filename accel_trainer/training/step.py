"""One step of training, from images to averaged weights."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from accel_trainer.config import ResolvedJob
from accel_trainer.core import keyed_random
from accel_trainer.core.spans import Phase, span
from accel_trainer.data.loader import Batch
from accel_trainer.training.build import Components
from accel_trainer.training.failures import FirstBadStep
from accel_trainer.training.meta_step import reach_of_step
from accel_trainer.training.objectives.base import BatchResult, Meter
from accel_trainer.training.optim.averaging import Averages
from accel_trainer.training.optim.optimizer import prefer_fused
from accel_trainer.training.optim.parameter_groups import train_mode
from accel_trainer.training.optim.skipped_steps import SkippedSteps, forget_skipped_first_step
from accel_trainer.training.runtime.data_parallel import prepare, refuse_left_out, settle_order
from accel_trainer.training.runtime.kernels import in_memory_format
from accel_trainer.training.step_log import StepLog


def _nothing() -> None:
    """All that a single process without reports has to agree on."""


class TrainingStep:
    """A step is taken in micro-batches: a forward and a backward pass of each and, with the last, the optimizer.

    The model and the optimizer of the parts are handed to Accelerate; `plain_model` is the model without its wrapper.
    meter: sums of the objective over this process's examples; first_bad: whether all losses were finite.
    before_update: called when the gradients of a step are there.
    """

    def __init__(
        self, job: ResolvedJob, parts: Components, accelerator: Accelerator, averages: Averages | None = None
    ) -> None:
        self.job, self.accelerator, self.averages = job, accelerator, averages
        self.objective = parts.objective.to(accelerator.device)
        prefer_fused(job, parts.optimizer, accelerator.device)
        forget_skipped_first_step(parts.optimizer)
        reach = reach_of_step(job, parts.model, parts.objective, accelerator.num_processes)
        self.model, self.optimizer = prepare(accelerator, parts.model, parts.optimizer, **vars(reach))
        is_plain = self.model is parts.model
        self.plain_model = parts.model if is_plain else accelerator.unwrap_model(self.model, keep_torch_compile=False)
        self.meter = Meter(accelerator.device, self.objective.num_sums)
        self.step_log = StepLog(job.log_every_steps, accelerator, self.objective)
        self.before_update: Callable[[], None] = _nothing
        self.first_bad = FirstBadStep(accelerator.device)
        self._is_order_settled = False
        self._skipped = SkippedSteps(self.optimizer, accelerator.scaler) if job.schedule_by == "step" else None
        self._frozen = parts.frozen
        # DistributedDataParallel and Accelerate divide by these.
        self._divided_by = accelerator.num_processes * parts.sampling.accumulation

    @property
    def was_skipped(self) -> bool:
        """Whether the last step was not taken, because gradients were too large for fp16; for a schedule by step, where
        no loss is scaled always False."""
        return self._skipped is not None and self._skipped.was_last()

    def train_mode(self) -> None:
        """Set the model to training; frozen modules stay in evaluation mode."""
        self.model.train()
        train_mode(self.plain_model, self._frozen)

    def __call__(
        self, batch: Batch, global_step: int, micro_batch: int, agree: Callable[[], None] = _nothing
    ) -> BatchResult:
        """Train on a micro-batch. All ranks call it alike.

        global_step: how many were taken before; micro_batch: of this step, from 0; agree: what ranks do together once
        the step is taken: report, save, stop or give up.
        """
        accelerator = self.accelerator
        images = in_memory_format(self.job, batch.inputs.on(accelerator.device))
        if not self._is_order_settled:
            settle_order(self.model, lambda: self._forward(images, batch).loss)
            self._is_order_settled = True
        with accelerator.accumulate(self.model):
            self.seed_model(global_step, micro_batch)
            with span(Phase.FORWARD):
                result = self._forward(images, batch)
            with span(Phase.BACKWARD):
                accelerator.backward(result.loss * self._divided_by)
            if accelerator.sync_gradients:
                refuse_left_out(self.model, self.job.architecture)
            with span(Phase.OPTIMIZER):
                if accelerator.sync_gradients and self.job.clip_grad_norm is not None:
                    accelerator.clip_grad_norm_(self.model.parameters(), self.job.clip_grad_norm)
                if self._skipped is not None:
                    self._skipped.before_first()
                if accelerator.sync_gradients:
                    self.before_update()
                self.optimizer.step()  # does nothing before the last micro-batch
                self.optimizer.zero_grad()
        with span(Phase.METRICS):
            self.meter.add(result.sums)
            self.step_log.add(result.sums)
            self.first_bad.note(result.loss.detach().isfinite(), global_step + 1)
        if accelerator.sync_gradients:
            if self.averages is not None:
                with span(Phase.AVERAGES):
                    self.averages.after_step(self.plain_model)
            agree()
        return result

    def _forward(self, images: Tensor, batch: Batch) -> BatchResult:
        return self.objective.compute(self.model(images), batch, is_shared=True)

    def seed_model(self, global_step: int, micro_batch: int) -> None:
        """Dropout and the like follow from the step, not from what was drawn before."""
        rank = self.accelerator.process_index
        torch.manual_seed(keyed_random.key(self.job.seed, "model", global_step, micro_batch, rank))
