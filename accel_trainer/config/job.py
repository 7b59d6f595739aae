"""A job: all parameters of one training run, complete and consistent."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pydantic import Field, model_validator

from accel_trainer.config.cross_checks import cross_check
from accel_trainer.config.diff import MAY_CHANGE, UNTOLD
from accel_trainer.config.fields import LEARNING_RATE_WORDS, eval_split, is_weights_path
from accel_trainer.config.parameters import (
    CONTRASTIVE,
    DataParameters,
    FinetuneParameters,
    ModelParameters,
    OptimizationParameters,
    Positive,
    RunParameters,
)
from accel_trainer.core.errors import UserError


def default_path(architecture: str, name: str) -> Path:
    """The run folder of a job that names none."""
    # A colon separates a drive, a stream or the paths of a list on one system or another.
    return Path("models") / architecture.replace(":", ".") / name


def default_args(owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The `optimizer_args` or `scheduler_args` (by their owner) of a job that gives none: only the default optimizer
    and scheduler have our default arguments."""
    default = Job.model_fields[owner].default
    is_default = given.get(owner) in (None, default)
    return dict(Job.model_fields[f"{owner}_args"].default) if is_default else {}


# Pydantic collects fields from the last base to the first.
class Job(RunParameters, OptimizationParameters, DataParameters, ModelParameters):
    """One job file, completed. `name` is that of the file, without `.json`."""

    name: str = Field(default="job", exclude=True)

    @property
    def run_path(self) -> Path:
        """The run folder. A relative model_dir counts from the current directory."""
        return self.base_path / self.finetuning.finetune_dir if self.finetuning is not None else self.base_path

    @property
    def base_path(self) -> Path:
        """The folder that model_dir names: the run's own, or with finetune that of its parent."""
        if self.model_dir is None:
            return default_path(self.architecture, self.name)
        return Path(self.model_dir).expanduser()

    @property
    def finetuning(self) -> FinetuneParameters | None:
        """How to fine-tune, or None where the job does not."""
        return (self.finetune_args or FinetuneParameters()) if self.finetune else None

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        return tuple(self.finetuning.freeze_modules) if self.finetuning is not None else ()

    @property
    def starting_path(self) -> Path | None:
        """Where the weights to fine-tune from are: a file, or a run folder, whose best ones are meant."""
        if self.finetuning is None:
            return None
        given = self.finetuning.starting_params
        return self.base_path if given is None else Path(given).expanduser()

    @property
    def may_start_later(self) -> bool:
        """Whether what the job starts from may be missing as yet, because a job before it is to train it."""
        return bool(self.after) or self.parent_job is not None

    @property
    def parent_job(self) -> str | None:
        """The single word that starting_params is, if it is one: the name of a job, before it is that of a path."""
        given = self.finetuning.starting_params if self.finetuning is not None else None
        return None if given is None or is_weights_path(given) else given

    def starting_from(self, path: Path) -> Self:
        """The same job with a path as its starting_params, in place of the name of another job."""
        text = str(path) if "/" in str(path) else f"./{path}"  # a single word would be a name again
        args = self.finetuning
        assert args is not None
        return self.model_copy(update={"finetune_args": args.model_copy(update={"starting_params": text})})

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
        return self.criterion in CONTRASTIVE

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the validation measures; the criterion's name stands for its loss."""
        return (*(("contrastive_acc",) if self.is_contrastive else ("acc1", "acc5")), self.criterion)

    @property
    def higher_is_better(self) -> bool:
        return self.primary_metric != self.criterion

    @property
    def lr_rule(self) -> str | None:
        """What stands for the learning rate, where a word does."""
        lr = self.optimizer_args.get("lr")
        return lr if isinstance(lr, str) else None

    @property
    def is_resolved(self) -> bool:
        """Whether the batch size and the learning rate are numbers."""
        return self.batch_size != "auto" and self.lr_rule is None

    def with_found(self, found: Mapping[str, Any]) -> Self:
        """The same job with the numbers that were found: {"auto": batch size, rule of the learning rate: number}. What
        is not among them stays as it is."""
        changes: dict[str, Any] = {}
        if self.batch_size in found:
            changes["batch_size"] = found[str(self.batch_size)]
        if self.lr_rule in found:
            changes["optimizer_args"] = {**self.optimizer_args, "lr": found[str(self.lr_rule)]}
        return self.model_copy(update=changes)

    def resolve(self, found: Mapping[str, Any] = MappingProxyType({})) -> "ResolvedJob":
        """The same job with all its numbers, of which those in `found` were looked for: {"auto": batch size, rule of
        the learning rate: number}. Raises UserError for a number that is not known."""
        job = self.with_found(found)
        if job.batch_size == "auto":
            raise UserError("batch_size: 'auto' is not resolved yet")
        if job.lr_rule is not None:
            raise UserError(f"optimizer_args.lr: {job.lr_rule!r} is not resolved yet")
        return ResolvedJob.model_construct(self.model_fields_set, **dict(job))

    def with_placeholders(self, batch_size: int) -> "ResolvedJob":
        """The same job with some numbers where others are to be found, to look at what does not depend on them."""
        return self.resolve({"auto": batch_size, **dict.fromkeys(LEARNING_RATE_WORDS, 1e-3)})

    def completed(self) -> dict[str, Any]:
        """Every parameter with its value, as JSON has it; a job file of the same job."""
        return {**self.model_dump(mode="json"), "model_dir": str(self.base_path)}

    def diff(
        self, config: Mapping[str, Any], found: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, tuple[Any, Any]]:
        """What is otherwise than in the run with that config.json, but for what nobody needs to hear of:
        {key: (then, now)}.

        found: the numbers in there that stand for words of the run's job file, {word: number}. A job that says such a
        word, or the number, is the same; one that says another word is not.
        """
        now = self.with_found(found).completed()
        # A run of a version that did not know a parameter had its default.
        then = {**Job(architecture=self.architecture).completed(), **config}
        return {
            key: (then.get(key), now.get(key))
            for key in sorted(now.keys() | then.keys())
            if key not in UNTOLD and then.get(key) != now.get(key)
        }

    def incompatible_diff(
        self, config: Mapping[str, Any], found: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, tuple[Any, Any]]:
        """Of these changes those that make this job another run than the one with that config.json."""
        return {key: both for key, both in self.diff(config, found).items() if key not in MAY_CHANGE}

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """null means absent; some defaults follow from other parameters."""
        if not isinstance(given, dict):
            return given
        given = {key: value for key, value in given.items() if value is not None}
        if given.get("video") is True:
            given.setdefault("view_dependence", True)
        if not given.get("finetune") and given.get("finetune_args") == {}:
            del given["finetune_args"]
        for name in ("optimizer", "scheduler"):
            given.setdefault(f"{name}_args", default_args(name, given))
        if given.get("criterion") in CONTRASTIVE:
            given.setdefault("primary_metric", given["criterion"])
            given.setdefault("knn_interval", 10)
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Cross-checks that need no torch. Each problem is 'key: what is wrong'."""
        if problems := cross_check(self):
            raise ValueError("\n".join(problems))
        return self


class ResolvedJob(Job):
    """A job whose numbers are all known: the batch size, and the learning rate where `optimizer_args` has one. Only
    such a job can be trained. Made by `Job.resolve`."""

    batch_size: Positive = 256
