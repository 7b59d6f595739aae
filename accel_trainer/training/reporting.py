"""What a run reports while it trains: its log, status.json and plots. On rank 0 only."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accel_trainer.core.child_environment import helper_environment
from accel_trainer.core.errors import AccelTrainError
from accel_trainer.core.lease import this_host
from accel_trainer.core.processes import Program
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockLost
from accel_trainer.run.performance import PerformanceRow, first_scores
from accel_trainer.run.status import RunState, Status, overwrite_status, write_attempt_status, write_status

if TYPE_CHECKING:
    from accel_trainer.data.batch_plan import TrainBatchPlanner
    from accel_trainer.training.state.checkpoint import Progress


log = logging.getLogger("accel_trainer")
STATUS_EVERY_S = 1.0
PLOT_EVERY_S = 10.0
# How long a training waits for its last drawing, which yields to whoever computes.
LAST_PLOT_S = 180
# What has no steps may take so long before `stall_timeout` begins.
LONGEST_S = 7200.0
# Between attempts at writing how a run has ended.
LAST_STATUS_WAITS_S = (0.0, 1.0, 2.0, 4.0)


class Reporter:
    """Keeps status.json current. The status is a snapshot that `update` changes; nothing is written too often.

    writes: whether it writes, as rank 0 does; owns_run: whether the run in the folder is this attempt's from the start;
    on_taken: is called when it becomes so later; on_status: is given each new status, on every rank.
    """

    def __init__(
        self,
        run: RunFolder,
        status: Status,
        *,
        writes: bool,
        owns_run: bool = True,
        on_taken: Callable[[], None] = lambda: None,
        on_status: Callable[[Status], None] = lambda status: None,
    ) -> None:
        self._run, self._on_taken, self._on_status = run, on_taken, on_status
        self._writes, self._owns_run = writes, owns_run
        self.status = status.model_copy(update={"host": this_host(), "pid": os.getpid()})
        self._written = 0.0
        self._is_stale = False
        self._updating = threading.RLock()
        self.failed_at: float | None = None

    def is_due(self) -> bool:
        """Whether enough time has passed to report again; only then may the device be waited for."""
        return time.monotonic() - self._written >= STATUS_EVERY_S

    def update(self, *, durable: bool = False, **changes: Any) -> None:
        """Change and write the status; `durable` for what must not be lost (a change of state).

        Anything else may fail to be written: the training continues, and the next status has it too.
        """
        with self._updating:
            self._update(durable=durable, **changes)

    def _update(self, *, durable: bool, **changes: Any) -> None:
        self._written = time.monotonic()
        self.status = self.status.model_copy(update={**changes, "updated": time.time()})
        self._on_status(self.status)
        if not self._writes:
            return
        try:
            if self._owns_run:
                write_status(self._run, self.status, durable=durable)
            else:
                write_attempt_status(self._run, self.status)
        except OSError as error:
            if durable:
                raise
            if not self._is_stale:
                log.warning("%s cannot be written (%s); the training goes on", error.filename, error.strerror)
            self._is_stale = True
        else:
            self._is_stale = False

    def take_run(self) -> None:
        """All was checked: the run in the folder is this attempt's from now on, and its status that of the run. Until
        then an attempt that is refused, or ended, leaves the status of a run that it had no part in as it was."""
        if self._owns_run:
            return
        self._owns_run = True
        self._on_taken()
        self.update(durable=True)
        if self._writes:
            self._run.discard(self._run.attempt_status(self.status.token))

    def heartbeat(self) -> None:
        """Something was done that is no step: the status shows that the training is alive."""
        if self.is_due():
            self.update()

    @contextmanager
    def alive(self, what: str | None = None, at_most_s: float = LONGEST_S) -> Iterator[None]:
        """What is done here may take long and has no steps: compiling, downloading, on this rank or on those that it
        waits for. The status names it, and shows that the training is alive, for so long at most: what hangs is found
        all the same.
        """
        if not self._writes:
            yield
            return
        if what is not None:
            self.update(preparing=what, prepared=None)
        is_done, until = threading.Event(), time.monotonic() + at_most_s

        def beat() -> None:
            with suppress(LockLost):  # the training finds out by itself
                while not is_done.wait(STATUS_EVERY_S) and time.monotonic() < until:
                    self.heartbeat()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_done.set()
            thread.join()

    def report_preparation(self, what: str, done: int, total: int) -> None:
        """How much of what takes long before the first step is done."""
        if done == total:
            self.update(preparing=None, prepared=None)
        elif self.is_due():
            self.update(preparing=what, prepared=done / total)

    def report_validation(self, what: str, done: int, total: int) -> None:
        """How much of a validation is done, in batches of this process."""
        if self.is_due():
            self.update(preparing=what, prepared=min(1.0, done / total))

    def report_step(
        self, progress: "Progress", sampling: "TrainBatchPlanner", scores: Mapping[str, float], rate: float
    ) -> None:
        """Where the running epoch is; `scores` are its training scores so far, the one to look at after the loss."""
        seconds_per_step = progress.epoch_seconds / progress.step
        steps_left = (self.status.num_epochs - progress.epoch) * sampling.steps_per_epoch - progress.step
        self.update(
            state=RunState.TRAINING,
            preparing=None,
            prepared=None,
            epoch=progress.epoch + 1,
            step=progress.step,
            global_step=progress.global_step,
            **first_scores(scores),
            lr=rate,
            images_per_s=sampling.batch_size / seconds_per_step,
            eta_s=steps_left * seconds_per_step,
        )

    def note_corrupt(self, number: int) -> None:
        """How many corrupt images were met so far; in the next status that is written."""
        self.status = self.status.model_copy(update={"corrupt_images": number})

    def report_epoch(self, progress: "Progress", metric: str) -> None:
        """An epoch is over: a line in the log, and the status."""
        rows = [row for row in progress.history if row.epoch == progress.epoch]
        train = rows[0]
        best = "none" if progress.best is None else f"{progress.best:.4g} (epoch {progress.best_epoch})"
        log.info(
            "epoch %d/%d  %s  lr %.4g  %.0f images/s  best %s %s",
            progress.epoch, self.status.num_epochs, "  ".join(_summary(row) for row in rows),
            train.lr, train.images_per_s, metric, best,
        )  # fmt: skip
        self.update(
            epoch=progress.epoch,
            step=self.status.steps_per_epoch,
            global_step=progress.global_step,
            **first_scores(train.scores),
            images_per_s=train.images_per_s,
            eta_s=(self.status.num_epochs - progress.epoch) * sum(row.seconds for row in rows),
            best=progress.best,
            best_epoch=progress.best_epoch,
            preparing=None,
            prepared=None,
        )

    def note_failure(self, progress: "Progress") -> None:
        """Something has failed just now, here; tidying up may take a while, and others may fail because of it."""
        self.failed_at = time.time()
        at = {"epoch": progress.epoch + 1, "step": progress.step, "global_step": progress.global_step}
        self.status = self.status.model_copy(update=at)

    @property
    def position(self) -> str:
        """Where the run is, for a message; exact once a failure was noted."""
        status = self.status
        if not status.epoch:
            return "before the first step"
        if status.step == status.steps_per_epoch:
            return f"in the validation of epoch {status.epoch}"
        return f"at step {status.global_step + 1} (epoch {status.epoch})"

    def finish(self, state: RunState, error: str | None = None) -> None:
        """Write the last status. It is tried for a while, and in the end over the one before, which takes no room on
        a disk that is full; that it cannot be written hides nothing of what has happened."""
        last = {"state": state, "error": error, "failed_at": self.failed_at, "eta_s": None}
        last |= {"preparing": None, "prepared": None}
        for wait in LAST_STATUS_WAITS_S:
            time.sleep(wait)
            try:
                self.update(**last, durable=True)
            except OSError as problem:
                failure = problem
            else:
                return
        log.error("%s cannot be written (%s)", failure.filename, failure.strerror)
        if not self._owns_run:
            return
        with suppress(OSError):
            overwrite_status(self._run, self.status)


def _summary(row: PerformanceRow) -> str:
    """`val loss 0.1234 acc1 98.7%`; accuracies of single cycles are left to performance.csv."""
    loss, *others = row.scores.items()
    shown = [f"{name} {value:.2f}%" for name, value in others if name != "acc5" and "_cycle" not in name]
    return " ".join([f"{row.split} loss {loss[1]:.4f}", *shown])


class TrainingFailed(AccelTrainError):
    """A run that has ended for a known reason, such as divergence; `state` is what its status says."""

    def __init__(self, state: RunState, reason: str) -> None:
        super().__init__(reason)
        self.state = state


@dataclass(frozen=True)
class TrainingResult:
    """How a session ended. reason: why, in one line, where it did not end well; error: what was raised, unless the
    reason is a known one, such as divergence."""

    state: RunState
    reason: str | None = None
    error: BaseException | None = None

    def check(self) -> None:
        """Raise what ended the run where it did not end well: the error itself, or TrainingFailed."""
        if self.error is not None:
            raise self.error
        if self.reason is not None:
            raise TrainingFailed(self.state, self.reason)


def plot_arguments(run: RunFolder) -> list[str]:
    """The arguments by which a process draws into a run folder as its owner."""
    aside = [f"--aside={run.aside}"] if run.aside is not None else []
    return [str(run.path), *aside]


class Plotter:
    """Draws performance.png and .pdf in another process, which does not make the training wait.

    The process draws once for every line it is sent and ends when there are no more: also when we are killed. It is
    started after the first step, from which it would take a core, or when it is needed.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run, self._drawn = run, time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()  # the loop starts it, or the thread that saves

    def start(self) -> None:
        """Start the process, unless it was. Raises OSError."""
        with self._starting:
            if self._process is None:
                self._start()

    def _start(self) -> None:
        reading, writing = os.pipe()
        self._requests = os.fdopen(writing, "w")
        try:
            self._process = subprocess.Popen(
                Program.PLOT.command(*plot_arguments(self._run)),
                stdin=reading,
                stdout=subprocess.DEVNULL,
                env=helper_environment(),
            )
        except BaseException:
            self._requests.close()
            raise
        finally:
            os.close(reading)
        # One that is killed must not stay a zombie.
        threading.Thread(target=self._process.wait, daemon=True).start()

    def draw(self, *, now: bool = False) -> None:
        """Ask for a new drawing, unless the last one is from just now."""
        if not now and time.monotonic() - self._drawn < PLOT_EVERY_S:
            return
        self._drawn = time.monotonic()
        self.start()
        with suppress(BrokenPipeError):
            self._requests.write("draw\n")
            self._requests.flush()

    def close(self) -> None:
        """Draw a last time and wait for it; of a folder that is another's, draw nothing more."""
        try:
            self._run.check_owner()
            self.draw(now=True)
        except LockLost:
            if self._process is not None:
                self._process.kill()
        if self._process is None:
            return
        with suppress(BrokenPipeError):
            self._requests.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=LAST_PLOT_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
