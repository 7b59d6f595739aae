"""The temporary files of an attempt go with it."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import dead_token, wait_until

from accel_trainer.core.lease import Owner
from accel_trainer.core.process_space import Life, boot_id, machine_id
from accel_trainer.launch import attempt_files
from accel_trainer.launch.attempt_files import make_scratch, remove_abandoned, remove_scratch, scratch_folder
from accel_trainer.launch.command import Launch
from accel_trainer.launch.process_group import ProcessGroup

pytestmark = pytest.mark.usefixtures("temporary")


class Litter(Launch):
    """A 'launcher' that leaves a temporary file and a folder, and is ended in the middle."""

    @property
    def argv(self) -> list[str]:
        code = (
            "import tempfile, time; tempfile.mkdtemp(); tempfile.mkstemp(); print('left', flush=True); time.sleep(60)"
        )
        return [sys.executable, "-c", code]


def test_what_a_killed_trainer_has_left_goes_with_it(tmp_path, temporary):
    token = Owner.new().token
    trainer = ProcessGroup(Litter((), {}, 1), token, tmp_path / "log")
    wait_until(lambda: "left" in (tmp_path / "log").read_text())
    assert len(list(scratch_folder(token).iterdir())) == 4  # with whose they are, and who holds them
    assert list(temporary.iterdir()) == [scratch_folder(token)]
    trainer.kill()
    asyncio.run(trainer.stop())
    assert list(temporary.iterdir()) == []


def test_what_was_never_taken_up_again_is_removed_and_nothing_else(temporary):
    mine, dead = Owner.new().token, dead_token()
    for token in (mine, dead):
        make_scratch(token)
    (temporary / "accel-train-evaluate-1").mkdir()
    remove_abandoned()
    assert {path.name for path in temporary.iterdir()} == {scratch_folder(mine).name, "accel-train-evaluate-1"}


def test_while_something_of_a_dead_attempt_works_its_folder_stays(tmp_path, temporary):
    dead = dead_token()
    trainer = ProcessGroup(Litter((), {}, 1), dead, tmp_path / "log")
    remove_abandoned()
    assert scratch_folder(dead).is_dir()
    trainer.kill()
    asyncio.run(trainer.stop())
    assert not scratch_folder(dead).exists()


def test_where_no_process_can_be_seen_a_dead_owners_folder_stays_too(temporary, monkeypatch):
    """Its trainer may be alive: it saves when its runner has died."""
    dead = dead_token()
    make_scratch(dead)
    monkeypatch.setattr(attempt_files, "sees_processes", lambda: False)
    remove_abandoned()
    assert scratch_folder(dead).is_dir()


@pytest.mark.parametrize("token", ["{machine}_{boot}_2c0-999999999-1-w", "{machine}_{boot}_0t7-999999999-1-w"])
def test_the_folder_of_an_attempt_in_another_container_stays(temporary, token):
    theirs = token.format(machine=machine_id(), boot=boot_id())
    make_scratch(theirs)
    remove_abandoned()
    assert scratch_folder(theirs).is_dir()


def test_the_scratch_folder_is_readable_by_its_owner_only(temporary):
    make_scratch("token")
    assert scratch_folder("token").stat().st_mode & 0o777 == 0o700


NOBODY = 65_534


@pytest.fixture(params=["folder", "own, but open to all", "link", "file", "pipe", "another's"])
def planted(request: pytest.FixtureRequest, temporary: Path) -> Path:
    """What a stranger has made under the name that an attempt's folder would have."""
    path, elsewhere = scratch_folder("token"), temporary / "elsewhere"
    match request.param:
        case "folder":
            path.mkdir(mode=0o700)
        case "own, but open to all":
            path.mkdir()
            path.chmod(0o777)
            (path / ".owner").write_text("token")
        case "link":
            elsewhere.mkdir(mode=0o700)
            (elsewhere / ".owner").write_text("token")
            path.symlink_to(elsewhere)
        case "file":
            path.write_text("token")
        case "pipe":
            path.mkdir(mode=0o700)
            os.mkfifo(path / ".owner")
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root can make another's folder")
            path.mkdir(mode=0o700)
            (path / ".owner").write_text("token")
            os.chown(path, NOBODY, NOBODY)
    return path


def test_a_folder_that_somebody_else_has_made_is_not_taken(planted, temporary):
    before = {path: path.lstat().st_mode for path in temporary.rglob("*")}
    made = Path(make_scratch("token")["TMPDIR"])
    assert made != planted
    assert made.parent == planted.parent
    assert (made.stat().st_mode & 0o777, made.lstat().st_uid) == (0o700, os.geteuid())
    assert scratch_folder("token") == made
    assert make_scratch("token") == {"TMPDIR": str(made)}, "and it is found again"
    remove_scratch("token")
    assert {path: path.lstat().st_mode for path in temporary.rglob("*")} == before


def test_an_abandoned_folder_is_removed_where_another_stands_under_its_name(temporary):
    dead = dead_token()
    squatted = scratch_folder(dead)
    squatted.mkdir()
    made = Path(make_scratch(dead)["TMPDIR"])
    remove_abandoned()
    assert not made.exists()
    assert squatted.is_dir()


def test_scratch_paths_fit_sockets_and_abandoned_ones_are_found(monkeypatch):
    monkeypatch.setattr(attempt_files.tempfile, "gettempdir", lambda: "/var/folders/zz/" + "x" * 60)
    dead = dead_token()
    make_scratch(dead)
    assert scratch_folder(dead).parent == Path("/tmp")
    assert len(str(scratch_folder(dead))) < 40
    remove_abandoned()
    assert not scratch_folder(dead).exists()


def test_a_folder_that_only_looks_like_one_is_left_alone(temporary):
    for name, token in (("accel-train-run-0123456789", "another-boot-2-x"), ("accel-train-run-abcdefabcd", None)):
        (temporary / name).mkdir()
        if token is not None:
            (temporary / name / ".owner").write_text(token)
    remove_abandoned()
    assert len(list(temporary.iterdir())) == 2


CONTAINER = ("unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child=SIGKILL", "--")
HOLD = """
import sys, time
from accel_trainer.core.lease import Owner
from accel_trainer.launch.attempt_files import make_scratch
token = Owner.new().token
make_scratch(token)
print(token, flush=True)
sys.stdin.read()
"""


def age(folder: Path, seconds: float) -> None:
    """Since it was found to be nobody's, if it was."""
    if (left := folder / attempt_files.LEFT_FILE).exists():
        os.utime(left, (time.time() - seconds,) * 2)


def test_what_a_container_has_left_is_removed_ten_minutes_after_it_was_found(temporary: Path) -> None:
    words, here = [*CONTAINER, sys.executable, "-c", HOLD], {**os.environ, "TMPDIR": str(temporary)}
    if subprocess.run([*CONTAINER, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here) as container:
        assert container.stdout is not None
        token = container.stdout.readline().strip()
        folder = scratch_folder(token)
        assert Owner("", token).life() is Life.UNKNOWN
        for _ in range(2):
            remove_abandoned()
            age(folder, 700)
        assert folder.is_dir(), "it is held"
        (inside,) = psutil.Process(container.pid).children()
        inside.suspend()
        remove_abandoned()
        assert not (folder / attempt_files.LEFT_FILE).exists()
        container.kill()
    wait_until(lambda: remove_abandoned() or (folder / attempt_files.LEFT_FILE).exists(), 10)
    age(folder, 500)
    remove_abandoned()
    assert folder.is_dir()
    age(folder, 700)
    remove_abandoned()
    assert not folder.exists()
