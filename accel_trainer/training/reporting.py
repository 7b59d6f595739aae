"""What a run says of itself while it trains: its log, status.json, performance.csv and plots. Rank 0 only."""

import csv
import io
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from accel_trainer.processes import this_host
from accel_trainer.runs import RunFolder, RunState, Status, write_atomic

if TYPE_CHECKING:  # the worker speaks before it has imported torch
    from accel_trainer.data.sampling import TrainSampling
    from accel_trainer.training.checkpoint import Progress
    from accel_trainer.training.metrics import Scores

log = logging.getLogger("accel_trainer")

COLUMNS = ("epoch", "split", "loss", "acc1", "acc5", "lr", "images_per_s", "seconds")
STATUS_EVERY_S = 1.0
PLOT_EVERY_S = 10.0


def begin_logging(run: RunFolder | None, rank: int) -> None:
    """Log to standard output, and on rank 0 also to the run's log.txt, which has no other program's noise."""
    log.setLevel(logging.INFO)
    log.propagate = False
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    log.handlers = [output]
    if run is not None and rank == 0:
        file = logging.FileHandler(run.log, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        log.addHandler(file)


class Reporter:
    """Keeps status.json current. The status is a snapshot that `update` changes; nothing is written too often."""

    def __init__(self, run: RunFolder, status: Status, *, speaks: bool) -> None:
        self._run = run
        self._speaks = speaks
        self._status = status.model_copy(update={"host": this_host(), "pid": os.getpid()})
        self._written = 0.0
        self.failed_at: float | None = None

    def is_due(self) -> bool:
        """Whether enough time has passed to report again; only then may the device be waited for."""
        return time.monotonic() - self._written >= STATUS_EVERY_S

    def update(self, *, durable: bool = False, **changes: Any) -> None:
        """Change and write the status; `durable` for what must not be lost (a change of state)."""
        self._written = time.monotonic()
        self._status = self._status.model_copy(update={**changes, "updated": time.time()})
        if self._speaks:
            self._run.write_status(self._status, durable=durable)

    def report_preparation(self, what: str, done: int, total: int) -> None:
        """How much of what takes long before the first step is done."""
        if done == total:
            self.update(preparing=None, prepared=None)
        elif self.is_due():
            self.update(preparing=what, prepared=done / total)

    def report_step(self, progress: "Progress", sampling: "TrainSampling", scores: "Scores", rate: float) -> None:
        """Where the running epoch is; `scores` are its training scores so far."""
        seconds_per_step = progress.epoch_seconds / progress.step
        steps_left = (self._status.num_epochs - progress.epoch) * sampling.steps_per_epoch - progress.step
        self.update(
            state=RunState.TRAINING,
            epoch=progress.epoch + 1,
            step=progress.step,
            global_step=progress.global_step,
            loss=scores.loss,
            acc1=scores.acc1,
            lr=rate,
            images_per_s=sampling.batch_size / seconds_per_step,
            eta_s=steps_left * seconds_per_step,
        )

    def report_epoch(self, progress: "Progress", metric: str) -> None:
        """An epoch is over: a line in the log, and the status."""
        train, val = progress.history[-2:]
        best = "none" if progress.best is None else f"{progress.best:.4g} (epoch {progress.best_epoch})"
        log.info(
            "epoch %d/%d  train loss %.4f acc1 %.2f%%  val loss %.4f acc1 %.2f%%  lr %.4g  %.0f images/s  best %s %s",
            progress.epoch, self._status.num_epochs, train["loss"], train["acc1"], val["loss"], val["acc1"],
            train["lr"], train["images_per_s"], metric, best,
        )  # fmt: skip
        self.update(
            epoch=progress.epoch,
            step=self._status.steps_per_epoch,
            global_step=progress.global_step,
            loss=train["loss"],
            acc1=train["acc1"],
            images_per_s=train["images_per_s"],
            best=progress.best,
            best_epoch=progress.best_epoch,
        )

    def note_failure(self) -> None:
        """Something has failed just now; tidying up may take a while, and others may fail because of it."""
        self.failed_at = time.time()

    def end(self, state: RunState, error: str | None = None) -> None:
        self.update(state=state, error=error, failed_at=self.failed_at, eta_s=None, durable=True)


def performance_row(
    epoch: int, split: str, scores: "Scores", rate: float, num_images: int, seconds: float
) -> dict[str, Any]:
    """A row of performance.csv: what was measured over `num_images` in `seconds`."""
    speed = num_images / max(seconds, 1e-9)
    return {"epoch": epoch, "split": split, **asdict(scores), "lr": rate, "images_per_s": speed, "seconds": seconds}


def write_performance(run: RunFolder, history: Sequence[Mapping[str, Any]]) -> None:
    """performance.csv, whole: an epoch that is replayed after a crash has its row once."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: _rounded(row.get(key)) for key in COLUMNS} for row in history)
    write_atomic(run.performance, text.getvalue())


def _rounded(value: Any) -> Any:
    return float(f"{value:.8g}") if isinstance(value, float) else value


class Plotter:
    """Draws performance.png and .pdf in another process, which does not make the training wait.

    The process draws once for every line it is sent and ends when there are no more: also when we are killed.
    """

    def __init__(self, run: RunFolder) -> None:
        self._drawn = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "accel_trainer.report.plots", str(run.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def draw(self, *, now: bool = False) -> None:
        """Ask for a new drawing, unless the last one is from just now."""
        if not now and time.monotonic() - self._drawn < PLOT_EVERY_S:
            return
        self._drawn = time.monotonic()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("draw\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Draw a last time and wait for it."""
        self.draw(now=True)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=60)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
