"""What an evaluation is of: names of images, digests of images and weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accel_trainer.core.disk_calls import never
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.listing import Listed


def image_names(source: ImageDataset) -> list[str]:
    """What the images are called in files: paths below their folder, or below that of their class with its name, or
    numbers."""
    indices = np.arange(len(source.labels))
    if not isinstance(source, Listed):
        return [str(index) for index in indices.tolist()]
    names = source.names(indices)
    classes = [source.classes[label] for label in source.labels.tolist()]
    return [f"{label}/{name}" if label else name for label, name in zip(classes, names, strict=True)]


def images_digest(source: ImageDataset, names: Sequence[str]) -> str:
    """SHA-256 of the names of images and the marks of their contents."""
    images = hashlib.sha256("\n".join(names).encode(errors="surrogateescape"))
    if isinstance(source, Listed):
        images.update(source.marks(np.arange(len(names)), never).tobytes())
    return images.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
