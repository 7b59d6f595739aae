"""`accel-train evaluate`, as a user has it."""

import json
import signal
import tempfile
from pathlib import Path

import psutil
import pytest
from helpers import kill_tree, wait_until, write_job

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import read_performance

CHEAP = {"class_subset": [0, 1, 2], "num_epochs": 1, "batch_size": 65, "eval_sets": ["digits"], "model_dir": "run"}


def own_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("accel-train-evaluate-*"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files that nobody else uses."""
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
def test_a_run_has_the_same_scores_on_two_processes_as_in_its_training(cli, background):
    """The batch size cannot be divided by them, which evaluation does not mind."""
    write_job(Path("job.json"), **CHEAP)
    assert cli("train", "job.json").returncode == 0
    rows = read_performance(RunFolder(Path("run")))
    assert [row.split for row in rows] == ["train", "val", "val_digits"]
    result = cli("evaluate", "run", "--json", "--num-processes", "2", "--weights", "final")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["weights"], told["epoch"], told["dataset"], told["images"]) == ("final", 1, "digits", 135)
    assert told["acc1"] == pytest.approx(rows[1].scores["acc1"], rel=1e-6)
    assert told["loss"] == pytest.approx(rows[1].scores["loss"], rel=1e-6)
    assert not own_folders()

    # A mistake that is found before, and one that the processes find.
    for words, said in (
        (("--weights", "9"), "error: --weights: run has no 9 weights (009.safetensors); there are: 000, 001, best"),
        (("--dataset", "none", "--data-root", "."), f"error: dataset: no folder {Path.cwd()}/none; "),
    ):
        result = cli("evaluate", "run", *words)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(said)
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
