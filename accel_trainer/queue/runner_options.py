"""How a runner works: what it is asked for, beside its queue and its machine."""

from collections.abc import Callable
from dataclasses import dataclass, field

from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.retries import FIRST_WAIT_S

# Which of some GPUs others use; None while that is not known.
GpusInUse = Callable[[list[str]], set[str] | None]


def nobody_else(gpus: list[str]) -> set[str] | None:
    """Of these GPUs, those that others use: none, without a look."""
    return set()


@dataclass(frozen=True)
class RunnerOptions:
    """How a runner works.

    launch: overrides what a job has for its launch.
    retry_after_s: the wait before the first retry of a job; it doubles with each further one.
    reclaims_stale: whether it takes also the jobs of runners on other machines of which nothing was heard for long.
    prewarms: whether it starts the trainer of the next job while another still works.
    gpus_in_use: which of some GPUs others use, which are not given to a job; None while that is not known.
    """

    launch: LaunchOptions = field(default_factory=LaunchOptions)
    retry_after_s: float = FIRST_WAIT_S
    reclaims_stale: bool = False
    prewarms: bool = False
    gpus_in_use: GpusInUse = nobody_else


DEFAULT_OPTIONS = RunnerOptions()
