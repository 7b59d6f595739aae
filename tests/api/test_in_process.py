"""Training in the process that asks for it."""

import itertools
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from dirty_shell import SET_ASIDE, TRACKERS
from safetensors.torch import load_file
from tiny_runs import finish, tiny_job

from accel_trainer import Job, Run, TrainingFailed, UserError, load_run, load_runs, train
from accel_trainer.api import in_process
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockLost, acquire
from accel_trainer.training.loop import TrainingLoop


def assert_same_weights(one: Run, other: Run, name: str = "final") -> None:
    mine, others = load_file(one.weights(name)), load_file(other.weights(name))
    assert mine.keys() == others.keys()
    assert [key for key, value in mine.items() if not torch.equal(value, others[key])] == []


def left_behind(folder: Path) -> dict[str, Any]:
    """What a training may have changed in this process."""
    cudnn = torch.backends.cudnn
    package = logging.getLogger("accel_trainer")
    return {
        "threads": {thread.name for thread in threading.enumerate()},
        "variables": dict(os.environ),
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "temporary": sorted(Path(tempfile.gettempdir()).iterdir()),
        "locks": sorted(folder.rglob(".owner-*")),
        "torch": (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), cudnn.allow_tf32),
        "generator": torch.get_rng_state().tolist(),
        "accelerate": [dict(kind._shared_state) for kind in (AcceleratorState, GradientState, PartialState)],
        "log": (package.handlers, package.level, package.propagate),
    }


@pytest.mark.plots
@pytest.mark.usefixtures("unplotted")
def test_two_trainings_in_one_process_finish_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    finish(tmp_path / "first", num_workers=2)  # what is made once, such as torch's own threads
    before = left_behind(tmp_path)
    one = finish(tmp_path / "one", num_workers=2, deterministic=True)
    assert left_behind(tmp_path) == before
    two = finish(tmp_path / "two", num_workers=2, mixed_precision="bf16")
    assert left_behind(tmp_path) == before
    assert [run.status.state for run in (one, two) if run.status is not None] == ["finished"] * 2
    rows = [run.summary for run in load_runs(tmp_path / "one", tmp_path / "two")]
    assert [(row.state, row.epochs) for row in rows] == [("finished", 1)] * 2


def test_what_is_left_over_in_the_environment_changes_no_bit_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither Accelerate's switches, nor ranks of a launcher that is long gone."""
    job: dict[str, Any] = {"gradient_accumulation": 2, "deterministic": True}
    clean = finish(tmp_path / "clean", **job)
    monkeypatch.delenv(TOKEN_VARIABLE)  # nothing has launched this process, as in a notebook
    monkeypatch.setattr(in_process, "usable_cores", lambda: 1)
    for name, value in SET_ASIDE.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    dirty = finish(tmp_path / "dirty", **job)
    assert_same_weights(clean, dirty)
    assert dirty.evaluate().scores == clean.evaluate().scores
    assert dict(os.environ) == before
    (said,) = (line for line in (dirty.path / "log.txt").read_text().splitlines() if "set aside from the env" in line)
    assert {"ACCELERATE_DEBUG_MODE", "ACCEL_TRAIN_PROCESSES", "RANK"} <= set(re.split(r"[ ,]+", said))


def test_a_tracker_is_told_of_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    for name, value in TRACKERS.items():
        monkeypatch.setenv(name, value)
    seen: list[dict[str, Any]] = []

    def init(**settings: Any) -> Any:
        seen.append({**settings, "left": [name for name in TRACKERS if name in os.environ]})
        return MagicMock()

    monkeypatch.setattr(wandb, "init", init)
    for name in ("one", "two"):
        finish(tmp_path / name, trackers=["wandb"], wandb={"mode": "offline"})
    one, two = seen
    assert (one["left"], two["left"]) == ([], [])
    assert len({one["id"], two["id"], "one-for-all"}) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked", "unplotted")
def test_a_training_here_comes_to_the_bits_of_the_command_line(tmp_path: Path, cli: Any) -> None:
    job = {"num_epochs": 2, "ema": 0.9, "num_workers": 1, "transform_type": "contrastive"}
    file = tmp_path / "job.json"
    file.write_text(tiny_job(tmp_path / "launched", **job).model_dump_json(exclude_unset=True))
    launched = cli("train", file)
    assert launched.returncode == 0, launched.stderr
    here = finish(tmp_path / "here", **job)
    for name in ("0", "best", "final", "ema"):
        assert_same_weights(here, load_run(tmp_path / "launched"), name)


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Send this process a signal after so many steps."""
    end_step = TrainingLoop._end_step

    def ending(loop: TrainingLoop, *args: Any) -> None:
        if loop.progress.global_step + 1 == steps:
            signal.raise_signal(number)
        end_step(loop, *args)

    monkeypatch.setattr(TrainingLoop, "_end_step", ending)


@pytest.mark.plots
@pytest.mark.usefixtures("unplotted")
def test_ctrl_c_saves_and_the_next_call_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "run", num_epochs=2, checkpoint=-1)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(job, progress=False)
    run = load_run(tmp_path / "run")
    assert run.status is not None
    assert run.status.state == "preempted"
    assert not list(run.path.glob(".owner-*"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same_weights(train(job, progress=False), finish(tmp_path / "undisturbed", num_epochs=2))
    assert "going on in epoch 1 after step 3" in (run.path / "log.txt").read_text()


def test_a_signal_that_the_caller_handles_gives_the_run_that_was_preempted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        interrupt_after(2, monkeypatch, signal.SIGTERM)
        run = finish(tmp_path / "run", num_epochs=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert run.status is not None
    assert run.status.state == "preempted"


@pytest.mark.plots
@pytest.mark.usefixtures("unplotted")
def test_a_training_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(finish(tmp_path / "run")))
    thread.start()
    thread.join()
    assert runs[0].summary.state == "finished"


def test_with_checkpoint_a_finished_run_starts_over(tmp_path: Path) -> None:
    changes = {"checkpoint": -1}
    first = finish(tmp_path / "run", **changes)
    finish(tmp_path / "run", **changes)
    assert (first.path / "previous/1/config.json").exists()
    assert finish(tmp_path / "run").summary.epochs == 1, "without it, a finished run stays as it is"
    assert not (first.path / "previous/2").exists()


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_run_that_diverges_is_an_error_with_its_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="not finite") as caught:
        finish(tmp_path / "run", optimizer="SGD", optimizer_args={"lr": 1e30})
    assert caught.value.state == "diverged"
    status = load_run(tmp_path / "run").status
    assert status is not None
    assert status.state == "diverged"


def test_what_is_wrong_with_a_job_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model 'small_cnm'"):
        finish(tmp_path / "one", architecture="small_cnm", architecture_args={})
    with pytest.raises(UserError, match="cannot be trained in this one"):
        finish(tmp_path / "two", num_processes=2)
    with pytest.raises(UserError, match="'elsewhere' is not allowed"):
        finish(tmp_path / "three", architecture="elsewhere:Net", architecture_args={})


def test_the_users_own_exception_is_raised_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("by the user")

    monkeypatch.setattr(TrainingLoop, "take_steps", fail)
    with pytest.raises(ZeroDivisionError, match="by the user"):
        finish(tmp_path / "run")


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    lock = acquire(run, Owner.new(), end_leftovers=print, say=print)
    with pytest.raises(UserError, match="another process is training"):
        finish(run.path)
    lock.release()
    assert finish(run.path).summary.state == "finished"


def take_over_before(method: str, call: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """Another trainer takes the folder over just before this call of a method of the loop, when all that was to be
    saved before is; what is in the folder then, which is filled in at that moment."""
    original, calls, found = getattr(TrainingLoop, method), itertools.count(1), dict[Path, bytes]()

    def with_takeover(loop: TrainingLoop, *args: Any, **keywords: Any) -> Any:
        if next(calls) == call:
            loop.saver.wait()
            run = RunFolder(folder)
            run.lock(1).unlink()
            acquire(run, Owner.new(), end_leftovers=print, say=print)
            found.update({path: path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        return original(loop, *args, **keywords)

    monkeypatch.setattr(TrainingLoop, method, with_takeover)
    return found


@pytest.mark.parametrize(
    ("method", "call"), [("_end_step", 3), ("_end_epoch", 1), ("save_state", 2), ("is_stopped", 1), ("sync_stop", 2)]
)
@pytest.mark.plots
def test_training_that_lost_its_folder_writes_nothing_more_there(
    method: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = take_over_before(method, call, tmp_path / "run", monkeypatch)
    with pytest.raises(LockLost, match="another process has taken"):
        finish(tmp_path / "run", num_epochs=2)
    assert found
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == found


def test_failure_after_the_loss_of_the_folder_is_reported_as_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that it misses are gone because another process has the folder."""

    def fail(*_: Any) -> None:
        raise FileNotFoundError("moved away by the other trainer")

    monkeypatch.setattr(TrainingLoop, "_end_epoch", fail)
    found = take_over_before("_end_epoch", 1, tmp_path / "run", monkeypatch)
    with pytest.raises(LockLost, match="another process has taken"):
        finish(tmp_path / "run")
    assert found[tmp_path / "run" / "status.json"] == (tmp_path / "run" / "status.json").read_bytes()


# -- scripts ------------------------------------------------------------------------------------------------------


# torch sets environment variables when it is imported, as it was here.
SCRIPT = """
import os, threading
before = dict(os.environ), threading.active_count()
from accel_trainer import Job, train
print(train(Job(**JOB), cpu=True).summary.best)
assert (dict(os.environ), threading.active_count()) == before
"""


@pytest.mark.slow
@pytest.mark.usefixtures("unplotted")
def test_a_script_without_a_main_guard_trains_leaves_no_variable_or_thread_and_ends(tmp_path: Path) -> None:
    script, job = tmp_path / "script.py", tiny_job(tmp_path / "run").model_dump(mode="json", exclude_unset=True)
    script.write_text(f"JOB = {job!r}{SCRIPT}")
    fresh = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}
    ended = subprocess.run([sys.executable, script], env=fresh, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) > 0, "and prints nothing else where there is no terminal"


def test_a_job_file_is_trained_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.json"
    file.write_text(tiny_job(tmp_path / "run").model_dump_json(exclude_unset=True))
    run = train(file, progress=False)
    assert run.job.name == "mine"
    assert isinstance(run.job, Job)


def test_an_argument_for_gpus_is_refused_before_the_run_folder_is_taken(tmp_path: Path) -> None:
    before = finish(tmp_path / "run")
    weights = before.weights("final").read_bytes()
    with pytest.raises(UserError, match=r"optimizer_args\.capturable: AdamW takes it on a GPU only"):
        finish(tmp_path / "run", optimizer_args={"lr": 0.003, "capturable": True}, checkpoint=-1)
    assert load_run(tmp_path / "run").weights("final").read_bytes() == weights
    assert not (tmp_path / "run/previous").exists()
    with pytest.raises(UserError, match="on a GPU only"):
        finish(tmp_path / "fresh", optimizer_args={"lr": 0.003, "capturable": True})
    assert not (tmp_path / "fresh/config.json").exists()
