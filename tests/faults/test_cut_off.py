"""Trainers that are cut off at random moments of their saves, are followed by another machine's, and wake up: some of
each kind. `make chaos` has 200 on network drives cut off."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import checks
from faults.cut_offs import (
    AWAKE,
    ENVIRONMENT,
    LEASE_S,
    NO_LEASE_S,
    SCRIPT,
    SLEEPY,
    WORST,
    CutOffs,
    Drive,
    rounds,
)
from faults.fork_server import ForkServer
from faults.test_every_event import JOB
from helpers import wait_until
from network.mounts import Mount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CUTS, AT_ONCE = 6, 3


@pytest.fixture(scope="module")
def sleepy() -> Iterator[ForkServer]:
    """What forks the trainers that are cut off."""
    with ForkServer() as server:
        yield server


def disturbed(drive: Drive, folder: Path, sleepy: ForkServer, awake: ForkServer) -> dict[str, list[str]]:
    folder.mkdir()
    cut_offs = CutOffs(drive, folder, sleepy, awake)
    for tally in rounds(cut_offs, CUTS, seed=0, num_trainers=AT_ONCE):
        if tally.wrong:
            break
    return cut_offs.tally.wrong


def test_a_trainer_that_wakes_up_disturbs_nothing_of_its_successor(
    server: ForkServer, sleepy: ForkServer, tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    assert disturbed(Drive(folder, folder, folder), tmp_path / "logs", sleepy, server) == {}


def test_a_trainer_whose_calls_on_a_network_drive_hang_disturbs_nothing_of_its_successor(
    server: ForkServer, sleepy: ForkServer, tmp_path: Path, mount: Callable[..., Mount]
) -> None:
    """Half of them hang, half are stopped."""
    near, far = (mount(name, **WORST, seed=seed) for seed, name in enumerate(("near", "far")))
    assert disturbed(Drive.of(near, far), tmp_path / "logs", sleepy, server) == {}


def test_a_trainer_whose_calls_on_sshfs_hang_disturbs_nothing_of_its_successor(
    server: ForkServer, sleepy: ForkServer, tmp_path: Path, mount_sshfs: Callable[..., Mount]
) -> None:
    drive = Drive.of(mount_sshfs("near"), mount_sshfs("far"))
    assert disturbed(drive, tmp_path / "logs", sleepy, server) == {}


def test_what_trackers_write_for_a_trainer_that_was_followed_is_in_files_of_its_own(
    server: ForkServer, sleepy: ForkServer, tmp_path: Path
) -> None:
    run, job, marker = tmp_path / "run", tmp_path / "job.json", tmp_path / "struck"
    job.write_text(json.dumps({**JOB, "model_dir": str(run), "trackers": ["wandb", "tensorboard"]}))

    def train(trainers: ForkServer, host: str, faults: list[dict[str, object]], stale_s: float) -> list[int]:
        words, own = [json.dumps([str(job)]), json.dumps([faults]), str(stale_s)], {"ACCEL_TRAIN_HOST": host}
        log = tmp_path / f"{host}.txt"
        return trainers.script(SCRIPT, words, log, processes=1, WANDB_MODE="offline", **own, **ENVIRONMENT)

    def read() -> dict[str, bytes]:
        return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}

    # Its first epoch is logged; the rows of the second are about to be renamed.
    stop = {"folders": [str(run)], "marker": str(marker), "pattern": r"rename .*/performance\.csv$", "nth": 2}
    stopped = threading.Thread(target=train, args=(sleepy, SLEEPY, [{**stop, "signal": signal.SIGSTOP}], LEASE_S))
    stopped.start()
    try:
        wait_until(lambda: marker.exists() or not stopped.is_alive())
        of_first = {name for name in read() if is_trackers(name)}
        assert train(server, AWAKE, [], NO_LEASE_S) == [0], (tmp_path / f"{AWAKE}.txt").read_text()
        before = read()
    finally:
        for child in sleepy.forked:
            os.kill(child, signal.SIGCONT)
        stopped.join()
    after = read()
    assert {name.partition("/")[0] for name in of_first} == {"wandb", "accel-train"}, of_first
    assert {name for name in after if is_trackers(name)} > of_first, "each has files of its own"
    assert {name for name in before if after.get(name) != before[name]} <= of_first
    assert {name for name in set(after) - set(before) if not is_trackers(name)} == set()
    assert len(checks.wandb_ids(run)) == 1, "what is synced later is one run"


def is_trackers(name: str) -> bool:
    return name.startswith(("wandb/", "accel-train/"))
