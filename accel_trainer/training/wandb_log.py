"""What earlier attempts at a run have left in wandb's files: what of which epochs is logged already.

The files are logs as LevelDB writes them, of wandb's own messages.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from accel_trainer.core.files import read_bytes

BLOCK, HEADER, FILE_HEADER = 32768, 7, b":W&B"
WHOLE, FIRST, MIDDLE, LAST = range(1, 5)
MAX_LOG = 2**31


EPOCH, STEP = "epoch", "step"


class Kind(Enum):
    """What a row of a run's history is of."""

    EPOCH = "an epoch's training and validation"
    STEPS = "some steps of training"
    HISTOGRAMS = "histograms of a step"
    DEGRADED = "degraded images after an epoch"
    BEST_DEGRADED = "degraded images and the best weights"

    @property
    def axis(self) -> str:
        """What its number counts."""
        return STEP if self in (Kind.STEPS, Kind.HISTOGRAMS) else EPOCH


Row = tuple[Kind, int]
"""A kind, and the number of the epoch or of the step, over all epochs."""
# What the names of a row's values begin with.
STEPS, PARAMETERS, GRADIENTS = "steps/", "parameters/", "gradients/"
DEGRADED, BEST_DEGRADED = "degraded/", "best/degraded"


def logged_rows(folder: Path, id_: str) -> frozenset[Row]:
    """The rows of the history, by kind and number, in the files of a run below wandb's folder, online or not. A file
    that is cut off is read as far as it goes; of one that cannot be read nothing is known."""
    found = set[Row]()
    for path in sorted(folder.glob(f"*run-*-{id_}/run-{id_}.wandb")):
        with suppress(OSError, ValueError):
            found.update(_rows(read_bytes(path, MAX_LOG)))
    return frozenset(found)


def _kind(names: Iterable[str]) -> Kind:
    names = list(names)
    if STEP in names:
        return Kind.STEPS if any(name.startswith(STEPS) for name in names) else Kind.HISTOGRAMS
    if any(name.startswith(BEST_DEGRADED) for name in names):
        return Kind.BEST_DEGRADED
    return Kind.DEGRADED if any(name.startswith(DEGRADED) for name in names) else Kind.EPOCH


def _rows(content: bytes) -> Iterator[Row]:
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    for part in _records(content):
        record = messages.Record()
        try:
            record.ParseFromString(part)
        except DecodeError:
            return
        if record.WhichOneof("record_type") == "history":
            values = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            with suppress(ValueError, KeyError, TypeError):
                kind = _kind(values)
                yield kind, int(json.loads(values[kind.axis]))


def _records(content: bytes) -> Iterator[bytes]:
    """The messages of a file, up to where it is cut off. Raises ValueError for a file of something else."""
    if not content.startswith(FILE_HEADER):
        raise ValueError("no log of wandb")
    place, parts = HEADER, list[bytes]()
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # what is left of a block has no room for a header
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        part = content[place + HEADER : place + HEADER + size]
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or len(part) < size:
            return
        parts = [part] if kind in (WHOLE, FIRST) else [*parts, part]
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
        place += HEADER + size
