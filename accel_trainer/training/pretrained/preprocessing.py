"""How images are to be preprocessed for weights that were not trained here, as those who publish them say."""

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from torchvision import models
from torchvision.transforms._presets import ImageClassification

from accel_trainer.config.parameters import EvalResize
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_json
from accel_trainer.core.text import listed
from accel_trainer.data.augment.resizing import share_of, short_side_of
from accel_trainer.training.pretrained.starting_weights import published_weights
from accel_trainer.zoo import timm_models

# What hubs call the file beside weights that says how to use them, and what exports call theirs.
CONFIG_NAME, EXPORTED_NAME = "config.json", "preprocessing.json"
_CENTER, _SQUASH = "center", "squash"
# What timm takes where a configuration says nothing.
_TIMMS_OWN: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": _CENTER,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, center crop and normalization. eval_crop: the share of the shorter side that the crop keeps, as in a job;
    resize: how, such as bicubic-squash, which a job may not have; source: who says so."""

    image_size: int
    eval_crop: float
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def parameters(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a job that mean the same, but for those that are set otherwise. Raises UserError where a
        job cannot mean it."""
        known = get_args(EvalResize)
        if self.resize not in known and "eval_resize" not in settings:
            there = f"there are {listed(known, len(known))}"
            raise self._other(f"resizes by {self.resize!r}; {there}", "eval_resize", "bicubic")
        if self.eval_crop > 1 and "eval_crop" not in settings:
            what = f"crops {self.eval_crop:g} of the shorter side, which is more than there is"
            raise self._other(what, "eval_crop", "1")
        about = {"image_size": self.image_size, "eval_crop": self.eval_crop, "eval_resize": self.resize}
        found = {**about, "mean": list(self.mean), "std": list(self.std)}
        return {key: value for key, value in found.items() if key not in settings}

    def _other(self, what: str, key: str, value: str) -> UserError:
        hint = f"{key}={value} evaluates them otherwise than those who publish them"
        return UserError(f"{self.source} {what}", hint=hint, option="set")


def preprocessing_of(
    architecture: str, published: models.WeightsEnum | None, file: Path | None
) -> Preprocessing | None:
    """That of published weights; else what a file beside them says, of an export or of timm's hub; else timm's for one
    of its architectures. None where nobody says. Raises UserError for images that are not square."""
    if published is not None:
        return _torchvisions(published)
    if file is not None and (found := _beside(file)) is not None:
        return found
    return _timms(architecture)


def published_as(architecture: str, file: Path) -> models.WeightsEnum | None:
    """Which of torchvision's weights for an architecture a file is: by its name, which ends in the first digits of its
    SHA-256, such as resnet50-11ad3fa6.pth, and by its content. Raises OSError."""
    known = published_weights(architecture).values()
    found = next((one for one in known if PurePosixPath(one.url).name == file.name), None)
    if found is None:
        return None
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return found if digest.startswith(file.stem.rpartition("-")[2]) else None


def _torchvisions(published: models.WeightsEnum) -> Preprocessing | None:
    transform = published.transforms()
    if not isinstance(transform, ImageClassification):  # of clips
        return None
    (size,), (short_side,) = transform.crop_size, transform.resize_size
    return Preprocessing(
        image_size=size,
        eval_crop=min(1.0, size / short_side),
        resize=str(transform.interpolation.value),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        source=str(published),
    )


def _beside(file: Path) -> Preprocessing | None:
    """As an export has it, or timm and its hub under `pretrained_cfg`."""
    for name, read in ((EXPORTED_NAME, _of_export), (CONFIG_NAME, _of_hub)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if (found := read(read_json(file.with_name(name)), str(file.with_name(name)))) is not None:
                return found
    return None


def _of_export(about: Mapping[str, Any], source: str) -> Preprocessing | None:
    """What preprocessing.json says of images; None for clips. Raises KeyError and TypeError for another file."""
    if about["frames"] is not None:
        return None
    mean, std = _numbers(about["mean"]), _numbers(about["std"])
    if mean is None or std is None:
        return None
    size, side = int(about["image_size"]), int(about["resize_shorter_side_to"])
    resize = _resize(str(about["interpolation"]), _SQUASH if about.get("squash") else str(about["crop"]))
    return Preprocessing(size, share_of(size, side), resize, mean, std, source)


def _of_hub(content: Mapping[str, Any], source: str) -> Preprocessing | None:
    about = content.get("pretrained_cfg")
    return _of_timms_config(about, source) if isinstance(about, Mapping) else None


def _timms(architecture: str) -> Preprocessing | None:
    name = architecture.removeprefix(timm_models.PREFIX)
    if name == architecture or not timm_models.is_installed():
        return None
    return _of_timms_config(timm_models.default_config(name), f"timm's default for {name}")


def _of_timms_config(about: Mapping[str, Any], source: str) -> Preprocessing | None:
    """As timm's `resolve_data_config` and `transforms_imagenet_eval` read it; None where it says nothing of images, or
    not in the form that timm writes. Raises UserError for images that are not square."""
    whole = {key: about.get(key) or value for key, value in _TIMMS_OWN.items()}
    size, mean, std = (_numbers(whole[key]) for key in ("input_size", "mean", "std"))
    share = whole["crop_pct"]
    if (
        not (about.keys() & whole.keys())
        or size is None
        or mean is None
        or std is None
        or not isinstance(share, int | float)
    ):
        return None
    if size[1] != size[2]:
        raise UserError(f"{source} is for images of {size[1]:g} x {size[2]:g} pixels; only squares are evaluated")
    side = math.floor(size[2] / share)
    return Preprocessing(
        image_size=int(size[2]),
        eval_crop=float(share) if side == short_side_of(int(size[2]), share) else share_of(int(size[2]), side),
        resize=_resize(str(whole["interpolation"]), str(whole["crop_mode"])),
        mean=mean,
        std=std,
        source=source,
    )


def _resize(interpolation: str, crop_mode: str) -> str:
    return interpolation if crop_mode == _CENTER else f"{interpolation}-{crop_mode}"


def _numbers(value: object) -> tuple[float, ...] | None:
    """Three numbers; None where it is anything else."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    return tuple(value) if all(isinstance(one, int | float) for one in value) else None
