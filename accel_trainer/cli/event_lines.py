"""Events as lines of text."""

from pathlib import Path
from typing import assert_never

from accel_trainer.cli.app import count_of
from accel_trainer.cli.attempt_lines import harmless, indented, line_of_attempt, outcome_line
from accel_trainer.core.lease import STALE_S
from accel_trainer.core.text import duration, one_line
from accel_trainer.launch.attempt_events import (
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.launch.outcome import OutcomeKind
from accel_trainer.queue.dependencies import describe_unmet
from accel_trainer.queue.events import (
    CheckingJobs,
    ClaimFinished,
    DiskBroken,
    DiskNotice,
    DiskWorks,
    Event,
    GpusInUse,
    HeartbeatLost,
    HeartbeatWritten,
    JobBlocked,
    JobReclaimed,
    JobRejected,
    JobsFound,
    JobStuck,
    JobSubmitted,
    JobTooLarge,
    NotificationFailed,
    QueuePaused,
    QueueResumed,
    RetryScheduled,
    RunnerTrouble,
    SlurmJobChanged,
    SlurmJobOver,
    SlurmProblem,
    StrayFile,
    TrialFailed,
    WaitingForJobs,
)
from accel_trainer.queue.finish import FinishedClaim
from accel_trainer.queue.layout import JobState


def line_of(event: Event) -> str:
    """An event in words; a line each, where there are several."""
    event = harmless(event)
    match event:
        case AttemptStarted() | AttemptStopping() | AttemptTerminating() | AttemptFinished() | Tick():
            return line_of_attempt(event)
        case JobsFound() | JobRejected() | JobBlocked() | JobStuck() | ClaimFinished() | JobReclaimed() | JobTooLarge():
            return _line_of_job(event)
        case JobSubmitted() | SlurmJobChanged() | SlurmJobOver() | SlurmProblem():
            return _line_of_slurm(event)
        case CheckingJobs(number=number):
            return f"checking {count_of(number, 'job')}"
        case NotificationFailed(target=target, problem=problem):
            return f"warning: {target} could not be told: {problem}"
        case StrayFile(path=path, hint=hint):
            return f"not trained: {path}: {hint}"
        case RunnerTrouble(problem=problem):
            return f"{problem}; it is tried again"
        case GpusInUse(gpus=gpus):
            one = len(gpus) == 1
            return f"GPU{'' if one else 's'} {', '.join(gpus)} {'is' if one else 'are'} used by others: waiting"
        case DiskBroken(place=place, problem=problem):
            return f"{one_line(place)}: {problem}; jobs that write there wait until that is over"
        case DiskNotice(text=text):
            return text
        case DiskWorks(place=place):
            return f"{one_line(place)}: can be written again: what waited for it goes on"
        case HeartbeatLost(problem=problem):
            return (
                f"no sign of life can be written: {problem}; other machines take this runner for dead after "
                f"{duration(STALE_S)} without one here and in the run folder"
            )
        case HeartbeatWritten():
            return "signs of life are written again"
        case QueuePaused(pause=pause):
            if pause.until_launch_works:
                return f"{pause}; it goes on when a small launch works"
            host = "" if pause.host is None else f" --host {one_line(pause.host)}"
            return f"{pause}; `accel-train resume{host}` ends that"
        case RetryScheduled(name=name, backoff_s=backoff_s):
            return f"{name}: is tried again in {duration(backoff_s)} ({_why_again(event)})"
        case TrialFailed(reason=reason, wait_s=wait_s):
            return f"a small launch does not work here either ({reason}); the next one is tried in {duration(wait_s)}"
        case QueueResumed(host=host):
            return f"a small launch works: the queue on {host} goes on"
        case WaitingForJobs():
            return "waiting for jobs; Ctrl-C ends this"
        case _:
            assert_never(event)


def _why_again(event: RetryScheduled) -> str:
    if event.kind is OutcomeKind.FOLDER_IN_USE:
        return "its run folder may be free then"
    return "the machine failed, not the job" if event.number is None else f"retry {event.number} of {event.retries}"


def _line_of_job(
    event: JobsFound | JobRejected | JobBlocked | JobStuck | ClaimFinished | JobReclaimed | JobTooLarge,
) -> str:
    match event:
        case JobsFound(valid=valid, invalid=invalid, unchecked=unchecked):
            refused = f", {invalid} refused" if invalid else ""
            more = f", {unchecked} not checked yet: they are while the first ones train" if unchecked else ""
            return f"{count_of(valid, 'job')} to run{refused}{more}"
        case JobRejected(reason=reason):
            return "\n".join(f"refused: {line}" for line in reason.splitlines())
        case JobBlocked(name=name, unmet=unmet):
            return f"{name}: {describe_unmet(unmet)}"
        case ClaimFinished(name=name, finished=finished, log=log):
            return f"{name}: {_where_it_went(name, finished, log)}"
        case JobReclaimed(job=job):
            return f"{one_line(job.name)}: its runner died; it resumes where it was"
        case JobStuck(name=name, problem=problem):
            return f"{name}: left as it is: {problem}"
        case JobTooLarge(name=name, num_processes=num_processes):
            return f"{name}: needs {num_processes} processes, more than this runner has GPUs or may start on its cores"
        case _:
            assert_never(event)


def _where_it_went(name: str, finished: FinishedClaim, log: Path) -> str:
    if finished.state is JobState.HELD:
        return (
            f"stopped ({indented(finished.outcome.reason)}); `accel-train release {name}` lets it resume where it was"
        )
    return outcome_line(name, finished.outcome, log)


def _line_of_slurm(event: JobSubmitted | SlurmJobChanged | SlurmJobOver | SlurmProblem) -> str:
    match event:
        case JobSubmitted(name=name, slurm_id=slurm_id):
            return f"{name}: submitted to Slurm, job {slurm_id}"
        case SlurmJobChanged(name=name, description=description):
            return f"{name}: {description}"
        case SlurmJobOver(name=name, state=state, reason=reason):
            why = "" if reason is None else f": {indented(reason)}"
            return f"{name}: {'gone' if state is None else state}{why}"
        case SlurmProblem(problem=problem):
            return f"{problem}; it is tried again"
        case _:
            assert_never(event)
