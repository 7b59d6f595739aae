"""Files that are removed while a process of the same machine has them open: network drives keep them by other names."""

from pathlib import Path

import pytest
from helpers import as_another_machine

from accel_trainer.core import lease
from accel_trainer.core.lease import Owner
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockLost, RunLock, acquire

pytestmark = pytest.mark.slow


def taken(run: RunFolder) -> RunLock:
    return acquire(run, Owner.new(), end_leftovers=lambda token: None, say=lambda line: None)


@pytest.mark.parametrize("mounting", ["mount", "mount_sshfs"])
def test_who_is_suspended_with_open_files_keeps_no_successor_from_the_folder(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, mounting: str
) -> None:
    """As in two containers on one mount: a state is half-written, and its files stay open."""
    client = request.getfixturevalue(mounting)("one")
    run = RunFolder(client.folder / "run")
    run.create()
    with monkeypatch.context() as patched:
        as_another_machine(patched, "sleepy")
        first = taken(run)
    state = first.aside / "state.tmp"
    state.mkdir()
    with (first.aside / "file.tmp").open("w") as file, (state / "model").open("w") as model:
        for opened in (file, model):
            opened.write("half")
            opened.flush()
        monkeypatch.setattr(lease, "STALE_S", 0.0)
        second = taken(run)
        monkeypatch.undo()
        for late in (first.check, lambda: state.rename(run.path / "state"), lambda: Path(file.name).rename(run.log)):
            with pytest.raises((LockLost, FileNotFoundError)):
                late()
        second.check()
    second.release()
    assert names(client.server / "run") == {"params"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
