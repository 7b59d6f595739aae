"""One queue on two machines whose clients show one file with other times: a run starts over once, failures count."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import SMALL_JOB
from helpers import wait_until
from network.machines import Machine
from network.mounts import Mount
from network.test_storm import environment, undisturbed, write_file

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_one_core")]
NUM_STEPS = 16
PARENT = {**SMALL_JOB, "num_epochs": 1, "model_dir": "models/parent"}
BROKEN = {"architecture": "tiny_models:Breaks", "architecture_args": {}, "model_dir": "models/broken"}


def from_parent(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job that starts from the weights of "parent" in a folder."""
    start = {"finetune": True, "finetune_args": {"starting_params": str(folder / "models/parent")}}
    return {**SMALL_JOB, **start, "model_dir": "models/child", **changes}


def test_a_job_goes_on_at_a_machine_that_sees_other_times(
    mount: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path, server: ForkServer
) -> None:
    one = mount("one", whole_seconds=True, own_inodes=True, counts_names=False)
    other, shared, alone = mount("other", clock_s=-7200.25), tmp_path / "shared", tmp_path / "alone"
    shared.mkdir()
    queue, run = QueueStore(one.server / "training_queue"), RunFolder(one.server / "models/child/finetune")
    queue.create()
    # "child" starts over what "older" has trained in its folder.
    undisturbed(server, alone, "parent", PARENT)
    undisturbed(server, alone, "older", from_parent(alone, num_epochs=1))
    shutil.copytree(alone / "models", one.server / "models")
    child = {"num_epochs": 2, "checkpoint": -1}
    write_file(queue.folder, "child", from_parent(shared, **child, architecture_args={"pause_s": 0.3}))
    write_file(queue.folder, "broken", {**SMALL_JOB, **BROKEN, "retries": 1, "priority": 1})
    grey, rey = machines("grey", {one.folder: shared}), machines("rey", {other.folder: shared})
    own = {name: environment(tmp_path / "own", name) for name in ("grey", "rey")}
    first = grey.start("run-queue", "--cpu", cwd=shared, **own["grey"])
    # All of the older run has been moved away, its states too.
    wait_until(lambda: any(run.previous.glob("[0-9]*")) or first.poll() is not None)
    wait_until(lambda: checks.global_step(run.path) in range(3, NUM_STEPS) or first.poll() is not None)
    assert first.poll() is None, first.communicate()[0]
    grey.terminate_all()
    output, _ = first.communicate(timeout=100)
    assert first.returncode == 143, output
    assert {job.name for job in queue.jobs(JobState.PENDING)} == {"child", "broken"}, output
    begun = checks.global_step(run.path)
    assert begun >= 3
    second = rey.run("run-queue", "--cpu", "--retry-after", "0.01", cwd=shared, **own["rey"])
    assert {job.name for job in queue.jobs(JobState.DONE)} == {"child"}, second.stdout
    (broken,) = queue.jobs(JobState.FAILED)
    assert "(tried 2 times)" in queue.reason(broken), second.stdout
    assert f"step {begun}" in _newest_log(queue, "child")
    (older,) = (run.path / "previous").iterdir()
    assert checks.state_of(older) == "finished"
    undisturbed(server, alone, "child", from_parent(alone, **child))
    assert checks.differences(run.path, alone / "models/child/finetune") == []
    assert checks.differences(older, alone / "models/child/finetune/previous/1") == []


def _newest_log(queue: QueueStore, name: str) -> str:
    log = queue.newest_log(name)
    assert log is not None
    return log.read_text()
