"""A few steps of a training with the training's own loop, in a temporary run folder."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.fields import LR_RULES
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.core.processes import StopRequest, usable_cores
from accel_trainer.core.spans import Phase, recording
from accel_trainer.data.batch_plan import BatchPlan, TrainBatchPlanner
from accel_trainer.profiling.figures import Profile, Setting
from accel_trainer.profiling.recorder import SpanRecorder, add_loader_threads, exclusive_seconds
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found
from accel_trainer.run.rules import as_its_run_goes_on
from accel_trainer.run.status import RunState, Status
from accel_trainer.training.build import Components, build
from accel_trainer.training.failures import Diverged, is_out_of_memory
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.runtime.accelerator import Assembly, assembly, augments_on_device
from accel_trainer.training.runtime.kernels import is_channels_last
from accel_trainer.training.tune.batch_size import SMALLER_BATCH_HINT
from accel_trainer.training.tune.resolve import Resolver
from accel_trainer.training.validation import EvaluationSet

# Batches of the validation.
WARM_UP_BATCHES, NUM_BATCHES = 2, 10
# A step of a large model is a megabyte of trace.
TRACED_STEPS = 5


class EndlessBatchPlanner(TrainBatchPlanner):
    """All epochs as one, since an epoch may have fewer steps than are measured."""

    def micro_batches(self, epoch: int, rank: int, first_step: int = 0) -> Iterator[BatchPlan]:
        """This rank's micro-batches from an epoch on, without end."""
        for number in count(epoch):
            yield from super().micro_batches(number, rank, first_step)
            first_step = 0


class EvaluationExcerpt(EvaluationSet):
    """As many batches as are measured, whatever the size of the set."""

    def batches(self, rank: int, world_size: int) -> Iterator[BatchPlan]:
        """This rank's first batches, repeated if there are too few."""
        return islice(cycle(super().batches(rank, world_size)), WARM_UP_BATCHES + NUM_BATCHES)


def profile(job: Job, scratch_dir: Path, steps: int, warm_up: int, trace: Path) -> Profile:
    """Measure `steps` optimizer steps after `warm_up` others, some batches of the validation, and a save of the state.

    scratch_dir: an empty folder that takes the place of the run folder; of the job's own only its rules are read, and
    a batch size and learning rate found before. trace: the file for the Chrome trace of a few more steps and another
    save, which the first process writes. Every process of a launch calls it. Raises UserError.
    """
    run = RunFolder(scratch_dir)
    own_run = RunFolder(job.run_path)
    job = as_its_run_goes_on(job, own_run).with_found(read_found(own_run)).model_copy(update={"trackers": []})
    job = job.with_found(dict.fromkeys(LR_RULES, 1e-3))  # any rate takes the same time
    with waiting_out_until_interrupted(), assembly(job, run) as parts:
        loop = _make_loop(job, run, parts)
        try:
            return ProfileRun(loop).measure(steps, warm_up, trace)
        except Diverged as error:
            raise UserError(str(error)) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"batch_size: {loop.job.batch_size}: out of memory; {SMALLER_BATCH_HINT}") from error


def _make_loop(job: Job, run: RunFolder, assembled: Assembly) -> TrainingLoop:
    run.create(tries_to_write=True)
    accelerator, loader, stop = assembled.accelerator, assembled.loader, StopRequest()
    reporter = Reporter(run, Status(state=RunState.TRAINING), writes=assembled.is_first)

    def make_parts(job: ResolvedJob) -> Components:
        on_device = assembled.augment_on_device
        return build(job, accelerator.num_processes, device=accelerator.device, augment_on_device=on_device)

    resolved = Resolver(run, accelerator, loader, stop, reporter, make_parts)(job)
    parts = make_parts(resolved)
    parts = replace(
        parts, sampling=EndlessBatchPlanner(**vars(parts.sampling)), val=EvaluationExcerpt(**vars(parts.val))
    )
    return TrainingLoop(resolved, run, parts, accelerator, loader, stop, reporter)


class ProfileRun:
    """A training loop and its measurements."""

    def __init__(self, loop: TrainingLoop) -> None:
        self.loop, self.device = loop, loop.accelerator.device
        self.accumulation = loop.parts.sampling.accumulation
        self._plans = loop.parts.sampling.micro_batches(1, loop.rank)

    def measure(self, steps: int, warm_up: int, trace: Path) -> Profile:
        """Train, validate, save, and write the trace."""
        training = self._record(lambda: self._train(warm_up + steps))
        validation = self._record(self._validate)
        saving = self._record(self._save)
        self._trace(trace)
        own = training.main_thread_spans(Phase.STEP, warm_up * self.accumulation)
        loading = training.loader_spans(since=own[0].start)
        sampling, val = self.loop.parts.sampling, self.loop.parts.val
        num_loaded = sum(span.count for span in loading if span.name is Phase.RENDERING)
        batches = validation.main_thread_spans(Phase.METRICS, WARM_UP_BATCHES)
        num_batches = sum(span.name is Phase.METRICS and span.parent is None for span in batches)
        return Profile(
            job=self.loop.job.name,
            setting=self._setting(),
            num_steps=steps,
            images_per_step=sampling.images_per_step,
            images_per_batch=val.images_per_batch,
            step=_mean_seconds(exclusive_seconds(own), steps),
            validation=_mean_seconds(exclusive_seconds(batches), num_batches),
            loading=_mean_seconds(exclusive_seconds(loading), num_loaded),
            saving=sum(
                span.seconds() for span in saving.main_thread_spans(Phase.SAVING, 0) if span.name is Phase.SAVING
            ),
            steps_per_epoch=sampling.steps_per_epoch,
            val_images=val.num_images,
        )

    def _record(
        self, act: Callable[[], object], annotate: Callable[[str], AbstractContextManager[Any]] | None = None
    ) -> SpanRecorder:
        recorder = SpanRecorder(self.device) if annotate is None else SpanRecorder(self.device, annotate)
        with recording(recorder):
            act()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return recorder

    def _train(self, steps: int) -> None:
        self.loop.step.train_mode()
        self.loop.take_steps(islice(self._plans, steps * self.accumulation))

    def _validate(self) -> None:
        self.loop.evaluator.measure(self.loop.plain_model, self.loop.parts.val, lambda: False)

    def _save(self) -> None:
        """As between two epochs: a thread writes it, and the training goes on when there is a copy."""
        with self.loop.saver.running():
            self.loop.save_state(waits=False)

    def _trace(self, path: Path) -> None:
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":  # not run on one
            activities.append(ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profiler:
            recorder = self._record(self._traced, record_function)
        if self.loop.is_first:
            profiler.export_chrome_trace(str(path))
            add_loader_threads(path, [span for span in recorder.spans if span.thread != recorder.thread])

    def _traced(self) -> None:
        self._train(TRACED_STEPS)
        self._save()

    def _setting(self) -> Setting:
        job, world = self.loop.job, self.loop.world
        return Setting(
            device=world.device,
            num_processes=world.num_processes,
            threads=world.loader_threads,
            cores=usable_cores(),
            precision=world.precision,
            channels_last=is_channels_last(job, self.device),
            compile=job.compile,
            augments_on_device=augments_on_device(job, self.device),
        )


def _mean_seconds(seconds: dict[Phase, float], number: int) -> dict[str, float]:
    return {phase: seconds[phase] / max(number, 1) for phase in Phase if phase in seconds}
