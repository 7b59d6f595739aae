"""What lies in a run folder may have been put there by anybody: every reader of it against every kind of file.

Nothing is waited for, read without end, or more than one line. Job files are in config/test_parse.py, weights in
training/pretrained/test_weight_files.py, images in data/test_decode.py.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import plant_no_file, said_by

from accel_trainer.core.errors import UserError
from accel_trainer.queue.control import Pauses, Requests
from accel_trainer.queue.heartbeat import OBSERVATIONS, HeartbeatObserver
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.status_table import status_rows
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import submission_of
from accel_trainer.report.compare import compare
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of, trained_classes, trained_job
from accel_trainer.run.performance import has_results, read_performance
from accel_trainer.run.records import Origin, read_environment, read_found, read_origin
from accel_trainer.run.status import (
    RankError,
    RunState,
    Status,
    first_rank_error,
    read_status,
    status_damage,
    write_rank_error,
    write_status,
)

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
    plant(run.rank_error(1, "t"), kind)
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
        assert known == {} or kind == "wrong types"


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


HEADER = "epoch,split,loss,acc1,lr,images_per_s,seconds\n"


@pytest.mark.parametrize(
    "line",
    [
        "1,val,0.5,50,inf,10,1",
        "1,val,0.5,50,0.1,-inf,1",
        "1,val,0.5,50,0.1,10,nan",
        "1,val,1e300,50,0.1,10,1",
        "1,val,0.5,1e999,0.1,10,1",
        "1e9,val,0.5,50,0.1,10,1",
        "1_0,val,0.5,50,0.1,10,1",
        "-1,val,0.5,50,0.1,10,1",
        f"{'9' * 5000},val,0.5,50,0.1,10,1",
        "1,val,five,50,0.1,10,1",
        "1,val,٣,50,0.1,10,1",
        "1,val,0.5,50,0.1,10,",
        "1,val,0.5",
    ],
)
def test_a_row_of_results_with_numbers_that_it_cannot_have_is_damaged(run: RunFolder, line: str) -> None:
    run.config.write_text(json.dumps({"architecture": "resnet18", "num_epochs": 1, "primary_metric": "acc1"}))
    run.performance.write_text(f"{HEADER}{line}\n")
    assert said_by(compare, [run]).startswith(f"{run.performance}: cannot be read")


def test_a_score_that_is_not_finite_is_one_that_we_write(run: RunFolder) -> None:
    run.config.write_text(json.dumps({"architecture": "resnet18", "num_epochs": 1, "primary_metric": "acc1"}))
    run.performance.write_text(f"{HEADER}1,val_ema,nan,0.1,0.1,10,1\n1,val,0.5,50,0.1,10,1\n")
    (row,) = compare([run])
    assert row.best == 50


@pytest.mark.parametrize("value", ["[1]", "1e300", "NaN", "-1", "true", '"1"', "Infinity", "1" + "0" * 400])
def test_a_number_of_epochs_that_is_none_is_told_in_one_line(run: RunFolder, value: str) -> None:
    run.config.write_text(f'{{"architecture": "resnet18", "num_epochs": {value}, "primary_metric": "acc1"}}')
    assert str(run.config) in said_by(compare, [run])


GOOD: dict[str, Any] = {"state": "training", "token": "t", "epoch": 1, "num_epochs": 2, "step": 1, "steps_per_epoch": 4}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, text) for key in ("step", "epoch", "num_epochs", "global_step", "pid", "best_epoch")
          for text in ("1e9", "-1", "1.5", '"1"', "true", "NaN", "1e300", "[1]", "{}", "1" + "0" * 30)],
        *[(key, text) for key in ("loss", "score", "lr", "images_per_s", "eta_s", "best", "updated", "failed_at")
          for text in ("NaN", "Infinity", "-Infinity", "1e300", "-1e300", "1e999", '"0.5"', "true", "[0.5]", "{}")],
        *[(key, text) for key in ("error", "host", "preparing", "score_name", "primary_metric", "state")
          for text in ("1", "[]", "{}", "true")],
        ("prepared", "2"), ("prepared", "-1"), ("updated", "-1"), ("step", "5"), ("step", "1000000000"),
        ("state", "null"), ("state", '"TRAINING"'), ("state", '"nonsense"'), ("diverged", "[]"),
        ("diverged", '{"step": 1, "epoch": 1e9, "lr": 0.1}'),
    ],
)  # fmt: skip
def test_a_status_with_what_it_cannot_have_is_damaged(run: RunFolder, key: str, value: str) -> None:
    others = {name: known for name, known in GOOD.items() if name != key}
    run.status_file.write_text(f'{json.dumps(others)[:-1]}, "{key}": {value}}}')
    assert read_status(run) is None
    assert status_damage(run) == f"{run.status_file} is damaged"


@pytest.mark.parametrize(
    "content",
    [
        b'{"state": "training", "state": "finished"}',
        b'\xef\xbb\xbf{"state": "training"}',
        b'{"state": "training"} {}',
        b'{"state": "training", "new": NaN}',
        b'{"state": "training", "new": 1e999}',
        '{"state": "training"}'.encode("utf-16"),
    ],
)
def test_json_that_readers_may_understand_in_two_ways_is_damaged(run: RunFolder, content: bytes) -> None:
    run.status_file.write_bytes(content)
    assert read_status(run) is None
    assert status_damage(run) is not None


@pytest.mark.parametrize("state", RunState)
def test_every_status_that_a_trainer_writes_is_whole(run: RunFolder, state: RunState) -> None:
    extremes = Status(
        state=state, loss=math.nan, lr=math.inf, best=3.4e38, eta_s=0.0, error="one\ntwo", updated=time.time()
    )
    write_status(run, extremes)
    read = read_status(run)
    assert read is not None
    assert (read.state, read.loss, read.lr, read.error) == (state, None, None, "one\ntwo")
    assert status_damage(run) is None


def test_no_status_is_not_a_damaged_one(run: RunFolder) -> None:
    assert status_damage(run) is None


@pytest.mark.parametrize("value", ["NaN", "1e300", "-1", "0", '"64"', "true", "[64]", "1.5"])
def test_a_number_that_was_not_found_is_looked_for_again(run: RunFolder, value: str) -> None:
    run.found.write_text(f'{{"auto": {value}}}')
    assert read_found(run) == {}


@pytest.mark.parametrize("value", ["1e300", "-1", "true", '"1"', "1.0", "1" + "0" * 30])
def test_an_epoch_of_origin_that_is_none_does_not_hide_the_submission(run: RunFolder, value: str) -> None:
    run.origin.write_text(f'{{"submission": "s", "epoch": {value}}}')
    assert read_origin(run) == Origin("s")


@pytest.mark.parametrize("name", ["../../x", "a/b", ".hidden", "-x", "a\nb", "\x1b[31m", "", 7, None, ["a"]])
def test_a_name_that_no_job_can_have_is_not_taken_from_environment_json(run: RunFolder, name: object) -> None:
    run.environment.write_text(json.dumps({"job": name}))
    assert job_of(run, read_environment(run)) == "run"


# -- the queue's records --------------------------------------------------------------------------------------------

BAD_NUMBERS = ("NaN", "Infinity", "1e300", "-1", '"1"', "true", "[1]", "null", "{}")


@pytest.fixture
def queue(tmp_path: Path) -> QueueStore:
    queue = QueueStore(tmp_path / "queue")
    queue.create()
    for folder in queue.paths.all:
        folder.mkdir(exist_ok=True)
    return queue


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_a_damaged_pause_is_a_pause_and_says_so(queue: QueueStore, value: str) -> None:
    path = queue.paths.paused / "all.json"
    path.write_text(f'{{"host": null, "by": "me", "since": {value}}}')
    (pause,) = Pauses(queue).all()
    assert str(pause).endswith(f"by somebody: {path} is damaged")
    assert Pauses(queue).of("any") == pause


@every_kind
def test_whatever_stands_for_a_pause_is_a_pause_in_one_line(queue: QueueStore, kind: str) -> None:
    path = queue.paths.paused / "all.json"
    plant(path, kind)
    (pause,) = Pauses(queue).all()
    assert "\n" not in str(pause)


def test_the_time_of_a_damaged_pause_may_be_any(queue: QueueStore) -> None:
    path = queue.paths.paused / "all.json"
    path.write_text("{")
    os.utime(path, (2**40, 2**33))
    (pause,) = Pauses(queue).all()
    assert "is paused since 20" in str(pause)


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_damaged_signs_of_life_count_as_none(queue: QueueStore, value: str) -> None:
    start = '{"host": "h", "sequence": 1, "work": {"t": {"devices": [], "started": '
    (queue.paths.runners / "h.a.json").write_text(f"{start}{value}}}}}}}")
    (queue.paths.runners / "h.b.json").write_text(f'{{"host": "h", "sequence": {value}}}')
    assert HeartbeatObserver(queue).heartbeats() == {}
    (queue.paths.observed / "x.json").write_text(f'{{"boot": "b", "seen": {{"a": [1, {value}]}}}}')
    if value != "-1":
        assert OBSERVATIONS.read(queue.paths.observed / "x.json") is None


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_damaged_failures_count_as_none(queue: QueueStore, value: str) -> None:
    job = QueuedJob("a", queue.add("a", b"{}"), JobState.PENDING)
    ours = f'"submission": "{submission_of(job.path)}", "reason": "r"'
    for content in (f'{{{ours}, "number": {value}, "time": 1}}', f'{{{ours}, "number": 1, "time": {value}}}'):
        (queue.paths.retries / "a.json").write_text(content)
        assert Retries(queue).of(job) is None
    (queue.paths.retries / "a.json").write_text(f'{{{ours}, "number": 1000000, "time": 1}}')
    assert Retries(queue).backing_off([job]) == {}


@pytest.mark.parametrize("value", [*BAD_NUMBERS, '"delete"'])
def test_a_damaged_request_is_not_obeyed(queue: QueueStore, value: str) -> None:
    (queue.paths.requests / "t.json").write_text(f'{{"action": {value}, "by": "me"}}')
    assert Requests(queue).of("t") is None
    if value not in ("1",):
        (queue.paths.requests / "t.json").write_text(f'{{"action": "cancel", "by": "me", "time": {value}}}')
        assert Requests(queue).of("t") is None


EVIL = "x\n2026-01-01 00:00:00 error: \x1b[2J\x1b]0;x\x07\u202e\x9b"


def test_what_a_record_says_is_one_harmless_line(queue: QueueStore, run: RunFolder) -> None:
    (queue.paths.paused / "@h.json").write_text(json.dumps({"host": "h", "by": EVIL, "since": 1, "reason": EVIL}))
    (queue.paths.requests / "t.json").write_text(json.dumps({"action": "hold", "by": EVIL}))
    run.status_file.write_text(json.dumps({**GOOD, "error": EVIL, "preparing": EVIL, "host": EVIL}))
    status, request = read_status(run), Requests(queue).of("t")
    assert status is not None
    assert request is not None
    for text in (*map(str, Pauses(queue).all()), request.outcome.reason, status.preparing, status.host):
        assert text is not None
        assert text.isprintable()
    assert status.error is not None
    assert status.error.replace("\n", "").isprintable()


def test_a_damaged_status_is_noted_once_in_the_table_of_jobs(queue: QueueStore, run: RunFolder) -> None:
    job = json.dumps({"architecture": "resnet18", "model_dir": str(run.path)}).encode()
    queue.add("a", job)
    assert [row.note for row in status_rows(queue)] == [None]
    run.status_file.write_text('{"state": "training", "epoch": 1, "num_epochs": 1e300}')
    (row,) = status_rows(queue)
    assert (row.epoch, row.num_epochs, row.note) == (None, None, f"{run.status_file} is damaged")
