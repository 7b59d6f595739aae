"""`accel-train evaluate --degrade`, as a user has it: killed, and on another number of processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import THREE_CLASSES, kill_tree, wait_until, write_job

from accel_trainer.measures.trials_file import read_trials
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import read_performance

CHEAP: dict[str, Any] = {
    **THREE_CLASSES,
    "batch_size": 8,
}


@pytest.mark.slow
@pytest.mark.usefixtures("notes_often")
def test_an_evaluation_that_was_killed_goes_on_on_two_processes(cli, background, server):
    server.train(write_job(Path("job.json"), **CHEAP, model_dir=str(Path("run").absolute())))
    words = ("evaluate", "run", "--degrade", "noise", "blur", "--weights", "final")
    whole = cli(*words, "--json", "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    process = background(*words, "--name", "killed")
    answers = Path("run/evaluations/killed/unfinished/progress")
    wait_until(lambda: answers.exists() and any(answers.read_bytes()))
    kill_tree(process.pid)
    process.wait()
    again = cli(*words, "--json", "--name", "killed", "--num-processes", "2")
    assert again.returncode == 0, again.stderr
    first, second = json.loads(whole.stdout), json.loads(again.stdout)
    assert 0 < second["computed"] < first["computed"]
    assert second["degraded_sha256"] == first["degraded_sha256"]
    tables = [Path("run/evaluations", name, "trials.parquet").read_bytes() for name in ("whole", "killed")]
    assert tables[0] == tables[1]
    trials = read_trials(Path("run/evaluations/whole/trials.parquet"))
    neutral = trials.select(trials.condition("ssnr").is_in(["1"]))
    logged = read_performance(RunFolder(Path("run")))[1].scores["acc1"]
    assert float(f"{100 * neutral.correct.mean():.8g}") == logged
