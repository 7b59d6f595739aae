"""The verbs that look at a queue."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import COMMAND, dead_token, write_job
from pty_screen import PtyScreen
from typer.testing import CliRunner, Result

from accel_trainer.cli import app, logs, status, wait
from accel_trainer.core import lease
from accel_trainer.core.errors import UserError
from accel_trainer.queue import status_table
from accel_trainer.queue.control import Pauses
from accel_trainer.queue.heartbeat import HeartbeatWriter
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import submission_of
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, read_status, write_status


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def rows() -> dict[str, dict[str, object]]:
    return {row["job"]: row for row in json.loads(run("status", "--json").stdout)}


def begun(queue: QueueStore, name: str, devices: tuple[str, ...] = ()) -> QueuedJob:
    """A job that this process has claimed, with something in its status.json."""
    write_job(queue.folder / f"{name}.json", model_dir=f"models/{name}")
    job = queue.claim(queue.find(name))
    assert job is not None
    HeartbeatWriter(queue, 1, print).begin(job.owner.token, devices)
    folder = RunFolder(Path(f"models/{name}"))
    folder.create()
    write_status(folder,
        Status(
            state=RunState.TRAINING, token=job.owner.token, epoch=3, num_epochs=9, best=87.654321,
            primary_metric="acc1", eta_s=75.0,
        )
    )  # fmt: skip
    return job


def test_status_shows_progress_place_and_duration_of_running_jobs(queue: QueueStore) -> None:
    job = begun(queue, "a", ("0", "3"))
    row = rows()["a"]
    expected = {
        "state": "running", "epoch": 3, "num_epochs": 9, "metric": "acc1", "best": 87.654321, "host": job.owner.host,
        "devices": ["0", "3"], "left_s": 75.0,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert 0 <= row["elapsed_s"] < 60
    *line, seconds, minutes, rest, note = run("status").stdout.splitlines()[1].split()
    assert 0 <= int(seconds.removesuffix("s")) < 60
    assert [*line, minutes, rest, note] == [
        "a",
        "running",
        "3/9",
        "87.65",
        "acc1",
        job.owner.host,
        "gpu",
        "0,3",
        "1m",
        "15s",
        "-",
    ]


def test_log_lines_of_an_earlier_attempt_are_not_printed_again(queue: QueueStore) -> None:
    job = begun(queue, "a")
    folder = RunFolder(Path("models/a"))
    write_status(folder, read_status(folder).model_copy(update={"token": "another"}))
    assert rows()["a"]["epoch"] is None
    queue.finish(job, JobState.DONE)
    assert rows()["a"]["epoch"] == 3


def test_a_job_of_a_silent_host_is_stale(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write_job(queue.folder / "running/a@grey.boot-1-2-x.json")
    assert rows()["a"]["note"] is None
    monkeypatch.setattr(lease, "STALE_S", -1.0)
    assert "stale: nothing was heard of its runner for" in rows()["a"]["note"]


def test_what_is_dead_has_no_clock_that_goes_on(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begun(queue, "a")
    assert rows()["a"]["elapsed_s"] is not None
    monkeypatch.setattr("accel_trainer.core.lease.Owner.is_dead", lambda owner: owner == job.owner)
    row = rows()["a"]
    assert (row["elapsed_s"], row["left_s"], row["epoch"]) == (None, None, 3)
    assert row["note"] == "its runner died; run-queue reclaims it"


@pytest.mark.parametrize(
    ("epoch", "step", "where"),
    [(3, 5, "continues at 3/8"), (3, 10, "continues at 4/8"), (2, 0, "continues at 3/8"), (8, 10, None), (0, 0, None)],
)
@pytest.mark.parametrize("state", ["pending", "held"])
def test_an_interrupted_job_says_where_it_continues(
    queue: QueueStore, epoch: int, step: int, where: str | None, state: str
) -> None:
    path = write_job(queue.paths.of(JobState(state)) / "a.json", model_dir="models/a")
    folder = RunFolder(Path("models/a"))
    folder.create()
    status = Status(
        state=RunState.PREEMPTED, epoch=epoch, num_epochs=8, step=step, steps_per_epoch=10, best=50.0,
        primary_metric="acc1", submission=submission_of(path),
    )  # fmt: skip
    write_status(folder, status)
    row = rows()["a"]
    assert (row["state"], row["epoch"], row["best"], row["note"]) == (state, epoch, 50.0, where)
    write_status(folder, status.model_copy(update={"submission": "of an earlier job of this name"}))
    assert rows()["a"]["note"] is None


def test_a_long_queue_is_shortened_unless_all_is_asked_for(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "FEW", 2)
    monkeypatch.setattr(status_table, "MOST_NOTES", 1)
    for name in ("a", "b", "c"):
        write_job(queue.folder / f"{name}.json", after=["kept"])
    write_job(queue.folder / "held/kept.json")
    said = run("status").stdout.splitlines()
    assert [line.split()[0] for line in said] == ["job", "a", "b", "kept", "and"]
    assert said[-1] == "and 1 more that are pending (--all shows them)"
    assert [line.split()[0] for line in run("status", "--all").stdout.splitlines()] == ["job", "a", "b", "c", "kept"]
    assert [rows()[name]["note"] for name in "ab"] == ["waits for 'kept', which is held", None]


def test_status_shows_that_the_queue_is_paused(queue: QueueStore) -> None:
    Pauses(queue).add("grey", "the fans")
    assert run("status").stdout.splitlines()[-1].endswith(": the fans")
    write_job(queue.folder / "a.json")
    assert run("status").stdout.splitlines()[-1].startswith("the queue on grey is paused since ")


def test_status_names_files_that_look_like_jobs_and_are_none(queue: QueueStore) -> None:
    write_job(queue.folder / "a.JSON")
    assert run("status").stdout.splitlines()[1:] == [
        "not a job: training_queue/a.JSON: a job file's name ends in .json; rename it to a.json"
    ]
    write_job(queue.folder / "b (conflicted copy).json")
    assert "b (conflicted copy).json: a copy made where" in run("status").stdout
    assert run("status", "--json").stdout.strip() == "[]"


def test_the_newest_log_is_printed_or_its_end(queue: QueueStore) -> None:
    write_job(queue.folder / "done/a.json")
    for number, text in ((9, "old\n"), (10, "one\ntwo \x1b[2J\n")):
        (queue.paths.logs / f"a.{number}.log").write_text(text)
    (queue.paths.logs / "a.b.11.log").write_text("another job's\n")
    assert run("logs", "a").stdout == "one\ntwo \\x1b[2J\n"
    assert run("logs", "a", "-n", "1").stdout == "two \\x1b[2J\n"
    write_job(queue.folder / "new.json")
    result = run("logs", "new")
    assert "new: it was not started yet" in str(result.exception)


def test_the_log_of_each_attempt_is_printed_and_they_are_listed(queue: QueueStore) -> None:
    write_job(queue.folder / "done/a.json")
    write_job(queue.folder / "new.json")
    for number in (1, 10):
        (queue.paths.logs / f"a.{number}.log").write_text(f"attempt {number}\n")
    assert run("logs", "a", "--attempt", "1").stdout == "attempt 1\n"
    assert "there are: 1, 10" in str(run("logs", "a", "--attempt", "2").exception)
    assert "it was not started yet" in str(run("logs", "new", "--attempt", "1").exception)
    assert "not with" in str(run("logs", "a", "--attempt", "1", "-f").exception)
    assert "only with" in str(run("logs", "a", "--json").exception)
    header, *lines = run("logs", "a", "--list").stdout.splitlines()
    assert header.split() == ["attempt", "last", "written", "size", "log"]
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        ("1", "training_queue/logs/a.1.log"),
        ("10", "training_queue/logs/a.10.log"),
    ]
    assert [row["attempt"] for row in json.loads(run("logs", "a", "--list", "--json").stdout)] == [1, 10]
    assert run("logs", "new", "--list").stdout == "no attempt yet\n"
    assert json.loads(run("logs", "new", "--list", "--json").stdout) == []


def test_a_long_log_is_printed_in_parts_whose_characters_stay_whole(queue: QueueStore, monkeypatch) -> None:
    monkeypatch.setattr("accel_trainer.core.blocks.BLOCK_BYTES", 5)
    write_job(queue.folder / "done/a.json")
    (queue.paths.logs / "a.1.log").write_bytes("naïve 雪雪雪\n".encode() * 3 + b"\xff\x1b end")
    whole = "naïve 雪雪雪\n" * 3 + "\\udcff\\x1b end"
    assert run("logs", "a").stdout == run("logs", "a", "-f").stdout == whole
    assert run("logs", "a", "-n", "2").stdout == run("logs", "a", "-fn2").stdout == "naïve 雪雪雪\n\\udcff\\x1b end"
    assert run("logs", "a", "-n", "0").stdout == ""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_log_takes_no_more_memory_than_a_few_parts_of_it(queue: QueueStore) -> None:
    write_job(queue.folder / "done/a.json")
    line = "epoch 1/4: naïve loss 0.1234\n" * 1000
    with (queue.paths.logs / "a.1.log").open("w") as log:
        for _ in range(2000):
            log.write(line)
    code = (
        "import atexit, sys; from accel_trainer.cli import main; sys.argv[1:] = ['logs', 'a'];"
        # Of this program alone: what getrusage gives counts the process that was forked, too.
        "size = lambda: next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "atexit.register(lambda: print(size(), file=sys.stderr)); main()"
    )
    result = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert int(result.stderr) < 200_000, "KiB, for a log of 60 MB"


def test_a_log_that_is_longer_than_the_terminal_is_shown_by_the_pager(queue: QueueStore, tmp_path: Path) -> None:
    write_job(queue.folder / "done/a.json")
    (queue.paths.logs / "a.1.log").write_text("".join(f"line {number}\n" for number in range(30)))
    pager = tmp_path / "page"
    pager.write_text("#!/bin/sh\necho paged; tail -n 2\n")
    pager.chmod(0o755)
    words = [*COMMAND, "logs", "a"]
    with (
        PtyScreen(words, PAGER=str(pager)) as paged,
        PtyScreen([*words, "--no-pager"], PAGER=str(pager)) as whole,
        PtyScreen([*words, "-n", "5"], PAGER=str(pager)) as short,
        PtyScreen(words, PAGER="/no/such pager") as without,
    ):
        assert [shown.end() for shown in (paged, whole, short, without)] == [0, 0, 0, 0]
        assert paged.raw.split() == b"paged line 28 line 29".split()
        assert whole.raw.split()[-2:] == without.raw.split()[-2:] == [b"line", b"29"]
        assert short.raw.splitlines() == [b"line %d" % number for number in range(25, 30)]


def test_a_log_is_followed_over_attempts_until_the_job_is_over(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOOK_EVERY_S", 0.02)
    path = write_job(queue.folder / "a.json")
    said: list[str] = []
    follower = threading.Thread(target=lambda: said.append(run("logs", "-f", "a").stdout))
    follower.start()
    with (queue.paths.logs / "a.1.log").open("w") as log:
        for word in ("naïve ", "one\n"):
            log.write(word)
            log.flush()
            time.sleep(0.1)
    (queue.paths.logs / "a.2.log").write_text("two\n")
    time.sleep(0.3)
    path.rename(queue.folder / "done/a.json")
    follower.join(10)
    assert said == ["naïve one\ntwo\n"]


EVIL = "a\nerror: all is lost\x1b[2J\u202e"


def test_a_name_in_the_queue_makes_no_line_and_no_command_for_a_terminal(queue: QueueStore) -> None:
    for state in (JobState.PENDING, JobState.HELD, JobState.FAILED, JobState.RUNNING):
        suffix = "@host.token" if state is JobState.RUNNING else ""
        write_job(queue.paths.of(state) / f"{EVIL}{state}{suffix}.json")
    (queue.paths.of(JobState.FAILED) / f"{EVIL}failed.reason.txt").write_text(EVIL)
    for words in (
        ["status"],
        ["status", "--all"],
        ["status", "--json"],
        ["reclaim"],
        ["release", EVIL],
        ["hold", EVIL],
    ):
        result = run(*words)
        assert result.exception is None or isinstance(result.exception, SystemExit | UserError)
        shown = result.stdout + result.stderr
        assert not any(line.startswith("error: all is lost") for line in shown.splitlines())
        assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("folder", ["requests", "retries", "runners", "observed", "slurm", "moves"])
def test_a_damaged_record_is_named_once_in_the_status(queue: QueueStore, folder: str) -> None:
    write_job(queue.folder / "a.json")
    path = queue.folder / folder / "x.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"sequence": NaN, "time": 1e300}')
    what = ": a job that was being moved to another queue stays where it is until somebody has looked there"
    rest = what if folder == "moves" else " and counts as none; it can be removed"
    assert run("status").stdout.splitlines()[2:] == [f"{path} is damaged{rest}"]


def test_of_thousands_of_records_those_of_shown_jobs_are_looked_at(queue: QueueStore) -> None:
    write_job(queue.folder / "x.json")
    queue.paths.retries.mkdir(exist_ok=True)
    for number in range(status_table.MOST_RECORDS):
        (queue.paths.retries / f"a{number}.json").symlink_to("nowhere")
    (queue.paths.retries / "x.json").write_text("{")
    assert f"{queue.paths.retries / 'x.json'} is damaged" in run("status").stdout
    assert len(status_table.damaged_records(queue)) == 0


def test_a_log_keeps_its_colors_and_does_nothing_else_to_a_terminal(queue: QueueStore) -> None:
    write_job(queue.folder / "a.json")
    queue.next_log("a").write_bytes(b"\x1b[32mgreen\x1b[0m\r10%\r20%\n\x1b]0;title\x07\x1b[2J\x9b2J\n")
    assert run("logs", "a").stdout == "\x1b[32mgreen\x1b[0m\r10%\r20%\n" + r"\x1b]0;title\x07\x1b[2J\udc9b2J" + "\n"


def test_who_waits_learns_how_it_ended(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "LOOK_EVERY_S", 0.05)
    paths = {name: write_job(queue.folder / f"{name}.json") for name in ("a", "b")}
    write_job(queue.folder / "done/c.json")
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(run("wait")))
    waiting.start()
    time.sleep(0.2)
    paths["a"].rename(queue.folder / "done/a.json")
    time.sleep(0.2)
    paths["b"].rename(queue.folder / "failed/b.json")
    waiting.join(10)
    assert (results[0].stdout, results[0].exit_code) == ("a: done\nb: failed\n", 1)
    assert results[0].stderr == (
        "waiting for a, b (2 pending): no runner is at work; `accel-train run-queue` starts one\n"
    )
    result = run("wait", "c")
    assert (result.stdout, result.exit_code) == ("c: done\n", 0)


def test_who_waits_learns_when_it_may_be_over(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(wait, "SAY_EVERY_S", 0.1)
    job = begun(queue, "a")
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(run("wait")))
    waiting.start()
    time.sleep(0.6)
    queue.finish(job, JobState.DONE)
    waiting.join(10)
    first, *others = results[0].stderr.splitlines()
    assert first.startswith("waiting for a (1 running): done in about 1m 15s (")
    assert others, "it is said again and again"


def test_nobody_waits_for_a_runner_that_is_dead(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(wait, "GRACE_S", 0.1)
    write_job(queue.folder / "b.json")
    write_job(queue.folder / f"running/a@here.{dead_token()}.json")
    result = run("wait")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        "error: a: its runner died; `accel-train run-queue` goes on with it",
        "error: b: not over, and no runner is at work",
    ]


def test_what_a_dead_runner_has_left_is_waited_for_while_another_one_is_at_work(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(wait, "GRACE_S", 0.0)
    path = write_job(queue.folder / f"running/a@here.{dead_token()}.json")
    begun(queue, "other")
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(run("wait", "a")))
    waiting.start()
    time.sleep(0.5)
    assert not results
    path.rename(queue.folder / "done/a.json")
    waiting.join(10)
    assert (results[0].stdout, results[0].exit_code) == ("a: done\n", 0)


def test_ctrl_c_ends_the_waiting_and_not_the_jobs(queue: QueueStore) -> None:
    write_job(queue.folder / "a.json")
    with PtyScreen([*COMMAND, "wait"]) as shown:
        shown.until("waiting for a (1 pending): no runner is at work")
        shown.press("\x03")
        assert shown.end() == 130
        assert shown.lines[0].endswith("not waited for any more; the jobs go on"), "it takes the place of the line"
    assert (queue.folder / "a.json").is_file()
