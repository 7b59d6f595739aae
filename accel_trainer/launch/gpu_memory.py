"""Who else uses the memory of this machine's GPUs, looked at aside: a driver may take long to answer, or hang."""

import threading
import time
from collections.abc import Callable

from accel_trainer.core.errors import UserError
from accel_trainer.launch.nvidia import Found, find_gpus

# A GPU on which nobody is has some memory taken by the driver.
FREE_BELOW = 0.05
# How often it is looked.
LOOK_EVERY_S = 1.0


class GpuMemory:
    """Looks again and again, in a thread, whenever it is asked; each look answers one question."""

    def __init__(self, free_below: float = FREE_BELOW, look: Callable[[], Found] = find_gpus) -> None:
        """A GPU counts as free while less than this part of its memory is taken, 0 to 1."""
        self._free_below, self._look_at_all = free_below, look
        self._thread: threading.Thread | None = None
        self._found: Found | Exception | None = None
        self._began = -LOOK_EVERY_S

    def occupied(self, gpus: list[str]) -> set[str] | None:
        """Those of these GPUs, by index, whose memory somebody uses, or that do not answer; None while it is looked, to
        be asked again in a moment. Raises UserError where the driver does not answer at all."""
        found, self._found = self._found, None
        if found is None:
            self._begin_if_due()
            return None
        if isinstance(found, Exception):
            raise UserError(f"the driver cannot be asked: {found}", option="wait_free") from found
        if found.problem is not None:
            raise UserError(found.problem, option="wait_free")
        free = {gpu.index for gpu in found.gpus if gpu.used is not None and gpu.used < self._free_below}
        return set(gpus) - free

    def check(self) -> None:
        """Raises UserError where the memory of GPUs is not known here at all."""
        found = self._look_at_all()
        if found.problem is not None or all(gpu.used is None for gpu in found.gpus):
            reason = found.problem or "the driver lists no GPU with its memory"
            raise UserError(reason, option="wait_free", hint="leave `wait_free` out")

    def _begin_if_due(self) -> None:
        is_looking = self._thread is not None and self._thread.is_alive()
        if not is_looking and time.monotonic() - self._began >= LOOK_EVERY_S:
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def _look(self) -> None:
        try:
            self._found = self._look_at_all()
        except Exception as error:  # is raised where it is asked for
            self._found = error
