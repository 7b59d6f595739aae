"""Divergence, memory that ran out, full disks, and what helps."""

import errno
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.optim import Optimizer

from accel_trainer.core.machine_errors import TRIED_FOR, what_helps, why_of_machine
from accel_trainer.core.text import first_line, listed
from accel_trainer.data.batch_plan import TrainBatchPlanner
from accel_trainer.run.status import Divergence, RunState
from accel_trainer.training.optim.optimizer import learning_rate
from accel_trainer.training.state.checkpoint import NotSaved, Progress, StateStore


def known_failure(
    error: Exception, place: str, batch_size: int | str, states: StateStore
) -> tuple[RunState, str] | None:
    """What an error of a run is, and why, in one line; None of one that is not known.

    place: where the run was, as "at step 3 (epoch 1)".
    """
    if is_out_of_memory(error):
        with suppress(OSError):
            traceback.print_exception(error)  # which layer needed it
        reason = textwrap.shorten(first_line(error), 120, placeholder=" ...")
        return RunState.OUT_OF_MEMORY, f"out of memory {place} with batch_size {batch_size} ({reason})"
    if not isinstance(error, OSError) or not _is_in(states.folder.parent, error.filename):
        return None
    what = f"{error.filename} cannot be written"
    if isinstance(error, NotSaved):
        what = f"the state of step {error.step} cannot be saved in {error.filename}"
    if (why := why_of_machine(error, was_writable=True)) is not None:
        if TRIED_FOR in (error.strerror or ""):  # it cannot be seen now what there is
            goes_on = f"{what_helps(error)}; the run goes on from its newest state"
        else:
            goes_on = _kept(states)
        return RunState.MACHINE_FAILED, f"{why}: {what} ({error.strerror}); {goes_on}"
    if error.errno == errno.EFBIG:
        return RunState.FAILED, f"the file would be too large: {what} ({error.strerror}); {_kept(states)}"
    return None


def _is_in(folder: Path, file: str | None) -> bool:
    return file is not None and Path(file).is_relative_to(folder)


def _kept(states: StateStore) -> str:
    step = states.newest_step
    if step is None:
        return "no state was saved before, so the run starts over"
    return f"the state of step {step} is kept, and the run goes on from it"


class FiniteCheck:
    """Looks at weights, statistics and what the optimizer remembers.

    A loss shows it only one step later: an infinite gradient spoils the weights in a step whose loss was finite. A
    buffer that was not finite when training began, such as a mask of -inf, is left alone.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._masks = {name for name, buffer in model.named_buffers() if not all_finite([buffer])}

    def __call__(self) -> Tensor:
        """On the device, bool (): nobody waits for it."""
        return all_finite(self._tensors())

    def _tensors(self) -> Iterator[Tensor]:
        yield from self._model.parameters()
        yield from (buffer for name, buffer in self._model.named_buffers() if name not in self._masks)
        for remembered in self._optimizer.state.values():
            # Single numbers, such as the count of steps, may lie on the host.
            yield from (value for value in remembered.values() if isinstance(value, Tensor) and value.dim())


def all_finite(tensors: Iterator[Tensor] | list[Tensor]) -> Tensor:
    """Whether every number in tensors of one device is finite; bool ()."""
    # The largest magnitude is not finite if any is not, and takes a fraction of the time of looking at each.
    extremes = [t.detach().abs().amax().isfinite() for t in tensors if t.is_floating_point() and t.numel()]
    return torch.stack(extremes).all() if extremes else torch.tensor(True)


class FirstBadStep:
    """The first step whose loss or gradient was not finite, kept on the device: nobody has to wait to know."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._step = torch.full((), -1, dtype=torch.int64, device=device)

    def note(self, is_finite: Tensor, step: int) -> None:
        """is_finite: bool (), on the device; step: over all epochs, from 1."""
        self._step.masked_fill_(~is_finite & (self._step < 0), step)

    def read(self) -> int | None:
        """The step, or None; waits for the device."""
        step = int(self._step)
        return step if step >= 0 else None


class DivergenceCheck:
    """Finds out whether a training has diverged, and at which step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        sampling: TrainBatchPlanner,
        first_bad: FirstBadStep,
        scaler: Any = None,
    ) -> None:
        """scaler: that of fp16's losses, alike on all ranks; None where they are not scaled."""
        self._is_finite, self._first_bad = FiniteCheck(model, optimizer), first_bad
        self._optimizer, self._sampling, self._scaler = optimizer, sampling, scaler

    def look(self, global_step: int) -> int | None:
        """The first step of this rank whose loss, or what it made of the weights, was not finite. Waits for the
        device. global_step: how many were taken."""
        self._first_bad.note(self._is_finite(), global_step)
        return self.read(global_step)

    def read(self, global_step: int) -> int | None:
        """The same, of losses and fp16's loss scale alone, which take no work."""
        if self._is_scale_gone():
            self._first_bad.note(torch.zeros((), dtype=torch.bool, device=self._first_bad.device), global_step)
        return self._first_bad.read()

    def _is_scale_gone(self) -> bool:
        """A step that is skipped halves the scale. From its usual 65,536 it is 0 after 166 of them in a row, and then
        no step is ever taken again."""
        return self._scaler is not None and self._scaler.get_scale() == 0.0

    def at(self, step: int, progress: Progress) -> "Diverged":
        """The error for a step of the running epoch."""
        samples = self._samples_of(step, progress)
        where = self._divergence(step, progress.epoch + 1, samples)
        images = listed(map(str, samples))
        place = f"epoch {where.epoch}, learning rate {where.lr:g}, training images {images}"
        if self._is_scale_gone():
            what = (
                f"every step up to {step} was skipped, as gradients do not fit into fp16 whatever the scale ({place})"
            )
            return Diverged(what, where, "use mixed_precision 'bf16', or a smaller learning rate")
        return Diverged(f"the loss or its gradient was not finite at step {step} ({place})", where)

    def in_validation(self, epoch: int, progress: Progress) -> "Diverged":
        """The error for the validation at the end of an epoch."""
        step = progress.global_step
        message = f"the validation loss was not finite after step {step} (epoch {epoch})"
        return Diverged(message, self._divergence(step, epoch, []))

    def _divergence(self, step: int, epoch: int, samples: Sequence[int]) -> Divergence:
        return Divergence(step=step, epoch=epoch, lr=learning_rate(self._optimizer), samples=tuple(samples))

    def _samples_of(self, step: int, progress: Progress) -> list[int]:
        """The training images of a step of the running epoch, on all processes. Of a corrupt image it is known only
        here that another took its place."""
        first_step = step - 1 - (progress.global_step - progress.step)
        plans = self._sampling.micro_batches(progress.epoch + 1, rank=0, first_step=first_step)
        indices: list[int] = next(plans).global_indices.tolist()
        return indices


class Diverged(Exception):
    """A loss, or what it made of the weights, was not finite."""

    def __init__(
        self, what: str, where: Divergence, advice: str = "try a smaller learning rate or clip_grad_norm"
    ) -> None:
        super().__init__(f"{what}; {advice}")
        self.where = where


# What Accelerate does not look for. Not seen on a GPU.
NO_MEMORY = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a lack of memory."""
    if error is None:
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError):
        text = str(error)
        if should_reduce_batch_size(error) or any(words in text for words in NO_MEMORY):
            return True
    return is_out_of_memory(error.__cause__)
