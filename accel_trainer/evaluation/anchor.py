"""Weights that were not trained here as a run folder, which every verb reads as it reads those of trainings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from accel_trainer.config import Job
from accel_trainer.config.places import default_path
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import remove_tree, sync_folder
from accel_trainer.core.lease import Owner
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.data.open import validation_classes
from accel_trainer.data.pipeline import validation_crop
from accel_trainer.evaluation.identity import file_digest
from accel_trainer.evaluation.logit_classes import LogitClasses, logit_classes
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import is_anchor
from accel_trainer.run.records import read_classes, read_config, write_classes, write_config
from accel_trainer.run.status import RunState, Status, write_status
from accel_trainer.training.meta_model import count_parameters, make_model, meta_model
from accel_trainer.training.pretrained.preprocessing import Preprocessing, preprocessing_of, published_as
from accel_trainer.training.pretrained.starting_weights import (
    load_starting_weights,
    planned_transfer,
    weights_source,
)
from accel_trainer.training.pretrained.transfer import Transfer
from accel_trainer.training.runtime.environment import record_attempt
from accel_trainer.training.state.checkpoint import save_weights

# What decides how weights are evaluated; all other parameters of a job say how some are trained.
MAY_BE_SET = frozenset(
    {
        "architecture_args", "image_column", "label_column", "image_size", "eval_crop", "eval_resize", "mean", "std",
        "video", "batch_size", "channels_last", "amp", "mixed_precision", "tf32", "fast_kernels", "deterministic",
        "compile", "criterion", "criterion_args", "loss_cycle", "corrupt_images", "num_workers",
    }
)  # fmt: skip
# Files that are called alike whatever is in them: their folder says more.
COMMON_NAMES = frozenset({"best", "model", "pytorch_model", "weights", "checkpoint", "state_dict"})


@dataclass(frozen=True)
class Request:
    """Which weights are to be evaluated, and on what.

    pretrained: the name of published weights, or a file or folder, as in a job. settings: further parameters of a job,
    of `MAY_BE_SET`. classes: the names of all logits, where the data set's are not clear. out: the folder to write, by
    default `models/<architecture>/<architecture>-<weights>`.
    """

    architecture: str
    pretrained: str
    dataset: str
    data_root: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] | None = None
    out: Path | None = None

    def job(self, name: str = "anchor", **found: Any) -> Job:
        """What it is as a job, with what was found out of its weights. Raises UserError."""
        if unknown := [key for key in self.settings if key not in MAY_BE_SET]:
            near = did_you_mean(unknown[0], MAY_BE_SET)
            message = f"{unknown[0]} cannot be set for weights that are only evaluated{near}"
            raise UserError(message, hint=f"what can: {listed(sorted(MAY_BE_SET), len(MAY_BE_SET))}", option="set")
        asked = {key: value for key in ("dataset", "data_root") if (value := getattr(self, key)) is not None}
        # Others' accuracies were measured in full precision.
        given = {"trackers": [], "amp": False, **asked, **found, **self.settings}
        return Job(**{"architecture": self.architecture, "pretrained": self.pretrained, "name": name, **given})


@dataclass(frozen=True)
class Anchor:
    """A run folder of weights that were not trained here. notes: what was assumed of them, in a line each."""

    run: RunFolder
    notes: tuple[str, ...]


def make_anchor(request: Request) -> Anchor:
    """Write the folder, or find that it is there. Raises UserError for weights that do not fill the model, where it is
    not clear which logit is which class, and for a folder that has something else."""
    source = weights_source(request.job())
    published = source if isinstance(source, models.WeightsEnum) else published_as(request.architecture, source)
    file = source if isinstance(source, Path) else None
    preprocessing = preprocessing_of(request.architecture, published, file)
    found = {} if preprocessing is None else preprocessing.parameters(request.settings)
    said = published.name if published is not None else str(_absolute(file))
    out = request.out or default_path(request.architecture, _name(request.architecture, published, file))
    job = request.job(name=out.name, **found, pretrained=said)
    own = validation_classes(job, job.dataset)
    categories = () if published is None else published.meta["categories"]
    count = len(categories) or _count_of_logits(job, file, len(own))
    classes = logit_classes(count, own, job.dataset, categories, request.classes)
    model, transferred = _filled(job, count, request.pretrained)
    run = RunFolder(out)
    _write_or_compare(run, job, classes, model, transferred)
    return Anchor(run, (*_notes(transferred, classes), *_of_preprocessing(job, preprocessing, request.settings)))


def _absolute(file: Path | None) -> Path | None:
    return None if file is None else file.absolute()


def _name(architecture: str, published: models.WeightsEnum | None, file: Path | None) -> str:
    """resnet50-IMAGENET1K_V2; of a file its name, or that of its folder where files are always called so."""
    if published is not None:
        of_weights = published.name
    elif file is None:
        raise ValueError("neither published weights nor a file")
    else:
        folders = [folder.name for folder in file.absolute().parents if folder.name != "params"]
        of_weights = file.stem if file.stem not in COMMON_NAMES else folders[0]
    return f"{architecture.rpartition(':')[2]}-{of_weights.strip('.') or 'weights'}"


def _count_of_logits(job: Job, file: Path | None, expected: int) -> int:
    """How many logits the weights of a file are for, by the one tensor or two that would not fit otherwise."""
    if file is None:
        raise ValueError("published weights say themselves how many classes they have")
    model, _ = meta_model(job, expected, 2)
    any_share = job.model_copy(update={"min_loaded_fraction": 0.0})
    skipped = planned_transfer(any_share, model, file).skipped.values()
    sizes = {shapes.file[0] for shapes in skipped if shapes.file and shapes.model[:1] == (expected,)}
    return sizes.pop() if len(sizes) == 1 else expected


def _filled(job: Job, count: int, pretrained: str) -> tuple[nn.Module, Transfer]:
    """The model with all of its numbers from the weights. Raises UserError."""
    with torch.random.fork_rng(devices=[]):
        model = make_model(job, count)
    given = job.model_copy(update={"pretrained": pretrained, "min_loaded_fraction": 0.0})
    transferred = load_starting_weights(given, model)
    own = model.state_dict()
    # Counters of BatchNorm are left out of old files, and do not matter here.
    left = [name for name in (*transferred.skipped, *transferred.missing) if own[name].is_floating_point()]
    if left:
        message = f"{transferred.source} leaves {len(left)} of the model's tensors random: {listed(left, 4)}"
        hint = "what is evaluated needs all of them: is it another architecture, or one with other architecture_args?"
        raise UserError(message, key="pretrained", hint=hint)
    return model.eval(), transferred


# -- the folder ----------------------------------------------------------------------------------------------------


def _write_or_compare(run: RunFolder, job: Job, classes: LogitClasses, model: nn.Module, transferred: Transfer) -> None:
    """The folder appears whole. Raises UserError where there is another one."""
    _refuse_others(run, job, classes)
    aside = RunFolder(run.path.with_name(f".{run.path.name}.{Owner.new().token}.tmp"))
    try:
        aside.params.mkdir(parents=True)
        _fill(aside, job, classes, model, transferred)
        if run.has_run:
            if file_digest(run.best_weights) != file_digest(aside.best_weights):
                raise _another(run, "other weights")
        else:
            run.path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(aside.path, run.path)  # noqa: PTH104 - over an empty folder, if there is one
            sync_folder(run.path.parent)
    finally:
        remove_tree(aside.path)


def _fill(run: RunFolder, job: Job, classes: LogitClasses, model: nn.Module, transferred: Transfer) -> None:
    save_weights(run.best_weights, model.state_dict(), run=run, epoch="0", architecture=job.architecture)
    run.write(run.starting_params, transferred.as_json())
    write_classes(run, classes.names, range(len(classes.names)))
    record_attempt(
        run,
        job_name=job.name,
        device=torch.device("cpu"),
        num_processes=1,
        loader_threads=0,
        reads_encoded=False,
        parameters=count_parameters(model),
        changes={},
    )
    write_status(run, Status(state=RunState.PRETRAINED, primary_metric=job.primary_metric))
    write_config(run, {**job.completed(), "model_dir": str(job.base_path)})


def _refuse_others(run: RunFolder, job: Job, classes: LogitClasses) -> None:
    if not run.has_run:
        if run.path.exists() and any(run.path.iterdir()):
            raise UserError(f"{run.path} has something else in it", hint="give another folder with `out`")
        return
    if not is_anchor(run):
        raise _another(run, "a run that was trained")
    differences = job.incompatible_diff(read_config(run))
    if "dataset" in differences:
        then, _ = differences["dataset"]
        hint = f"`accel-train evaluate {run.path} --dataset {job.dataset}` evaluates it on that, too"
        raise UserError(f"{run.path} has these weights with the images of {then}", hint=hint)
    if differences:
        changed = "; ".join(f"{key} was {then!r}, is {now!r}" for key, (then, now) in differences.items())
        raise _another(run, f"weights evaluated otherwise ({changed})")
    if read_classes(run) != list(classes.names):
        raise _another(run, "the same for other classes")


def _another(run: RunFolder, what: str) -> UserError:
    return UserError(f"{run.path} has {what}", hint="give another folder with `out`")


# -- what is said --------------------------------------------------------------------------------------------------


def _notes(transferred: Transfer, classes: LogitClasses) -> list[str]:
    notes = [f"weights {transferred.source}: {transferred.parameters_loaded:,} parameters, all of the model's"]
    if transferred.unused:
        notes.append(f"in the file, but not in the model: {listed(transferred.unused, 4)}")
    if transferred.interpolated:
        notes.append(f"interpolated for another image size: {listed(transferred.interpolated, 4)}")
    return [*notes, f"classes: {classes.how}"]


def _of_preprocessing(job: Job, found: Preprocessing | None, settings: Mapping[str, Any]) -> list[str]:
    side = validation_crop(job).short_side
    numbers = f"{job.image_size} of {side} pixels, {job.eval_resize}, mean {_words(job.mean)}, std {_words(job.std)}"
    own = [key for key in ("image_size", "eval_crop", "eval_resize", "mean", "std") if key in settings]
    if found is None:
        return [f"preprocessing: {numbers}, as by default: nothing says how images were preprocessed for these weights"]
    others = f", but for {listed(own)}" if own else ""
    return [f"preprocessing: {numbers}, by {found.source}{others}"]


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
