"""A disk that is full for signs of life alone: who cannot give them is alive, and its job has not failed."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import checks
from faults.lab import SMALL_JOB
from faults.site.injection import LEASE_VARIABLE
from helpers import wait_until
from network.machines import Machine
from network.mounts import Mount
from network.test_storm import environment, write_file

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder

pytestmark = pytest.mark.slow
LEASE_S, BEAT_S = 60, 1


def test_who_has_no_room_for_signs_of_life_keeps_its_job_until_its_lock_is_old(
    mount: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path
) -> None:
    one, other, shared = mount("one"), mount("other"), tmp_path / "shared"
    shared.mkdir()
    run, queue = RunFolder(one.server / "models/a"), QueueStore(one.server / "training_queue")
    queue.create()
    job = {**SMALL_JOB, "architecture_args": {"pause_s": 0.1}, "num_epochs": 10_000, "model_dir": "models/a"}
    write_file(queue.folder, "a", job)
    hosts = {name: machines(name, {client.folder: shared}) for name, client in (("grey", one), ("rey", other))}
    own = {name: {**environment(tmp_path / "own", name), LEASE_VARIABLE: f"{LEASE_S} {BEAT_S}"} for name in hosts}

    def reclaim() -> str:
        return hosts["rey"].run("reclaim", cwd=shared, **own["rey"]).stdout

    def runner(name: str) -> "subprocess.Popen[str]":
        return hosts[name].start("run-queue", "--cpu", "--reclaim-stale", cwd=shared, **own[name])

    one.obey(full="ENOSPC", path="/training_queue/runners")
    living = runner("grey")
    wait_until(lambda: checks.global_step(run.path) > 0 or living.poll() is not None)
    (claim,) = queue.claims()
    assert not list(queue.paths.runners.glob("*"))

    assert "runs on grey; its runner may be alive" in reclaim()
    pass_time(queue)
    assert "runs on grey; its runner may be alive" in reclaim(), "its lock was touched just now"
    assert [found.path for found in queue.claims()] == [claim.path]

    claim.path.rename(queue.folder / "a.json")  # by a person who does not believe that
    refused = runner("rey")
    wait_until(lambda: list(queue.paths.retries.glob("a*")) or refused.poll() is not None)
    hosts["rey"].terminate_all()
    output, _ = refused.communicate(timeout=100)
    assert "another process is training in models/a" in output
    assert "is tried again in" in output
    assert [(found.name, found.state) for found in queue.everywhere()] == [("a", JobState.PENDING)] * 2, output
    (queue.folder / "a.json").rename(claim.path)

    hosts["grey"].kill()
    output, _ = living.communicate()
    assert "no sign of life can be written: training_queue/runners: No space left on device" in output
    pass_time(queue)
    assert "runs on grey" in reclaim(), "the lock has its own time"
    (lock,) = map(run.lock, run.locks())
    os.utime(lock, (time.time() - LEASE_S,) * 2)
    assert "a: returned to pending; nothing was heard of its runner on grey" in reclaim()
    assert [(found.name, found.state) for found in queue.everywhere()] == [("a", JobState.PENDING)] * 2


def pass_time(queue: QueueStore) -> None:
    """As long as a lease, for those who watch runners."""
    for path in queue.paths.observed.glob("rey.*"):
        notes = json.loads(path.read_text())
        notes["seen"] = {name: [number, since - LEASE_S] for name, (number, since) in notes["seen"].items()}
        path.write_text(json.dumps(notes))
