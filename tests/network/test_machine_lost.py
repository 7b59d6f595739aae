"""A machine is lost as by a power cut, its mount with it: another one finishes its job when the lease has passed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import SMALL_JOB
from faults.site.injection import LEASE_VARIABLE
from helpers import wait_until
from network.machines import Machine
from network.mounts import Mount
from network.test_storm import environment, undisturbed, write_file

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_one_core"), pytest.mark.timeout(600)]
# So long that who lives on a busy machine is never silent for it.
LEASE_S, BEAT_S = 15, 1
JOB, NUM_STEPS = {**SMALL_JOB, "num_epochs": 2, "model_dir": "models/a"}, 16
REMEMBERS = {"attr_s": 5, "entry_s": 5, "negative_s": 2, "listing_s": 5}


@pytest.fixture(params=["worst_fs", "sshfs"])
def clients(request: pytest.FixtureRequest) -> list[Mount]:
    if request.param == "sshfs":
        mount = request.getfixturevalue("mount_sshfs")
        return [mount(name) for name in ("one", "other")]
    mount = request.getfixturevalue("mount")
    return [mount(name, **REMEMBERS, lost_replies=0.03, seed=seed) for seed, name in enumerate(("one", "other"))]


def test_the_job_of_a_machine_that_is_lost_is_finished_by_another_with_the_same_weights(
    clients: list[Mount], machines: Callable[..., Machine], tmp_path: Path, server: ForkServer
) -> None:
    shared, run = tmp_path / "shared", RunFolder(clients[0].server / "models/a")
    shared.mkdir()
    queue = QueueStore(clients[0].server / "training_queue")
    queue.create()
    write_file(queue.folder, "a", {**JOB, "architecture_args": {"pause_s": 0.3}})
    grey, rey = (machines(name, {one.folder: shared}) for name, one in zip(("grey", "rey"), clients, strict=True))
    own = {name: environment(tmp_path / "own", name) for name in ("grey", "rey")}
    for variables in own.values():
        variables[LEASE_VARIABLE] = f"{LEASE_S} {BEAT_S}"
    lost = grey.start("run-queue", "--cpu", cwd=shared, **own["grey"])
    wait_until(lambda: checks.global_step(run.path) >= 3 or lost.poll() is not None)
    (claim,) = queue.claims()
    grey.kill()
    clients[0].cut()
    assert 3 <= checks.global_step(run.path) < NUM_STEPS, "it was in the middle of its training"
    early = rey.run("reclaim", cwd=shared, **own["rey"])
    assert f"runs on grey; its runner may be alive; its lease expires after {LEASE_S}s" in early.stdout
    assert [job.path for job in queue.claims()] == [claim.path]
    watching = rey.start("run-queue", "--cpu", "--watch", "--reclaim-stale", cwd=shared, **own["rey"])
    wait_until(lambda: queue.jobs(JobState.DONE) or watching.poll() is not None, 300)
    rey.terminate_all()
    output, _ = watching.communicate(timeout=100)
    assert watching.returncode == 143, output
    assert "Traceback" not in output, output
    assert "a: its runner died; it resumes where it was" in output
    assert [(job.name, job.state) for state in JobState for job in queue.jobs(state)] == [("a", JobState.DONE)], output
    assert checks.differences(run.path, undisturbed(server, tmp_path / "alone", "a", JOB)) == []
    assert checks.duplicates(run.path) == checks.leftovers(clients[0].server) == []
