"""Sample sheets of runs, made small enough for a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from accel_trainer.core.files import MEBIBYTE, read_bytes
from accel_trainer.run.folder import RunFolder

MAX_SHEET, MAX_PIXELS = 64 * MEBIBYTE, 2**26
# Of all pictures of a page together, and of one of them.
ALL_BYTES, MOST_BYTES, FEWEST_BYTES = 900_000, 60_000, 4_000
# Width in pixels and quality of a JPEG, the best first.
STEPS = ((720, 80), (560, 75), (420, 70), (320, 65), (240, 55), (160, 45))


@dataclass(frozen=True)
class Sheet:
    """What the runs of these places, which differ in the seed only, were shown; the picture is that of the first one
    that has any. source: a data URL."""

    runs: list[int]
    source: str
    width: int
    height: int


def sheets_of(folders: Sequence[RunFolder], replicates: Sequence[Sequence[int]]) -> list[Sheet]:
    """A sheet for each group of replicates of which a run has one that can be read. replicates: places of runs."""
    there = [
        (places, path)
        for places in replicates
        if (path := next((p for run in places if (p := folders[run].sample_inputs).is_file()), None)) is not None
    ]
    if not there:
        return []
    most = max(FEWEST_BYTES, min(MOST_BYTES, ALL_BYTES // len(there)))
    sheets = [(places, _small(path, path.stat().st_mtime_ns, most)) for places, path in there]
    return [Sheet(list(places), *small) for places, small in sheets if small is not None]


@lru_cache(1024)
def _small(path: Path, modified_ns: int, most: int) -> tuple[str, int, int] | None:
    """A data URL of a picture, smaller than so many bytes if that is possible, with its size; None where it is none
    that can be read. A page that is written again makes no picture again that is the same."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read_bytes(path, MAX_SHEET)), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            whole = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    for width, quality in STEPS:
        shown = whole
        if width < whole.width:
            shown = whole.resize((width, max(1, whole.height * width // whole.width)), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        shown.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= most:
            break
    url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    return url, shown.width, shown.height
