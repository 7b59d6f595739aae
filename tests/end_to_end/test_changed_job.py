"""A run that resumes with other parameters, on another number of processes."""

import csv
import json
from pathlib import Path

import pytest
from helpers import write_job

pytestmark = pytest.mark.slow


def test_a_changed_job_resumes_when_it_allows_changes(server):
    given = {"model_dir": str(Path("run").absolute()), "class_subset": [0, 1, 2], "num_workers": 1}
    server.train(write_job(Path("job.json"), **given, num_epochs=1))
    write_job(Path("job.json"), **given, optimizer_args={"lr": 0.0001}, num_epochs=2, allow_changes=True)
    server.train(Path("job.json"), processes=2)
    log = Path("run/log.txt").read_text()
    assert "the job has changed: num_epochs 1 -> 2, optimizer_args.lr 0.0003 -> 0.0001; going on\n" in log
    assert " going on with 2 processes instead of 1" in log
    assert "the same images, augmentations and batches; sums are rounded differently\n" in log
    with Path("run/performance.csv").open() as file:
        assert [row["lr"] for row in csv.DictReader(file) if row["split"] == "train"] == ["0.0003", "0.0001"]
    attempts = json.loads(Path("run/environment.json").read_text())["attempts"]
    assert [attempt["loader_threads"] for attempt in attempts] == [1, 1]
    assert "changes" not in attempts[0]
    assert attempts[1]["changes"]["optimizer_args"] == [{"lr": 0.0003}, {"lr": 0.0001}]
