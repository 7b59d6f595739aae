"""A state that is damaged on the disk is passed over, whichever of its files it is and however little of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import SMALL_JOB

pytestmark = pytest.mark.slow


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def altered(content: bytes) -> bytes:
    """One more step of the epoch done, in a manifest; elsewhere a byte in the middle."""
    other = content.replace(b'"step": 2', b'"step": 3')
    return (
        other
        if other != content
        else cut(content) + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    )


@pytest.fixture(scope="module")
def undisturbed(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("undisturbed")
    train(server, place)
    return place / "run"


@pytest.fixture(scope="module")
def killed(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two states, for each test to have a copy of."""
    place = tmp_path_factory.mktemp("killed")
    train(server, place, kill_after_step=3)
    return place / "run"


@pytest.mark.parametrize("damaged", [cut, altered])
@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt", "manifest.json"])
def test_a_damaged_state_is_named_and_the_one_before_it_used(
    server: ForkServer, killed: Path, undisturbed: Path, tmp_path: Path, name: str, damaged: Callable[[bytes], bytes]
) -> None:
    run = shutil.copytree(killed, tmp_path / "run")
    state = max((run / "resume").iterdir())
    assert state.name == "000000002-0000"
    (state / name).write_bytes(damaged((state / name).read_bytes()))
    train(server, tmp_path)
    assert checks.differences(run, undisturbed) == []
    log = (run / "log.txt").read_text()
    assert f"the state {state} is not whole" in log
    assert "going on in epoch 1 after step 1" in log


def train(server: ForkServer, place: Path, kill_after_step: int | None = None) -> None:
    job = place / "job.json"
    job.write_text(json.dumps({**SMALL_JOB, "num_epochs": 1, "model_dir": str(place / "run")}))
    (code,) = server.attempt(job, "token", place / "log.txt", kill_after_step=kill_after_step)
    assert code == (0 if kill_after_step is None else -9), (place / "log.txt").read_text()
