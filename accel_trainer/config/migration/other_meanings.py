"""What a file says in words of today, and the older program did otherwise: written as what it did, or noted."""

from typing import Any

from accel_trainer.config.migration.draft import ABSENT, Draft
from accel_trainer.config.renamed import WITH_GRID


def say_other_meanings(draft: Draft) -> None:
    """Change what has an equal today, note what has none, and refuse what could be either of two."""
    _translate_colors(draft)
    _translate_views(draft)
    _translate_cycles(draft)
    _translate_video(draft)
    frozen = draft.get("finetune_args.freeze_modules")
    if isinstance(frozen, str):
        draft.change("finetune_args.freeze_modules", [frozen], "a list, of one name too")
    if draft.get("randomerase") is True:
        draft.change("randomerase", 1, "true was the number 1")
    if draft.get("architecture") == "cornet_s" and draft.get("architecture_args.head_width") is not ABSENT:
        draft.refuse(
            "architecture_args.head_width",
            "can be two things: units of hidden layers, as cornet_s of accel-train 0.2 had them, or the side of the "
            f"pooling grid of {WITH_GRID}, which the older program had",
            f"rename it to head_units, or name {WITH_GRID} as the architecture",
        )
    if draft.has("class_subset"):
        draft.note("class_subset", "only validation left the other classes out then; today training does, too")
    if draft.get("batch_dependence") is True:
        message = "only occluders were alike then, with several views; today all augmentations of a batch are"
        draft.note("batch_dependence", message)
    if draft.get("view_dependence") is True and draft.get("video") is not True:
        draft.note("view_dependence", "it did nothing then: each view had its own draws; remove it for that")


def _translate_colors(draft: Draft) -> None:
    """[1, 1, 1] was white: values were from 0 to 1 where none was above."""
    given = draft.get("Occlusion.color")
    if not isinstance(given, list):
        return
    colors = [_bytes(color) for color in given] if any(isinstance(color, list) for color in given) else _bytes(given)
    if colors != given:
        draft.change("Occlusion.color", colors, "a color without a value above 1 was from 0 to 1, and not to 255")


def _bytes(color: Any) -> Any:
    is_rgb = isinstance(color, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 for value in color
    )
    return [round(255 * value) for value in color] if is_rgb else color


def _translate_views(draft: Draft) -> None:
    views = draft.get("Occlusion.views")
    if draft.get("num_views") in (ABSENT, None, 1) and draft.get("video") is not True and views not in (
        ABSENT, None, 0, [0],
    ):  # fmt: skip
        draft.change("Occlusion.views", [0], "an only view was occluded, whatever views said")


def _translate_cycles(draft: Draft) -> None:
    """Logits (batch, cycles, classes) were taken as batch x cycles answers, whatever loss_cycle said. A contrastive
    loss was given them as they were, and of two heads each loss had its own."""
    criterion, given = draft.get("criterion"), draft.get("loss_cycle")
    is_contrastive = isinstance(criterion, str) and "SimCLR" in criterion
    if is_contrastive:
        return
    if draft.get("architecture") == "cornet_s_custom" and draft.get("architecture_args.out_channels") == 2:
        if given in (ABSENT, None):
            draft.change("loss_cycle", 0, "of two heads the first was for classes then; today's default is the last")
    elif draft.get("architecture_args.return_cycles") == "all":
        if given in (ABSENT, None):
            draft.change("loss_cycle", "uniform", "the loss was the mean over all cycles; today's default is the last")
        elif given != "uniform":
            message = f'it was not looked at then, and all cycles were trained: write "uniform" for that; {given!r} is'
            draft.note("loss_cycle", f"{message} one of them today")
        message = "accuracy was that of all cycles then; today it is that of the cycle that is trained, or of the last"
        draft.note("loss_cycle", message)


def _translate_video(draft: Draft) -> None:
    """Frames were made of the sigmas alone."""
    if draft.get("video") is not True:
        return
    probs = draft.get("Blur.probs")
    if probs not in (ABSENT, None) and any(one != 1 for one in (probs if isinstance(probs, list) else [probs])):
        draft.change("Blur.probs", 1, "each frame of a video had its blur always, whatever probs said")
    if draft.has("Blur"):
        draft.note(
            "video", "validation showed single images without blur then; today it shows the same clips as training"
        )
