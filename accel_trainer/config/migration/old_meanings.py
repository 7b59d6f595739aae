"""Values that older files have in another form, and what a file meant where it said nothing."""

from typing import Any

from accel_trainer.config.derived import JobParameters
from accel_trainer.config.fields import TRANSFORM_BASES, TRANSFORM_MODIFIERS
from accel_trainer.config.migration.draft import ABSENT, Draft
from accel_trainer.config.migration.old_words import ARCHITECTURES

# What the older program knew; a file that names anything else was written for this one.
THEN_KNOWN = frozenset(
    {
        "architecture", "architecture_args", "model_dir", "save_interval", "batch_dependence", "class_subset",
        "cutmix", "dataset", "image_size", "mixup", "Noise", "Blur", "num_views", "Occlusion", "randomerase",
        "transform_type", "video", "view_dependence", "amp", "batch_size", "checkpoint", "criterion", "finetune",
        "finetune_args", "loss_cycle", "num_epochs", "optimizer", "optimizer_args", "primary_metric", "scheduler",
        "scheduler_args", "swa", "warmup_scheduler", "warmup_scheduler_args", "num_workers",
    }
)  # fmt: skip
TODAYS = frozenset(JobParameters.model_fields) - THEN_KNOWN - {"name"}
# What is true or false, or may be; and where any text may stand.
_FLAGS = frozenset(
    {
        "amp",
        "batch_dependence",
        "cutmix",
        "finetune",
        "mixup",
        "randomerase",
        "swa",
        "transfer",
        "video",
        "view_dependence",
    }
)
_TEXTS = ("description", "wandb")
_AS_PYTHON: dict[str, Any] = {"True": True, "False": False, "None": None}


def translate_values(draft: Draft, *, is_old: bool) -> None:
    """Values that have another name today. is_old: what both programs know means what it did then."""
    name = draft.get("architecture")
    if isinstance(name, str) and name.lower() in ARCHITECTURES:
        draft.change("architecture", ARCHITECTURES[name.lower()], "its name today")
    _translate_transforms(draft, is_old=is_old)


def translate_constants(draft: Draft) -> None:
    """Texts that are Python's constants: "True" and "False" where a parameter is a flag, "None" anywhere."""
    for key, value in list(draft.values.items()):
        if key in _TEXTS:
            continue
        if isinstance(value, dict):
            for name, inner in list(value.items()):
                _translate_constant(draft, f"{key}.{name}", inner)
        elif value == "None" or key in _FLAGS:
            _translate_constant(draft, key, value)


def _translate_constant(draft: Draft, place: str, value: Any) -> None:
    if isinstance(value, str) and value in _AS_PYTHON:
        draft.change(place, _AS_PYTHON[value], "a constant of Python, not a text")


def _translate_transforms(draft: Draft, *, is_old: bool) -> None:
    """The older program looked for words in a text: without `contrastive` all the rest was `default`."""
    given = draft.get("transform_type")
    if not isinstance(given, str):
        return
    rest = given
    modifiers = [word for word in TRANSFORM_MODIFIERS if word in rest]
    for word in modifiers:
        rest = rest.replace(word, "")
    words = [word for word in rest.replace("_", "-").split("-") if word]
    if is_old and "none" in words:
        words.remove("none")  # which it did not know, either
    base = [word for word in words if word in TRANSFORM_BASES]
    others = [word for word in words if word not in TRANSFORM_BASES]
    if len(base) > 1 or any(word not in ("standard", "blur") for word in others):
        return  # not a word of then: it is checked as any other
    if "blur" in others and not draft.has("Blur"):
        draft.refuse("transform_type", f"{given!r} is to blur images, but the file does not say how", "add Blur")
        return
    new_base = base[0] if base else "default"
    if new_base != "contrastive":
        modifiers = [word for word in modifiers if word != "no-blur"]
    today = "-".join([new_base, *modifiers])
    if not given.startswith(new_base) or set(today.split("-")) != set(given.split("-")):
        why = "all but contrastive was random crop and flip; none leaves both out today" if "none" in given else None
        draft.change("transform_type", today, why or "what its words meant")


def say_defaults(draft: Draft) -> None:
    """Write what a file meant by saying nothing, where that is another thing today."""
    if not draft.has("batch_size"):
        draft.change("batch_size", "auto", "without a batch_size the largest that fits was taken")
    if not draft.has("eval_crop"):
        draft.change("eval_crop", 1.0, "validation kept all of the shorter side; today's default keeps 0.875 of it")
    noise = draft.get("Noise.noise_types")
    if "fourier" in (noise if isinstance(noise, list) else [noise]) and not draft.has("Noise.fourier_part"):
        reason = "Fourier noise was the absolute value of the complex field; today's default is its real part"
        draft.change("Noise.fourier_part", "modulus", reason)
    _say_loaded_modules(draft)
    _say_optimizer(draft)
    _say_places(draft)
    if draft.get("cutmix") is True and draft.get("mixup") is True:
        draft.change("mixup", False, "with both, only CutMix was done; today each batch has one of them")
    if draft.get("video") is True and draft.get("view_dependence") is False:
        draft.note(
            "view_dependence", "whatever it said, all frames of a clip had the same crop then; remove it for that"
        )
    if draft.get("scheduler") == "ReduceLROnPlateau":
        args = draft.get("scheduler_args")
        if not (isinstance(args, dict) and "mode" in args):
            draft.note("scheduler_args", "mode was torch's own default, min; today it follows primary_metric")


def _say_loaded_modules(draft: Draft) -> None:
    """Of the weights to start from, the older program took those of the key freeze_modules where it was there."""
    frozen = draft.get("finetune_args.freeze_modules")
    if draft.get("finetune") is True and frozen not in (ABSENT, None):
        loaded = "only these modules were loaded then" if frozen else "an empty list meant that nothing was loaded then"
        rest = ", and the rest began at random; today all that fits is loaded"
        draft.note("finetune_args.freeze_modules", loaded + rest)


def _say_optimizer(draft: Draft) -> None:
    """Arguments that a file did not give were torch's own."""
    args = draft.get("optimizer_args")
    if not (isinstance(args, dict) and "lr" in args and draft.get("optimizer") in (ABSENT, None, "SGD")):
        return
    for name in ("momentum", "weight_decay"):
        if name not in args:
            draft.change(f"optimizer_args.{name}", 0, "torch's own default, which it was without a word")


def _say_places(draft: Draft) -> None:
    """A model_dir that ended with finetune_dir was the folder of the fine-tuned run itself."""
    folder, inside = draft.get("model_dir"), draft.get("finetune_args.finetune_dir")
    if draft.get("finetune") is not True or not isinstance(folder, str) or not isinstance(inside, str) or not inside:
        return
    parent, slash, last = folder.rstrip("/").rpartition(f"/{inside.strip('/')}")
    if slash and parent and not last:
        draft.change("model_dir", parent, "the run is in finetune_dir inside it, as before")
