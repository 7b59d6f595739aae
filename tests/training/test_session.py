"""A session writes every status of its run, the last one too, and leaves the process as it was."""

import errno
import logging
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from loops import TINY
from safetensors.torch import load_file

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import PATIENCE_VARIABLE
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.sources.digits import Digits
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, read_status
from accel_trainer.training import loop as loop_module
from accel_trainer.training import reporting
from accel_trainer.training.reporting import TrainingFailed, TrainingResult
from accel_trainer.training.session import SessionOptions, train

MakeJob = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("tiny_models")


@pytest.fixture
def make_small(make_job: MakeJob) -> MakeJob:
    return lambda **given: make_job(**{**TINY, "class_subset": [0, 1], "num_epochs": 1, **given})


def session(folder: Path, job: Job, stop: StopRequest | None = None) -> tuple[TrainingResult, list[Status]]:
    """The result, and all statuses on the way to it."""
    run, statuses = RunFolder(folder), list[Status]()
    run.create()
    options = SessionOptions(token="t", cpu=True, prints=False, on_status=statuses.append)
    return train(job, run, stop or StopRequest(), options), statuses


def states(statuses: list[Status]) -> list[RunState]:
    return list(dict.fromkeys(status.state for status in statuses))


def in_folder(folder: Path) -> Status:
    status = read_status(RunFolder(folder))
    assert status is not None
    return status


def test_a_session_writes_its_status_from_starting_to_finished(make_small: MakeJob, tmp_path: Path) -> None:
    result, statuses = session(tmp_path, make_small())
    result.check()
    assert states(statuses) == [RunState.STARTING, RunState.TRAINING, RunState.FINISHED]
    assert in_folder(tmp_path) == statuses[-1]
    assert (statuses[-1].token, statuses[-1].epoch, statuses[-1].error) == ("t", 1, None)


def test_the_status_says_what_is_waited_for_and_that_an_epoch_is_validated(
    make_small: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "STATUS_EVERY_S", 0.0)
    _, statuses = session(tmp_path, make_small())
    named = list(dict.fromkeys(status.preparing for status in statuses))
    assert named == [
        "importing torch",
        "building the model and opening the data",
        None,
        "validating",
    ]
    validating = [status for status in statuses if status.preparing == "validating"]
    assert all(status.epoch == 1 and 0 <= status.prepared < 1 for status in validating)
    assert validating[0].prepared == 0
    assert (statuses[-1].preparing, statuses[-1].prepared) == (None, None)


def test_a_stopped_session_reports_preempted_and_the_next_one_finishes(make_small: MakeJob, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.note(2)
    result, statuses = session(tmp_path, make_small(), stop)
    result.check()
    assert statuses[-1].state is RunState.PREEMPTED
    assert session(tmp_path, make_small())[1][-1].state is RunState.FINISHED


def test_a_mistake_in_the_job_is_an_invalid_run_and_the_error_itself(make_small: MakeJob, tmp_path: Path) -> None:
    result, statuses = session(tmp_path, make_small(mixed_precision="fp16"))
    assert states(statuses) == [RunState.STARTING, RunState.INVALID]
    with pytest.raises(UserError, match="fp16 does not work on a CPU"):
        result.check()
    assert in_folder(tmp_path).error == str(result.error)


def test_what_nobody_foresaw_is_a_failed_run_and_the_error_itself(
    make_small: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no way")

    monkeypatch.setattr(loop_module.TrainingLoop, "take_steps", fail)
    result, statuses = session(tmp_path, make_small())
    assert states(statuses) == [RunState.STARTING, RunState.TRAINING, RunState.FAILED]
    assert in_folder(tmp_path).error == "ZeroDivisionError: no way"
    with pytest.raises(ZeroDivisionError):
        result.check()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RunState.MACHINE_FAILED),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/dev/shm/x"), RunState.MACHINE_FAILED),
        (RuntimeError("unable to open shared memory object: Too many open files (24)"), RunState.MACHINE_FAILED),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/opt/lab/cache"), RunState.FAILED),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/opt/lab/cache"), RunState.FAILED),
    ],
    ids=repr,
)
def test_what_the_system_lacks_in_a_training_is_the_machines_failure(
    make_small: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, state: RunState
) -> None:
    monkeypatch.setattr(loop_module.TrainingLoop, "take_steps", Mock(side_effect=error))
    _, statuses = session(tmp_path, make_small())
    assert statuses[-1].state is state
    assert str(error) in str(in_folder(tmp_path).error)


def test_a_cache_that_a_full_disk_refuses_is_no_mistake_of_the_job(
    make_small: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = UserError("cannot write to ~/.cache")
    refused.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "~/.cache")
    monkeypatch.setattr(loop_module.TrainingLoop, "take_steps", Mock(side_effect=refused))
    assert session(tmp_path, make_small())[1][-1].state is RunState.MACHINE_FAILED


def test_an_image_that_stays_away_is_the_machines_failure_with_its_reason(
    make_small: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.01")
    monkeypatch.setattr(Digits, "read", Mock(side_effect=OSError(errno.EIO, "away")))
    result, statuses = session(tmp_path, make_small())
    assert states(statuses)[-1] is RunState.MACHINE_FAILED
    assert in_folder(tmp_path).error is not None
    with pytest.raises(TrainingFailed, match="cannot be read: away"):
        result.check()


def test_a_known_failure_is_its_state_and_its_reason(make_small: MakeJob, tmp_path: Path) -> None:
    result, statuses = session(tmp_path, make_small(optimizer_args={"lr": 1e38}))
    assert statuses[-1].state is RunState.DIVERGED
    with pytest.raises(TrainingFailed, match="not finite") as caught:
        result.check()
    assert caught.value.state is RunState.DIVERGED


def left_behind() -> dict[str, Any]:
    """What of this process a training could change."""
    package = logging.getLogger("accel_trainer")
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "threads": {thread.name for thread in threading.enumerate()},
        "variables": dict(os.environ),
        "kernels": (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "handlers": (package.handlers, package.level, package.propagate),
        "accelerate": [dict(kind._shared_state) for kind in (AcceleratorState, GradientState, PartialState)],
        "generator": torch.get_rng_state().tolist(),
        "python's generator": random.getstate(),
        "threads of torch": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "path": list(sys.path),
        "files": _open_files(),
    }


def _open_files() -> list[str]:
    """Files that are open, not sockets and the like."""
    names = Path("/proc/self/fd").iterdir() if sys.platform == "linux" else []
    return sorted(str(name.readlink()) for name in names if name.is_file())


@pytest.mark.plots
@pytest.mark.usefixtures("unplotted")
def test_two_trainings_in_one_process_may_differ_in_precision_and_leave_nothing(
    make_small: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    first = make_small(deterministic=True, num_workers=2)
    session(tmp_path / "before", first)[0].check()  # what is made once, such as torch's own threads
    before = left_behind()
    session(tmp_path / "float32", first)[0].check()
    assert left_behind() == before
    session(tmp_path / "bf16", make_small(mixed_precision="bf16", num_workers=2))[0].check()
    assert left_behind() == before
    precisions = [
        RunFolder(tmp_path / name).log.read_text().partition(", precision ")[2].split(",")[0]
        for name in ("float32", "bf16")
    ]
    assert precisions == ["float32", "bf16"]


def test_a_training_after_another_one_comes_to_the_same_bits(make_small: MakeJob, tmp_path: Path) -> None:
    session(tmp_path / "one", make_small())[0].check()
    session(tmp_path / "between", make_small(mixed_precision="bf16", seed=1))[0].check()
    session(tmp_path / "two", make_small())[0].check()
    one, two = (load_file(RunFolder(tmp_path / name).weights(1)) for name in ("one", "two"))
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


# -- an attempt at a run that is there already -------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 7}, "holds a run of another job"),
        ({"checkpoint": 9}, "has no weights of epoch 9"),
        ({"checkpoint": -1, "class_subset": [0, 99]}, "class_subset"),
        ({"checkpoint": -1, "architecture": "no_such_net"}, "no_such_net"),
        ({"mixed_precision": "fp16"}, "fp16 does not work on a CPU"),
    ],
)
def test_an_attempt_that_is_refused_leaves_the_finished_run_as_it_was(
    make_small: MakeJob, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    folder = tmp_path / "run"
    session(folder, make_small())
    before = contents(folder)

    result, statuses = session(folder, make_small(**change))

    assert statuses[-1].state is RunState.INVALID
    assert reason in str(result.error)
    RunFolder(folder).remove_leftovers()  # as who holds the lock does
    assert contents(folder) == before


def test_a_run_starts_over_when_all_is_checked_and_leaves_what_is_not_its_own(
    make_small: MakeJob, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    session(folder, make_small())
    (folder / "my notes.txt").write_text("mine")
    first = contents(folder)

    session(folder, make_small(checkpoint=-1))[0].check()

    assert (folder / "my notes.txt").read_text() == "mine"
    archived = contents(folder / "previous" / "1")
    assert archived == {name: first[name] for name in first if name not in ("my notes.txt", "log.txt")}
    assert in_folder(folder).state is RunState.FINISHED
    log = (folder / "log.txt").read_text()
    assert log.startswith(first["log.txt"].decode())
    assert "starting over; the older run is in" in log
