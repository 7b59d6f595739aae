"""What `run-queue --notify` means: who is told of jobs while a queue is worked on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.queue.store import QueueStore

if TYPE_CHECKING:
    from accel_trainer.queue.events import Emit
    from accel_trainer.queue.notifier import Notifier, Target

NotifyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--notify",
        metavar="TARGET",
        help="When a job ends, or the queue is empty, tell a command, a URL or a service of apprise. May be repeated.",
        show_default=False,
    ),
]


def notify_targets(words: Sequence[str]) -> "Sequence[Target]":
    """Who is told of jobs. Raises UserError for what could tell nobody anything."""
    if not words:
        return ()
    from accel_trainer.queue.notifier import target_of

    return [target_of(target) for target in words]


@contextmanager
def notifying(targets: "Sequence[Target]", queue: QueueStore, emit: "Emit") -> "Iterator[Notifier]":
    """In this context targets are told of the events that are emitted; at its end, of what was not told yet."""
    from accel_trainer.queue.notifier import Notifier

    notifier = Notifier(targets, queue.folder, emit)
    try:
        yield notifier
    finally:
        notifier.close()
