"""Two machines on one queue: one is suspended in the middle of a job, the other runs the job."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from faults.lab import SMALL_JOB
from helpers import COMMAND, as_another_machine, trainers_in, wait_until
from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.cli.terminal import Terminal
from accel_trainer.core import lease
from accel_trainer.launch.machine import this_machine
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, read_status

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("unchecked", "unplotted", "tiny_models")
def test_a_runner_that_wakes_after_its_lease_expired_discards_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, run = QueueStore(Path("training_queue")), RunFolder(Path("run"))
    queue.create()
    job = {**SMALL_JOB, "architecture_args": {"pause_s": 0.2}, "model_dir": "run"}
    (queue.folder / "a.json").write_text(json.dumps(job))
    sleeper = subprocess.Popen(
        [*COMMAND, "run-queue"], env={**os.environ, "ACCEL_TRAIN_HOST": "sleepy"}, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: (status := read_status(run)) is not None and status.step > 0)
        (claim,) = queue.jobs(JobState.RUNNING)
        trainers = set(trainers_in(Path.cwd()))
        assert trainers
        sleeper.send_signal(signal.SIGSTOP)
        # Ten minutes later.
        as_another_machine(monkeypatch, "awake")
        monkeypatch.setattr(lease, "STALE_S", 0.0)
        monkeypatch.setattr("accel_trainer.launch.process_group.end_leftovers", lambda *_: None)  # they are elsewhere
        assert (
            "a: returned to pending; nothing was heard of its runner on sleepy"
            in CliRunner().invoke(app, ["reclaim"]).output
        )
        monkeypatch.setattr("accel_trainer.launch.attempt.end_leftovers", lambda token: None)
        successor = Runner(queue, this_machine(), Terminal())
        monkeypatch.setattr(successor.stop, "listen", lambda *_: None)
        successor.run()
        wait_until(lambda: not trainers.intersection(trainers_in(Path.cwd())), timeout_s=10)
        assert [job.name for job in queue.jobs(JobState.DONE)] == ["a"]
        sleeper.send_signal(signal.SIGCONT)
        output, _ = sleeper.communicate(timeout=60)
    finally:
        if sleeper.poll() is None:
            sleeper.kill()
    assert "a: superseded (" in output
    assert sleeper.returncode == 0, "nothing has failed"
    assert [job.path.name for state in JobState for job in queue.jobs(state)] == ["a.json"]
    status = read_status(run)
    assert (status.state, status.epoch, status.token == claim.owner.token) == (RunState.FINISHED, 3, False)
    rows = run.performance.read_text().splitlines()[1:]
    assert len(rows) == len({tuple(row.split(",")[:2]) for row in rows}) == 6
    assert not run.locks()
