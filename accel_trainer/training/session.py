"""One training run from beginning to end: build, take up where it was left, train, tidy up."""

import logging
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from accelerate import Accelerator
from torch import Tensor

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import write_atomic
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.text import duration, listed
from accel_trainer.data.loader import Loader
from accel_trainer.data.preview import render_preview
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, write_performance
from accel_trainer.run.records import read_found, write_classes, write_config
from accel_trainer.run.status import RunState
from accel_trainer.training.build import Components, build
from accel_trainer.training.failures import Diverged, known_failure
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.meta_model import count_parameters, model_summary
from accel_trainer.training.pretrained.starting_weights import load_starting_weights, starts_from_weights
from accel_trainer.training.pretrained.transfer import Transfer
from accel_trainer.training.reporting import Plotter, Reporter
from accel_trainer.training.runtime.accelerator import (
    augments_on_device,
    deterministic_kernels,
    loader_threads,
    make_accelerator,
)
from accel_trainer.training.runtime.environment import has_batch_norm, record_attempt
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.state.checkpoint import StateStore, save_weights, shape_mismatch
from accel_trainer.training.state.restore import restore
from accel_trainer.training.state.starting_point import StartingPoint, find_starting_point
from accel_trainer.training.tracking import Tracking, end_training
from accel_trainer.training.tune.resolve import Resolver

log = logging.getLogger(__name__)


def train(
    job: Job, run: RunFolder, stop: StopRequest, reporter: Reporter, *, group: str | None, submission: str
) -> tuple[RunState, str | None]:
    """Train a job to its end, or until it is asked to stop; how it ended, and why if not well.

    Raises UserError for what is wrong with the job. When this returns, the memory that training took is free.
    """
    try:
        return _train(job, run, stop, reporter, group, submission)
    except Exception as error:
        size = job.with_found(read_found(run)).batch_size
        if (known := known_failure(error, reporter.position, size, StateStore(run))) is None:
            raise
        state, reason = known
        log.error("%s", reason)
        return state, reason


def _train(
    job: Job, run: RunFolder, stop: StopRequest, reporter: Reporter, group: str | None, submission: str
) -> tuple[RunState, str | None]:
    began = time.monotonic()
    with ExitStack() as resources:
        resources.enter_context(deterministic_kernels(job.deterministic))
        accelerator = make_accelerator(job, run)
        resources.callback(end_training, accelerator)
        try:
            loop, run_id = _prepare(job, run, stop, reporter, submission, accelerator, resources)
        except Stopped:
            log.info("stopped before the first step; there is nothing to save")
            return RunState.PREEMPTED, None
        job = loop.job
        plotter = None
        if loop.is_first:
            # Also of a finished run: its trainer may have been killed just before it wrote them.
            write_performance(run, map(PerformanceRow.from_record, loop.progress.history))
            plotter = Plotter(run)
            resources.callback(plotter.close)
        if loop.progress.epoch >= job.num_epochs:
            if loop.is_first:
                loop.states.keep_only_newest()
            log.info(
                "already trained for %d epochs; a larger num_epochs goes on, checkpoint -1 starts over",
                loop.progress.epoch,
            )
            return RunState.FINISHED, None
        try:
            tracking = Tracking(accelerator, job, run, group, run_id)
            resources.callback(tracking.wait)  # whoever ends trackers must not meet one that is still starting
            state, error = _outcome_of(loop, tracking, plotter)
        except BaseException:
            reporter.note_failure(loop.progress)
            raise
        if state is RunState.FINISHED:
            _say_how_it_went(job, loop, time.monotonic() - began)
        return state, error


def _prepare(
    job: Job,
    run: RunFolder,
    stop: StopRequest,
    reporter: Reporter,
    submission: str,
    accelerator: Accelerator,
    resources: ExitStack,
) -> tuple[TrainingLoop, str]:
    """Build all that trains a job, where the run was left; the loop, and the run's id on rank 0. Raises Stopped."""
    is_first = accelerator.is_main_process
    start = find_starting_point(job, run, submission, is_first=is_first, wait_for_all=accelerator.wait_for_everyone)
    num_threads = loader_threads(job)
    loader = resources.enter_context(Loader(num_threads))
    make_parts = partial(_make_parts, start=start, accelerator=accelerator, reporter=reporter)
    resolve = Resolver(
        run,
        accelerator,
        loader,
        stop,
        reporter,
        lambda job: make_parts(job, start.any_weights)[0],
        largest_batch_size=reporter.status.fitting_batch_size if start.is_fresh else None,
        changed=start.differences.keys(),
    )
    resolved = resolve(job)
    parts, transferred = make_parts(resolved, start.weights)
    if start.state is not None:
        _refuse_misfit(start.state.model, parts)
    run_id = _begin_folder(resolved, run, start, parts, transferred, accelerator, num_threads) if is_first else ""
    loop = TrainingLoop(resolved, run, parts, accelerator, loader, stop, reporter)
    restore(loop, start)
    if is_first:
        # From here on the folder holds a run of this job.
        write_config(run, resolved.completed())
    _announce(resolved, loop, num_threads)
    reporter.update(
        state=RunState.TRAINING,
        epoch=loop.progress.epoch,
        num_epochs=resolved.num_epochs,
        steps_per_epoch=parts.sampling.steps_per_epoch,
        best=loop.progress.best,
        best_epoch=loop.progress.best_epoch,
        primary_metric=resolved.primary_metric,
        num_processes=accelerator.num_processes,
        durable=True,
    )
    return loop, run_id


def _outcome_of(loop: TrainingLoop, tracking: Tracking, plotter: Plotter | None) -> tuple[RunState, str | None]:
    """Train; the ends that a loop itself can come to, and why it came to a bad one."""
    try:
        loop.train(tracking, plotter)
    except Stopped:
        progress = loop.progress
        log.info("stopped in epoch %d after step %d; the state is saved", progress.epoch + 1, progress.step)
        return RunState.PREEMPTED, None
    except Diverged as error:
        log.error("%s", error)
        loop.reporter.update(diverged=error.where)
        return RunState.DIVERGED, str(error)
    return RunState.FINISHED, None


def _make_parts(
    job: ResolvedJob,
    weights: Mapping[str, Tensor] | None,
    *,
    start: StartingPoint,
    accelerator: Accelerator,
    reporter: Reporter,
) -> tuple[Components, Transfer | None]:
    """What trains a job, with the weights that it starts from; and what of others' weights is among them."""
    parts = build(
        job,
        accelerator.num_processes,
        augment_on_device=augments_on_device(job, accelerator.device),
        progress=partial(reporter.report_preparation, "measuring the spectrum of the images"),
    )
    _load_weights(parts, weights)
    return parts, _transfer(job, parts, accelerator) if start.is_fresh and starts_from_weights(job) else None


def _load_weights(parts: Components, weights: Mapping[str, Tensor] | None) -> None:
    if weights is not None:
        _refuse_misfit(weights, parts)
        parts.model.load_state_dict(dict(weights))


def _refuse_misfit(weights: Mapping[str, Tensor], parts: Components) -> None:
    if (how := shape_mismatch(weights, parts.model)) is not None:
        raise UserError(
            f"checkpoint: the saved weights do not fit this architecture: {how}; choose another model_dir, "
            "or set checkpoint to -1 to start over"
        )


def _transfer(job: ResolvedJob, parts: Components, accelerator: Accelerator) -> Transfer:
    """Load what the run starts from, on one process of each machine first: it may have to be downloaded."""
    goes_first = accelerator.is_local_main_process
    if not goes_first:
        accelerator.wait_for_everyone()
    try:
        return load_starting_weights(job, parts.model)
    finally:
        if goes_first:  # the others find out for themselves what is wrong
            accelerator.wait_for_everyone()


def _begin_folder(
    job: ResolvedJob,
    run: RunFolder,
    start: StartingPoint,
    parts: Components,
    transferred: Transfer | None,
    accelerator: Accelerator,
    num_threads: int,
) -> str:
    """Write what describes the run, on its first attempt and, where it may change, on later ones; the run's id."""
    classes = parts.images.classes
    subset = job.class_subset if job.class_subset is not None else range(len(classes))
    write_classes(run, classes, subset)
    # Where a run was begun, they are its own; elsewhere they may be of an attempt that did not get this far.
    # Weights that are loaded may have become others since, and another job has others.
    is_begun = run.has_run and not (start.is_fresh and start.differences)
    if transferred is not None or not (is_begun and run.weights(0).exists()):
        save_weights(run.weights(0), parts.model.state_dict(), epoch="0", architecture=job.architecture)
    if transferred is not None:
        for line in transferred.lines():
            log.info("%s", line)
        write_atomic(run.starting_params, transferred.as_json())
    if start.differences or not (run.has_run and run.sample_inputs.exists()):
        write_atomic(run.sample_inputs, render_preview(parts.train_reader, parts.sampling))
    return record_attempt(
        run,
        job_name=job.name,
        device=accelerator.device,
        num_processes=accelerator.num_processes,
        loader_threads=num_threads,
        parameters=count_parameters(parts.model),
        changes=start.changes,
    )


def _announce(job: ResolvedJob, loop: TrainingLoop, num_threads: int) -> None:
    accelerator, parts = loop.accelerator, loop.parts
    if not accelerator.is_main_process:
        return
    log.info("%s", model_summary(parts.model, len(parts.images.classes), job.image_size))
    if parts.frozen:
        log.info("frozen: %s", listed(parts.frozen))
    log.info(
        "%d training and %d validation images; %d steps of %d %s in each of %d epochs",
        len(parts.images.train.labels), len(parts.images.val.labels),
        parts.sampling.steps_per_epoch, parts.sampling.images_per_step, _examples(job), job.num_epochs,
    )  # fmt: skip
    count = accelerator.num_processes
    log.info(
        "%d %s on %s, precision %s, loader threads in each: %d",
        count, "process" if count == 1 else "processes", accelerator.device.type,
        {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision), num_threads,
    )  # fmt: skip
    if count > 1 and has_batch_norm(parts.model):
        log.info("BatchNorm statistics are those of each process's %d images", job.batch_size // count)
    if loop.progress.global_step > 0 and loop.progress.epoch < job.num_epochs:
        log.info("going on in epoch %d after step %d", loop.progress.epoch + 1, loop.progress.step)


def _examples(job: ResolvedJob) -> str:
    """What a batch is made of."""
    if job.video:
        return f"clips of {job.views_per_image} frames"
    return "images" if job.num_views == 1 else f"images in {job.num_views} views each"


def _say_how_it_went(job: ResolvedJob, loop: TrainingLoop, seconds: float) -> None:
    best = loop.progress.best if loop.progress.best is not None else math.nan
    log.info(
        "finished %d epochs after %s; best %s %.4g in epoch %s",
        job.num_epochs, duration(seconds), job.primary_metric, best, loop.progress.best_epoch,
    )  # fmt: skip
