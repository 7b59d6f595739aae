"""Loading images beside the peers: the section of the page. `loading.py` has our part and the plain pipeline."""

import os
from collections.abc import Callable
from functools import partial

from loading import GOALS, measure, ours, plain, prepared
from loading_peers import DALI, FFCV_JPEG, FFCV_RAW, FFCV_SMALL_JPEG, PACKAGES, peer_passes
from results import Goal, Section, Values, median_compared

from accel_trainer.data.loader import Loader

__all__ = ["PACKAGES", "section"]

NUM_IMAGES = 1024
PLAIN, OURS = "ImageFolder, v2 transforms on floats", "accel-train"
RAW_PACK, JPEG_PACK = f"{OURS}, raw pack", f"{OURS}, JPEG pack"
# Who, how many times at least, of whom.
BESIDE = (
    (OURS, GOALS["ours"], PLAIN),
    (OURS, 1.0, DALI),
    (OURS, 1.0, FFCV_JPEG),
    (RAW_PACK, GOALS["ours, raw pack"], PLAIN),
    (RAW_PACK, 2.0, FFCV_RAW),
    (JPEG_PACK, 1.0, FFCV_SMALL_JPEG),
)
ABOUT = f"""\
{NUM_IMAGES:,} photographs of 500x375, JPEG files of about 90 KB cut from those that come with scikit-learn and
scikit-image; random resized crops of 224 and flips, in batches of 64, as normalised floats on the CPU. Images per
second of whole passes, with two worker processes or two threads. The raw and JPEG packs are what `accel-train pack`
makes of the same files, with a shorter side of 256 pixels; so are FFCV's files of that size, and its other one has the
photographs as they are, encoded anew. DALI resizes with antialiasing as we do; FFCV resizes with OpenCV, by area."""


def section(rounds: int, say: Callable[[str], None]) -> Section:
    """All in turn, after a pass of each that does not count."""
    threads = min(2, os.cpu_count() or 1)
    folder, files, raw, jpeg = prepared(NUM_IMAGES)
    peers, missing = peer_passes(folder, threads)
    with Loader(threads) as loader:
        own = partial(ours, loader=loader, on_device=False)
        passes = {PLAIN: plain(folder, threads), **peers}
        passes |= {OURS: own(files), RAW_PACK: own(raw), JPEG_PACK: own(jpeg)}
        values = measure(passes, rounds, say)
    return Section("Loading images", ABOUT, "images/s", values, PLAIN, goals=goals(values), missing=missing)


def goals(values: Values) -> list[Goal]:
    """Beside those that took part."""
    found = []
    for own, least, other in BESIDE:
        if (ratio := median_compared(values, own, other)) is not None:
            found.append(Goal(f"`{own}` at least {least:g} times {other}", ratio, ratio >= least))
    return found
