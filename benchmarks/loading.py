"""Loading images beside the usual way: `python benchmarks/loading.py`.

Photographs of 500 x 375 as JPEG files of about 90 KB, random resized crops of 224, flips. The plain pipeline is
torchvision's ImageFolder, v2 transforms on floats and a DataLoader with two worker processes; ours has as many threads,
on the same files and on packs of them. All in turn, A B C A B C, after a warm-up; medians of the images per second and
of the ratio round by round. Images come as normalised floats, or as the uint8 that a GPU is given.
"""

import argparse
import itertools
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from accel_trainer.data.augment.geometry import MEAN, STD, RandomResizedCrop
from accel_trainer.data.batch_plan import TrainBatchPlanner
from accel_trainer.data.dataset import Splits
from accel_trainer.data.loader import ImageReader, Loader
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.data.views import Augmentations, Views

SIZE, BATCH, WIDTH, HEIGHT, CLASSES = 224, 64, 500, 375, 4
BYTES = 90_000
MIN_SECONDS = 1.0
# What each is to reach, in multiples of the plain pipeline.
GOALS = {"ours": 3.0, "ours, raw pack": 16.0}

Pass = Callable[[int], Iterator[torch.Tensor]]


def make_photographs(folder: Path, number: int) -> None:
    """Cut from the photographs that come with scikit-learn and scikit-image, mirrored or not, in files of one size."""
    taken = [*load_sample_images().images, skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket()]
    pictures = [Image.fromarray(image) for image in taken]
    generator = np.random.default_rng(0)
    for split, count in (("train", number), ("val", CLASSES)):
        for image in range(count):
            picture = pictures[image % len(pictures)]
            x, y = (int(generator.integers(0, room + 1)) for room in (picture.width - WIDTH, picture.height - HEIGHT))
            cut = picture.crop((x, y, x + WIDTH, y + HEIGHT))
            if generator.random() < 0.5:
                cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            path = folder / split / "abcd"[image % CLASSES] / f"{image:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_at_size(cut, path)


def save_at_size(image: Image.Image, path: Path) -> None:
    """The best quality that takes no more bytes."""
    for quality in range(100, 50, -1):
        image.save(path, quality=quality)
        if path.stat().st_size <= BYTES:
            return


def photographs(folder: Path, number: int) -> Path:
    """Made once for this number, and kept."""
    made = folder / f"photographs-of-90-kb-{number}"
    if not made.exists():
        aside = Path(tempfile.mkdtemp(dir=folder))
        make_photographs(aside, number)
        aside.rename(made)
    return made


def plain(folder: Path, workers: int) -> Pass:
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(SIZE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.Normalize(MEAN, STD),
        ]
    )
    images = ImageFolder(str(folder / "train"), transform)
    loader = DataLoader(images, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    return lambda _: (batch for batch, _ in loader)


def ours(images: Splits, loader: Loader, *, on_device: bool, batch: int = BATCH, size: int = SIZE) -> Pass:
    views = Views(Augmentations(RandomResizedCrop(size)), on_device=on_device)
    read = ImageReader(images.train, views, replace_corrupt=True)
    sampling = TrainBatchPlanner(len(images.train.labels), batch, accumulation=1, world_size=1, seed=0)
    return lambda epoch: (made.inputs.images for made in loader.batches(read, sampling.micro_batches(epoch, rank=0)))


def images_per_s(read_all: Pass, epochs: Iterator[int]) -> float:
    """Over as many epochs as take a second, their beginnings included."""
    began, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < MIN_SECONDS:
        for batch in read_all(next(epochs)):
            count += len(batch)
    return count / seconds


def packed(images: Splits, folder: Path, storage: str) -> Splits:
    place = folder / f"{storage}.pack"
    how = PackSettings(256, storage, 90 if storage == "jpeg" else None)  # type: ignore[arg-type]
    pack(images, str(folder), place, how, 2, lambda done, total: None)
    return open_data_set(str(place), folder, None, None)


def prepared(number: int) -> tuple[Path, Splits, Splits, Splits]:
    """So many photographs: their folder, and the sets that the files, a raw and a JPEG pack of them are."""
    place = Path(tempfile.gettempdir()) / "accel-train-loading"
    place.mkdir(exist_ok=True)
    folder = photographs(place, number)
    files = open_data_set(str(folder), place, None, None)
    return folder, files, packed(files, folder, "raw"), packed(files, folder, "jpeg")


def measure(passes: dict[str, Pass], rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Images per second of each, `rounds` times in turn, after a warm-up."""
    values: dict[str, list[float]] = {name: [] for name in passes}
    epochs = itertools.count(1)
    for number in range(rounds + 1):
        for name, read_all in passes.items():
            speed = images_per_s(read_all, epochs)
            say(f"round {number} of {rounds}  {name:<44}{speed:7.0f} images/s")
            if number:
                values[name].append(speed)
    return values


def compare(passes: dict[str, Pass], rounds: int) -> None:
    found = measure(passes, rounds, lambda line: None)
    first = found[next(iter(found))]
    for name, speeds in found.items():
        ratio = statistics.median(a / b for a, b in zip(speeds, first, strict=True))
        goal = f"  (at least {GOALS[name]:g})" if name in GOALS else ""
        print(f"{name:<32}{statistics.median(speeds):9,.0f} images/s {ratio:7.2f} times{goal}")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def watch_memory(read_all: Pass, epochs: int) -> None:
    """Resident memory after some epochs and after all."""
    seen = []
    for epoch in range(epochs):
        for _ in read_all(epoch + 1):
            pass
        seen.append(resident_mb())
    early = epochs // 10
    print(f"resident memory: {seen[early]:.0f} MB after {early + 1} epochs, {seen[-1]:.0f} MB after {epochs}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--epochs", type=int, default=0, help="only watch the memory over so many epochs")
    options = parser.parse_args()
    folder, files, raw, jpeg = prepared(options.images)
    with Loader(options.threads) as loader:
        if options.epochs:
            watch_memory(ours(files, loader, on_device=False), options.epochs)
            return
        each = partial(ours, loader=loader)
        passes = {
            "plain, 2 worker processes": plain(folder, 2),
            "ours": each(files, on_device=False),
            "ours, raw pack": each(raw, on_device=False),
            "ours, jpeg pack": each(jpeg, on_device=False),
            "ours, uint8": each(files, on_device=True),
            "ours, raw pack, uint8": each(raw, on_device=True),
            "ours, jpeg pack, uint8": each(jpeg, on_device=True),
        }
        compare(passes, options.rounds)


if __name__ == "__main__":
    main()
