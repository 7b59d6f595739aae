"""Verbs on a network drive that gives errors, for a moment or for good, or does not answer."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from faults import checks
from faults.lab import SMALL_JOB
from helpers import write_job

from accel_trainer.core.outage import PATIENCE_VARIABLE
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

pytestmark = pytest.mark.slow

OF_QUEUE = ("status", "add new.json", "hold a", "release h", "cancel a", "retry f", "rm a", "pause", "resume", "logs a",
            "reclaim", "run-queue --cpu --no-start-ahead")  # fmt: skip
OF_RUN = ("compare RUN", "evaluate RUN --cpu")
# All verbs where a disk fails, and where it seems empty; with other errors one that looks, one that changes, one that
# stays.
FEW = ("status", "hold a", "run-queue --cpu --no-start-ahead")
ERRORS = {"EIO": OF_QUEUE, "ENOENT": OF_QUEUE, "ESTALE": FEW, "ENOTCONN": FEW}
CHANGES = ("hold a", "release a", "add new.json", "rm new")


@pytest.fixture
def shared(mount, tmp_path, monkeypatch):
    """A client of a drive with a queue and what was once a run."""
    monkeypatch.chdir(tmp_path)
    write_job(Path("new.json"), seed=7)
    client = mount("one")
    store = QueueStore(client.server / "queue")
    store.create()
    write_job(store.folder / "a.json")
    for name, state in (("h", JobState.HELD), ("f", JobState.FAILED)):
        write_job(store.paths.of(state) / f"{name}.json")
    (client.server / "run").mkdir()
    return client


@pytest.mark.parametrize("error", ERRORS)
def test_verbs_on_a_disk_that_is_away_are_one_line(shared, cli, error):
    shared.obey(error=error)
    queue, words = shared.folder / "queue", os.strerror(getattr(errno, error))
    for verb in ERRORS[error]:
        done = cli(*verb.split(), "--queue", queue, **{PATIENCE_VARIABLE: "0.1"})
        lines = [line for line in done.stderr.splitlines() if "trying again" not in line]
        assert done.returncode == 3, (verb, done)
        assert len(lines) == 1, (verb, done)
        assert str(queue) in lines[0], (verb, done)
        assert error == "ENOENT" or words in lines[0], (verb, done)
    for verb in OF_RUN:
        done = cli(*verb.replace("RUN", str(shared.folder / "run")).split(), **{PATIENCE_VARIABLE: "0.1"})
        assert done.returncode in (1, 2), (verb, done)
        assert "Traceback" not in done.stderr, (verb, done)
        assert str(shared.folder / "run") in done.stderr, (verb, done)
    shared.obey()
    assert {job.name for job in QueueStore(queue).everywhere()} == {"a", "h", "f"}


@pytest.mark.parametrize(
    ("error", "verbs"), [("EIO", ("status", *CHANGES)), ("ESTALE", ("status",)), ("ENOTCONN", ("hold a",))]
)
def test_verbs_wait_for_a_disk_that_is_away_for_a_moment(shared, cli, error, verbs):
    cli("status", "--queue", shared.folder / "queue")  # what starts verbs for tests is up then
    for verb in verbs:
        shared.obey(error=error)
        threading.Timer(0.7, shared.obey).start()
        done = cli(*verb.split(), "--queue", shared.folder / "queue")
        assert done.returncode == 0, (verb, done)
        assert "; trying again for up to 5s" in done.stderr, (verb, done)
        assert "the disk works again, after" in done.stderr, (verb, done)


@pytest.mark.usefixtures("hangs_soon")
def test_a_verb_says_that_it_waits_for_a_disk_that_hangs(shared, background):
    shared.obey(hang=True)
    process = background("status", "--queue", shared.folder / "queue")
    line = process.stdout.readline()
    assert line.startswith("waiting for the disk: 2 s"), line
    assert f"({shared.folder / 'queue'}" in line
    assert process.poll() is None
    shared.obey()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "pending" in output


@pytest.mark.usefixtures("hangs_soon")
def test_a_runner_says_that_it_waits_for_a_disk_that_hangs_and_goes_on(shared, background):
    (shared.server / "queue/a.json").unlink()
    process = background("run-queue", "--cpu", "--watch", "--queue", shared.folder / "queue")
    assert process.stdout.readline().startswith("relative paths in its jobs count from ")
    process.stdout.readline()  # it has begun
    shared.obey(hang=True)
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith("waiting for the disk: ") and str(shared.folder) in line for line in lines)
    shared.obey()
    assert any(line.startswith("the disk answers again, after ") for line in lines)
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 143


@pytest.mark.parametrize("error", ["EIO", "ENOENT"])
def test_a_run_on_a_server_that_does_what_it_reports_as_failed_has_the_same_weights(mount, tmp_path, server, error):
    """A third of all renames, links, removals and folders are done, and report an error."""
    habits = {"attr_s": 2, "entry_s": 2, "negative_s": 1, "listing_s": 2}
    lying = mount("one", **habits, lost_replies=0.3, lost_only="run", lost_error=error)
    alone = tmp_path / "alone"
    alone.mkdir()
    for folder in (lying.folder, alone):
        job = {**SMALL_JOB, "architecture_args": {}, "model_dir": str(folder / "run"), "num_epochs": 2}
        (folder / "job.json").write_text(json.dumps(job))
        log = tmp_path / "log"
        assert server.attempt(folder / "job.json", "token", log) == [0], log.read_text()
    assert checks.differences(lying.server / "run", alone / "run") == []
    assert checks.leftovers(lying.server) == []
