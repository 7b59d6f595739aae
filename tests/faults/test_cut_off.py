"""Trainers that are cut off at random moments of their saves, are followed by another machine's, and wake up: some of
each kind. `make chaos` has 200 on network drives cut off."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.cut_offs import WORST, CutOffs, Drive, rounds
from faults.fork_server import ForkServer
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
