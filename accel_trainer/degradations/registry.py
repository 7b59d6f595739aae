"""All degradations by their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    forms = {f"{OCCLUSION}/{form}": form for form in FORMS}
    found: dict[str, Degradation] = {}
    problems = []
    for name in dict.fromkeys(names):
        chosen = [one for one in names_of_all() if one == name or one.startswith(f"{name}/")]
        if name in forms:
            chosen = [name]
        if not chosen:
            problems.append(_unknown(name))
        for one in chosen:
            if one not in found:
                found[one] = fixed[one] if one in fixed else _occlusion(forms[one], resources)
    if problems:
        raise UserError(*problems)
    return list(found.values())


def names_of_all() -> list[str]:
    """Every degradation's name; forms of occluders by the name that they have today."""
    return [*(one.name for one in _fixed(Resources())), *(f"{OCCLUSION}/{form}" for form in TODAYS_FORMS)]


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
