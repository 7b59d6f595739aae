"""What lies in a run folder may have been put there by anybody: every reader of it against every kind of file.

Nothing is waited for, read without end, or more than one line. Job files are in config/test_parse.py, weights in
training/pretrained/test_weight_files.py, images in data/test_decode.py.
"""

import json
from pathlib import Path

import pytest
from helpers import plant_no_file, said_by

from accel_trainer.core.errors import UserError
from accel_trainer.report.compare import compare
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import trained_classes, trained_job
from accel_trainer.run.performance import has_results, read_performance
from accel_trainer.run.records import Origin, read_environment, read_found, read_origin
from accel_trainer.run.status import RankError, first_rank_error, read_status, write_rank_error

CONTENTS = {
    "nothing": b"",
    "no JSON": b"<html>",
    "half": b'{"state": ',
    "not UTF-8": b'{"state": "\xff"}',
    "a list": b"[]",
    "a list of lists": b"[[1]]",
    "a number": b"1",
    "a word": b'"abc"',
    "null": b"null",
    "nested lists": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"state":' * 100_000 + b"1" + b"}" * 100_000,
    "wrong types": b'{"state": [], "num_epochs": {}, "architecture": 1, "token": 5, "time": "x", "error": null}',
    "NaN": b'{"state": NaN, "num_epochs": Infinity, "token": "t", "time": "x", "error": 1}',
    "a large number": b'{"state": 1' + b"0" * 10_000 + b"}",
}
OTHERS = ("pipe", "device", "folder", "huge", "nowhere")


def plant(path: Path, kind: str) -> None:
    match kind:
        case "pipe" | "device" | "folder":
            plant_no_file(path, kind)
        case "huge":
            with path.open("wb") as file:
                file.truncate(2**29)
        case "nowhere":
            path.symlink_to(path.name)
        case _:
            path.write_bytes(CONTENTS[kind])


every_kind = pytest.mark.parametrize("kind", [*CONTENTS, *OTHERS])


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create()
    return run


@every_kind
def test_an_unreadable_status_counts_as_no_status(run: RunFolder, kind: str) -> None:
    plant(run.status_file, kind)
    assert read_status(run) is None


@every_kind
def test_what_is_not_a_rank_s_error_is_none(run: RunFolder, kind: str) -> None:
    plant(run.rank_error(1), kind)
    write_rank_error(run, 2, RankError("t", "boom", 2.0))
    assert first_rank_error(run, "t") == RankError("t", "rank-2: boom", 2.0)


@every_kind
def test_records_that_cannot_be_read_are_empty(run: RunFolder, kind: str) -> None:
    for path in (run.environment, run.found, run.origin):
        plant(path, kind)
    assert read_origin(run) == Origin()
    for read in (read_environment, read_found):
        known = read(run)
        assert isinstance(known, dict)
        assert (known == {}) == (kind not in ("wrong types", "NaN"))


@every_kind
def test_a_config_that_is_none_is_reported_in_one_line(run: RunFolder, kind: str) -> None:
    plant(run.config, kind)
    with pytest.raises(UserError) as caught:
        trained_job(run)
    assert all(line.startswith(str(run.path)) for line in caught.value.problems)
    if kind not in ("wrong types", "NaN"):
        assert str(run.path) in said_by(compare, [run])


@every_kind
def test_classes_that_are_none_are_reported_in_one_line(run: RunFolder, kind: str) -> None:
    if kind == "a list":
        pytest.skip("no classes")
    plant(run.classes, kind)
    assert said_by(trained_classes, run).startswith(str(run.classes))


@every_kind
def test_a_table_that_is_none_is_reported_in_one_line_or_empty(run: RunFolder, kind: str) -> None:
    plant(run.performance, kind)
    assert has_results(run) is False
    if kind in CONTENTS and "nested" not in kind:  # a header, of whatever columns, without lines below it
        assert read_performance(run) == []
    else:
        assert said_by(read_performance, run).startswith(str(run.performance))


@every_kind
@pytest.mark.parametrize("name", ["status_file", "environment"])
def test_a_run_is_compared_whatever_its_other_files_are(run: RunFolder, kind: str, name: str) -> None:
    run.config.write_text(json.dumps({"architecture": "resnet18", "num_epochs": 1, "primary_metric": "acc1"}))
    plant(getattr(run, name), kind)
    (row,) = compare([run])
    assert row.state == "unknown"


def test_numbers_that_are_none_are_no_time(run: RunFolder) -> None:
    run.config.write_text(json.dumps({"architecture": "resnet18", "num_epochs": [1], "primary_metric": {}}))
    run.performance.write_text("epoch,split,loss,lr,images_per_s,seconds\n1,val,nan,inf,-inf,inf\n")
    (row,) = compare([run])
    assert row.best is None
