"""How loading grows: `python benchmarks/growth.py` writes docs/growth.md and its picture.

Images per second against threads, batch size and the size of crops, of the files and the raw pack of loading.py; and
what it takes to open a data set of a thousand to a million images, each time in a process of its own. All in turn,
round after round; medians.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from loading import Pass, images_per_s, ours, prepared, resident_mb
from machine import Machine, this_machine, versions
from page import about, table

from accel_trainer.data.dataset import Splits
from accel_trainer.data.loader import Loader
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack

DOCS = Path(__file__).parent.parent / "docs"
PICTURE = "growth.png"
NUM_IMAGES = 1024
USUAL = {"threads": 2, "batch": 64, "crop": 224}
# One is changed, the others are as usual.
CHANGES: Mapping[str, Sequence[int]] = {
    "threads": (1, 2, 4, 8),
    "batch": (16, 64, 256),
    "crop": (64, 128, 224, 320),
}
NAMES = {"threads": "threads", "batch": "images in a batch", "crop": "pixels of a crop's side"}
COUNTS = (1_000, 10_000, 100_000, 1_000_000)
CLASSES = 1000
HEAD = """\
# How loading grows

Written by `python benchmarks/growth.py`. Photographs of 500x375, as JPEG files of about 90 KB and as a raw pack with a
shorter side of 256 pixels; random resized crops and flips, as the bytes that a GPU is given. Where nothing else is
said: 2 threads, batches of 64, crops of 224.
"""
OPENING = """\
## Opening a data set

Seconds to list all images and know their classes, and the memory that a process then holds for it, by the number of
images in 1,000 classes. Folders are in the kernel's cache, as they are for every process after the first.
"""


@dataclass(frozen=True)
class Opened:
    seconds: float
    megabytes: float


# -- loading ----------------------------------------------------------------------------------------------------------


def speeds(rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """Images per second by what is changed, to which value, and of what they are loaded."""
    _, files, raw, _ = prepared(NUM_IMAGES)
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for number in range(rounds + 1):
        for changed, values in CHANGES.items():
            for value in values:
                for name, images in (("files", files), ("raw pack", raw)):
                    with _reading(images, **{**USUAL, changed: value}) as read_all:
                        speed = images_per_s(read_all, itertools.count(1))
                    print(f"round {number} of {rounds}  {name}, {changed} {value}: {speed:,.0f} images/s", flush=True)
                    if number:  # the first warms up
                        by_value = found.setdefault(changed, {}).setdefault(value, {})
                        by_value.setdefault(name, []).append(speed)
    return {
        changed: {value: {name: statistics.median(each) for name, each in by.items()} for value, by in values.items()}
        for changed, values in found.items()
    }


@contextmanager
def _reading(images: Splits, threads: int, batch: int, crop: int) -> Iterator[Pass]:
    with Loader(threads) as loader:
        yield ours(images, loader, on_device=True, batch=batch, size=crop)


# -- opening ----------------------------------------------------------------------------------------------------------


def openings(folder: Path, rounds: int) -> dict[int, dict[str, Opened]]:
    """By the number of images, of class folders and of a raw pack."""
    found = {}
    for count in COUNTS:
        made = {"folders": make_folders(folder, count), "raw pack": make_pack(folder, count)}
        runs = [{name: open_in_a_process(place) for name, place in made.items()} for _ in range(rounds)]
        found[count] = {
            name: Opened(
                statistics.median(run[name].seconds for run in runs),
                statistics.median(run[name].megabytes for run in runs),
            )
            for name in made
        }
        print(f"{count:,}: {found[count]}", flush=True)
        for place in made.values():
            shutil.rmtree(place)
    return found


def make_folders(folder: Path, count: int) -> Path:
    """Empty files: nobody looks into them before they are trained on."""
    place = folder / f"folders-{count}"
    for split, number in (("train", count), ("val", CLASSES)):
        for label in range(CLASSES):
            below = place / split / f"n{label:08}"
            below.mkdir(parents=True)
            for image in range(number // CLASSES):
                os.close(os.open(below / f"n{label:08}_{image:06}.JPEG", os.O_CREAT | os.O_WRONLY))
    return place


class Dots:
    """As many images of one pixel."""

    def __init__(self, count: int) -> None:
        self.classes = [f"n{label:08}" for label in range(CLASSES)]
        self.labels = np.repeat(np.arange(CLASSES), count // CLASSES)

    def read(self, index: int) -> torch.Tensor:
        return torch.zeros(3, 1, 1, dtype=torch.uint8)

    def describe(self, index: int) -> str:
        return f"n{index:08}.JPEG"


def make_pack(folder: Path, count: int) -> Path:
    place = folder / f"{count}.pack"
    pack(Splits(Dots(count), Dots(CLASSES)), "", place, PackSettings(256, "raw", None), 2, lambda done, total: None)
    return place


def open_in_a_process(place: Path) -> Opened:
    command = [sys.executable, __file__, "--open", str(place)]
    return Opened(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def open_here(place: Path) -> Opened:
    before, began = resident_mb(), time.perf_counter()
    images = open_data_set(place.name, place.parent, None, None)
    seconds = time.perf_counter() - began
    assert len(images.val.labels) == len(images.classes)
    return Opened(seconds, resident_mb() - before)


# -- the page ---------------------------------------------------------------------------------------------------------


def page(
    machine: Machine,
    rounds: int,
    loaded: Mapping[str, Mapping[int, Mapping[str, float]]],
    opened: Mapping[int, Mapping[str, Opened]],
) -> str:
    parts = [HEAD, about(machine, versions(["torch", "torchvision", "accel-train"]), rounds, datetime.now(UTC).date())]
    parts.append(f"![curves of the tables below]({PICTURE})\n")
    for changed, values in loaded.items():
        rows = [(f"{value:,}", *(f"{by[name]:,.0f}" for name in ("files", "raw pack"))) for value, by in values.items()]
        title = NAMES[changed]
        parts += [f"## {title.capitalize()}\n", table((title, "files, images/s", "raw pack, images/s"), rows)]
    rows = [
        (f"{count:,}", *(text for each in by.values() for text in (f"{each.seconds:.2f}", f"{each.megabytes:.0f}")))
        for count, by in opened.items()
    ]
    parts += [OPENING, table(("images", "folders, s", "folders, MB", "raw pack, s", "raw pack, MB"), rows)]
    return "\n".join(parts)


def draw(
    path: Path, loaded: Mapping[str, Mapping[int, Mapping[str, float]]], opened: Mapping[int, Mapping[str, Opened]]
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 3.4), layout="constrained")
    *speeds_of, seconds, memory = figure.subplots(1, len(loaded) + 2)
    for axes, (changed, values) in zip(speeds_of, loaded.items(), strict=True):
        for name in ("files", "raw pack"):
            axes.plot(list(values), [by[name] for by in values.values()], "o-", label=name)
        axes.set(xlabel=NAMES[changed], ylabel="images/s", ylim=(0, None))
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(values), [str(value) for value in values])
        axes.minorticks_off()
    for axes, what, unit in ((seconds, "seconds", "s to open"), (memory, "megabytes", "MB held")):
        for name in ("folders", "raw pack"):
            axes.plot(list(opened), [getattr(by[name], what) for by in opened.values()], "o-", label=name)
        axes.set(xlabel="images", ylabel=unit, xscale="log", yscale="log")
    for axes in (*speeds_of, seconds, memory):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of the page (%(default)s)")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.open is not None:
        print(json.dumps(vars(open_here(options.open))))
        return
    machine = this_machine()
    loaded = speeds(options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        opened = openings(Path(folder), options.rounds)
    draw(options.output / PICTURE, loaded, opened)
    (options.output / "growth.md").write_text(page(machine, options.rounds, loaded, opened))


if __name__ == "__main__":
    main()
