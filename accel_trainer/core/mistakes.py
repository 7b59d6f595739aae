"""All mistakes of several things that are looked at one after the other, where each raises an error for its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from accel_trainer.core.errors import Problem, UserError

T = TypeVar("T")


class Mistakes:
    """What has been found so far, each once, in the order in which it was looked at."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def of(self, look: Callable[[], T]) -> T | None:
        """What a function gives; None where it has found a mistake, which is noted."""
        with self._noted():
            return look()
        return None

    def is_right(self, look: Callable[[], object]) -> bool:
        """Whether a function finds nothing wrong."""
        before = len(self.found)
        self.of(look)
        return len(self.found) == before

    def raise_found(self) -> None:
        """Raises UserError for what was found, if there is any."""
        if self.found:
            raise UserError(*self.found)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.found += [problem for problem in error.details if problem not in self.found]
