"""Jobs that wait for other jobs: for those in `after`, and for the one whose weights they start from, or evaluate."""

import heapq
import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self, assert_never

from accel_trainer import config
from accel_trainer.config.glance import glance
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder

if TYPE_CHECKING:
    from accel_trainer.config import EvaluationJob, Job, QueueJob

# Where each job is that is waited for and not done; None: nowhere in the queue.
Unmet = Mapping[str, JobState | None]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job needs to be run: the jobs that must be done before, `after` and the one whose weights it takes;
    its turn; how many devices, where the job has a number; how many GPUs, where this machine has fewer; where it
    writes; and how many threads load images in each process, where the job says so."""

    after: tuple[str, ...] = ()
    parent: str | None = None
    priority: int = 0
    num_processes: int | None = None
    gpus_lacking: int | None = None
    run: str | None = field(default=None, compare=False)  # no path: that would take three times the memory
    num_workers: int | None = None

    @classmethod
    def of(
        cls,
        job: "QueueJob",
        num_processes: int | None = None,
        gpus_lacking: int | None = None,
        trainer: str | None = None,
    ) -> Self:
        """num_processes: those that the job is launched with, where a number is given anywhere. trainer: the job that
        trains what this one evaluates (`trainer_of`)."""
        num_workers = None if isinstance(job, config.EvaluationJob) else job.num_workers
        parent, run = trainer or job.parent_job, str(job.run_path)
        return cls(tuple(job.after), parent, job.priority, num_processes, gpus_lacking, run, num_workers)

    @property
    def waits(self) -> bool:
        """Whether it needs another job at all."""
        return bool(self.after) or self.parent is not None

    def missing(self, states: Mapping[str, JobState]) -> dict[str, JobState | None]:
        """Those that are not done, each with its state, given those of all jobs in the queue."""
        names = dict.fromkeys(self.after)
        if self.parent is not None and (self.parent in states or not Path(self.parent).exists()):
            names[self.parent] = None
        return {name: states.get(name) for name in names if states.get(name) is not JobState.DONE}


def failed_parent(missing: Unmet) -> str | None:
    """The first job that is waited for and has failed."""
    return next((name for name, state in missing.items() if state is JobState.FAILED), None)


def describe_unmet(missing: Unmet) -> str:
    """ "waits for 'a', which has failed, and for 'b', which is held"."""
    return "waits " + ", and ".join(f"for {name!r}, which {_where(state)}" for name, state in missing.items())


def _where(state: JobState | None) -> str:
    match state:
        case None:
            return "is not in the queue"
        case JobState.FAILED:
            return "has failed"
        case JobState.PENDING | JobState.HELD | JobState.RUNNING | JobState.DONE:
            return f"is {state}"
        case _:
            assert_never(state)


def cycles(missing: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The jobs that wait for themselves, each with the reason to refuse it, given what each job waits for."""
    left = _behind_cycles(missing)
    # Those of them for which another waits that is behind a cycle: few, each of which is searched.
    waited_for_by: dict[str, list[str]] = {name: [] for name in left}
    for name in left:
        for other in left.intersection(missing[name]):
            waited_for_by[other].append(name)
    found = {}
    for name in _behind_cycles(waited_for_by):
        if way := _way_back(name, missing):
            path = listed(f"{one!r} waits for {other!r}" for one, other in pairwise([*way, name]))
            found[name] = f"after: the job waits for itself: {path}; take one of these out"
    return found


def _behind_cycles(missing: Mapping[str, Collection[str]]) -> set[str]:
    """The jobs that are in a cycle, or wait for one that is, however far away."""
    sorter = TopologicalSorter(missing)
    with suppress(CycleError):
        sorter.prepare()
        return set()
    free: set[str] = set()
    while ready := sorter.get_ready():  # as far as there is no cycle
        sorter.done(*ready)
        free.update(ready)
    return missing.keys() - free


def _way_back(start: str, missing: Mapping[str, Collection[str]]) -> list[str]:
    """The fewest jobs through which one waits for itself, it being the first; none if it does not."""
    came_from: dict[str, str] = {}
    at_hand = deque([start])
    while at_hand:
        name = at_hand.popleft()
        for other in missing.get(name, ()):
            if other == start:
                way = [name]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other not in came_from:
                came_from[other] = name
                at_hand.append(other)
    return []


def in_order(jobs: Sequence[QueuedJob], missing: Mapping[str, Unmet]) -> list[QueuedJob]:
    """The pending jobs that will be run when all goes well, as they will be: each time the first that may be.

    What is running counts as done.
    """
    by_name = {job.name: (number, job) for number, job in enumerate(jobs)}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for job in jobs:
        others = missing.get(job.name, {})
        sorter.add(job.name, *(name for name, state in others.items() if state is not JobState.RUNNING))
    with suppress(CycleError):  # what is in one is left out, as all else that cannot be run
        sorter.prepare()
    ready: list[tuple[int, QueuedJob]] = []
    order: list[QueuedJob] = []
    while True:
        # A name that is not that of a pending job is never done, nor is what waits for it.
        for entry in (by_name[name] for name in sorter.get_ready() if name in by_name):
            heapq.heappush(ready, entry)
        if not ready:
            return order
        _, job = heapq.heappop(ready)
        order.append(job)
        sorter.done(job.name)


# -- the job whose weights another starts from -------------------------------------------------------------------


def find_parent(job: "Job", queue: QueueStore, coming: Collection[str] = ()) -> QueuedJob | Path | None:
    """What a single word in starting_params stands for: a job of the queue, or else a path.

    None when starting_params is no such word, or names a job that comes later: one that is `coming`, or in `after`.
    Raises UserError if it is nothing of all that.
    """
    name = job.parent_job
    if name is None:
        return None
    if (found := queue.find(name)) is not None:
        return found
    if (path := Path(name)).exists():
        return path
    if name in coming or name in job.after:
        return None
    raise UserError(
        f"finetune_args.starting_params: {name!r} is neither a path nor a job of the queue {queue.folder} "
        f"(a job that comes later is named in `after` too){did_you_mean(name, queue.states())}"
    )


def starting_params(job: "Job", queue: QueueStore) -> Path | None:
    """The path that a single word in starting_params stands for; of a job it is the run folder. Raises UserError."""
    return _path(find_parent(job, queue), job)


def with_parent_path(job: "Job", queue: QueueStore, coming: Collection[str] = ()) -> "Job":
    """The job with a path as its starting_params, unless they name a job that is not done yet. Raises UserError."""
    parent = find_parent(job, queue, coming)
    if isinstance(parent, QueuedJob) and parent.state is not JobState.DONE:
        return job
    path = _path(parent, job)
    return job if path is None else job.starting_from(path)


def _path(parent: QueuedJob | Path | None, job: "Job") -> Path | None:
    if not isinstance(parent, QueuedJob):
        return parent
    try:
        return config.read_job(parent.path, job.parent_job).run_path
    except UserError as error:
        raise UserError(*(f"finetune_args.starting_params: {problem}" for problem in error.problems)) from error


# -- the job whose weights another evaluates ---------------------------------------------------------------------


def find_evaluated(job: "EvaluationJob", queue: QueueStore, coming: Collection[str] = ()) -> QueuedJob | Path | None:
    """What an `evaluate` stands for: the job of the queue that trains there, as long as it is not done and the weights
    are not there; or else the run folder. None for a job that comes later: one that is `coming`, or in `after`.

    Raises UserError where nothing is to be evaluated, and never will be.
    """
    name = job.parent_job
    if name is not None and (found := queue.find(name)) is not None:
        run = _run_of(found, name)
        if found.state is not JobState.DONE:
            return found
        if (problem := _why_no_weights(run, job.plan.weights)) is not None:
            raise problem
        return run
    if name is not None and name in (*coming, *job.after):
        return None
    path = expand_home(job.evaluate)
    problem = _why_no_weights(path, job.plan.weights)
    if problem is None:
        return path
    if (trainer := _trainer_in(path, queue)) is not None:
        return trainer
    if RunFolder(path).has_run:
        raise problem
    what = "a run folder" if name is None else f"a run folder or a job of the queue {queue.folder}"
    siblings = [str(run.parent) for run in path.parent.glob("*/config.json")] if name is None else []
    near = did_you_mean(str(path), [*siblings, *queue.states()])
    raise UserError(f"evaluate: {job.evaluate!r} is not {what}, and no job of the queue trains there{near}")


def evaluated_run(job: "EvaluationJob", queue: QueueStore) -> Path:
    """The run folder that an `evaluate` stands for, whose weights are there. Raises UserError."""
    found = find_evaluated(job, queue)
    if isinstance(found, Path):
        return found
    state = "not there yet" if found is None else f"{found.state}, not done"
    raise UserError(f"evaluate: {job.evaluate!r} is {state}")


def trainer_of(job: "EvaluationJob", queue: QueueStore) -> str | None:
    """The job of the queue for which one has to wait that evaluates; None where its weights are there, or are missed
    for another reason."""
    with suppress(UserError, OSError):
        if isinstance(found := find_evaluated(job, queue), QueuedJob):
            return found.own_name
    return None


def _why_no_weights(run: Path, weights: str) -> UserError | None:
    """None where they are there. What reads a run is loaded where there is an evaluation."""
    from accel_trainer.run.load import trained_job, trained_weights

    folder = RunFolder(run)
    try:
        trained_weights(folder, trained_job(folder), weights)
    except UserError as error:
        return error
    return None


def _trainer_in(run: Path, queue: QueueStore) -> QueuedJob | None:
    """The job that is not over, or has failed, and trains in a folder."""
    place = os.path.realpath(run)
    for state in (JobState.RUNNING, JobState.PENDING, JobState.HELD, JobState.FAILED):
        for queued in queue.jobs(state):
            job = glance(queued.path, queued.own_name)
            if job is not None and job.evaluates is None and os.path.realpath(job.run_path) == place:
                return queued
    return None


def _run_of(trainer: QueuedJob, name: str) -> Path:
    job = glance(trainer.path, name)
    if job is None:
        raise UserError(f"evaluate: the file of the job {name!r} cannot be read: {trainer.path}")
    if job.evaluates is not None:
        raise UserError(f"evaluate: {name!r} is a job that trains nothing")
    return job.run_path
