"""What a run reads and writes on a disk that is away: it waits, and in the end says in one line what to do."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.away import Disk, disk_of
from safetensors.torch import load_file
from tiny_runs import finish, tiny_job
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.core.outage import PATIENCE_VARIABLE
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState
from accel_trainer.training import reporting, session
from accel_trainer.training.session import SessionOptions

pytestmark = pytest.mark.slow

ERRORS = (errno.EIO, errno.ESTALE, errno.ENOENT, errno.ENOTCONN)
CHANGES = {"num_epochs": 2, "save_every_minutes": 1e-9, "save_interval": 1}


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """That of the run folder."""
    with disk_of(tmp_path / "run", monkeypatch) as disk:
        yield disk


def results(run: RunFolder) -> dict[str, object]:
    weights: dict[str, dict[str, Tensor]] = {path.name: load_file(path) for path in run.params.glob("*.safetensors")}
    flat = {f"{file}: {name}": value.tolist() for file in weights for name, value in weights[file].items()}
    return {**flat, "table": [line.split(",")[:5] for line in run.performance.read_text().splitlines()]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(folder, **CHANGES)
    return results(RunFolder(folder))


def trained(job: Job, run: RunFolder) -> session.TrainingResult:
    run.create()
    return session.train(job, run, StopRequest(), SessionOptions(prints=False, cpu=True))


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_what_a_run_writes_waits_for_a_disk_that_is_away(
    tmp_path: Path, disk: Disk, undisturbed: dict[str, object], error: int
) -> None:
    run = RunFolder(tmp_path / "run")
    disk.goes_away(error, 97, 0.15, is_repeated=True)
    result = trained(tiny_job(run.path, **CHANGES), run)
    times_away, disk.error = disk.times_away, 0
    assert (result.state, result.reason) == (RunState.FINISHED, None), disk.calls[-5:]
    assert times_away > 3
    assert results(run) == undisturbed
    assert "; trying again for up to " in run.log.read_text()
    assert "the disk works again, after " in run.log.read_text()


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_disk_that_stays_away_from_a_run_is_one_line_with_what_to_do(
    tmp_path: Path, disk: Disk, undisturbed: dict[str, object], error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "1.2")
    monkeypatch.setattr(reporting, "LAST_STATUS_WAITS_S", (0.0, 0.1))
    run, job = RunFolder(tmp_path / "run"), tiny_job(tmp_path / "run", **CHANGES)
    disk.goes_away(error, 400, float("inf"))
    result = trained(job, run)
    disk.error = 0
    assert result.state is RunState.MACHINE_FAILED, result
    reason = result.reason or ""
    assert "\n" not in reason
    assert os.strerror(error) in reason
    assert str(run.path) in reason
    assert "mount it again" in reason or "see " in reason, reason
    assert trained(job, run).state is RunState.FINISHED
    assert results(run) == undisturbed
