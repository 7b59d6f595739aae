"""What describes a run to its readers: the files beside its results, and the first lines of its log."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from accel_trainer.config import ResolvedJob
from accel_trainer.core.child_environment import in_one_line, names_set_aside
from accel_trainer.core.text import listed
from accel_trainer.data.dataset import StoresEncoded
from accel_trainer.data.preview import render_preview
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.build import Components
from accel_trainer.training.meta_model import count_parameters, model_summary
from accel_trainer.training.optim.settings import Course, optimizer_line, schedule_line
from accel_trainer.training.pretrained.transfer import Transfer
from accel_trainer.training.runtime.accelerator import Assembly
from accel_trainer.training.runtime.environment import has_batch_norm, record_attempt
from accel_trainer.training.runtime.kernels import kernels_line
from accel_trainer.training.state.checkpoint import Progress, save_weights
from accel_trainer.training.state.starting_point import Fresh, StartingPoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """A run as it begins, or resumes; rank 0 writes it. transferred: what was loaded of others' weights; without_order:
    what may come to other bits in another attempt, in words."""

    job: ResolvedJob
    run: RunFolder
    start: StartingPoint
    components: Components
    transferred: Transfer | None
    assembly: Assembly
    without_order: Sequence[str] = ()

    def write(self) -> str:
        """Write what describes the run, on its first attempt and, where it may change, on later ones; its id."""
        self._write_first_weights()
        self._write_sample_inputs()
        accelerator = self.assembly.accelerator
        return record_attempt(
            self.run,
            job_name=self.job.name,
            device=accelerator.device,
            num_processes=accelerator.num_processes,
            loader_threads=self.assembly.loader.num_threads,
            reads_encoded=self._reads_encoded(),
            parameters=count_parameters(self.components.model),
            changes=self.start.changes,
        )

    def _reads_encoded(self) -> bool:
        """Whether images may be stored as JPEGs, in any split."""
        images = self.components.images
        return any(isinstance(one, StoresEncoded) for one in (images.train, images.val, *images.eval_sets.values()))

    def _write_first_weights(self) -> None:
        """Where a run has begun, they are its own; elsewhere they may be of an attempt that did not get this far.
        Weights that are loaded may have changed since, and another job has others."""
        run, start, transferred = self.run, self.start, self.transferred
        has_begun = run.has_run and not (isinstance(start, Fresh) and start.differences)
        if transferred is not None or not (has_begun and run.weights(0).exists()):
            weights = self.components.model.state_dict()
            save_weights(run.weights(0), weights, run=run, epoch="0", architecture=self.job.architecture)
        if transferred is not None:
            for line in transferred.lines():
                log.info("%s", line)
            run.write(run.starting_params, transferred.as_json())

    def _write_sample_inputs(self) -> None:
        if self.start.differences or not (self.run.has_run and self.run.sample_inputs.exists()):
            sheet = render_preview(self.components.train_reader, self.components.sampling, name=self.job.name or "")
            self.run.write(self.run.sample_inputs, sheet)

    def log(self, progress: Progress) -> None:
        """Log what is trained, on what, and from where it resumes."""
        job, components, accelerator = self.job, self.components, self.assembly.accelerator
        images, sampling = components.images, components.sampling
        if aside := names_set_aside():
            log.info("set aside from the environment: %s (the job and the launch say how to train)", in_one_line(aside))
        log.info("%s", model_summary(components.model, len(images.classes), job.image_size))
        if components.frozen:
            log.info("frozen: %s", listed(components.frozen))
        log.info(
            "%d training and %d validation images; %d steps of %d %s in each of %d epochs",
            len(images.train.labels), len(images.val.labels),
            sampling.steps_per_epoch, sampling.images_per_step, _examples(job), job.num_epochs,
        )  # fmt: skip
        for note in images.notes:
            log.info("%s", note)
        log.info("optimizer %s", optimizer_line(job, components.optimizer))
        log.info("schedule %s", schedule_line(job, Course(job, components.optimizer, sampling.steps_per_epoch)))
        count = accelerator.num_processes
        log.info(
            "%d %s on %s, precision %s, loader threads in each: %d",
            count, "process" if count == 1 else "processes", accelerator.device.type,
            {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision),
            self.assembly.loader.num_threads,
        )  # fmt: skip
        if accelerator.device.type == "cuda" and (line := kernels_line(job)) is not None:
            log.info("computed with %s", line)
        if self.without_order:
            log.info("another attempt may come to other last bits: %s", listed(self.without_order))
        if count > 1 and has_batch_norm(components.model):
            log.info("BatchNorm statistics are those of each process's %d images", sampling.batch_size // count)
        if progress.global_step > 0 and progress.epoch < job.num_epochs:
            log.info("going on in epoch %d after step %d", progress.epoch + 1, progress.step)


def _examples(job: ResolvedJob) -> str:
    """What a batch is made of."""
    if job.video:
        return f"clips of {job.views_per_image} frames"
    return "images" if job.num_views == 1 else f"images in {job.num_views} views each"
