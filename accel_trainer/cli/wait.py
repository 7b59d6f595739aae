"""The verb that waits for jobs."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    SOME_FAILED,
    QueueOption,
    app,
    count_of,
    echo,
    existing_queue,
    find_job,
    print_problems,
)
from accel_trainer.cli.completion import names_of_jobs
from accel_trainer.cli.slurm_claims import SlurmDesk
from accel_trainer.core.lease import is_stale
from accel_trainer.core.text import duration, listed, one_line
from accel_trainer.queue.heartbeat import HeartbeatObserver
from accel_trainer.queue.layout import ClaimedJob, JobState
from accel_trainer.queue.status_book import Entry, StatusBook
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.time_left import TimeLeftEstimator

LOOK_EVERY_S, ASK_SLURM_EVERY_S = 2.0, 15.0
# So often it is said what is waited for; at a terminal its line is brought up to date at each such look.
SAY_EVERY_S, SAY_AT_TERMINAL_EVERY_S = 30.0, 10.0
# So long another runner has to reclaim what a dead one has left.
GRACE_S = 10.0


@app.command()
def wait(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of jobs; all there are if not given.", show_default=False, autocompletion=names_of_jobs
        ),
    ] = None,
    queue: QueueOption = DEFAULT_QUEUE,
) -> None:
    """Wait until jobs are over, whichever process runs them. Exit code 1: one of them has failed, is gone, or was left
    by a runner that died, and no other one is at work."""
    store = existing_queue(queue)
    if jobs:
        left = {find_job(store, name).name for name in jobs}
    else:
        left = {name for name, state in store.states().items() if not state.is_over}
    waiting = _Waiting(store, left)
    try:
        has_failed = waiting.run()
    except KeyboardInterrupt:
        waiting.say("not waited for any more; the jobs go on")
        raise
    if has_failed:
        raise typer.Exit(SOME_FAILED)


class _Waiting:
    """Waits for jobs by their names."""

    def __init__(self, store: QueueStore, left: set[str]) -> None:
        self._store, self._left = store, left
        self._slurm, self._ask_at = SlurmDesk(store), 0.0
        self._observer = HeartbeatObserver(store)
        self._dead_since: float | None = None
        self._forecast = _Forecast(store)
        self._line = _Line()

    def run(self) -> bool:
        """Until all are over, or nobody is left who would run them; whether that is true of any that is not done."""
        has_failed = False
        while self._left:
            self._settle_in_slurm()
            states = self._store.states()
            for name in sorted(self._left):
                if (state := states.get(name)) is not None and not state.is_over:
                    continue
                self._left.discard(name)
                has_failed |= state is not JobState.DONE
                self._line.clear()
                echo(f"{name}: {'gone' if state is None else state}")
            if self._left and (died := self._left_by_dead()):
                self._line.clear()
                print_problems(self._why_over(died))
                return True
            if self._left:
                self._line.say_if_due(lambda: self._forecast.of(self._left))
                time.sleep(LOOK_EVERY_S)
        self._line.clear()
        return has_failed

    def say(self, text: str) -> None:
        """Print a line beside what the verb prints."""
        self._line.clear()
        echo(text, err=True)

    def _settle_in_slurm(self) -> None:
        """Have recorded here what Slurm has ended: no other process may be there to do so."""
        if time.monotonic() >= self._ask_at:
            self._slurm.settle([job for job in self._store.claims() if job.name in self._left])
            self._ask_at = time.monotonic() + ASK_SLURM_EVERY_S

    def _left_by_dead(self) -> list[ClaimedJob]:
        """Jobs that are waited for and whose runner has died, once nobody has taken them over for a while."""
        claims = [job for job in self._store.claims() if job.name in self._left and job.owner.cluster is None]
        silences_s = self._observer.silence_s(claims)
        died = [job for job in claims if job.owner.is_dead() or is_stale(silences_s.get(job.path.name, 0.0))]
        if not died or self._observer.has_living_runner():
            self._dead_since = None
            return []
        self._dead_since = self._dead_since or time.monotonic()
        return died if time.monotonic() - self._dead_since >= GRACE_S else []

    def _why_over(self, died: Collection[ClaimedJob]) -> list[str]:
        lines = [f"{job.name}: its runner died; `accel-train run-queue` goes on with it" for job in died]
        rest = sorted(self._left - {job.name for job in died})
        if rest:
            lines.append(f"{listed(rest)}: not over, and no runner is at work")
        return lines


class _Forecast:
    """What is waited for, and when that may be over."""

    def __init__(self, store: QueueStore) -> None:
        self._book, self._time_left, self._observer = (
            StatusBook(store),
            TimeLeftEstimator(store),
            HeartbeatObserver(store),
        )

    def of(self, names: Collection[str]) -> str:
        """One line on jobs of these names. Raises QueueUnusable."""
        entries = self._book.look()
        chosen = [entry for entry in entries if entry.job.name in names]
        counts = Counter(str(entry.job.state) for entry in chosen if not entry.job.state.is_over)
        of_states = ", ".join(f"{number:,} {state}" for state, number in counts.items())
        line = (
            f"waiting for {count_of(len(names), 'job')}" if len(names) > 3 else f"waiting for {listed(sorted(names))}"
        )
        return f"{line} ({of_states}): {self._when(entries, chosen)}"

    def _when(self, entries: list[Entry], chosen: list[Entry]) -> str:
        if not any(entry.job.state is JobState.RUNNING for entry in entries) and not self._observer.has_living_runner():
            return "no runner is at work; `accel-train run-queue` starts one"
        if all(entry.job.state is JobState.RUNNING for entry in chosen):
            times = [entry.row.left_s for entry in chosen]
            seconds = None if None in times else max((s for s in times if s is not None), default=None)
            unknown = 0
        else:  # the jobs before them have their turn first
            left = self._time_left.estimate(entries)
            seconds, unknown = left.seconds, left.num_unknown
        if seconds is None:
            return "time left: not known yet"
        at = time.strftime("%a %H:%M", time.localtime(time.time() + seconds))
        more = f", and {count_of(unknown, 'job')} of unknown length" if unknown else ""
        return f"done in about {duration(seconds)} ({at}){more}"


class _Line:
    """The line on standard error that says what is waited for: one that is replaced at a terminal, else one now and
    then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said_at: float | None = None
        self._is_shown = False

    def say_if_due(self, text: Callable[[], str]) -> None:
        """Print what is to be said, if it is time for that."""
        every = SAY_AT_TERMINAL_EVERY_S if self._is_terminal else SAY_EVERY_S
        if self._said_at is not None and time.monotonic() - self._said_at < every:
            return
        self._said_at = time.monotonic()
        if self._is_terminal:
            from accel_trainer.cli.full_screen import screen_size
            from accel_trainer.cli.tables import cut

            said = cut(one_line(text()), screen_size()[0] - len("^C") - 1)
            typer.echo(f"\r\x1b[2K{said}", nl=False, err=True)
            self._is_shown = True
        else:
            echo(text(), err=True)

    def clear(self) -> None:
        """Remove the line from a terminal, where something else is printed."""
        if self._is_shown:
            typer.echo("\r\x1b[2K", nl=False, err=True)
            self._is_shown, self._said_at = False, None
