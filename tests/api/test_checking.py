"""Whole checks: whatever a job's model does, it is one line about that job, and the others are checked."""

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import said_by, wait_until, write_job

from accel_trainer import Queue
from accel_trainer.queue import check_process

MODEL = """
import ctypes, os, signal, subprocess, sys, time
from torch import nn

def make(num_classes, does=""):
    print('{"check": 1, "problems": [], "summary": null, "end": "done"}')
    exec(does)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
"""
# What a model does, and what is said of its job; nothing where it is a good one all the same.
MODELS = {
    "fine": ("", ""),
    "exits": ("os._exit(3)", "its check crashed: it exited with code 3"),
    "leaves": ("os._exit(0)", "its check crashed: it exited with code 0"),
    "crashes": ("ctypes.string_at(0)", "its check crashed: it was killed by SIGSEGV"),
    "aborts": ("print('no memory', file=sys.stderr); os.abort()", "killed by SIGABRT after it printed 'no memory'"),
    "quits": ("sys.exit(4)", "SystemExit: 4"),
    "raises": ("raise KeyboardInterrupt", "its check crashed: it "),
    "forks": ("os.fork()", ""),
    "prints": ("os.write(1, b'x' * 300_000 + b'\\n'); os.write(2, b'y' * 300_000)", ""),
    "closes": ("os.closerange(3, 256)", "its check crashed: it "),
    "chdirs": ("os.chdir('/'); os.environ.pop('HOME', None)", ""),
    "last": ("", ""),
}


def job_of(name: str, does: str) -> Path:
    args = {"does": does}
    return write_job(Path(f"{name}.json"), architecture="my_lab:make", architecture_args=args, model_dir=f"runs/{name}")


@pytest.fixture(autouse=True)
def my_lab(own_environment: Path) -> None:
    Path("my_lab.py").write_text(MODEL)


def test_whatever_a_model_does_is_one_line_of_its_job_and_the_next_is_checked(cli: Any) -> None:
    files = [job_of(name, does) for name, (does, _) in MODELS.items()]
    done = cli("validate", "--json", "--allow-imports", "my_lab", *files)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2, done.stderr
    assert [verdict["file"] for verdict in verdicts] == list(map(str, files))
    for verdict, (name, (_, said)) in zip(verdicts, MODELS.items(), strict=True):
        assert (verdict["summary"] is None) == bool(said), name
        assert len(verdict["problems"]) == bool(said)
        assert said in "".join(verdict["problems"])
    assert done.stderr == ""


def test_add_and_sweep_go_on_after_a_model_that_crashes(cli: Any) -> None:
    files = [job_of(name, MODELS[name][0]) for name in ("crashes", "exits", "fine")]
    added = cli("add", "--allow-imports", "my_lab", *files)
    assert (added.returncode, added.stdout) == (2, "added training_queue/fine.json\n")
    assert [line.partition(":")[0] for line in added.stderr.splitlines()] == ["error", "error"]
    assert added.stderr.count("its check crashed") == 2
    swept = cli("sweep", "fine.json", "--set", 'architecture_args.does="os._exit(1)",""', "--allow-imports", "my_lab")
    assert swept.returncode == 2
    (line,) = swept.stderr.splitlines()
    assert "its check crashed: it exited with code 1" in line


def test_a_model_that_never_ends_is_refused_in_time_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_process, "MODEL_S", 0.5)
    queue = Queue("training_queue")
    loops = job_of("loops", "subprocess.Popen(['sleep', '4321.5'])\nwhile True: pass")
    queue.check(job_of("fine", ""), allow="my_lab")
    began = time.monotonic()
    said = said_by(lambda: queue.check(loops, allow="my_lab"))
    assert said.startswith("loops.json: its check had not ended after")
    assert queue.check(job_of("fine", ""), allow="my_lab")["classes"] == 10
    assert time.monotonic() - began < 20
    wait_until(
        lambda: not any("4321.5" in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])), 10
    )


def test_a_check_takes_in_the_surroundings_of_the_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job, queue = job_of("looks", "os.environ['COLOR']"), Queue(tmp_path / "queue")
    assert "KeyError: 'COLOR'" in said_by(lambda: queue.check(job, allow="my_lab"))
    monkeypatch.setenv("COLOR", "red")
    assert queue.check(job, allow="my_lab")["classes"] == 10
    assert "is not allowed" in said_by(lambda: queue.check(job))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    said = said_by(lambda: queue.check(Path("../work/looks.json"), allow="my_lab"))
    assert "my_lab" in said, "modules are found in the current folder"
