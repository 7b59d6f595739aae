"""How others load images for training: random resized crops and flips of an ImageFolder tree, normalised floats.

Each gives a pass over all images in an order of its own, with as many worker processes or threads as it is told. What
is not installed is named, with why.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from machine import NOT_INSTALLED, versions
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

SIZE, BATCH = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PACKAGES = ("torchvision", "timm", "nvidia-dali-cuda120", "ffcv")

Pass = Callable[[int], Iterator[torch.Tensor]]


def torchvision_images(folder: Path, size: int = SIZE) -> ImageFolder:
    """The training preset of torchvision's classification reference: Pillow crops before there are floats."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            v2.ToPureTensor(),
        ]
    )
    return ImageFolder(str(folder / "train"), transform)


def torchvision_reference(folder: Path, workers: int) -> Pass:
    images = torchvision_images(folder)
    loader = DataLoader(images, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    return lambda _: (batch for batch, _ in loader)


def timm_batches(
    folder: Path, workers: int, batch: int = BATCH, size: int = SIZE, device: str = "cpu", **options: Any
) -> Any:
    """timm's loader of images and labels on the device; options: further ones of `create_loader`."""
    from timm.data import create_dataset, create_loader

    return create_loader(
        create_dataset("", root=str(folder / "train")),
        (3, size, size),
        batch,
        is_training=True,
        color_jitter=0.0,
        num_workers=workers,
        device=torch.device(device),
        **options,
    )


def timm_loader(folder: Path, workers: int) -> Pass:
    loader = timm_batches(folder, workers)
    return lambda _: (batch for batch, _ in loader)


def dali(folder: Path, workers: int) -> Pass:
    """NVIDIA's DALI on the CPU, with as many threads."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    @pipeline_def  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        files, labels = fn.readers.file(file_root=str(folder / "train"), random_shuffle=True, name="files")
        crops = fn.decoders.image_random_crop(files, device="cpu", output_type=types.RGB)
        resized = fn.resize(crops, size=(SIZE, SIZE), antialias=True)
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        floats = fn.crop_mirror_normalize(
            resized, mirror=fn.random.coin_flip(), mean=mean, std=std, dtype=types.FLOAT, output_layout="CHW"
        )
        return floats, labels

    pipe = pipeline(batch_size=BATCH, num_threads=workers, device_id=None, seed=0)
    pipe.build()
    batches = DALIGenericIterator(pipe, ["images", "labels"], reader_name="files", auto_reset=True)
    return lambda _: (batch[0]["images"] for batch in batches)


def ffcv(mode: str, longest: int | None) -> Callable[[Path, int], Pass]:
    """FFCV, from a file of its own with JPEGs or plain pixels, resized to a longest side where one is named."""

    def make(folder: Path, workers: int) -> Pass:
        import numpy as np
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
        from ffcv.writer import DatasetWriter

        packed = folder / f"{mode}-{longest}.beton"
        if not packed.exists():
            fields = {"image": RGBImageField(mode, longest), "label": IntField()}
            aside = packed.with_suffix(".tmp")
            writer = DatasetWriter(str(aside), fields, num_workers=workers)
            writer.from_indexed_dataset(ImageFolder(str(folder / "train")))
            aside.rename(packed)
        mean, std = (255 * np.array(values) for values in (MEAN, STD))
        # What numba compiles comes first: in another order FFCV looks for one for ever.
        compiled = [
            RandomResizedCropRGBImageDecoder((SIZE, SIZE)),
            RandomHorizontalFlip(),
            NormalizeImage(mean, std, np.float32),
        ]
        loader = Loader(
            str(packed),
            batch_size=BATCH,
            num_workers=workers,
            os_cache=True,
            order=OrderOption.RANDOM,
            drop_last=True,
            pipelines={"image": [*compiled, ToTensor(), ToTorchImage()], "label": [IntDecoder(), ToTensor()]},
        )
        return lambda _: (images for images, _ in loader)

    return make


DALI, FFCV_JPEG, FFCV_SMALL_JPEG, FFCV_RAW = (
    "NVIDIA DALI on the CPU",
    "FFCV, JPEG",
    "FFCV, JPEG of 256",
    "FFCV, raw of 256",
)
# The longest side of photographs of 500x375 whose shorter one becomes 256.
LONGEST = 341
PEERS: dict[str, tuple[str, Callable[[Path, int], Pass]]] = {
    "torchvision reference": ("torchvision", torchvision_reference),
    "timm": ("timm", timm_loader),
    DALI: ("nvidia-dali-cuda120", dali),
    FFCV_JPEG: ("ffcv", ffcv("jpg", None)),
    FFCV_SMALL_JPEG: ("ffcv", ffcv("jpg", LONGEST)),
    FFCV_RAW: ("ffcv", ffcv("raw", LONGEST)),
}


def peer_passes(folder: Path, workers: int) -> tuple[dict[str, Pass], dict[str, str]]:
    """Those that are installed; and why the others are not there."""
    found = versions(package for package, _ in PEERS.values())
    missing = {name: f"`{p}` is {NOT_INSTALLED}" for name, (p, _) in PEERS.items() if found[p] == NOT_INSTALLED}
    there = {name: make(folder, workers) for name, (_, make) in PEERS.items() if name not in missing}
    return there, missing
