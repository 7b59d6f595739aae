"""What several processes agree on, and how they gather rows."""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

_NEVER = 2**62


@dataclass(frozen=True)
class Decision:
    """What all ranks do now. `diverged_at`: the first global step with a loss that was not finite. `corrupt`: how many
    corrupt images the ranks had met, each by itself, one step before."""

    stop: bool = False
    save: bool = False
    diverged_at: int | None = None
    corrupt: int = 0


class Agreement:
    """Puts together what each rank wants; every rank gets the same decision at the same step.

    With several ranks the wishes of one step are exchanged while the next one runs, on the host (gloo), so that
    neither the host nor the device waits. Every rank calls `at_step` after each step and `now` at the same
    places; no call may be left out by one of them.
    """

    def __init__(self, world_size: int, rank: int, save_every_s: float) -> None:
        self._group = _gloo_group() if world_size > 1 else None
        self._world_size, self._rank, self._is_first = world_size, rank, rank == 0
        self._save_every_s = save_every_s
        self._saved = time.monotonic()
        self._exchange: tuple[dist.Work, torch.Tensor] | None = None
        self._corrupt = 0  # of the step before

    def just_saved(self) -> None:
        """The time until the next save counts from now."""
        self._saved = time.monotonic()

    def at_step(self, stop: bool, diverged_at: int | None, corrupt: int = 0) -> Decision:
        """What was agreed on of the wishes before (with one rank: of these). corrupt: how many corrupt images this rank
        has met that the others do not know of; of these it is always the sum of the step before."""
        if self._group is None:
            before, self._corrupt = self._corrupt, corrupt
            return Decision(stop, self._save_is_due(), diverged_at, before)
        decision = self._finish()
        decision = replace(decision, corrupt=decision.corrupt + self._corrupt)
        self._corrupt = 0
        if decision.save:
            self.just_saved()  # before the next wish is made, or it would be made twice
        self._begin(stop, diverged_at, corrupt)
        return decision

    def now(self, stop: bool, diverged_at: int | None) -> Decision:
        """What is agreed on of these wishes; waits for the slowest rank."""
        if self._group is None:
            return Decision(stop, False, diverged_at)
        self._corrupt += self._finish().corrupt
        self._begin(stop, diverged_at, 0)
        return self._finish()

    def _save_is_due(self) -> bool:
        return self._is_first and time.monotonic() - self._saved >= self._save_every_s

    def _begin(self, stop: bool, diverged_at: int | None, corrupt: int) -> None:
        # The largest wins: the earliest step, hence, as its distance from never.
        never_less = 0 if diverged_at is None else _NEVER - diverged_at
        each = [corrupt if rank == self._rank else 0 for rank in range(self._world_size)]
        wishes = torch.tensor([stop, self._save_is_due(), never_less, *each], dtype=torch.int64)
        work = dist.all_reduce(wishes, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        if work is None:
            raise RuntimeError("torch.distributed has started no exchange between the ranks")
        self._exchange = (work, wishes)

    def _finish(self) -> Decision:
        if self._exchange is None:
            return Decision()
        work, wishes = self._exchange
        work.wait()
        self._exchange = None
        stop, save, never_less, *corrupt = wishes.tolist()
        return Decision(bool(stop), bool(save), _NEVER - never_less if never_less else None, sum(corrupt))


def _gloo_group() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo")
    if not isinstance(group, dist.ProcessGroup):
        raise RuntimeError("this process is not in the group of those that train together")
    return group


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, rank 0's first: (processes * n, ...), on each of them.

    float32, float64, or int64 (which has no gradient); n must be the same on all processes, which all call this at the
    same point, and all go backward through it or none does. The gradient of a row is the sum of those that the
    processes have for it: their losses are parts of one sum. With one process, or without a process group: `rows`.

    Tested with gloo; written for NCCL too, but not run on a GPU. TypeError for other dtypes: half precision is too
    coarse to add up gradients in.
    """
    if rows.dtype not in (torch.float32, torch.float64, torch.int64):
        raise TypeError(f"rows are {rows.dtype}: gather float32, float64 or int64")
    if not _has_group() or dist.get_world_size() == 1:
        return rows
    output: Tensor = _GatherRows.apply(rows)
    return output


def own_rank() -> int:
    """This process among those whose rows are gathered."""
    return dist.get_rank() if _has_group() else 0


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()


class _GatherRows(torch.autograd.Function):
    """Unlike torch.distributed.nn.all_gather, which adds up wrong numbers where gradients are not contiguous."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.own = slice(dist.get_rank() * len(rows), (dist.get_rank() + 1) * len(rows))
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # A copy, because others may hold the gradient that the sum would be written into.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total[ctx.own].contiguous()


class Stopped(Exception):
    """The run was asked to stop, and a state is saved if there is anything to save."""
