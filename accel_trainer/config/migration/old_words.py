"""The words of older job files: what each has become, and how its value is carried over. The table is `OLD_WORDS`.

The facts are those of the program in https://github.com/ddcoggan/model_trainer and its archived job files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from accel_trainer.config.migration.draft import ABSENT, Draft

# What gives today's form of an old job, in messages; `config.parse` puts the verb and the file in its place.
MIGRATE, MIGRATE_VERB = "accel_trainer.migrate", "accel-train migrate"
# Parameters of today that old words become, or become a part of.
TODAYS_HEADS = (
    "architecture", "model_dir", "save_interval", "dataset", "num_epochs", "batch_size", "optimizer", "Occlusion",
    "Noise", "Blur", "finetune", "finetune_args", "swa", "cutmix", "video",
)  # fmt: skip
FINETUNE = ("finetune_args.starting_params", "finetune_args.freeze_modules", "finetune_args.finetune_dir")


@dataclass(frozen=True)
class OldWord:
    """A word of older files, at its place. became: what it is today, as a sentence goes on after the word."""

    old: str
    became: str
    why: str
    translate: Callable[[Draft, "OldWord"], None]

    @property
    def places(self) -> tuple[str, ...]:
        """Where its value goes, or values that follow from it."""
        return tuple(word for word in self.became.split() if word.partition(".")[0] in TODAYS_HEADS)


def _rename(draft: Draft, word: OldWord, *, new: str) -> None:
    draft.move(word.old, new, word.why)


def _renamed(old: str, new: str, why: str) -> OldWord:
    return OldWord(old, f"is {new} today", why, partial(_rename, new=new))


def _of_finetuning(draft: Draft, word: OldWord, *, new: str) -> None:
    """What says how to fine-tune was looked at only where a file fine-tuned."""
    value, is_on = draft.get(word.old), draft.get("finetune")
    if value in (None, [], ""):
        draft.drop(word.old, "it was empty")
    elif is_on is False and new != FINETUNE[0]:
        draft.drop(word.old, "finetune is false: nothing was frozen, and no folder made")
    elif is_on is False:
        draft.refuse(word.old, "names weights to start from, but finetune is false", "remove one of them")
    elif is_on in (ABSENT, None) and new != FINETUNE[0] and not draft.has(FINETUNE[0]):
        draft.refuse(word.old, "is for fine-tuning, and the file does not say whether it does", "add finetune")
    else:
        if new == FINETUNE[0] and is_on in (ABSENT, None):
            draft.change("finetune", True, "starting_params alone meant fine-tuning")
        draft.move(word.old, new, word.why, [value] if new == FINETUNE[1] and isinstance(value, str) else ABSENT)


def _finetuning(old: str, new: str) -> OldWord:
    why = "what fine-tuning needs is one object"
    return OldWord(old, f"is {new} today", why, partial(_of_finetuning, new=new))


def _freeze_layers(draft: Draft, word: OldWord) -> None:
    value = draft.get(word.old)
    draft.move(word.old, FINETUNE[1], word.why, [value] if isinstance(value, str) else ABSENT)


def _swa_args(draft: Draft, word: OldWord) -> None:
    swa, args = draft.get("swa"), draft.get(word.old)
    if args in (None, {}):
        draft.drop(word.old, "it was empty")
    elif swa is False or swa is None:
        draft.drop(word.old, f"swa is {'false' if swa is False else 'null'}: nothing was averaged")
    else:
        if swa is True:
            del draft.values["swa"]
        draft.move(word.old, "swa", word.why)


def _identifier(draft: Draft, word: OldWord) -> None:
    value, architecture = draft.get(word.old), draft.get("architecture")
    if value is None:
        draft.drop(word.old, "it was empty")
    elif draft.has("model_dir"):
        draft.drop(word.old, "it only named the folder, and model_dir is given")
    elif isinstance(value, str) and value and isinstance(architecture, str):
        draft.move(word.old, "model_dir", word.why, f"models/{architecture}/{value}")
    else:
        draft.refuse(word.old, "is no name of a folder")


def _coverage(draft: Draft, word: OldWord) -> None:
    given = draft.get(word.old)
    values = given if isinstance(given, list) else [given]
    if given is None:
        draft.drop(word.old, "it was empty")
    elif not all(isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 for value in values):
        draft.refuse(word.old, "is no fraction of the image from 0 to below 1, or a list of such")
    else:
        visible: list[Any] = [round(1 - value, 10) for value in values]
        draft.move(word.old, "Occlusion.visibility", word.why, visible if isinstance(given, list) else visible[0])


def _blur(draft: Draft, word: OldWord, *, new: str) -> None:
    if draft.get(word.old) is None:
        draft.drop(word.old, "it was empty")
        return
    draft.move(word.old, new, word.why)
    sigmas = draft.get("Blur.sigmas")
    if new == "Blur.sigmas" and isinstance(sigmas, list) and len(sigmas) == 2:
        draft.note("Blur.sigmas", f"each of {sigmas[0]} and {sigmas[1]} is drawn half of the time: they are no range")


def _blur_sequence(draft: Draft, word: OldWord) -> None:
    match draft.get(word.old):
        case True if draft.get("video") is False:
            draft.refuse(word.old, "is true, but video is false", "remove one of them")
        case True:
            draft.drop(word.old, "a sequence of blurred images is a video today")
            if draft.get("video") is not True:
                draft.change("video", True, "the frames have the sigmas in their order")
        case False | None:
            draft.drop(word.old, "false is what a file without it means")
        case _:
            draft.refuse(word.old, "is neither true nor false")


def _cutmix_args(draft: Draft, word: OldWord) -> None:
    match draft.get(word.old):
        case None:
            draft.drop(word.old, "it was empty")
        case _ if draft.get("cutmix") is not True:
            draft.drop(word.old, "cutmix is off")
        case {"alpha": alpha, **others} if (
            others.pop("beta", alpha) == alpha and others.pop("prob", 1) == 1 and not others.pop("frgrnd", False)
        ) and not others:
            del draft.values["cutmix"]
            draft.move(word.old, "cutmix", word.why, {"alpha": alpha})
        case _:
            hint = "write cutmix as an object with one alpha, or leave it true"
            draft.refuse(word.old, "has no equal today: CutMix has one alpha and labels of both images", hint)


def _decided_elsewhere(old: str, became: str, why: str) -> OldWord:
    return OldWord(old, became, why, lambda draft, word: draft.drop(word.old, word.why))


_NAME = "only the name is another"
_PLURAL = "a list, or one"

# In the order in which they are translated: `transfer` decides what becomes of the others of fine-tuning.
OLD_WORDS: tuple[OldWord, ...] = (
    _renamed("modelName", "architecture", _NAME),
    _renamed("model_name", "architecture", _NAME),
    _renamed("outDir", "model_dir", _NAME),
    _renamed("saveInterval", "save_interval", _NAME),
    _renamed("datasetName", "dataset", _NAME),
    _renamed("nEpochs", "num_epochs", _NAME),
    _renamed("batchSize", "batch_size", _NAME),
    _renamed("optimizerName", "optimizer", _NAME),
    _renamed("optimizer_name", "optimizer", _NAME),
    _renamed("occlusion", "Occlusion", _NAME),
    _renamed("noise", "Noise", _NAME),
    _renamed("blur", "Blur", _NAME),
    OldWord("identifier", "is the last part of model_dir today", "it named the folder of the run", _identifier),
    _renamed("transfer", "finetune", _NAME),
    _finetuning("starting_params", FINETUNE[0]),
    _finetuning("freeze_layers", FINETUNE[1]),
    _finetuning("freeze_modules", FINETUNE[1]),
    _finetuning("transfer_dir", FINETUNE[2]),
    _finetuning("finetune_dir", FINETUNE[2]),
    OldWord("finetune_args.freeze_layers", f"is {FINETUNE[1]} today", _NAME, _freeze_layers),
    _renamed("finetune_args.transfer_dir", FINETUNE[2], _NAME),
    OldWord("swa_args", "is the object swa today", "swa is on where it has arguments", _swa_args),
    OldWord("cutmix_args", "is the object cutmix today", "CutMix is on where it has arguments", _cutmix_args),
    _renamed("Occlusion.type", "Occlusion.form", _NAME),
    _renamed("Occlusion.prop_occluded", "Occlusion.probability", _NAME),
    _renamed("Occlusion.propOccluded", "Occlusion.probability", _NAME),
    _renamed("Occlusion.colour", "Occlusion.color", _NAME),
    _renamed("Occlusion.colours", "Occlusion.color", _PLURAL),
    _renamed("Occlusion.colors", "Occlusion.color", _PLURAL),
    OldWord("Occlusion.coverage", "is 1 - Occlusion.visibility today", "what is not covered is visible", _coverage),
    _renamed("prop_occluded", "Occlusion.probability", "what is said of occluders is one object"),
    _renamed("propOccluded", "Occlusion.probability", "what is said of occluders is one object"),
    OldWord("coverage", "is 1 - Occlusion.visibility today", "what is not covered is visible", _coverage),
    OldWord(
        "blur_sigmas",
        "is Blur.sigmas today",
        "what is said of blur is one object",
        partial(_blur, new="Blur.sigmas"),
    ),
    OldWord("blur_prob", "is Blur.probs today", "what is said of blur is one object", partial(_blur, new="Blur.probs")),
    OldWord("Blur.sequence", "is video today", "a sequence of blurred images is a video", _blur_sequence),
    _decided_elsewhere("return_model", "is no parameter today", "train in Python gives the run with its model"),
    _decided_elsewhere("overwrite_optimizer", "is no parameter today", "fine-tuning begins with a new optimizer"),
)

ARCHITECTURES = {
    "cornet-z": "cornet_z",
    "cornet-r": "cornet_r",
    "cornet-rt": "cornet_rt",
    "cornet-s": "cornet_s",
    "cornet-s-plus": "cornet_s_plus",
    "cornet-s_plus": "cornet_s_plus",
    "cornet-s-custom": "cornet_s_custom",
    "cornet-s_custom": "cornet_s_custom",
}
"""Names that architectures had in older files."""

_BY_PLACE = {word.old: word for word in OLD_WORDS}


def old_word_at(place: str) -> OldWord | None:
    """The old word that a key of a job file is; None for any other key."""
    return _BY_PLACE.get(place)
