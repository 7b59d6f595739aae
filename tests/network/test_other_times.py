"""One queue on two machines whose clients show one file with other times: a run starts over once, failures count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import checks
from faults.lab import SMALL_JOB
from helpers import wait_until
from network.machines import Machine
from network.mounts import Mount
from network.test_storm import environment, write_file

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder

pytestmark = pytest.mark.slow
# "child" starts from the weights of "parent", and over what "older" has trained in its folder.
FROM_PARENT = {"model_dir": "models/child", "finetune": True, "finetune_args": {"starting_params": "parent"}}
BROKEN = {"architecture": "tiny_models:Breaks", "architecture_args": {}, "model_dir": "models/broken"}
JOBS: dict[str, dict[str, Any]] = {
    "parent": {"model_dir": "models/parent", "num_epochs": 1},
    "older": {**FROM_PARENT, "after": ["parent"], "num_epochs": 1},
    "child": {**FROM_PARENT, "after": ["older"], "checkpoint": -1},
    "broken": {**BROKEN, "retries": 1, "priority": 1},
}


def write_jobs(queue: Path, pause_s: float) -> None:
    for name, changes in JOBS.items():
        pause = {"architecture_args": {"pause_s": pause_s if name == "child" else 0.0}}
        write_file(queue, name, {**SMALL_JOB, **pause, **changes})


def test_a_job_goes_on_at_a_machine_that_sees_other_times(
    mount: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path
) -> None:
    one = mount("one", whole_seconds=True, own_inodes=True, counts_names=False)
    other, shared, alone = mount("other", clock_s=-7200.25), tmp_path / "shared", tmp_path / "alone"
    shared.mkdir()
    queue, run = QueueStore(one.server / "training_queue"), RunFolder(one.server / "models/child/finetune")
    queue.create()
    write_jobs(queue.folder, 0.3)
    grey, rey = machines("grey", {one.folder: shared}), machines("rey", {other.folder: shared})
    own = {name: environment(tmp_path / "own", name) for name in ("grey", "rey")}
    first = grey.start("run-queue", "--cpu", cwd=shared, **own["grey"])
    # All of the older run has been moved away, its states too.
    wait_until(lambda: any(run.previous.glob("[0-9]*")) or first.poll() is not None)
    wait_until(lambda: checks.global_step(run.path) in range(3, 24) or first.poll() is not None)
    assert first.poll() is None, first.communicate()[0]
    grey.terminate_all()
    output, _ = first.communicate(timeout=100)
    assert first.returncode == 143, output
    assert {job.name for job in queue.jobs(JobState.PENDING)} == {"child", "broken"}, output
    begun = checks.global_step(run.path)
    assert begun >= 3
    second = rey.run("run-queue", "--cpu", "--retry-after", "0.01", cwd=shared, **own["rey"])
    assert {job.name for job in queue.jobs(JobState.DONE)} == {"parent", "older", "child"}, second.stdout
    (broken,) = queue.jobs(JobState.FAILED)
    assert "(tried 2 times)" in queue.reason(broken), second.stdout
    assert f"step {begun}" in _newest_log(queue, "child")
    (older,) = (run.path / "previous").iterdir()
    assert checks.state_of(older) == "finished"
    write_jobs(alone / "training_queue", 0.0)
    (alone / "training_queue/broken.json").unlink()
    rey.run("run-queue", "--cpu", cwd=alone, **own["rey"])
    assert checks.differences(run.path, alone / "models/child/finetune") == []
    assert checks.differences(older, alone / "models/child/finetune/previous/1") == []


def _newest_log(queue: QueueStore, name: str) -> str:
    log = queue.newest_log(name)
    assert log is not None
    return log.read_text()
