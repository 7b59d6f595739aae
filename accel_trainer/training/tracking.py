"""Experiment trackers, through Accelerate: Weights & Biases, TensorBoard and whatever else it knows."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import children, has_living_child, reap_when_dead
from accel_trainer.core.text import duration, first_line, listed
from accel_trainer.run.evaluations import ConditionAccuracy, mean_accuracies
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.training import wandb_run
from accel_trainer.training.tracker_checks import wandb_mode
from accel_trainer.training.wandb_log import BEST_DEGRADED, DEGRADED, Kind, Row, logged_rows
from accel_trainer.training.wandb_settings import settings_obeyed

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

log = logging.getLogger(__name__)

WANDB_TIMEOUT_S = 30
ACCURACY_COLUMNS = tuple(field.name for field in fields(ConditionAccuracy))
# How long a training waits for its trackers to start, and for each later call of one.
START_S, CALL_S = 120.0, 300.0
POLL_S = 1.0
# wandb starts this at once, and waits for it for ever if it is killed too soon.
WANDB_CORE, MAX_FAILED_POLLS = "wandb-core", 5


@dataclass(frozen=True)
class RunAbout:
    """What trackers are told of a run beside its job. id_: the same over all attempts; queue: the name of its folder;
    replicates: the group of runs that differ in the seed alone; history: what was measured before this attempt."""

    id_: str
    queue: str | None = None
    replicates: str | None = None
    history: Sequence[PerformanceRow] = ()


class Tracking:
    """The trackers of one run, on rank 0; on the other ranks nothing happens. They start while the first steps are
    taken."""

    def __init__(self, accelerator: "Accelerator", job: Job, run: RunFolder, about: RunAbout) -> None:
        self._accelerator, self._job, self._run, self._about = accelerator, job, run, about
        self._logged = set[Row]()  # what wandb has, also from attempts before
        self._defined = set[str]()
        self._children_before = children()
        self._needs_core = False
        self._waiting = threading.Lock()  # the loop looks after them while what is saved is logged on another thread
        self._starting: BackgroundCall | None = BackgroundCall(self._start)

    def check(self) -> None:
        """Raises what is wrong with the trackers, once that is known."""
        if (starting := self._starting) is not None and starting.finished_within(0.0):
            self.wait()

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
        settings = _wandb_settings(job, run, self._about)
        if self._needs_core:
            self._logged |= logged_rows(run.path / "wandb", self._about.id_)
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
        if tracker.name != "wandb":
            tracker.store_init_configuration(_flat(self._job.completed()))
            return
        tracker.store_init_configuration(wandb_run.configuration(self._job, self._run, self._about.queue))
        if not self._is_wandbs(tracker):
            return
        tracker.tracker.define_metric(wandb_run.EPOCH, hidden=True)
        # Of a run that goes on online the server knows how far it is.
        last = tracker.tracker.summary.get(wandb_run.EPOCH)
        self._logged |= (
            {(kind, epoch) for kind in Kind for epoch in range(last + 1)} if isinstance(last, int) else set()
        )
        # What was logged last, before a machine went down, may not have been written.
        for rows in wandb_run.epochs_of(self._about.history):
            self._log_to_wandb(tracker, rows)

    def log_epoch(self, rows: Sequence[PerformanceRow]) -> None:
        """rows: those of performance.csv for one epoch, the training's first. Logged as train/loss, val/acc1, ...

        An epoch that is repeated after a kill is the same again, and wandb is not told it twice.
        """
        self.wait()

        def log_values(tracker: "GeneralTracker") -> None:
            if self._is_wandbs(tracker):
                self._log_to_wandb(tracker, rows)
            elif tracker.name != "wandb":
                tracker.log(wandb_run.values_of(rows), step=rows[0].epoch)

        for_all_trackers(self._accelerator, log_values)

    def _log_to_wandb(self, tracker: "GeneralTracker", rows: Sequence[PerformanceRow]) -> None:
        import wandb

        media = {}
        if not self._logged and self._run.sample_inputs.is_file():
            media["sample_train_inputs"] = wandb.Image(str(self._run.sample_inputs))
        self._log_once(tracker, (Kind.EPOCH, rows[0].epoch), wandb_run.values_of(rows), media)

    def _log_once(
        self, tracker: "GeneralTracker", row: Row, values: Mapping[str, float], media: Mapping[str, Any] | None = None
    ) -> None:
        """A row of wandb's history, unless it is there."""
        if row in self._logged:
            return
        wandb_run.define_series(tracker.tracker, [name for name in values if name not in self._defined])
        self._defined |= values.keys()
        tracker.log({**values, **(media or {}), wandb_run.EPOCH: row[1]})
        self._logged.add(row)

    def log_degraded(self, epoch: int, accuracies: Sequence[ConditionAccuracy]) -> None:
        """Accuracies in percent on degraded images after an epoch: degraded/<degradation>/<level>, and the mean over
        levels as degraded/<degradation>."""
        self.wait()
        values = {f"{DEGRADED}{one.degradation}/{one.level}": 100 * one.accuracy for one in accuracies}
        values |= {f"{DEGRADED}{name}": mean for name, mean in mean_accuracies(accuracies).items()}

        def log_values(tracker: "GeneralTracker") -> None:
            if self._is_wandbs(tracker):
                self._log_once(tracker, (Kind.DEGRADED, epoch), values)
            elif tracker.name != "wandb":
                tracker.log(values, step=epoch)

        for_all_trackers(self._accelerator, log_values)

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
                self._log_once(tracker, (Kind.BEST_DEGRADED, epoch), {}, media)

        for_all_trackers(self._accelerator, log_table)

    def summarize(self, history: Sequence[PerformanceRow], best: float | None, best_epoch: int | None) -> None:
        """What a table of runs shows, of the whole run: `wandb_run.summary`."""
        self.wait()
        values = wandb_run.summary(history, self._job.primary_metric, best, best_epoch)

        def update_summary(tracker: "GeneralTracker") -> None:
            if self._is_wandbs(tracker):
                tracker.tracker.summary.update(values)

        for_all_trackers(self._accelerator, update_summary)

    def mark_preempting(self) -> None:
        """The run is stopped, and goes on later."""
        self.wait()
        for_all_trackers(
            self._accelerator, lambda tracker: tracker.tracker.mark_preempting() if self._is_wandbs(tracker) else None
        )

    def log_best_weights(self, epoch: int | None) -> None:
        """The best weights, where the job wants them on wandb: an artifact with the aliases best and epoch-12."""
        self.wait()
        if not self._job.wandb.artifact:
            return

        def log_weights(tracker: "GeneralTracker") -> None:
            if self._is_wandbs(tracker):
                wandb_run.log_weights(tracker.tracker, self._run, self._about.id_, epoch)

        for_all_trackers(self._accelerator, log_weights)

    def _is_wandbs(self, tracker: "GeneralTracker") -> bool:
        return bool(tracker.name == "wandb" and self._accelerator.is_main_process)


def for_all_trackers(accelerator: "Accelerator", call: Callable[["GeneralTracker"], None]) -> None:
    """A training does not depend on its trackers: one that fails, as when the process behind it was killed, is reported
    and left out from then on."""
    for tracker in list(accelerator.trackers):
        try:
            BackgroundCall(partial(call, tracker)).wait(CALL_S)
        except Exception as error:
            accelerator.trackers.remove(tracker)
            log.warning(
                "%s is gone (%s); its log ends here, performance.csv has everything", tracker.name, first_line(error)
            )


def end_trackers(accelerator: "Accelerator") -> None:
    """End the trackers, which may take a while to upload what they have."""
    for_all_trackers(accelerator, lambda tracker: tracker.finish())
    accelerator.trackers = []


class BackgroundCall:
    """A call in a thread, which may hang as long as the process lives: wandb does for ever when the process behind it
    is killed while it starts."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._failed: BaseException | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._failed = error

    def finished_within(self, seconds: float) -> bool:
        """Wait up to so many seconds; whether the call has returned or raised."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Raises what the call does, and TimeoutError."""
        if not self.finished_within(seconds):
            raise TimeoutError(f"no answer within {duration(time.monotonic() - self._began)}")
        if self._failed is not None:
            raise self._failed


def _is_wrong_setting(error: BaseException) -> bool:
    """Whether a tracker was asked for something that it would never do: all else, such as a full disk or a process of
    its own that is gone, is no reason not to train."""
    return isinstance(error, ValueError | UserError) or type(error).__module__.split(".")[0] == "wandb"


def _is_internal_to_wandb(error: Exception) -> bool:
    """Whether wandb cannot talk to its own process, as when that was killed: nothing that a user has asked for. Its
    errors for users are public ones."""
    return type(error).__module__.startswith("wandb.sdk.")


def _wandb_settings(job: Job, run: RunFolder, about: RunAbout) -> dict[str, Any]:
    return {
        "name": job.name,
        "id": about.id_,
        "entity": job.wandb.entity,
        "group": job.wandb.group or about.replicates,
        "job_type": "train",
        "tags": job.wandb.tags,
        "notes": job.description or None,
        "dir": str(run.path),
        "settings": {"console": "off", "silent": True, "init_timeout": WANDB_TIMEOUT_S},
    }


def _flat(config: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Nested values and lists as text, for trackers that take only plain values."""
    return {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in config.items()}
