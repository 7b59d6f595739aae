"""All degradations by their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.data.occluders.synthetic import FORMS, TODAYS_FORMS
from accel_trainer.degradations.degradation import Degradation
from accel_trainer.degradations.gray_studies import GRAY_STUDIES
from accel_trainer.degradations.imagenet_c.corruptions import CORRUPTIONS
from accel_trainer.degradations.noise_and_blur import BLUR, noise
from accel_trainer.degradations.occlusion import Color, occlusion

OCCLUSION = "occlusion"
_AS_IN_A_JOB = "as in a job"
SOURCES = {
    "noise": _AS_IN_A_JOB,
    "blur": _AS_IN_A_JOB,
    "geirhos": "Geirhos et al. 2018, arXiv:1808.08750",
    "imagenet-c": "Hendrycks and Dietterich 2019, arXiv:1903.12261",
    OCCLUSION: "Visual Occluders Dataset",
}
"""Where degradations are from, by the part of their names before the slash."""


@dataclass(frozen=True)
class Resources:
    """What some degradations are made with.

    occluder_dir: laid out as the Visual Occluders Dataset. color: of occluders without a texture. spectrum: mean
    amplitudes for Fourier noise, float32 (3, size, size), zero frequency first; None: 1 / frequency.
    """

    occluder_dir: Path = Path("~/Datasets/VisualOccludersDataset")
    color: Color = "random"
    spectrum: Tensor | None = None


def find_degradations(names: Sequence[str], resources: Resources | None = None) -> list[Degradation]:
    """The degradations of these names, each once. Raises UserError with a line for each name that there is not.

    A name is one of `names_of_all`, or the part before a slash, which stands for all that begin with it: `noise`,
    `geirhos`, `imagenet-c` (15 and 4), `occlusion` (the 32 forms of today's data set).
    """
    resources = resources or Resources()
    fixed = {one.name: one for one in _fixed(resources)}
    return [
        fixed[name] if name in fixed else _occlusion(name.removeprefix(f"{OCCLUSION}/"), resources)
        for name in _chosen(names)
    ]


def _chosen(names: Sequence[str]) -> list[str]:
    """What names stand for, each once. Raises UserError with a line for each name that there is not."""
    known, forms = names_of_all(), {f"{OCCLUSION}/{form}" for form in FORMS}
    chosen = dict[str, None]()
    problems = []
    for name in names:
        found = [name] if name in forms else [one for one in known if one == name or one.startswith(f"{name}/")]
        problems += [] if found else [_unknown(name)]
        chosen.update(dict.fromkeys(found))
    if problems:
        raise UserError(*problems)
    return list(chosen)


def names_of_all() -> list[str]:
    """Every degradation's name; forms of occluders by the name that they have today."""
    return [*(one.name for one in _fixed(Resources())), *(f"{OCCLUSION}/{form}" for form in TODAYS_FORMS)]


def default_names() -> list[str]:
    """All that need no folder of occluders."""
    return [name for name in SOURCES if name != OCCLUSION]


def described(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """For each degradation of these names, or for all: {"name", "what", "levels", "neutral", "source"}, levels as they
    are written; of occlusion none, because its folder has them. Raises UserError as `find_degradations`."""
    fixed = {one.name: one for one in _fixed(Resources())}
    chosen = _chosen(names) if names else names_of_all()
    return [_row(name, fixed.get(name)) for name in chosen]


def _row(name: str, degradation: Degradation | None) -> dict[str, Any]:
    source = SOURCES[name.partition("/")[0]]
    if degradation is None:
        return {"name": name, "what": "visibility", "levels": [], "neutral": "1", "source": source}
    conditions = degradation.conditions()
    return {
        "name": name,
        "what": degradation.what,
        "levels": [one.level_text for one in conditions if not one.is_neutral],
        "neutral": degradation.condition(degradation.neutral).level_text,
        "source": source,
    }


def _fixed(resources: Resources) -> list[Degradation]:
    return [
        noise("noise/gaussian", "gaussian"),
        noise("noise/fourier", "fourier", resources.spectrum),
        BLUR,
        *GRAY_STUDIES,
        *CORRUPTIONS,
    ]


def _occlusion(form: str, resources: Resources) -> Degradation:
    return occlusion(expand_home(str(resources.occluder_dir)), form, resources.color)


def _unknown(name: str) -> str:
    names = names_of_all()
    groups = list(dict.fromkeys(one.partition("/")[0] for one in names))
    return f"no degradation {name!r}; there are {listed(groups)}{did_you_mean(name, [*groups, *names])}"
