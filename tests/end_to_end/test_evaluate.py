"""`accel-train evaluate`, as a user has it."""

import json
import signal
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import THREE_CLASSES, kill_tree, wait_until, write_job

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import read_performance

CHEAP: dict[str, Any] = {
    **THREE_CLASSES,
    "batch_size": 65,
    "eval_sets": ["digits"],
}


def own_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("accel-train-evaluate-*"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files that no other test uses."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)


def evaluators() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(Path.cwd()) and "accel_trainer.workers.evaluate" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("temporary")
def test_evaluation_on_two_processes_gives_the_scores_of_the_training(cli, background, server):
    """The batch size cannot be divided by them, which evaluation does not mind."""
    server.train(write_job(Path("job.json"), **CHEAP, model_dir=str(Path("run").absolute())))
    rows = read_performance(RunFolder(Path("run")))
    assert [row.split for row in rows] == ["train", "val", "val_digits"]
    result = cli("evaluate", "run", "--json", "--num-processes", "2", "--weights", "final")
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["weights"], printed["epoch"], printed["dataset"], printed["images"]) == ("final", 1, "digits", 135)
    assert printed["acc1"] == pytest.approx(rows[1].scores["acc1"], rel=1e-6)
    assert printed["loss"] == pytest.approx(rows[1].scores["loss"], rel=1e-6)
    assert not own_folders()

    # A mistake that is found before, and one that the processes find.
    for arguments, message in (
        (("--weights", "9"), "error: --weights: run has no 9 weights (009.safetensors); there are: 000, 001, best"),
        (("--dataset", "none", "--data-root", "."), f"error: dataset: no folder {Path.cwd()}/none; "),
    ):
        result = cli("evaluate", "run", *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(message)
    assert not own_folders()

    # Ctrl-C ends all of it.
    process = background("evaluate", "run", "--num-processes", "2")
    wait_until(lambda: len(evaluators()) > 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not evaluators()
    assert not own_folders()

    # A worker that is killed has its output kept and named.
    process = background("evaluate", "run")
    (worker,) = wait_until(lambda: [p for p in evaluators() if "accelerate.commands.launch" not in p.cmdline()])
    kill_tree(worker.pid)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    (folder,) = own_folders()
    assert output.startswith("error: run: the evaluation has failed: ")
    assert output.endswith(f"all output: {folder}/log.txt\n")
