"""How images are to be preprocessed for weights that were not trained here, as those who publish them say."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torchvision import models
from torchvision.transforms._presets import ImageClassification

from accel_trainer.core.files import read_json
from accel_trainer.training.pretrained.starting_weights import published_weights
from accel_trainer.zoo import timm_models

# The one in which images are resized here, antialiased.
BILINEAR = "bilinear"
# What hubs call the file beside weights that says how to use them.
CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class Preprocessing:
    """Resize, center crop and normalization. eval_crop: the share of the shorter side that the crop keeps, as in a job;
    source: who says so."""

    image_size: int
    eval_crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    source: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a job that mean the same."""
        about = {"image_size": self.image_size, "eval_crop": self.eval_crop}
        return {**about, "mean": list(self.mean), "std": list(self.std)}


def preprocessing_of(
    architecture: str, published: models.WeightsEnum | None, file: Path | None
) -> Preprocessing | None:
    """That of published weights; else what a config.json beside the file says; else timm's for one of its
    architectures. None where nobody says."""
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
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
        source=str(published),
    )


def _beside(file: Path) -> Preprocessing | None:
    """As timm and its hub write it, under `pretrained_cfg`."""
    with suppress(OSError, ValueError):
        content = read_json(file.with_name(CONFIG_NAME))
        if isinstance(content, Mapping) and isinstance(about := content.get("pretrained_cfg"), Mapping):
            return _of_timms_config(about, str(file.with_name(CONFIG_NAME)))
    return None


def _timms(architecture: str) -> Preprocessing | None:
    name = architecture.removeprefix(timm_models.PREFIX)
    if name == architecture or not timm_models.is_installed():
        return None
    return _of_timms_config(timm_models.default_config(name), f"timm's default for {name}")


def _of_timms_config(about: Mapping[str, Any], source: str) -> Preprocessing | None:
    """None where it is not said, or not of the form that timm writes."""
    size, mean, std = (_numbers(about.get(key)) for key in ("input_size", "mean", "std"))
    if size is None or mean is None or std is None:
        return None
    share = about.get("crop_pct")
    return Preprocessing(
        image_size=int(size[-1]),
        eval_crop=float(share) if isinstance(share, int | float) and 0 < share <= 1 else 1.0,
        mean=mean,
        std=std,
        interpolation=str(about.get("interpolation") or BILINEAR),
        source=source,
    )


def _numbers(value: object) -> tuple[float, ...] | None:
    """Three numbers; None where it is anything else."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    return tuple(value) if all(isinstance(one, int | float) for one in value) else None
