"""Contradictions in a job that its parameters, each by itself, do not show. Nothing here needs torch."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from accel_trainer.config.dataset_names import HF, is_hugging_face
from accel_trainer.config.derived import JobParameters
from accel_trainer.config.fields import (
    LR_RULES,
    TRANSFORM_BASES,
    TRANSFORM_MODIFIERS,
    TRANSFORM_POLICIES,
    eval_split,
    transform_parts,
    transform_types,
)
from accel_trainer.config.migration.old_words import ARCHITECTURES, MIGRATE
from accel_trainer.config.path_checks import PATHS, path_problems
from accel_trainer.config.places import EVALUATIONS
from accel_trainer.config.renamed import WITH_GRID, renamed_arguments
from accel_trainer.core.errors import Problem
from accel_trainer.core.text import near_misses

# What a run folder has of its own, where no fine-tuned run may lie.
RUN_FOLDERS = ("params", "resume", "logs", "previous", EVALUATIONS)
# Rows of performance.csv that are of averages of the weights.
AVERAGES = ("val_ema", "val_swa")


class Contradiction(ValueError):
    """Parameters of a job contradict each other. A ValueError, as pydantic takes no other from a validator."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def cross_check(job: JobParameters) -> list[Problem]:
    """What contradicts itself in a job, with the key that is to be changed."""
    return [problem for check in CROSS_CHECKS for problem in check(job)]


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


def _class_problems(job: JobParameters) -> list[Problem]:
    if job.class_subset is not None and len(set(job.class_subset)) < len(job.class_subset):
        return [Problem(f"{job.class_subset} names a class twice", key="class_subset")]
    return []


def _erase_problems(job: JobParameters) -> list[Problem]:
    erased = job.randomerase if isinstance(job.randomerase, list) else [job.randomerase]
    if job.rules < 2 and any(isinstance(value, float) and not 0 <= value <= 1 for value in erased):
        message = f"{job.randomerase} is no brightness from 0 to 1, as the value was by rules {job.rules}"
        return [Problem(message, key="randomerase")]
    return []


def _column_problems(job: JobParameters) -> list[Problem]:
    if not any(map(is_hugging_face, (job.dataset, *job.eval_sets))):
        return [
            Problem(f"only an {HF!r} data set has columns", key=key)
            for key in ("image_column", "label_column")
            if getattr(job, key) is not None
        ]
    return []


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
        if near := near_misses(job.transform_type, transform_types())[:1]:
            hint += f"; did you mean {near[0]!r}?"
    elif base == "none" and len(modifiers) > len(policies):
        message = f"{given}: 'none' has neither a random crop nor a blur that could be changed"
    elif len(policies) > 1:
        message = f"{given}: use one of {' and '.join(policies)}"
    else:
        return []
    return [Problem(message, key="transform_type", hint=hint)]


def _batch_problems(job: JobParameters) -> list[Problem]:
    problems = []
    if isinstance(job.batch_size, int) and job.batch_size % job.num_views:
        below = job.batch_size // job.num_views * job.num_views
        near = f"{below} or {below + job.num_views}" if below else str(job.num_views)
        message = f"{job.batch_size} images cannot be {job.num_views} views each"
        problems.append(Problem(message, key="batch_size", hint=f"use {near}"))
    return problems


def _video_problems(job: JobParameters) -> list[Problem]:
    problems, views = [], job.views_per_image
    if job.video and views < 2:
        problems.append(Problem("a video has 2 or more frames", key="num_views"))
    if job.video and job.num_views not in (1, views):
        message = f"{job.num_views}, but Blur has {views} sigmas, one for each frame"
        problems.append(Problem(message, key="num_views", hint="remove it"))
    return problems


def _occluded_view_problems(job: JobParameters) -> list[Problem]:
    problems, views = [], job.views_per_image
    if job.Occlusion is not None and (beyond := [v for v in job.Occlusion.views or [] if v >= views]):
        problems.append(Problem(f"no view {beyond[0]}", key="Occlusion.views", hint=f"there are {views}, from 0"))
    return problems


def _blur_problems(job: JobParameters) -> list[Problem]:
    if job.Blur is not None and not job.video and job.Blur.probs_exceed_one:
        total = sum(job.Blur.probs)
        message = f"has probs that add up to {total:g}: each is how often that sigma is drawn"
        return [Problem(message, key="Blur")]
    return []


def _contrast_problems(job: JobParameters) -> list[Problem]:
    problems = []
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


def _single_view_problems(job: JobParameters) -> list[Problem]:
    if job.is_contrastive and job.num_views < 2:
        message = f"{job.criterion} compares views of an image: it needs 2 or more"
        return [Problem(message, key="num_views")]
    return []


def _compared_problems(job: JobParameters) -> list[Problem]:
    problems = []
    per_pass = job.num_views * job.gradient_accumulation
    if job.is_contrastive and isinstance(job.batch_size, int) and job.batch_size < 2 * per_pass:
        times = f", {job.gradient_accumulation} times for each step" if job.gradient_accumulation > 1 else ""
        fewer = f"{job.batch_size} is fewer than two of them in {job.num_views} views{times}"
        message = f"{job.criterion} compares images: {fewer}"
        problems.append(Problem(message, key="batch_size", hint=f"use {2 * per_pass} or more"))
    return problems


def _metric_problems(job: JobParameters) -> list[Problem]:
    if job.primary_metric not in job.metrics:
        message = f"{job.primary_metric!r} is not measured with {job.criterion}"
        return [Problem(message, key="primary_metric", hint=f"it is one of {', '.join(job.metrics)}")]
    return []


def _warmup_problems(job: JobParameters) -> list[Problem]:
    if job.warmup_scheduler_args and job.warmup_scheduler is None:
        return [Problem("given, but there is no warmup_scheduler", key="warmup_scheduler_args")]
    return []


def _unit_problems(job: JobParameters) -> list[Problem]:
    if job.schedule_by == "step" and job.scheduler == "ReduceLROnPlateau":
        message = "ReduceLROnPlateau looks at the metric of a validation, and there is one after each epoch only"
        return [Problem(message, key="schedule_by", hint="remove it, or use another scheduler")]
    return []


def _kernel_problems(job: JobParameters) -> list[Problem]:
    if job.deterministic and job.fast_kernels:
        message = "the fastest kernels may have other bits in another attempt, and deterministic refuses such"
        return [Problem(message, key="fast_kernels", hint="remove one of them")]
    return []


def _swa_problems(job: JobParameters) -> list[Problem]:
    if job.swa is not None and job.swa.start > job.num_epochs:
        message = f"{job.swa.start} is after the last epoch ({job.num_epochs})"
        return [Problem(message, key="swa.start")]
    return []


def _rate_problems(job: JobParameters) -> list[Problem]:
    problems = []
    lr = job.optimizer_args.get("lr")
    if isinstance(lr, str) and lr not in LR_RULES:
        hint = f"it is a number or one of {', '.join(LR_RULES)}"
        problems.append(Problem(f"{lr!r} is not allowed", key="optimizer_args.lr", hint=hint))
    return problems


def _unused_finetune_problems(job: JobParameters) -> list[Problem]:
    if job.finetune_args is not None and not job.finetune:
        return [Problem("given, but finetune is false", key="finetune_args")]
    return []


def _two_starts_problems(job: JobParameters) -> list[Problem]:
    if job.finetuning is not None and job.pretrained is not None:
        message = "with finetune the weights are those of finetune_args.starting_params"
        return [Problem(message, key="pretrained", hint="remove one of them")]
    return []


def _finetune_problems(job: JobParameters) -> list[Problem]:
    problems: list[Problem] = []
    if job.finetuning is None:
        return problems
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
    return after_problems(job.after, job.name)


def after_problems(after: Sequence[str], job_name: str) -> list[Problem]:
    """What is wrong with the names of the jobs that a job of this name waits for."""
    problems = []
    for name in after:
        if name == job_name:
            problems.append(Problem("names the job itself", key="after"))
        elif not name or "/" in name:
            problems.append(Problem(f"{name!r} is not the name of a job", key="after"))
        elif name.endswith(".json"):
            message = f"{name!r}: the name of a job is that of its file without .json"
            problems.append(Problem(message, key="after"))
    return problems


def _degradation_problems(job: JobParameters) -> list[Problem]:
    if job.degradations and job.is_contrastive:
        message = f"{job.criterion} trains embeddings, which answer with no class, whatever the images are"
        return [Problem(message, key="degradations", hint="leave them out")]
    if job.degradation_interval and not job.degradations:
        return [Problem("there are no `degradations` to measure", key="degradation_interval")]
    return []


def _parent_problems(job: JobParameters) -> list[Problem]:
    if job.parent_job == job.name:
        return [Problem("names the job itself", key="finetune_args.starting_params")]
    return []


def _name_problems(job: JobParameters) -> list[Problem]:
    """Names that older files have."""
    if (today := ARCHITECTURES.get(job.architecture.lower())) is None:
        return []
    message = f"{job.architecture!r} is a name of older files; it is {today!r} today"
    return [Problem(message, key="architecture", hint=f"{MIGRATE} writes today's job")]


CROSS_CHECKS: tuple[Callable[[JobParameters], list[Problem]], ...] = (
    _name_problems,
    _renamed_problems,
    *(partial(path_problems, key) for key in PATHS),
    _class_problems,
    _eval_set_problems,
    _transform_problems,
    _erase_problems,
    _column_problems,
    _batch_problems,
    _video_problems,
    _occluded_view_problems,
    _blur_problems,
    _contrast_problems,
    _single_view_problems,
    _compared_problems,
    _metric_problems,
    _warmup_problems,
    _unit_problems,
    _kernel_problems,
    _swa_problems,
    _rate_problems,
    _unused_finetune_problems,
    _two_starts_problems,
    _finetune_problems,
    _order_problems,
    _parent_problems,
    _degradation_problems,
)
"""Each looks at few parameters, and finds what contradicts itself among them: where one of those is wrong, only this
check has to be left out."""
