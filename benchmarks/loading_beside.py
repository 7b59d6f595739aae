"""Loading images beside the peers: the section of the page. `loading.py` has our part and the plain pipeline."""

import itertools
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loading import GOALS, ours, packed, photographs, plain
from loading import images_per_s as images_per_s_of
from loading_peers import PACKAGES, Pass, peer_passes
from results import Goal, Section, Values, median_compared

from accel_trainer.data.loader import Loader
from accel_trainer.data.sources import open_data_set

__all__ = ["PACKAGES", "section"]

NUM_IMAGES = 1024
PLAIN, OURS = "ImageFolder, v2 transforms on floats", "accel-train"
# As loading.py calls them.
NAMES = {"ours": OURS, "ours, raw pack": f"{OURS}, raw pack"}
ABOUT = f"""\
{NUM_IMAGES:,} photographs of 500x375, JPEG files of about 90 KB cut from the two that come with scikit-learn; random
resized crops of 224 and flips, in batches of 64, as normalised floats on the CPU. Images per second of whole passes,
with two worker processes or two threads. The raw and JPEG packs are what `accel-train pack` makes of the same files,
with a shorter side of 256 pixels."""


def section(rounds: int, say: Callable[[str], None]) -> Section:
    """All in turn, after a pass of each that does not count."""
    threads = min(2, os.cpu_count() or 1)
    place = Path(tempfile.gettempdir()) / "accel-train-loading"
    place.mkdir(exist_ok=True)
    folder = photographs(place, NUM_IMAGES)
    peers, missing = peer_passes(folder, threads)
    files = open_data_set(str(folder), place, None, None)
    raw, jpeg = (packed(files, folder, storage) for storage in ("raw", "jpeg"))
    with Loader(threads) as loader:
        own = partial(ours, loader=loader, on_device=False)
        passes = {PLAIN: plain(folder, threads), **peers}
        passes |= {OURS: own(files), f"{OURS}, raw pack": own(raw), f"{OURS}, JPEG pack": own(jpeg)}
        values = measure(passes, rounds, say)
    return Section("Loading images", ABOUT, "images/s", values, PLAIN, goals=goals(values), missing=missing)


def measure(passes: dict[str, Pass], rounds: int, say: Callable[[str], None]) -> Values:
    values: dict[str, list[float]] = {name: [] for name in passes}
    epochs = itertools.count(1)
    for number in range(rounds + 1):
        for name, read_all in passes.items():
            speed = images_per_s_of(read_all, epochs)
            say(f"round {number} of {rounds}  {name:<44}{speed:7.0f} images/s")
            if number:
                values[name].append(speed)
    return values


def goals(values: Values) -> list[Goal]:
    found = []
    for key, least in GOALS.items():
        if (ratio := median_compared(values, NAMES[key], PLAIN)) is not None:
            found.append(Goal(f"`{NAMES[key]}` at least {least:g} times the plain pipeline", ratio, ratio >= least))
    return found
