"""Two containers of one machine, one name and one image, on one queue: neither sees the other's processes."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import COMMAND, wait_until, write_job
from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.core import lease
from accel_trainer.launch.attempt_files import scratch_folder
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import read_status

pytestmark = pytest.mark.slow
CONTAINER = ("unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child=SIGKILL", "--")


@pytest.fixture
def queue() -> QueueStore:
    tried = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    queue = QueueStore(Path("training_queue"))
    queue.create()
    return queue


@contextmanager
def container(*words: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([*CONTAINER, *COMMAND, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def in_another(*words: str) -> str:
    done = subprocess.run([*CONTAINER, *COMMAND, *words], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.usefixtures("unchecked")
def test_a_container_leaves_alone_what_another_trains_and_takes_it_when_that_is_silent(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(Path("run"))
    write_job(queue.folder / "a.json", model_dir="run", num_epochs=1000)
    with container("run-queue", "--queue", str(queue.folder)) as runner:
        wait_until(lambda: (status := read_status(run)) is not None and status.step > 0)
        (claim,) = queue.claims()
        assert scratch_folder(claim.token).is_dir()
        for verb in ("run-queue", "reclaim", "status"):
            said = in_another(verb, "--queue", str(queue.folder))
            assert "died" not in said
            assert "returned to pending" not in said
        assert [job.path for job in queue.claims()] == [claim.path]
        assert scratch_folder(claim.token).is_dir(), "it is in use"
        assert read_status(run).token == claim.token
        assert len(list(queue.paths.logs.iterdir())) == 1
        runner.kill()
    assert "its lease expires after 10m 00s" in in_another("reclaim", "--queue", str(queue.folder))
    assert [job.path for job in queue.claims()] == [claim.path]
    monkeypatch.setattr(lease, "STALE_S", 0.0)  # ten minutes later
    said = CliRunner().invoke(app, ["reclaim", "--queue", str(queue.folder)]).output
    assert "a: returned to pending; nothing was heard of its runner on" in said
    assert [job.name for job in queue.jobs(JobState.PENDING)] == ["a"]
