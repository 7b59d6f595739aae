"""Contradictions in a job that its parameters, each by itself, do not show. Nothing here needs torch."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from accel_trainer.config.dataset_names import HF, is_hugging_face, place_of
from accel_trainer.config.derived import MARKS, JobParameters
from accel_trainer.config.fields import (
    LR_RULES,
    TRANSFORM_BASES,
    TRANSFORM_MODIFIERS,
    TRANSFORM_POLICIES,
    eval_split,
    transform_parts,
)
from accel_trainer.config.marks import PathKind
from accel_trainer.config.migration.old_words import ARCHITECTURES, MIGRATE
from accel_trainer.config.renamed import WITH_GRID, renamed_arguments
from accel_trainer.core.errors import Problem

# What a run folder has of its own, where no fine-tuned run may lie.
RUN_FOLDERS = ("params", "resume", "logs", "previous")
# Of a path and of each of its parts, on nearly all file systems.
MAX_PATH_BYTES, MAX_PART_BYTES = 4000, 255
# Rows of performance.csv that are of averages of the weights.
AVERAGES = ("val_ema", "val_swa")

PATHS = {key: mark.path for key, mark in MARKS.items() if mark.path is not None}


class Contradiction(ValueError):
    """Parameters of a job contradict each other. A ValueError, as pydantic takes no other from a validator."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def cross_check(job: JobParameters) -> list[Problem]:
    """What contradicts itself in a job, with the key that is to be changed."""
    return [problem for check in CROSS_CHECKS for problem in check(job)]


def _has_home(path: str) -> bool:
    try:
        Path(path).expanduser()
    except RuntimeError:
        return False
    return True


def _num_bytes(path: str) -> int:
    return len(os.fsencode(path))


def _paths(job: JobParameters) -> Iterator[tuple[str, PathKind, str]]:
    """(key, kind, path) of every path in a job."""
    for key, kind in PATHS.items():
        value: Any = job
        for name in key.split("."):
            value = getattr(value, name, None)
        if value is not None:
            yield from ((key, kind, path) for path in (value if isinstance(value, list) else [value]))


def _path_problems(job: JobParameters) -> list[Problem]:
    problems = []
    for key, kind, given in _paths(job):
        is_dataset = kind is PathKind.DATASET
        value = place_of(given) if is_dataset else given
        parts = PurePath(value).parts
        if not given:
            problems.append(Problem("may not be empty", key=key))
        elif not value:
            problems.append(Problem(f"{HF!r} needs a hub id or a path behind it", key=key))
        elif any(not character.isprintable() for character in value):
            problems.append(Problem(f"{given!r} may not contain control characters", key=key))
        elif _num_bytes(value) > MAX_PATH_BYTES or any(_num_bytes(part) > MAX_PART_BYTES for part in parts):
            problems.append(Problem(f"{given[:40]!r}... is too long to be a path", key=key))
        elif value.startswith("~") and not (_has_home(value) or (key == "data_root" and parts[:1] == ("~",))):
            problems.append(Problem(f"{given!r}: there is no such user", key=key))
        elif ".." in parts and kind is not PathKind.CONFIG:
            problems.append(Problem(f"{given!r} may not contain '..'", key=key))
        elif is_dataset and value == given and PurePath(value).is_absolute():
            hint = f"name a folder below data_root and set data_root to {str(PurePath(value).parent)!r}"
            problems.append(Problem(f"{given!r} is an absolute path", key=key, hint=hint))
    return problems


def _renamed_problems(job: JobParameters) -> list[Problem]:
    """Old names of arguments, which mean the same as before, unless a job of other code names them."""
    renamed = renamed_arguments(job.architecture, job.architecture_args)
    other = f"; or name {WITH_GRID} if it is the side of a pooling grid" if job.architecture == "cornet_s" else ""
    return [
        Problem(
            f"{job.architecture} calls this {new} now",
            key=f"architecture_args.{old}",
            hint=f"rename it to {new}{other}",
        )
        for old, new in renamed.items()
    ]


def _data_problems(job: JobParameters) -> list[Problem]:
    problems = []
    if job.class_subset is not None and len(set(job.class_subset)) < len(job.class_subset):
        problems.append(Problem(f"{job.class_subset} names a class twice", key="class_subset"))
    problems += _eval_set_problems(job)
    problems += _transform_problems(job)
    erased = job.randomerase if isinstance(job.randomerase, list) else [job.randomerase]
    if job.rules < 2 and any(isinstance(value, float) and not 0 <= value <= 1 for value in erased):
        message = f"{job.randomerase} is no brightness from 0 to 1, as the value was by rules {job.rules}"
        problems.append(Problem(message, key="randomerase"))
    if not any(map(is_hugging_face, (job.dataset, *job.eval_sets))):
        problems += [
            Problem(f"only an {HF!r} data set has columns", key=key)
            for key in ("image_column", "label_column")
            if getattr(job, key) is not None
        ]
    return problems


def _eval_set_problems(job: JobParameters) -> list[Problem]:
    """Each needs a name of its own in performance.csv."""
    problems, names, counts = [], dict[str, str](), Counter(job.eval_sets)
    for name in job.eval_sets:
        other = names.setdefault(split := eval_split(name), name)
        if split in AVERAGES:
            message = f"{name!r} would be {split}, as an average of the weights is"
            problems.append(Problem(message, key="eval_sets", hint="rename it"))
        elif counts[name] > 1:
            problems.append(Problem(f"{name!r} is given twice", key="eval_sets"))
        elif other != name:
            message = f"{other!r} and {name!r} would both be {split}"
            problems.append(Problem(message, key="eval_sets", hint="rename one of them"))
    return list(dict.fromkeys(problems))


def _transform_problems(job: JobParameters) -> list[Problem]:
    base, *modifiers = transform_parts(job.transform_type)
    policies = [modifier for modifier in modifiers if modifier in TRANSFORM_POLICIES]
    given, hint = repr(job.transform_type), None
    if base not in TRANSFORM_BASES:
        message = f"{given} is not known"
        hint = (
            f"it is one of {', '.join(TRANSFORM_BASES)}, with any of "
            f"{', '.join((*TRANSFORM_MODIFIERS, *TRANSFORM_POLICIES))} joined by '-'"
        )
    elif base == "none" and len(modifiers) > len(policies):
        message = f"{given}: 'none' has neither a random crop nor a blur that could be changed"
    elif len(policies) > 1:
        message = f"{given}: use one of {' and '.join(policies)}"
    else:
        return []
    return [Problem(message, key="transform_type", hint=hint)]


def _view_problems(job: JobParameters) -> list[Problem]:
    problems, views = [], job.views_per_image
    if isinstance(job.batch_size, int) and job.batch_size % job.num_views:
        below = job.batch_size // job.num_views * job.num_views
        near = f"{below} or {below + job.num_views}" if below else str(job.num_views)
        message = f"{job.batch_size} images cannot be {job.num_views} views each"
        problems.append(Problem(message, key="batch_size", hint=f"use {near}"))
    if job.video and views < 2:
        problems.append(Problem("a video has 2 or more frames", key="num_views"))
    if job.video and job.num_views not in (1, views):
        message = f"{job.num_views}, but Blur has {views} sigmas, one for each frame"
        problems.append(Problem(message, key="num_views", hint="remove it"))
    if job.Occlusion is not None and (beyond := [v for v in job.Occlusion.views or [] if v >= views]):
        problems.append(Problem(f"no view {beyond[0]}", key="Occlusion.views", hint=f"there are {views}, from 0"))
    if job.Blur is not None and not job.video and job.Blur.probs_exceed_one:
        total = sum(job.Blur.probs)
        message = f"has probs that add up to {total:g}: each is how often that sigma is drawn"
        problems.append(Problem(message, key="Blur"))
    if job.is_contrastive:
        if job.video:
            message = f"{job.criterion} compares views of an image, and frames are one clip"
            problems.append(Problem(message, key="video", hint="remove it"))
        problems += [
            Problem(f"mixes labels, and {job.criterion} has none", key=key)
            for key in ("cutmix", "mixup")
            if getattr(job, key) is not None
        ]
    return problems


def _metric_problems(job: JobParameters) -> list[Problem]:
    problems = []
    if job.is_contrastive and job.num_views < 2:
        message = f"{job.criterion} compares views of an image: it needs 2 or more"
        problems.append(Problem(message, key="num_views"))
    per_pass = job.num_views * job.gradient_accumulation
    if job.is_contrastive and isinstance(job.batch_size, int) and job.batch_size < 2 * per_pass:
        times = f", {job.gradient_accumulation} times for each step" if job.gradient_accumulation > 1 else ""
        fewer = f"{job.batch_size} is fewer than two of them in {job.num_views} views{times}"
        message = f"{job.criterion} compares images: {fewer}"
        problems.append(Problem(message, key="batch_size", hint=f"use {2 * per_pass} or more"))
    if job.primary_metric not in job.metrics:
        message = f"{job.primary_metric!r} is not measured with {job.criterion}"
        problems.append(Problem(message, key="primary_metric", hint=f"it is one of {', '.join(job.metrics)}"))
    return problems


def _optimization_problems(job: JobParameters) -> list[Problem]:
    problems = []
    if job.warmup_scheduler_args and job.warmup_scheduler is None:
        problems.append(Problem("given, but there is no warmup_scheduler", key="warmup_scheduler_args"))
    if job.schedule_by == "step" and job.scheduler == "ReduceLROnPlateau":
        message = "ReduceLROnPlateau looks at the metric of a validation, and there is one after each epoch only"
        problems.append(Problem(message, key="schedule_by", hint="remove it, or use another scheduler"))
    if job.swa is not None and job.swa.start > job.num_epochs:
        message = f"{job.swa.start} is after the last epoch ({job.num_epochs})"
        problems.append(Problem(message, key="swa.start"))
    return problems


def _rate_problems(job: JobParameters) -> list[Problem]:
    problems = []
    lr = job.optimizer_args.get("lr")
    if isinstance(lr, str) and lr not in LR_RULES:
        hint = f"it is a number or one of {', '.join(LR_RULES)}"
        problems.append(Problem(f"{lr!r} is not allowed", key="optimizer_args.lr", hint=hint))
    return problems


def _finetune_problems(job: JobParameters) -> list[Problem]:
    problems = []
    if job.finetune_args is not None and not job.finetune:
        problems.append(Problem("given, but finetune is false", key="finetune_args"))
    if job.finetuning is None:
        return problems
    if job.pretrained is not None:
        message = "with finetune the weights are those of finetune_args.starting_params"
        problems.append(Problem(message, key="pretrained", hint="remove one of them"))
    is_parent = job.finetuning.starting_params is None
    if is_parent and not job.may_start_later and not (job.base_path / "params").is_dir():
        message = (
            "nothing to start from: give finetune_args.starting_params, or a model_dir that holds a trained run "
            f"(there is none in {job.base_path})"
        )
        problems.append(Problem(message, key="finetune"))
    given = job.finetuning.finetune_dir
    folder = job.finetune_folder
    if not given or ".." in folder.parts:
        pass  # refused as a path
    elif not folder.parts or folder.is_absolute() or any(part[0] in ".~" for part in folder.parts):
        message, hint = f"{given!r} is no folder inside model_dir", "give a plain name such as 'finetune'"
        problems.append(Problem(message, key="finetune_args.finetune_dir", hint=hint))
    elif folder.parts[0] in RUN_FOLDERS:
        message = f"{given!r}: the parent run has its own {folder.parts[0]}/"
        problems.append(Problem(message, key="finetune_args.finetune_dir", hint="choose another name"))
    return problems


def _order_problems(job: JobParameters) -> list[Problem]:
    """Whether the jobs that must be done first can be such."""
    problems = []
    for name in job.after:
        if name == job.name:
            problems.append(Problem("names the job itself", key="after"))
        elif not name or "/" in name:
            problems.append(Problem(f"{name!r} is not the name of a job", key="after"))
        elif name.endswith(".json"):
            message = f"{name!r}: the name of a job is that of its file without .json"
            problems.append(Problem(message, key="after"))
    if job.parent_job == job.name:
        problems.append(Problem("names the job itself", key="finetune_args.starting_params"))
    return problems


def _name_problems(job: JobParameters) -> list[Problem]:
    """Names that older files have."""
    if (today := ARCHITECTURES.get(job.architecture.lower())) is None:
        return []
    message = f"{job.architecture!r} is a name of older files; it is {today!r} today"
    return [Problem(message, key="architecture", hint=f"{MIGRATE} writes today's job")]


CROSS_CHECKS = (
    _name_problems,
    _renamed_problems,
    _path_problems,
    _data_problems,
    _view_problems,
    _metric_problems,
    _optimization_problems,
    _rate_problems,
    _finetune_problems,
    _order_problems,
)
"""Each looks at some parameters, and finds what contradicts itself among them."""
