"""Folders and file names of the queue, and the jobs in them.

training_queue/*.json           pending
training_queue/held/            kept back
training_queue/running/         <name>@<host>.<token>.json; <name>@slurm+<cluster>.<token>.json;
                                <name>@<host>.<token>-to-<state>.json while a process moves a job; in folders named
                                .*.placing where there are no hard links
training_queue/done/, failed/   with <name>.reason.txt and <name>.outcome.txt (failed or canceled) beside what is in
                                failed/, and <name>.name.txt beside a job whose own name ends like the numbers that are
                                given here ('a~2')
training_queue/logs/            full output of every attempt
training_queue/retries/         how often a job has failed that is tried again
training_queue/submissions/     which submission of a job has been begun: how it is called, whoever looks
training_queue/requests/        what people ask of jobs that are running
training_queue/paused/          hosts that claim no jobs for now
training_queue/runners/         signs of life of the runners; observed/: when each host last saw one
training_queue/moves/           of each job that is copied to a queue on another file system: where to
training_queue/slurm/           of each claim that is a cluster's: which user submitted it, as which job of Slurm
"""

import glob
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from accel_trainer.config.file_names import MAX_NAME_BYTES, is_conflicted_copy, job_name, why_no_job
from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.files import shortened
from accel_trainer.core.lease import Owner
from accel_trainer.core.machine_errors import told
from accel_trainer.core.place_lock import is_lock, names_inside

# How an older program of the labs names what it trains: of its process nothing is known but the host.
OLD_CLAIM = re.compile(r"(?P<host>[^@/]+)_gpu-[0-9,]+_job-\d+__(?P<name>.+)", re.DOTALL)

# After the name of a job that is over, of a file that says: this name is the job's own, whatever it ends with.
OWN_NAME = ".name.txt"
# The end of a token while its owner moves a job: by which copy, if the other queue is on another disk, and where to.
MOVES = re.compile(r"(-copy_(?P<copy>[0-9a-f]+))?-to-(?P<state>[a-z]+)$")


_NUMBERS = re.compile(r"\d+")


def natural_key(name: str) -> tuple[str, str]:
    """Sorts 'job2' before 'job10', and either before 'jobs', whatever the case of letters; equals by the name itself.

    Two texts: queues are long, and these are compared as bytes are. A number is the length of its digits, and these,
    after the one character that no name of a file has and that comes before all others.
    """
    return _NUMBERS.sub(_comparable, name.lower()), name


def _comparable(number: re.Match[str]) -> str:
    digits = str(int(number[0]))  # without zeros before it, and in any script
    return f"\0{chr(len(digits))}{digits}"


def read_claim(stem: str) -> tuple[str, Owner]:
    """The name of the job and the owner, from the name of a file in running/ without `.json`."""
    if (old := OLD_CLAIM.fullmatch(stem)) is not None:
        return old["name"], Owner(old["host"], "")
    claim, _, token = stem.rpartition(".")
    name, _, host = claim.rpartition("@")
    return name or stem, Owner(host, token)


def without_number(name: str) -> str:
    """Beside another of its name that is over, a job has a number after it: 'a~2' is named 'a'."""
    return re.sub(r"~\d+$", "", name)


def moving_owner(state: "JobState", copy: str = "") -> Owner:
    """This process, while it moves a job to a state: its token says where to, and by which copy."""
    owner = Owner.new()
    return Owner(owner.host, f"{owner.token}{f'-copy_{copy}' if copy else ''}-to-{state.value}")


def file_name(name: str) -> str:
    """A job's own name; for a job that is rejected for its name, one that is safe to print."""
    try:
        return job_name(Path(f"{name}.json"))
    except UserError:
        return re.sub(r"[^\w .+=@,~()\[\]-]|\.\.+", "_", name).lstrip("-. ")[: MAX_NAME_BYTES // 4] or "unnamed"


class Ending(StrEnum):
    """Why a job is in failed/: it failed, or somebody wanted it so."""

    FAILED = "failed"
    CANCELED = "canceled"


class JobState(StrEnum):
    """Where a job is: each state but `pending` has a folder of this name."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in (JobState.DONE, JobState.FAILED)


@dataclass(frozen=True)
class QueuedJob:
    """A job file in the queue. is_own_name: of one that is over, whether what looks like a number is part of its
    name."""

    name: str
    path: Path
    state: JobState
    is_own_name: bool = field(default=False, compare=False, kw_only=True)

    def __hash__(self) -> int:
        """By the name alone, of which a text remembers its own: that of a path takes longer."""
        return hash(self.name)

    @property
    def own_name(self) -> str:
        """Its name, without the number that it has got beside another one that is over."""
        return without_number(self.name) if self.state.is_over and not self.is_own_name else self.name


@dataclass(frozen=True)
class ClaimedJob(QueuedJob):
    """A job file in running/, and the process or the cluster that has claimed it."""

    state: JobState = field(default=JobState.RUNNING, init=False)
    owner: Owner = field(kw_only=True)

    @property
    def token(self) -> str:
        """The token of the claim: no other claim has the same."""
        return self.owner.token

    @property
    def destination(self) -> JobState | None:
        """Where the owner is just moving the job; None where it trains it."""
        moves = MOVES.search(self.token)
        return JobState(moves["state"]) if moves is not None and moves["state"] in set(JobState) else None

    @property
    def copy(self) -> str | None:
        """Which copy of the job is on its way to another disk, if any."""
        moves = MOVES.search(self.token)
        return None if moves is None else moves["copy"]


class QueueUnusable(SetupUnusable):
    """The queue's folder itself cannot be used."""


class JobGone(UserError):
    """A job's file was moved by another process or a person."""


class UndecidedMove(UserError):
    """It cannot be seen here whether a job that was being copied to another queue has arrived there."""


@dataclass(frozen=True)
class QueuePaths:
    """Every path of one queue, and the jobs that are there."""

    folder: Path

    @property
    def logs(self) -> Path:
        """The output of attempts."""
        return self.folder / "logs"

    @property
    def retries(self) -> Path:
        """Failures of jobs that are tried again."""
        return self.folder / "retries"

    @property
    def submissions(self) -> Path:
        """What is noted of the submissions that were begun."""
        return self.folder / "submissions"

    @property
    def requests(self) -> Path:
        """What people ask of jobs that are running."""
        return self.folder / "requests"

    @property
    def paused(self) -> Path:
        """Pauses, of hosts or of all."""
        return self.folder / "paused"

    @property
    def runners(self) -> Path:
        """Heartbeats of runners."""
        return self.folder / "runners"

    @property
    def observed(self) -> Path:
        """When each host last saw a heartbeat change."""
        return self.folder / "observed"

    @property
    def moves(self) -> Path:
        """Where jobs are copied to, on other file systems."""
        return self.folder / "moves"

    @property
    def slurm(self) -> Path:
        """What is noted of claims that are a cluster's."""
        return self.folder / "slurm"

    @property
    def all(self) -> tuple[Path, ...]:
        """All folders in which files are written."""
        records = (self.logs, self.retries, self.requests, self.paused, self.runners, self.observed)
        return (*map(self.of, JobState), *records, self.moves, self.slurm, self.submissions)

    def copy_record(self, copy: str) -> Path:
        """What is noted of a job that is copied to another file system."""
        return self.moves / f"{copy}.json"

    def of(self, state: JobState) -> Path:
        """The folder of the jobs in a state."""
        return self.folder if state is JobState.PENDING else self.folder / state.value

    def claim(self, name: str, owner: Owner) -> Path:
        """The file of a job while this owner has it."""
        return self.of(JobState.RUNNING) / f"{name}@{owner.host}.{owner.token}.json"

    def being_added(self, name: str) -> list[Path]:
        """The files that are on their way to be pending jobs of a name for the first time."""
        return list(self.of(JobState.RUNNING).glob(f".{glob.escape(shortened(f'{name}.json'))}.*.tmp"))

    def listed(self, state: JobState) -> Iterator[QueuedJob]:
        """The jobs in a state, in no order; those that are running as `ClaimedJob`. Raises QueueUnusable."""
        folder = self.of(state)
        try:
            read = _names_in if state is not JobState.RUNNING else _names_in_and_placed
            names = on_disk(partial(read, folder), folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise QueueUnusable(f"the queue {self.folder} cannot be read: {folder}: {told(error)}") from error
        own_names = {name for name in names if name.endswith(OWN_NAME)} if state.is_over else set()
        for name in names:
            last = name.rpartition("/")[2]
            if not last.endswith(".json") or last.startswith(".") or is_conflicted_copy(last):
                continue
            path, stem = folder / name, last.removesuffix(".json")
            if state is JobState.RUNNING:
                claimed, owner = read_claim(stem)
                yield ClaimedJob(claimed, path, owner=owner)
            else:
                yield QueuedJob(stem, path, state, is_own_name=f"{stem}{OWN_NAME}" in own_names)

    def refuse_run_folder(self, run: Path) -> None:
        """Raises UserError for a run folder that has the queue in it, or is in it: each would take what it finds of the
        other for its own. A run that was begun inside goes on, but for one in a folder that is the queue's own."""
        queue, run_path = Path(os.path.realpath(self.folder)), Path(os.path.realpath(run))
        if queue.is_relative_to(run_path):
            what = "is the queue's own folder" if run_path == queue else f"has the queue {self.folder} in it"
        elif run_path.is_relative_to(queue):
            is_own = any(run_path.is_relative_to(queue / folder.name) for folder in self.all[1:])
            if not is_own and (run / "config.json").exists():
                return
            what = f"is inside the queue {self.folder}"
        else:
            return
        raise UserError(f"{run} {what}", key="model_dir", hint="choose another folder for what is trained")

    def strays(self) -> dict[Path, str]:
        """The files that may be meant as jobs and are none, with what each is and what to do. Raises OSError."""
        found: dict[Path, str] = {}
        for state in (JobState.PENDING, JobState.HELD, JobState.RUNNING):
            with suppress(FileNotFoundError):
                found |= on_disk(partial(_strays_in, self.of(state)), self.of(state))
        return dict(sorted(found.items()))

    def claims(self) -> Iterator[ClaimedJob]:
        """The jobs that are running or on their way, in no order. Raises QueueUnusable."""
        return (job for job in self.listed(JobState.RUNNING) if isinstance(job, ClaimedJob))


def _strays_in(folder: Path) -> dict[Path, str]:
    with os.scandir(folder) as entries:
        return {Path(e.path): why for e in entries if (why := why_no_job(e.name)) is not None and _is_file(e)}


def _names_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it may be one: also where that cannot be seen, as of a link to itself."""
    try:
        return entry.is_file()
    except OSError:
        return True


def _names_in_and_placed(folder: Path) -> list[str]:
    """Also of the files that are just being placed, where that takes a folder; one that has moved on meanwhile to
    another such folder is met there. What is called so and is no folder, or may not be entered, has none."""
    while True:
        with os.scandir(folder) as entries:
            places = {entry.name: is_lock(entry.name) and entry.is_dir(follow_symlinks=False) for entry in entries}
        try:
            locks = [name for name, is_place in places.items() if is_place]
            return [*places, *(f"{lock}/{name}" for lock in locks for name in _placed_in(folder / lock))]
        except FileNotFoundError:
            continue


def _placed_in(lock: Path) -> list[str]:
    with suppress(PermissionError, NotADirectoryError):
        return names_inside(lock)
    return []


def reason_path(path: Path) -> Path:
    """The file with the reason why a job in failed/ is there, beside the job's."""
    return path.with_name(f"{path.stem}.reason.txt")


def outcome_path(path: Path) -> Path:
    """The file with the `Ending` of a job in failed/, beside the job's."""
    return path.with_name(f"{path.stem}.outcome.txt")


def own_name_path(path: Path) -> Path:
    """The file that says that the name of a job that is over is its own, beside the job's."""
    return path.with_name(f"{path.stem}{OWN_NAME}")
