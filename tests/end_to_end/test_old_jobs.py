"""Jobs of a published study, in the words of their time and shrunk: checked, trained through the queue, evaluated."""

import json
from pathlib import Path
from typing import Any

import pytest
from published_jobs import published_jobs

from accel_trainer import load_run
from accel_trainer.run.status import RunState

# What makes of each a job of seconds: of network, images and epochs. What is trained on them stays as published.
SHRUNK: dict[str, Any] = {
    "architecture": "small_cnn",
    "dataset": "digits",
    "class_subset": [0, 1],
    "image_size": 16,
    "num_epochs": 1,
    "batch_size": 64,
}
# Their runs, below models/training.
FOLDERS = {"supervised": "supervised", "simclr": "simclr", "cutmix": "cutmix", "finetuned": "fine/occ"}
OCCLUDERS = ("--forms", "natural", "--visibility", "60,90", "--number", "2", "--size", "32")


def old_jobs() -> dict[str, dict[str, Any]]:
    """One each of supervised, SimCLR, CutMix and fine-tuned, as a file of then could say it."""
    published = published_jobs(occluder_dir="occluders")
    occluded = {"type": "natural", "coverage": [0.4, 0.1], "prop_occluded": 0.8, "occluder_dir": "occluders"}
    plain = published["resnet101__classification__no_occlusion"]
    of_finetuning = {"finetune", "finetune_args", "model_dir"}
    jobs = {
        "supervised": {**published["resnet101__classification__natural"], "Occlusion": occluded},
        "simclr": published["cornet_s_plus__simclr__no_occlusion"],
        "cutmix": {**plain, "cutmix": "True"},
        "finetuned": {
            **{key: value for key, value in plain.items() if key not in of_finetuning},
            "transfer": True,
            "starting_params": "models/training/supervised",
            "freeze_layers": ["layer1"],
            "transfer_dir": "occ",
        },
    }
    for name, job in jobs.items():
        job |= {**SHRUNK, "model_dir": f"models/training/{FOLDERS[name]}"}
    return jobs


@pytest.mark.slow
def test_old_jobs_are_migrated_checked_trained_and_evaluated(cli, unchecked, unplotted):
    Path("old").mkdir()
    for name, job in old_jobs().items():
        Path("old", f"{name}.json").write_text(json.dumps(job))
    assert cli("migrate", "old", "--out", "new").returncode == 0
    for path in Path("new").iterdir():  # a tracker and an order are of today
        today = {**json.loads(path.read_text()), "trackers": []}
        today |= {"after": ["supervised"]} if path.stem == "finetuned" else {}
        path.write_text(json.dumps(today))
    assert cli("make-occluders", "occluders", *OCCLUDERS).returncode == 0
    added = cli("add", *(f"new/{name}.json" for name in FOLDERS))
    assert added.returncode == 0, added.stderr
    ran = cli("run-queue")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    runs = {name: load_run(Path("models/training", folder)) for name, folder in FOLDERS.items()}
    assert {name: run.status.state for name, run in runs.items()} == dict.fromkeys(FOLDERS, RunState.FINISHED)
    assert all(run.job.eval_crop == 1.0 for run in runs.values())
    assert runs["supervised"].job.Occlusion.visibility == [60, 90]
    assert (runs["simclr"].job.criterion, runs["simclr"].job.num_views) == ("SimCLRLoss", 2)
    assert runs["cutmix"].job.cutmix is not None
    assert runs["finetuned"].job.frozen_modules == ("layer1",)
    for name, run in runs.items():
        (own,) = [row for row in run.history if row["split"] == "val"]
        scores = run.evaluate(weights="final").scores
        assert "loss" in scores
        assert scores == {score: pytest.approx(own[score], rel=1e-4) for score in scores}, name
