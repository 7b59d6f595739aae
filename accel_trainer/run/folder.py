"""The run folder: where everything of one training run lies, and how it is written.

The trainer writes it, the queue and the reports read it; they share nothing else.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.core.fence import discard
from accel_trainer.core.files import write_atomic
from accel_trainer.core.machine_errors import try_to_write, why_of_machine
from accel_trainer.core.rename import make_folder

_ARGS_OF_OTHER_CODE = "args.json"
_ASIDE = ".writing-"
_NEXT_RUN, _BEING_MOVED = ".new", ".moving"
_OF_AN_OWNER = re.compile(r"|-.+")
_BEST_OF_OTHER_CODE = re.compile(r"best_(\d+)\.pt")


def best_of_other_code(params: Path) -> Path | None:
    """The best weights of a run that other code has trained, such as `params/best_040.pt`: those of the last epoch that
    was best; None where there are none."""
    found = {path: _BEST_OF_OTHER_CODE.fullmatch(path.name) for path in params.glob("best_*.pt")}
    numbers = {path: int(match[1]) for path, match in found.items() if match is not None}
    return max(numbers, key=lambda path: numbers[path], default=None)


def _anybody() -> None:
    """The check of a folder that is read, or written by who needs no lock for it."""


@dataclass(frozen=True)
class RunFolder:
    """Every path in a run folder has its name here and nowhere else.

    check_owner: called before a training writes anything there; raises `run.lock.LockLost` once the folder is
    another's. aside: the owner's own folder (`core.fence`), in which everything is written before it appears; None for
    who reads, or writes without a lock.
    """

    path: Path
    check_owner: Callable[[], None] = field(default=_anybody, repr=False, compare=False)
    aside: Path | None = field(default=None, repr=False, compare=False)

    def write(self, path: Path, content: str | bytes | Iterable[bytes | memoryview], *, durable: bool = True) -> None:
        """Write a file of this folder as `write_atomic` does, unless another process has the folder. Raises OSError
        and LockLost."""
        write_atomic(path, content, durable=durable, check=self.check_owner, aside_in=self.aside)

    def discard(self, path: Path) -> None:
        """Remove a file or folder that may be here, as this folder's owner. Raises OSError where it stays, also since
        the folder is another's; then LockLost, where that can be seen."""
        try:
            discard(path, self.aside)
        except OSError:
            self.check_owner()
            raise

    def aside_of(self, token: str) -> Path:
        """The own folder of the owner with this token."""
        return self.path / f"{_ASIDE}{token}"

    def asides(self) -> list[Path]:
        """Those that there are."""
        return list(self.path.glob(f"{_ASIDE}*"))

    @property
    def config(self) -> Path:
        """The completed job that is trained here."""
        return self.path / "config.json"

    @property
    def status_file(self) -> Path:
        """What rank 0 last reported."""
        return self.path / "status.json"

    @property
    def environment(self) -> Path:
        """Versions, hardware and git commit of every attempt."""
        return self.path / "environment.json"

    @property
    def origin(self) -> Path:
        """What a run that started over has started from."""
        return self.path / "origin.json"

    @property
    def next_run(self) -> Path:
        """Where a run that starts over is laid out, until the older one has been moved away: an owner's has its token,
        who reads is given the one that there is."""
        if self.aside is not None:
            return self.path / f"{_NEXT_RUN}-{self._token}"
        return min(self.next_runs(), default=self.path / _NEXT_RUN)

    def next_runs(self) -> list[Path]:
        """Those that there are, whoever has laid them out."""
        return [path for path in self.path.glob(f"{_NEXT_RUN}*") if _OF_AN_OWNER.fullmatch(path.name[len(_NEXT_RUN) :])]

    @property
    def previous(self) -> Path:
        """The folder of the runs before, by their numbers."""
        return self.path / "previous"

    @property
    def being_moved(self) -> Path:
        """Where an older run is, until all of it is there."""
        return self.previous / (_BEING_MOVED if self.aside is None else f"{_BEING_MOVED}-{self._token}")

    def all_being_moved(self) -> list[Path]:
        """Those that there are, whoever moves or has moved them."""
        return list(self.previous.glob(f"{_BEING_MOVED}*"))

    @property
    def _token(self) -> str:
        """The owner's."""
        return "" if self.aside is None else self.aside.name.removeprefix(_ASIDE)

    @property
    def classes(self) -> Path:
        """Which label is which class."""
        return self.path / "classes.json"

    def earlier_classes(self, number: int) -> Path:
        """The same of an earlier data set, from which the run was allowed to change to another."""
        return self.path / f"classes-{number}.json"

    @property
    def dataset(self) -> Path:
        """The data set that the run began with: classes, counts and digests."""
        return self.path / "dataset.json"

    @property
    def dataset_listing(self) -> Path:
        """The names of the images of that data set, to name those that have changed."""
        return self.path / "dataset_listing.npz"

    @property
    def dataset_contents(self) -> Path:
        """Checksums of the images of that data set, as the run has first read them."""
        return self.path / "dataset_contents.npz"

    @property
    def starting_params(self) -> Path:
        """What was loaded of the weights that the run started from."""
        return self.path / "starting_params.json"

    @property
    def found(self) -> Path:
        """What words of the job file stand for, {word: number}; config.json has the numbers in their place."""
        return self.path / "found.json"

    @property
    def lr_finder(self) -> Path:
        """What the search for a learning rate has tried: `rate,loss,smoothed`."""
        return self.path / "lr_finder.csv"

    @property
    def lr_finder_plot(self) -> Path:
        """The curves of that search."""
        return self.path / "lr_finder.png"

    @property
    def log(self) -> Path:
        """The log of all attempts."""
        return self.path / "log.txt"

    @property
    def performance(self) -> Path:
        """A row for each epoch and split."""
        return self.path / "performance.csv"

    @property
    def sample_inputs(self) -> Path:
        """What the model sees, as a picture."""
        return self.path / "sample_train_inputs.png"

    @property
    def params(self) -> Path:
        """The folder of weights."""
        return self.path / "params"

    @property
    def best_weights(self) -> Path:
        """The weights of the epoch with the best `primary_metric`."""
        return self.params / "best.safetensors"

    @property
    def ema_weights(self) -> Path:
        """The moving average of the weights."""
        return self.params / "ema.safetensors"

    @property
    def swa_weights(self) -> Path:
        """The stochastic average of the weights, written after the last epoch."""
        return self.params / "swa.safetensors"

    @property
    def resume(self) -> Path:
        """The folder of states to resume from."""
        return self.path / "resume"

    @property
    def evaluations(self) -> Path:
        """The folder of what was measured after the training, by the names of the evaluations."""
        return self.path / "evaluations"

    @property
    def attempts(self) -> Path:
        """Full outputs of trainers that were launched without a queue."""
        return self.path / "logs"

    def weights(self, epoch: int) -> Path:
        """The weights after an epoch; epoch 0 is the initialization."""
        return self.params / f"{epoch:03d}.safetensors"

    def plot(self, suffix: str) -> Path:
        """The curves, as png, pdf or svg."""
        return self.path / f"performance.{suffix}"

    def attempt_status(self, token: str) -> Path:
        """What rank 0 of an attempt reports before the run in this folder becomes its own."""
        return self.path / f".status-{token}.json"

    def attempt_statuses(self) -> list[Path]:
        """Those that there are."""
        return list(self.path.glob(".status-*.json"))

    def rank_error(self, rank: int, token: str) -> Path:
        """Why a rank other than 0 failed in an attempt; status.json is rank 0's. The attempts of two owners do not
        replace each other's."""
        attempt = hashlib.sha256(token.encode()).hexdigest()[:10]
        return self.path / f".error-rank-{rank}.{attempt}.json"

    def rank_errors(self) -> list[Path]:
        """The errors of ranks that there are."""
        return list(self.path.glob(".error-rank-*.json"))

    def lock(self, number: int) -> Path:
        """What a process that has the folder to itself holds; of several the one with the highest number counts."""
        return self.path / f".owner-{number}"

    def locks(self) -> list[int]:
        """The numbers of the locks that there are, highest first."""
        numbers = (re.fullmatch(r"\.owner-(0|[1-9][0-9]*)", path.name) for path in self.path.glob(".owner-*"))
        return sorted((int(number[1]) for number in numbers if number is not None), reverse=True)

    def create(self, *, tries_to_write: bool = False) -> None:
        """Make the folder; a UserError when that is not possible or nothing can be written in it, whose cause says
        whether that is the machine's (`core.machine_errors`).

        tries_to_write: writes a file to see that, which is done once at a start, before its processes are launched.

        The folder may be a link to another disk. What is in it may not be a link: we would write wherever it leads.
        """
        try:
            on_disk(lambda: self._make(tries_to_write=tries_to_write), self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _make(self, *, tries_to_write: bool) -> None:
        make_folder(self.path, parents=True)
        if (foreign := _neither_file_nor_folder(self.path)) is not None:
            raise UserError(
                f"model_dir: {foreign} is neither a file nor a folder: what is written there would go elsewhere; "
                "remove it (model_dir itself may be a link)"
            )
        make_folder(self.params)
        if tries_to_write:
            try_to_write(self.path)
        for folder in filter(os.path.isdir, (self.params, self.resume)):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    def now(self) -> float:
        """The time by the clock that gives the folder's files theirs: on a network drive another machine's."""
        return try_to_write(self.path, num_bytes=0)

    def remove_leftovers(self) -> None:
        """Remove what a trainer has left that was killed; to be called when none trains here any more. What another
        owner has made since is not found by the name that this one removes it by, and stays."""
        self.clear_rank_errors()
        half_written = (*self.path.glob(".*.tmp"), *self.params.glob(".*.tmp"), *self.resume.glob(".*.tmp"))
        for path in (*self.attempt_statuses(), *half_written, *self.path.glob(".probe-*")):
            with suppress(OSError):
                self.discard(path)

    def clear_rank_errors(self) -> None:
        """Remove the errors that ranks have left in earlier attempts."""
        for path in self.rank_errors():
            with suppress(OSError):
                self.discard(path)

    @property
    def contents(self) -> list[Path]:
        """What belongs to one run, and goes with it."""
        return [
            self.config,
            self.environment,
            self.origin,
            self.classes,
            *self.path.glob("classes-*.json"),
            self.dataset,
            self.dataset_listing,
            self.dataset_contents,
            self.starting_params,
            self.found,
            self.lr_finder,
            self.lr_finder_plot,
            self.performance,
            *map(self.plot, ("png", "pdf", "svg")),
            self.sample_inputs,
            self.params,
            self.resume,
            self.evaluations,
        ]

    @property
    def has_run(self) -> bool:
        """Whether a training run was begun here."""
        return self.config.exists()

    @property
    def was_tried(self) -> bool:
        """Whether a training was tried here, begun or not."""
        return self.has_run or (self.log.exists() and self.params.is_dir())

    @property
    def args_of_other_code(self) -> Path:
        """The job of a run that other code has trained."""
        return self.path / _ARGS_OF_OTHER_CODE

    def of_other_code(self) -> list[str]:
        """What shows that the run in this folder was trained by other code, which has its job in args.json and its
        weights in .pt files; nothing where it was not."""
        if self.has_run:
            return []
        weights = sorted(f"{self.params.name}/{path.name}" for path in self.params.glob("*.pt"))
        args = [_ARGS_OF_OTHER_CODE] if self.args_of_other_code.exists() else []
        return args + weights


def cannot_write(folder: Path, error: OSError) -> UserError:
    """What is said of a run folder that cannot be written."""
    hint = "choose another model_dir or fix its permissions"
    if (why := why_of_machine(error)) is not None:
        hint = f"{why}: the run goes on when that is over"
    return UserError(f"cannot write to {folder}: {error.strerror}", key="model_dir", hint=hint)


def _neither_file_nor_folder(folder: Path) -> Path | None:
    """The first entry of a folder that is a link, a pipe or the like."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # a temporary file of another process
                mode = entry.stat(follow_symlinks=False).st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                    return Path(entry.path)
    return None
