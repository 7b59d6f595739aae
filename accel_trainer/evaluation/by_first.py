"""What the first of several processes does for all."""

from collections.abc import Callable

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from accel_trainer.core.errors import UserError


def by_first(accelerator: Accelerator, act: Callable[[], None]) -> None:
    """Do something on rank 0; every rank calls it, and raises the UserError that there was."""
    problem: list[tuple[type[UserError], list[str]] | None] = [None]
    if accelerator.is_main_process:
        try:
            act()
        except UserError as error:
            if accelerator.num_processes == 1:
                raise
            problem = [(type(error), list(error.problems))]
    if accelerator.num_processes > 1:
        broadcast_object_list(problem)
    if problem[0] is not None:
        kind, lines = problem[0]
        raise kind(*lines)
