"""Rows of all processes on each of them, with a gradient that reaches the process they came from."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


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
    return _GatherRows.apply(rows)


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
