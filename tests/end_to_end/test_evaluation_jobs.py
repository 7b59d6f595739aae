"""Trained and measured by one queue, as a user has it: killed anywhere, and with the curves that training explains."""

import csv
import hashlib
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.fork_server import ForkServer
from helpers import file_names, kill_tree, wait_until, write_job

from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.evaluation.run_plan import run_plan
from accel_trainer.measures.trials_file import read_trials
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import read_status

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [8, 8, 8]},
    "class_subset": [0, 1, 2],
    "image_size": 16,
    "num_epochs": 1,
    "num_workers": 0,
}
NOISE = ["noise", "blur"]


def digests(folder: Path) -> dict[str, str]:
    """Of all files in a folder but those of evaluations."""
    names = [name for name in file_names(folder) if not name.startswith("evaluations/")]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def jobs_in(state: str) -> list[str]:
    return sorted(path.stem for path in Path("training_queue", state).glob("*.json"))


@pytest.fixture
def trained(server: ForkServer) -> Path:
    """A tiny run."""
    server.train(write_job(Path("t.json"), **TINY, model_dir=str(Path("run").absolute())))
    return Path("run")


@pytest.mark.usefixtures("unchecked", "notes_often")
def test_an_evaluation_that_is_killed_anywhere_comes_to_the_same_table(
    trained: Path, background: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its runner, or alone, twice each; and nothing of the run itself is touched."""
    before = digests(trained)
    Path("training_queue").mkdir()
    job = {"evaluate": "run", "degradations": NOISE, "retries": 100, "batch_size": 5}
    for number in (1, 2):
        Path(f"training_queue/e{number}.json").write_text(json.dumps({**job, "name": f"n{number}"}))
    draw, kills = random.Random(0), 0
    while jobs_in("done") != ["e1", "e2"]:
        runner = background("run-queue", "--cpu", "--slots", "2", "--retry-after", "0", "--no-start-ahead")
        began, is_alone = time.monotonic(), kills % 2 == 1
        wait_until(lambda began=began: measuring() or jobs_in("done") == ["e1", "e2"] or time.monotonic() > began + 60)
        time.sleep(draw.uniform(0, 1.5))
        if kills >= 4:
            assert runner.wait(timeout=300) == 0
            continue
        kills += 1
        for pid in workers() if is_alone else [runner.pid]:
            kill_tree(pid)
        if is_alone:  # its runner tries again
            time.sleep(draw.uniform(0, 4))
            kill_tree(runner.pid)
    assert kills == 4
    assert jobs_in("failed") == jobs_in("running") == jobs_in(".") == []
    assert digests(trained) == before
    plan = EvaluationPlan.parse({"degradations": NOISE, "batch_size": 5, "name": "undisturbed"})
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    undisturbed = run_plan(RunFolder(trained), plan)
    expected = read_trials(undisturbed.folder.trials)
    assert len(expected.image.codes) == 135 * undisturbed.record.conditions.__len__()
    for name in ("n1", "n2"):
        folder = trained / "evaluations" / name
        assert (folder / "trials.parquet").read_bytes() == undisturbed.folder.trials.read_bytes()
        assert (folder / "summary.csv").read_bytes() == undisturbed.folder.summary.read_bytes()
        status = read_status(RunFolder(folder))
        assert status is not None
        assert status.images == status.num_images > 0


def workers() -> list[int]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(Path.cwd()) and "accel_trainer.workers.evaluate_job" in process.cmdline():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def measuring() -> bool:
    """Whether some evaluation has begun."""
    return any(Path("run/evaluations").glob("*/unfinished/progress"))


@pytest.mark.usefixtures("unchecked", "unplotted")
def test_models_that_were_trained_with_occluders_recognize_digits_behind_them(
    cli: Any, server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seeds of each kind, the first trained and measured by a queue. The intervals of the kinds do not
    overlap."""
    cli("make-occluders", "occluders", "--forms", FORM, "--visibility", "40,60,80", "--number", "20", "--size", "32")
    occluders = {"occluder_dir": str(Path("occluders").absolute()), "form": FORM, "visibility": [0.4, 0.6, 0.8]}
    with_some = {**occluders, "probability": 0.7, "color": [[0, 0, 0], [255, 255, 255]]}
    names = []
    for kind, occlusion in {"without": None, "with": with_some}.items():
        for seed in range(3):
            name = f"{kind}-{seed}"
            file = Path("training_queue" if seed == 0 else "alone", f"{name}.json")
            write_job(file, **OF_DIGITS, seed=seed, Occlusion=occlusion, model_dir=str(Path("models", name).absolute()))
            names.append(name)
    queued = [name for name in names if name.endswith("-0")]
    added = cli("add", "--evaluate", *queued, *DEGRADE, "--occluder-dir", "occluders", "--name", "occlusion")
    assert added.returncode == 0, added.stderr
    result = cli("run-queue", "--cpu", "--slots", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert jobs_in("done") == sorted([*queued, *(f"{name}-occlusion" for name in queued)])
    plan = EvaluationPlan.parse({"degradations": DEGRADE[1:], "occluder_dir": "occluders", "name": "occlusion"})
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for name in (name for name in names if name not in queued):
        server.train(Path("alone", f"{name}.json"))
        run_plan(RunFolder(Path("models", name)), plan)

    found = {name: intervals(Path("models") / name) for name in names}
    for visibility in ("0.6", "0.8"):
        of_with, of_without = (
            [found[f"{kind}-{seed}"][visibility] for seed in range(3)] for kind in ("with", "without")
        )
        assert min(low for low, _ in of_with) > max(high for _, high in of_without), visibility
    assert min(found[name]["1"][0] for name in names) > 0.8, "all of them recognize what is not occluded"


FORM = "horizontal_bars_04"
DEGRADE = ["--degrade", f"occlusion/{FORM}"]
OF_DIGITS: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [16, 24, 32]},
    "image_size": 16,
    "transform_type": "none",
    "num_epochs": 10,
    "optimizer_args": {"lr": 0.005},
    "num_workers": 1,
}


def intervals(run: Path) -> dict[str, tuple[float, float]]:
    """Accuracy's interval by visibility."""
    with (run / "evaluations/occlusion/summary.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    return {row["visibility"]: (float(row["low"]), float(row["high"])) for row in rows}
