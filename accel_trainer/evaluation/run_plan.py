"""A plan carried out: the trials of a trained model under each condition, in a folder of the run."""

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel_trainer.config import ResolvedJob
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.disk_calls import never
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import remove_tree
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.core.text import listed
from accel_trainer.data.open import open_validation
from accel_trainer.evaluation.answer_files import AnswerFiles, States, errors_named
from accel_trainer.evaluation.by_first import by_first
from accel_trainer.evaluation.conditions import Conditions, conditions_of
from accel_trainer.evaluation.identity import file_digest, image_names, images_digest
from accel_trainer.evaluation.owned_folder import make_way, owned_folder, prepare, set_aside
from accel_trainer.evaluation.rows_on_disk import CORRUPT, TODO
from accel_trainer.evaluation.showing import Progress, Showing
from accel_trainer.evaluation.trained_model import epoch_of, trained_model, with_data_in
from accel_trainer.evaluation.trial_table import Shows, write_summary, write_trials
from accel_trainer.report.condition_curves import draw_condition_curves
from accel_trainer.run.evaluations import EvaluationFolder, EvaluationRecord, read_evaluation, write_evaluation
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of, needs_all_classes, trained_classes, trained_job, trained_weights
from accel_trainer.run.records import read_environment
from accel_trainer.training.runtime.accelerator import Assembly, assembly

log = logging.getLogger(__name__)
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
    replaces: bool = False,
    on_progress: Progress = nobody_listens,
    is_stopped: Callable[[], bool] = never,
) -> Measured:
    """Measure what a plan says, into `evaluations/<name>/` of a run; what an earlier call, ended anywhere, has left
    there is gone on with, and what is complete is only given back.

    owned: that folder as its owner writes it; by default it is locked here. parts: what this process computes with, if
    it does so for the run already. replaces: what the folder has of something else, such as older weights, is set
    aside. on_progress: called after each batch with how many images under a condition are measured, if the other
    processes are as far as this one, and how many there are in all. is_stopped: looked at between two batches; when
    any process is stopped, all are. Every process of a launch calls it and gets the same answer. Raises UserError, also
    while another process writes that folder or where it has something else; EvaluationStopped; LockLost.
    """
    job = trained_job(run)
    refuse_embeddings(job, run)
    path, classes = trained_weights(run, job, plan.weights), trained_classes(run)
    dataset = plan.dataset or job.dataset
    is_own, needs_all = dataset == job.dataset, needs_all_classes(run, job, dataset)
    there = with_data_in(job, None if plan.data_root is None else Path(plan.data_root))
    conditions = conditions_of(plan, dataset, classes)
    folder = EvaluationFolder(run.evaluations / plan.folder_name)
    with _computing(job, run, parts) as parts:
        sources = conditions.stored or [open_validation(there, dataset, classes, needs_all=needs_all)]
        shown_by = there if is_own else job
        if conditions.stored:  # as they were cropped when they were made
            shown_by = job.model_copy(update={"eval_crop": 1.0})
        model = trained_model(job, path, len(classes))
        showing = Showing(shown_by, plan, model, parts, conditions, sources, len(classes))

        @cache
        def describe() -> EvaluationRecord:
            return EvaluationRecord(
                plan=plan.model_dump(mode="json"),
                measured=_identity(showing, path),
                observer=observer_of(run, plan.weights),
                architecture=job.architecture,
                dataset=plan.degraded_set or dataset,
                epoch=epoch_of(path),
                images=len(sources[0].labels),
                versions=versions(),
            )

        with owned_folder(folder.path, owned, parts.accelerator) as place:
            if replaces:
                by_first(parts.accelerator, lambda: make_way(folder, describe()))
            return _measured(showing, classes, folder, place, describe, on_progress, is_stopped)


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


def _identity(showing: Showing, weights: Path) -> dict[str, Any]:
    """What decides the numbers, so that others are not taken for them."""
    images = [images_digest(source, image_names(source)) for source in showing.sources]
    return {
        **showing.plan.measured(),
        "degraded_set": None,  # its images are known by their digest, wherever they are
        "batch_size": showing.batch_size,
        "preprocessing": _preprocessing(showing.job),
        "weights_sha256": file_digest(weights),
        "images_sha256": images[0] if len(images) == 1 else sha256("\n".join(images).encode()).hexdigest(),
        "cycles": showing.cycles.count,
        "conditions": [shown.name for shown in showing.conditions.shown],
    }


def _preprocessing(job: ResolvedJob) -> dict[str, Any]:
    """`eval_resize` only where it is not as it was when there was no choice: evaluations of then can go on."""
    names = {"image_size", "eval_crop", "mean", "std"}
    default = type(job).model_fields["eval_resize"].default
    return job.model_dump(mode="json", include=names | ({"eval_resize"} if job.eval_resize != default else set()))


def _measured(
    showing: Showing,
    classes: Sequence[str],
    folder: EvaluationFolder,
    place: RunFolder,
    describe: Callable[[], EvaluationRecord],
    on_progress: Progress,
    is_stopped: Callable[[], bool],
) -> Measured:
    """Measure what is not yet there. Raises as `run_plan`."""
    accelerator, conditions = showing.accelerator, showing.conditions
    files = AnswerFiles(folder.unfinished, len(conditions.distinct), len(showing.sources[0].labels), showing.kind)
    by_first(accelerator, lambda: prepare(folder, place, describe(), files))
    accelerator.wait_for_everyone()
    if (there := _there(folder)).complete:
        return Measured(folder, there, 0)
    before = files.states()
    with files:
        try:
            is_whole = showing.measure(files, place, before, on_progress, is_stopped)
        finally:
            files.flush()
    num_whole = accelerator.reduce(torch.tensor([float(is_whole)], device=accelerator.device), reduction="sum")
    if num_whole.item() < accelerator.num_processes:
        raise EvaluationStopped
    states = files.states()
    accelerator.wait_for_everyone()  # who is first takes away what all have read
    draft = _there(folder)
    shows = Shows(draft.observer, showing.sources, classes)
    whole = replace(draft, corrupt=_corrupt(states, conditions, shows), complete=True)
    by_first(accelerator, lambda: _finish(folder, place, whole, files, conditions, shows))
    accelerator.wait_for_everyone()
    return Measured(folder, _there(folder), int(np.count_nonzero(before == TODO)))


def _there(folder: EvaluationFolder) -> EvaluationRecord:
    if (record := read_evaluation(folder)) is None:
        raise UserError("is gone: somebody has removed it", where=folder.record)
    return record


def _corrupt(states: States, conditions: Conditions, shows: Shows) -> list[str]:
    """The names of the images that cannot be read; of a set on disk with their condition."""
    if len(shows.sources) == 1:
        names = shows.names(0)
        return [names[index] for index in np.flatnonzero((states == CORRUPT).any(0)).tolist()]
    found = list[str]()
    for shown in conditions.shown:
        if len(there := np.flatnonzero(states[shown.pixels] == CORRUPT)):
            names = shows.names(shown.pixels)
            found += [f"{shown.name}/{names[index]}" for index in there.tolist()]
    return found


def _finish(
    folder: EvaluationFolder,
    place: RunFolder,
    whole: EvaluationRecord,
    files: AnswerFiles,
    conditions: Conditions,
    shows: Shows,
) -> None:
    """All answers are there: the table, what is computed from it, and then evaluation.json, which says so. Raises
    UserError where no image could be decoded; nothing is left then that would be gone on with."""
    if (files.states() == CORRUPT).all():
        set_aside(folder, replace(whole, complete=False))
        raise UserError(f"no image of {whole.dataset} can be decoded: {listed(whole.corrupt, 3)}")
    digests = [sha256(files.digests(number).tobytes()).hexdigest() for number in range(len(conditions.distinct))]
    of_each = {shown.name: digests[shown.pixels] for shown in conditions.shown}
    of_all = sha256("\n".join(f"{name} {digest}" for name, digest in sorted(of_each.items())).encode()).hexdigest()
    with errors_named(folder.path):
        place.check_owner()
        are_numbers = write_trials(folder.trials, files, conditions.shown, shows)
        has_probabilities = files.kind.num_probabilities > 0
        write_summary(folder.summary, folder.trials, with_calibration=has_probabilities and are_numbers)
        draw_condition_curves(folder, 1 / len(shows.classes))
        write_evaluation(folder, replace(whole, degraded_sha256=of_all, conditions=of_each), place)
        remove_tree(folder.unfinished)
