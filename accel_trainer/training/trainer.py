"""Builds what trains a job, restores what there is of its run, and trains it to its end."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from accelerate import Accelerator
from torch import Tensor

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import MachineFailure, StoppedWaiting
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.text import duration
from accel_trainer.data.listing import Canceled, Input
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import write_performance
from accel_trainer.run.records import keep_classes, read_found, write_config
from accel_trainer.run.status import RunState
from accel_trainer.training.build import Components, build
from accel_trainer.training.check import JobChecker
from accel_trainer.training.degraded import DegradedImages, Measure
from accel_trainer.training.description import Description
from accel_trainer.training.determinism import operations_without_order, refuse_without_order
from accel_trainer.training.failures import Diverged, is_out_of_memory, known_failure
from accel_trainer.training.identity.agreement import agree_on_data
from accel_trainer.training.identity.check import DataCheck, RunData, refuse_other_images
from accel_trainer.training.identity.contents import ContentRecord
from accel_trainer.training.identity.differences import STARTING_WEIGHTS
from accel_trainer.training.identity.model_source import MODEL, ModelSource
from accel_trainer.training.identity.recorder import DataRecorder
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.optim.first_step import refuse_gpu_arguments
from accel_trainer.training.pretrained.loaded_weights import LoadedWeights
from accel_trainer.training.pretrained.starting_weights import load_starting_weights, starts_from_weights
from accel_trainer.training.pretrained.transfer import Transfer
from accel_trainer.training.reporting import Plotter, Reporter, TrainingResult
from accel_trainer.training.resume import resume
from accel_trainer.training.runtime.accelerator import Assembly
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.state.checkpoint import StateStore, shape_mismatch
from accel_trainer.training.state.starting_point import (
    Fresh,
    FromState,
    FromWeights,
    StartingPoint,
    find_starting_point,
    with_changes,
)
from accel_trainer.training.tracker_calls import end_trackers
from accel_trainer.training.tracker_checks import check_trackers
from accel_trainer.training.tracking import RunAbout, Tracking
from accel_trainer.training.tune.resolve import Resolver
from accel_trainer.training.wandb_run import replicates
from accel_trainer.zoo import registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trainer:
    """One attempt at a run, on one process. submission, group, measure: as in SessionOptions."""

    job: Job
    run: RunFolder
    stop: StopRequest
    reporter: Reporter
    assembly: Assembly
    submission: str
    group: str | None
    measure: Measure | None = None

    def train(self) -> TrainingResult:
        """Train to the end, to a stop or to a known failure. Raises UserError, and what is not known."""
        began = time.monotonic()
        loop: TrainingLoop | None = None
        try:
            with ExitStack() as resources:
                resources.callback(end_trackers, self.assembly.accelerator)
                loop, run_id = self._prepare(resources)
                plotter = self._plotter(loop, resources)
                degraded = self._degraded(loop)
                was_finished = loop.progress.epoch >= loop.job.num_epochs
                if was_finished and (degraded is None or not degraded.is_left(loop.progress.best_epoch)):
                    return _finished_before(loop)
                with self._failures_noted(loop):
                    about = self._about(run_id, loop)
                    tracking = Tracking(self.assembly.accelerator, loop.job, self.run, about)
                    resources.callback(tracking.close)  # trackers that are still starting must not be ended
                    with _preemption_told(tracking):
                        loop.train(tracking, plotter, degraded)
                        if degraded is not None:
                            self.assembly.accelerator.wait_for_everyone()  # the first one has written the weights
                            degraded.in_the_end(loop.progress.epoch, tracking)
                    tracking.log_best_weights(loop.progress.best_epoch)
                if was_finished:
                    return _finished_before(loop)
                _log_end(loop, time.monotonic() - began)
                return TrainingResult(RunState.FINISHED)
        except Stopped:
            _log_stop(loop)
            return TrainingResult(RunState.PREEMPTED)
        except (StoppedWaiting, Canceled):
            log.info("stopped while a disk was away; the run resumes from its newest state")
            reason = "stopped while a disk was away" if not self.assembly.is_first else None
            return TrainingResult(RunState.PREEMPTED, reason)
        except MachineFailure as error:
            log.error("%s", error)
            return TrainingResult(RunState.MACHINE_FAILED, str(error))
        except Diverged as error:
            log.error("%s", error)
            self.reporter.update(diverged=error.where)
            return TrainingResult(RunState.DIVERGED, str(error))
        except Exception as error:
            # Nothing else needs it, and the disk of the run may be away.
            found = read_found(self.run) if is_out_of_memory(error) else {}
            size = self.job.with_found(found).batch_size
            if (known := known_failure(error, self.reporter.position, size, StateStore(self.run))) is None:
                raise
            state, reason = known
            log.error("%s", reason)
            return TrainingResult(state, reason)

    def _about(self, run_id: str, loop: TrainingLoop) -> RunAbout:
        """What trackers are told of the run beside its job."""
        steps = [] if loop.progress.steps is None else loop.progress.steps.rows
        return RunAbout(run_id, self.group, replicates(self.job), loop.progress.history, steps)

    def _plotter(self, loop: TrainingLoop, resources: ExitStack) -> Plotter | None:
        """Draws what is measured, on rank 0."""
        if not loop.is_first:
            return None
        # Also of a finished run: its trainer may have been killed just before it wrote them.
        write_performance(self.run, loop.progress.history)
        plotter = Plotter(self.run)
        resources.callback(plotter.close)
        return plotter

    def _degraded(self, loop: TrainingLoop) -> DegradedImages | None:
        """What measures the job's degradations, where it has some."""
        if not loop.job.degradations:
            return None
        if self.measure is None:
            raise ValueError("a job with degradations needs somebody who measures them")
        return DegradedImages(loop.job, self.run, self.assembly, self.measure, self.reporter, loop.is_stopped)

    @contextmanager
    def _failures_noted(self, loop: TrainingLoop) -> Iterator[None]:
        try:
            yield
        except (Stopped, StoppedWaiting, Diverged):
            raise
        except BaseException:
            self.reporter.note_failure(loop.progress)
            raise

    # -- before the first step ------------------------------------------------------------------------------

    def _prepare(self, resources: ExitStack) -> tuple[TrainingLoop, str]:
        """Build all that trains the job, and restore what there is of the run; the loop, and the run's id on rank 0.
        Raises UserError and Stopped."""
        check_trackers(self.job)
        refuse_gpu_arguments(self.job, self.assembly.accelerator.device)
        accelerator, is_first = self.assembly.accelerator, self.assembly.is_first
        wait = accelerator.wait_for_everyone
        start = find_starting_point(
            self.job, self.run, self.submission, is_first=is_first, wait_for_all=wait, check=self._check
        )
        if not self.run.has_run:  # it was moved to previous/
            self.reporter.take_run()
        job = self._resolved(start)
        components, transferred = self._components(job, start)
        without_order = self._without_order(job, components)
        inputs = {**components.inputs, **_source_as_input(job), **_weights_as_input(components, transferred)}
        data = RunData(components.images, inputs)
        check = self._check_data(job, data, start)
        if check is not None:
            start = with_changes(start, check.changes, self.run, logs=is_first)
        if isinstance(start, FromState):  # loaded later, with all the rest
            _refuse_misfit(start.state.model, components)
        self.reporter.take_run()
        description = Description(job, self.run, start, components, transferred, self.assembly, without_order)
        run_id = description.write() if is_first else ""
        loop = TrainingLoop(job, self.run, components, accelerator, self.assembly.loader, self.stop, self.reporter)
        resume(loop, start)
        if check is not None:
            record = ContentRecord(
                self.run, components.images, check.now, accelerator, accepts_changes=job.allow_changes
            )
            loop.before_save = record.share
        if is_first:
            if check is not None:
                self._record_data(data, check, resources)
            # From here on the folder holds a run of this job.
            write_config(self.run, job.completed())
            description.log(loop.progress)
        self.reporter.update(
            state=RunState.TRAINING,
            preparing=None,
            prepared=None,
            epoch=loop.progress.epoch,
            num_epochs=job.num_epochs,
            steps_per_epoch=components.sampling.steps_per_epoch,
            best=loop.progress.best,
            best_epoch=loop.progress.best_epoch,
            primary_metric=job.primary_metric,
            num_processes=accelerator.num_processes,
            corrupt_images=loop.num_corrupt,
            durable=True,
        )
        return loop, run_id

    def _check(self) -> None:
        """All that can be known to be wrong before a run is moved away for this one. Raises UserError and Canceled."""
        checker = JobChecker()
        with self.reporter.alive("checking the job and opening the data"):  # which may be downloaded
            checker(self.job, self.assembly.accelerator.num_processes)
        if (self.job.checkpoint or 0) > 0:
            refuse_other_images(self.job, self.run, checker.images(self.job), lambda: bool(self.stop))

    def _without_order(self, job: ResolvedJob, components: Components) -> list[str]:
        """What may have other bits in another attempt on a GPU, in words. Raises UserError where that must not be."""
        if self.assembly.accelerator.device.type != "cuda" or job.fast_kernels:
            return []
        operations = operations_without_order(job, components.model, components.objective)
        refuse_without_order(job, operations)
        return operations

    def _check_data(self, job: ResolvedJob, data: RunData, start: StartingPoint) -> DataCheck | None:
        """Compare the data with those of the run; None for a run that is over. Raises UserError."""
        if isinstance(start, FromState) and start.state.progress.epoch >= job.num_epochs:
            return None
        goes_on = isinstance(start, FromState) or (isinstance(start, FromWeights) and start.epoch > 0)
        return agree_on_data(job, self.run, data, self.assembly.accelerator, lambda: bool(self.stop), goes_on=goes_on)

    def _record_data(self, data: RunData, check: DataCheck, resources: ExitStack) -> None:
        """Record what the run begins with, on rank 0."""
        if check.differences:
            log.info("the data set has changed: %s; going on", "; ".join(map(str, check.differences)))
        keep_classes(self.run, data.images.classes, self.job.class_subset)
        recorder = DataRecorder(self.run, data, check)
        resources.callback(recorder.close)
        recorder.write()

    def _resolved(self, start: StartingPoint) -> ResolvedJob:
        """The job with a batch size and a learning rate that are numbers."""
        resolve = Resolver(
            self.run,
            self.assembly.accelerator,
            self.assembly.loader,
            self.stop,
            self.reporter,
            lambda job: self._trial_components(job, start),
            largest_batch_size=self.reporter.status.fitting_batch_size if isinstance(start, Fresh) else None,
            changed=start.differences.keys(),
        )
        return resolve(self.job)

    def _trial_components(self, job: ResolvedJob, start: StartingPoint) -> Components:
        """What a batch size or a learning rate is tried with: also of a state the weights."""
        components, _ = self._components(job, start)
        if isinstance(start, FromState):
            _load_weights(start.state.model, components)
        return components

    def _components(self, job: ResolvedJob, start: StartingPoint) -> tuple[Components, Transfer | None]:
        """What trains a job, with the weights where it starts from such; and what was loaded of others' weights, where
        it begins."""
        accelerator = self.assembly.accelerator
        # Weights may be downloaded, by the rank that others wait for.
        with self.reporter.alive("building the model and opening the data"):
            components = build(
                job,
                accelerator.num_processes,
                device=accelerator.device,
                augment_on_device=self.assembly.augment_on_device,
                progress=partial(self.reporter.report_preparation, "measuring the spectrum of the images"),
            )
            if isinstance(start, FromWeights):
                _load_weights(start.weights, components)
            transfers = isinstance(start, Fresh) and starts_from_weights(job)
            return components, _transfer(job, components, accelerator) if transfers else None


def _load_weights(weights: Mapping[str, Tensor], components: Components) -> None:
    _refuse_misfit(weights, components)
    components.model.load_state_dict(dict(weights))


def _refuse_misfit(weights: Mapping[str, Tensor], components: Components) -> None:
    if (how := shape_mismatch(weights, components.model)) is not None:
        raise UserError(
            f"checkpoint: the saved weights do not fit this architecture: {how}; choose another model_dir, "
            "or set checkpoint to -1 to start over"
        )


def _transfer(job: ResolvedJob, components: Components, accelerator: Accelerator) -> Transfer:
    """Load what the run starts from, on one process of each machine first: it may have to be downloaded."""
    goes_first = accelerator.is_local_main_process
    if not goes_first:
        accelerator.wait_for_everyone()
    try:
        return load_starting_weights(job, components.model)
    finally:
        if goes_first:  # the others find out for themselves what is wrong
            accelerator.wait_for_everyone()


def _weights_as_input(components: Components, transferred: Transfer | None) -> dict[str, Input]:
    """What was loaded of others' weights, where a run begins."""
    if transferred is None:
        return {}
    return {STARTING_WEIGHTS: LoadedWeights(components.model, transferred)}


def _source_as_input(job: Job) -> dict[str, Input]:
    """The source of a model of the user's own: no commit of git says what it is where it is not in git, or changed."""
    if not registry.is_users_own(job.architecture):
        return {}
    source = ModelSource(job.architecture)
    return {MODEL: source} if source.classes else {}  # of a module that is in no file nothing can be said


def _log_end(loop: TrainingLoop, seconds: float) -> None:
    best = loop.progress.best if loop.progress.best is not None else math.nan
    log.info(
        "finished %d epochs after %s; best %s %.4g in epoch %s",
        loop.job.num_epochs, duration(seconds), loop.job.primary_metric, best, loop.progress.best_epoch,
    )  # fmt: skip


def _finished_before(loop: TrainingLoop) -> TrainingResult:
    if loop.is_first:
        loop.states.keep_only_newest()
    log.info(
        "already trained for %d epochs; a larger num_epochs goes on, checkpoint -1 starts over", loop.progress.epoch
    )
    return TrainingResult(RunState.FINISHED)


@contextmanager
def _preemption_told(tracking: Tracking) -> Iterator[None]:
    """The trackers are told of a stop, after which the run goes on another time."""
    try:
        yield
    except Stopped:
        tracking.mark_preempting()
        raise


def _log_stop(loop: TrainingLoop | None) -> None:
    if loop is None:
        log.info("stopped before the first step; there is nothing to save")
    else:
        progress = loop.progress
        log.info("stopped in epoch %d after step %d; the state is saved", progress.epoch + 1, progress.step)
