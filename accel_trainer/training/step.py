"""What training does with one micro-batch."""

import torch
from accelerate import Accelerator

from accel_trainer.config import ResolvedJob
from accel_trainer.core import keyed_random
from accel_trainer.core.spans import Phase, span
from accel_trainer.data.loader import Batch
from accel_trainer.training.build import Components
from accel_trainer.training.objectives.base import BatchResult
from accel_trainer.training.optim.optimizer import prefer_fused
from accel_trainer.training.optim.parameter_groups import train_mode
from accel_trainer.training.runtime.accelerator import in_memory_format


class TrainingStep:
    """A forward and a backward pass and, with the last micro-batch of a step, the optimizer.

    The model and the optimizer of the parts are handed to Accelerate; `plain_model` is the model without its wrapper.
    """

    def __init__(self, job: ResolvedJob, parts: Components, accelerator: Accelerator) -> None:
        self.job, self.accelerator = job, accelerator
        self.objective = parts.objective.to(accelerator.device)
        prefer_fused(job, parts.optimizer, accelerator.device)
        self.model, self.optimizer = accelerator.prepare(parts.model, parts.optimizer)
        self.plain_model = accelerator.unwrap_model(self.model, keep_torch_compile=False)
        self._frozen = parts.frozen
        # DistributedDataParallel and Accelerate divide by these.
        self._divided_by = accelerator.num_processes * parts.sampling.accumulation

    def train_mode(self) -> None:
        self.model.train()
        train_mode(self.plain_model, self._frozen)

    def __call__(self, batch: Batch, global_step: int, micro_batch: int) -> BatchResult:
        """global_step: how many were taken before; micro_batch: of this step, from 0. All ranks call it alike."""
        accelerator = self.accelerator
        with accelerator.accumulate(self.model):
            self.seed_model(global_step, micro_batch)
            images = batch.inputs.on(accelerator.device)
            with span(Phase.FORWARD):
                output = self.model(in_memory_format(self.job, images))
                judged = self.objective.compute(output, batch, is_shared=True)
            with span(Phase.BACKWARD):
                accelerator.backward(judged.loss * self._divided_by)
            with span(Phase.OPTIMIZER):
                self._take()
        return judged

    def _take(self) -> None:
        accelerator = self.accelerator
        if accelerator.sync_gradients and self.job.clip_grad_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), self.job.clip_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def seed_model(self, global_step: int, micro_batch: int) -> None:
        """Dropout and the like follow from the step, not from what was drawn before."""
        rank = self.accelerator.process_index
        torch.manual_seed(keyed_random.key(self.job.seed, "model", global_step, micro_batch, rank))
