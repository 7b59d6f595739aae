"""Machines that run the jobs of one queue by the real `run-queue`, with trainers that are over at once, on drives that
remember what was and lose answers.

A few jobs by default. With `ACCEL_TRAIN_THOROUGH_TESTS=1`, as `make chaos` sets it, 300 each.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import REPOSITORY, write_job
from network.machines import Machine
from network.mounts import Mount

from accel_trainer.queue.store import QueueStore

THOROUGH = bool(os.environ.get("ACCEL_TRAIN_THOROUGH_TESTS"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if THOROUGH else 270)]
INSTANT = [sys.executable, str(Path(__file__).with_name("instant.py"))]
NUM_JOBS = 300 if THOROUGH else 20


def environment(folder: Path, name: str, **more: str) -> dict[str, str]:
    """Of a machine: its own home and temporary files."""
    own = folder / "own" / name
    own.mkdir(parents=True)
    paths = os.pathsep.join(map(str, (REPOSITORY / "tests/faults/site", REPOSITORY / "tests", REPOSITORY)))
    return {"HOME": str(own), "TMPDIR": str(own), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def all_are_run_once(clients: list[Mount], machines: Callable[..., Machine], tmp_path: Path) -> None:
    """Two machines run a queue until both see nothing more to do."""
    shared, server = tmp_path / "shared", clients[0].server
    shared.mkdir()
    queue = QueueStore(server / "training_queue")
    queue.create()
    names = [f"job{number}" for number in range(NUM_JOBS)]
    for name in names:
        write_job(queue.folder / f"{name}.json", model_dir=f"runs/{name}")
    runners = []
    for name, client in zip(("grey", "rey"), clients, strict=True):
        host = machines(name, {client.folder: shared})
        words, own = ("run-queue", "--cpu", "--no-start-ahead"), environment(tmp_path, name)
        runners.append(host.start(*words, cwd=shared, command=INSTANT, **own))
    outputs = [runner.communicate(timeout=1800)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outputs
    assert not any("Traceback" in output for output in outputs), outputs
    where = {str(path.relative_to(queue.folder)) for path in queue.folder.rglob("*.json") if "job" in path.name}
    assert where == {f"done/{name}.json" for name in names}, outputs
    attempts = {name: os.listdir(server / "runs" / name / "attempts") for name in names}  # noqa: PTH208
    assert {name: len(tokens) for name, tokens in attempts.items()} == dict.fromkeys(names, 1), outputs


@pytest.mark.parametrize("lost_replies", [0.0, 0.1] if THOROUGH else [0.1])
@pytest.mark.parametrize("seconds", [0, 30])
def test_of_the_claims_of_two_runners_each_is_won_once(
    mount: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path, seconds: int, lost_replies: float
) -> None:
    """One answer in ten is lost, if any: most claims are as where none is."""
    caches = {"attr_s": seconds, "entry_s": seconds, "listing_s": seconds, "remember_s": seconds}
    options = {**caches, "negative_s": seconds, "lost_replies": lost_replies, "lost_only": "job"}
    clients = [mount(name, **options, seed=seed) for seed, name in enumerate(("one", "other"))]
    all_are_run_once(clients, machines, tmp_path)


def test_of_the_claims_of_two_runners_on_sshfs_each_is_won_once(
    mount_sshfs: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path
) -> None:
    all_are_run_once([mount_sshfs("one"), mount_sshfs("other")], machines, tmp_path)
