"""Recurrent models, contrastive learning and fine-tuning on two processes: they learn."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from faults.fork_server import ForkServer
from faults.site.injection import UNCHECKED_VARIABLE, UNPLOTTED_VARIABLE
from helpers import COMMAND, REPOSITORY
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

# Half of the digits: enough to learn to tell them apart.
COMMON = {
    "dataset": "digits",
    "class_subset": [0, 1, 2, 3, 4],
    "transform_type": "none",
    "optimizer": "AdamW",
    "trackers": [],
}


def one_cycle(rate: float, num_epochs: int) -> dict[str, object]:
    return {
        "num_epochs": num_epochs,
        "optimizer_args": {"lr": rate},
        "scheduler": "OneCycleLR",
        "scheduler_args": {"max_lr": rate, "total_steps": num_epochs},
    }


BLT = {
    **COMMON,
    "architecture": "blt_blt",
    "architecture_args": {"features": [16, 32, 64], "kernel_sizes": [3, 3, 3], "num_cycles": 4, "return_cycles": "all"},
    "image_size": 16,
    "batch_size": 32,
}
JOBS = {
    "cornet": {
        **COMMON,
        "architecture": "cornet_rt",
        "architecture_args": {"features": [32, 32, 64, 64], "return_cycles": "all"},
        "loss_cycle": -1,
        "image_size": 48,
        "batch_size": 32,
        **one_cycle(0.004, 5),
    },
    "blt": {**BLT, "loss_cycle": "uniform", **one_cycle(0.003, 5)},
    "simclr": {
        **COMMON,
        "class_subset": None,
        "architecture": "small_cnn",
        "architecture_args": {"num_classes": 32},
        "transform_type": "contrastive-no-blur-weak-resize",
        "criterion": "SimCLRLoss",
        "criterion_args": {"temperature": 0.1},
        "num_views": 2,
        "image_size": 16,
        "batch_size": 128,
        "num_epochs": 4,
        "optimizer_args": {"lr": 0.001},
    },
    # By its name it comes before the job that it waits for.
    "a child": {
        **BLT,
        "loss_cycle": 0,
        "num_epochs": 1,
        "class_subset": [0, 1, 2],
        "optimizer_args": {"lr": 0.0001},
        "finetune": True,
        "finetune_args": {"starting_params": "blt", "freeze_modules": ["layer1"]},
    },
}


# These meet the queue and the launcher; the others are trained by processes that start at once.
QUEUED = ("a child", "blt")


@pytest.fixture(scope="module")
def trained(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all jobs were trained."""
    folder = tmp_path_factory.mktemp("learning")
    (folder / "training_queue").mkdir()
    for name, job in JOBS.items():
        file = folder / ("training_queue" if name in QUEUED else ".") / f"{name}.json"
        file.write_text(json.dumps({**job, "model_dir": str(folder / "models" / name)}))
        if name not in QUEUED:
            server.train(file, processes=2)
    config = REPOSITORY / "accelerate_configs/multi_cpu.yaml"
    result = subprocess.run(
        [*COMMAND, "run-queue", "--config", str(config), "--num-processes", "2"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests/faults/site")]),
            UNCHECKED_VARIABLE: "1",
            UNPLOTTED_VARIABLE: "1",
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(path.stem for path in (folder / "training_queue/done").iterdir()) == sorted(QUEUED)
    return folder / "models"


def rows(run: Path, split: str = "val") -> list[dict[str, str]]:
    with (run / "performance.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def test_a_cornet_and_a_blt_learn_to_classify(trained: Path) -> None:
    for name in ("cornet", "blt"):
        assert "2 processes on cpu" in (trained / name / "log.txt").read_text()
        assert float(rows(trained / name)[-1]["acc1"]) > 95


def test_the_accuracy_of_every_cycle_is_in_the_table(trained: Path) -> None:
    blt, cornet = (rows(trained / name)[-1] for name in ("blt", "cornet"))
    assert [name for name in blt if "_cycle" in name] == [f"acc1_cycle{cycle}" for cycle in range(4)]
    assert float(blt["acc1_cycle3"]) == float(blt["acc1"])
    assert float(blt["acc1_cycle0"]) > 80
    # Unrolled as in biology, the decoder has seen nothing of the image in the first cycles.
    assert float(cornet["acc1_cycle0"]) < 30


@pytest.mark.parametrize(("name", "rate"), [("cornet", 0.004), ("blt", 0.003)])
def test_on_two_processes_learning_rates_equal_those_of_torchs_scheduler(trained: Path, name: str, rate: float) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=5)
    expected = []
    for _ in range(5):
        expected += scheduler.get_last_lr()
        optimizer.step()
        if len(expected) < 5:
            scheduler.step()
    assert [float(row["lr"]) for row in rows(trained / name, "train")] == pytest.approx(expected, rel=1e-6)


def test_simclr_learns_views_and_a_representation(trained: Path) -> None:
    train, val = rows(trained / "simclr", "train"), rows(trained / "simclr")
    assert float(val[-1]["contrastive_acc"]) > 2 * float(val[0]["contrastive_acc"])
    assert float(val[-1]["loss"]) < float(val[0]["loss"])
    assert float(val[-1]["knn"]) > 85
    assert not val[0]["knn"], "only at the interval, and at the end"
    assert "acc1" not in train[0]


def test_a_child_waits_for_its_parent_and_starts_from_its_best(trained: Path) -> None:
    child, parent = trained / "a child" / "finetune", trained / "blt"
    start, best = load_file(child / "params/000.safetensors"), load_file(parent / "params/best.safetensors")
    report = json.loads((child / "starting_params.json").read_text())
    assert sorted(report["skipped"]) == ["decoder.heads.0.0.bias", "decoder.heads.0.0.weight"]
    fitting = [name for name in best if name not in report["skipped"]]
    assert all(torch.equal(start[name], best[name]) for name in fitting)
    after = load_file(child / "params/001.safetensors")
    for name in fitting:
        assert torch.equal(after[name], best[name]) == name.startswith("layer1."), name
