"""Odd names, odd clocks and odd disks: what becomes of a job file then."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import own_disk, said_by, write_job

from accel_trainer.config import read_job
from accel_trainer.core.errors import UserError
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue import checker as checker_module
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.events import ClaimFinished, Event, JobRejected
from accel_trainer.queue.layout import JobState, QueuedJob, QueueUnusable
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.runner_options import RunnerOptions
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState

DAY_S = 24 * 3600.0
COMPOSED = unicodedata.normalize("NFC", "Größe-é")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
GOOD = [
    COMPOSED,
    DECOMPOSED,
    "two words",
    " spaces around ",
    "q'uote\" $(touch x); #1",
    "emoji🎉",
    "٣²",
    "%s{0}[red]",
    "a@b.c@host.1-2-3-4",
    "~2",
    "b" * 120,
    "9" * 120,
]
# Each with what is said of it, and the name that it has in failed/.
BAD = {
    "-dash": ("may not begin with '-'", "dash"),
    "--help": ("may not begin with '-'", "help"),
    "new\nline": ("control characters", "new_line"),
    "bell\a": ("control characters", "bell_"),
    "esc\x1b[31m": ("control characters", "esc_[31m"),
    "right-to-left\u202egnp": ("control characters", "right-to-left_gnp"),
    "zero\u200bwidth": ("control characters", "zero_width"),
    "not UTF-8 \udcff": ("control characters", "not UTF-8 _"),
    "a..b": ("'..'", "a_b"),
    "back\\slash": ("control characters, '..' or '\\'", "back_slash"),
    "c" * 121: ("may have 120 bytes, not 121", "c" * 30),
    "n" * 250: ("may have 120 bytes, not 250", "n" * 30),
    "ü" * 61: ("may have 120 bytes, not 122", "ü" * 30),
}


class Recorder:
    """Keeps how jobs ended, and why they were refused."""

    def __init__(self) -> None:
        self.ended_as: dict[str, Outcome] = {}
        self.refused: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case ClaimFinished(name=name, finished=finished):
                self.ended_as[name] = finished.outcome
            case JobRejected(job=job, reason=reason):
                self.refused[job.name] = reason


class Trainings(list[str]):
    """The names of the jobs that were trained; `act` is what happens meanwhile, `ending` how all of them end."""

    act: Callable[[Attempt], None] = staticmethod(lambda attempt: None)
    ending = Outcome(OutcomeKind.DONE)

    async def __call__(self, attempt: Attempt, *_: object) -> Outcome:
        self.append(attempt.job.name)
        self.act(attempt)
        return self.ending


@pytest.fixture
def trainings(in_place_of_trainers: Callable[[object], None]) -> Trainings:
    trainings = Trainings()
    in_place_of_trainers(trainings)
    return trainings


@pytest.fixture
def run_all(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> Callable[[QueueStore], Recorder]:
    def run(queue: QueueStore) -> Recorder:
        recorder = Recorder()
        runner = Runner(queue, Machine((), False, 2), recorder, RunnerOptions(retry_after_s=0.05))
        runner.run()
        return recorder

    return run


def in_state(queue: QueueStore, state: JobState) -> list[str]:
    return [job.name for job in queue.jobs(state)]


# -- names ------------------------------------------------------------------------------------------------------------


def test_good_names_stay_as_they_are_through_all_of_a_jobs_life(queue, trainings, run_all):
    for seed, name in enumerate(GOOD):
        write_job(queue.folder / f"{name}.json", seed=seed)
    kept = {name: (queue.folder / f"{name}.json").read_bytes() for name in GOOD}
    run_all(queue)
    assert sorted(trainings) == sorted(GOOD)
    assert {job.name: job.path.read_bytes() for job in queue.jobs(JobState.DONE)} == kept
    assert not Path("x").exists(), "nothing in a name is run"


def test_bad_names_are_refused_in_a_line_each_and_moved_safely(queue, trainings, run_all):
    for seed, name in enumerate(BAD):
        write_job(queue.folder / f"{name}.json", seed=seed)
    recorder = run_all(queue)
    assert trainings == []
    assert recorder.refused.keys() == BAD.keys()
    for name, reason in recorder.refused.items():
        assert BAD[name][0] in reason
        assert "\n" not in reason
        assert reason.isprintable()
    assert sorted(in_state(queue, JobState.FAILED)) == sorted(after for _, after in BAD.values())
    assert all(queue.reason(job) for job in queue.jobs(JobState.FAILED))
    assert in_state(queue, JobState.PENDING) == []


def test_files_that_are_hidden_or_have_another_ending_are_not_jobs(queue, trainings, run_all):
    for name in (".json", ".hidden.json", "upper.JSON", "a.json.tmp", "a.json~", "a.json "):
        write_job(queue.folder / name)
    run_all(queue)
    assert trainings == []
    assert in_state(queue, JobState.FAILED) == []


def test_the_command_line_takes_odd_names_and_prints_commands_that_can_be_typed(cli):
    good = [Path(f"{name}.json") for name in GOOD if name != "9" * 120]
    for seed, path in enumerate(good):
        write_job(path, seed=seed)
    added = cli("add", *good)
    assert (added.returncode, added.stderr) == (0, "")
    rows = json.loads(cli("status", "--json").stdout)
    assert {row["job"] for row in rows} == {path.stem for path in good}
    printed = cli("run-queue", "--dry-run")
    assert (printed.returncode, printed.stderr) == (0, "")
    words = [shlex.split(line) for line in printed.stdout.splitlines()]
    assert {word for line in words for word in line if word.endswith(".json")} == {
        f"training_queue/{path}" for path in good
    }


def test_messages_about_bad_names_contain_no_control_characters(cli):
    for name in BAD:
        write_job(Path("training_queue") / f"{name}.json")
    shown = cli("status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len(shown.stdout.splitlines()) == len(BAD) + 1
    refused = cli("run-queue", "--dry-run")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == len(BAD)
    for output in (shown.stdout, refused.stderr):
        assert all(line.isprintable() for line in output.splitlines())
    added = cli("add", "./--help.json", "training_queue/new\nline.json")
    assert added.returncode == 2
    assert len(added.stderr.splitlines()) == 2


# -- a name twice -----------------------------------------------------------------------------------------------------


def test_a_job_named_like_a_finished_one_runs_and_is_kept_beside_it(queue, trainings, run_all):
    write_job(queue.folder / "done/a.json", seed=1)
    write_job(queue.folder / "a.json", seed=2)
    assert queue.states()["a"] is JobState.PENDING
    run_all(queue)
    assert trainings == ["a"]
    assert [(job.name, read_job(job.path).seed) for job in queue.jobs(JobState.DONE)] == [("a", 1), ("a~2", 2)]
    write_job(queue.folder / "a.json", seed=1)
    run_all(queue)
    assert in_state(queue, JobState.DONE) == ["a", "a~2"], "the very same job file is not kept twice"


def test_a_job_named_like_a_running_one_waits_for_its_end(queue, trainings, run_all):
    write_job(queue.folder / "a.json", seed=1)
    newcomer = queue.folder / "a.json"
    running = []

    def drop_another(attempt: Attempt) -> None:
        running.append((in_state(queue, JobState.PENDING), in_state(queue, JobState.RUNNING)))
        if len(trainings) == 1:
            write_job(newcomer, seed=2)

    trainings.act = drop_another
    run_all(queue)
    assert trainings == ["a", "a"]
    assert running == [([], ["a"]), ([], ["a"])]
    assert [read_job(job.path).seed for job in queue.jobs(JobState.DONE)] == [1, 2]


def test_a_job_running_on_another_machine_is_not_run_here_too(queue, trainings, run_all):
    there = write_job(queue.folder / "running/a@elsewhere.1-2-3-4.json", seed=1)
    write_job(queue.folder / "a.json", seed=2)
    write_job(queue.folder / "b.json")

    def ends_elsewhere(attempt: Attempt) -> None:
        there.rename(queue.folder / "done/a.json") if attempt.job.name == "b" else None

    trainings.act = ends_elsewhere
    run_all(queue)
    assert trainings == ["b", "a"]


def test_add_refuses_the_name_of_a_job_that_is_pending_running_or_done(cli):
    write_job(Path("training_queue/running/a@elsewhere.1-2-3-4.json"), seed=1)
    write_job(Path("training_queue/done/b.json"), seed=2)
    write_job(Path("training_queue/c.json"), seed=3)
    files = [write_job(Path(f"{name}.json"), seed=seed) for name, seed in (("a", 4), ("b", 5), ("c", 6))]
    refused = cli("add", *files)
    assert refused.returncode == 2
    assert [re.findall(r"is (\w+) in the queue", line) for line in refused.stderr.splitlines()] == [
        ["running"],
        ["done"],
        ["pending"],
    ]


# -- clocks -----------------------------------------------------------------------------------------------------------


def from_tomorrow(path: Path, offset_s: float = DAY_S) -> Path:
    os.utime(path, (time.time() + offset_s, time.time() + offset_s))
    return path


@pytest.mark.parametrize("offset_s", [DAY_S, -DAY_S])
def test_after_clock_changes_jobs_run_and_invalid_ones_are_refused(queue, trainings, run_all, offset_s):
    from_tomorrow(write_job(queue.folder / "good.json"), offset_s)
    wrong = queue.folder / "wrong.json"
    wrong.write_text("{")
    stamp = from_tomorrow(wrong, offset_s).stat().st_mtime_ns
    recorder = run_all(queue)
    assert trainings == ["good"]
    assert recorder.refused.keys() == {"wrong"}
    (failed,) = queue.jobs(JobState.FAILED)
    assert failed.path.stat().st_mtime_ns == stamp


def test_after_the_clock_is_set_back_retries_wait_and_count_as_usual(queue, monkeypatch):
    job = QueuedJob("a", from_tomorrow(write_job(queue.folder / "a.json", retries=3)), JobState.PENDING)
    retries = Retries(queue, first_wait_s=60)
    now = time.time
    with monkeypatch.context() as tomorrow:
        tomorrow.setattr(time, "time", lambda: now() + DAY_S)
        retries.add(job, 2, "memory ran out")
        assert retries.backing_off([job])["a"] == pytest.approx(120, abs=5)
    assert retries.backing_off([job]) == {}
    failures = retries.of(job)
    assert failures is not None
    assert failures.number == 2
    claimed = queue.claim(job)
    assert claimed is not None
    assert retries.of(claimed) == failures, "claims and their ends keep the time stamp"
    queue.release(claimed)
    assert retries.of(job) == failures


# -- files on their way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_s", [0.0, -DAY_S, DAY_S], ids=["now", "old stamps", "stamps of tomorrow"])
def test_a_file_that_is_copied_slowly_waits_until_it_is_whole(queue, monkeypatch, offset_s):
    """Whatever its time stamps say: a copy may have those of its original, and a file server has a clock of its own."""
    monkeypatch.setattr(checker_module, "SETTLED_S", 0.4)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    whole = write_job(Path("a.json")).read_bytes()
    checker, target = PendingChecker(LaunchOptions(), queue.folder), queue.folder / "a.json"
    target.touch()
    for end in range(0, len(whole), 40):
        with target.open("r+b") as file:
            file.write(whole[:end])
        from_tomorrow(target, offset_s)
        for _ in range(4):
            assert checker.check(queue.jobs(JobState.PENDING)) == ({}, [])
            assert not checker.is_busy
            time.sleep(0.02)
    target.write_bytes(whole)
    deadline = time.monotonic() + 20
    while not (good := checker.check(queue.jobs(JobState.PENDING))[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [job.name for job in good] == ["a"]
    checker.close()


def test_a_file_that_stays_half_is_refused_with_the_place_where_it_ends(queue, trainings, run_all):
    (queue.folder / "half.json").write_text('{"architecture": "resnet18",\n "seed": ')
    (queue.folder / "empty.json").touch()
    recorder = run_all(queue)
    assert trainings == []
    assert "half.json: line 2, column 9" in recorder.refused["half"]
    assert "empty.json: line 1, column 1" in recorder.refused["empty"]


# -- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[QueueStore]:
    """A queue with a job, on a disk that can only be read."""
    with own_disk(tmp_path / "disk", "size=1m") as disk:
        queue = QueueStore(disk / "training_queue")
        queue.create()
        write_job(queue.folder / "a.json")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield queue


def test_a_queue_on_a_read_only_disk_can_be_shown_but_not_used(read_only, cli):
    (job,) = read_only.jobs(JobState.PENDING)
    assert said_by(read_only.claim, job).endswith("running: Read-only file system")
    assert said_by(read_only.add, "b", b"{}").endswith("b.json cannot be written: Read-only file system")
    assert said_by(read_only.next_log, "a").endswith("logs: Read-only file system")
    shown, dry = (cli(*verb, "--queue", read_only.folder) for verb in (("status",), ("run-queue", "--dry-run")))
    assert (shown.returncode, dry.returncode) == (0, 0)
    for verb in (("add", write_job(Path("b.json"))), ("run-queue",)):
        refused = cli(*verb, "--queue", read_only.folder)
        assert refused.returncode == 3
        assert len(refused.stderr.splitlines()) == 1
        assert "cannot be used" in refused.stderr


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[tuple[QueueStore, Callable[[], None]]]:
    """A queue, and what fills its disk to the last byte."""
    with own_disk(tmp_path / "disk", "size=256k") as disk:
        queue = QueueStore(disk / "training_queue")
        queue.create()

        def fill() -> None:
            with (disk / "rest").open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))

        yield queue, fill


def test_a_job_is_added_to_a_full_disk_whole_or_not_at_all(full_disk, cli):
    queue, fill = full_disk
    job = write_job(Path("b.json"))
    queue.add("a", b'{"seed": 1}')
    fill()
    refused = cli("add", "--queue", queue.folder, job)
    assert refused.returncode == 3
    assert refused.stderr == f"error: {queue.folder}/b.json cannot be written: No space left on device\n"
    with pytest.raises(QueueUnusable, match="No space left"):
        queue.add("a", b'{"seed": 2}', replace=True)
    assert (queue.folder / "a.json").read_bytes() == b'{"seed": 1}'
    assert not list(queue.folder.glob(".*"))


def test_on_a_full_disk_jobs_end_correctly_and_the_runner_reports_why(full_disk, trainings, run_all):
    queue, fill = full_disk
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    trainings.act = lambda attempt: fill() if len(trainings) == 1 else None
    trainings.ending = Outcome(OutcomeKind.FAILED, "the disk is full")
    recorder = run_all(queue)
    assert in_state(queue, JobState.FAILED) == ["a", "b"]
    endings = {name: outcome.reason for name, outcome in recorder.ended_as.items()}
    assert endings == dict.fromkeys("ab", "the disk is full")
    assert [queue.reason(job) for job in queue.jobs(JobState.FAILED)] == [None, None]


def test_a_failure_that_cannot_be_counted_ends_the_runner_and_loses_no_job(full_disk, trainings, run_all):
    queue, fill = full_disk
    write_job(queue.folder / "a.json", retries=1)
    trainings.act = lambda attempt: fill()
    trainings.ending = Outcome(OutcomeKind.FAILED, "the disk is full", RunState.FAILED)
    with pytest.raises(QueueUnusable, match=r"retries/a.json cannot be written: No space left"):
        run_all(queue)
    assert in_state(queue, JobState.RUNNING) == ["a"], "the next runner takes it up"


def test_a_log_that_cannot_be_made_ends_the_runner_and_loses_no_job(queue, trainings, run_all, monkeypatch):
    write_job(queue.folder / "a.json")

    def full(self: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(QueueUnusable, match="no log can be made in training_queue/logs: No space left"):
        run_all(queue)
    assert trainings == []
    assert in_state(queue, JobState.RUNNING) == ["a"]


def test_a_name_that_is_no_name_is_refused_before_a_file_is_opened():
    for name in BAD:
        with pytest.raises(UserError):
            read_job(Path(f"{name}.json"))


@pytest.mark.parametrize("kind", ["dangling link", "link to itself", "file", "pipe"])
def test_what_is_only_called_as_a_folder_of_moves_is_passed_over(tmp_path: Path, kind: str) -> None:
    queue = QueueStore(tmp_path / "queue")
    queue.create()
    queue.add("a", b"{}")
    place = queue.folder / "running" / ".x.placing"
    place.parent.mkdir(exist_ok=True)
    match kind:
        case "dangling link":
            place.symlink_to("/nowhere")
        case "link to itself":
            place.symlink_to(place.name)
        case "file":
            place.touch()
        case _:
            os.mkfifo(place)
    assert list(queue.claims()) == []
    queue.remove_half_written()
    assert os.path.lexists(place)


@pytest.mark.parametrize("name", ["a.yaml", "a.JSON", "a (conflicted copy).json"])
def test_a_stray_that_is_a_link_to_itself_is_named(tmp_path: Path, name: str) -> None:
    queue = QueueStore(tmp_path / "queue")
    queue.create()
    (queue.folder / name).symlink_to(name)
    assert list(queue.paths.strays()) == [queue.folder / name]
