"""Experiment trackers, through Accelerate: Weights & Biases, TensorBoard and whatever else it knows."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from accel_trainer.config import Job
from accel_trainer.core.child_environment import child_environment
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.processes import children, has_living_child, reap_when_dead
from accel_trainer.core.text import did_you_mean, duration, first_line, listed
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.training.wandb_settings import refuse_settings_of_others, settings_obeyed

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

log = logging.getLogger(__name__)

WANDB_TIMEOUT_S = 30
# How long a training waits for its trackers to start, and for each later call of one.
START_S, CALL_S = 120.0, 300.0
POLL_S = 1.0
# wandb starts this at once, and waits for it for ever if it is killed too soon.
WANDB_CORE, MAX_FAILED_POLLS = "wandb-core", 5


def check_trackers(job: Job) -> None:
    """Refuse a tracker that Accelerate does not know, that is not installed, or whose settings in the environment it
    would not take. Raises UserError."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    installed = {str(name) for name in get_available_trackers()}
    problems = []
    for name in job.trackers:
        if name not in known:
            hint = f"Accelerate knows {', '.join(known)}"
            problems.append(Problem(f"no tracker {name!r}{did_you_mean(name, known)}", key="trackers", hint=hint))
        elif name not in installed:
            hint = f"pip install {name}, or remove it from the job"
            problems.append(Problem(f"{name!r} is not installed", key="trackers", hint=hint))
    if problems:
        raise UserError(*problems)
    if "wandb" in job.trackers:
        refuse_settings_of_others()
        # Of what a training gets; a key is left out, which a message might quote.
        passing = child_environment().items()
        variables = {name: value for name, value in passing if name.startswith("WANDB_") and name != "WANDB_API_KEY"}
        if variables:  # without any there is nothing to be wrong, and wandb takes a second to import
            _check_wandb_variables(variables)
        if wandb_mode_given(job) not in ("offline", "disabled", "dryrun"):
            _check_wandb_key(os.environ.get("WANDB_API_KEY", ""))


def _check_wandb_variables(variables: Mapping[str, str]) -> None:
    """Raises UserError for what wandb would not take, in its own words."""
    import wandb

    hint = "correct or unset it, or remove wandb from `trackers`"
    try:
        wandb.Settings().update_from_env_vars(dict(variables))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"WANDB_{str(first['loc'][0]).removeprefix('run_').upper()}"
        raise UserError(f"the variable {name} of the environment: {first['msg']}", hint=hint) from error
    except wandb.Error as error:
        names = ", ".join(sorted(variables))
        raise UserError(f"the environment's settings of wandb ({names}): {first_line(error)}", hint=hint) from error


def _check_wandb_key(key: str) -> None:
    """Raises UserError, in wandb's own words, for a key that cannot be one. What is in the key is never said."""
    if not key or re.fullmatch(r"(\w+-)?\w{40,}", key, re.ASCII):  # as nearly all: wandb need not be imported
        return
    try:
        from wandb.sdk.lib.wbauth.validation import check_api_key
    except ImportError:  # of another version: it says so when it is started
        return
    if (reason := check_api_key(key)) is not None:
        hint = "correct or unset it, or remove wandb from `trackers`"
        raise UserError(f"the variable WANDB_API_KEY of the environment: {reason.rstrip('.')}", hint=hint)


def wandb_mode_given(job: Job) -> str | None:
    """What the job or WANDB_MODE says."""
    return job.wandb.mode or os.environ.get("WANDB_MODE") or None


def wandb_mode(job: Job) -> str:
    """As the job or WANDB_MODE says; else online where somebody is logged in, and offline where not."""
    if (mode := wandb_mode_given(job)) is not None:
        return mode
    return "online" if os.environ.get("WANDB_API_KEY") or _key_is_stored() else "offline"


def _key_is_stored() -> bool:
    """Whether `wandb login` has left a key for the server in use; the key itself is not looked at."""
    import wandb

    settings = wandb.setup().settings
    if settings.api_key:
        return True
    server = urlsplit(settings.base_url).netloc
    # A login to the hosted service counts under its older name too.
    is_hosted = settings.base_url == wandb.Settings.model_fields["base_url"].default
    try:
        known = netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser()).hosts
    except (OSError, NetrcParseError, RuntimeError):  # the last where there is no home folder
        return False
    return server in known or (is_hosted and "api.wandb.ai" in known)


class Tracking:
    """The trackers of one run, on rank 0; on the other ranks nothing happens. They start while the first steps are
    taken."""

    def __init__(self, accelerator: "Accelerator", job: Job, run: RunFolder, group: str | None, id_: str) -> None:
        self._accelerator, self._job = accelerator, job
        self._children_before = children()
        self._needs_core = False
        self._waiting = threading.Lock()  # the loop looks after them while what is saved is logged on another thread
        self._starting: BackgroundCall | None = BackgroundCall(lambda: self._start(job, run, group or "", id_))

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
        for_all_trackers(self._accelerator, lambda tracker: self._describe(tracker, self._job))

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

    def _start(self, job: Job, run: RunFolder, group: str, id_: str) -> None:
        """Start all trackers. Raises what is wrong with them, and ConnectionError where wandb's process is gone."""
        try:
            if "wandb" in job.trackers:
                self._start_with_wandb(job, run, group, id_)
            else:
                self._accelerator.init_trackers(job.wandb.project)
        except Exception as error:
            if not _is_internal_to_wandb(error):
                raise
            raise ConnectionError(first_line(error) or "wandb's process is gone") from error

    def _start_with_wandb(self, job: Job, run: RunFolder, group: str, id_: str) -> None:
        """A server that does not answer is no reason not to train: wandb then goes offline."""
        import wandb

        self._needs_core = self._accelerator.is_main_process  # from its first question on, whether there is a login
        mode = wandb_mode(job) if self._needs_core else "disabled"
        settings = _wandb_settings(job, run, group, id_)
        if self._needs_core:
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

    @staticmethod
    def _describe(tracker: "GeneralTracker", job: Job) -> None:
        if tracker.name != "wandb":
            tracker.store_init_configuration(_flat(job.completed()))
            return
        tracker.store_init_configuration(job.completed())
        # The epoch is the x axis, so that an epoch that is replayed after a crash does no harm.
        tracker.tracker.define_metric("epoch", hidden=True)
        tracker.tracker.define_metric("*", step_metric="epoch")

    def log_epoch(self, rows: Sequence[PerformanceRow]) -> None:
        """rows: those of performance.csv for one epoch, the training's first. Logged as train/loss, val/acc1, ..."""
        self.wait()
        epoch = rows[0].epoch
        values = {f"{row.split}/{name}": value for row in rows for name, value in row.scores.items()}
        values |= {"lr": rows[0].lr, "images_per_s": rows[0].images_per_s}

        def log_values(tracker: "GeneralTracker") -> None:
            if tracker.name == "wandb":
                tracker.log({**values, "epoch": epoch})
            else:
                tracker.log(values, step=epoch)

        for_all_trackers(self._accelerator, log_values)

    def summarize(self, values: Mapping[str, float | int | None]) -> None:
        """What a table of runs shows: the best values."""
        self.wait()

        def update_summary(tracker: "GeneralTracker") -> None:
            if tracker.name == "wandb" and self._accelerator.is_main_process:
                tracker.tracker.summary.update(dict(values))

        for_all_trackers(self._accelerator, update_summary)


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


def _wandb_settings(job: Job, run: RunFolder, group: str, id_: str) -> dict[str, Any]:
    return {
        "name": job.name,
        "id": id_,
        "entity": job.wandb.entity,
        "group": job.wandb.group or group or None,
        "tags": job.wandb.tags,
        "notes": job.description or None,
        "dir": str(run.path),
        "settings": {"console": "off", "silent": True, "init_timeout": WANDB_TIMEOUT_S},
    }


def _flat(config: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Nested values and lists as text, for trackers that take only plain values."""
    return {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in config.items()}
