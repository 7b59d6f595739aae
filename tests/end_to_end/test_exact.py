"""The same training, whatever the number of processes and whatever is killed when."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.fork_server import ForkServer
from faults.lab import Lab
from helpers import write_job
from safetensors.torch import load_file
from torchvision import models
from torchvision.transforms import v2

from accel_trainer.config import read_job
from accel_trainer.data.preview import preview

pytestmark = pytest.mark.slow

CLASSES = [0, 1, 2, 3, 4]
# ShuffleNet has BatchNorm; every kind of augmentation draws; the state is saved every 0.2 s.
RESTLESS: dict[str, Any] = {
    "architecture": "shufflenet_v2_x0_5",
    "architecture_args": {},
    "dataset": "digits",
    "class_subset": CLASSES,
    "image_size": 16,
    "optimizer": "AdamW",
    "optimizer_args": {"lr": 0.0003},
    "num_epochs": 2,
    "batch_size": 32,
    "num_workers": 2,
    "transform_type": "contrastive-trivialaugment",
    "Noise": {"noise_types": ["gaussian", "fourier"], "ssnrs": [0.5, 0.8], "probs": 0.5},
    "Blur": {"sigmas": [1, 2], "probs": 0.3},
    "randomerase": "random",
    "cutmix": True,
    "mixup": {"alpha": 0.2},
    "save_every_minutes": 0.003,
    # It ends with the last step, and cannot be stepped beyond.
    "schedule_by": "step",
    "scheduler": "OneCycleLR",
    "scheduler_args": {"max_lr": 0.003},
    "warmup_scheduler": "LinearLR",
    "warmup_scheduler_args": {"total_iters": 25},
    "ema": 0.9,
    "swa": {"start": 1},
}


def performance(run: Path) -> list[dict[str, str]]:
    with (run / "performance.csv").open() as file:
        return list(csv.DictReader(file))


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def status(run: Path) -> dict:
    try:
        return json.loads((run / "status.json").read_text())
    except FileNotFoundError:
        return {}


@pytest.fixture(scope="module")
def undisturbed(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the disturbed ones must equal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(server, folder, **RESTLESS)


def train(server: ForkServer, folder: Path, num_processes: int = 1, **changes: Any) -> Path:
    """A run folder of a job that was trained to its end."""
    job = write_job(folder / "job.json", **changes, model_dir=str(folder / "run"))
    server.train(job, processes=num_processes)
    return folder / "run"


def test_kill_9_of_everything_mid_epoch_leaves_no_trace(undisturbed: Path, tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        run = lab.add(**RESTLESS, trackers=["wandb"])
        lab.start()
        lab.wait_for_step(status(undisturbed)["steps_per_epoch"] + 3)
        lab.kill_all()
        assert lab.orphans() == []
        assert lab.where() == "running"

        lab.start()
        assert lab.wait() == 0, lab.all_output()

        assert "its runner died" in lab.output.read_text()
        assert lab.where() == "done"
    assert re.search(r"going on in epoch 2 after step \d", (run / "log.txt").read_text())
    assert same_weights(run / "params/002.safetensors", undisturbed / "params/002.safetensors")
    for name in ("best", "ema", "swa"):
        assert same_weights(run / f"params/{name}.safetensors", undisturbed / f"params/{name}.safetensors")
    of_epochs = {"1": ("train", "val", "val_ema"), "2": ("train", "val", "val_ema", "val_swa")}
    assert [(row["epoch"], row["split"]) for row in performance(run)] == [
        (epoch, split) for epoch, splits in of_epochs.items() for split in splits
    ]
    for name in ("loss", "acc1", "acc5", "lr"):
        assert [row[name] for row in performance(run)] == [row[name] for row in performance(undisturbed)]
    offline_runs = [p.name.rpartition("-")[2] for p in (run / "wandb").glob("offline-run-*")]
    assert len(offline_runs) == 2
    assert len(set(offline_runs)) == 1


# ConvNeXt is smooth and has neither BatchNorm nor dropout: rounding errors stay as small as they are.
SMOOTH = {
    "architecture": "timm:convnext_atto",
    "architecture_args": {"depths": [1, 1, 1, 1], "dims": [16, 32, 32, 64]},
    "class_subset": [0, 1, 2],
    "transform_type": "none",
    "Noise": {"noise_types": ["gaussian", "fourier"], "ssnrs": [0.8], "probs": 0.5},
    "cutmix": True,
    "mixup": True,
    "batch_size": 32,
    "gradient_accumulation": 2,
    "clip_grad_norm": 1.0,
    "optimizer": "SGD",
    "optimizer_args": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0},
    "schedule_by": "step",
    "scheduler": "CyclicLR",
    "scheduler_args": {"base_lr": 0.001, "max_lr": 0.02, "step_size_up": 5, "cycle_momentum": False},
}


def last_rates_of_epochs(steps_per_epoch: int) -> list[float]:
    """Those of SMOOTH, by torch's scheduler stepped after each optimizer step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], **SMOOTH["optimizer_args"])
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, **SMOOTH["scheduler_args"])
    rates = []
    for _ in range(2 * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates[steps_per_epoch - 1 :: steps_per_epoch]


def test_two_processes_train_what_one_does(server: ForkServer, tmp_path: Path) -> None:
    runs = [train(server, tmp_path / str(count), count, **SMOOTH) for count in (1, 2)]
    assert "2 processes on cpu" in (runs[1] / "log.txt").read_text()
    one, two = map(performance, runs)
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-5)
        assert float(a["acc1"]) == pytest.approx(float(b["acc1"]), abs=1e-4)
    assert float(one[-1]["acc1"]) > 95, "it learns: there is something to agree on"
    for run in runs:
        rates = [float(row["lr"]) for row in performance(run) if row["split"] == "train"]
        assert rates == pytest.approx(last_rates_of_epochs(status(run)["steps_per_epoch"]), rel=1e-5)


def test_the_best_weights_give_the_logged_accuracy_in_plain_torchvision(undisturbed):
    logged = max(float(row["acc1"]) for row in performance(undisturbed) if row["split"] == "val")

    model = models.shufflenet_v2_x0_5(num_classes=len(CLASSES)).eval()
    model.load_state_dict(load_file(undisturbed / "params/best.safetensors"))
    images, labels = validation_digits()
    transform = v2.Compose(
        [
            v2.Resize(18, antialias=True),
            v2.CenterCrop(16),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.no_grad():
        hits = (model(transform(images)).argmax(1) == labels).sum().item()

    assert 100 * hits / len(labels) == pytest.approx(logged, abs=1e-6)


def test_the_picture_in_the_run_folder_is_the_preview(undisturbed):
    job = read_job(undisturbed.parent / "job.json")
    assert (undisturbed / "sample_train_inputs.png").read_bytes() == preview(job, epoch=1)


def validation_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The held-out digits of the classes from scikit-learn itself: uint8 (n, 3, 8, 8), int64 (n,)."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    _, held_out = train_test_split(np.arange(1797), test_size=0.25, stratify=digits.target, random_state=0)
    held_out = held_out[np.isin(digits.target[held_out], CLASSES)]
    pixels = torch.from_numpy(np.rint(digits.images[held_out] * (255 / 16)).astype(np.uint8))
    return pixels[:, None].repeat(1, 3, 1, 1), torch.from_numpy(digits.target[held_out])
