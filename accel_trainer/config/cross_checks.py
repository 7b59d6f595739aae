"""Contradictions in a job that its parameters, each by itself, do not show. Nothing here needs torch."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from accel_trainer.config.derived import MARKS, Parameters
from accel_trainer.config.fields import (
    LEARNING_RATE_WORDS,
    TRANSFORM_BASES,
    TRANSFORM_MODIFIERS,
    TRANSFORM_POLICIES,
    eval_split,
    transform_words,
)
from accel_trainer.config.marks import PathKind

# What a run folder has of its own, where no fine-tuned run may lie.
RUN_FOLDERS = ("params", "resume", "logs", "previous")
# Of a path and of each of its parts, on nearly all file systems.
MAX_PATH_BYTES, MAX_PART_BYTES = 4000, 255
# Rows of performance.csv that are of averages of the weights.
AVERAGES = ("val_ema", "val_swa")

PATHS = {key: mark.path for key, mark in MARKS.items() if mark.path is not None}


def cross_check(job: Parameters) -> list[str]:
    """A line `key: what is wrong` for each."""
    return [
        *_path_problems(job),
        *_data_problems(job),
        *_view_problems(job),
        *_optimization_problems(job),
        *_finetune_problems(job),
        *_order_problems(job),
    ]


def _has_home(path: str) -> bool:
    try:
        Path(path).expanduser()
    except RuntimeError:
        return False
    return True


def _num_bytes(path: str) -> int:
    return len(os.fsencode(path))


def _paths(job: Parameters) -> Iterator[tuple[str, PathKind, str]]:
    """(key, kind, path) of every path in a job."""
    for key, kind in PATHS.items():
        value: Any = job
        for name in key.split("."):
            value = getattr(value, name, None)
        if value is not None:
            yield from ((key, kind, path) for path in (value if isinstance(value, list) else [value]))


def _path_problems(job: Parameters) -> list[str]:
    problems = []
    for key, kind, given in _paths(job):
        is_dataset = kind is PathKind.DATASET
        value = given.removeprefix("hf:") if is_dataset else given
        parts = PurePath(value).parts
        if not given:
            problems.append(f"{key}: may not be empty")
        elif not value:
            problems.append(f"{key}: 'hf:' needs a hub id or a path behind it")
        elif any(not character.isprintable() for character in value):
            problems.append(f"{key}: {given!r} may not contain control characters")
        elif _num_bytes(value) > MAX_PATH_BYTES or any(_num_bytes(part) > MAX_PART_BYTES for part in parts):
            problems.append(f"{key}: {given[:40]!r}... is too long to be a path")
        elif value.startswith("~") and not _has_home(value):
            problems.append(f"{key}: {given!r}: there is no such user")
        elif ".." in parts and kind is not PathKind.CONFIG:
            problems.append(f"{key}: {given!r} may not contain '..'")
        elif is_dataset and value == given and PurePath(value).is_absolute():
            problems.append(
                f"{key}: {given!r} is an absolute path; name a folder below data_root and set "
                f"data_root to {str(PurePath(value).parent)!r}"
            )
    return problems


def _data_problems(job: Parameters) -> list[str]:
    problems = []
    if job.class_subset is not None and len(set(job.class_subset)) < len(job.class_subset):
        problems.append(f"class_subset: {job.class_subset} names a class twice")
    problems += _eval_set_problems(job)
    problems += _transform_problems(job)
    if not any(name.startswith("hf:") for name in (job.dataset, *job.eval_sets)):
        problems += [
            f"{key}: only an 'hf:' data set has columns"
            for key in ("image_column", "label_column")
            if getattr(job, key) is not None
        ]
    return problems


def _eval_set_problems(job: Parameters) -> list[str]:
    """Each needs a name of its own in performance.csv."""
    problems, names, counts = [], dict[str, str](), Counter(job.eval_sets)
    for name in job.eval_sets:
        other = names.setdefault(split := eval_split(name), name)
        if split in AVERAGES:
            problems.append(f"eval_sets: {name!r} would be {split}, as an average of the weights is; rename it")
        elif counts[name] > 1:
            problems.append(f"eval_sets: {name!r} is given twice")
        elif other != name:
            problems.append(f"eval_sets: {other!r} and {name!r} would both be {split}; rename one of them")
    return list(dict.fromkeys(problems))


def _transform_problems(job: Parameters) -> list[str]:
    base, *words = transform_words(job.transform_type)
    policies = [word for word in words if word in TRANSFORM_POLICIES]
    given = f"transform_type: {job.transform_type!r}"
    if base not in TRANSFORM_BASES:
        return [
            f"{given} is not known; it is one of {', '.join(TRANSFORM_BASES)}, with any of "
            f"{', '.join((*TRANSFORM_MODIFIERS, *TRANSFORM_POLICIES))} joined by '-'"
        ]
    if base == "none" and len(words) > len(policies):
        return [f"{given}: 'none' has neither a random crop nor a blur that could be changed"]
    if len(policies) > 1:
        return [f"{given}: use one of {' and '.join(policies)}"]
    return []


def _view_problems(job: Parameters) -> list[str]:
    problems, views = [], job.views_per_image
    if isinstance(job.batch_size, int) and job.batch_size % job.num_views:
        below = job.batch_size // job.num_views * job.num_views
        near = f"{below} or {below + job.num_views}" if below else str(job.num_views)
        problems.append(f"batch_size: {job.batch_size} images cannot be {job.num_views} views each; use {near}")
    if job.video and views < 2:
        problems.append("num_views: a video has 2 or more frames")
    if job.video and job.num_views not in (1, views):
        problems.append(f"num_views: {job.num_views}, but Blur has {views} sigmas, one for each frame; remove it")
    if job.Occlusion is not None and (beyond := [v for v in job.Occlusion.views or [] if v >= views]):
        problems.append(f"Occlusion.views: no view {beyond[0]}; there are {views}, from 0")
    if job.Blur is not None and not job.video and job.Blur.shares_exceed_one:
        total = sum(job.Blur.probs)
        problems.append(f"Blur: has probs that add up to {total:g}: each is how often that sigma is drawn")
    if job.is_contrastive:
        if job.video:
            problems.append(f"video: {job.criterion} compares views of an image, and frames are one clip; remove it")
        problems += [
            f"{key}: mixes labels, and {job.criterion} has none"
            for key in ("cutmix", "mixup")
            if getattr(job, key) is not None
        ]
    return problems


def _optimization_problems(job: Parameters) -> list[str]:
    problems = []
    if job.is_contrastive and job.num_views < 2:
        problems.append(f"num_views: {job.criterion} compares views of an image: it needs 2 or more")
    if job.primary_metric not in job.metrics:
        problems.append(
            f"primary_metric: {job.primary_metric!r} is not measured with {job.criterion}; "
            f"it is one of {', '.join(job.metrics)}"
        )
    if job.warmup_scheduler_args and job.warmup_scheduler is None:
        problems.append("warmup_scheduler_args: given, but there is no warmup_scheduler")
    if job.swa is not None and job.swa.start > job.num_epochs:
        problems.append(f"swa.start: {job.swa.start} is after the last epoch ({job.num_epochs})")
    lr = job.optimizer_args.get("lr")
    if isinstance(lr, str) and lr not in LEARNING_RATE_WORDS:
        problems.append(
            f"optimizer_args.lr: {lr!r} is not allowed; it is a number or one of {', '.join(LEARNING_RATE_WORDS)}"
        )
    return problems


def _finetune_problems(job: Parameters) -> list[str]:
    problems = []
    if job.finetune_args is not None and not job.finetune:
        problems.append("finetune_args: given, but finetune is false")
    if job.finetuning is None:
        return problems
    if job.pretrained is not None:
        problems.append(
            "pretrained: with finetune the weights are those of finetune_args.starting_params; remove one of them"
        )
    is_parent = job.finetuning.starting_params is None
    if is_parent and not job.may_start_later and not (job.base_path / "params").is_dir():
        problems.append(
            "finetune: nothing to start from: give finetune_args.starting_params, or a model_dir that "
            f"holds a trained run (there is none in {job.base_path})"
        )
    given = job.finetuning.finetune_dir
    folder = PurePath(given)
    if not given or ".." in folder.parts:
        pass  # refused as a path
    elif not folder.parts or folder.is_absolute() or any(part[0] in ".~" for part in folder.parts):
        problems.append(
            f"finetune_args.finetune_dir: {given!r} is no folder inside model_dir; give a plain name such as 'finetune'"
        )
    elif folder.parts[0] in RUN_FOLDERS:
        problems.append(
            f"finetune_args.finetune_dir: {given!r}: the parent run has its own {folder.parts[0]}/; choose another name"
        )
    return problems


def _order_problems(job: Parameters) -> list[str]:
    """Whether the jobs that must be done first can be such."""
    problems = []
    for name in job.after:
        if name == job.name:
            problems.append("after: names the job itself")
        elif not name or "/" in name:
            problems.append(f"after: {name!r} is not the name of a job")
        elif name.endswith(".json"):
            problems.append(f"after: {name!r}: the name of a job is that of its file without .json")
    if job.parent_job == job.name:
        problems.append("finetune_args.starting_params: names the job itself")
    return problems
