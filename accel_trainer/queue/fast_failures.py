"""Jobs that fail one after the other, soon after their start: then it is not the jobs, it is the machine."""

from accel_trainer.core.text import duration
from accel_trainer.launch.outcome import Ending, EndingKind

# So many different jobs, so soon.
FAST_FAILURES, FAST_S = 3, 60.0


class FastFailures:
    """Those of one runner, in a row."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def add(self, name: str, ending: Ending, seconds: float) -> str | None:
        """Note how a job has ended, so long after its start; why the machine is to be left alone, if it is."""
        if ending.kind is EndingKind.DONE or (ending.kind is EndingKind.FAILED and seconds > FAST_S):
            self._names.clear()
        elif ending.kind is EndingKind.FAILED and name not in self._names:
            self._names.append(name)
        if len(self._names) < FAST_FAILURES:
            return None
        told = ", ".join(self._names)
        self._names.clear()
        return f"{FAST_FAILURES} jobs in a row failed within {duration(FAST_S)} of their start ({told})"
