"""Optimizer steps that a loss scaler has skipped, because the scaled gradients were too large for fp16."""

from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from torch.optim import SGD, Optimizer


class SkippedSteps:
    """Knows after each step whether it was taken. scaler: that of Accelerate; None where losses are not scaled.

    GradScaler itself decides on the host, and Accelerate notes what it has decided. A fused optimizer decides on the
    device, and the host learns of it by the scale, which only falls after a step that was skipped: for this alone the
    host waits for the device.
    """

    def __init__(self, optimizer: AcceleratedOptimizer, scaler: Any) -> None:
        self._optimizer = optimizer
        decides_on_device = getattr(optimizer.optimizer, "_step_supports_amp_scaling", False)
        self._scaler = scaler if decides_on_device else None
        self._scale: float | None = None

    def before_first(self) -> None:
        """Called before each step; looks before the first, when the scale is that of the state that was loaded."""
        if self._scaler is not None and self._scale is None:
            self._scale = self._scaler.get_scale()

    def was_last(self) -> bool:
        """Whether the last step was skipped; asked once after each."""
        if self._scaler is None:
            return bool(self._optimizer.step_was_skipped)
        before, self._scale = self._scale, self._scaler.get_scale()
        return before is not None and self._scale < before


MOMENTUM = "momentum_buffer"


def forget_skipped_first_step(optimizer: Optimizer) -> None:
    """From now on a first step of torch's fused SGD that is skipped leaves no momentum, so that the first step that is
    taken is the first: momentum is the gradient then.

    torch makes the buffers before the kernel decides, and leaves in them what was in memory. Until a step is taken the
    host waits for that decision. The other fused optimizers begin with zeros and count only what is taken.
    """
    if not isinstance(optimizer, SGD) or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return
    without: list[Tensor] = []

    def before(optimizer: Optimizer, *_: Any) -> None:
        with_momentum = {p for p, state in optimizer.state.items() if state.get(MOMENTUM) is not None}
        without[:] = [p for group in optimizer.param_groups for p in group["params"] if p not in with_momentum]

    def after(optimizer: Optimizer, *_: Any) -> None:
        made = [p for p in without if MOMENTUM in optimizer.state.get(p, {})]
        found_inf = getattr(optimizer, "found_inf", None)
        if made and found_inf is not None and bool(found_inf):
            for parameter in made:
                del optimizer.state[parameter][MOMENTUM]

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
