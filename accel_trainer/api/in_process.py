"""One job, trained in this process, for scripts and notebooks; `accel-train train` starts processes of its own."""

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any

from accel_trainer.api.progress_bar import progress_bar
from accel_trainer.api.trained_run import Run, load_run
from accel_trainer.config import Job, read_job
from accel_trainer.core.allow_imports import imports_allowed
from accel_trainer.core.child_environment import without_leftovers
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_path
from accel_trainer.core.launched import GPU_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import StopRequest, usable_cores
from accel_trainer.core.text import canonical
from accel_trainer.launch.command import Launch, LaunchOptions, num_processes_wanted, plan_launch
from accel_trainer.launch.machine import this_machine
from accel_trainer.launch.protocol import refuse_leftovers
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockGuard, acquire, held
from accel_trainer.run.status import RunState, read_status

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def train(
    job: Job | str | os.PathLike[str],
    *,
    cpu: bool = False,
    allow: str | Iterable[str] = (),
    progress: bool = True,
) -> Run:
    """Train a job in this process, to its end; its run. One that was interrupted goes on where it was saved.

    It is trained on one GPU, or on the CPU, to the same bits as by `accel-train train` with one process and the same
    cores. Log lines go to log.txt in the run folder. Afterwards the process is as it was before: threads, signal
    handlers, environment variables, settings of torch. Meanwhile variables that a launch would set aside are gone
    (docs/environment.md); the log names them.

    job: a job with a name of its own, `Job(name=...)`, or the path of a job file.
    cpu: leave a GPU alone.
    allow: packages of yours that the job's model may be imported from.
    progress: show a bar, at a terminal or in a notebook.

    Ctrl-C, or SIGTERM, lets the step end and saves the state; then the signal takes its usual course, so that Ctrl-C
    raises KeyboardInterrupt. Where a handler of yours ignores it, the run is returned with the status `preempted`. A
    second Ctrl-C does not wait. In a thread other than the main one, signals are left alone.

    Raises UserError for what is wrong with the job, or while another process trains in its folder; TrainingFailed for a
    run that diverged, was out of memory, or the like; LockLost when another process has taken the folder over, after
    which nothing is written there; anything else as it was raised in the training.
    """
    job = job if isinstance(job, Job) else read_job(expand_path(job))
    with imports_allowed(allow), without_leftovers():
        launch = _planned(job, cpu=cpu)
        if GPU_VARIABLE in launch.environment:
            os.environ[GPU_VARIABLE] = launch.environment[GPU_VARIABLE]
        run = RunFolder(job.run_path)
        run.create(tries_to_write=True)
        stop = _Stop()
        _train(job, run, stop, cpu=launch.is_on_cpu, progress=progress)
    if stop.signal is not None:
        signal.raise_signal(stop.signal)
    return load_run(run.path)


def _planned(job: Job, *, cpu: bool) -> Launch:
    """How the job would be launched, here. Raises UserError for a job of several processes."""
    count = max(num_processes_wanted(job, LaunchOptions()) or 1, _processes_of_caller())
    if count > 1:
        raise UserError(
            f"num_processes: a job of {count} processes cannot be trained in this one; use `accel-train train`"
        )
    return plan_launch(job, LaunchOptions(num_processes=1, cpu=cpu), this_machine(cpu=cpu))


def _processes_of_caller() -> int:
    """How many are in a process group that the caller has made. Variables of a launcher may be left over of another."""
    distributed: Any = sys.modules.get("torch.distributed")
    has_group = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if has_group else 1


class _Stop(StopRequest):
    """What a training asks after every step: also whether the run folder is this process's still."""

    guard: LockGuard | None = None

    def __bool__(self) -> bool:
        if self.guard is not None:
            self.guard.raise_if_lost()
        return super().__bool__()


def _train(job: Job, run: RunFolder, stop: _Stop, *, cpu: bool, progress: bool) -> None:
    """Raises what ended the training."""
    owner = Owner.new()
    with ExitStack() as resources:
        from accel_trainer.evaluation.in_training import measure_in_training
        from accel_trainer.training.session import SessionOptions, train

        lock = acquire(run, owner, end_leftovers=partial(refuse_leftovers, run), say=print)
        stop.guard = guard = LockGuard(lock)
        resources.enter_context(held(lock, guard.lose))
        resources.enter_context(_listening(stop))
        resources.enter_context(_all_cores())
        show = resources.enter_context(progress_bar(job.name, shown=progress))
        submission = _submission(job, run, owner.token)
        options = SessionOptions(
            token=owner.token,
            submission=submission,
            prints=False,
            cpu=cpu,
            on_status=show,
            measure=measure_in_training,
        )
        result = train(job, guard.owned(run), stop, options)
    result.check()


def _submission(job: Job, run: RunFolder, token: str) -> str:
    """The same for a job that is trained again after an interruption; another one after it has finished, so that
    `checkpoint` starts over."""
    own = hashlib.blake2b(canonical(job.completed()).encode(), digest_size=8, person=b"accel-train").hexdigest()
    before = read_status(run)
    if before is None or not before.submission.startswith(own):
        return own
    return f"{own}-{token}" if before.state is RunState.FINISHED else before.submission


@contextmanager
def _listening(stop: StopRequest) -> Iterator[None]:
    """Note signals that ask to stop, where this thread can be sent any; afterwards handlers are as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        stop.note(number)
        if stop.is_urgent and number == signal.SIGINT:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in ours:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


@contextmanager
def _all_cores() -> Iterator[None]:
    """torch computes on all cores that this process may use, as in a process that is launched for a job."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)
