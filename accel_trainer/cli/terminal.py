"""What is printed while the jobs of a queue are trained."""

from accel_trainer.cli.attempt_terminal import AttemptTerminal
from accel_trainer.cli.event_lines import line_of
from accel_trainer.launch.attempt_events import (
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.queue.events import ClaimFinished, Event, JobSubmitted, WaitingForJobs


class Terminal(AttemptTerminal):
    """Prints events: the logs of trainers, how jobs ended, what happens in the queue."""

    def __init__(self, *, several: bool = False) -> None:
        super().__init__(several=several)
        self._is_waiting = False

    def __call__(self, event: Event) -> None:
        """Print an event. Whatever goes wrong with that is no reason to end a training."""
        try:
            self._show(event)
        except Exception:
            self._print_plainly(lambda: line_of(event))

    def _show(self, event: Event) -> None:
        match event:
            case AttemptStarted() | AttemptTerminating() | AttemptFinished() | AttemptStopping() | Tick():
                self._is_waiting &= not isinstance(event, AttemptStarted)
                self._show_attempt(event)
            case ClaimFinished(name=name):
                self._end(name, line_of(event))
            case WaitingForJobs():
                if not self._is_waiting:
                    self._print(line_of(event))
                self._is_waiting = True
            case _:
                self._is_waiting &= not isinstance(event, JobSubmitted)
                self._print(line_of(event))
