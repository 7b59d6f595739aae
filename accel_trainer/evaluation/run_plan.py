"""A plan carried out: the trials of a trained model under each condition, in a folder of the run.

Images are cut into the same batches whatever the number of processes, and each batch is one process's: the answers do
not depend on how many there are, nor on where an earlier attempt has ended.
"""

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from accel_trainer.config import ResolvedJob
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.disk_calls import never
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import remove_stale_temp_files, remove_tree
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.core.text import one_line
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.open import open_validation
from accel_trainer.data.pipeline import evaluation_views
from accel_trainer.data.shared_work import on_one_core
from accel_trainer.evaluation.answer_files import CORRUPT, TODO, AnswerFiles, States, errors_named
from accel_trainer.evaluation.answers import AnswerKind, Records
from accel_trainer.evaluation.by_first import by_first
from accel_trainer.evaluation.conditions import Conditions, conditions_of
from accel_trainer.evaluation.degraded_batches import ShownBatch, shown_batches
from accel_trainer.evaluation.identity import file_digest, image_names, images_digest
from accel_trainer.evaluation.owned_folder import owned_folder
from accel_trainer.evaluation.trained_model import epoch_of, trained_model, with_data_in
from accel_trainer.evaluation.trial_table import Shows, write_summary, write_trials
from accel_trainer.report.condition_curves import draw_condition_curves
from accel_trainer.run.evaluations import EvaluationFolder, EvaluationRecord, read_evaluation, write_evaluation
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of, trained_classes, trained_job, trained_weights
from accel_trainer.run.records import read_environment
from accel_trainer.training.meta_model import cycle_axis, cycles_of
from accel_trainer.training.objectives.base import Cycles
from accel_trainer.training.runtime.accelerator import Assembly, assembly
from accel_trainer.training.runtime.data_parallel import moves_model
from accel_trainer.training.runtime.kernels import in_memory_format, store_weights
from accel_trainer.training.validation import evaluation_set

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
PACKAGES = ("accel-train", "torch", "torchvision", "numpy", "scipy")


class EvaluationStopped(Exception):
    """It was asked to stop. What was measured is on the disk; the next call goes on with it."""


@dataclass(frozen=True)
class Measured:
    """What came of a plan. computed: how many answers, an image under a condition each, were computed now, by all
    processes."""

    folder: EvaluationFolder
    record: EvaluationRecord
    computed: int


def nobody_listens(done: int, total: int) -> None:
    """Of who does not ask how far an evaluation is."""


def run_plan(
    run: RunFolder,
    plan: EvaluationPlan,
    owned: RunFolder | None = None,
    *,
    parts: Assembly | None = None,
    on_progress: Progress = nobody_listens,
    is_stopped: Callable[[], bool] = never,
) -> Measured:
    """Measure what a plan says, into `evaluations/<name>/` of a run; what an earlier call, ended anywhere, has left
    there is gone on with, and what is complete is only given back.

    owned: that folder as its owner writes it; by default it is locked here. parts: what this process computes with, if
    it does so for the run already. on_progress: called after each
    batch with how many images under a condition are measured, if the other processes are as far as this one, and how
    many there are in all. is_stopped: looked at between two batches; when any process is stopped, all are. Every
    process of a launch calls it and gets the same answer. Raises UserError, also while another process writes that
    folder or where it has something else; EvaluationStopped; LockLost.
    """
    job = trained_job(run)
    refuse_embeddings(job, run)
    path, classes = trained_weights(run, job, plan.weights), trained_classes(run)
    dataset = plan.dataset or job.dataset
    is_own = dataset == job.dataset
    there = with_data_in(job, None if plan.data_root is None else Path(plan.data_root))
    conditions = conditions_of(plan, dataset)
    folder = EvaluationFolder(run.evaluations / plan.folder_name)
    with _computing(job, run, parts) as parts:
        source = open_validation(there, dataset, classes, needs_all=is_own)
        measuring = _Measuring(there if is_own else job, plan, trained_model(job, path, len(classes)), parts, classes)

        def describe() -> EvaluationRecord:
            return EvaluationRecord(
                plan=plan.model_dump(mode="json"),
                measured=measuring.identity(source, path, conditions),
                observer=observer_of(run, plan.weights),
                architecture=job.architecture,
                dataset=dataset,
                epoch=epoch_of(path),
                images=len(source.labels),
                versions=versions(),
            )

        with owned_folder(folder.path, owned, parts.accelerator) as place:
            return measuring.into(folder, place, source, conditions, describe, on_progress, is_stopped)


def refuse_embeddings(job: ResolvedJob, run: RunFolder) -> None:
    """Raises UserError for a run that has learnt no classes."""
    if job.is_contrastive:
        raise UserError(
            f"{job.criterion} has trained embeddings, which answer with no class: there are no trials of {run.path}",
            hint="train a classifier on it (`finetune`), or take its features",
        )


def versions() -> dict[str, str]:
    """Of what decides the last bits of numbers."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def observer_of(run: RunFolder, weights: str) -> str:
    """What the model is called in a table of trials: its job, and the weights where these are not the best."""
    name = job_of(run, read_environment(run))
    return name if weights == "best" else f"{name}@{weights}"


@contextmanager
def _computing(job: ResolvedJob, run: RunFolder, parts: Assembly | None) -> Iterator[Assembly]:
    """What the caller computes with, or what is assembled for this alone."""
    if parts is not None:
        yield parts
        return
    with waiting_out_until_interrupted(), assembly(job, run) as own:
        yield own


class _Measuring:
    """A trained model, ready to be shown images under conditions."""

    def __init__(
        self, job: ResolvedJob, plan: EvaluationPlan, model: nn.Module, parts: Assembly, classes: Sequence[str]
    ) -> None:
        self.job, self.plan, self.parts, self.classes = job, plan, parts, classes
        self.accelerator = parts.accelerator
        self.cycles = Cycles(cycles_of(job, model, len(classes)), axis=cycle_axis(model))
        self.kind = AnswerKind.of(plan.probabilities, len(classes), self.cycles.count)
        store_weights(job, model, self.accelerator.device)
        # Not wrapped: ranks have different numbers of forward passes.
        placement = moves_model(self.accelerator)
        self.model = self.accelerator.prepare_model(model, device_placement=placement, evaluation_mode=True).eval()
        # Normalized after the crop is degraded, whatever does that.
        self.views = evaluation_views(job, on_device=True)

    def batch_size(self, source: ImageDataset) -> int:
        """As the validation on one process has it, so that its answers come from the same forward passes."""
        return self.plan.batch_size or evaluation_set(self.job, source, self.views, 1).images_per_batch

    def identity(self, source: ImageDataset, weights: Path, conditions: Conditions) -> dict[str, Any]:
        """What decides the numbers, so that others are not taken for them."""
        return {
            **self.plan.measured(),
            "batch_size": self.batch_size(source),
            "weights_sha256": file_digest(weights),
            "images_sha256": images_digest(source, image_names(source)),
            "cycles": self.cycles.count,
            "conditions": [shown.name for shown in conditions.shown],
        }

    def into(
        self,
        folder: EvaluationFolder,
        place: RunFolder,
        source: ImageDataset,
        conditions: Conditions,
        describe: Callable[[], EvaluationRecord],
        on_progress: Progress,
        is_stopped: Callable[[], bool],
    ) -> Measured:
        """Measure what is not yet there. Raises as `run_plan`."""
        accelerator, names = self.accelerator, image_names(source)
        files = AnswerFiles(folder.unfinished, len(conditions.distinct), len(names), self.kind)
        by_first(accelerator, lambda: _prepare(folder, place, describe(), files))
        accelerator.wait_for_everyone()
        if (there := _there(folder)).complete:
            return Measured(folder, there, 0)
        before = files.states()
        reader = ImageReader(
            source, self.views, replace_corrupt=False, forbid_corrupt=self.job.corrupt_images == "forbid"
        )
        with files:
            try:
                is_whole = self._measure(files, place, reader, conditions, names, before, on_progress, is_stopped)
            finally:
                files.flush()
        num_whole = accelerator.reduce(torch.tensor([float(is_whole)], device=accelerator.device), reduction="sum")
        if num_whole.item() < accelerator.num_processes:
            raise EvaluationStopped
        states = files.states()
        corrupt = np.flatnonzero((states == CORRUPT).any(0)).tolist()
        accelerator.wait_for_everyone()  # who is first takes away what all have read
        draft = _there(folder)
        shows = Shows(draft.observer, [one_line(name) for name in names], source.labels, self.classes)
        whole = replace(draft, corrupt=[shows.names[index] for index in corrupt], complete=True)
        by_first(accelerator, lambda: _finish(folder, place, whole, files, conditions, shows))
        accelerator.wait_for_everyone()
        return Measured(folder, _there(folder), int(np.count_nonzero(before == TODO)))

    def _measure(
        self,
        files: AnswerFiles,
        place: RunFolder,
        reader: ImageReader,
        conditions: Conditions,
        names: Sequence[str],
        before: States,
        on_progress: Progress,
        is_stopped: Callable[[], bool],
    ) -> bool:
        """False where this process was stopped before its last batch."""
        plans = list(self._plans(reader.source, before))
        own, done = sum(len(plan.indices) * len(places) for plan, places in plans), 0
        total, todo = before.size, int(np.count_nonzero(before == TODO))
        shown = shown_batches(self.parts.loader, reader, plans, conditions.distinct, names)
        for batch in shown:
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

    def _plans(self, source: ImageDataset, states: States) -> Iterator[tuple[BatchPlan, Sequence[int]]]:
        """This process's batches, each with the conditions that are to be measured."""
        size, accelerator = self.batch_size(source), self.accelerator
        starts = range(0, len(source.labels), size)
        for start in starts[accelerator.process_index :: accelerator.num_processes]:
            indices = np.arange(start, min(start + size, len(source.labels)))
            places = np.flatnonzero((states[:, indices] == TODO).any(1)).tolist()
            if places:
                yield BatchPlan(0, 0, indices, indices), places

    def _answers(self, batch: ShownBatch) -> Records:
        images = in_memory_format(self.job, batch.inputs.on(self.accelerator.device))

        def look() -> Records:
            with torch.inference_mode(), self.accelerator.autocast():
                output = self.model(images)
            return self.kind.records(output, self.cycles)

        # The last bits of what a CPU computes depend on the number of cores, and that on the number of processes.
        return on_one_core(look) if images.device.type == "cpu" else look()


def _there(folder: EvaluationFolder) -> EvaluationRecord:
    if (record := read_evaluation(folder)) is None:
        raise UserError("is gone: somebody has removed it", where=folder.record)
    return record


def _prepare(folder: EvaluationFolder, place: RunFolder, own: EvaluationRecord, files: AnswerFiles) -> None:
    there = read_evaluation(folder)
    if there is not None:
        keys = sorted(there.measured.keys() | own.measured.keys())
        if differ := [key for key in keys if there.measured.get(key) != own.measured.get(key)]:
            raise UserError(
                f"{folder.path} has an evaluation of something else: other {', '.join(differ)}",
                hint="give another `name`, or remove it",
            )
        if there.complete:
            remove_tree(folder.unfinished)
            return
    with errors_named(folder.path):
        remove_stale_temp_files(folder.path)
        write_evaluation(folder, own, place)
    files.prepare()


def _finish(
    folder: EvaluationFolder,
    place: RunFolder,
    whole: EvaluationRecord,
    files: AnswerFiles,
    conditions: Conditions,
    shows: Shows,
) -> None:
    """All answers are there: the table, what is computed from it, and then evaluation.json, which says so."""
    digests = [sha256(files.digests(number).tobytes()).hexdigest() for number in range(len(conditions.distinct))]
    of_each = {shown.name: digests[shown.pixels] for shown in conditions.shown}
    of_all = sha256("\n".join(f"{name} {digest}" for name, digest in of_each.items()).encode()).hexdigest()
    with errors_named(folder.path):
        place.check_owner()
        are_numbers = write_trials(folder.trials, files, conditions.shown, shows)
        has_probabilities = files.kind.num_probabilities > 0
        write_summary(folder.summary, folder.trials, with_calibration=has_probabilities and are_numbers)
        draw_condition_curves(folder, 1 / len(shows.classes))
        write_evaluation(folder, replace(whole, degraded_sha256=of_all, conditions=of_each), place)
        remove_tree(folder.unfinished)
