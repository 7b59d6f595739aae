"""The verb that stores a data set ready to be read."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import SOME_FAILED, app, echo, print_problems
from accel_trainer.config import Job
from accel_trainer.config.dataset_names import last_part
from accel_trainer.core.files import expand_home_if_any
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.core.processes import usable_cores
from accel_trainer.core.text import listed

if TYPE_CHECKING:
    from accel_trainer.data.pack.format import Manifest

JPEG_QUALITY = 90
# As in a job.
DATA_ROOT = Path(Job.model_fields["data_root"].default)


class Storage(StrEnum):
    """How a pack stores images."""

    RAW = "raw"
    JPEG = "jpeg"


@app.command()
def pack(
    dataset: Annotated[
        str, typer.Argument(help="Data set, named as in a job; with --verify a pack.", show_default=False)
    ],
    size: Annotated[int, typer.Option("--size", min=1, help="Short side in pixels; smaller images stay.")] = 256,
    storage: Annotated[
        Storage, typer.Option("--format", help="raw: fastest; jpeg: a tenth of the room.")
    ] = Storage.RAW,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of JPEG.")] = JPEG_QUALITY,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder to make; <dataset>-<size>.pack below the data root if not given."),
    ] = None,
    data_root: Annotated[Path, typer.Option("--data-root", help="Where data set folders are.")] = DATA_ROOT,
    image_column: Annotated[str | None, typer.Option("--image-column", help="Of an hf: data set.")] = None,
    label_column: Annotated[str | None, typer.Option("--label-column", help="Of an hf: data set.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Only read a pack and see whether it is sound.")] = False,
) -> None:
    """Store a data set's images small and ready to be read; the same command resumes where it was stopped.

    A job then names the pack as its dataset. It is made by as many threads as there are cores.
    """
    data_root = expand_home_if_any(data_root).absolute()
    if verify:
        _verify(Path(dataset) if Path(dataset).is_dir() else data_root / dataset)
        return
    from accel_trainer.cli.progress import preparation_bar
    from accel_trainer.data.open import open_data_set
    from accel_trainer.data.pack.format import open_pack
    from accel_trainer.data.pack.split_writer import PackSettings
    from accel_trainer.data.pack.writer import pack as write_pack
    from accel_trainer.data.pack.writer import what_is_packed

    how = PackSettings(size, storage.value, quality if storage is Storage.JPEG else None)
    folder = output or data_root / _name(dataset, size, storage)
    with preparation_bar("packing") as progress, waiting_out_until_interrupted():
        images = open_data_set(dataset, data_root, image_column, label_column)
        manifest = write_pack(images, what_is_packed(dataset, data_root), folder, how, usable_cores(), progress)
    open_pack(folder)  # one that was there before may be damaged
    echo(f"{folder}: {_summary(manifest)}")
    echo(f"in a job: {_as_dataset(folder.absolute(), data_root)}")


def _name(dataset: str, size: int, storage: Storage) -> str:
    """Where a pack goes: beside the folder that it is of."""
    name = last_part(dataset).replace(":", "-")
    of_kind = "" if storage is Storage.RAW else f"-{storage}"
    return f"{name.rstrip('/').removesuffix('.pack')}-{size}{of_kind}.pack"


def _as_dataset(folder: Path, data_root: Path) -> str:
    root = data_root if folder.is_relative_to(data_root) else folder.parent
    dataset = f'"dataset": {json.dumps(str(folder.relative_to(root)))}'
    is_default = root == expand_home_if_any(DATA_ROOT).absolute()
    return dataset if is_default else f'{dataset}, "data_root": {json.dumps(str(root))}'


def _summary(manifest: "Manifest") -> str:
    train, val = manifest.splits["train"], manifest.splits["val"]
    corrupt = (train.corrupt or 0) + (val.corrupt or 0)
    megabytes = ((train.size or 0) + (val.size or 0)) / 1e6
    text = f"{train.images:,} training and {val.images:,} validation images, {megabytes:,.1f} MB"
    return text + (f"; {corrupt:,} of them are corrupt" if corrupt else "")


def _verify(folder: Path) -> None:
    """Exit code 1 where an image is damaged."""
    from accel_trainer.cli.progress import preparation_bar
    from accel_trainer.data.pack.format import read_manifest
    from accel_trainer.data.pack.writer import damaged_images

    with preparation_bar("verifying") as progress, waiting_out_until_interrupted():
        bad = list(damaged_images(folder, usable_cores(), progress))
    if bad:
        print_problems([f"{folder}: damaged images: {listed(bad, 5)}; delete the pack and pack again"])
        raise typer.Exit(SOME_FAILED)
    echo(f"{folder}: sound: {_summary(read_manifest(folder))}")
