"""What a trainer is told when it is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.fork_server import ForkServer
from helpers import dead_token, wait_until, write_job

from accel_trainer.config import Job
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch import protocol
from accel_trainer.launch.protocol import PREWARM
from accel_trainer.run import lock
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import acquire
from accel_trainer.run.status import RunState
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.workers import train as worker


@pytest.fixture(autouse=True)
def as_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals are not its own here, and nothing has launched it."""
    monkeypatch.setattr(StopRequest, "listen", lambda *_: None)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.parametrize(
    ("words", "expected"), [([], "parent"), (["--starting-params=models/resnet18/parent"], "models/resnet18/parent")]
)
def test_the_queue_replaces_the_name_of_a_parent_by_its_path(monkeypatch, words, expected):
    given: list[Job] = []

    def train(job: Job, run: RunFolder, *_: object) -> TrainingResult:
        given.append(job)
        return TrainingResult(RunState.FINISHED)

    monkeypatch.setattr(worker.session, "train", train)
    file = write_job(Path("child.json"), finetune=True, finetune_args={"starting_params": "parent"})
    assert worker.main([str(file), "--name=child", *words]) == 0
    assert given[0].finetune_args.starting_params == expected


# -- standing by -----------------------------------------------------------------------------------------------------


def test_who_stands_by_for_a_runner_that_died_before_it_was_noticed_ends(tmp_path: Path) -> None:
    """The launcher may die with its runner before this process has asked the kernel to tell it."""
    environment = {**os.environ, TOKEN_VARIABLE: dead_token()}
    command = [sys.executable, "-m", "accel_trainer.workers.train", PREWARM, str(tmp_path / "words.json")]
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == worker.CANCELLED_CODE


# -- started by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "locks"), [({}, [1]), ({"RANK": "0"}, [1]), ({"RANK": "1"}, []), ({TOKEN_VARIABLE: "a-1-b-c"}, [])]
)
def test_rank_0_has_the_run_folder_to_itself_unless_its_launcher_has(monkeypatch, environment, locks):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen: list[list[int]] = []

    def train(job: Job, run: RunFolder, *_: object) -> TrainingResult:
        seen.append(run.locks())
        return TrainingResult(RunState.FAILED)

    monkeypatch.setattr(worker.session, "train", train)
    file = write_job(Path("job.json"), model_dir="run")
    assert worker.main([str(file), "--name=job"]) == 1
    assert seen == [locks]
    assert RunFolder(Path("run")).locks() == []


def test_a_folder_in_which_another_process_trains_is_left_as_it_is(monkeypatch, capsys):
    monkeypatch.setattr(worker.session, "train", pytest.fail)
    run = RunFolder(Path("run"))
    run.create()
    lock = acquire(run, Owner.new(), end_leftovers=print, say=print)
    file = write_job(Path("job.json"), model_dir="run")
    assert worker.main([str(file), "--name=job"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model_dir: another process is training in run: process ")
    assert sorted(path.name for path in run.path.iterdir()) == [".owner-1", lock.aside.name, "params"]
    assert list(lock.aside.iterdir()) == []


def test_a_start_by_hand_is_refused_until_a_dead_runners_processes_end(monkeypatch, capsys):
    monkeypatch.setattr(worker.session, "train", lambda *_: TrainingResult(RunState.FINISHED))
    dead = dead_token()
    monkeypatch.setattr(protocol, "pids_with_env", lambda name, value: [7, 8] if value == dead else [])
    run = RunFolder(Path("run"))
    run.create()
    acquire(run, Owner(this_host(), dead), end_leftovers=print, say=print)
    file = write_job(Path("job.json"), model_dir="run")
    assert worker.main([str(file), "--name=job"]) == 2
    assert "is still ending in run: processes 7, 8; try again" in capsys.readouterr().err
    monkeypatch.setattr(protocol, "pids_with_env", lambda name, value: [])
    assert worker.main([str(file), "--name=job"]) == 0


def test_signs_of_life_are_given_while_it_trains(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.01)

    def train(job: Job, run: RunFolder, *_: object) -> TrainingResult:
        os.utime(run.lock(1), (0, 0))
        wait_until(lambda: run.lock(1).stat().st_mtime > 0, timeout_s=10)
        return TrainingResult(RunState.FINISHED)

    monkeypatch.setattr(worker.session, "train", train)
    file = write_job(Path("job.json"), model_dir="run")
    assert worker.main([str(file), "--name=job"]) == 0


@pytest.mark.parametrize("what", ["taken over", "kept"])
def test_a_trainer_whose_folder_was_taken_over_writes_nothing_more(
    what: str, tmp_path: Path, server: ForkServer
) -> None:
    file = write_job(Path("job.json"), model_dir="run")
    code = f"""
import sys, time
from accel_trainer.run.status import RunState
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.launch import protocol
from accel_trainer.workers import train as worker
protocol.LOCK_EVERY_S = 0.05
def train(job, run, *_):
    if {what!r} == "taken over":
        run.lock(1).rename(run.lock(2))
        run.lock(2).write_text("another's")
    time.sleep(0.5)
    (run.path / "written").touch()
    return TrainingResult(RunState.FINISHED)
worker.session.train = train
sys.exit(worker.main([{str(file)!r}, "--name=job"]))
"""
    run = RunFolder(Path("run"))
    run.create()
    owner = Owner.new()
    acquire(run, owner, end_leftovers=print, say=print)
    log = tmp_path / "log"
    (exit_code,) = server.script(code, [], log, processes=1, **{TOKEN_VARIABLE: owner.token})
    assert (exit_code == 0) == (what == "kept"), log.read_text()
    assert (run.path / "written").exists() == (what == "kept")
    assert ("its lock is gone" in log.read_text()) == (what == "taken over")
