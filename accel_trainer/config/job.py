"""A job: all parameters of one training run, complete and consistent."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Self

from pydantic import Field, model_validator

from accel_trainer.config.later import not_yet
from accel_trainer.config.parameters import (
    CONTRASTIVE,
    DataParameters,
    FinetuneParameters,
    ModelParameters,
    OptimizationParameters,
    RunParameters,
)

TRANSFORM_BASES = ("default", "contrastive", "none")
TRANSFORM_MODIFIERS = ("weak-resize", "no-blur")
TRANSFORM_POLICIES = ("randaugment", "trivialaugment", "augmix")
LEARNING_RATE_WORDS = ("batch_linear", "batch_nonlinear", "LRfinder")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
# What a run folder has of its own, where no fine-tuned run may lie.
RUN_FOLDERS = ("params", "resume", "logs", "previous")

# Rows of performance.csv that are of averages of the weights.
AVERAGES = ("val_ema", "val_swa")

# What may change between two attempts at one run without making it another run.
MAY_CHANGE = frozenset(
    {
        *RunParameters.model_fields,
        "augment_on",
        "checkpoint",
        "data_root",
        "model_dir",
        "name",
        "num_epochs",
        "num_workers",
        "save_interval",
    }
)


def transform_words(transform_type: str) -> list[str]:
    """The words of a transform_type, the base first: 'contrastive-no-blur' is ['contrastive', 'no-blur']."""
    words, rest = [], transform_type
    for word in (*TRANSFORM_MODIFIERS, *TRANSFORM_POLICIES):
        if f"-{word}-" in f"{rest}-":
            rest = f"{rest}-".replace(f"-{word}-", "-", 1).removesuffix("-")
            words.append(word)
    return [rest, *words]


def eval_split(dataset: str) -> str:
    """What performance.csv calls a further data set: `val_` and its name, or the last part of that of an 'hf:' set."""
    name = PurePath(dataset).name if dataset.startswith("hf:") else dataset
    return "val_" + re.sub(r"[^\w.-]+", "_", name.removeprefix("hf:"))


def is_weights_path(word: str) -> bool:
    """Whether a word can only be that of a file or folder, not of published weights or of a job."""
    return "/" in word or word.startswith("~") or PurePath(word).suffix.lower() in WEIGHT_SUFFIXES


def _has_home(path: str) -> bool:
    try:
        Path(path).expanduser()
    except RuntimeError:
        return False
    return True


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
            # A colon separates a drive, a stream or the paths of a list on one system or another.
            return Path("models") / self.architecture.replace(":", ".") / self.name
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
    def rate_word(self) -> str | None:
        """What stands for the learning rate, where a word does."""
        lr = self.optimizer_args.get("lr")
        return lr if isinstance(lr, str) else None

    @property
    def has_words(self) -> bool:
        """Whether numbers are still to be found."""
        return self.batch_size == "auto" or self.rate_word is not None

    def with_numbers(self, found: Mapping[str, Any]) -> Self:
        """The same job with numbers in the place of those of its words that are found: {word: number}."""
        changes: dict[str, Any] = {}
        if self.batch_size in found:
            changes["batch_size"] = found[str(self.batch_size)]
        if self.rate_word in found:
            changes["optimizer_args"] = {**self.optimizer_args, "lr": found[str(self.rate_word)]}
        return self.model_copy(update=changes)

    def on_paper(self, batch_size: int) -> Self:
        """The same job with any numbers in the place of words, to look at what does not depend on them."""
        return self.with_numbers({"auto": batch_size, **dict.fromkeys(LEARNING_RATE_WORDS, 1e-3)})

    def completed(self) -> dict[str, Any]:
        """Every parameter with its value, as JSON has it; a job file of the same job."""
        return {**self.model_dump(mode="json"), "model_dir": str(self.base_path)}

    def differences(
        self, config: dict[str, Any], found: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, tuple[Any, Any]]:
        """What makes this job another run than the one with that config.json: {key: (then, now)}.

        found: the numbers in there that stand for words of the run's job file, {word: number}. A job that says such a
        word, or the number, is the same; one that says another word is not.
        """
        now = self.with_numbers(found).completed()
        # A run of a version that did not know a parameter had its default.
        then = {**Job(architecture=self.architecture).completed(), **config}
        return {
            key: (then.get(key), now.get(key))
            for key in sorted(now.keys() | then.keys())
            if key not in MAY_CHANGE and then.get(key) != now.get(key)
        }

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """null means absent; only the default optimizer and scheduler have our default arguments."""
        if not isinstance(given, dict):
            return given
        given = {key: value for key, value in given.items() if value is not None}
        if given.get("video") is True:
            given.setdefault("view_dependence", True)
        if not given.get("finetune") and given.get("finetune_args") == {}:
            del given["finetune_args"]
        for name in ("optimizer", "scheduler"):
            if given.get(name, cls.model_fields[name].default) != cls.model_fields[name].default:
                given.setdefault(f"{name}_args", {})
        if given.get("criterion") in CONTRASTIVE:
            given.setdefault("primary_metric", given["criterion"])
            given.setdefault("knn_interval", 10)
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Cross-checks that need no torch. Each problem is 'key: what is wrong'."""
        problems = [
            *self._path_problems(),
            *self._data_problems(),
            *self._view_problems(),
            *self._optimization_problems(),
            *self._finetune_problems(),
            *self._order_problems(),
        ]
        # A contradiction is worth mending now; what is not there yet is said when nothing else is wrong.
        problems = problems or not_yet(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _path_problems(self) -> list[str]:
        problems = []
        keys = ("model_dir", "dataset", "data_root", "accelerate_config", "pretrained")
        paths = {key: getattr(self, key) for key in keys}
        if self.Occlusion is not None:
            paths["Occlusion.occluder_dir"] = self.Occlusion.occluder_dir
        if self.Noise is not None:
            paths["Noise.mean_magnitude_path"] = self.Noise.mean_magnitude_path
        if self.finetune_args is not None:
            paths["finetune_args.starting_params"] = self.finetune_args.starting_params
            paths["finetune_args.finetune_dir"] = self.finetune_args.finetune_dir
        for key, value in [*paths.items(), *(("eval_sets", name) for name in self.eval_sets)]:
            is_dataset = key in ("dataset", "eval_sets")
            if value is None:
                continue
            if not value:
                problems.append(f"{key}: may not be empty")
            elif any(not character.isprintable() for character in value):
                problems.append(f"{key}: {value!r} may not contain control characters")
            elif value.startswith("~") and not _has_home(value):
                problems.append(f"{key}: {value!r}: there is no such user")
            elif is_dataset and value.startswith("hf:"):
                if value == "hf:":
                    problems.append(f"{key}: 'hf:' needs a hub id or a path behind it")
            elif ".." in PurePath(value).parts and key != "accelerate_config":
                problems.append(f"{key}: {value!r} may not contain '..'")
            elif is_dataset and PurePath(value).is_absolute():
                problems.append(
                    f"{key}: {value!r} is an absolute path; name a folder below data_root and set "
                    f"data_root to {str(PurePath(value).parent)!r}"
                )
        return problems

    def _data_problems(self) -> list[str]:
        problems = []
        if self.class_subset is not None and len(set(self.class_subset)) < len(self.class_subset):
            problems.append(f"class_subset: {self.class_subset} names a class twice")
        problems += self._eval_set_problems()
        problems += self._transform_problems()
        if not any(name.startswith("hf:") for name in (self.dataset, *self.eval_sets)):
            problems += [
                f"{key}: only an 'hf:' data set has columns"
                for key in ("image_column", "label_column")
                if getattr(self, key) is not None
            ]
        return problems

    def _eval_set_problems(self) -> list[str]:
        """Each needs a name of its own in performance.csv."""
        problems, names = [], dict[str, str]()
        for name in self.eval_sets:
            other = names.setdefault(split := eval_split(name), name)
            if split in AVERAGES:
                problems.append(f"eval_sets: {name!r} would be {split}, as an average of the weights is; rename it")
            elif self.eval_sets.count(name) > 1:
                problems.append(f"eval_sets: {name!r} is given twice")
            elif other != name:
                problems.append(f"eval_sets: {other!r} and {name!r} would both be {split}; rename one of them")
        return list(dict.fromkeys(problems))

    def _transform_problems(self) -> list[str]:
        base, *words = transform_words(self.transform_type)
        policies = [word for word in words if word in TRANSFORM_POLICIES]
        given = f"transform_type: {self.transform_type!r}"
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

    def _view_problems(self) -> list[str]:
        problems, views = [], self.views_per_image
        if isinstance(self.batch_size, int) and self.batch_size % self.num_views:
            below = self.batch_size // self.num_views * self.num_views
            near = f"{below} or {below + self.num_views}" if below else str(self.num_views)
            problems.append(f"batch_size: {self.batch_size} images cannot be {self.num_views} views each; use {near}")
        if self.video and views < 2:
            problems.append("num_views: a video has 2 or more frames")
        if self.video and self.num_views not in (1, views):
            problems.append(f"num_views: {self.num_views}, but Blur has {views} sigmas, one for each frame; remove it")
        if self.Occlusion is not None and (beyond := [v for v in self.Occlusion.views or [] if v >= views]):
            problems.append(f"Occlusion.views: no view {beyond[0]}; there are {views}, from 0")
        if self.Blur is not None and not self.video and self.Blur.shares_exceed_one:
            total = sum(self.Blur.probs)
            problems.append(f"Blur: has probs that add up to {total:g}: each is how often that sigma is drawn")
        if self.is_contrastive and self.video:
            problems.append(f"video: {self.criterion} compares views of an image, and frames are one clip; remove it")
        if self.is_contrastive:
            problems += [
                f"{key}: mixes labels, and {self.criterion} has none"
                for key in ("cutmix", "mixup")
                if getattr(self, key) is not None
            ]
        return problems

    def _optimization_problems(self) -> list[str]:
        problems = []
        if self.is_contrastive and self.num_views < 2:
            problems.append(f"num_views: {self.criterion} compares views of an image: it needs 2 or more")
        if self.primary_metric not in self.metrics:
            problems.append(
                f"primary_metric: {self.primary_metric!r} is not measured with {self.criterion}; "
                f"it is one of {', '.join(self.metrics)}"
            )
        if self.warmup_scheduler_args and self.warmup_scheduler is None:
            problems.append("warmup_scheduler_args: given, but there is no warmup_scheduler")
        if self.swa is not None and self.swa.start > self.num_epochs:
            problems.append(f"swa.start: {self.swa.start} is after the last epoch ({self.num_epochs})")
        lr = self.optimizer_args.get("lr")
        if isinstance(lr, str) and lr not in LEARNING_RATE_WORDS:
            problems.append(
                f"optimizer_args.lr: {lr!r} is not allowed; it is a number or one of {', '.join(LEARNING_RATE_WORDS)}"
            )
        return problems

    def _finetune_problems(self) -> list[str]:
        problems = []
        if self.finetune_args is not None and not self.finetune:
            problems.append("finetune_args: given, but finetune is false")
        if self.finetuning is None:
            return problems
        if self.pretrained is not None:
            problems.append(
                "pretrained: with finetune the weights are those of finetune_args.starting_params; remove one of them"
            )
        is_parent = self.finetuning.starting_params is None
        if is_parent and not self.may_start_later and not (self.base_path / "params").is_dir():
            problems.append(
                "finetune: nothing to start from: give finetune_args.starting_params, or a model_dir that "
                f"holds a trained run (there is none in {self.base_path})"
            )
        given = self.finetuning.finetune_dir
        folder = PurePath(given)
        if not given or ".." in folder.parts:
            pass  # refused as a path
        elif not folder.parts or folder.is_absolute() or any(part[0] in ".~" for part in folder.parts):
            problems.append(
                f"finetune_args.finetune_dir: {given!r} is no folder inside model_dir; "
                "give a plain name such as 'finetune'"
            )
        elif folder.parts[0] in RUN_FOLDERS:
            problems.append(
                f"finetune_args.finetune_dir: {given!r}: the parent run has its own {folder.parts[0]}/; "
                "choose another name"
            )
        return problems

    def _order_problems(self) -> list[str]:
        """Whether the jobs that must be done first can be such."""
        problems = []
        for name in self.after:
            if name == self.name:
                problems.append("after: names the job itself")
            elif not name or "/" in name:
                problems.append(f"after: {name!r} is not the name of a job")
            elif name.endswith(".json"):
                problems.append(f"after: {name!r}: the name of a job is that of its file without .json")
        if self.parent_job == self.name:
            problems.append("finetune_args.starting_params: names the job itself")
        return problems
