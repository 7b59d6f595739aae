"""`accel-train profile`, as a user has it."""

import json
import signal
import tempfile
from pathlib import Path

import pytest
from helpers import file_names, wait_until, write_job

TINY = {"architecture": "small_cnn", "architecture_args": None, "image_size": 8, "batch_size": 32, "model_dir": "run"}
FEW = ("--steps", "3", "--warm-up", "1")


def own_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("accel-train-profile-*"))


@pytest.mark.slow
def test_a_job_is_profiled_and_nothing_but_a_trace_is_left(cli, background, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    job = write_job(Path("job.json"), **TINY)
    assert cli("add", job).returncode == 0
    before = file_names(Path())

    result = cli("profile", "job", *FEW)  # that of the queue
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["a", "step", "of", "32", "images", "ms", "%", "ms", "in", "the", "validation"]
    named = " ".join(lines)
    for phase in ("waiting for images", "forward", "backward", "optimizer", "reading and decoding", "saving"):
        assert phase in named
    assert " limits: " in lines[-2]
    assert lines[-1] == "trace (Perfetto, chrome://tracing): job.trace.json"
    assert json.loads(Path("job.trace.json").read_text())["traceEvents"]
    assert file_names(Path()) == sorted([*before, "job.trace.json"])
    assert not own_folders()

    result = cli("profile", job, *FEW, "--json", "--trace", tmp_path / "other.json", "--num-processes", "2")
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["num_steps"], printed["images_per_step"], printed["setting"]["num_processes"]) == (3, 32, 2)
    assert printed["trace"] == str(tmp_path / "other.json")
    assert (tmp_path / "other.json").exists()

    for arguments, message in (
        (("profile", "jop"), "error: jop: no job of this name is in training_queue; did you mean 'job'?"),
        (("profile", "job", "--trace", "no/where.json"), "error: --trace: there is no folder no\n"),
        (("profile", "none.json"), "error: none: no job of this name is in training_queue"),
    ):
        result = cli(*arguments)
        assert (result.returncode, result.stdout) == (2, ""), arguments
        assert result.stderr.startswith(message)

    process = background("profile", "job")
    wait_until(own_folders)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not own_folders()
    assert file_names(Path()) == sorted([*before, "job.trace.json"])
