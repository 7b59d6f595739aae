"""`accel-train doctor`: a line for each check, exit codes, and nothing that stays behind, whatever ends it."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import typer
from helpers import file_names, wait_until

from accel_trainer.cli import doctor as verb
from accel_trainer.doctor import examination, storage
from accel_trainer.doctor.findings import Check, Finding, Grade, ok, problem, run_checks, warning
from accel_trainer.queue.store import QueueStore


def test_a_check_that_breaks_is_a_problem_and_the_next_one_is_made() -> None:
    def broken() -> Finding:
        raise ValueError("first line\nsecond line")

    lines = dict(run_checks([Check("one", broken), Check("two", lambda: ok("fine"))]))
    assert lines["one"].grade is Grade.PROBLEM
    assert lines["one"].message == "this check has failed: ValueError: first line"
    assert lines["two"] == ok("fine")


@pytest.mark.parametrize(
    ("findings", "summary", "code"),
    [
        ([ok("fine")], "all is well", 0),
        ([ok("fine"), warning("so so", "this")], "1 warning", 0),
        ([problem("bad", "that"), warning("so so", "this"), problem("\x1b[2Jworse\n", "that")], "2 problems", 1),
    ],
)
def test_lines_for_people_rows_for_programs_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[Finding],
    summary: str,
    code: int,
) -> None:
    def examined(queue: Path, *, deep: bool, other: Path | None) -> Iterator[tuple[str, Finding]]:
        for number, finding in enumerate(findings):
            yield f"check {number}", finding

    def said(as_json: bool) -> str:
        if code:
            with pytest.raises(typer.Exit) as ended:
                verb.doctor(Path("queue"), deep=False, as_json=as_json)
            assert ended.value.exit_code == code
        else:
            verb.doctor(Path("queue"), deep=False, as_json=as_json)
        return capsys.readouterr().out

    monkeypatch.setattr(examination, "examination", examined)
    *lines, last = said(as_json=False).splitlines()
    assert len(lines) == len(findings)
    assert last.startswith(summary)
    assert all(line.startswith(finding.grade.value) for line, finding in zip(lines, findings, strict=True))
    assert "\x1b" not in "".join(lines)
    rows = json.loads(said(as_json=True))
    assert [(row["grade"], row["said"], row["fix"]) for row in rows] == [(f.grade, f.message, f.fix) for f in findings]
    assert [row["check"] for row in rows] == [f"check {number}" for number in range(len(findings))]


def test_a_good_machine_has_no_problem_and_nothing_is_left(cli, own_environment) -> None:
    QueueStore(Path("training_queue")).create()
    before = set(own_environment.rglob("*"))
    result = cli("doctor")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    lines = result.stdout.splitlines()
    assert len(lines) > 20
    assert not any(line.startswith("problem") for line in lines)
    for name in ("claims", "creation", "torch", "wandb", "accelerate config"):
        assert [line[9:27].strip() for line in lines].count(name) == 1, name
    assert set(own_environment.rglob("*")) == before


@pytest.mark.parametrize("kind", ["a file", "full", "no folders"])
def test_an_unusable_queue_is_a_problem_and_other_checks_still_run(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    queue = Path("training_queue")
    if kind == "a file":
        queue.write_text("")
    else:
        queue.mkdir()

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        place = "scratch_folder" if kind == "no folders" else "tempfile.TemporaryFile"
        monkeypatch.setattr(f"accel_trainer.doctor.storage.{place}", full)
    lines = dict(examination._queue_checks(queue))
    *_, (name, last) = lines.items()
    assert last.grade is Grade.PROBLEM
    assert (name, last.message) == {
        "a file": ("queue", f"{queue} is not a folder"),
        "full": ("space", f"{queue} cannot be written: No space left on device"),
        "no folders": ("trials", f"no folder can be created in {queue}: No space left on device"),
    }[kind]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_doctor_that_is_interrupted_leaves_nothing(background, number: signal.Signals) -> None:
    queue = Path("training_queue")
    QueueStore(queue).create()
    process = background("doctor")
    wait_until(lambda: list(queue.glob(f"{storage.PREFIX}*/claims/*")) or process.poll() is not None)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert file_names(queue) == []
    assert not list(queue.glob(".*"))
    assert not _looking_in(Path.cwd())


def _looking_in(folder: Path) -> list[int]:
    """Processes whose working folder it is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.pid != os.getpid():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
