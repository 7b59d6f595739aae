"""The page of `accel-train compare --html`, written once, or again and again while a queue runs."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.cli.app import DEFAULT_QUEUE, count_of, echo, existing_queue, print_warnings, write_file
from accel_trainer.cli.slurm_claims import SlurmDesk
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import duration, listed
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.status_table import JobStatus, status_rows
from accel_trainer.queue.store import QueueStore

if TYPE_CHECKING:
    from accel_trainer.cli.compare import Found, Question
    from accel_trainer.report.page.contents import PageContents, QueueJob, QueueState
    from accel_trainer.report.page.gather import Wishes

# Of --watch: between two looks, or so many times as long as the last one took.
LOOK_EVERY_S, SHARE = 10.0, 4
# Jobs of a queue that the page shows beside those that run.
FEW = 20


@dataclass(frozen=True)
class PageRequest:
    """Where the page is written, what people did, the queue that it shows, and whether it is written again."""

    path: Path
    human: Sequence[Path]
    queue: Path | None
    watch: bool


def write_pages(request: PageRequest, question: "Question", wishes: "Wishes") -> list[str]:
    """Write the page; with `watch` until no job of the queue waits or runs. Gives what is wrong with runs that cannot
    be read, a line each. Raises UserError."""
    from accel_trainer.report.page.people import read_people

    wishes = replace(wishes, people=[read_people(path) for path in request.human])
    folder = request.queue or (DEFAULT_QUEUE if request.watch else None)
    store = None if folder is None else existing_queue(folder)
    if store is None or not request.watch:
        return _write(request, store, question.ask(), wishes)
    return _watch(request, store, question, wishes)


def _watch(request: PageRequest, store: QueueStore, question: "Question", wishes: "Wishes") -> list[str]:
    desk, said = SlurmDesk(store), set[str]()
    echo(f"{request.path} is written again as runs go on; Ctrl-C ends that")
    try:
        while True:
            began = time.monotonic()
            desk.settle(store.claims())  # what Slurm has ended: no other process may be there to record it
            # Before the runs are read: all of one that is over by now is then there.
            if not set(store.states().values()) & {JobState.PENDING, JobState.RUNNING}:
                return _write(request, store, question.ask(), wishes)
            found = _found_so_far(question)
            _write(request, store, found, wishes, again_s=LOOK_EVERY_S)
            print_warnings(line for line in found.problems if line not in said)
            said |= set(found.problems)
            time.sleep(max(LOOK_EVERY_S, SHARE * (time.monotonic() - began)))
    except KeyboardInterrupt:
        _write(request, store, _found_so_far(question), wishes)
        raise


def _found_so_far(question: "Question") -> "Found":
    """While a queue runs, what is asked for may not be there yet: no run, no value of a metric."""
    from accel_trainer.cli.compare import Found

    try:
        return question.ask()
    except UserError as error:
        return Found([], error.problems)


def _write(
    request: PageRequest, store: QueueStore | None, found: "Found", wishes: "Wishes", again_s: float | None = None
) -> list[str]:
    """again_s: after how many seconds it is written again; None: never, and that it is there is said."""
    from accel_trainer import __version__
    from accel_trainer.report.page.document import as_html

    contents = _contents(found, wishes, is_last=again_s is None)
    contents = replace(contents, queue=None if store is None else queue_state(store), again_s=again_s)
    content = as_html(contents, f"Comparison of {count_of(len(found.rows), 'run')}", __version__).encode()
    write_file(request.path, content)
    if again_s is None:
        echo(f"{request.path}: {count_of(len(found.rows), 'run')}, {len(content) / 1e6:.1f} MB")
    return found.problems


def _contents(found: "Found", wishes: "Wishes", *, is_last: bool) -> "PageContents":
    from accel_trainer.report.page.gather import gather

    try:
        return gather(found.rows, wishes, found.problems)
    except UserError as error:
        if is_last:
            raise
        return gather([], replace(wishes, group_by=(), against=None), [*found.problems, *error.problems])


def queue_state(store: QueueStore) -> "QueueState":
    """What the page says of a queue."""
    from accel_trainer.report.page.contents import QueueState

    rows = list(status_rows(store, most=FEW))
    counts = Counter(str(row.state) for row in rows)
    shown = [row for row in rows if row.state != JobState.DONE]
    running = [row for row in shown if row.state == JobState.RUNNING]
    others = [row for row in shown if row.state != JobState.RUNNING][:FEW]
    return QueueState(str(store.folder), dict(counts), [_job(row) for row in (*running, *others)])


def _job(row: JobStatus) -> "QueueJob":
    from accel_trainer.report.page.contents import QueueJob

    done, all_of_it = (row.images, row.num_images) if row.num_images else (row.epoch, row.num_epochs)
    gpus = f" gpu {listed(row.devices)}" if row.devices else ""
    is_running = row.state == JobState.RUNNING
    return QueueJob(
        job=row.job,
        state=str(row.state),
        epoch=None if done is None else f"{done:,}/{all_of_it:,}{' images' if row.num_images else ''}",
        best=None if row.best is None else f"{row.best:.4g} {row.metric or ''}".strip(),
        where=None if row.host is None else f"{row.host}{gpus}",
        left=None if row.left_s is None else duration(row.left_s),
        note=row.note,
        progress=min(done / all_of_it, 1.0) if is_running and done is not None and all_of_it else None,
    )
