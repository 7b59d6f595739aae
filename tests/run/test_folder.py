import json
import math
import os
from pathlib import Path

import pytest
from helpers import file_names, said_by

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import duration
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.older_run import set_aside
from accel_trainer.run.records import read_config, read_environment
from accel_trainer.run.status import (
    RankError,
    RunState,
    Status,
    first_rank_error,
    read_status,
    write_rank_error,
    write_status,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "models" / "a run")
    folder.create()
    return folder


# -- the folder -------------------------------------------------------------------------------------------


def test_every_file_lies_in_the_run_folder_under_a_name_of_its_own(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    properties = [name for name, member in vars(RunFolder).items() if isinstance(member, property)]
    paths = [path for name in properties if isinstance(path := getattr(run, name), Path)]
    paths += [run.weights(0), run.weights(12), run.plot("pdf"), run.rank_error(1, "a"), run.rank_error(2, "a")]
    paths += [run.lock(1), run.lock(2)]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) for path in paths)


@pytest.mark.parametrize(("epoch", "name"), [(0, "000"), (7, "007"), (123, "123"), (1234, "1234")])
def test_weights_are_named_after_their_epoch(epoch: int, name: str) -> None:
    assert RunFolder(Path("r")).weights(epoch) == Path("r", "params", f"{name}.safetensors")


def test_making_a_folder_twice_does_no_harm_and_leaves_no_probe(run: RunFolder) -> None:
    run.best_weights.write_text("weights")
    run.create(tries_to_write=True)
    assert file_names(run.path) == ["params/best.safetensors"]


def test_only_a_trial_of_the_disk_waits_for_it(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    run.create()
    assert run.now() >= run.params.stat().st_mtime
    assert len(synced) == 0
    run.create(tries_to_write=True)
    assert len(synced) == 1
    assert list(run.path.glob(".*")) == []


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"model_dir: cannot write to .*file/run.*; choose another"):
        RunFolder(tmp_path / "file" / "run").create()


@pytest.mark.parametrize(
    "name", ["params", "resume", "logs", "previous", ".new", "log.txt", "performance.csv", "wandb"]
)
@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "pipe"])
def test_what_is_written_to_a_run_folder_cannot_be_led_elsewhere(run: RunFolder, name: str, kind: str) -> None:
    """A folder that others can write to may hold links of theirs, through which we would write to files of ours."""
    planted, elsewhere = run.path / name, run.path.parent / "elsewhere"
    if name == "params":
        run.params.rmdir()
    match kind:
        case "link to a file":
            elsewhere.write_text("mine")
            planted.symlink_to(elsewhere)
        case "link to a folder":
            elsewhere.mkdir()
            planted.symlink_to(elsewhere)
        case "dangling link":
            planted.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(planted)
    assert said_by(run.create) == (
        f"model_dir: {planted} is neither a file nor a folder: what is written there would go elsewhere; "
        "remove it (model_dir itself may be a link)"
    )
    assert not elsewhere.is_dir() or not list(elsewhere.iterdir())


def test_a_run_folder_may_itself_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    RunFolder(tmp_path / "run").create()
    RunFolder(tmp_path / "run").create()
    assert (tmp_path / "scratch" / "params").is_dir()


# -- status ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", RunState)
def test_a_status_is_read_as_it_was_written(run: RunFolder, state: RunState) -> None:
    status = Status(state=state, token="t", epoch=3, loss=0.1 + 0.2, best=None, error="naïve\nerror", updated=1.5e9)
    write_status(run, status, durable=False)
    assert read_status(run) == status


def test_an_infinite_loss_gives_a_status_that_is_valid_json(run: RunFolder) -> None:
    write_status(run, Status(state=RunState.DIVERGED, loss=float("nan"), lr=float("inf")), durable=False)
    status = json.loads(run.status_file.read_text(), parse_constant=pytest.fail)
    assert status["state"] == "diverged"
    assert status["loss"] is None
    assert read_status(run) is not None


@pytest.mark.parametrize("content", [None, b"", b'{"state": "train', b"[]", b'{"state": "dancing"}', b"\xff\xfe"])
def test_a_status_that_cannot_be_read_is_none(run: RunFolder, content: bytes | None) -> None:
    if content is not None:
        run.status_file.write_bytes(content)
    assert read_status(run) is None


def test_a_status_of_a_later_version_is_read_too(run: RunFolder) -> None:
    run.status_file.write_text('{"state": "finished", "moon_phase": "full"}')
    assert read_status(run) == Status(state=RunState.FINISHED)


# -- errors of the ranks -------------------------------------------------------------------------------------


def test_the_reason_of_the_first_failed_rank_is_reported(run: RunFolder) -> None:
    errors = [("now", "an echo", 20.0), ("now", "the cause", 10.0), ("now", "late", 30.0), ("then", "old", 5.0)]
    for rank, (token, error, time) in enumerate(errors, start=1):
        write_rank_error(run, rank, RankError(token, error, time))
    assert first_rank_error(run, "now").error == "rank-2: the cause"
    run.clear_rank_errors()
    assert first_rank_error(run, "now") is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"token": "now"}'])
def test_a_rank_error_that_cannot_be_read_is_passed_over(run: RunFolder, content: str) -> None:
    run.rank_error(1, "now").write_text(content)
    write_rank_error(run, 2, RankError("now", "the cause"))
    assert first_rank_error(run, "now").error == "rank-2: the cause"


def test_an_error_of_a_rank_that_is_written_late_replaces_none_of_another_attempt(run: RunFolder) -> None:
    write_rank_error(run, 1, RankError("now", "the cause"))
    write_rank_error(run, 1, RankError("before", "written late"))
    assert first_rank_error(run, "now").error == "rank-1: the cause"


# -- an older run ----------------------------------------------------------------------------------------------


def fill(run: RunFolder) -> None:
    for path in (run.config, run.performance, run.environment, run.best_weights, run.status_file, run.log):
        path.write_text(path.name)


def test_an_older_run_is_set_aside_whole_but_for_what_is_being_written(run: RunFolder) -> None:
    fill(run)
    assert set_aside(run) == run.path / "previous" / "1"
    kept = ["config.json", "environment.json", "params/best.safetensors", "performance.csv", "status.json"]
    assert file_names(run.path / "previous" / "1") == kept
    assert file_names(run.path) == sorted(["log.txt", "status.json", *(f"previous/1/{name}" for name in kept)])
    assert not run.has_run


def test_every_file_of_a_run_goes_with_it_or_belongs_to_the_folder(run: RunFolder) -> None:
    """A property that is new has to be counted to one of the two."""
    stays = {run.status_file, run.log, run.attempts, run.next_run, run.previous, run.args_of_other_code}
    properties = [name for name, member in vars(RunFolder).items() if isinstance(member, property)]
    paths = {path for name in properties if isinstance(path := getattr(run, name), Path)}
    paths = {path for path in paths if path.parent == run.path}
    for path in paths:
        path.mkdir(exist_ok=True)
    set_aside(run)
    assert {path for path in paths if path.exists()} == stays


def test_what_is_not_a_runs_stays_and_folders_of_trackers_go(run: RunFolder) -> None:
    fill(run)
    for name in ("my notes.txt", "wandb", "figures"):
        (run.path / name).mkdir()
    assert (kept := set_aside(run, {"wandb"})) is not None
    assert (kept / "wandb").exists()
    assert sorted(path.name for path in run.path.iterdir()) == [
        "figures",
        "log.txt",
        "my notes.txt",
        "previous",
        "status.json",
    ]


def test_the_lock_of_who_sets_an_older_run_aside_stays(run: RunFolder) -> None:
    fill(run)
    run.lock(3).touch()
    assert set_aside(run) is not None
    assert run.locks() == [3]


def test_archived_runs_of_a_folder_are_numbered(run: RunFolder) -> None:
    (run.path / "previous" / "9").mkdir(parents=True)
    (run.path / "previous" / "notes").mkdir()
    (run.path / "previous" / "²").mkdir()  # a digit, and no number
    fill(run)
    assert set_aside(run) == run.path / "previous" / "10"


def test_a_folder_without_a_run_has_nothing_to_set_aside(run: RunFolder) -> None:
    run.log.write_text("log")
    assert set_aside(run) is None
    assert file_names(run.path) == ["log.txt"]


@pytest.mark.parametrize("renames", range(5))
def test_setting_aside_that_was_interrupted_is_finished_the_next_time(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    fill(run)
    left, rename = iter(range(renames)), Path.rename

    def rename_until_killed(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_until_killed)
        with pytest.raises(KeyboardInterrupt):
            set_aside(run)
    assert run.has_run is (renames < 4)
    set_aside(run)
    assert not run.has_run
    assert all(path.name.isdecimal() for path in run.previous.iterdir())
    kept = {path.name for path in (run.path / "previous").rglob("*") if path.is_file()}
    assert kept == {"best.safetensors", "config.json", "environment.json", "performance.csv", "status.json"}


# -- what a run was ----------------------------------------------------------------------------------------------


def test_a_folder_without_a_config_is_no_run(run: RunFolder) -> None:
    with pytest.raises(UserError, match=r"a run is not a run folder: it has no config\.json"):
        read_config(run)


def test_a_config_that_cannot_be_read_is_the_users_error(run: RunFolder) -> None:
    run.config.write_text('{"architecture": ')
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read_config(run)


@pytest.mark.parametrize(("content", "read"), [(None, {}), ("{", {}), ('{"run_id": "a"}', {"run_id": "a"})])
def test_an_environment_that_cannot_be_read_is_empty(run: RunFolder, content: str | None, read: dict) -> None:
    if content is not None:
        run.environment.write_text(content)
    assert read_environment(run) == read


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (45.4, "45s"),
        (59.6, "1m 00s"),
        (185, "3m 05s"),
        (3599.7, "1h 00m"),
        (2 * 3600 + 7 * 60, "2h 07m"),
        (86399.9, "1d 00h"),
        (3 * 86400 + 4 * 3600 + 59, "3d 04h"),
        (math.inf, "-"),
        (math.nan, "-"),
    ],
)
def test_durations_are_written_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
