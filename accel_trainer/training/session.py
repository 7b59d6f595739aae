"""One training run from its first status to its last.

Nothing heavy is imported before the first status is written: torch takes seconds.
"""

import errno
import logging
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from accel_trainer.config import Job
from accel_trainer.config.rules import RULES
from accel_trainer.core.disk_calls import saying_hangs
from accel_trainer.core.errors import UserError
from accel_trainer.core.machine_errors import why_of_machine
from accel_trainer.core.outage import MachineFailure, expecting, waiting_out
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.inputs import known_inputs
from accel_trainer.run.lock import LockLost
from accel_trainer.run.log import run_log
from accel_trainer.run.rules import as_its_run_goes_on, changes_since
from accel_trainer.run.status import RankError, RunState, Status, first_rank_error, read_status, write_rank_error
from accel_trainer.training.reporting import Reporter, TrainingResult

if TYPE_CHECKING:
    from accel_trainer.training.degraded import Measure
    from accel_trainer.training.runtime.accelerator import Assembly

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionOptions:
    """What the process that trains knows beside the job.

    rank: of this process among those that train together; token: of the launcher that owns the run folder; submission:
    differs between two submissions of the same job; group: of runs, in the trackers; prints: whether log lines go to
    standard output, and not only to log.txt; cpu: leave a GPU alone; on_status: is given the status, on every rank,
    whenever it has changed; measure: what measures the degradations of a job
    that has some.
    """

    rank: int = 0
    token: str = ""
    submission: str = ""
    group: str | None = None
    prints: bool = True
    cpu: bool = False
    on_status: Callable[[Status], None] = lambda status: None
    measure: "Measure | None" = None


def train(job: Job, run: RunFolder, stop: StopRequest, options: SessionOptions | None = None) -> TrainingResult:
    """Train a job to its end, or until a stop is requested. Every process of a launch calls it.

    Rank 0 writes each status of the run, from `starting` to the last; another rank that fails leaves its reason in a
    file of its own. Where there is a run in the folder already, its status and its log stay as they were until all of
    this job was checked. The caller holds the lock of the run folder, which must exist. Whatever goes wrong with the
    run is in the result and raised by nobody: also the loss of the lock, after which nothing more is written. When this
    returns, all that training took is released, and the process is as before: memory, threads, process group, log
    handlers, environment variables and settings of torch.
    """
    options = options or SessionOptions()

    def work(reporter: Reporter) -> TrainingResult:
        own = _by_its_rules(job, run, options)
        from accel_trainer.training.runtime.accelerator import assembly
        from accel_trainer.training.trainer import Trainer

        with assembly(own, run, cpu=options.cpu) as parts:
            result = Trainer(
                own, run, stop, reporter, parts, options.submission, options.group, options.measure
            ).train()
            if result.state is RunState.OUT_OF_MEMORY:
                parts.release()
                _report(result, run, reporter, options.rank)  # whatever becomes of the search
                result = _with_advice(result, own, run, reporter, parts)
        return result

    return reported(work, run, stop, options, stall_timeout=job.stall_timeout, inputs=known_inputs(job, run))


def reported(
    work: Callable[[Reporter], TrainingResult],
    run: RunFolder,
    stop: StopRequest,
    options: SessionOptions,
    *,
    stall_timeout: float,
    inputs: frozenset[str],
) -> TrainingResult:
    """Do some work of which a folder has the log and the status, as `train` says. Every process of a launch calls it.

    stall_timeout: in minutes. inputs: what is known to be there, or away (`known_inputs`).
    """
    patience_s = 60 * stall_timeout / 2  # who waits for longer counts as stalled
    with (
        run_log(run, options.rank, prints=options.prints) as begin_log,
        waiting_out(lambda: bool(stop), at_most_s=patience_s, folders=[run.path]),
        # Not to log.txt, which may be on that disk.
        saying_hangs(partial(_print, prints=options.prints), log.warning),
        expecting(inputs, own=run.path),
    ):
        reporter = _reporter(run, options, begin_log)
        try:
            if options.rank == 0:
                run.clear_rank_errors()
                reporter.update(durable=True)
            result = work(reporter)
        except UserError as mistake:
            log.error("error: %s", mistake)
            result = TrainingResult(_state_of(mistake), str(mistake), mistake)
        except MachineFailure as failure:
            log.error("%s", failure)
            result = TrainingResult(RunState.MACHINE_FAILED, str(failure), failure)
        except BaseException as failure:
            result = _unforeseen(failure, prints=options.prints)
        try:
            _report(result, run, reporter, options.rank)
        except LockLost as lost:  # whatever else has failed may follow from it
            result = TrainingResult(RunState.FAILED, str(lost), lost)
        return result


def _print(line: str, *, prints: bool) -> None:
    if prints:
        with suppress(OSError):
            print(line, flush=True)


def _by_its_rules(job: Job, run: RunFolder, options: SessionOptions) -> Job:
    """The job by the rules of the run that goes on here. Raises UserError."""
    job = as_its_run_goes_on(job, run, options.submission)
    if options.rank == 0 and (meaning := changes_since(job)) is not None:
        log.info("trained by rules %d, not by the newest (%d), by which %s", job.rules, RULES, meaning)
    return job


def _reporter(run: RunFolder, options: SessionOptions, begin_log: Callable[[], None]) -> Reporter:
    is_first = options.rank == 0
    fitting = _fitting_batch_size(run, options.submission) if is_first else None
    status = Status(
        state=RunState.STARTING,
        token=options.token,
        submission=options.submission,
        fitting_batch_size=fitting,
        preparing="importing torch",
    )
    return Reporter(
        run, status, writes=is_first, owns_run=not run.has_run, on_taken=begin_log, on_status=options.on_status
    )


def _fitting_batch_size(run: RunFolder, submission: str) -> int | None:
    """The batch size that an earlier attempt at the same submission, which was out of memory, has found to fit."""
    before = read_status(run)
    if before is None or before.submission != submission:
        return None
    reports = [before, first_rank_error(run, before.token)]
    sizes = [report.fitting_batch_size for report in reports if report is not None]
    return min((size for size in sizes if size is not None), default=None)


def _unforeseen(failure: BaseException, *, prints: bool) -> TrainingResult:
    reason = f"{type(failure).__name__}: {failure}".strip()
    if (why := _why_of_machine(failure)) is not None:
        log.error("%s: %s", why, reason)
        return TrainingResult(RunState.MACHINE_FAILED, f"{why}: {reason}", failure)
    log.error("%s", reason)
    if prints:
        with suppress(OSError):
            traceback.print_exception(failure)
    return TrainingResult(RunState.FAILED, reason, failure)


def _state_of(mistake: UserError) -> RunState:
    return RunState.INVALID if why_of_machine(mistake) is None else RunState.MACHINE_FAILED


def _why_of_machine(failure: BaseException) -> str | None:
    """What is wrong with the machine, if it is that. Code of the user that writes where nobody may does so always."""
    if isinstance(failure, OSError) and failure.errno == errno.EROFS:
        return None
    return why_of_machine(failure)


def _with_advice(
    result: TrainingResult, job: Job, run: RunFolder, reporter: Reporter, parts: "Assembly"
) -> TrainingResult:
    """What helps against a lack of memory, added to the reason."""
    from accel_trainer.training.tune.batch_size import out_of_memory_advice

    helps = out_of_memory_advice(job, run, parts)
    log.error("%s", helps.text)
    reporter.update(fitting_batch_size=helps.fitting_batch_size)
    return replace(result, reason=f"{result.reason}; {helps.text}")


def _report(result: TrainingResult, run: RunFolder, reporter: Reporter, rank: int) -> None:
    """Write the last status, on rank 0, or the reason of another rank."""
    state, reason = result.state, result.reason
    if rank == 0:
        reporter.finish(state, reason)
    elif reason is not None and state is not RunState.DIVERGED:
        status = reporter.status
        with suppress(OSError):
            failed_at = time.time() if reporter.failed_at is None else reporter.failed_at
            error = RankError(status.token, reason, failed_at, state, status.fitting_batch_size)
            write_rank_error(run, rank, error)
