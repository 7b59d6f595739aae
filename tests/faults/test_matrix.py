"""Whatever is trained, on however many processes and threads, wherever it is killed: it comes to the same bits.

All ranks kill themselves with SIGKILL after a step; new ones resume. The undisturbed run has no loader threads: that
their number does not matter is tested by the way.
"""

import json
import signal
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from faults import checks
from faults.fork_server import ForkServer

from accel_trainer.data.occluders.synthetic import make_occluders

pytestmark = pytest.mark.slow

# Two epochs of four steps; a state after every step. The model has BatchNorm and dropout.
COMMON: dict[str, Any] = {
    "architecture": "tiny_models:NormAndDropout",
    "dataset": "digits",
    "class_subset": [0, 1],
    "image_size": 8,
    "batch_size": 64,
    "num_epochs": 2,
    "optimizer_args": {"lr": 0.05, "momentum": 0.9},
    "save_every_minutes": 1e-6,
    "trackers": [],
}
JOBS: dict[str, dict[str, Any]] = {
    "classification": {
        **COMMON,
        "transform_type": "default",
        "cutmix": True,
        "Occlusion": {"form": "polkadot", "visibility": 50, "probability": 0.7},
        "swa": {"start": 1, "swa_lr": 0.02},
    },
    "SimCLR": {
        **COMMON,
        "architecture_args": {"num_classes": 5},
        "transform_type": "contrastive",
        "criterion": "SimCLRLoss",
        "num_views": 2,
        "batch_size": 128,  # of views
        "primary_metric": "contrastive_acc",
        "knn_interval": 2,
    },
}
# A step in the middle of each epoch.
STEPS, NUM_PROCESSES, NUM_THREADS = [3, 7], [1, 2], [0, 2]
# Half of all cases, in which any three of the four meet in all ways: those with an even number of second choices.
CASES = [
    (kind, num_processes, step, num_threads)
    for (a, kind), (b, num_processes), (c, step), (d, num_threads) in product(
        *map(enumerate, (JOBS, NUM_PROCESSES, STEPS, NUM_THREADS))
    )
    if (a + b + c + d) % 2 == 0
]

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains a job to its end, after a kill where one is asked for, and gives its run folder."""
    occluders = tmp_path_factory.mktemp("occluders")
    make_occluders(occluders, ["polkadot"], [50], number=4, size=32, report=lambda line: None)

    @cache
    def train(kind: str, num_processes: int, num_threads: int, kill_after_step: int | None = None) -> Path:
        place = tmp_path_factory.mktemp("run")
        job = {**JOBS[kind], "num_workers": num_threads, "model_dir": str(place / "run")}
        if "Occlusion" in job:
            job["Occlusion"] = {**job["Occlusion"], "occluder_dir": str(occluders)}
        file, log = place / "job.json", place / "log.txt"
        file.write_text(json.dumps(job))
        if kill_after_step is not None:
            codes = server.attempt(file, "killed", log, processes=num_processes, kill_after_step=kill_after_step)
            assert codes == [-signal.SIGKILL] * num_processes, log.read_text()
        codes = server.attempt(file, "whole", log, processes=num_processes)
        assert codes == [0] * num_processes, log.read_text()
        return place / "run"

    return train


@pytest.mark.parametrize(("kind", "num_processes", "kill_after_step", "num_threads"), CASES)
def test_a_killed_run_comes_to_the_same_bits(
    train: Train, kind: str, num_processes: int, kill_after_step: int, num_threads: int
) -> None:
    undisturbed = train(kind, num_processes, 0)
    killed = train(kind, num_processes, num_threads, kill_after_step)
    epoch = 1 + kill_after_step // 4
    assert f"going on in epoch {epoch} after step" in (killed / "log.txt").read_text()
    assert checks.differences(killed, undisturbed) == []
    assert checks.duplicates(killed) == []
    of_kind = {"classification": {"swa"}, "SimCLR": set()}[kind]
    assert {path.stem for path in (killed / "params").iterdir()} == {"000", "002", "best", *of_kind}


@pytest.mark.parametrize("kind", JOBS)
def test_what_is_compared_is_not_the_same_for_everything(train: Train, kind: str) -> None:
    assert checks.differences(train(kind, 1, 0), train(kind, 2, 0)) != []
