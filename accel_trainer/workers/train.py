"""What `accelerate launch` starts, once for each process: trains one job and says how it ended.

The outcome of a run is the state in status.json. Exit codes are for people: launchers do not pass them on.
"""

# Signals are heard and the parent is watched from the first moment on; torch takes seconds to import.
import faulthandler

from accel_trainer.core.lease import BEAT_S, Owner, is_dead_token
from accel_trainer.core.processes import (
    STACKS_SIGNAL,
    StopRequest,
    die_with_parent,
    exit_now,
    pids_with_env,
    stop_request,
)

if __name__ == "__main__":
    stop_request()
    faulthandler.register(STACKS_SIGNAL, all_threads=True)
    die_with_parent()

import argparse
import json
import logging
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from accel_trainer.config import Job, read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.launch.protocol import PREWARM, TOKEN_VARIABLE, prewarm_cancelled
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockLost, RunLock, acquire, find_lock
from accel_trainer.run.log import begin_logging
from accel_trainer.run.status import RankError, RunState, Status, first_rank_error, read_status, write_rank_error
from accel_trainer.training.reporting import Reporter

log = logging.getLogger(__name__)

# How often to see whether the run folder is ours still: sooner than another trainer could have started in it.
CHECK_S = 3.0
STAND_BY_POLL_S = 0.02
# Not 0: the launcher ends the other processes as well, which would wait for this one.
STOOD_DOWN_CODE = 1

EXIT_CODES = {RunState.FINISHED: 0, RunState.PREEMPTED: 0, RunState.INVALID: 2}


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if words[:1] == [PREWARM] and (words := _stand_by(Path(words[1]))) is None:
        return STOOD_DOWN_CODE
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.train", description=__doc__)
    parser.add_argument("job", type=Path, help="the job file")
    parser.add_argument("--name", required=True, help="name of the job")
    parser.add_argument("--group", help="group of runs in the trackers")
    parser.add_argument("--submission", default="", help="what tells this submission of the job from the next")
    parser.add_argument("--starting-params", type=Path, help="what the name in the job's starting_params stands for")
    args = parser.parse_args(words)
    rank, token = int(os.environ.get("RANK", 0)), os.environ.get(TOKEN_VARIABLE, "")
    try:
        job = read_job(args.job, args.name)
        if args.starting_params is not None:
            job = job.starting_from(args.starting_params)
        run = RunFolder(job.run_path)
        run.create()
        ownership = _take(run) if rank == 0 and not token else None  # with a token, its launcher has
        launchers = find_lock(run, token) if rank == 0 and token else None
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODES[RunState.INVALID]
    with _kept(ownership), _watched(launchers):
        return _train_and_tell(job, run, stop_request(), rank, token, args.group, args.submission)


def _stand_by(file: Path) -> Sequence[str] | None:
    """Import what takes seconds, and wait for a job's words; None: it was told to stop, or its runner is gone."""
    import accel_trainer.training.session  # noqa: F401 - torch above all

    with suppress(ImportError):
        import wandb  # noqa: F401 - for the job
    token, looked = os.environ.get(TOKEN_VARIABLE, ""), -math.inf
    while not file.exists():
        # Who died before we could ask to be told of it has not told us.
        if time.monotonic() - looked > CHECK_S:
            looked = time.monotonic()
            if is_dead_token(token):
                return None
        if stop_request():
            # First this, then another look: either we see the words or who gives them sees that we are gone.
            prewarm_cancelled(file).touch()
            if not file.exists():
                return None
        time.sleep(STAND_BY_POLL_S)
    told: list[str] = json.loads(file.read_text())
    return told


def _take(run: RunFolder) -> RunLock:
    def refuse_leftovers(token: str) -> None:
        if left := pids_with_env(TOKEN_VARIABLE, token):
            raise UserError(
                f"model_dir: what a dead process has started is still ending in {run.path}: processes "
                f"{listed(map(str, left))}; try again when they are gone"
            )

    return acquire(run, Owner.new(), end_leftovers=refuse_leftovers, say=print)


@contextmanager
def _kept(ownership: RunLock | None) -> Iterator[None]:
    """Give signs of life while the body runs; one that lost its run folder must write nothing more."""
    if ownership is None:
        yield
        return
    try:
        with _meanwhile(ownership.heartbeat, BEAT_S):
            yield
    finally:
        ownership.release()


@contextmanager
def _watched(ownership: RunLock | None) -> Iterator[None]:
    """Write nothing more once the run folder is another's: a runner that is stopped, as by SIGSTOP, is given up and
    replaced elsewhere, and cannot tell its trainer."""
    if ownership is None:
        yield
        return

    def check() -> None:
        with suppress(OSError):  # nothing can be told at the moment
            ownership.check()

    with _meanwhile(check, CHECK_S):
        yield


@contextmanager
def _meanwhile(act: Callable[[], None], every_s: float) -> Iterator[None]:
    """Act every now and then while the body runs; the process ends where that raises OwnershipLost."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(every_s):
            try:
                act()
            except LockLost as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                os._exit(1)

    threading.Thread(target=repeat, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _train_and_tell(
    job: Job, run: RunFolder, stop: StopRequest, rank: int, token: str, group: str | None, submission: str
) -> int:
    """Train; whatever happens, rank 0 says it in status.json, and another rank in its own file."""
    begin_logging(run, rank)
    status = Status(state=RunState.STARTING, token=token, submission=submission)
    if rank == 0:
        status = status.model_copy(update={"fitting_batch_size": _known_to_fit(run, submission)})
    reporter = Reporter(run, status, speaks=rank == 0)
    error: str | None = None
    try:
        if rank == 0:
            run.clear_rank_errors()
            reporter.update(durable=True)
        from accel_trainer.training.session import train

        state, error = train(job, run, stop, reporter, group=group, submission=submission)
    except UserError as mistake:
        state, error = RunState.INVALID, str(mistake)
        log.error("error: %s", mistake)
    except BaseException as failure:
        state, error = RunState.FAILED, f"{type(failure).__name__}: {failure}".strip()
        log.error("%s", error)
        with suppress(OSError):
            traceback.print_exc()
    _tell(run, reporter, rank, state, error)
    if state is RunState.OUT_OF_MEMORY:  # which is told already, whatever becomes of the search
        from accel_trainer.training.tune.batch_size import out_of_memory_advice

        helps = out_of_memory_advice(job, run)
        log.error("%s", helps.text)
        reporter.update(fitting_batch_size=helps.fitting_batch_size)
        _tell(run, reporter, rank, state, f"{error}; {helps.text}")
    return EXIT_CODES.get(state, 1)


def _known_to_fit(run: RunFolder, submission: str) -> int | None:
    """The batch size that an attempt before at the same submission, which was out of memory, has found to fit."""
    before = read_status(run)
    if before is None or before.submission != submission:
        return None
    said = [before, first_rank_error(run, before.token)]
    sizes = [word.fitting_batch_size for word in said if word is not None]
    return min((size for size in sizes if size is not None), default=None)


def _tell(run: RunFolder, reporter: Reporter, rank: int, state: RunState, error: str | None) -> None:
    if rank == 0:
        reporter.finish(state, error)
    elif error is not None and state is not RunState.DIVERGED:
        said = reporter.status
        with suppress(OSError):
            failed_at = time.time() if reporter.failed_at is None else reporter.failed_at
            write_rank_error(run, rank, RankError(said.token, error, failed_at, state, said.fitting_batch_size))


if __name__ == "__main__":
    exit_now(main())
