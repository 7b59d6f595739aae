"""Three machines run the jobs of one queue by the real `run-queue`, each as a client of its own of a drive, while a
person at a fourth changes their states by all verbs at random. Trainers are over in a moment.

A few verbs by default. With `ACCEL_TRAIN_THOROUGH_TESTS=1`, as `make chaos` sets it, 200 on 20 jobs, four times.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import write_job
from network.machines import Machine
from network.mounts import Mount
from network.test_runner_races import INSTANT, environment

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

THOROUGH = bool(os.environ.get("ACCEL_TRAIN_THOROUGH_TESTS"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if THOROUGH else 270)]
DESK = [sys.executable, str(Path(__file__).with_name("desk.py"))]
NUM_JOBS, NUM_VERBS = (20, 200) if THOROUGH else (5, 15)
# Until all is done: whoever ends, since it sees nothing more to do, is started again.
MOST_ROUNDS = 8
DRIVE = {
    "attr_s": 2,
    "entry_s": 2,
    "negative_s": 2,
    "listing_s": 2,
    "lost_replies": 0.05,
    "lost_only": "training_queue",
}


@pytest.fixture(params=["worst_fs", "sshfs"])
def clients(request: pytest.FixtureRequest) -> list[Mount]:
    names = ("one", "other", "third", "desk")
    if request.param == "sshfs":
        mount = request.getfixturevalue("mount_sshfs")
        return [mount(name) for name in names]
    mount = request.getfixturevalue("mount")
    return [mount(name, **DRIVE, seed=seed) for seed, name in enumerate(names)]


@pytest.mark.parametrize("seed", range(2) if THOROUGH else [0])
def test_verbs_at_random_leave_each_submission_in_one_place(
    clients: list[Mount], machines: Callable[..., Machine], tmp_path: Path, seed: int
) -> None:
    shared, server, files = tmp_path / "shared", clients[0].server, tmp_path / "files"
    for folder in (shared, files):
        folder.mkdir()
    queue = QueueStore(server / "training_queue")
    queue.create()
    names = [f"job{number}" for number in range(NUM_JOBS)]
    for name in names:
        write_job(files / f"{name}.json", model_dir=f"runs/{name}")
        write_job(queue.folder / f"{name}.json", model_dir=f"runs/{name}")
    hosts = {name: machines(name, {client.folder: shared}) for name, client in zip("abcd", clients, strict=True)}
    own = {name: environment(tmp_path, name, INSTANT_S="1") for name in hosts}

    def start(name: str) -> "subprocess.Popen[str]":
        words = ("run-queue", "--cpu", "--no-start-ahead")
        return hosts[name].start(*words, cwd=shared, command=INSTANT, **own[name])

    def sit_down(number: int) -> list[tuple[list[str], int, str]]:
        words = (str(seed), str(number), str(files))
        output, _ = hosts["d"].start(*words, cwd=shared, command=DESK, **own["d"]).communicate(timeout=1800)
        return [tuple(json.loads(line)) for line in output.splitlines()]

    said: list[object] = []
    for attempt in range(MOST_ROUNDS):
        runners = {name: start(name) for name in "abc"}
        verbs = sit_down(NUM_VERBS if attempt == 0 else 0)
        assert all(code in (0, 2) and "Traceback" not in output for _, code, output in verbs), verbs
        for name, runner in runners.items():
            output, _ = runner.communicate(timeout=600)
            said += [verbs, name, output]
            assert "Traceback" not in output, output
            assert runner.returncode in (0, 1), output
        if len(queue.jobs(JobState.DONE)) == NUM_JOBS:
            break
    where = Counter(str(path.relative_to(server)) for path in server.rglob("job*.json") if "runs" not in path.parts)
    assert where == Counter(f"training_queue/done/{name}.json" for name in names), said
