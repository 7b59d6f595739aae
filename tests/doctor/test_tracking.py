"""Whether somebody is logged in to Weights & Biases, and whether the server answers; no key is ever shown."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.fork_server import ForkServer

from accel_trainer.core.processes import Program
from accel_trainer.doctor import software
from accel_trainer.doctor.findings import Grade, Probe

KEY = "0123456789abcdef0123456789abcdef01234567"
ONLINE = {"mode": "online", "server": "https://api.wandb.ai"}
OFFLINE = {"mode": "offline", "server": "https://api.wandb.ai"}


def asked() -> dict[str, str]:
    with Probe(Program.PROBE_WANDB.command()) as probe:
        return dict(software.probe_wandb(probe))


Ask = Callable[[], dict[str, str]]


@pytest.fixture
def ask(server: ForkServer, tmp_path: Path) -> Ask:
    """As `asked`, of a process that need not import torch."""
    script = "import json; from accel_trainer.workers.probe_wandb import probe_wandb; print(json.dumps(probe_wandb()))"

    def told() -> dict[str, str]:
        log = tmp_path / "told"
        assert server.script(script, [], log, processes=1) == [0], log.read_text()
        return dict(json.loads(log.read_text().splitlines()[-1]))

    return told


# -- login ------------------------------------------------------------------------------------------------------------


def test_without_a_login_wandb_is_offline_and_that_is_a_warning() -> None:
    told = asked()
    assert told["mode"] == "offline"
    finding = software.wandb_login(told)
    assert finding.grade is Grade.WARNING
    assert "not logged in" in finding.message
    assert software.wandb_server(told).grade is Grade.OK, "it is not asked"


@pytest.mark.parametrize("place", ["environment", "netrc"])
def test_somebody_is_logged_in_and_the_key_is_not_shown(ask: Ask, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    if place == "environment":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    else:
        netrc = Path("~/.netrc").expanduser()
        netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
        netrc.chmod(0o600)
    told = ask()
    assert told["mode"] == "online"
    finding = software.wandb_login(told)
    assert finding.grade is Grade.OK
    assert KEY not in finding.message + json.dumps(told)
    assert ("WANDB_API_KEY" in finding.message) == (place == "environment")


def test_a_mode_that_is_set_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    finding = software.wandb_login(OFFLINE)
    assert (finding.grade, finding.message) == (Grade.OK, "offline, as WANDB_MODE says")


@pytest.mark.parametrize(
    ("variable", "value"), [("WANDB_MODE", "onlin"), ("WANDB_BASE_URL", f"https//user:{KEY}@host")]
)
def test_settings_that_wandb_refuses_are_named_and_not_quoted(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv(variable, value)
    told = ask()
    finding = software.wandb_login(told)
    assert finding.grade is Grade.PROBLEM
    assert variable in finding.message
    assert KEY not in finding.message + str(finding.fix) + json.dumps(told)


def test_a_key_that_wandb_refuses_is_not_quoted(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", f" {KEY} ")
    told = ask()
    finding = software.wandb_login(told)
    assert KEY not in finding.message + str(finding.fix) + json.dumps(told)


def test_a_wandb_that_cannot_be_imported_is_a_problem(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(own_environment))
    Path("wandb.py").write_text("raise ImportError('no protobuf')")
    finding = software.wandb_login(asked())
    assert finding.grade is Grade.PROBLEM
    assert "wandb cannot be imported" in finding.message


# -- server -----------------------------------------------------------------------------------------------------------


class NotFound(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_any_answer_of_a_server_counts_as_reachable(answering: str) -> None:
    finding = software.wandb_server({**ONLINE, "server": answering.replace("//", f"//user:{KEY}@")})
    assert finding.grade is Grade.OK
    assert finding.message == f"{answering.removeprefix('http://')} answers"


def test_a_server_that_is_not_there_is_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    finding = software.wandb_server({**ONLINE, "server": f"http://user:{KEY}@127.0.0.1:{port}"})
    assert finding.grade is Grade.WARNING
    assert finding.message == f"127.0.0.1:{port} does not answer: Connection refused"


def test_a_silent_server_is_not_waited_for_long(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "SERVER_LIMIT_S", 1.0)
    began = time.monotonic()
    finding = software.wandb_server({**ONLINE, "server": silent})
    assert time.monotonic() - began < 10
    assert finding.grade is Grade.WARNING
    assert finding.message.endswith("does not answer: no answer within 1 s")


def test_a_name_that_nobody_knows_is_a_line() -> None:
    finding = software.wandb_server({**ONLINE, "server": "https://no-such-server.invalid"})
    assert finding.grade is Grade.WARNING
    assert "no-such-server.invalid does not answer: " in finding.message
    assert "\n" not in finding.message
