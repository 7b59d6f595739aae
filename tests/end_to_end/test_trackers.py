"""A real training that is killed twice with all its processes: what its trackers have in the end."""

import json
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from faults.fork_server import ForkServer
from helpers import kill_tree, wait_until, write_job
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import records_of_wandb

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import read_performance

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unplotted")]
EPOCHS, EVERY = 6, 2
SCRIPT = "import sys; from accel_trainer import train; train(sys.argv[1], cpu=True, progress=False)"


def train(server: ForkServer, job: Path) -> list[int]:
    return server.script(SCRIPT, [str(job)], job.with_suffix(".log"), processes=1)


def train_and_kill(server: ForkServer, job: Path, run: RunFolder, epochs: int) -> None:
    """With all its processes, after so many epochs."""
    attempt = Thread(target=train, args=(server, job))
    attempt.start()
    wait_until(lambda: len(read_performance(run)) >= 2 * epochs or not attempt.is_alive())
    assert attempt.is_alive()
    for pid in server.forked:
        kill_tree(pid)
    attempt.join()


def records_of(run: RunFolder) -> list[dict[str, Any]]:
    """What wandb's own reader finds of all attempts; a file that a kill has cut off is read as far as it goes."""
    files = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    return [record for file in files for record in records_of_wandb(file, may_be_cut_off=True)]


def test_each_epoch_and_each_step_is_there_once_after_two_kills_and_the_summary_is_of_all(
    server: ForkServer, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    job = write_job(
        tmp_path / "job.json",
        architecture="small_cnn",
        architecture_args={"features": [8, 8, 8]},
        dataset="digits",
        class_subset=[0, 1],
        image_size=16,
        batch_size=64,
        num_epochs=EPOCHS,
        num_workers=0,
        model_dir=str(run.path),
        trackers=["wandb", "tensorboard"],
        wandb={"mode": "offline"},
        log_every_steps=EVERY,
        save_every_minutes=1e-4,
    )
    for epochs in (1, 3):
        train_and_kill(server, job, run, epochs)
    assert train(server, job) == [0], job.with_suffix(".log").read_text()
    history, records = read_performance(run), records_of(run)
    assert [row.epoch for row in history if row.split == "val"] == list(range(1, EPOCHS + 1))
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert sorted(row["epoch"] for row in rows if "val/acc1" in row) == list(range(1, EPOCHS + 1))
    steps = Counter(row["step"] for row in rows if "steps/loss" in row)
    status = json.loads(run.status_file.read_text())
    assert steps == dict.fromkeys(range(EVERY, status["global_step"] + 1, EVERY), 1)
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record["summary"]["update"] if record["type"] == "summary" else {}
    val = [row.scores for row in history if row.split == "val"]
    assert summary["val/acc1"]["max"] == pytest.approx(max(scores["acc1"] for scores in val), rel=1e-6)
    assert summary["val/loss"]["min"] == pytest.approx(min(scores["loss"] for scores in val), rel=1e-6)
    assert summary["val/loss"]["last"] == pytest.approx(val[-1]["loss"], rel=1e-6)
    assert summary["peak_memory_gb"] > 0
    defined = {record["metric"]["name"]: record["metric"] for record in records if record["type"] == "metric"}
    for name in {name for row in rows for name in row if not name.startswith(("_", "sample_train_inputs"))}:
        assert name in defined, name
    assert defined["val/acc1"]["step_metric"] == "epoch"
    assert defined["steps/loss"]["step_metric"] == "step"
    events = EventAccumulator(str(run.path / "accel-train")).Reload()
    assert [event.step for event in events.Scalars("val/acc1")] == list(range(1, EPOCHS + 1))
    assert sorted(event.step for event in events.Scalars("steps/loss")) == sorted(steps)
