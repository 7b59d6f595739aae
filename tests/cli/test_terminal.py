"""What a person sees."""

import re
import sys
from pathlib import Path

import pytest

from accel_trainer.cli import attempt_terminal
from accel_trainer.cli.progress import Bars
from accel_trainer.cli.progress_words import Doing, doing_of, share_of_run
from accel_trainer.cli.tables import table
from accel_trainer.cli.terminal import Terminal
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.launch.attempt_events import (
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.control import Pause
from accel_trainer.queue.events import (
    ClaimFinished,
    JobReclaimed,
    JobRejected,
    JobTooLarge,
    QueuePaused,
    SlurmJobChanged,
    SlurmJobOver,
    SlurmProblem,
)
from accel_trainer.queue.finish import FinishedClaim
from accel_trainer.queue.layout import ClaimedJob, JobState, QueuedJob
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.log import LogTail, log, run_log
from accel_trainer.run.status import RunState, Status, write_status


def test_a_table_has_numbers_to_the_right_and_no_trailing_space():
    text = table(["job", "best", "epochs"], [["a", 98.765, "3/3"], ["longer", None, "1/3"]])
    assert text.splitlines() == [
        "job      best  epochs",
        "a       98.77  3/3",
        "longer      -  1/3",
    ]


def test_columns_are_aligned_where_characters_are_two_cells_wide():
    assert table(["job", "best"], [["日本", 1.0], ["abc", None]]).splitlines() == [
        "job   best",
        "日本  1.00",
        "abc      -",
    ]


def test_a_table_sends_no_commands_to_the_terminal():
    assert table(["job"], [["a\x1b[2J\r\nb"]]) == "job\na\\x1b[2J\\r\\nb"


def test_a_log_sends_no_commands_to_the_terminal(run, capsys):
    """Names of images, classes and weights are in it, which others have given."""
    shown = Terminal()
    run.log.touch()
    shown(AttemptStarted("job", run, Path("log"), ""))
    run.log.write_text("2026-01-01 00:00:00 skipped corrupt image \x1b]0;evil\x07.png\n")
    shown(AttemptFinished("job", Outcome(OutcomeKind.FAILED, "\x1b[31mboom"), Path("log")))
    said = capsys.readouterr().out
    assert r"skipped corrupt image \x1b]0;evil\x07.png" in said
    assert r"failed: \x1b[31mboom" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("number", [10**400, -1, 0], ids=["vast", "negative", "zero"])
def test_absurd_numbers_in_a_status_file_do_not_end_a_queue(run, monkeypatch, number):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = Terminal()
    run.status_file.write_text(
        f'{{"state": "training", "steps_per_epoch": 5, "num_epochs": {number}, "epoch": {number}, "eta_s": Infinity, '
        '"loss": NaN, "images_per_s": -Infinity}'
    )
    shown(AttemptStarted("job", run, Path("log"), ""))
    shown(Tick())
    shown(AttemptFinished("job", Outcome(OutcomeKind.DONE), Path("log")))


def test_the_tail_of_a_log_gives_each_whole_line_once(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("2026-01-01 00:00:00 before\n")
    tail = LogTail(log)
    with log.open("a") as file:
        file.write("2026-01-01 00:00:01 first\n  indented\n2026-01-01 00:00:02 ha")
    assert tail.new_lines() == ["first", "  indented"]
    with log.open("a") as file:
        file.write("lf\n")
    assert tail.new_lines() == ["half"]
    assert tail.new_lines() == []
    assert LogTail(tmp_path / "absent").new_lines() == []


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create()
    return run


STATUS = Status(
    state=RunState.TRAINING, epoch=2, num_epochs=4, step=5, steps_per_epoch=10, loss=0.5, score=87.6, score_name="acc1",
    lr=0.01, images_per_s=1234.0, eta_s=75.0,
)  # fmt: skip


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_and_no_bar(run, capsys):
    shown = Terminal()
    shown(AttemptStarted("job", run, Path("job.1.log"), ""))
    write_status(run, STATUS)
    run.log.write_text("2026-01-01 00:00:00 epoch 1/4\n")
    shown(AttemptFinished("job", Outcome(OutcomeKind.DONE), Path("job.1.log")))
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["  epoch 1/4", "job: done"]


def test_on_a_terminal_a_bar_has_loss_accuracy_speed_rate_and_time_left(run, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = Terminal()
    shown(AttemptStarted("job", run, Path("job.1.log"), ""))
    write_status(run, STATUS)
    shown._refresh("job")
    shown._bars._progress.refresh()
    shown(AttemptFinished("job", Outcome(OutcomeKind.FAILED, "why"), Path("job.1.log")))
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert re.search(r"epoch 2/4 .* 50% loss 0\.5000  acc1 87\.6%", said)
    assert re.search(r"run  .* 38% 1m 15s left  1,234 images/s  lr 0\.01", said)
    assert "job: failed: why" in said


def test_a_bar_shows_what_is_prepared_before_the_first_step(run, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = Terminal()
    shown(AttemptStarted("job", run, Path("job.1.log"), ""))
    write_status(run, Status(state=RunState.STARTING, preparing="measuring the spectrum", prepared=0.25))
    shown._refresh("job")
    shown._bars._progress.refresh()
    shown(AttemptFinished("job", Outcome(OutcomeKind.DONE), Path("job.1.log")))
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert re.search(r"measuring the spectrum .*25%", said)


@pytest.mark.parametrize(
    ("changes", "doing", "run_share"),
    [
        ({}, Doing("epoch 2/4", 0.5), 0.375),
        ({"step": 10, "preparing": "validating", "prepared": 0.25}, Doing("validating in epoch 2/4", 0.25), 0.5),
        ({"epoch": 0, "step": 0}, Doing("epoch 1/4", 0.0), 0.0),
        ({"preparing": "compiling the model"}, Doing("compiling the model in epoch 2/4", None), 0.375),
        (
            {"state": RunState.STARTING, "epoch": 0, "num_epochs": 0, "steps_per_epoch": 0, "step": 0,
             "preparing": "importing torch"},
            Doing("importing torch", None), None,
        ),
        ({"state": RunState.MEASURING, "images": 30, "num_images": 60}, Doing("30/60 images", 0.5), 0.5),
        ({"state": RunState.MEASURING}, Doing("opening the images", None), None),
        ({"state": RunState.FINISHED}, None, 0.375),
    ],
)  # fmt: skip
def test_an_epoch_a_validation_and_a_run_are_told_apart(changes, doing, run_share):
    status = STATUS.model_copy(update=changes)
    assert doing_of(status) == doing
    assert share_of_run(status) == run_share


def test_without_a_terminal_a_line_comes_when_a_log_is_silent_for_long(run, capsys, monkeypatch):
    shown = Terminal()
    shown(AttemptStarted("job", run, Path("job.1.log"), ""))
    write_status(run, STATUS)
    shown._refresh("job")
    assert "epoch 2/4" not in capsys.readouterr().out
    monkeypatch.setattr(attempt_terminal, "SAY_EVERY_S", 0.0)
    shown._refresh("job")
    said = "  epoch 2/4 50%, run 38%, loss 0.5000  acc1 87.6%, 1,234 images/s  lr 0.01, 1m 15s left\n"
    assert capsys.readouterr().out == said


def test_of_what_has_no_end_in_sight_a_bar_shows_the_time(run, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    bars = Bars()
    bars.add("job", shows_name=False)
    bars.show("job", Status(state=RunState.STARTING, preparing="importing torch"))
    bars._bars["job"].since -= 75
    bars.refresh()
    now, whole = bars._progress.tasks
    assert (now.description, now.fields["numbers"], now.total) == ("importing torch", "1m 15s", None)
    assert (whole.description, whole.total) == ("run", None)
    bars.show("job", STATUS)
    bars.refresh()
    assert (now.description, now.fields["numbers"], now.completed) == ("epoch 2/4", "loss 0.5000  acc1 87.6%", 0.5)
    bars.remove("job")


def test_a_terminal_that_has_gone_does_not_end_a_training(run, monkeypatch):
    def gone(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", gone)
    shown = Terminal()
    shown(AttemptStarted("job", run, Path("job.1.log"), ""))
    shown(AttemptStopping("a"))
    shown(AttemptFinished("job", Outcome(OutcomeKind.INTERRUPTED), Path("job.1.log")))


def test_of_several_trainers_each_line_has_the_name_of_its_job(tmp_path, capsys):
    shown, runs = Terminal(several=True), [RunFolder(tmp_path / name) for name in ("one", "two")]
    for run, name in zip(runs, ("a", "b"), strict=True):
        run.create()
        shown(AttemptStarted(name, run, Path("log"), ""))
        run.log.write_text(f"2026-01-01 00:00:00 epoch of {name}\n")
    shown(Tick())
    shown(AttemptFinished("a", Outcome(OutcomeKind.DONE), Path("log")))
    shown(AttemptStopping("a"))
    shown(AttemptStopping("b"))
    said = capsys.readouterr().out.splitlines()
    assert "  a: epoch of a" in said
    assert "  b: epoch of b" in said
    assert sum(line.startswith("stopping: ") for line in said) == 1


@pytest.mark.parametrize(
    ("kind", "state", "told"),
    [
        (
            OutcomeKind.INTERRUPTED,
            JobState.HELD,
            "job: stopped (held by me); `accel-train release job` lets it resume where it was",
        ),
        (OutcomeKind.SUPERSEDED, None, "job: superseded (held by me); what this trainer did does not count"),
    ],
)
def test_the_outcome_of_a_job_that_was_removed_is_printed(kind, state, told, capsys):
    Terminal()(ClaimFinished("job", FinishedClaim(Outcome(kind, "held by me"), state), Path("log")))
    assert capsys.readouterr().out.splitlines() == [told]


EVIL = "x\n\nb: done\x1b[2J\u202e"


@pytest.mark.parametrize(
    "event",
    [
        JobRejected(QueuedJob(EVIL, Path(f"{EVIL}.json"), JobState.PENDING), f"{EVIL}.json: wrong"),
        JobReclaimed(ClaimedJob(EVIL, Path(EVIL), owner=Owner(EVIL, EVIL))),
        JobTooLarge(EVIL, 8),
        SlurmJobOver(EVIL, JobState.FAILED, EVIL),
        SlurmJobChanged(EVIL, EVIL),
        SlurmProblem(EVIL),
        QueuePaused(Pause(EVIL, EVIL, 1.0, EVIL)),
        AttemptTerminating(EVIL, EVIL),
        AttemptFinished(EVIL, Outcome(OutcomeKind.FAILED, EVIL), Path(EVIL)),
        AttemptFinished(EVIL, Outcome(OutcomeKind.INTERRUPTED, EVIL), Path(EVIL)),
        ClaimFinished("b", FinishedClaim(Outcome(OutcomeKind.INTERRUPTED, EVIL), JobState.HELD), Path(EVIL)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_no_name_or_reason_passes_for_a_line_of_ours(event, capsys):
    Terminal()(event)
    Terminal(several=True)(event)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert not any(line.startswith("b: done") for line in lines)
    assert all(line.isprintable() for line in lines)


def test_what_a_log_says_of_a_file_is_one_line_whatever_its_name(run):
    with run_log(run, 0, prints=False):
        log.warning("skipped corrupt image %s: %s", f"{EVIL}.png", ValueError(EVIL))
        log.info("epoch %d  lr %.4g", 1, 0.1)
        log.info("%s", "a table\nof two lines\x1b[2J")
        log.error("error: %s", UserError("one", "two"))
    lines = [line[20:] if line[:2] == "20" else line for line in run.log.read_text().splitlines()]
    evil = r"x\n\nb: done\x1b[2J\u202e"
    assert lines == [
        f"skipped corrupt image {evil}.png: {evil}",
        "epoch 1  lr 0.1",
        "a table",
        r"of two lines\x1b[2J",
        "error: one",
        "two",
    ]
