"""Draw the pictures of docs/augmentations.md, docs/degradations.md and docs/curves.md: `python docs/draw_pictures.py`.

Those of augmentations are by the code that makes training images.

The photographs come with scikit-learn (china.jpg by danielbuechele and flower.jpg by vultilion, Flickr, CC BY 2.0).
"""

import io
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import draw_curves
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import pixels_of
from accel_trainer.data.augment.spectrum import measure
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.decode import from_array
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.occluders.synthetic import TODAYS_FORMS, make_occluders
from accel_trainer.data.pipeline import training_views
from accel_trainer.data.preview import contact_sheet
from accel_trainer.degradations.contact_sheet import contact_sheet as degraded_sheet
from accel_trainer.degradations.registry import Resources, find_degradations
from accel_trainer.degradations.render import cropped

SIZE, COLUMNS = 150, 6
DEGRADED_SIZE, EVAL_CROP, MAX_BYTES = 224, 0.875, 140_000
CHINA, FLOWER = 0, 1

Tiles = list[tuple[str, Tensor]]


class Photographs:
    """Two photographs, each the only image of its class."""

    classes = ("china", "flower")
    labels = np.array([CHINA, FLOWER])

    def __init__(self) -> None:
        self._pixels = [from_array(load_sample_image(f"{name}.jpg")[:, 100:527]) for name in self.classes]

    def read(self, index: int) -> Tensor:
        return self._pixels[index]

    def describe(self, index: int) -> str:
        return self.classes[index]


PHOTOGRAPHS = Photographs()


def shown(epoch: int = 1, **parameters: Any) -> Tensor:
    """The views of both photographs as a job's model sees them: uint8 (2, views, 3, size, size)."""
    job = Job.model_validate({"architecture": "resnet18", "image_size": SIZE, "transform_type": "none", **parameters})
    spectrum = measure(PHOTOGRAPHS, SIZE) if job.Noise is not None else None
    read = ImageReader(PHOTOGRAPHS, training_views(job, spectrum), replace_corrupt=False)
    both = np.array([CHINA, FLOWER])
    images = pixels_of(read(BatchPlan(epoch, 0, both, both)).inputs.on("cpu"))
    return images.reshape(2, -1, 3, SIZE, SIZE)


def first_epochs(photograph: int, **parameters: Any) -> Tiles:
    return [(f"epoch {epoch}", shown(epoch, **parameters)[photograph, 0]) for epoch in range(1, COLUMNS + 1)]


def one_each(photograph: int, choices: dict[str, dict[str, Any]]) -> Tiles:
    return [(caption, shown(**parameters)[photograph, 0]) for caption, parameters in choices.items()]


def views(photograph: int, what: str, **parameters: Any) -> Tiles:
    return [(f"{what} {number}", image) for number, image in enumerate(shown(**parameters)[photograph])]


def pictures(occluders: str) -> dict[str, Tiles]:
    """Every picture by its name."""

    def occlusion(**section: Any) -> dict[str, Any]:
        return {"Occlusion": {"occluder_dir": occluders, "form": "mudSplash", "visibility": 50, **section}}

    levels = (0.8, 0.6, 0.4, 0.2, 0.0)
    colours: dict[str, Any] = {"random": "random", "[200, 60, 30]": [200, 60, 30], "pink_noise": "pink_noise"}
    fills: dict[str, Any] = {"0": 0, "-1.5": -1.5, "[2, 1, -1.5]": [2, 1, -1.5], '"random"': "random"}
    # The first epoch in which the photograph is one of the half that are erased.
    erased = next(epoch for epoch in count(1) if (shown(epoch, randomerase=0) != shown(epoch))[FLOWER].any())
    two = {"num_views": 2, "batch_size": 4, "transform_type": "contrastive"}
    shared = {"transform_type": "default", "batch_dependence": True, **occlusion()}
    return {
        "default": first_epochs(CHINA, transform_type="default"),
        "default-weak-resize": first_epochs(CHINA, transform_type="default-weak-resize"),
        "contrastive": first_epochs(FLOWER, transform_type="contrastive"),
        "contrastive-no-blur": first_epochs(FLOWER, transform_type="contrastive-no-blur"),
        "randaugment": first_epochs(CHINA, transform_type="none-randaugment"),
        "trivialaugment": first_epochs(CHINA, transform_type="none-trivialaugment"),
        "augmix": first_epochs(CHINA, transform_type="none-augmix"),
        "occlusion-forms": one_each(FLOWER, {form: occlusion(form=form, color=[40, 40, 60]) for form in TODAYS_FORMS}),
        "occlusion-visibility": one_each(
            CHINA, {f"{level}%": occlusion(form="barObl04", visibility=level) for level in (90, 70, 50, 30, 10)}
        ),
        "occlusion-color": one_each(CHINA, {name: occlusion(color=[value]) for name, value in colours.items()}),
        "blur": one_each(CHINA, {f"sigma {sigma:g}": {"Blur": {"sigmas": sigma}} for sigma in (0, 0.5, 1, 2, 4, 8)}),
        "video": views(CHINA, "frame", video=True, Blur={"sigmas": [16, 8, 4, 2, 1, 0]}),
        "noise-gaussian": one_each(
            FLOWER, {f"ssnr {level:g}": {"Noise": {"ssnrs": level}} for level in levels}
        ),
        "noise-fourier": one_each(
            FLOWER, {f"ssnr {level:g}": {"Noise": {"noise_types": "fourier", "ssnrs": level}} for level in levels}
        ),
        "randomerase": [(name, shown(erased, randomerase=value)[FLOWER, 0]) for name, value in fills.items()],
        "cutmix": first_epochs(FLOWER, cutmix=True),
        "mixup": first_epochs(FLOWER, mixup=True),
        "views": views(FLOWER, "view", **two),
        "view-dependence": views(FLOWER, "view", **two, view_dependence=True),
        "batch-dependence": [
            (f"{name}, epoch {epoch}", shown(epoch, **shared)[photograph, 0])
            for epoch in (1, 2, 3)
            for photograph, name in enumerate(PHOTOGRAPHS.classes)
        ],
    }  # fmt: skip


def sheets() -> dict[str, tuple[list[str], int]]:
    """Degradations of each picture of docs/degradations.md, and its width in pixels."""
    forms, half = list(TODAYS_FORMS), len(TODAYS_FORMS) // 2
    corruptions = {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
        "weather": ("snow", "frost", "fog", "brightness", "spatter"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
    }
    return {
        "degraded-noise-blur": (["noise", "blur"], 800),
        "degraded-geirhos": (["geirhos"], 800),
        **{
            f"degraded-imagenet-c-{kind}": ([f"imagenet-c/{name}" for name in names], 800)
            for kind, names in corruptions.items()
        },
        "degraded-occlusion-1": ([f"occlusion/{form}" for form in forms[:half]], 500),
        "degraded-occlusion-2": ([f"occlusion/{form}" for form in forms[half:]], 500),
    }


def draw_sheets(folder: Path, occluders: str) -> None:
    """Each at the best quality at which it is small."""
    image = cropped(PHOTOGRAPHS, CHINA, DEGRADED_SIZE, EVAL_CROP)
    for name, (degradations, width) in sheets().items():
        found = find_degradations(degradations, Resources(Path(occluders)))
        sheet = degraded_sheet(image, [one for each in found for one in each.conditions()], "china", width=width)
        for quality in range(88, 30, -4):
            encoded = io.BytesIO()
            sheet.save(encoded, "JPEG", quality=quality)
            if len(encoded.getvalue()) < MAX_BYTES:
                break
        (folder / f"{name}.jpg").write_bytes(encoded.getvalue())
        print(folder / f"{name}.jpg")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as occluders:
        make_occluders(Path(occluders), list(TODAYS_FORMS), [10, 30, 50, 70, 90], number=3, report=lambda line: None)
        for name, tiles in pictures(occluders).items():
            captions, images = zip(*tiles, strict=True)
            sheet = contact_sheet(torch.stack(images), captions, min(COLUMNS, len(images)))
            Image.open(io.BytesIO(sheet)).save(folder / f"{name}.jpg", quality=88)
            print(folder / f"{name}.jpg")
        draw_sheets(folder, occluders)
        for path in draw_curves.draw(folder, Path(occluders) / "runs"):
            print(path)


if __name__ == "__main__":
    main()
