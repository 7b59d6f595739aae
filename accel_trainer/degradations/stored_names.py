"""What conditions on disk are called: by the names that degradations have here, where they are the same."""

from collections.abc import Sequence

from accel_trainer.data.occluders.bank import OTHER_NAMES
from accel_trainer.data.occluders.synthetic import FORMS, TODAYS_FORMS
from accel_trainer.degradations.degradation import level_text
from accel_trainer.degradations.imagenet_c.corruptions import BENCHMARK, EXTRA
from accel_trainer.degradations.imagenet_c.severity import SEVERITIES

IMAGENET_C, OCCLUSION = "imagenet-c", "occlusion"
DEGRADATION, LEVEL = "degradation", "level"
_SEVERITIES = frozenset(map(level_text, SEVERITIES))


def columns_of(parts: Sequence[str]) -> dict[str, str]:
    """The columns of a condition by its path below the set, one part or more: the last is the level, the others the
    degradation. One part alone is a degradation without levels.

    `fog/3` and `weather/fog/3` are imagenet-c/fog, and `mudSplash/20` is occlusion/mud_splash at a visibility of 0.2.
    """
    if len(parts) == 1:
        return {DEGRADATION: parts[0], LEVEL: ""}
    *path, level = parts
    own = path[-1]
    if own in BENCHMARK | EXTRA and level in _SEVERITIES:
        return {DEGRADATION: f"{IMAGENET_C}/{own}", LEVEL: level}
    if own in FORMS and (_is_percentage(level) or path[:-1] == [OCCLUSION]):
        form = own if own in TODAYS_FORMS else OTHER_NAMES[own]
        return {DEGRADATION: f"{OCCLUSION}/{form}", LEVEL: _share(level)}
    return {DEGRADATION: "/".join(path), LEVEL: level}


def _share(level: str) -> str:
    return level_text(int(level) / 100) if _is_percentage(level) else level


def _is_percentage(level: str) -> bool:
    """1 is a share: all is visible."""
    return level.isdecimal() and 1 < int(level) <= 100
