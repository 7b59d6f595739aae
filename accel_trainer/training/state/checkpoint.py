"""What is kept of a run: weights for people, and states to resume from.

A state is a folder `resume/<global step>/` that appears by a rename when everything in it, checksums last, has
reached the disk. What does not match its checksums is passed over, and the state before it is used.
"""

import hashlib
import json
import logging
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter
from safetensors.torch import load
from torch import Tensor, nn

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_bytes, read_json, replacing, write_atomic
from accel_trainer.core.outage import MachineFailure, StoppedWaiting, is_file, persistently
from accel_trainer.core.rename import list_anew, make_folder
from accel_trainer.core.safe_torch import tensors_in
from accel_trainer.core.text import first_line
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.training.runtime.module_state import is_extra_state
from accel_trainer.training.state.packing import CheckedFile, packed
from accel_trainer.training.state.step_rows import StepHistory

log = logging.getLogger(__name__)
T = TypeVar("T")
KEEP_STATES = 2
# The rows of performance.csv of 100,000 epochs are in it.
MAX_MANIFEST = 256 * MEBIBYTE
MAX_FILE = 2**40
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
TRAINER = "trainer.pt"
STATE_NAME = re.compile(r"\d{9,}-\d{4,}")


def save_weights(path: Path, state_dict: Mapping[str, Tensor], *, run: RunFolder | None = None, **about: str) -> None:
    """Write weights so that `safetensors.torch.load_file` and a plain model's `load_state_dict` take them.

    The same weights are the same bytes: a checksum tells whether two runs came to the same. run: the folder in which
    they are written, as its owner.
    """
    write = write_atomic if run is None else run.write
    on_disk(lambda: write(path, packed(state_dict, {"format": "pt", **about})), path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Weights that `save_weights` wrote. Raises UserError."""
    if not is_file(path):  # opening a pipe would wait for ever
        raise UserError(f"{path}: cannot be read as weights: it is no file")
    try:
        return load(persistently(path.read_bytes, lambda: str(path)))
    except (MachineFailure, StoppedWaiting):
        raise
    except Exception as error:  # a damaged file can fail in every way there is
        raise UserError(f"{path}: cannot be read as weights: {first_line(error)}") from error


@dataclass
class Progress:
    """How far a run has come, and what it has measured. All that is needed to resume, but for tensors.

    epoch: epochs that are over, with their validation; step: optimizer steps of the next epoch that are done.
    history: the rows of performance.csv; steps: what was measured by steps, of a job that wants it.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    epoch_seconds: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    history: list[PerformanceRow] = field(default_factory=list)
    steps: StepHistory | None = None

    def as_record(self) -> dict[str, Any]:
        """As JSON has it, in a manifest."""
        fields = {name: value for name, value in vars(self).items() if name != "steps"}
        steps = {} if self.steps is None else {"steps": self.steps.as_record()}
        return {**fields, "history": [row.as_record() for row in self.history], **steps}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Progress":
        """What `as_record` gave. Raises KeyError, TypeError and ValueError for anything else."""
        history = [PerformanceRow.from_record(row) for row in record["history"]]
        steps = StepHistory.from_record(record["steps"]) if record.get("steps") else None
        return _progress().validate_python({**record, "history": history, "steps": steps})


@cache
def _progress() -> TypeAdapter[Progress]:
    """Which takes longer to make than to use."""
    return TypeAdapter(Progress)


@dataclass(frozen=True)
class TrainerState:
    """What trainer.pt holds, under the names of these fields: what training keeps beside the model.

    optimizer, schedule, scaler, averages: their state dicts; sums: of the epoch so far, float (ranks, sums), each
    rank's as `Objective.scores` takes them; world: the environment that the state is of; corrupt: the corrupt images
    that were met so far, by split, int64 (n,). The last three are missing in states of the first versions, and the last
    one where no image is corrupt.
    """

    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    scaler: Mapping[str, Any] | None
    sums: Tensor
    averages: Mapping[str, Any] = field(default_factory=dict)
    world: Mapping[str, Any] = field(default_factory=dict)
    corrupt: Mapping[str, Tensor] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Plain data, which the restricted unpickler takes back."""
        return {name: value for name, value in vars(self).items() if name != "corrupt" or value}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "TrainerState":
        """What `as_record` gave. Raises TypeError for other keys."""
        return cls(**record)

    def sums_of(self, rank: int, num_processes: int) -> Tensor:
        """The sums that a rank resumes with: its own, or on other processes than before all of them on rank 0."""
        if num_processes == len(self.sums):
            return self.sums[rank]
        return self.sums.sum(0) if rank == 0 else torch.zeros_like(self.sums[0])


@dataclass(frozen=True)
class TrainState:
    """A whole state of a run: how far it is, the weights of its model, and the rest."""

    progress: Progress
    model: Mapping[str, Tensor]
    trainer: TrainerState
    num_processes: int


class NotSaved(OSError):
    """The state of a (global) step could not be written into a folder."""

    def __init__(self, error: OSError, step: int, folder: Path) -> None:
        super().__init__(error.errno, error.strerror, str(folder))
        self.step = step


class StateStore:
    """The states of one run."""

    def __init__(self, run: RunFolder) -> None:
        self._run, self.folder = run, run.resume
        self._goes_on_from: Path | None = None

    def go_on_from(self, progress: Progress) -> None:
        """The run resumes from here: states beyond are of a past that is not its own, and give way to its own."""
        self._goes_on_from = self._path(progress)

    def save(self, state: TrainState) -> None:
        """Write a state aside, make it durable, rename it into place, then drop all but the newest few.

        Raises NotSaved, which leaves the states as they were.
        """
        target = self._path(state.progress)
        try:
            on_disk(lambda: self._write(state, target), target)
        except OSError as error:
            raise NotSaved(error, state.progress.global_step, self.folder) from error
        before = self._goes_on_from or target
        others = [path for path in self._newest_first() if path != target]
        ours = [path for path in others if path <= before and path < target]
        self._remove(set(others) - set(ours[: KEEP_STATES - 1]))
        self._goes_on_from = target

    def _write(self, state: TrainState, target: Path) -> None:
        make_folder(self.folder)
        self._clean()
        run = self._run
        with replacing(target, durable=True, check=run.check_owner, aside_in=run.aside) as aside:
            make_folder(aside)
            about = {
                "progress": state.progress.as_record(),
                "num_processes": state.num_processes,
                "sha256": {
                    MODEL: _write(aside / MODEL, lambda file: file.writelines(packed(state.model))),
                    TRAINER: _write(aside / TRAINER, lambda file: torch.save(dict(state.trainer.as_record()), file)),
                },
            }
            manifest = json.dumps({**about, "checksum": _checksum(about)}).encode()
            _write(aside / MANIFEST, lambda file: file.write(manifest))

    def newest(self) -> TrainState | None:
        """The newest state that is whole, or None. One that is not is named in the log."""
        return next(self._whole_states(), None)

    @property
    def newest_step(self) -> int | None:
        """The global step of the newest state, which may be damaged."""
        return next((int(path.name.partition("-")[0]) for path in self._newest_first()), None)

    def at_epoch(self, epoch: int) -> TrainState | None:
        """The state at the end of an epoch, if it is still there."""
        ends = (s for s in self._whole_states() if (s.progress.epoch, s.progress.step) == (epoch, 0))
        return next(ends, None)

    def _whole_states(self) -> Iterator[TrainState]:
        for path in self._newest_first():
            try:
                yield _load(path)
            except (MachineFailure, StoppedWaiting):
                raise  # or ranks would resume from different states
            except Exception as error:  # a damaged file can fail in every way there is
                log.warning("the state %s is not whole (%s); using the one before it", path, first_line(error))

    def keep_only_newest(self) -> None:
        """A finished run keeps one state, for the day when num_epochs grows."""
        list_anew(self.folder)  # a listing that is remembered may have none of this attempt's
        older = self._newest_first()[1:]
        self._run.check_owner()
        self._remove(older)

    def _remove(self, states: Iterable[Path]) -> None:
        """What cannot be removed stays; so does all, once the folder is another's (`core.fence`)."""
        for path in states:
            with suppress(OSError):
                self._run.discard(path)

    def _path(self, progress: Progress) -> Path:
        # The end of an epoch and the start of the next have the same step, but not the same validation.
        return self.folder / f"{progress.global_step:09d}-{progress.epoch:04d}"

    def _newest_first(self) -> list[Path]:
        return persistently(self._listed, lambda: str(self.folder))

    def _listed(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        # Whether it is a folder is not asked: a client may believe one that another has made missing.
        return sorted((path for path in self.folder.iterdir() if STATE_NAME.fullmatch(path.name)), reverse=True)

    def _clean(self) -> None:
        self._remove(self.folder.glob(".*.tmp"))


def _load(path: Path) -> TrainState:
    """A state that is whole. Raises ValueError and others."""
    if path.is_symlink():
        raise ValueError("it is a link")
    manifest = _read(path / MANIFEST, partial(read_json, max_bytes=MAX_MANIFEST))
    if not isinstance(manifest, dict) or manifest.pop("checksum", None) != _checksum(manifest):
        raise ValueError(f"{MANIFEST} does not match its checksum")
    if manifest["sha256"].keys() != {MODEL, TRAINER}:
        raise ValueError(f"{MANIFEST} lists other files than a state has")
    contents = {name: _read(path / name, partial(read_bytes, max_bytes=MAX_FILE)) for name in (MODEL, TRAINER)}
    for name, content in contents.items():
        if _sha256(content) != manifest["sha256"][name]:
            raise ValueError(f"{name} does not match its checksum")
    return TrainState(
        progress=Progress.from_record(manifest["progress"]),
        model=load(contents[MODEL]),
        trainer=TrainerState.from_record(_unpickled(contents[TRAINER])),
        num_processes=manifest["num_processes"],
    )


def _read(path: Path, read: Callable[[Path], T]) -> T:
    return persistently(partial(read, path), lambda: str(path), may_be_missing=True)


def _checksum(manifest: Mapping[str, Any]) -> str:
    """Of a manifest's own content."""
    return _sha256(json.dumps(manifest).encode())


def _unpickled(file: bytes) -> dict[str, Any]:
    try:
        content = tensors_in(file)
    except pickle.UnpicklingError as error:
        # torch's own text explains how to run the code all the same.
        raise ValueError(f"{TRAINER} holds more than plain data, which could run code, or is damaged") from error
    if not isinstance(content, dict):
        raise TypeError(f"{TRAINER} holds a {type(content).__name__}")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, write: Callable[[Any], object]) -> str:
    """Write a file, and give the checksum of what should be in it. write: is given the file, as `CheckedFile`."""
    with path.open("wb") as file:
        checked = CheckedFile(file)
        write(checked)
        return checked.checksum()


def shape_mismatch(weights: Mapping[str, Tensor], model: nn.Module) -> str | None:
    """The first way in which weights do not fit a model, or None if they do."""
    own = model.state_dict()
    for name in [*own, *weights]:
        if name not in weights:
            return f"{name} is missing"
        if name not in own:
            return f"{name} has no place"
        if own[name].shape != weights[name].shape and not is_extra_state(name):
            return f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
    return None
