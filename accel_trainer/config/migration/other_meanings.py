"""What a file says in words of today, and the older program did otherwise: written as what it did, or noted."""

from typing import Any

from accel_trainer.config.migration.draft import ABSENT, Draft
from accel_trainer.config.renamed import WITH_GRID


def say_other_meanings(draft: Draft) -> None:
    """Change what has an equal today, note what has none, and refuse what could be either of two."""
    _translate_colors(draft)
    _translate_views(draft)
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
