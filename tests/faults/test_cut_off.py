"""A trainer that is cut off at some moment of its run, is followed by another machine's, and wakes up."""

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.test_every_event import JOB
from helpers import wait_until

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, read_status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CUTS = 16
# Trains the job of the first argument, with the fault of the second; nobody is silent for longer than the third.
SCRIPT = """
import json, os, sys
import injection, pytest
from helpers import as_another_machine
from accel_trainer.core import lease
from accel_trainer.training import trainer
from accel_trainer.workers import train

class NoPlotter:
    def __init__(self, run): ...
    def start(self): ...
    def draw(self, *, now=False): ...
    def close(self): ...

trainer.Plotter, lease.STALE_S = NoPlotter, float(sys.argv[3])
as_another_machine(pytest.MonkeyPatch(), os.environ[lease.HOST_VARIABLE])
injection.arm(json.loads(sys.argv[2]))
sys.exit(train.main([sys.argv[1], "--name=job"]))
"""
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "ACCEL_TRAIN_ALLOW_IMPORTS": "tiny_models", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def sleepy() -> Iterator[ForkServer]:
    """What forks the trainers of another machine."""
    with ForkServer() as server:
        yield server


def train(server: ForkServer, place: Path, host: str, faults: list[dict[str, Any]], stale_s: float = 600.0) -> int:
    job = place / "job.json"
    words = [str(job), json.dumps(faults), str(stale_s)]
    log = place / f"{host}.txt"
    (code,) = server.script(SCRIPT, words, log, processes=1, ACCEL_TRAIN_HOST=host, **ENVIRONMENT)
    return code


def new_place(place: Path) -> Path:
    place.mkdir()
    (place / "job.json").write_text(json.dumps({**JOB, "model_dir": str(place / "run")}))
    return place


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_trainer_that_wakes_up_disturbs_nothing_of_its_successor(
    server: ForkServer, sleepy: ForkServer, tmp_path: Path
) -> None:
    """At events of its run drawn at random, once all was checked; half of them wake up while the successor trains."""
    undisturbed, trace = new_place(tmp_path / "undisturbed"), tmp_path / "trace.txt"
    look = {"folders": [str(undisturbed / "run")], "marker": str(tmp_path / "none"), "nth": 0, "trace": str(trace)}
    assert train(server, undisturbed, "awake", [look]) == 0
    events = trace.read_text().splitlines()
    first = next(number for number, event in enumerate(events) if "config.json" in event)
    chance = random.Random(0)
    for number, nth in enumerate(chance.sample(range(first, len(events)), CUTS)):
        place = new_place(tmp_path / str(number))
        found = after_a_cut(server, sleepy, place, nth, wakes_meanwhile=number % 2 == 0)
        found += checks.differences(place / "run", undisturbed / "run")
        assert (events[nth - 1], found) == (events[nth - 1], [])


def after_a_cut(server: ForkServer, sleepy: ForkServer, place: Path, nth: int, *, wakes_meanwhile: bool) -> list[str]:
    """What is wrong with the successor's run."""
    run, marker = RunFolder(place / "run"), place / "struck"
    cut = {"folders": [str(run.path)], "marker": str(marker), "nth": nth, "signal": signal.SIGSTOP}
    sleeper = threading.Thread(target=train, args=(sleepy, place, "sleepy", [cut]))
    sleeper.start()
    wait_until(lambda: marker.exists() or not sleeper.is_alive())
    successor = threading.Thread(target=train, args=(server, place, "awake", [], 0.0))
    successor.start()
    if wakes_meanwhile:
        wait_until(lambda: (s := read_status(run)) is not None and s.host == "awake" and s.epoch > 0)
        wake(sleepy)
    successor.join()
    found = [] if read_status(run).state is RunState.FINISHED else [(place / "awake.txt").read_text()]
    before = contents(run.path)
    if not wakes_meanwhile:
        wake(sleepy)
    sleeper.join()
    status = read_status(run)
    found += [] if status is not None and status.host == "awake" else [f"the status is {status}"]
    found += [] if contents(run.path) == before else ["it has changed what its successor has left"]
    found += [] if len(list(run.resume.iterdir())) == 1 else ["states are left"]
    return found + checks.duplicates(run.path) + checks.leftovers(run.path)


def wake(sleepy: ForkServer) -> None:
    for pid in Path(f"/proc/{sleepy.pid}/task/{sleepy.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGCONT)
