"""The verbs that change what becomes of jobs, on the files of a queue and with a real runner."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import COMMAND, REPOSITORY, as_another_machine, dead_token, wait_until, write_job
from typer.testing import CliRunner, Result

from accel_trainer.cli import app, change_jobs
from accel_trainer.core import lease
from accel_trainer.core.errors import UserError
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.launch import process_group
from accel_trainer.queue import heartbeat
from accel_trainer.queue.control import ControlAction, ControlRequest, Pauses, Requests
from accel_trainer.queue.layout import ClaimedJob, Ending, JobState, QueuedJob
from accel_trainer.queue.reclaim import OwnerState, Reclaimer
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.status_table import status_rows
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import submission_of
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import acquire
from accel_trainer.run.status import RunState, Status, write_status


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def states(queue: QueueStore) -> dict[str, str]:
    return {name: state.value for name, state in queue.states().items()}


def claimed(queue: QueueStore, name: str) -> QueuedJob:
    write_job(queue.folder / f"{name}.json")
    job = queue.claim(queue.find(name))
    assert job is not None
    return job


def test_what_is_held_is_pending_again_when_it_is_released(queue: QueueStore) -> None:
    write_job(queue.folder / "a.json")
    assert run("hold", "a").output == "a: held\n"
    assert states(queue) == {"a": "held"}
    assert run("release", "a.json").output == "a: pending\n"
    assert states(queue) == {"a": "pending"}


def test_a_wrong_name_gets_the_nearest_suggested_and_others_still_succeed(queue: QueueStore) -> None:
    write_job(queue.folder / "first.json")
    result = run("hold", "frist", "first")
    assert result.exit_code == 2
    assert "error: frist: no job of this name is in training_queue; did you mean 'first'?" in result.stderr
    assert states(queue) == {"first": "held"}


@pytest.mark.parametrize(
    ("verb", "where", "told"),
    [
        ("hold", "done", "a is done; only what is pending or running can be held"),
        ("release", "", "a is pending, not held"),
        ("cancel", "failed", "a is failed already"),
        ("retry", "done", "a is done; only what has failed can be tried again"),
    ],
)
def test_what_makes_no_sense_is_refused(queue: QueueStore, verb: str, where: str, told: str) -> None:
    write_job(queue.folder / where / "a.json")
    result = run(verb, "a")
    assert (result.exit_code, result.stderr) == (2, f"error: {told}\n")


def test_retry_returns_a_canceled_job_to_pending_with_retries_reset(queue: QueueStore) -> None:
    write_job(queue.folder / "a.json", retries=3)
    Retries(queue).add(queue.find("a"), 1, "why")
    assert run("cancel", "a").output == "a: canceled\n"
    assert states(queue) == {"a": "failed"}
    assert queue.reason(queue.find("a")).startswith("canceled by ")
    assert list(queue.paths.retries.iterdir()) == []
    assert run("retry", "a").output == "a: pending\n"
    assert states(queue) == {"a": "pending"}
    assert list(queue.paths.of(JobState.FAILED).iterdir()) == []


def test_whether_a_job_was_canceled_is_recorded_and_not_read_from_the_reason(queue: QueueStore) -> None:
    for name in ("failed", "unwanted", "old"):
        write_job(queue.folder / f"{name}.json")
    queue.finish(queue.find("failed"), JobState.FAILED, "canceled by peer: connection reset")
    queue.finish(queue.find("old"), JobState.FAILED, "canceled by me@here")
    (queue.folder / "failed/old.outcome.txt").unlink()  # as version 0.2 left it
    assert run("cancel", "unwanted").exit_code == 0
    (queue.folder / "failed/unwanted.reason.txt").write_text("no longer needed\n")
    endings = {"failed": "failed", "old": "canceled", "unwanted": "canceled"}
    assert {row["job"]: row["state"] for row in json.loads(run("status", "--json").output)} == endings
    assert run("move", "unwanted", "--to", "elsewhere").exit_code == 0
    moved = QueueStore(Path("elsewhere"))
    assert moved.ending(moved.find("unwanted")) is Ending.CANCELED
    assert run("retry", "unwanted", "--queue", "elsewhere").exit_code == 0
    assert not list(Path("elsewhere/failed").iterdir()), "no note outlives its job"
    assert run("retry", "--failed").output == "failed: pending\n"


def test_what_was_canceled_is_not_shown_or_retried_as_failed(queue: QueueStore) -> None:
    for name in ("bad", "unwanted"):
        write_job(queue.folder / f"{name}.json")
    queue.finish(queue.find("bad"), JobState.FAILED, "the loss is not finite")
    run("cancel", "unwanted")
    shown = {row.job: (row.state, row.note) for row in status_rows(queue)}
    assert shown["bad"] == ("failed", "the loss is not finite")
    assert shown["unwanted"][0] == "canceled"
    assert re.search(r"unwanted +canceled", run("status").output)
    assert run("retry", "--failed").output == "bad: pending\n"
    assert states(queue) == {"bad": "pending", "unwanted": "failed"}
    assert run("retry", "--failed").output == "no job has failed in training_queue\n"


def test_a_job_that_was_interrupted_shows_how_far_it_came(queue: QueueStore) -> None:
    write_job(queue.folder / "a.json", model_dir="models/a", num_epochs=9)
    write_job(queue.folder / "b.json", model_dir="models/b", num_epochs=9)
    for name, submission in (("a", submission_of(queue.folder / "a.json")), ("b", "of another job")):
        folder = RunFolder(Path("models", name))
        folder.create()
        status = Status(state=RunState.PREEMPTED, submission=submission, epoch=4, num_epochs=9, best=50.0)
        write_status(folder, status)
    assert {row.job: (row.epoch, row.num_epochs) for row in status_rows(queue)} == {"a": (4, 9), "b": (None, None)}


def test_all_that_have_failed_are_tried_again_under_their_own_names(queue: QueueStore) -> None:
    for name in ("a", "b~2"):
        write_job(queue.folder / "failed" / f"{name}.json")
        (queue.folder / "failed" / f"{name}.reason.txt").write_text("why")
    assert run("retry", "--failed").exit_code == 0
    assert states(queue) == {"a": "pending", "b": "pending"}
    assert "no job has failed" in run("retry", "--failed").output
    assert run("retry").exit_code != 0


def test_what_is_removed_is_gone_with_its_reason(queue: QueueStore) -> None:
    write_job(queue.folder / "failed/a.json")
    (queue.folder / "failed/a.reason.txt").write_text("why")
    assert run("rm", "a").output == "a: removed\n"
    assert states(queue) == {}
    assert list((queue.folder / "failed").iterdir()) == []


def test_a_job_moves_to_another_queue_with_its_reason_and_time(queue: QueueStore) -> None:
    path = write_job(queue.folder / "failed/a.json")
    (queue.folder / "failed/a.reason.txt").write_text("why\n")
    before, content = path.stat().st_mtime_ns, path.read_bytes()
    assert run("move", "a", "--to", "other").output == "a: moved to other/failed/a.json\n"
    other = QueueStore(Path("other"))
    assert (states(queue), states(other)) == ({}, {"a": "failed"})
    moved = other.find("a")
    assert (moved.path.stat().st_mtime_ns, moved.path.read_bytes()) == (before, content)
    assert other.reason(moved) == "why"
    write_job(queue.folder / "failed/a.json")
    assert "a job of this name is failed in other" in run("move", "a", "--to", "other").stderr


def test_a_pause_has_a_reason_and_ends(queue: QueueStore) -> None:
    assert run("pause", "--host", "grey", "--reason", "the fans").exit_code == 0
    (pause,) = Pauses(queue).all()
    assert (pause.host, pause.reason) == ("grey", "the fans")
    assert Pauses(queue).of("rey") is None, "hosts are compared whole"
    assert run("resume", "--host", "rey").output == "nothing is paused\n"
    assert run("pause").exit_code == 0
    assert run("resume").output == "the queue on grey is resumed\nthe queue is resumed\n"
    assert Pauses(queue).all() == []
    assert run("pause", "--host", "../x").exit_code != 0


# -- jobs that are running ------------------------------------------------------------------------------------------


def test_the_owner_of_a_running_job_is_asked(queue: QueueStore) -> None:
    job = claimed(queue, "a")
    assert run("cancel", "--no-wait", "a").output == "a: is asked to stop, to be canceled\n"
    request = Requests(queue).of(job.owner.token)
    assert request is not None
    assert request.action is ControlAction.CANCEL
    assert request.outcome.reason == f"canceled by {request.by}"


def test_a_wait_for_an_owner_that_never_answers_is_reported(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed(queue, "a")
    monkeypatch.setattr(change_jobs, "LONGEST_S", 0.1)
    result = run("hold", "a")
    assert result.exit_code == 2
    assert "has not answered in 0s; it still may" in result.stderr


@pytest.mark.parametrize(
    ("wish", "state"), [(None, "pending"), (ControlAction.CANCEL, "failed"), (ControlAction.HOLD, "held")]
)
def test_of_a_dead_runner_is_done_what_was_asked_of_it(
    queue: QueueStore, wish: ControlAction | None, state: str
) -> None:
    owner = Owner(this_host(), dead_token())
    path = write_job(queue.folder / "running" / f"a@{owner.host}.{owner.token}.json")
    if wish is not None:
        Requests(queue).put(ClaimedJob("a", path, owner=owner), wish)
    assert "accel-train reclaim a" in run("cancel", "a").stderr if wish is None else True
    assert run("reclaim").output == "a: returned to pending; its runner is dead\n"
    assert states(queue) == {"a": state}
    assert not queue.paths.requests.exists() or list(queue.paths.requests.iterdir()) == []


@pytest.mark.parametrize("verb", ["hold", "cancel"])
@pytest.mark.parametrize(
    ("becomes", "says"),
    [
        ("held", {"hold": "a: held", "cancel": "a: canceled"}),
        ("canceled", {"hold": "a: was canceled before it could be held", "cancel": "a: canceled"}),
        ("pending", {"hold": "a: held", "cancel": "a: canceled"}),
        ("done", dict.fromkeys(("hold", "cancel"), "a: was done before it could be stopped")),
        ("failed", dict.fromkeys(("hold", "cancel"), "a: has failed before it could be stopped: ValueError: a bug")),
        ("gone", dict.fromkeys(("hold", "cancel"), "its file was removed, moved elsewhere or changed meanwhile")),
        ("another", dict.fromkeys(("hold", "cancel"), "its file was removed, moved elsewhere or changed meanwhile")),
    ],
)
def test_what_is_said_of_a_running_job_is_what_has_become_of_it(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch, verb: str, becomes: str, says: dict[str, str]
) -> None:
    job = claimed(queue, "a")

    def its_owner_acts(_: float) -> None:
        if not job.path.exists():
            return
        match becomes:
            case "held":
                queue.hold(job)
            case "canceled":
                queue.finish(job, JobState.FAILED, "canceled by somebody", Ending.CANCELED)
            case "pending":
                queue.release(job)
            case "done":
                queue.finish(job, JobState.DONE)
            case "failed":
                queue.finish(job, JobState.FAILED, "ValueError: a bug\nlog: a.txt")
            case "gone":
                job.path.unlink()
            case "another":
                write_job(queue.folder / "failed" / "a.json", num_epochs=7)
                job.path.unlink()

    monkeypatch.setattr(change_jobs.time, "sleep", its_owner_acts)
    result = run(verb, "a")
    assert says[verb] in result.output
    assert result.exit_code == (2 if becomes in ("gone", "another") else 0)


def test_reclaim_reports_that_it_waits_for_a_trainer(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "REST_S", 0.2)
    owner = Owner(this_host(), dead_token())
    write_job(queue.folder / "running" / f"a@{owner.host}.{owner.token}.json")
    with subprocess.Popen(["sleep", "60"], env={**os.environ, TOKEN_VARIABLE: owner.token}) as left:
        collecting = threading.Thread(target=left.wait)
        collecting.start()
        lines = run("reclaim").output.splitlines()
        collecting.join()
    assert len(lines) == 2
    assert "its trainer is still running" in lines[0]
    assert lines[1] == "a: returned to pending; its runner is dead"
    assert states(queue) == {"a": "pending"}


@pytest.mark.parametrize("name", ["a@grey.boot-1-2-x", "grey_gpu-0_job-1__a", "a"])
def test_a_runner_elsewhere_is_given_up_after_long_silence_only(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_job(queue.folder / "running" / f"{name}.json")
    result = run("reclaim")
    assert "its runner may be alive; its lease expires after 10m 00s: come again, or --wait" in result.output
    assert states(queue) == {"a": "running"}
    monkeypatch.setattr(lease, "STALE_S", 0.0)
    assert "a: returned to pending; nothing was heard of its runner on " in run("reclaim", "a").output
    assert states(queue) == {"a": "pending"}


def test_a_runner_elsewhere_that_gives_signs_of_life_is_left_alone(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    with monkeypatch.context() as there:
        as_another_machine(there, "elsewhere")
        pulse = heartbeat.HeartbeatWriter(queue, 1, print)
        job = claimed(queue, "a")
        pulse.begin(job.owner.token, ("0",))
    observer, name = heartbeat.HeartbeatObserver(queue), job.path.name
    assert observer.silence_s([job]) == {name: 0.0}
    now[0] += 590
    assert heartbeat.HeartbeatObserver(queue).silence_s([job]) == {name: 590.0}, "it is remembered"
    pulse.beat(at_once=True)
    assert observer.silence_s([job]) == {name: 0.0}
    now[0] += 601
    assert observer.silence_s([job])[name] > lease.STALE_S


def test_a_runner_that_cannot_write_signs_of_life_is_alive_while_it_touches_a_lock(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    write_job(queue.folder / "a.json", model_dir="run")
    folder = RunFolder(Path("run"))
    folder.create()
    with monkeypatch.context() as there:
        as_another_machine(there, "elsewhere")
        job = queue.claim(queue.find("a"))
        assert job is not None
        acquire(folder, job.owner, end_leftovers=print, say=print)
    observer, name = heartbeat.HeartbeatObserver(queue), job.path.name
    observer.silence_s([job])
    now[0] += 700
    assert observer.silence_s([job])[name] < 30
    now[0] += 20
    assert 20 <= observer.silence_s([job])[name] < 50, "it is not looked at all the time"
    (report,) = Reclaimer(queue, Retries(queue)).reports([job])
    assert report.state is OwnerState.UNKNOWN
    os.utime(folder.lock(1), (time.time() - 650,) * 2)
    now[0] += 20
    assert observer.silence_s([job])[name] == pytest.approx(650, abs=5)
    folder.lock(1).unlink()
    now[0] += 40
    assert observer.silence_s([job])[name] == 780, "it trains no more"
    Path("run").rename("away")
    Path("run").touch()
    now[0] += 40
    assert observer.silence_s([job])[name] == 820


@pytest.mark.parametrize("what", ["another user's", "written by all", "of the future", "of before the start"])
def test_only_what_this_user_has_seen_makes_a_claim_stale(queue: QueueStore, what: str) -> None:
    """Whoever may write to the queue could have a living runner's jobs taken away."""
    path = write_job(queue.folder / "running/a@grey.boot-1-2-x.json")
    job = ClaimedJob("a", path, owner=Owner("grey", "boot-1-2-x"))
    heartbeat.HeartbeatObserver(queue).silence_s([job])
    (notes,) = queue.paths.observed.iterdir()
    seen = {"of the future": time.monotonic() + 1e6, "of before the start": -1e6}.get(what, 0.0)
    notes.write_text(json.dumps({"boot": heartbeat.boot_id(), "seen": {path.name: [-1, seen]}}))
    if what not in ("another user's", "written by all"):
        assert heartbeat.HeartbeatObserver(queue).silence_s([job])[path.name] < 1.0
        return
    assert heartbeat.HeartbeatObserver(queue).silence_s([job])[path.name] == pytest.approx(time.monotonic(), abs=5)
    if what == "written by all":
        notes.chmod(0o666)
    elif os.geteuid() == 0:
        os.chown(notes, 1, 1)
    else:
        pytest.skip("only root can make a file another user's")
    assert heartbeat.HeartbeatObserver(queue).silence_s([job])[path.name] < 1.0


def test_what_was_seen_before_this_machine_was_started_counts_no_more(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_job(queue.folder / "running/a@grey.boot-1-2-x.json")
    job = ClaimedJob("a", path, owner=Owner("grey", "boot-1-2-x"))
    now = [1000.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    heartbeat.HeartbeatObserver(queue).silence_s([job])
    now[0] = 5000.0
    monkeypatch.setattr(heartbeat, "boot_id", lambda: "another")
    assert heartbeat.HeartbeatObserver(queue).silence_s([job]) == {path.name: 0.0}


def test_the_host_of_an_old_claim_is_compared_whole(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write_job(queue.folder / "running/grey_gpu-0_job-1__my_net_gpu-1.json")
    (job,) = queue.jobs(JobState.RUNNING)
    assert (job.name, job.owner) == ("my_net_gpu-1", Owner("grey", ""))
    for host in ("grey", "rey"):
        monkeypatch.setenv("ACCEL_TRAIN_HOST", host)
        assert not job.owner.is_dead(), "nothing is known of its process"


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked", "unplotted")
def test_a_running_job_is_canceled_and_another_held_and_both_go_on_later(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "tiny_models")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "tests"), os.environ["PYTHONPATH"]]))
    for name in ("a", "b"):
        resting = {"architecture": "tiny_models:Unhurried", "architecture_args": {"pause_s": 0.1}, "num_epochs": 400}
        write_job(queue.folder / f"{name}.json", **resting, class_subset=[0, 1], model_dir=f"models/{name}")
    runner = subprocess.Popen([*COMMAND, "run-queue", "--slots", "2"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: all(Path(f"models/{name}/performance.csv").exists() for name in ("a", "b")))
        verbs = [subprocess.Popen([*COMMAND, *words]) for words in (("cancel", "a"), ("hold", "b"))]
        assert [verb.wait(120) for verb in verbs] == [0, 0]
        assert states(queue) == {"a": "failed", "b": "held"}
        assert all(list(Path(f"models/{name}/resume").iterdir()) for name in ("a", "b")), "they can go on"
        assert runner.wait(60) == 0, "what was canceled has not failed"
    finally:
        if runner.poll() is None:
            runner.send_signal(signal.SIGKILL)
            runner.wait()


def test_a_request_to_stop_reports_what_becomes_of_the_job() -> None:
    kinds = {action: ControlRequest(action, "me@here").stop_reason.kind.name for action in ControlAction}
    assert kinds == {ControlAction.CANCEL: "CANCELED", ControlAction.HOLD: "INTERRUPTED"}


def test_the_control_verbs_need_a_queue_that_exists() -> None:
    result = run("pause", "--queue", "nowhere")
    assert isinstance(result.exception, UserError)
    assert "there is no queue in nowhere" in str(result.exception)


# -- jobs that others move at the same moment ------------------------------------------------------------------------


def test_a_job_that_is_moved_between_look_and_change_is_looked_for_again(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(queue.folder / "a.json")
    find = change_jobs.find_job

    def find_and_lose(*arguments: Any) -> QueuedJob:
        job = find(*arguments)
        if job.state is JobState.PENDING:
            queue.hold(job)
        return job

    monkeypatch.setattr(change_jobs, "find_job", find_and_lose)
    assert run("cancel", "a").output == "a: canceled\n"
    assert states(queue) == {"a": "failed"}


@pytest.mark.parametrize(
    ("verb", "place", "taken", "text"),
    [("hold", ".", "held", "held"), ("retry", "failed", ".", "pending")],
)
def test_who_gets_another_name_is_told(queue: QueueStore, verb: str, place: str, taken: str, text: str) -> None:
    write_job(queue.folder / place / "a.json", seed=1)
    write_job(queue.folder / taken / "a.json", seed=2)
    assert run(verb, "a").output == f"a: {text}, as 'a~2': another job has its name\n"


def test_a_job_returned_before_it_could_be_canceled_is_canceled_where_it_is(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner had read what is asked of it a moment before."""
    job = claimed(queue, "a")
    monkeypatch.setattr(change_jobs.time, "sleep", lambda seconds: queue.release(job))
    assert run("cancel", "a").output == "a: canceled\n"
    assert states(queue) == {"a": "failed"}


def test_reclaim_finishes_what_a_dead_process_was_moving(queue: QueueStore) -> None:
    path = write_job(queue.folder / "running" / f"a@{this_host()}.{dead_token()}-to-held.json")
    assert "is being moved to held, by a process that died" in str([row.note for row in status_rows(queue)])
    assert run("status").exit_code == 0
    assert not path.exists(), "any look does"
    assert states(queue) == {"a": "held"}


@pytest.mark.parametrize("verb", ["hold", "cancel"])
def test_a_queue_that_a_person_has_made_has_its_folders_when_they_are_needed(verb: str) -> None:
    write_job(Path("by_hand/a.json"))
    assert run(verb, "a", "--queue", "by_hand").exit_code == 0
