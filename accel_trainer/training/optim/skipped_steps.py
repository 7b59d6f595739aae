"""Optimizer steps that a loss scaler has skipped, because the scaled gradients were too large for fp16."""

from typing import Any

from accelerate.optimizer import AcceleratedOptimizer


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
