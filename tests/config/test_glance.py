"""A glance at a job's file sees where it trains and what it waits for as the whole job does."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import read_job
from accel_trainer.config.glance import JobGlance, glance


def write(folder: Path, content: str, name: str = "a") -> Path:
    path = folder / f"{name}.json"
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"dataset": "digits", "num_epochs": 7},
        {"model_dir": "models/other"},
        {"model_dir": "~/runs/x"},
        {"architecture": "timm:resnet18", "after": ["b", "c"], "retries": 2},
        {"finetune": True, "finetune_args": {"starting_params": "b"}},
        {"finetune": True, "finetune_args": {"starting_params": "./b"}, "after": ["b"]},
        {"finetune": True, "finetune_args": {"starting_params": "b.pt", "finetune_dir": "small/one"}},
        {"finetune": True, "model_dir": "m", "finetune_args": {"starting_params": "b", "finetune_dir": "m/fine"}},
        {"finetune": None, "after": None, "model_dir": None, "retries": None, "finetune_args": None},
    ],
)
def test_what_is_seen_is_what_the_job_says(tmp_path: Path, given: dict[str, Any]) -> None:
    path = write(tmp_path, "\ufeff" + json.dumps({"architecture": "resnet18", **given}))
    job = read_job(path)
    seen = glance(path, "a")
    assert seen == JobGlance(
        job.run_path,
        tuple(job.after),
        job.parent_job,
        job.retries,
        architecture=job.architecture,
        dataset=given.get("dataset"),
        num_epochs=given.get("num_epochs"),
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "{}",
        '{"architecture": 1}',
        '{"architecture": "resnet18", "model_dir": ["m"]}',
        '{"architecture": "resnet18", "model_dir": "../m"}',
        '{"architecture": "resnet18", "model_dir": "m\\u001b"}',
        '{"architecture": "resnet18", "after": "b"}',
        '{"architecture": "resnet18", "after": [1]}',
        '{"architecture": "resnet18", "finetune": "yes"}',
        '{"architecture": "resnet18", "finetune": true, "finetune_args": [1]}',
        '{"architecture": "resnet18", "architecture": "resnet34"}',
        '{"architecture": "resnet18", "seed": NaN}',
        f'{{"architecture": "resnet18", "description": "{"x" * 2**18}"}}',
    ],
)
def test_what_no_job_can_say_is_not_seen(tmp_path: Path, content: str) -> None:
    assert glance(write(tmp_path, content), "a") is None


def test_a_link_is_not_followed_and_a_missing_file_is_none(tmp_path: Path) -> None:
    link = tmp_path / "b.json"
    link.symlink_to(write(tmp_path, '{"architecture": "resnet18"}'))
    assert glance(link, "b") is None
    assert glance(tmp_path / "c.json", "c") is None
