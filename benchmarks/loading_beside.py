"""Loading images beside the peers: the section of the page. `loading.py` has our part and the plain pipeline."""

import os
from collections.abc import Callable
from functools import partial

from loading import GOALS, measure, ours, plain, prepared
from loading_peers import PACKAGES, peer_passes
from results import Goal, Section, Values, median_compared

from accel_trainer.data.loader import Loader

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
    folder, files, raw, jpeg = prepared(NUM_IMAGES)
    peers, missing = peer_passes(folder, threads)
    with Loader(threads) as loader:
        own = partial(ours, loader=loader, on_device=False)
        passes = {PLAIN: plain(folder, threads), **peers}
        passes |= {OURS: own(files), f"{OURS}, raw pack": own(raw), f"{OURS}, JPEG pack": own(jpeg)}
        values = measure(passes, rounds, say)
    return Section("Loading images", ABOUT, "images/s", values, PLAIN, goals=goals(values), missing=missing)


def goals(values: Values) -> list[Goal]:
    found = []
    for key, least in GOALS.items():
        if (ratio := median_compared(values, NAMES[key], PLAIN)) is not None:
            found.append(Goal(f"`{NAMES[key]}` at least {least:g} times the plain pipeline", ratio, ratio >= least))
    return found
