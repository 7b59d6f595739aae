"""What follows from the parameters of a job: paths, metrics, views, and which parameters have which marks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from accel_trainer.config.fields import eval_split
from accel_trainer.config.marks import UNREPORTED, Mark, marks
from accel_trainer.config.parameters import (
    CONTRASTIVE,
    DataParameters,
    FinetuneParameters,
    ModelParameters,
    OptimizationParameters,
    QueueParameters,
    RunParameters,
)
from accel_trainer.config.places import base_path, folder_inside, parent_in
from accel_trainer.core.files import expand_home


# Pydantic collects fields from the last base to the first.
class JobParameters(QueueParameters, RunParameters, OptimizationParameters, DataParameters, ModelParameters):
    """The parameters of all sections, and what follows from them. `name` is that of the job file, without `.json`."""

    name: Annotated[str, UNREPORTED] = Field(default="job", exclude=True)

    @property
    def run_path(self) -> Path:
        """The run folder. A relative model_dir counts from the working folder: that of a verb is where its queue is."""
        return self.base_path / self.finetune_folder if self.finetuning is not None else self.base_path

    @property
    def finetune_folder(self) -> Path:
        """The folder of a fine-tuned run, relative to `base_path`; "." where it is none inside that.

        finetune_dir may be given with the model_dir before it. Nothing on the disk is looked at.
        """
        return Path() if self.finetuning is None else folder_inside(self.base_path, self.finetuning.finetune_dir)

    @property
    def base_path(self) -> Path:
        """The folder that model_dir names: the run's own, or with finetune that of its parent."""
        return base_path(self.architecture, self.name, self.model_dir)

    @property
    def finetuning(self) -> FinetuneParameters | None:
        """How to fine-tune, or None where the job does not."""
        return (self.finetune_args or FinetuneParameters()) if self.finetune else None

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """The names of the modules that are not trained."""
        return tuple(self.finetuning.freeze_modules) if self.finetuning is not None else ()

    @property
    def starting_path(self) -> Path | None:
        """Where the weights to fine-tune from are: a file, or a run folder, whose best ones are meant."""
        if self.finetuning is None:
            return None
        given = self.finetuning.starting_params
        return self.base_path if given is None else expand_home(given)

    @property
    def may_start_later(self) -> bool:
        """Whether what the job starts from may be missing as yet, because a job before it is to train it."""
        return bool(self.after) or self.parent_job is not None

    @property
    def parent_job(self) -> str | None:
        """The job whose weights this one starts from: a starting_params that may be no path names a job."""
        return None if self.finetuning is None else parent_in(self.finetuning.starting_params)

    @property
    def views_per_image(self) -> int:
        """How many images the model is shown of each: the views, or the frames of a clip.

        `batch_size` counts num_views of them: where the frames come from Blur's sigmas, a clip counts once.
        """
        return len(self.Blur.sigmas) if self.video and self.Blur is not None else self.num_views

    @property
    def eval_splits(self) -> dict[str, str]:
        """The further data sets, by what performance.csv calls them."""
        return {eval_split(name): name for name in self.eval_sets}

    @property
    def is_contrastive(self) -> bool:
        """Whether the loss compares the views of images."""
        return self.criterion in CONTRASTIVE

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the validation measures; the criterion's name stands for its loss."""
        return (*(("contrastive_acc",) if self.is_contrastive else ("acc1", "acc5")), self.criterion)

    @property
    def higher_is_better(self) -> bool:
        """Whether the primary metric is to be as high as it can be; a loss is to be low."""
        return self.primary_metric != self.criterion


MARKS = marks(JobParameters)
_DEFAULTS = {name: field.default for name, field in JobParameters.model_fields.items()}
ARGUMENTS_OF = {key: mark.arguments_of for key, mark in MARKS.items() if mark.arguments_of is not None}


def default_args(key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The `optimizer_args` or `scheduler_args` of a job that gives none: only the default optimizer and scheduler have
    default arguments of ours, and those of the scheduler are epochs."""
    owner = ARGUMENTS_OF[key]
    is_default = given.get(owner) in (None, _DEFAULTS[owner])
    if owner == "scheduler" and given.get("schedule_by") == "step":
        return {}
    return dict(_DEFAULTS[key]) if is_default else {}


def with_default_optimizer_args(given: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, where `optimizer_args` say a part only: the rest is as by default, as far as there is a
    default for that optimizer."""
    args, defaults = given.get("optimizer_args"), default_args("optimizer_args", given)
    if not isinstance(args, dict):
        return given
    said = {name: value for name, value in args.items() if value is not None or name not in defaults}
    return {**given, "optimizer_args": {**defaults, **said}}


def parameters(condition: Callable[[Mark], object]) -> frozenset[str]:
    """The names of the parameters whose marks fulfil a condition: `parameters(lambda mark: mark.may_change)`."""
    return frozenset(name for name in keys(condition) if "." not in name)


def keys(condition: Callable[[Mark], object]) -> frozenset[str]:
    """The same with those of nested objects, by their paths: `finetune_args.finetune_dir`."""
    return frozenset(key for key, mark in MARKS.items() if condition(mark))
