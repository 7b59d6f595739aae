"""Calls of trackers, on which no training depends: one that fails or hangs is left out."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from accel_trainer.core.text import duration, first_line

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

log = logging.getLogger(__name__)

# How long a training waits for a call of a tracker.
CALL_S = 300.0


def for_all_trackers(accelerator: "Accelerator", call: Callable[["GeneralTracker"], None]) -> None:
    """A training does not depend on its trackers: one that fails, as when the process behind it was killed, is reported
    and left out from then on."""
    for tracker in list(accelerator.trackers):
        try:
            BackgroundCall(partial(call, tracker)).wait(CALL_S)
        except Exception as error:
            accelerator.trackers.remove(tracker)
            log.warning(
                "%s is gone (%s); its log ends here, performance.csv has everything", tracker.name, first_line(error)
            )


def end_trackers(accelerator: "Accelerator") -> None:
    """End the trackers, which may take a while to upload what they have."""
    for_all_trackers(accelerator, lambda tracker: tracker.finish())
    accelerator.trackers = []


class BackgroundCall:
    """A call in a thread, which may hang as long as the process lives: wandb does for ever when the process behind it
    is killed while it starts."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._failed: BaseException | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._failed = error

    def finished_within(self, seconds: float) -> bool:
        """Wait up to so many seconds; whether the call has returned or raised."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Raises what the call does, and TimeoutError."""
        if not self.finished_within(seconds):
            raise TimeoutError(f"no answer within {duration(time.monotonic() - self._began)}")
        if self._failed is not None:
            raise self._failed
