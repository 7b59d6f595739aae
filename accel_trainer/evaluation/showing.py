"""A trained model that is shown images under conditions, batch by batch.

Images are cut into the same batches whatever the number of processes, and each batch is one process's: the answers do
not depend on how many there are, nor on where an earlier attempt has ended.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import nn

from accel_trainer.config import ResolvedJob
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.pipeline import evaluation_views
from accel_trainer.data.shared_work import on_one_core
from accel_trainer.evaluation.answer_files import AnswerFiles, States
from accel_trainer.evaluation.answers import AnswerKind, Records
from accel_trainer.evaluation.conditions import Conditions
from accel_trainer.evaluation.degraded_batches import ShownBatch, shown_batches
from accel_trainer.evaluation.identity import image_names
from accel_trainer.evaluation.rows_on_disk import TODO
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.meta_model import cycle_axis, cycles_of
from accel_trainer.training.objectives.base import Cycles
from accel_trainer.training.runtime.accelerator import Assembly
from accel_trainer.training.runtime.data_parallel import moves_model
from accel_trainer.training.runtime.kernels import in_memory_format, store_weights
from accel_trainer.training.validation import evaluation_set

Progress = Callable[[int, int], None]


class Showing:
    """A trained model, ready to be shown images under conditions."""

    def __init__(
        self,
        job: ResolvedJob,
        plan: EvaluationPlan,
        model: nn.Module,
        parts: Assembly,
        conditions: Conditions,
        sources: Sequence[ImageDataset],
        num_classes: int,
    ) -> None:
        """sources: the images of all conditions, or those of each, as many."""
        self.job, self.plan, self.parts, self.conditions, self.sources = job, plan, parts, conditions, sources
        self.accelerator = parts.accelerator
        self.cycles = Cycles(cycles_of(job, model, num_classes), axis=cycle_axis(model))
        self.kind = AnswerKind.of(plan.probabilities, num_classes, self.cycles.count)
        store_weights(job, model, self.accelerator.device)
        # Not wrapped: ranks have different numbers of forward passes.
        placement = moves_model(self.accelerator)
        self.model = self.accelerator.prepare_model(model, device_placement=placement, evaluation_mode=True).eval()
        # Normalized after the crop is degraded, whatever does that.
        self.views = evaluation_views(job, on_device=True)

    @cached_property
    def batch_size(self) -> int:
        """As the validation on one process has it, so that its answers come from the same forward passes."""
        return self.plan.batch_size or evaluation_set(self.job, self.sources[0], self.views, 1).images_per_batch

    def measure(
        self,
        files: AnswerFiles,
        place: RunFolder,
        before: States,
        on_progress: Progress,
        is_stopped: Callable[[], bool],
    ) -> bool:
        """Write this process's answers that are not there yet; False where it was stopped before its last batch.

        place: the folder of the files, as its owner writes it. before: what is there. on_progress, is_stopped: as of
        `run_plan`. Raises UserError and LockLost.
        """
        plans = [list(self._plans(before, places)) for places in self._places_of_sources(before)]
        own = sum(len(plan.indices) * len(places) for of_source in plans for plan, places in of_source)
        done, total, todo = 0, before.size, int(np.count_nonzero(before == TODO))
        for batch in chain.from_iterable(map(self._shown, self.sources, plans)):
            if is_stopped():
                return False
            records = np.zeros((len(batch.indices), self.kind.num_cycles), self.kind.dtype)
            if not batch.is_corrupt.all():
                records[~batch.is_corrupt] = self._answers(batch)
            if files.write(batch.place, int(batch.indices[0]), records, batch.digests, batch.is_corrupt):
                place.check_owner()
            done += len(batch.indices)
            on_progress(total - todo + min(todo, todo * done // own), total)
        return True

    def _places_of_sources(self, states: States) -> list[range]:
        """The conditions under which each source's images are shown."""
        if len(self.sources) == 1:
            return [range(len(states))]
        return [range(place, place + 1) for place in range(len(states))]

    def _plans(self, states: States, conditions: range) -> Iterator[tuple[BatchPlan, Sequence[int]]]:
        """This process's batches of some images, each with the conditions that are to be measured."""
        size, accelerator, count = self.batch_size, self.accelerator, states.shape[1]
        starts = range(0, count, size)
        for start in starts[accelerator.process_index :: accelerator.num_processes]:
            indices = np.arange(start, min(start + size, count))
            places = [place for place in conditions if (states[place, indices] == TODO).any()]
            if places:
                yield BatchPlan(0, 0, indices, indices), places

    def _shown(self, source: ImageDataset, plans: Sequence[tuple[BatchPlan, Sequence[int]]]) -> Iterator[ShownBatch]:
        """The batches of a source's images."""
        is_strict = self.job.corrupt_images == "forbid"
        reader = ImageReader(source, self.views, replace_corrupt=False, forbid_corrupt=is_strict)
        return shown_batches(self.parts.loader, reader, plans, self.conditions.distinct, image_names(source))

    def _answers(self, batch: ShownBatch) -> Records:
        images = in_memory_format(self.job, batch.inputs.on(self.accelerator.device))

        def look() -> Records:
            with torch.inference_mode(), self.accelerator.autocast():
                output = self.model(images)
            return self.kind.records(output, self.cycles)

        # The last bits of what a CPU computes depend on the number of cores, and that on the number of processes.
        return on_one_core(look) if images.device.type == "cpu" else look()
