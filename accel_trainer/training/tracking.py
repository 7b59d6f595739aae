"""Experiment trackers, through Accelerate: Weights & Biases, TensorBoard and whatever else it knows."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import children, has_living_child, reap_when_dead
from accel_trainer.core.text import first_line, listed
from accel_trainer.run.evaluations import ConditionAccuracy, mean_accuracies
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.training import wandb_run
from accel_trainer.training.histograms import Histogram
from accel_trainer.training.runtime.memory import peak_memory
from accel_trainer.training.state.step_rows import StepRow
from accel_trainer.training.tracked_rows import TENSORBOARD, WANDB, TrackedRows
from accel_trainer.training.tracker_calls import BackgroundCall, for_all_trackers
from accel_trainer.training.tracker_checks import wandb_mode
from accel_trainer.training.wandb_code import log_code
from accel_trainer.training.wandb_log import BEST_DEGRADED, DEGRADED, Kind, Row
from accel_trainer.training.wandb_settings import settings_obeyed

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

log = logging.getLogger(__name__)

ACCURACY_COLUMNS = tuple(field.name for field in fields(ConditionAccuracy))
# How long a training waits for its trackers to start.
START_S = 120.0
POLL_S = 1.0
# wandb starts this at once, and waits for it for ever if it is killed too soon.
WANDB_CORE, MAX_FAILED_POLLS = "wandb-core", 5


@dataclass(frozen=True)
class RunAbout:
    """What trackers are told of a run beside its job. id_: the same over all attempts; queue: the name of its folder;
    replicates: the group of runs that differ in the seed alone; history, steps: what was measured before this attempt,
    by epochs and by steps, of which those that are kept."""

    id_: str
    queue: str | None = None
    replicates: str | None = None
    history: Sequence[PerformanceRow] = ()
    steps: Sequence[StepRow] = ()


class Tracking:
    """The trackers of one run, on rank 0; on the other ranks nothing happens. They start while the first steps are
    taken."""

    def __init__(self, accelerator: "Accelerator", job: Job, run: RunFolder, about: RunAbout) -> None:
        self._accelerator, self._job, self._run, self._about = accelerator, job, run, about
        self._rows = TrackedRows()
        self._pending = deque[tuple[Row, Mapping[str, Any], Mapping[str, Histogram]]]()  # of steps
        self._of_epoch: dict[int, Mapping[str, Histogram]] = {}
        self._telling = threading.Lock()
        self._steps_told: BackgroundCall | None = None
        self._children_before = children()
        self._needs_core = False
        self._waiting = threading.Lock()  # the loop looks after them while what is saved is logged on another thread
        self._starting: BackgroundCall | None = BackgroundCall(self._start)

    def check(self) -> None:
        """Raises what is wrong with the trackers, once that is known. Has those that have started told of steps, which
        nobody waits for."""
        if (starting := self._starting) is not None and starting.finished_within(0.0):
            self.wait()
        is_free = self._steps_told is None or self._steps_told.finished_within(0.0)
        if self._pending and self._starting is None and is_free:
            self._steps_told = BackgroundCall(self._tell_steps)

    def close(self) -> None:
        """Wait for all to have started, and for what they are still to be told of steps."""
        self.wait()
        self._tell_steps()

    def wait(self) -> None:
        """Until all have started; those that cannot are done without. Raises what is wrong with their settings."""
        with self._waiting:
            starting, self._starting = self._starting, None
            if starting is not None:
                self._take_up(starting)

    def _take_up(self, starting: "BackgroundCall") -> None:
        try:
            self._wait_for(starting)
        except (Exception, SystemExit) as error:
            if _is_wrong_setting(error):
                raise
            self._accelerator.trackers = []
            log.warning("the trackers cannot be started (%s); performance.csv has everything", first_line(error))
        for pid in children() - self._children_before:
            reap_when_dead(pid)  # wandb itself waits for its process only when it ends
        for_all_trackers(self._accelerator, self._describe)

    def _wait_for(self, starting: "BackgroundCall") -> None:
        """Raises what is wrong with what starts; TimeoutError; ConnectionError where it waits for what is dead."""
        began, failed_polls = time.monotonic(), 0
        while not starting.finished_within(POLL_S):
            failed_polls = failed_polls + 1 if self._needs_core and not has_living_child(WANDB_CORE) else 0
            if failed_polls == MAX_FAILED_POLLS:
                raise ConnectionError("wandb's process has ended while it started")
            if time.monotonic() - began > START_S:
                break
        starting.wait(0.0)

    def _start(self) -> None:
        """Start all trackers. Raises what is wrong with them, and ConnectionError where wandb's process is gone."""
        try:
            if "wandb" in self._job.trackers:
                self._start_with_wandb()
            else:
                self._accelerator.init_trackers(self._job.wandb.project)
        except Exception as error:
            if not _is_internal_to_wandb(error):
                raise
            raise ConnectionError(first_line(error) or "wandb's process is gone") from error

    def _start_with_wandb(self) -> None:
        """A server that does not answer is no reason not to train: wandb then goes offline."""
        import wandb

        job, run = self._job, self._run
        self._needs_core = self._accelerator.is_main_process  # from its first question on, whether there is a login
        mode = wandb_mode(job) if self._needs_core else "disabled"
        about = self._about
        group = job.wandb.group or about.replicates
        settings = wandb_run.settings(job, run, id_=about.id_, name=job.name, group=group, job_type=job.wandb.job_type)
        if self._needs_core:
            self._rows.read_wandb(run.path / "wandb", self._about.id_)
            for file, keys in settings_obeyed():
                log.info("wandb: %s sets %s", file, listed(keys, 20))
        try:
            self._init_with_wandb(job, {**settings, "mode": mode})
        except wandb.Error as error:
            if mode != "online":
                raise
            log.warning("wandb: %s", first_line(error))
            # The process behind wandb holds on to the id of the run that it could not start.
            wandb.teardown()
            self._accelerator.trackers = []
            mode = "offline"
            self._init_with_wandb(job, {**settings, "mode": mode})
        if mode == "offline":
            log.info("wandb: offline; to upload later: wandb sync %s/wandb/offline-run-*", run.path)

    def _init_with_wandb(self, job: Job, settings: Mapping[str, Any]) -> None:
        # Runs that are not online have nothing to resume on a server: their id alone joins them when they are synced.
        resume = "allow" if settings["mode"] == "online" else None
        self._accelerator.init_trackers(job.wandb.project, init_kwargs={"wandb": {**settings, "resume": resume}})

    def _describe(self, tracker: "GeneralTracker") -> None:
        if tracker.name != WANDB:
            if tracker.name == TENSORBOARD and self._accelerator.is_main_process:
                self._rows.read_tensorboard(tracker)
                self._repeat(tracker)
            tracker.store_init_configuration(_flat(self._job.completed()))
            return
        tracker.store_init_configuration(wandb_run.configuration(self._job, self._run, self._about.queue))
        if not self._is_wandbs(tracker):
            return
        wandb_run.define_axes(tracker.tracker)
        self._rows.ask_server(tracker)
        if self._job.wandb.save_code:
            log_code(tracker.tracker, self._job, self._run, self._about.id_)
        self._repeat(tracker)

    def _repeat(self, tracker: "GeneralTracker") -> None:
        """What was logged last, before a machine went down, may not have been written."""
        for step in self._about.steps:
            self._log(tracker, (Kind.STEPS, step.step), wandb_run.values_of_steps(step))
        for rows in wandb_run.epochs_of(self._about.history):
            self._log_rows(tracker, rows)

    def log_epoch(self, rows: Sequence[PerformanceRow]) -> None:
        """rows: those of performance.csv for one epoch, the training's first. Logged as train/loss, val/acc1, ...

        An epoch that is repeated after a kill is the same again, and no tracker is told it twice.
        """
        self.wait()
        self._tell(lambda tracker: self._log_rows(tracker, rows))
        self._of_epoch.pop(rows[0].epoch, None)

    def _log_rows(self, tracker: "GeneralTracker", rows: Sequence[PerformanceRow]) -> None:
        epoch, media = rows[0].epoch, dict[str, Any]()
        if self._is_wandbs(tracker):
            import wandb

            if self._rows.is_empty and self._run.sample_inputs.is_file():
                media["sample_train_inputs"] = wandb.Image(str(self._run.sample_inputs))
            media |= _as_media(self._of_epoch.get(epoch, {}))
        self._log(tracker, (Kind.EPOCH, epoch), wandb_run.values_of(rows), media)

    def log_step(self, row: StepRow) -> None:
        """What was measured of some steps; the trackers are told by and by, in their order."""
        self._pending.append(((Kind.STEPS, row.step), wandb_run.values_of_steps(row), {}))

    def log_histograms(self, number: int, histograms: Mapping[str, Histogram]) -> None:
        """Those of the last step of the epoch of that number, which go with what is measured of it; or, as the job
        wants, of the step of that number."""
        if self._job.wandb.histograms == "epoch":
            self._of_epoch[number] = histograms
        else:
            self._pending.append(((Kind.HISTOGRAMS, number), {}, histograms))

    def _tell_steps(self) -> None:
        while self._pending:
            row, values, histograms = self._pending.popleft()
            self._tell(partial(self._log_step, row, values, histograms))

    def _log_step(
        self,
        row: Row,
        values: Mapping[str, float],
        histograms: Mapping[str, Histogram],
        tracker: "GeneralTracker",
    ) -> None:
        media = _as_media(histograms) if self._is_wandbs(tracker) else {}
        self._log(tracker, row, values, media)

    def _log(
        self, tracker: "GeneralTracker", row: Row, values: Mapping[str, float], media: Mapping[str, Any] | None = None
    ) -> None:
        """A row, unless the tracker has it; of media only wandb is told."""
        if self._is_wandbs(tracker):
            self._rows.log_to_wandb(tracker, row, values, media or {}, values)
        elif tracker.name != WANDB:
            self._rows.log_to(tracker, row, values)

    def _tell(self, call: Callable[["GeneralTracker"], None]) -> None:
        """All trackers, one call after the other: the loop and who saves tell them at once."""
        with self._telling:
            for_all_trackers(self._accelerator, call)

    def log_degraded(self, epoch: int, accuracies: Sequence[ConditionAccuracy]) -> None:
        """Accuracies in percent on degraded images after an epoch: degraded/<degradation>/<level>, and the mean over
        levels as degraded/<degradation>."""
        self.wait()
        values = {f"{DEGRADED}{one.degradation}/{one.level}": 100 * one.accuracy for one in accuracies}
        values |= {f"{DEGRADED}{name}": mean for name, mean in mean_accuracies(accuracies).items()}
        self._tell(lambda tracker: self._log(tracker, (Kind.DEGRADED, epoch), values))

    def log_degraded_best(self, accuracies: Sequence[ConditionAccuracy], epoch: int, curves: Path) -> None:
        """The same of the best weights, for a table of runs; on wandb also as a table, and with the curves' picture."""
        self.wait()
        means = {f"{BEST_DEGRADED}/{name}": mean for name, mean in mean_accuracies(accuracies).items()}

        def log_table(tracker: "GeneralTracker") -> None:
            if self._is_wandbs(tracker):
                import wandb

                tracker.tracker.summary.update(means)
                rows = [[getattr(one, name) for name in ACCURACY_COLUMNS] for one in accuracies]
                media: dict[str, Any] = {BEST_DEGRADED: wandb.Table(list(ACCURACY_COLUMNS), rows)}
                if curves.is_file():
                    media[f"{BEST_DEGRADED}_curves"] = wandb.Image(str(curves))
                self._log(tracker, (Kind.BEST_DEGRADED, epoch), {}, media)

        self._tell(log_table)

    def summarize(self, history: Sequence[PerformanceRow], best: float | None, best_epoch: int | None) -> None:
        """What a table of runs shows, of the whole run: `wandb_run.summary`."""
        self.wait()
        values = wandb_run.summary(history, self._job.primary_metric, best, best_epoch)
        values["peak_memory_gb"] = round(peak_memory(self._accelerator.device) / 2**30, 3)

        def update_summary(tracker: "GeneralTracker") -> None:
            if self._is_wandbs(tracker):
                tracker.tracker.summary.update(values)

        self._tell(update_summary)

    def mark_preempting(self) -> None:
        """The run is stopped, and goes on later."""
        self.wait()
        self._tell(lambda tracker: tracker.tracker.mark_preempting() if self._is_wandbs(tracker) else None)

    def log_best_weights(self, epoch: int | None) -> None:
        """The best weights, where the job wants them on wandb: an artifact with the aliases best and epoch-12."""
        self.wait()
        if not self._job.wandb.artifact:
            return

        def log_weights(tracker: "GeneralTracker") -> None:
            if self._is_wandbs(tracker):
                wandb_run.log_weights(tracker.tracker, self._run, self._about.id_, epoch)

        self._tell(log_weights)

    def _is_wandbs(self, tracker: "GeneralTracker") -> bool:
        return bool(tracker.name == "wandb" and self._accelerator.is_main_process)


def _as_media(histograms: Mapping[str, Histogram]) -> dict[str, Any]:
    """As wandb takes them."""
    if not histograms:
        return {}
    import wandb

    return {name: wandb.Histogram(np_histogram=one) for name, one in histograms.items()}


def _is_wrong_setting(error: BaseException) -> bool:
    """Whether a tracker was asked for something that it would never do: all else, such as a full disk or a process of
    its own that is gone, is no reason not to train."""
    return isinstance(error, ValueError | UserError) or type(error).__module__.split(".")[0] == "wandb"


def _is_internal_to_wandb(error: Exception) -> bool:
    """Whether wandb cannot talk to its own process, as when that was killed: nothing that a user has asked for. Its
    errors for users are public ones."""
    return type(error).__module__.startswith("wandb.sdk.")


def _flat(config: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Nested values and lists as text, for trackers that take only plain values."""
    return {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in config.items()}
