"""Who is told what becomes of a queue, and that no job waits for it."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import wait_until

from accel_trainer.core.errors import UserError
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue import notifier
from accel_trainer.queue.events import (
    ClaimFinished,
    Event,
    JobRejected,
    NotificationFailed,
    SlurmJobOver,
    WaitingForJobs,
)
from accel_trainer.queue.finish import FinishedClaim
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.notifier import Notifier, target_of

QUEUE, LOG = Path("queue"), Path("logs/a.1.log")


def finished(kind: OutcomeKind, state: JobState | None, reason: str | None = None) -> ClaimFinished:
    return ClaimFinished("a", FinishedClaim(Outcome(kind, reason), state), LOG)


DONE = finished(OutcomeKind.DONE, JobState.DONE)
FAILED = finished(OutcomeKind.FAILED, JobState.FAILED, "the loss is not finite\nat step 3")


class Server:
    """A local HTTP server: what was posted to it, and what it answers."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.code = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/json"
                outer.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(outer.code)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/secret?key=secret"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.close()


def told(target: str, *events: Event) -> list[Event]:
    """Have some events told; all that is emitted."""
    emitted: list[Event] = []
    notify = Notifier([target_of(target)], QUEUE, emitted.append)
    for event in events:
        notify(event)
    notify.close()
    return emitted


def test_a_url_is_posted_each_end_of_a_job_and_that_the_queue_is_empty(server: Server) -> None:
    rejected = JobRejected(QueuedJob("b", Path("b.json"), JobState.PENDING), "b.json: wrong")
    told(
        server.url,
        DONE,
        FAILED,
        rejected,
        finished(OutcomeKind.CANCELED, JobState.FAILED, "canceled by me"),
        finished(OutcomeKind.INTERRUPTED, JobState.PENDING),
        finished(OutcomeKind.FAILED, JobState.PENDING, "tried again"),
        SlurmJobOver("c", JobState.DONE, None),
        SlurmJobOver("d", None, None),
        WaitingForJobs(),
        WaitingForJobs(),
    )
    queue = str(QUEUE.absolute())
    assert [(fact["event"], fact["job"], fact["reason"]) for fact in server.posted] == [
        ("done", "a", None),
        ("failed", "a", "the loss is not finite"),
        ("failed", "b", "b.json: wrong"),
        ("canceled", "a", "canceled by me"),
        ("done", "c", None),
        ("empty", None, None),
    ]
    assert server.posted[1]["text"] == "a: failed: the loss is not finite"
    assert (server.posted[0]["log"], server.posted[0]["queue"]) == (str(LOG), queue)


def test_a_command_gets_the_facts_on_standard_input_and_in_its_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "of another run")
    script = tmp_path / "tell.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "names = ('ACCEL_TRAIN_EVENT', 'ACCEL_TRAIN_JOB', 'ACCEL_TRAIN_REASON', 'WANDB_RUN_ID')\n"
        "facts = {name: os.environ.get(name) for name in names}\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps([json.load(sys.stdin), facts]))\n"
    )
    emitted = told(f"{sys.executable} {script} '{tmp_path}/the facts'", FAILED)
    assert emitted == [FAILED]
    facts, environment = json.loads((tmp_path / "the facts").read_text())
    assert (facts["event"], facts["job"]) == ("failed", "a")
    assert list(environment.values()) == ["failed", "a", "the loss is not finite", None]


def test_a_target_that_fails_is_one_warning_without_its_secrets_until_it_works_again(server: Server) -> None:
    emitted: list[Event] = []
    notify = Notifier([target_of(server.url)], QUEUE, emitted.append)
    for code in (500, 500, 200, 404):
        server.code = code
        before = len(server.posted)
        notify(DONE)
        wait_until(lambda before=before: len(server.posted) > before, 20)
        notify.close()
    warnings = [event for event in emitted if isinstance(event, NotificationFailed)]
    assert [warning.problem for warning in warnings] == ["answers 500 Internal Server Error", "answers 404 Not Found"]
    assert all("secret" not in warning.target for warning in warnings)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (f"{sys.executable} -c 'import sys; sys.exit(\"no room\")'", "exit code 1: no room"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "has not ended in 0 seconds"),
        ("http://127.0.0.1:9/", "Connection refused"),
    ],
)
def test_what_goes_wrong_is_said(target: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    if "0 seconds" in problem:
        monkeypatch.setattr(notifier, "LIMIT_S", 0.3)
    emitted: list[Event] = []
    Notifier([target_of(target)], QUEUE, emitted.append)(DONE)
    failed = wait_until(lambda: [event for event in emitted if isinstance(event, NotificationFailed)], 20)
    assert problem in failed[0].problem


def test_nobody_waits_for_who_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "LIMIT_S", 0.5)
    notify = Notifier([target_of("sleep 60")], QUEUE, lambda event: None)
    began = time.monotonic()
    for _ in range(3):
        notify(DONE)
    assert time.monotonic() - began < 0.3
    notify.close()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no-such-program --now", "'no-such-program' is no program that can be run, and no URL"),
        ("say 'so", "No closing quotation"),
        ("  ", "is no program"),
        ("https://", "names no host"),
    ],
)
def test_what_can_tell_nobody_is_an_error_before_anything_starts(target: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as raised:
        target_of(target)
    assert raised.value.details[0].option == "notify"


def test_a_service_needs_the_extra_and_is_told_by_apprise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"slack:// needs apprise.*accel-train\[notify\]"):
        target_of("slack://token/secret")
    sent: list[tuple[str, str]] = []

    class Apprise:
        def add(self, url: str) -> bool:
            return url.startswith("slack://")

        def notify(self, title: str, body: str) -> bool:
            sent.append((title, body))
            return True

    monkeypatch.setattr(notifier, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "apprise", type("Module", (), {"Apprise": Apprise}))
    with pytest.raises(UserError, match=r"does not know what slak://host is"):
        target_of("slak://user:secret@host/secret")
    told("slack://token/secret", DONE)
    assert sent == [("accel-train", "a: done")]


def test_a_queue_without_targets_starts_no_thread() -> None:
    before = threading.active_count()
    emitted: list[Event] = []
    notify = Notifier([], QUEUE, emitted.append)
    notify(DONE)
    notify.tell_empty(0)
    notify.close()
    assert (emitted, threading.active_count()) == ([DONE], before)
