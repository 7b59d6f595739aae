"""What happens in a queue, as values: runners emit them, and a terminal prints them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.launch.attempt_events import AttemptEvent
from accel_trainer.launch.outcome import OutcomeKind
from accel_trainer.queue.control import Pause
from accel_trainer.queue.dependencies import Unmet
from accel_trainer.queue.finish import FinishedClaim
from accel_trainer.queue.layout import ClaimedJob, JobState, QueuedJob, natural_key


@dataclass(frozen=True)
class CheckingJobs:
    """The runner has begun to check the jobs that are pending, so many."""

    number: int


@dataclass(frozen=True)
class JobsFound:
    """The pending jobs have been checked, except for `unchecked` ones, for which that would take too long."""

    valid: int
    invalid: int
    unchecked: int


@dataclass(frozen=True)
class JobRejected:
    """A job was moved to failed/ before it was claimed; one line of `reason` for each mistake."""

    job: QueuedJob
    reason: str


@dataclass(frozen=True)
class JobBlocked:
    """Nothing is left that could run, and this job waits for others. Emitted once for each change of them."""

    name: str
    unmet: Unmet


@dataclass(frozen=True)
class JobStuck:
    """Nothing can be done for a job, as where its file may not be moved. The others go on."""

    name: str
    problem: str


@dataclass(frozen=True)
class StrayFile:
    """A file in the queue may be meant as a job and is none: what it is, and what to do. Emitted once for each."""

    path: Path
    hint: str


@dataclass(frozen=True)
class RunnerTrouble:
    """Something does not work for now, which is tried again. Emitted once for each change of it."""

    problem: str


@dataclass(frozen=True)
class DiskBroken:
    """Nothing can be written at a place: jobs that would train on its disk wait."""

    place: Path
    problem: str


@dataclass(frozen=True)
class DiskNotice:
    """What is waited for: a disk that gives errors, or does not answer; then from another thread than all else."""

    text: str


@dataclass(frozen=True)
class DiskWorks:
    """At a place something can be written again."""

    place: Path


@dataclass(frozen=True)
class HeartbeatLost:
    """The runner cannot write that it is alive."""

    problem: str


@dataclass(frozen=True)
class HeartbeatWritten:
    """It can again."""


@dataclass(frozen=True)
class QueuePaused:
    """No job is claimed on this host. Emitted once for each pause."""

    pause: Pause


@dataclass(frozen=True)
class TrialFailed:
    """A small launch has not worked, so the host stays paused; the next is tried after `wait_s` seconds."""

    reason: str
    wait_s: float


@dataclass(frozen=True)
class QueueResumed:
    """A small launch has worked on this host: its pause is over."""

    host: str


@dataclass(frozen=True)
class WaitingForJobs:
    """There is nothing to do, but there may be later."""


@dataclass(frozen=True)
class ClaimFinished:
    """An attempt at a claimed job is over, and the job has gone where it belongs."""

    name: str
    finished: FinishedClaim
    log: Path


@dataclass(frozen=True)
class JobReclaimed:
    """A job whose owner is dead was returned to pending."""

    job: ClaimedJob


@dataclass(frozen=True)
class JobTooLarge:
    """A job needs more GPUs than the runner has."""

    name: str
    num_processes: int


@dataclass(frozen=True)
class GpusInUse:
    """Jobs could run except that others use these GPUs. Emitted once for each change of them."""

    gpus: tuple[str, ...]


@dataclass(frozen=True)
class RetryScheduled:
    """A job whose attempt has just ended so is tried again in some seconds, for the n-th time of so many; number: None
    where that was no failure of the job, which is tried again however often."""

    name: str
    kind: OutcomeKind
    backoff_s: float
    number: int | None
    retries: int


@dataclass(frozen=True)
class JobSubmitted:
    """Slurm has accepted a job."""

    name: str
    slurm_id: int


@dataclass(frozen=True)
class SlurmJobChanged:
    """Slurm reports something new of a job."""

    name: str
    description: str


@dataclass(frozen=True)
class SlurmJobOver:
    """A job has left running/ for this state; None: it is nowhere any more. `reason`: why it has failed."""

    name: str
    state: JobState | None
    reason: str | None


@dataclass(frozen=True)
class SlurmProblem:
    """Slurm does not do what it was asked for; it is asked again."""

    problem: str


@dataclass(frozen=True)
class NotificationFailed:
    """Where somebody was to be told of jobs, a target has not taken it; from another thread than all else. Emitted once
    until it takes something again."""

    target: str
    problem: str


QueueEvent = (
    CheckingJobs
    | NotificationFailed
    | JobsFound
    | JobRejected
    | JobBlocked
    | JobStuck
    | StrayFile
    | RunnerTrouble
    | DiskBroken
    | DiskWorks
    | DiskNotice
    | HeartbeatLost
    | HeartbeatWritten
    | QueuePaused
    | WaitingForJobs
    | ClaimFinished
    | JobReclaimed
    | JobTooLarge
    | GpusInUse
    | RetryScheduled
    | TrialFailed
    | QueueResumed
    | JobSubmitted
    | SlurmJobChanged
    | SlurmJobOver
    | SlurmProblem
)
Event = AttemptEvent | QueueEvent
Emit = Callable[[Event], None]


class ChangeNotifier:
    """Emits why jobs are not claimed, each reason once for each change of it."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._unmet: Mapping[str, Unmet] = {}
        self._pause: Pause | None = None
        self._too_large: set[str] = set()
        self._gpus_in_use: Collection[str] = ()
        self._trouble: dict[str, str | None] = {}
        self._strays: set[Path] = set()

    def pause(self, pause: Pause | None) -> None:
        """Note the pause that this host has now."""
        if pause is not None and pause != self._pause:
            self._emit(QueuePaused(pause))
        self._pause = pause

    def unmet(self, unmet: Mapping[str, Unmet]) -> None:
        """Note what jobs wait for, by their names."""
        for name, others in unmet.items():
            if self._unmet.get(name) != others:
                self._emit(JobBlocked(name, others))
        self._unmet = unmet

    def too_large(self, num_processes: Mapping[str, int]) -> None:
        """Note the jobs that this runner has never room for, and how many GPUs each of them needs."""
        for name in num_processes.keys() - self._too_large:
            self._emit(JobTooLarge(name, num_processes[name]))
        self._too_large |= num_processes.keys()

    def strays(self, hints: Mapping[Path, str]) -> None:
        """Note the files that are no jobs, with what to do."""
        for path in [path for path in hints if path not in self._strays]:
            self._emit(StrayFile(path, hints[path]))
        self._strays.update(hints)

    def trouble(self, problem: str | None, of: str = "queue") -> None:
        """Note what does not work now, of one thing among several."""
        if problem is not None and problem != self._trouble.get(of):
            self._emit(RunnerTrouble(problem))
        self._trouble[of] = problem

    def gpus_in_use(self, gpus: Collection[str]) -> None:
        """Note the GPUs of others for which jobs wait."""
        if gpus and gpus != self._gpus_in_use:
            self._emit(GpusInUse(tuple(sorted(gpus, key=natural_key))))
        self._gpus_in_use = gpus
