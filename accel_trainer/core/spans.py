"""Names for what takes time, recorded only where somebody measures it (`accel-train profile`).

Elsewhere a span costs a tenth of a microsecond.

Threads have spans too. A span lies within another one of its thread or beside it, never across.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Phase(StrEnum):
    """What a process does in a step, in this order, and what its loader's threads do meanwhile."""

    WAITING = "waiting for images"
    COPY = "host to device"
    AUGMENTATION = "augmentation"  # on the device
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"
    AVERAGES = "averages"
    METRICS = "metrics"
    REPORTING = "reporting"
    SAVING = "saving"
    STEP = "step"  # all of it but the waiting

    LOADING = "loading"  # a batch
    READING = "reading and decoding"
    RENDERING = "cutting and augmenting"


class SpanSink(Protocol):
    """What records spans, of all threads of the process."""

    def span(self, name: Phase, count: int = 1) -> AbstractContextManager[object]:
        """A context in which time counts for this phase, of so many things."""
        ...


_NOBODY = nullcontext()
_recorder: SpanSink | None = None


def span(name: Phase, count: int = 1) -> AbstractContextManager[object]:
    """What is done in this context is named so. count: to how many things, such as images."""
    return _NOBODY if _recorder is None else _recorder.span(name, count)


def spanned(name: Phase) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Every call of a function is a span."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> T:
            with span(name):
                return function(*args, **keywords)

        return call

    return decorate


def timed(items: Iterable[T]) -> Iterator[T]:
    """The items; that the next one is waited for is a span."""
    iterator = iter(items)
    while True:
        with span(Phase.WAITING):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def recording(recorder: SpanSink) -> Iterator[None]:
    """A recorder gets the spans of all threads of this process."""
    global _recorder
    _recorder = recorder
    try:
        yield
    finally:
        _recorder = None
