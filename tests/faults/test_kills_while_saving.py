"""kill -9 at random moments of saves that a thread writes while the training goes on."""

import json
import random
import signal
from pathlib import Path

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.test_every_event import JOB

from accel_trainer.run.folder import RunFolder
from accel_trainer.training.state.checkpoint import StateStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = 40
# What a save of an epoch begins with, and one between two steps.
BEGINNINGS = (r"open .*/params/\.", r"mkdir .*/resume/\.")
# What a save of so small a model takes at most, where nothing else runs.
LONGEST_S = 0.02


def test_a_run_that_is_killed_40_times_while_it_saves_comes_to_the_same_bits(
    server: ForkServer, tmp_path: Path
) -> None:
    job = {**JOB, "num_epochs": 30}
    files = {name: tmp_path / name / "job.json" for name in ("killed", "undisturbed")}
    for name, file in files.items():
        file.parent.mkdir()
        file.write_text(json.dumps({**job, "model_dir": str(tmp_path / name / "run")}))
    run, chance, reached = tmp_path / "killed/run", random.Random(0), []
    for number in range(KILLS):
        fault = {
            "folders": [str(run)],
            "pattern": chance.choice(BEGINNINGS),
            "nth": chance.randint(1, 3),
            "delay_s": chance.uniform(0, LONGEST_S),
            "signal": signal.SIGKILL,
            "marker": str(tmp_path / f"struck {number}"),
        }
        codes = server.attempt(files["killed"], "token", tmp_path / "log.txt", faults=[fault])
        assert codes == [-signal.SIGKILL], (tmp_path / "log.txt").read_text()
        newest = StateStore(RunFolder(run)).newest()
        reached.append(newest.progress.global_step if newest is not None else 0)
    assert reached == sorted(reached)
    assert len(set(reached)) >= KILLS / 4  # it was not always the same save
    server.train(files["killed"])
    server.train(files["undisturbed"])
    assert checks.differences(run, tmp_path / "undisturbed/run") == []
    assert checks.duplicates(run) == []
    assert checks.leftovers(run / "resume") == []  # elsewhere it is the launcher that removes them
    assert "is not whole" not in (run / "log.txt").read_text()
