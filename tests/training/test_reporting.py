import errno
import json
import logging
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers import wait_until

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.log import begin_logging
from accel_trainer.run.performance import PerformanceRow, read_performance, write_performance
from accel_trainer.run.status import RunState, Status, read_status
from accel_trainer.training import reporting
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Plotter, Reporter
from accel_trainer.training.state.checkpoint import Progress
from accel_trainer.training.tracking import RunAbout, Tracking


def row(epoch: int, split: str, **more: float) -> PerformanceRow:
    numbers = {"loss": 1 / 3, "acc1": 200 / 3, "acc5": 100.0, "lr": 1e-7, "images_per_s": 1234.5678, "seconds": 0.5}
    return PerformanceRow.from_record({"epoch": epoch, "split": split, **numbers, **more})


def test_the_table_of_a_run_is_read_by_the_reports(run: RunFolder) -> None:
    history = [row(epoch, split) for epoch in (1, 2) for split in ("train", "val")]
    write_performance(run, history)
    assert run.performance.read_text().splitlines()[0] == "epoch,split,loss,acc1,acc5,lr,images_per_s,seconds"
    rows = read_performance(run)
    assert [(r.epoch, r.split) for r in rows] == [(1, "train"), (1, "val"), (2, "train"), (2, "val")]
    for name in ("loss", "acc1", "acc5"):
        assert rows[3].scores[name] == pytest.approx(history[3].scores[name], rel=1e-7)
    for name in ("lr", "images_per_s", "seconds"):
        assert getattr(rows[3], name) == pytest.approx(getattr(history[3], name), rel=1e-7)


def test_a_score_that_was_not_measured_for_a_row_is_left_empty(run: RunFolder) -> None:
    write_performance(run, [row(1, "val"), row(2, "val", knn=50.0), row(2, "val_ema", acc1_cycle0=1.0)])
    header, first, second, _ = run.performance.read_text().splitlines()
    assert header == "epoch,split,loss,acc1,acc5,knn,acc1_cycle0,lr,images_per_s,seconds"
    assert first.count(",,") == 1
    assert ",50.0,," in second
    assert [sorted(r.scores) for r in read_performance(run)][:2] == [
        ["acc1", "acc5", "loss"],
        ["acc1", "acc5", "knn", "loss"],
    ]


def test_the_table_is_written_whole_each_time(run: RunFolder) -> None:
    for last in (3, 2):
        write_performance(run, [row(epoch, "val") for epoch in range(1, last + 1)])
    assert len(read_performance(run)) == 2
    write_performance(run, [])
    assert read_performance(run) == []


def test_what_is_not_a_number_stays_so(run: RunFolder) -> None:
    write_performance(run, [row(1, "val", acc1=math.nan, loss=math.inf)])
    (read,) = read_performance(run)
    assert math.isnan(read.scores["acc1"])
    assert read.scores["loss"] == math.inf


def test_what_is_left_is_known_after_an_epoch_however_short(run: RunFolder) -> None:
    reporter = Reporter(run, Status(state=RunState.TRAINING, num_epochs=5), writes=True)
    reporter.report_epoch(Progress(epoch=2, history=[row(2, "train"), row(2, "val", seconds=0.25)]), "acc1")
    said = read_status(run)
    assert said is not None
    assert said.eta_s == 3 * 0.75


def test_a_preparation_is_in_the_status_until_it_is_done(run: RunFolder) -> None:
    reporter = Reporter(run, Status(state=RunState.STARTING), writes=True)
    for done, expected in ((1, ("measuring", 0.25)), (2, ("measuring", 0.25)), (4, (None, None))):
        reporter.report_preparation("measuring", done, 4)
        status = read_status(run)
        assert status is not None
        assert (status.preparing, status.prepared) == expected, "once a second, and at the end"


# -- status -----------------------------------------------------------------------------------------------------


def test_a_status_keeps_what_is_not_changed(run: RunFolder) -> None:
    reporter = Reporter(run, Status(state=RunState.STARTING, token="t"), writes=True)
    reporter.update(state=RunState.TRAINING, epoch=2, eta_s=60.0)
    reporter.update(step=7)
    status = read_status(run)
    assert status is not None
    assert (status.state, status.token, status.epoch, status.step) == (RunState.TRAINING, "t", 2, 7)
    assert status.host
    assert status.pid
    assert status.updated > 1.5e9
    reporter.finish(RunState.FAILED, "out of memory")
    ended = read_status(run)
    assert ended is not None
    assert (ended.state, ended.error, ended.epoch, ended.eta_s) == (RunState.FAILED, "out of memory", 2, None)


def test_ranks_other_than_0_report_nothing(run: RunFolder) -> None:
    Reporter(run, Status(state=RunState.STARTING), writes=False).finish(RunState.FINISHED)
    assert read_status(run) is None


def test_a_report_is_due_once_a_second(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("accel_trainer.training.reporting.time.monotonic", lambda: now)
    reporter = Reporter(run, Status(state=RunState.STARTING), writes=True)
    reporter.update()
    now = 100.9
    assert not reporter.is_due()
    now = 101.0
    assert reporter.is_due()


# -- a disk that is full ------------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_status_that_cannot_be_written_briefly_does_not_end_training(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Reporter(run, Status(state=RunState.STARTING), writes=True)
    reporter.update(step=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        for step in (2, 3):
            reporter.update(step=step)
    assert caplog.messages == [
        f"{run.status_file} cannot be written (No space left on device); the training goes on"
    ], "said once"
    reporter.update(epoch=1)
    status = read_status(run)
    assert status is not None
    assert (status.epoch, status.step) == (1, 3)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        reporter.update(state=RunState.TRAINING, durable=True)
    reporter.update(step=4)
    assert len(caplog.messages) == 2, "another time"


@pytest.mark.parametrize("times", [1, 3, 4, 100])
def test_the_last_word_is_tried_hard(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    """At last in the place of the one before."""
    waits: list[float] = []
    monkeypatch.setattr("accel_trainer.training.reporting.time.sleep", waits.append)
    reporter = Reporter(run, Status(state=RunState.TRAINING, token="t" * 1000), writes=True)
    reporter.update()
    replace, calls = Path.replace, iter(range(1000))
    monkeypatch.setattr(Path, "replace", lambda *args: full() if next(calls) < times else replace(*args))
    reporter.finish(RunState.FAILED, "a reason")
    status = read_status(run)
    assert status is not None
    assert (status.state, status.error) == (RunState.FAILED, "a reason")
    assert len(waits) == min(times + 1, 4)
    assert len(caplog.messages) == (times > 3)


def test_a_last_word_that_cannot_be_written_raises_nothing(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel_trainer.training.reporting.time.sleep", lambda _: None)
    monkeypatch.setattr(Path, "open", full)
    Reporter(run, Status(state=RunState.STARTING), writes=True).finish(RunState.FAILED, "a reason")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_log_on_a_full_disk_loses_its_lines_and_nothing_else(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.log.symlink_to("/dev/full")
    with Path("/dev/full").open("w") as output:
        monkeypatch.setattr("sys.stdout", output)
        begin_logging(run, 0)
        for _ in range(3):
            logging.getLogger("accel_trainer").info("a line")
        monkeypatch.undo()
        with suppress(OSError):
            output.close()
    assert capsys.readouterr().err == ""
    begin_logging(None, 0)
    logging.getLogger("accel_trainer").info("%d", "not a number")
    assert "not a number" in capsys.readouterr().err, "mistakes of our own are seen"


# -- log ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "printed"), [(0, "loss naïve 0.5\n"), (1, "[rank 1] loss naïve 0.5\n")])
def test_rank_0_logs_to_the_run_folder_and_every_rank_to_its_output(
    run: RunFolder, capsys: pytest.CaptureFixture[str], rank: int, printed: str
) -> None:
    begin_logging(run, rank)
    begin_logging(run, rank)  # as when a second run begins in one process
    logging.getLogger("accel_trainer.training.loop").info("loss %s %s", "naïve", 0.5)
    logging.getLogger("another library").warning("noise")
    assert capsys.readouterr().out == printed
    assert run.log.exists() == (rank == 0)
    if rank == 0:
        assert run.log.read_text(encoding="utf-8").endswith(" loss naïve 0.5\n")
        assert "noise" not in run.log.read_text(encoding="utf-8")


# -- plots ------------------------------------------------------------------------------------------------------------


def test_plots_are_drawn_beside_the_training_and_are_there_in_the_end(run: RunFolder) -> None:
    write_performance(run, [row(1, "train"), row(1, "val")])
    plotter = Plotter(run)
    plotter.draw()
    plotter.close()
    assert plotter._process is not None
    assert plotter._process.returncode == 0
    assert sorted(path.name for path in run.path.glob("performance.*")) == [
        "performance.csv", "performance.pdf", "performance.png", "performance.svg",
    ]  # fmt: skip


def test_a_plotter_is_started_after_the_first_step_or_when_it_is_needed(
    run: RunFolder, make_loop: Callable[..., TrainingLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    loop = make_loop(run.path / "loop")
    monkeypatch.setattr(reporting, "PLOT_EVERY_S", math.inf)
    monkeypatch.setattr(Plotter, "_start", lambda _: started.append(loop.progress.global_step))
    loop.train(Tracking(loop.accelerator, loop.job, loop.run, RunAbout("id")), Plotter(run))
    assert started[0] == 1


def test_a_plotter_that_has_died_does_not_disturb_the_training(run: RunFolder) -> None:
    plotter = Plotter(run)
    plotter.start()
    assert plotter._process is not None
    plotter._process.kill()
    plotter._process.wait()
    plotter.draw(now=True)
    plotter.close()


def test_a_status_is_for_other_programs_too(run: RunFolder) -> None:
    Reporter(run, Status(state=RunState.STARTING), writes=True).update(loss=math.nan)
    assert json.loads(Path(run.status_file).read_text(), parse_constant=pytest.fail)["state"] == "starting"


def test_a_plotter_that_was_killed_is_no_zombie(run: RunFolder) -> None:
    plotter = Plotter(run)
    plotter.start()
    assert plotter._process is not None
    child = psutil.Process(plotter._process.pid)
    child.kill()
    wait_until(lambda: not child.is_running(), timeout_s=10)
    plotter.close()


# -- what has no steps ------------------------------------------------------------------------------------------------


def test_what_takes_long_without_steps_is_no_stall_and_what_hangs_in_it_is(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "STATUS_EVERY_S", 0.02)
    reporter = Reporter(run, Status(state=RunState.STARTING, token="t"), writes=True)
    reporter.update()

    def written() -> float | None:
        status = read_status(run)
        return None if status is None else status.updated

    with reporter.alive():
        for _ in range(2):
            before = written()
            wait_until(lambda before=before: written() != before, 20)
    before = written()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
    with reporter.alive(at_most_s=0.0):
        wait_until(lambda: "heartbeat" not in {thread.name for thread in threading.enumerate()}, 20)
        assert written() == before


def test_the_status_names_what_is_waited_for_and_a_validation_has_its_share(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "STATUS_EVERY_S", 0.0)
    reporter = Reporter(run, Status(state=RunState.STARTING, token="t"), writes=True)

    def named() -> tuple[str | None, float | None]:
        status = read_status(run)
        return (None, None) if status is None else (status.preparing, status.prepared)

    with reporter.alive("building the model"):
        assert named() == ("building the model", None)
    reporter.report_validation("validating", 3, 4)
    assert named() == ("validating", 0.75)
    reporter.finish(RunState.PREEMPTED)
    assert named() == (None, None)


def test_only_the_rank_that_writes_beats_for_all(run: RunFolder) -> None:
    with Reporter(run, Status(state=RunState.STARTING, token="t"), writes=False).alive():
        assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
