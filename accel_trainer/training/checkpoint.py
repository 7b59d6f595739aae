"""What is kept of a run: weights for people, and states to go on from.

A state is a folder `resume/<global step>/` that appears by a rename when everything in it, checksums last, has
reached the disk. What does not match its checksums is passed over, and the state before it is used.
"""

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save, save_file
from torch import Tensor

from accel_trainer.errors import UserError, first_line
from accel_trainer.runs import RunFolder, sync_folder, write_atomic

log = logging.getLogger(__name__)

KEEP_STATES = 2
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
TRAINER = "trainer.pt"
STATE_NAME = re.compile(r"\d{9,}-\d{4,}")


def save_weights(path: Path, state_dict: Mapping[str, Tensor], **about: str) -> None:
    """Write weights so that `safetensors.torch.load_file` and a plain model's `load_state_dict` take them."""
    # A copy of each: safetensors refuses tensors that share memory, which tied weights do.
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in state_dict.items()
    }
    write_atomic(path, save(tensors, metadata={"format": "pt", **about}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Weights that `save_weights` wrote. Raises UserError."""
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as weights: {error}") from error


@dataclass
class Progress:
    """How far a run has come, and what it has measured. All that is needed to go on, but for tensors.

    epoch: epochs that are over, with their validation; step: optimizer steps of the next epoch that are done.
    history: the rows of performance.csv.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    epoch_seconds: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainState:
    """A whole state: `tensors` is the model, `trainer` what the restricted unpickler takes back (optimizer,
    schedule, loss scaler, sums of every rank)."""

    progress: Progress
    model: Mapping[str, Tensor]
    trainer: Mapping[str, Any]
    num_processes: int


class StateStore:
    """The states of one run."""

    def __init__(self, run: RunFolder) -> None:
        self.folder = run.resume

    def save(self, state: TrainState) -> None:
        """Write a state aside, make it durable, rename it into place, then drop all but the newest few."""
        self.folder.mkdir(exist_ok=True)
        self._clean()
        aside = self.folder / f".{secrets.token_hex(4)}.tmp"
        aside.mkdir()
        try:
            model = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in state.model.items()}
            save_file(model, aside / MODEL)
            torch.save(dict(state.trainer), aside / TRAINER)
            manifest = {
                "progress": asdict(state.progress),
                "num_processes": state.num_processes,
                "sha256": {name: _sha256(aside / name) for name in (MODEL, TRAINER)},
            }
            for name in (MODEL, TRAINER):
                _sync(aside / name)
            _write(aside / MANIFEST, json.dumps(manifest).encode())
            sync_folder(aside)
            target = self._path(state.progress)
            if target.exists():  # the same step again: a corrupt state of an earlier attempt, or one of this moment
                shutil.rmtree(target)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(self.folder)
        for old in self._newest_first()[KEEP_STATES:]:
            shutil.rmtree(old)

    def newest(self) -> TrainState | None:
        """The newest state that is whole, or None. One that is not is named in the log."""
        return next(self._whole_states(), None)

    def at_epoch(self, epoch: int) -> TrainState | None:
        """The state at the end of an epoch, if it is still there."""
        ends = (s for s in self._whole_states() if (s.progress.epoch, s.progress.step) == (epoch, 0))
        return next(ends, None)

    def _whole_states(self) -> Iterator[TrainState]:
        for path in self._newest_first():
            try:
                yield _load(path)
            except Exception as error:  # a damaged file can fail in every way there is
                log.warning("the state %s is not whole (%s); using the one before it", path, first_line(error))

    def keep_only_newest(self) -> None:
        """A finished run keeps one state, for the day when num_epochs grows."""
        for old in self._newest_first()[1:]:
            shutil.rmtree(old)

    def _path(self, progress: Progress) -> Path:
        # The end of an epoch and the start of the next have the same step, but not the same validation.
        return self.folder / f"{progress.global_step:09d}-{progress.epoch:04d}"

    def _newest_first(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if STATE_NAME.fullmatch(p.name) and p.is_dir()), reverse=True)

    def _clean(self) -> None:
        for left_over in self.folder.glob(".*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)


def _load(path: Path) -> TrainState:
    manifest = json.loads((path / MANIFEST).read_text())
    for name in (MODEL, TRAINER):
        if _sha256(path / name) != manifest["sha256"][name]:
            raise ValueError(f"{name} does not match its checksum")
    return TrainState(
        progress=Progress(**manifest["progress"]),
        model=load((path / MODEL).read_bytes()),
        trainer=torch.load(path / TRAINER, map_location="cpu", weights_only=True),
        num_processes=manifest["num_processes"],
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
