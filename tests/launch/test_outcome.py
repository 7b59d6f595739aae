"""What the last words of a trainer, or that there are none, mean for its job."""

import signal
from pathlib import Path

import pytest
from helpers import own_disk

from accel_trainer.core.oom_kills import OomKills
from accel_trainer.launch.outcome import (
    Outcome,
    OutcomeKind,
    StopReason,
    TrainerExit,
    last_error_line,
    outcome_of,
    outcome_of_exit_code,
    record,
    with_disk,
    with_oom,
    with_root_cause,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RankError, RunState, Status, read_status, write_rank_error, write_status

DONE, FAILED, BACK = OutcomeKind.DONE, OutcomeKind.FAILED, OutcomeKind.INTERRUPTED
OVER_TIME = StopReason("time_limit: 5s are over", RunState.PREEMPTED)
STALLED = StopReason("stalled: no step for 5s", RunState.STALLED)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("some words\nCUDA exploded\n\n=====\n")
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create()
    return run


@pytest.mark.parametrize(
    ("state", "asked_to_stop", "expected"),
    [
        (RunState.FINISHED, False, DONE),
        (RunState.FINISHED, True, DONE),
        (RunState.PREEMPTED, True, BACK),
        (RunState.PREEMPTED, False, BACK),
        (RunState.INVALID, False, FAILED),
        (RunState.DIVERGED, False, FAILED),
        (RunState.FAILED, False, FAILED),
        (RunState.OUT_OF_MEMORY, False, FAILED),
        (RunState.STALLED, False, FAILED),
        (RunState.MACHINE_FAILED, False, FAILED),
        (RunState.STARTING, False, FAILED),
        (RunState.TRAINING, False, FAILED),
        (RunState.STARTING, True, BACK),
        (RunState.TRAINING, True, BACK),
    ],
)
def test_the_last_word_of_the_trainer_decides(state, asked_to_stop, expected, log):
    status = Status(state=state, token="mine", error="why")
    assert outcome_of(status, "mine", TrainerExit(0, log, asked_to_stop)).kind is expected


@pytest.mark.parametrize("status", [None, Status(state=RunState.FINISHED, token="an earlier attempt's")])
def test_exit_code_0_without_a_status_of_this_attempt_means_failure(status, log):
    ending = outcome_of(status, "mine", TrainerExit(0, log, False))
    assert ending.kind is FAILED
    assert ending.reason.endswith("CUDA exploded")
    assert outcome_of(status, "mine", TrainerExit(1, log, True)).kind is BACK


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        ("subprocess.CalledProcessError: Command '[...]' died with <Signals.SIGBUS: 7>.", 1),
        ("  traceback : Signal 7 (SIGBUS) received by PID 4711", 1),
        ("", -signal.SIGBUS),
    ],
)
def test_a_page_of_a_mapped_file_that_cannot_be_read_is_the_machines_failure(tmp_path, text, exit_code):
    path = tmp_path / "log"
    path.write_text(f"some words\n{text}\n")
    status = Status(state=RunState.TRAINING, token="mine", epoch=3)
    ending = outcome_of(status, "mine", TrainerExit(exit_code, path))
    assert (ending.kind, ending.state) == (FAILED, RunState.MACHINE_FAILED)
    assert ending.is_machines_failure
    assert "in epoch 3" in ending.reason


@pytest.mark.parametrize(
    "line",
    [
        "error: model_dir: cannot write to /models/a: No space left on device; choose another",
        "OSError: [Errno 24] Too many open files: '/models/a/status.json'",
        "OSError: [Errno 30] Read-only file system: '/models/a/.owner-1'",
    ],
)
def test_a_trainer_that_could_write_nothing_is_the_machines_failure_by_its_last_line(tmp_path, line):
    path = tmp_path / "log"
    path.write_text(f"{line}\n")
    for status in (None, Status(state=RunState.TRAINING, token="mine", epoch=3)):
        assert outcome_of(status, "mine", TrainerExit(1, path)).is_machines_failure


def test_a_trainer_that_left_no_word_on_a_full_disk_is_the_machines_failure(tmp_path):
    why = Outcome(FAILED, "the trainer was ended", RunState.FAILED)
    with own_disk(tmp_path / "disk", "size=32k") as disk:
        run = RunFolder(disk / "run")
        assert with_disk(why, RunFolder(tmp_path / "run")) == why
        ending = with_disk(why, run)
        assert ending.is_machines_failure
        assert "No space left on device" in ending.reason
        mistake = Outcome(FAILED, "no such loss", RunState.INVALID)
        assert with_disk(mistake, run) == mistake


def test_the_reason_in_a_log_is_its_error_line_or_last_one(tmp_path):
    path = tmp_path / "log"
    path.write_text("error: model_dir: cannot write\nTraceback\n  something\n")
    assert last_error_line(path, 2) == "model_dir: cannot write"
    path.write_text("")
    assert last_error_line(path, 3) == "exit code 3"
    assert last_error_line(path, -11) == "killed by SIGSEGV"
    path.write_text("epoch 1/2\ndouble free or corruption\n====\n")
    assert last_error_line(path, 1) == "double free or corruption"
    assert last_error_line(path, -6) == "killed by SIGABRT after it printed 'double free or corruption'"


@pytest.mark.parametrize(
    ("state", "reason", "ending"),
    [
        (RunState.PREEMPTED, OVER_TIME, Outcome(FAILED, OVER_TIME.reason, RunState.PREEMPTED)),
        (RunState.TRAINING, OVER_TIME, Outcome(FAILED, OVER_TIME.reason, RunState.PREEMPTED)),
        (RunState.TRAINING, STALLED, Outcome(FAILED, STALLED.reason, RunState.STALLED)),
        (RunState.FINISHED, OVER_TIME, Outcome(DONE, state=RunState.FINISHED)),
        (RunState.FAILED, OVER_TIME, Outcome(FAILED, "why", RunState.FAILED)),
        (None, STALLED, Outcome(FAILED, STALLED.reason, RunState.STALLED)),
    ],
)
def test_a_trainer_that_its_runner_has_ended_failed_for_that_reason(state, reason, ending, log):
    said = None if state is None else Status(state=state, token="mine", error="why")
    assert outcome_of(said, "mine", TrainerExit(1, log, False, reason)) == ending


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_launcher_that_was_asked_to_stop_returns_its_job_to_pending(number, log):
    said = Status(state=RunState.STARTING, token="mine")
    assert outcome_of(said, "mine", TrainerExit(-number, log, False)).kind is BACK
    assert outcome_of(None, "mine", TrainerExit(-number, log, False)).kind is BACK
    assert outcome_of(said, "mine", TrainerExit(-signal.SIGKILL, log, False)).kind is FAILED


@pytest.mark.parametrize(
    "words",
    ["KeyboardInterrupt", "torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15"],
)
def test_a_launcher_stopped_while_it_starts_counts_as_interrupted(words, log):
    log.write_text(f"Traceback (most recent call last):\n  File\n{words}\n")
    assert outcome_of(None, "mine", TrainerExit(1, log, False)).kind is BACK


@pytest.mark.parametrize(
    ("ending", "may_be_retried"),
    [
        (Outcome(FAILED, "why", RunState.FAILED), True),
        (Outcome(FAILED, "why", RunState.OUT_OF_MEMORY), True),
        (Outcome(FAILED, "why", RunState.STALLED), True),
        (Outcome(FAILED, "why", RunState.DIVERGED), False),
        (Outcome(FAILED, "why", RunState.INVALID), False),
        (Outcome(FAILED, "why", RunState.PREEMPTED), False),
        (Outcome(FAILED, "why"), False),
        (Outcome(DONE, state=RunState.FINISHED), False),
    ],
)
def test_what_would_fail_again_is_not_tried_again(ending, may_be_retried):
    assert ending.may_be_retried is may_be_retried


@pytest.mark.parametrize(("exit_code", "asked", "kind"), [(0, False, DONE), (1, False, FAILED), (1, True, BACK)])
def test_on_another_machine_than_the_main_one_the_exit_code_counts(log, exit_code, asked, kind):
    assert outcome_of_exit_code(TrainerExit(exit_code, log, asked)).kind is kind


@pytest.mark.parametrize(
    ("rank_0_failed_at", "reason"), [(10.0, "disk full"), (30.0, "rank-1: gone"), (None, "rank-1: gone")]
)
def test_the_rank_that_failed_first_gives_the_reason(run, rank_0_failed_at, reason):
    write_rank_error(run, 1, RankError("mine", "gone", 20.0))
    said = Status(state=RunState.FAILED, token="mine", error="disk full", failed_at=rank_0_failed_at)
    ending = with_root_cause(Outcome(FAILED, "disk full", RunState.FAILED), said, run, "mine")
    assert ending == Outcome(FAILED, reason, RunState.FAILED)


BY_ACCELERATE = "subprocess.CalledProcessError: Command '[...]' died with <Signals.SIGKILL: 9>."
BY_TORCHRUN = "  exitcode  : -9 (pid: 4711)\n  traceback : Signal 9 (SIGKILL) received by PID 4711"
BY_LOADER = "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed."
TRACEBACK = "Traceback (most recent call last):\nFileNotFoundError: no such image"
ENDED_OTHERS = "Unable to shutdown process 4711 via Signals.SIGTERM, forcefully exiting via Signals.SIGKILL"
MEMORY, OTHERWISE = RunState.OUT_OF_MEMORY, RunState.FAILED


@pytest.mark.parametrize("where", ["log", "reason"])
@pytest.mark.parametrize(
    ("text", "exit_code", "killed", "state", "words"),
    [
        (TRACEBACK, 1, OomKills(machine=3), OTHERWISE, None),
        (f"{TRACEBACK}\n{ENDED_OTHERS}", 1, OomKills(machine=3), OTHERWISE, None),
        (TRACEBACK, 1, OomKills(machine=3, own=1), OTHERWISE, None),  # of another slot, in the same control group
        (BY_ACCELERATE, 1, OomKills(machine=1), MEMORY, "has killed 1 of its"),
        (BY_TORCHRUN, 1, OomKills(machine=2), MEMORY, "has killed 2 of its"),
        (BY_LOADER, 1, OomKills(machine=1), MEMORY, "has killed 1 of its"),
        (BY_LOADER, 1, OomKills(own=1), MEMORY, "has killed 1 of its"),
        ("", -signal.SIGKILL, OomKills(machine=1), MEMORY, "has killed 1 of its"),
        ("", 137, OomKills(machine=1), MEMORY, "has killed 1 of its"),
        (BY_ACCELERATE, 1, OomKills(), OTHERWISE, "was killed: SIGKILL"),
        (BY_TORCHRUN, 1, OomKills(), OTHERWISE, "was killed: SIGKILL"),
        (BY_LOADER, 1, OomKills(), OTHERWISE, "was killed: SIGKILL"),
        ("", -signal.SIGKILL, OomKills(), OTHERWISE, "was killed: SIGKILL"),
        (TRACEBACK, 1, OomKills(), OTHERWISE, None),
    ],
)
def test_memory_is_the_reason_only_where_a_process_of_the_trainer_was_killed(
    tmp_path, where, text, exit_code, killed, state, words
):
    log = tmp_path / "log"
    log.write_text(f"{text}\n" if where == "log" else "some words\n")
    before = Outcome(FAILED, text if where == "reason" else "why", RunState.FAILED)
    after = with_oom(before, TrainerExit(exit_code, log), killed)
    if words is None:
        assert after == before
    assert (after.kind, after.state) == (FAILED, state)
    assert (words or "") in after.reason
    assert after.reason.startswith(before.reason)


@pytest.mark.parametrize("state", [RunState.OUT_OF_MEMORY, RunState.DIVERGED, RunState.STALLED, RunState.FINISHED])
def test_what_a_trainer_has_told_itself_is_not_changed_by_what_was_killed(log, state):
    told = Outcome(FAILED, "CUDA out of memory", state, fitting_batch_size=8)
    assert with_oom(told, TrainerExit(-signal.SIGKILL, log), OomKills(2, 2)) is told


def test_the_status_of_a_run_ended_from_outside_has_the_outcome(run):
    write_status(run, Status(state=RunState.TRAINING, token="mine", epoch=3, eta_s=12.0))
    record(Outcome(FAILED, "stalled", RunState.STALLED), run, "mine")
    said = read_status(run)
    assert (said.state, said.error, said.epoch, said.eta_s) == (RunState.STALLED, "stalled", 3, None)


@pytest.mark.parametrize("ending", [Outcome(BACK), Outcome(DONE, state=RunState.FINISHED)])
def test_the_status_of_a_run_that_goes_on_is_its_own(run, ending):
    write_status(run, Status(state=RunState.TRAINING, token="mine"))
    record(ending, run, "mine")
    assert read_status(run) == Status(state=RunState.TRAINING, token="mine")


def test_what_a_rank_knows_of_its_memory_is_in_the_status(run):
    """Its own file goes with the attempt."""
    write_rank_error(run, 1, RankError("mine", "full", 1.0, RunState.OUT_OF_MEMORY, fitting_batch_size=64))
    said = Status(state=RunState.FAILED, token="mine", error="connection closed by peer", failed_at=2.0)
    ending = with_root_cause(Outcome(FAILED, said.error, said.state), said, run, "mine")
    write_status(run, said)
    record(ending, run, "mine")
    told = read_status(run)
    assert (told.state, told.error, told.fitting_batch_size) == (RunState.OUT_OF_MEMORY, "rank-1: full", 64)


def test_the_status_of_another_attempt_is_left_alone(run):
    write_status(run, Status(state=RunState.TRAINING, token="theirs"))
    record(Outcome(FAILED, "why", RunState.FAILED), run, "mine")
    assert read_status(run).state is RunState.TRAINING


def test_a_rank_that_stopped_while_a_disk_was_away_makes_it_an_interruption(run, log):
    """The others fail because it is gone."""
    write_rank_error(run, 1, RankError("mine", "stopped while a disk was away", time=1.0, state=RunState.PREEMPTED))
    status = Status(state=RunState.FAILED, token="mine", error="connection closed by peer", failed_at=2.0)
    ending = with_root_cause(outcome_of(status, "mine", TrainerExit(1, log)), status, run, "mine")
    assert (ending.kind, ending.state) == (BACK, RunState.PREEMPTED)


def test_the_machine_of_another_rank_may_be_what_failed(run, log):
    write_rank_error(run, 1, RankError("mine", "x.png cannot be read", time=1.0, state=RunState.MACHINE_FAILED))
    status = Status(state=RunState.FAILED, token="mine", error="connection closed by peer", failed_at=2.0)
    ending = with_root_cause(outcome_of(status, "mine", TrainerExit(1, log)), status, run, "mine")
    assert ending.is_machines_failure
    assert ending.reason == "rank-1: x.png cannot be read"
