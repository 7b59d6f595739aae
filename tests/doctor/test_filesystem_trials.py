"""What is tried of a file system, on a good one and on those that lie."""

import errno
import fcntl
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from accel_trainer.doctor import filesystem_trials
from accel_trainer.doctor.findings import Grade
from accel_trainer.doctor.race import HelperFailed, race, start_helper

os_rename, os_open, os_listdir, touch = os.rename, os.open, os.listdir, Path.touch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "trial"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all of them, however slow this machine is."""
    monkeypatch.setattr(filesystem_trials, "NUM_ROUNDS", 40)
    monkeypatch.setattr(filesystem_trials, "LIMIT_S", 30.0)


def refuse(number: int) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("name", filesystem_trials.TRIALS)
def test_a_local_disk_has_all_that_is_tried(name: str, tmp_path: Path) -> None:
    finding = filesystem_trials.run_trial(filesystem_trials.TRIALS[name], tmp_path / name)
    assert (finding.grade, finding.fix) == (Grade.OK, None), finding


@pytest.mark.parametrize("name", filesystem_trials.TRIALS)
def test_a_file_system_that_fails_in_a_trial_is_a_problem(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("in the way")
    finding = filesystem_trials.run_trial(filesystem_trials.TRIALS[name], tmp_path / name)
    assert finding.grade is Grade.PROBLEM
    assert "File exists" in finding.message


# -- rename over a file -----------------------------------------------------------------------------------------------


def test_a_rename_that_first_removes_the_file_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: Path, target: Path) -> None:
        target.unlink()
        time.sleep(0.005)
        os_rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    finding = filesystem_trials.rename_replaces(folder)
    assert finding.grade is Grade.PROBLEM
    assert "others see none" in finding.message
    assert "or half of it (0)" in finding.message


def test_a_rename_that_copies_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: Path, target: Path) -> None:
        content = source.read_bytes()
        with target.open("wb", buffering=0) as file:
            file.write(content[:100])
            time.sleep(0.005)
            file.write(content[100:])
        source.unlink()

    monkeypatch.setattr(os, "replace", replace)
    finding = filesystem_trials.rename_replaces(folder)
    assert finding.grade is Grade.PROBLEM
    assert "or half of it" in finding.message
    assert "or half of it (0)" not in finding.message


def test_a_rename_that_does_not_replace_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda source, target: None)
    assert filesystem_trials.rename_replaces(folder).message == "a rename over a file does not replace it"


# -- claims -----------------------------------------------------------------------------------------------------------


def test_a_rename_that_succeeds_with_an_error_is_noted_as_harmless(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: Path, target: Path) -> None:
        os_rename(source, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "rename", rename)
    finding = filesystem_trials.claims(folder)
    assert finding.grade is Grade.OK
    assert (
        "40 renames succeeded and reported an error (No such file or directory), which does no harm" in finding.message
    )


def test_a_rename_that_copies_lets_two_win(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        time.sleep(0.002)
        source.unlink(missing_ok=True)

    monkeypatch.setattr(os, "rename", rename)
    finding = filesystem_trials.claims(folder)
    assert finding.grade is Grade.PROBLEM
    assert re.search(r"two processes both got one job, in \d+ of 40 races", finding.message)


def test_a_rename_that_both_processes_win_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one target is there, but the queue believes a call that succeeds."""

    def rename(source: Path, target: Path) -> None:
        try:
            os_rename(source, target)
        except FileNotFoundError:
            return

    monkeypatch.setattr(os, "rename", rename)
    assert "two processes both got one job" in filesystem_trials.claims(folder).message


def test_a_rename_that_loses_the_file_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", lambda source, target: source.unlink())
    assert "neither got it (No such file or directory), in 40 races" in filesystem_trials.claims(folder).message


def test_a_rename_that_is_not_permitted_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", refuse(errno.EPERM))
    assert "neither got it (Operation not permitted)" in filesystem_trials.claims(folder).message


# -- creation, links --------------------------------------------------------------------------------------------------


def test_a_creation_that_is_not_exclusive_lets_two_win(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda path, flags, *rest: os_open(path, flags & ~os.O_EXCL, *rest))
    finding = filesystem_trials.exclusive_creation(folder)
    assert finding.grade is Grade.PROBLEM
    assert "two processes both created one file" in finding.message


def test_a_creation_that_nobody_wins_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_creation(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "File exists")
        return os_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", no_creation)
    assert "a file that did not exist was refused" in filesystem_trials.exclusive_creation(folder).message


def test_a_link_that_overwrites_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", shutil.copyfile)
    assert filesystem_trials.links(folder).message == "link() has replaced an existing file"


def test_a_link_that_reports_an_error_and_overwrites_is_a_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(one: Path, other: Path) -> None:
        shutil.copyfile(one, other)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", link)
    assert filesystem_trials.links(folder).grade is Grade.PROBLEM


def test_a_file_system_without_links_is_good_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(os, "symlink", refuse(errno.EPERM))
    finding = filesystem_trials.links(folder)
    assert finding.grade is Grade.OK
    assert "no hard links (Operation not permitted)" in finding.message
    assert "no symbolic links (Operation not permitted)" in finding.message


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "said"), [(100, "100.0 s behind this machine's"), (-100, "100.0 s ahead of this")])
def test_a_file_server_with_another_time_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, offset: float, said: str
) -> None:
    now = time.time
    monkeypatch.setattr(filesystem_trials.time, "time", lambda: now() + offset)
    finding = filesystem_trials.clock(folder)
    assert finding.grade is Grade.WARNING
    assert said in finding.message
    monkeypatch.setattr(filesystem_trials, "CLOCK_TOLERANCE_S", 1000)
    finding = filesystem_trials.clock(folder)
    assert (finding.grade, said in finding.message) == (Grade.OK, True), "it is told all the same"


def test_a_rename_that_changes_the_time_stamp_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: Path, target: Path) -> None:
        os_rename(source, target)
        os.utime(target, (1, 1))

    monkeypatch.setattr(os, "rename", rename)
    assert "a rename changes the time stamp" in filesystem_trials.clock(folder).message


@pytest.mark.parametrize(("late_s", "said"), [(0.3, r"after (0.[3-9]|1.\d) s"), (1000, "s or later")])
def test_a_folder_that_others_see_late_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, late_s: float, said: str
) -> None:
    def listdir(place: Path) -> list[str]:
        return [name for name in os_listdir(place) if is_old(place / name)]

    def is_old(path: Path) -> bool:
        try:
            return time.time() - path.stat().st_mtime > late_s
        except FileNotFoundError:  # it is renamed meanwhile
            return False

    monkeypatch.setattr(filesystem_trials, "SLOW_LISTING_S", 0.1)
    monkeypatch.setattr(filesystem_trials, "LISTING_LIMIT_S", 2.0)
    monkeypatch.setattr(os, "listdir", listdir)
    finding = filesystem_trials.visibility(folder)
    assert finding.grade is Grade.WARNING
    assert re.search(said, finding.message), finding.message


def test_a_disk_without_sync_is_a_problem_and_a_slow_one_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem_trials, "SLOW_SYNC_S", 0.0)
    assert filesystem_trials.syncing(folder).grade is Grade.WARNING
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    finding = filesystem_trials.syncing(folder)
    assert finding.grade is Grade.PROBLEM
    assert "fsync has failed: Input/output error" in finding.message


# -- names ------------------------------------------------------------------------------------------------------------


def names_refused(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[str], bool]) -> None:
    def touch_some(self: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        if is_refused(self.name):
            raise OSError(errno.EINVAL, "Invalid argument")
        touch(self, mode, exist_ok)

    monkeypatch.setattr(Path, "touch", touch_some)


@pytest.mark.parametrize(
    ("is_refused", "grade", "said"),
    [
        (lambda name: len(os.fsencode(name)) > 143, Grade.PROBLEM, "(the name of a claim), 255 bytes"),
        (lambda name: len(os.fsencode(name)) > 250, Grade.OK, "kept as they are, up to 2"),
        (lambda name: ":" in name, Grade.WARNING, "not kept in names: colons and the like"),
    ],
    ids=["short", "almost", "no colons"],
)
def test_names_that_are_not_possible_are_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[str], bool], grade: Grade, said: str
) -> None:
    names_refused(monkeypatch, is_refused)
    finding = filesystem_trials.names(folder)
    assert finding.grade is grade, finding
    assert said in finding.message


def test_names_that_change_their_spelling_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HFS+ does, which decomposes all of them."""
    monkeypatch.setattr(os, "listdir", lambda place: [unicodedata.normalize("NFD", name) for name in os_listdir(place)])
    finding = filesystem_trials.names(folder)
    assert finding.grade is Grade.WARNING
    assert "accents" in finding.message


def test_names_that_lose_their_case_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: self.name.lower() in map(str.lower, os_listdir(self.parent)))
    finding = filesystem_trials.case(folder)
    assert finding.grade is Grade.WARNING
    assert "one name" in finding.message


@pytest.mark.parametrize(
    ("flock", "said"),
    [(lambda *_: None, "does not keep another process out"), (refuse(errno.ENOLCK), "no flock here (No locks")],
)
def test_locks_that_do_not_work_are_noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, flock: Callable[..., None], said: str
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    finding = filesystem_trials.locks(folder)
    assert finding.grade is Grade.OK
    assert said in finding.message


# -- helpers ----------------------------------------------------------------------------------------------------------


def test_a_helper_that_breaks_hangs_or_ends_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        start_helper(lambda connection: refuse(errno.EIO)()) as other,
        pytest.raises(HelperFailed, match="Input/output error"),
    ):
        other.receive()
    with (
        start_helper(lambda connection: os._exit(0)) as other,
        pytest.raises(HelperFailed, match="ended without an answer"),
    ):
        other.receive()
    with start_helper(lambda connection: time.sleep(60)) as other, pytest.raises(HelperFailed, match="no answer"):
        other.receive(0.1)
    assert capfd.readouterr() == ("", "")


def test_two_processes_run_a_race_in_parallel_until_time_is_up() -> None:
    def act(who: int, number: int) -> tuple[int, int, float]:
        time.sleep(0.01)
        return who, os.getpid(), time.monotonic()

    results = race(act, lambda number: None, 1000, 1.0)
    assert 1 < len(results) < 105
    assert len({pid for both in results for _, pid, _ in both} | {os.getpid()}) == 3
    apart = sorted(abs(one[2] - other[2]) for one, other in results)
    assert apart[len(apart) // 2] < 0.01, "they overlap"
