"""Machines that claim the jobs of one queue, on network drives that remember what was and lose answers."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import write_job
from network.mounts import Mount

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parent / "claiming.py"
NUM_JOBS = 300


def race(clients: list[Mount], tmp_path: Path, num_jobs: int = NUM_JOBS) -> tuple[list[list[str]], QueueStore]:
    """What each client has claimed of a queue, all at once; the queue as its server has it."""
    queue = QueueStore(clients[0].server / "training_queue")
    queue.create()
    for number in range(num_jobs):
        write_job(queue.folder / f"job{number}.json")
    go = tmp_path / "go"
    racers = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(client.folder / "training_queue"), str(go)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for client in clients
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    go.touch()
    outputs = [racer.communicate(timeout=300)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * len(racers)
    return [json.loads(output) for output in outputs], queue


def never_twice_never_lost(claimed: list[list[str]], queue: QueueStore, num_jobs: int = NUM_JOBS) -> None:
    names = [f"job{number}" for number in range(num_jobs)]
    assert Counter(name for one in claimed for name in one) == Counter(names)
    assert Counter(job.name for job in queue.claims()) == Counter(names)
    assert not queue.jobs(JobState.PENDING)
    assert all(job.destination is None for job in queue.claims())


@pytest.mark.parametrize("seconds", [0, 30])
def test_of_300_claims_none_is_won_twice_or_by_nobody(
    mount: Callable[..., Mount], tmp_path: Path, seconds: int
) -> None:
    """One answer in ten is lost: most claims are as where none is."""
    caches = {"attr_s": seconds, "entry_s": seconds, "listing_s": seconds}
    # Missing names are remembered for less, to be quick.
    options = {**caches, "negative_s": min(seconds, 3), "remember_s": seconds, "lost_replies": 0.1}
    clients = [mount(name, **options, seed=seed, lost_only="job") for seed, name in enumerate(("one", "other"))]
    never_twice_never_lost(*race(clients, tmp_path))


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "ETIMEDOUT"])
def test_a_claim_whose_rename_reports_an_error_though_it_was_done_is_won(
    mount: Callable[..., Mount], tmp_path: Path, error: str
) -> None:
    options = {"lost_replies": 0.5, "lost_only": "job", "lost_error": error, "remember_s": 30, "negative_s": 1}
    clients = [mount(name, **options) for name in ("one", "other")]
    never_twice_never_lost(*race(clients, tmp_path, 40), 40)


def test_of_300_claims_on_sshfs_with_its_default_caches_none_is_won_twice(
    mount_sshfs: Callable[..., Mount], tmp_path: Path
) -> None:
    never_twice_never_lost(*race([mount_sshfs("one"), mount_sshfs("other")], tmp_path))


def test_a_claim_that_seemed_lost_and_is_this_process_s_is_put_back(
    mount: Callable[..., Mount], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = mount("one", negative_s=2, lost_replies=1, lost_only="training_queue/a.json")
    write_job(one.server / "training_queue/a.json")
    queue = QueueStore(one.folder / "training_queue")
    queue.create()
    (job,) = queue.jobs(JobState.PENDING)
    assert queue.claim(job) is None
    assert [claim.name for claim in queue.claims()] == ["a"]
    while queue.return_left_claims():
        pass
    assert [job.name for job in queue.jobs(JobState.PENDING)] == ["a"]
    assert not os.listdir(one.server / "training_queue/running")  # noqa: PTH208
