import grp
import json
import logging
import os
import pwd
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import wandb
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers import wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import records_of_wandb

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import children
from accel_trainer.run.evaluations import ConditionAccuracy
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.training.state.step_rows import StepRow
from accel_trainer.training.tracker_calls import end_trackers
from accel_trainer.training.tracker_checks import check_trackers, wandb_mode
from accel_trainer.training.tracking import RunAbout, Tracking
from accel_trainer.training.wandb_code import log_code
from accel_trainer.training.wandb_log import Kind, logged_rows
from accel_trainer.training.wandb_run import replicates
from accel_trainer.training.wandb_settings import settings_obeyed

MakeJob = Callable[..., Job]
# The hosted service has an older and a newer name; wandb takes a login to the older one for both.
OLDER, NEWER = "api.wandb.ai", str(urlsplit(wandb.Settings().base_url).netloc)
OWN = "wandb.my-lab.org"
SECRET = "5ec7e7" * 7


@pytest.fixture(autouse=True)
def fresh_libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """wandb reads its settings once in a process, Accelerate keeps its state: each test has its own."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()
    yield
    wandb.teardown()
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


# -- whether wandb is online ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job_says", "environment", "logged_in_to", "mode"),
    [
        (None, {}, None, "offline"),
        (None, {"WANDB_API_KEY": SECRET}, None, "online"),
        (None, {"WANDB_API_KEY": ""}, None, "offline"),
        (None, {}, NEWER, "online"),
        (None, {}, OLDER, "online"),
        (None, {}, "github.com", "offline"),
        (None, {"WANDB_BASE_URL": f"https://{OWN}"}, OWN, "online"),
        (None, {"WANDB_BASE_URL": "http://localhost:8080"}, "localhost:8080", "online"),
        (None, {"WANDB_BASE_URL": f"https://{OWN}"}, OLDER, "offline"),
        (None, {"WANDB_MODE": "disabled"}, NEWER, "disabled"),
        (None, {"WANDB_MODE": "online"}, None, "online"),
        ("offline", {"WANDB_API_KEY": SECRET, "WANDB_MODE": "online"}, NEWER, "offline"),
        ("disabled", {}, NEWER, "disabled"),
        ("online", {"WANDB_MODE": "offline"}, None, "online"),
    ],
)
def test_the_job_decides_then_the_environment_then_whether_somebody_is_logged_in(
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    job_says: str | None,
    environment: dict[str, str],
    logged_in_to: str | None,
    mode: str,
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if logged_in_to is not None:
        (tmp_path / "netrc").write_text(f"machine {logged_in_to}\n  login user\n  password {SECRET}\n")
    assert wandb_mode(make_job(wandb={"mode": job_says})) == mode


def test_the_login_in_the_home_folder_counts(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = Path.home() / ".netrc"
    netrc.write_text(f"machine {NEWER} login user password {SECRET}\n")
    netrc.chmod(0o600)
    assert wandb_mode(make_job()) == "online"


def test_a_broken_netrc_is_no_login(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine\nmachine password")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode(make_job()) == "offline"


# -- names ----------------------------------------------------------------------------------------------------


def test_trackers_that_are_there_are_accepted(make_job: MakeJob) -> None:
    for trackers in ([], ["wandb"], ["wandb", "tensorboard"]):
        check_trackers(make_job(trackers=trackers))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wandbb", "trackers: no tracker 'wandbb'; did you mean 'wandb'"),
        ("Tensorboard", "trackers: no tracker 'Tensorboard'; did you mean 'tensorboard'?"),
        ("paper", "trackers: no tracker 'paper'; Accelerate knows "),
        ("aim", "trackers: 'aim' is not installed; pip install aim, or remove it from the job"),
    ],
)
def test_a_tracker_that_is_not_installed_is_reported(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["wandb"])
    with pytest.raises(UserError) as caught:
        check_trackers(make_job(trackers=[name]))
    assert str(caught.value).startswith(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_settings_that_another_user_has_put_here_are_not_obeyed(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """wandb would send the user's key to the server that they name."""
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / folder / "settings"
    settings.parent.mkdir()
    settings.write_text("[default]\nbase_url = http://192.0.2.9\n")
    check_trackers(make_job(trackers=["wandb"]))
    os.chown(settings, 12345, 12345)
    with pytest.raises(UserError, match="belong to another user"):
        check_trackers(make_job(trackers=["wandb"]))
    check_trackers(make_job(trackers=["tensorboard"]))


@pytest.mark.parametrize(
    ("place", "mode", "is_refused"),
    [
        (".", 0o777, True),
        (".", 0o1777, False),  # as /tmp
        (".", 0o775, False),  # as a new folder is by Debian's and Red Hat's umask, of the user's private group
        ("wandb", 0o777, True),
        ("wandb", 0o1777, False),
        ("wandb", 0o775, False),
        ("wandb/settings", 0o666, True),
        ("wandb/settings", 0o646, True),
        ("wandb/settings", 0o664, False),
        ("wandb/settings", 0o644, False),
    ],
)
@pytest.mark.parametrize("group", ["private", "lab", "has others"])
def test_settings_that_others_may_have_written_are_not_obeyed(
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    mode: int,
    is_refused: bool,
    group: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "wandb" / "settings"
    settings.parent.mkdir(0o755)
    settings.write_text("[default]\nbase_url = http://192.0.2.9\n")
    for path, usual in ((settings, 0o644), (settings.parent, 0o755), (tmp_path, 0o755)):
        path.chmod(usual)
    (tmp_path / place).chmod(mode)
    account = SimpleNamespace(pw_name="me", pw_gid=settings.stat().st_gid)
    monkeypatch.setattr(pwd, "getpwuid", lambda user: account)
    groups = {
        "private": SimpleNamespace(gr_name="me", gr_mem=["me"]),
        "lab": SimpleNamespace(gr_name="lab", gr_mem=[]),
        "has others": SimpleNamespace(gr_name="me", gr_mem=["me", "you"]),
    }
    monkeypatch.setattr(grp, "getgrgid", lambda number: groups[group])
    if is_refused or (group != "private" and mode in (0o664, 0o775)):
        with pytest.raises(UserError, match=f"that others may have written: so says the mode of {tmp_path}"):
            check_trackers(make_job(trackers=["wandb"]))
    else:
        check_trackers(make_job(trackers=["wandb"]))


def test_settings_behind_a_link_are_looked_at_where_they_are(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "settings").write_text("[default]\nbase_url = http://192.0.2.9\n")
    shared.chmod(0o777)
    (tmp_path / "here" / "wandb").mkdir(parents=True)
    (tmp_path / "here" / "wandb" / "settings").symlink_to(shared / "settings")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=f"so says the mode of {shared}, drwxrwxrwx"):
        check_trackers(make_job(trackers=["wandb"]))


@pytest.mark.parametrize("variable", ["HOME", "WANDB_CONFIG_DIR"])
@pytest.mark.parametrize(("place", "mode"), [(".", 0o777), ("..", 0o777), ("settings", 0o666), ("settings", 0o644)])
def test_the_users_own_settings_are_not_obeyed_where_others_may_have_written_them(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, place: str, mode: int
) -> None:
    """Not of its own folder alone: who may write to the one above can put another in its place."""
    own = tmp_path / ".config" / "wandb"
    own.mkdir(parents=True)
    (own / "settings").write_text("[default]\nbase_url = http://192.0.2.9\n")
    for path, usual in ((own / "settings", 0o644), (own, 0o755), (own.parent, 0o755)):
        path.chmod(usual)
    (own / place).chmod(mode)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("WANDB_CONFIG_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path if variable == "HOME" else own))
    if mode == 0o644:
        check_trackers(make_job(trackers=["wandb"]))
        return
    with pytest.raises(UserError, match="that others may have written") as caught:
        check_trackers(make_job(trackers=["wandb"]))
    assert str(caught.value).endswith("then `chmod go-w`; or remove it")


def test_the_log_names_what_wandb_takes_from_files_of_the_user_and_never_a_value(
    run: RunFolder,
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, here = tmp_path / "home" / ".config" / "wandb" / "settings", tmp_path / "here" / "wandb" / "settings"
    for settings, text in (
        (own, "base_url = https://wandb.my-lab.org"),
        (here, f"api_key = {SECRET}\nentity = lab\nmode = offline\nproject = other"),
    ):
        settings.parent.mkdir(parents=True)
        settings.write_text(f"[default]\n{text}\n[other]\ntags = a\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("WANDB_CONFIG_DIR", raising=False)
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(accelerator, "init_trackers", lambda *_, **__: None)
    with caplog.at_level("INFO"):
        Tracking(accelerator, make_job(trackers=["wandb"]), run, RunAbout("id")).wait()
    assert [line for line in caplog.messages if " sets " in line] == [
        f"wandb: {own} sets base_url",
        f"wandb: {here} sets api_key, entity",
    ]
    assert SECRET not in caplog.text
    files = wandb.setup().settings
    assert [files.settings_system, files.settings_workspace] == [str(own), str(here)], "those that wandb reads"
    for settings in (own, here):
        settings.write_text("no settings\n")
    assert list(settings_obeyed()) == []


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("WANDB_MODE", "off", "the variable WANDB_MODE of the environment: Input should be 'online'"),
        ("WANDB_BASE_URL", "wandb.my-lab.org:8080", "the variable WANDB_BASE_URL of the environment: URL scheme"),
        ("WANDB_PROJECT", "a/b", "the environment's settings of wandb (WANDB_PROJECT): Invalid project name 'a/b'"),
        ("WANDB_INIT_TIMEOUT", "soon", "the variable WANDB_INIT_TIMEOUT of the environment: "),
    ],
)
def test_what_wandb_would_not_take_of_the_environment_is_refused_before_training(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret" * 7)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        check_trackers(make_job(trackers=["wandb"]))
    assert str(caught.value).startswith(reason)
    assert "correct or unset it" in str(caught.value)
    assert "secret" not in str(caught.value)
    check_trackers(make_job(trackers=["tensorboard"]))
    monkeypatch.delenv(variable)
    monkeypatch.setenv("WANDB_TAGS", "a,,b")  # which is set aside
    check_trackers(make_job(trackers=["wandb"]))


@pytest.mark.parametrize(
    "key", ["short-secret", "secret " * 7, f" {'secret' * 7}", f"{'secret' * 7}\n", "local-secret"]
)
def test_a_key_that_cannot_be_one_is_refused_before_training_and_never_quoted(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(UserError, match=r"^the variable WANDB_API_KEY of the environment: API key") as caught:
        check_trackers(make_job(trackers=["wandb"]))
    assert "secret" not in str(caught.value)
    check_trackers(make_job(trackers=["wandb"], wandb={"mode": "offline"}))  # which needs none
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(make_job(trackers=["wandb"]))


@pytest.mark.parametrize("key", ["a" * 40, "local-" + "b" * 40, "wandb_v1_" + "c" * 77, "aa.b-b.cc"])
def test_a_key_of_any_form_that_wandb_knows_is_taken(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    check_trackers(make_job(trackers=["wandb"]))


# -- what is logged ---------------------------------------------------------------------------------------------


def track(job: Job, run: RunFolder) -> None:
    """Two epochs of a run, the second of them twice, as after a crash."""
    accelerator = Accelerator(cpu=True, log_with=job.trackers, project_dir=str(run.path))
    tracking = Tracking(accelerator, job, run, RunAbout("abc123", "queue", "replicates"))
    for epoch, accuracy in ((1, 50.0), (2, 75.0), (2, 75.0)):
        tracking.log_epoch(measured(epoch, accuracy))
        tracking.summarize([*measured(1, 50.0), *measured(2, 75.0)][: 2 * epoch], accuracy, epoch)
    accelerator.end_training()


def measured(epoch: int, accuracy: float) -> list[PerformanceRow]:
    scores = {"loss": 1.0 / epoch, "acc1": accuracy, "acc5": 100.0}
    return [PerformanceRow(epoch, split, scores, 0.1, 10.0, 1.0) for split in ("train", "val")]


def test_tensorboard_gets_every_metric_over_epochs_and_the_job(run: RunFolder, make_job: MakeJob) -> None:
    job = make_job(trackers=["tensorboard"], class_subset=[3, 1], optimizer_args={"lr": 0.125})
    track(job, run)
    (folder,) = {path.parent for path in run.path.rglob("events.out.tfevents*") if path.parent.parent == run.path}
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/acc1")] == [(1, 50), (2, 75)]
    assert "0.125" in next(folder.rglob("hparams.yml")).read_text()


def test_wandb_runs_offline_in_the_run_folder_and_writes_no_secret(
    run: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "accel_trainer")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    track(make_job(trackers=["wandb"], description="a marked description", wandb={"mode": "offline"}), run)
    (stored,) = run.path.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 30
    while b"best/acc1" not in stored.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.01)  # another process writes it
    for expected in (b"a marked description", b"squeezenet1_1", b"abc123", b"val/acc1", b"best/acc1"):
        assert expected in stored.read_bytes()
    written = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert SECRET.encode() not in written
    assert SECRET not in caplog.text
    assert f"wandb sync {run.path / 'wandb'}" in caplog.text


@pytest.mark.parametrize(("mode", "resume"), [("online", "allow"), ("offline", None)])
def test_a_run_on_wandb_has_one_identity_over_all_attempts(
    run: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, mode: str, resume: str | None
) -> None:
    """With what wandb is started; the server itself is not there."""
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(
        Accelerator, "init_trackers", lambda *_, init_kwargs, **__: started.append(init_kwargs["wandb"])
    )
    settings = {"entity": "lab", "tags": ["a"], "mode": mode}
    for group in (None, "own"):
        job = make_job(trackers=["wandb"], wandb={**settings, "group": group}, description="why")
        Tracking(Accelerator(cpu=True), job, run, RunAbout("abc123", "queue", "replicates")).wait()
    for given, group in zip(started, ("replicates", "own"), strict=True):
        assert (given["id"], given["mode"], given["resume"]) == ("abc123", mode, resume)
        assert (given["entity"], given["tags"], given["notes"], given["group"]) == ("lab", ["a"], "why", group)


def attempt(run: RunFolder, job: Job, history: list[PerformanceRow], epochs: dict[int, float]) -> Path:
    """Another attempt at a run, which had this history and trains these epochs; wandb's file of it."""
    before = set(run.path.glob("wandb/offline-run-*/*.wandb"))
    accelerator = Accelerator(cpu=True, log_with=job.trackers, project_dir=str(run.path))
    tracking = Tracking(accelerator, job, run, RunAbout("a-job-1f", "queue", "replicates", history))
    for epoch, accuracy in epochs.items():
        history = [*history, *measured(epoch, accuracy)]
        tracking.log_epoch(measured(epoch, accuracy))
        tracking.summarize(history, 75.0, 2)
    accelerator.end_training()
    wandb.teardown()
    (new,) = set(run.path.glob("wandb/offline-run-*/*.wandb")) - before
    time.sleep(max(0.0, 1.01 - (time.time() % 1)))  # wandb names folders by the second
    return new


def test_each_epoch_is_on_wandb_once_over_all_attempts_and_the_summary_is_of_all(
    run: RunFolder, make_job: MakeJob
) -> None:
    """As wandb's own reader has it. The state of epoch 2 was not saved, and of epoch 3 wandb had written nothing."""
    job = make_job(trackers=["wandb"], wandb={"mode": "offline"})
    first = attempt(run, job, [], {1: 50.0, 2: 75.0})
    second = attempt(run, job, measured(1, 50.0), {2: 75.0, 3: 60.0})
    found = {path: records_of_wandb(path) for path in (first, second)}
    epochs = [[r["history"]["item"]["epoch"] for r in found[path] if r["type"] == "history"] for path in found]
    assert epochs == [[1, 2], [3]]
    content = second.read_bytes()
    second.write_bytes(
        content[: content.index(b"val/acc1", content.index(b"_runtime"))]
    )  # within the first record of epoch 3
    assert logged_rows(run.path / "wandb", "a-job-1f") == {(Kind.EPOCH, 1), (Kind.EPOCH, 2)}
    history = [*measured(1, 50.0), *measured(2, 75.0), *measured(3, 60.0)]
    third = records_of_wandb(attempt(run, job, history, {4: 55.0}))
    logged = [record["history"]["item"] for record in third if record["type"] == "history"]
    assert [(row["epoch"], row["val/acc1"]) for row in logged] == [(3, 60.0), (4, 55.0)]
    summary: dict[str, Any] = {}
    for record in third:
        summary |= record["summary"]["update"] if record["type"] == "summary" else {}
    assert summary["val/acc1"] == {"max": 75.0, "last": 55.0}
    assert summary["train/loss"] == {"min": 0.25, "last": 0.25}
    assert (summary["best/acc1"], summary["best/epoch"], summary["seconds"]) == (75.0, 2, 8.0)
    (metric,) = [r["metric"] for r in third if r["type"] == "metric" and r["metric"]["name"] == "val/loss"]
    assert (metric["step_metric"], metric["summary"]) == ("epoch", {"min": True, "last": True})


def step_row(step: int) -> StepRow:
    return StepRow(step, {"loss": 1.0 / step, "acc1": float(step)}, 0.1)


def attempt_of_steps(run: RunFolder, job: Job, kept: list[int], steps: list[int]) -> None:
    """Another attempt at a run, whose state has the rows of some steps, and which takes others."""
    accelerator = Accelerator(cpu=True, log_with=job.trackers, project_dir=str(run.path))
    about = RunAbout("a-job-1f", history=measured(1, 50.0), steps=[step_row(step) for step in kept])
    tracking = Tracking(accelerator, job, run, about)
    for step in steps:
        tracking.log_step(step_row(step))
        tracking.check()
    tracking.close()
    accelerator.end_training()
    wandb.teardown()
    time.sleep(max(0.0, 1.01 - (time.time() % 1)))  # wandb names folders by the second


def test_each_step_is_told_once_over_all_attempts_and_over_steps(run: RunFolder, make_job: MakeJob) -> None:
    """Of step 15 the first attempt has not saved a state, and of step 20 the second one's trackers have lost all."""
    job = make_job(trackers=["wandb", "tensorboard"], wandb={"mode": "offline"}, log_every_steps=5)
    attempt_of_steps(run, job, [], [5, 10, 15])
    attempt_of_steps(run, job, [5, 10], [15, 20])
    newest = max(run.path.glob("wandb/offline-run-*/*.wandb"))
    content = newest.read_bytes()
    newest.write_bytes(content[: content.index(b"steps/loss", content.index(b"_runtime"))])
    events = max(run.path.glob("accel-train/events.out.tfevents*"), key=lambda path: path.stat().st_mtime)
    events.unlink()
    attempt_of_steps(run, job, [5, 10, 15, 20], [25])
    files = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    records = [record for file in (files[0], files[2]) for record in records_of_wandb(file)]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    of_steps = [row for row in rows if "steps/loss" in row]
    assert [(row["step"], row["steps/acc1"]) for row in of_steps] == [(n, float(n)) for n in (5, 10, 15, 20, 25)]
    assert [row["epoch"] for row in rows if "epoch" in row] == [1]
    metrics = {record["metric"]["name"]: record["metric"] for record in records if record["type"] == "metric"}
    assert {metrics[f"steps/{name}"]["step_metric"] for name in ("loss", "acc1", "lr")} == {"step"}
    assert metrics["val/acc1"]["step_metric"] == "epoch"
    found = EventAccumulator(str(run.path / "accel-train")).Reload()
    assert [event.step for event in found.Scalars("steps/loss")] == [5, 10, 15, 20, 25]
    assert [event.step for event in found.Scalars("val/acc1")] == [1]


@pytest.mark.parametrize(("when", "axis"), [("epoch", "epoch"), (2, "step")])
def test_histograms_are_over_what_they_are_of(run: RunFolder, make_job: MakeJob, when: Any, axis: str) -> None:
    job = make_job(trackers=["wandb"], wandb={"mode": "offline", "histograms": when})
    accelerator = Accelerator(cpu=True, log_with=job.trackers, project_dir=str(run.path))
    tracking = Tracking(accelerator, job, run, RunAbout("a-job-3f"))
    for _ in range(2):  # as of an epoch that is repeated
        tracking.log_histograms(2, {"gradients/fc": np.histogram([1.0, 2.0], bins=64)})
        tracking.log_epoch(measured(2, 75.0))
    tracking.close()
    accelerator.end_training()
    wandb.teardown()
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    rows = [record["history"]["item"] for record in records_of_wandb(file) if record["type"] == "history"]
    (row,) = [row for row in rows if "gradients/fc._type" in row]
    assert row[axis] == 2
    assert row["gradients/fc._type"] == "histogram"
    assert ("val/acc1" in row) == (axis == "epoch")


class CodeRun:
    """What is given to wandb's `log_code`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def log_code(self, root: str, name: str, include_fn: Callable[[str], bool]) -> None:
        self.name = name
        for path in Path(root).rglob("*"):
            if path.is_file() and include_fn(str(path)):
                self.files[str(path.relative_to(root))] = path.read_bytes()


@pytest.mark.usefixtures("tiny_models")
def test_code_that_is_saved_is_the_model_the_job_and_what_is_not_committed(
    run: RunFolder, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    Path("notes.txt").write_text("committed\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    Path("notes.txt").write_text("changed\n")
    run.config.write_text("{}")
    found = CodeRun()
    log_code(found, make_job(architecture="tiny_models:NormAndDropout"), run, "a-job-4f")  # type: ignore[arg-type]
    assert found.name == "a-job-4f-code"
    assert sorted(found.files) == ["config.json", "diff.patch", "tiny_models.py"]
    assert b"+changed" in found.files["diff.patch"]
    assert b"class NormAndDropout" in found.files["tiny_models.py"]


@pytest.mark.parametrize("wanted", [True, False])
def test_code_is_logged_only_where_the_job_wants_it(
    run: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setattr("accel_trainer.training.wandb_code._uncommitted", lambda: b"a change")
    job = make_job(trackers=["wandb"], wandb={"mode": "offline", "save_code": wanted})
    records = records_of_wandb(attempt(run, job, [], {1: 50.0}))
    found = [record["artifact"] for record in records if record["type"] == "artifact"]
    assert [(one["name"], one["type"]) for one in found] == [("a-job-1f-code", "code")][: int(wanted)]


def test_degraded_images_are_series_over_epochs_and_a_table_once_each(run: RunFolder, make_job: MakeJob) -> None:
    job = make_job(trackers=["wandb"], wandb={"mode": "offline"})
    found = [ConditionAccuracy("blur", level, share, 0.1, 0.9, 10) for level, share in (("0", 0.75), ("4", 0.25))]
    rows: list[dict[str, Any]] = []
    for _ in range(2):  # the second attempt was ended before it had noted that all was told
        accelerator = Accelerator(cpu=True, log_with=job.trackers, project_dir=str(run.path))
        tracking = Tracking(accelerator, job, run, RunAbout("a-job-2f", history=measured(1, 50.0)))
        tracking.log_degraded(1, found)
        tracking.log_degraded_best(found, 1, run.path / "nowhere.png")
        accelerator.end_training()
        wandb.teardown()
        time.sleep(max(0.0, 1.01 - (time.time() % 1)))
    records = [r for file in sorted(run.path.glob("wandb/offline-run-*/*.wandb")) for r in records_of_wandb(file)]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    values = [row for row in rows if "degraded/blur" in row]
    assert [(row["epoch"], row["degraded/blur"], row["degraded/blur/4"]) for row in values] == [(1, 50.0, 25.0)]
    assert len([row for row in rows if any(name.startswith("best/degraded") for name in row)]) == 1
    assert len(rows) == 3
    (metric, *_) = [r["metric"] for r in records if r["type"] == "metric" and r["metric"]["name"] == "degraded/blur"]
    assert metric["step_metric"] == "epoch"


def test_the_configuration_on_wandb_is_what_a_dashboard_filters_by(run: RunFolder, make_job: MakeJob) -> None:
    run.environment.write_text(json.dumps({"parameters": 17, "attempts": [{"host": "node", "git_commit": "abc"}]}))
    job = make_job(trackers=["wandb"], wandb={"mode": "offline", "job_type": "pilot"}, priority=3, retries=2, seed=4)
    records = records_of_wandb(attempt(run, job, [], {1: 50.0}))
    config: dict[str, Any] = {}
    for record in records:
        config |= record["config"]["update"] if record["type"] == "config" else {}
    assert (config["architecture"], config["seed"], config["parameters"]) == (job.architecture, 4, 17)
    assert (config["queue"], config["git"]["commit"], config["environment"]["host"]) == ("queue", "abc", "node")
    assert not {"priority", "retries", "trackers", "wandb", "model_dir", "num_workers"} & config.keys()
    (about,) = [record["run"] for record in records if record["type"] == "run"]
    assert (about["run_group"], about["job_type"]) == ("replicates", "pilot")


def test_runs_that_differ_in_the_seed_alone_are_one_group(make_job: MakeJob) -> None:
    groups = {replicates(make_job(seed=seed, retries=seed, name=f"job-{seed}")) for seed in range(3)}
    assert len(groups) == 1
    assert replicates(make_job(batch_size=7)) not in groups
    assert replicates(make_job(num_epochs=7)) not in groups


def test_the_best_weights_are_an_artifact_where_the_job_wants_that(run: RunFolder, make_job: MakeJob) -> None:
    run.best_weights.parent.mkdir(exist_ok=True)
    run.best_weights.write_bytes(b"some weights")
    for wanted in (True, False):
        job = make_job(trackers=["wandb"], wandb={"mode": "offline", "artifact": wanted})
        accelerator = Accelerator(cpu=True, log_with=job.trackers, project_dir=str(run.path))
        tracking = Tracking(accelerator, job, run, RunAbout(f"id-{wanted}"))
        tracking.log_best_weights(12)
        tracking.mark_preempting()
        accelerator.end_training()
        wandb.teardown()
        (file,) = run.path.glob(f"wandb/offline-run-*-id-{wanted}/*.wandb")
        records = records_of_wandb(file)
        found = [record["artifact"] for record in records if record["type"] == "artifact"]
        assert [(one["name"], one["type"], sorted(one["aliases"])) for one in found] == [
            (f"id-{wanted}-weights", "model", ["best", "epoch-12", "latest"])
        ][: int(wanted)]
        assert any(record["type"] == "preempting" for record in records)


# -- trackers that are gone ---------------------------------------------------------------------------------------


class Tracker:
    """One that fails, or hangs, when it is told to do something."""

    name = "moody"

    def __init__(self, moods: Mapping[str, Callable[[], None]]) -> None:
        self.moods, self.told = moods, list[str]()

    def __getattr__(self, what: str) -> Callable[..., None]:
        def tell(*_: Any, **__: Any) -> None:
            self.told.append(what)
            self.moods.get(what, lambda: None)()

        return tell


def gone() -> None:
    raise ConnectionResetError("Connection lost")


def hang() -> None:
    time.sleep(60)


def tracked(
    monkeypatch: pytest.MonkeyPatch, run: RunFolder, job: Job, *trackers: Tracker
) -> tuple[Accelerator, Tracking]:
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(accelerator, "init_trackers", lambda *_, **__: accelerator.trackers.extend(trackers))
    return accelerator, Tracking(accelerator, job, run, RunAbout("id"))


ROWS = [PerformanceRow(1, "train", {"loss": 1.0}, lr=0.1, images_per_s=10.0, seconds=1.0)]
LEFT = "moody is gone (Connection lost); its log ends here, performance.csv has everything"


@pytest.mark.parametrize("failing", ["store_init_configuration", "log", "finish"])
def test_a_tracker_that_fails_is_left_out_and_the_training_goes_on(
    run: RunFolder,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    moody, steady = Tracker({failing: gone}), Tracker({})
    accelerator, tracking = tracked(monkeypatch, run, make_job(), moody, steady)
    for epoch in (1, 2):
        tracking.log_epoch([replace(row, epoch=epoch) for row in ROWS])
        tracking.summarize(ROWS, 1.0, 1)
    end_trackers(accelerator)
    assert steady.told == ["store_init_configuration", "log", "log", "finish"]
    assert moody.told == steady.told[: steady.told.index(failing) + 1]
    assert caplog.messages == [LEFT]


def test_a_tracker_that_hangs_in_the_end_is_left_behind(
    run: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("accel_trainer.training.tracker_calls.CALL_S", 0.1)
    accelerator, tracking = tracked(monkeypatch, run, make_job(), Tracker({"finish": hang}))
    tracking.wait()
    end_trackers(accelerator)
    assert caplog.messages == [LEFT.replace("Connection lost", "no answer within 0s")]


@pytest.mark.parametrize(
    ("trackers", "longest_s", "why"),
    [([], 0.1, "no answer within 0s"), (["wandb"], 1e6, "wandb's process has ended while it started")],
)
def test_trackers_that_hang_while_they_start_are_done_without(
    run: RunFolder,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trackers: list[str],
    longest_s: float,
    why: str,
) -> None:
    """wandb does when the process that it has started is killed in a certain moment; there is none here at all."""
    monkeypatch.setattr("accel_trainer.training.tracking.START_S", longest_s)
    monkeypatch.setattr("accel_trainer.training.tracking.POLL_S", 0.01)
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(accelerator, "init_trackers", lambda *_, **__: hang())
    job = make_job(trackers=trackers, wandb={"mode": "offline"})
    tracking = Tracking(accelerator, job, run, RunAbout("id"))
    tracking.log_epoch(ROWS)
    end_trackers(accelerator)
    assert caplog.messages == [f"the trackers cannot be started ({why}); performance.csv has everything"]


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.2, 0.25])
def test_training_continues_when_the_wandb_process_is_killed_at_its_start(
    run: RunFolder, make_job: MakeJob, caplog: pytest.LogCaptureFixture, after_s: float
) -> None:
    before = children()
    job = make_job(trackers=["wandb"], wandb={"mode": "offline"})
    accelerator = Accelerator(cpu=True, log_with=job.trackers, project_dir=run.path)
    tracking = Tracking(accelerator, job, run, RunAbout("id"))
    core = wait_until(lambda: [pid for pid in children() - before if psutil.Process(pid).name() == "wandb-core"])[0]
    time.sleep(after_s)
    os.kill(core, signal.SIGKILL)
    began = time.monotonic()
    tracking.log_epoch(ROWS)
    assert time.monotonic() - began < 30, "not as long as it would wait for one that is slow"
    end_trackers(accelerator)
    assert "the trackers cannot be started (" in caplog.text or "wandb is gone (" in caplog.text
    wait_until(lambda: children() == before, 10)
    with suppress(Exception):  # it says once more that its process is gone
        wandb.teardown()


def test_nobody_waits_for_trackers_before_there_is_something_to_log(
    run: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator, steady, may_start = Accelerator(cpu=True), Tracker({}), threading.Event()

    def start(*_: Any, **__: Any) -> None:
        may_start.wait()
        accelerator.trackers.append(steady)

    monkeypatch.setattr(accelerator, "init_trackers", start)
    tracking = Tracking(accelerator, make_job(), run, RunAbout("id"))
    tracking.check()
    assert not accelerator.trackers
    may_start.set()
    tracking.log_epoch(ROWS)
    assert steady.told == ["store_init_configuration", "log"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("what?"), SystemExit(1)])
def test_a_tracker_that_cannot_start_is_done_without(
    run: RunFolder,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    accelerator = Accelerator(cpu=True)

    def start(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(accelerator, "init_trackers", start)
    tracking = Tracking(accelerator, make_job(), run, RunAbout("id"))
    tracking.wait()
    tracking.log_epoch(ROWS)
    (message,) = caplog.messages
    assert message.startswith("the trackers cannot be started (")


def test_a_broken_tracker_is_reported_during_the_first_steps(
    run: RunFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = Accelerator(cpu=True)

    def start(*_: Any, **__: Any) -> None:
        raise ValueError("no API key")

    monkeypatch.setattr(accelerator, "init_trackers", start)
    tracking = Tracking(accelerator, make_job(), run, RunAbout("id"))

    def steps() -> None:
        while True:
            tracking.check()

    with pytest.raises(ValueError, match="no API key"):
        steps()
    tracking.wait()  # said once
