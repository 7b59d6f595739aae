"""How ranks come to stop, save or give up at the same step, without making anybody wait for a device."""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

_NEVER = 2**62


@dataclass(frozen=True)
class Decision:
    """What all ranks do now. `diverged_at`: the first global step with a loss that was not finite."""

    stop: bool = False
    save: bool = False
    diverged_at: int | None = None


class Agreement:
    """Puts together what each rank wants; every rank gets the same decision at the same step.

    With several ranks the wishes of one step are exchanged while the next one runs, on the host (gloo), so that
    neither the host nor the device waits. Every rank calls `at_step` after each step and `now` at the same
    places; no call may be left out by one of them.
    """

    def __init__(self, world_size: int, rank: int, save_every_s: float) -> None:
        self._group: dist.ProcessGroup | None = None
        if world_size > 1:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup)
            self._group = group
        self._is_first = rank == 0
        self._save_every_s = save_every_s
        self._saved = time.monotonic()
        self._exchange: tuple[dist.Work, torch.Tensor] | None = None

    def just_saved(self) -> None:
        self._saved = time.monotonic()

    def at_step(self, stop: bool, diverged_at: int | None) -> Decision:
        """What was agreed on of the wishes before (with one rank: of these)."""
        if self._group is None:
            return Decision(stop, self._save_is_due(), diverged_at)
        decision = self._finish()
        if decision.save:
            self.just_saved()  # before the next wish is made, or it would be made twice
        self._begin(stop, diverged_at)
        return decision

    def now(self, stop: bool, diverged_at: int | None) -> Decision:
        """What is agreed on of these wishes; waits for the slowest rank."""
        if self._group is None:
            return Decision(stop, False, diverged_at)
        self._finish()
        self._begin(stop, diverged_at)
        return self._finish()

    def _save_is_due(self) -> bool:
        return self._is_first and time.monotonic() - self._saved >= self._save_every_s

    def _begin(self, stop: bool, diverged_at: int | None) -> None:
        # The largest wins: the earliest step, hence, as its distance from never.
        never_less = 0 if diverged_at is None else _NEVER - diverged_at
        wishes = torch.tensor([stop, self._save_is_due(), never_less], dtype=torch.int64)
        work = dist.all_reduce(wishes, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._exchange = (work, wishes)

    def _finish(self) -> Decision:
        if self._exchange is None:
            return Decision()
        work, wishes = self._exchange
        work.wait()
        self._exchange = None
        stop, save, never_less = wishes.tolist()
        return Decision(bool(stop), bool(save), _NEVER - never_less if never_less else None)
