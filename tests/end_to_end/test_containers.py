"""Two containers of one machine, one name and one image, on one queue: neither sees the other's processes. Nor does
another user of the machine, where /proc hides them."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import SMALL_JOB
from faults.site.injection import LEASE_VARIABLE
from helpers import COMMAND, wait_until
from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.core import lease
from accel_trainer.launch.attempt_files import scratch_folder
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import read_status

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked", "unplotted", "tiny_models")]
CONTAINER = ("unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child=SIGKILL", "--")
LEASE_S = 60


@pytest.fixture
def queue() -> QueueStore:
    tried = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    queue = QueueStore(Path("training_queue"))
    queue.create()
    return queue


def put(folder: Path, model_dir: Path, *, pause_s: float, num_epochs: int = 3) -> None:
    """A small job into a folder, which takes so long over every step and none of the processor's time."""
    job = {**SMALL_JOB, "architecture_args": {"pause_s": pause_s}, "model_dir": str(model_dir)}
    (folder / "a.json").write_text(json.dumps({**job, "num_epochs": num_epochs}))


@contextmanager
def container(*words: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([*CONTAINER, *COMMAND, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def in_another(*words: str) -> str:
    return asked(*CONTAINER, *COMMAND, *words)


def asked(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_a_container_leaves_alone_what_another_trains_and_takes_it_when_that_is_silent(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(Path("run"))
    put(queue.folder, run.path, pause_s=0.3, num_epochs=1000)
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


@pytest.fixture
def on_one_core() -> Iterator[None]:
    """All that is started has one thread to compute with, as the server's trainers have: how many there are changes
    the last bits of sums."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("on_one_core")
def test_the_job_of_a_container_that_is_gone_is_finished_in_another_with_the_same_weights(
    queue: QueueStore, server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEASE_VARIABLE, f"{LEASE_S} 1")
    run, alone = RunFolder(Path("run")), Path("alone").absolute()
    alone.mkdir()
    put(queue.folder, run.path, pause_s=0.3)
    put(alone, alone / "run", pause_s=0.0)
    with container("run-queue", "--queue", str(queue.folder)) as runner:
        wait_until(lambda: checks.global_step(run.path) >= 3)
        runner.kill()
    (claim,) = queue.claims()
    assert "its lease expires after 1m 00s" in in_another("reclaim", "--queue", str(queue.folder))
    assert [job.path for job in queue.claims()] == [claim.path]
    pass_time(queue, run)
    said = in_another("run-queue", "--reclaim-stale", "--queue", str(queue.folder))
    assert "a: its runner died; it resumes where it was" in said
    assert [(job.name, job.state) for state in JobState for job in queue.jobs(state)] == [("a", JobState.DONE)], said
    server.train(alone / "a.json")
    assert checks.differences(run.path, alone / "run") == []


def pass_time(queue: QueueStore, run: RunFolder) -> None:
    """As long as a lease."""
    for path in queue.paths.observed.iterdir():
        notes = json.loads(path.read_text())
        notes["seen"] = {name: [number, since - LEASE_S] for name, (number, since) in notes["seen"].items()}
        path.write_text(json.dumps(notes))
    for lock in map(run.lock, run.locks()):
        os.utime(lock, (time.time() - LEASE_S,) * 2)


def test_where_proc_hides_the_processes_of_others_their_jobs_are_not_taken_for_dead(queue: QueueStore) -> None:
    hidden = ("unshare", "--mount", "sh", "-ec", 'mount -t proc -o hidepid=2 proc /proc; exec "$@"', "sh")
    # Who may use all files, but may see and signal no process of others.
    files = "+dac_override,+dac_read_search,+fowner"
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={files}")
    observer = (*hidden, *somebody, f"--ambient-caps={files}", "--", *COMMAND)
    if (tried := subprocess.run([*observer, "status"], capture_output=True, text=True)).returncode:
        pytest.skip(f"another user can run nothing here: {tried.stderr}")
    run = RunFolder(Path("run"))
    put(queue.folder, run.path, pause_s=0.3, num_epochs=1000)
    with subprocess.Popen([*COMMAND, "run-queue"], stdout=subprocess.PIPE, text=True) as runner:
        try:
            wait_until(lambda: (status := read_status(run)) is not None and status.step > 0)
            (claim,) = queue.claims()
            subprocess.run(["chmod", "-R", "a+rwX", "."], check=True)
            said = {verb: asked(*observer, verb) for verb in ("status", "reclaim", "run-queue")}
            assert not any("died" in text or "returned to pending" in text for text in said.values()), said
            assert "its lease expires after 10m 00s" in said["reclaim"], said
            assert "error" not in said["run-queue"], said
            assert [job.path for job in queue.claims()] == [claim.path]
            assert scratch_folder(claim.token).is_dir()
            assert len(list(queue.paths.logs.iterdir())) == 1, said
        finally:
            runner.terminate()
            runner.communicate()
    assert [job.name for job in queue.jobs(JobState.PENDING)] == ["a"]
