"""Small data sets in the layouts of the datasets library."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

PETS = datasets.ClassLabel(names=["cat", "dog"])


def picture(brightness: int) -> Image.Image:
    return Image.fromarray(np.full((4, 5, 3), brightness, np.uint8))


def encoded(brightness: int) -> bytes:
    file = io.BytesIO()
    picture(brightness).save(file, "PNG")
    return file.getvalue()


def split(labels: list[Any], kind: Any = PETS, image: str = "image", label: str = "label") -> datasets.Dataset:
    """A split whose n-th image has brightness n."""
    columns = {image: [picture(n) for n in range(len(labels))], label: labels}
    return datasets.Dataset.from_dict(columns, datasets.Features({image: datasets.Image(), label: kind}))


def stored(folder: Path, **splits: datasets.Dataset) -> Path:
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def parquet_files(folder: Path, **labels_of: list[Any]) -> Path:
    """Files of pets, each by its path below the folder, with __ for /, and its labels."""
    for name, labels in labels_of.items():
        path = folder / f"{name.replace('__', '/')}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        split(labels).to_parquet(str(path))
    return folder


def image_files(folder: Path, *names: str) -> Path:
    """PNG files below a folder; the n-th has brightness n."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path, "PNG")
    return folder
