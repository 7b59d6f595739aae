"""What is said of going on in another world."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torchvision import models

from accel_trainer.training.runtime import environment
from accel_trainer.training.runtime.environment import Environment, describe_change, has_batch_norm, has_dropout

THEN = Environment(1, 2, "cpu", 4, "float32", "2.13.0", "0.28.0")
ROUNDED = "the same images, augmentations and batches; sums are rounded differently"
NORM, DROPOUT = "BatchNorm has the statistics of other parts of a batch", "dropout draws are others"


@pytest.mark.parametrize(
    ("change", "traits", "line"),
    [
        ({}, (True, True), None),
        ({"loader_threads": 0}, (True, True), "with 0 loader threads instead of 2: the same training, bit for bit"),
        (
            {"num_processes": 2, "loader_threads": 1},
            (False, False),
            f"with 2 processes instead of 1, with 1 loader thread instead of 2: {ROUNDED}",
        ),
        ({"num_processes": 2}, (True, False), f"with 2 processes instead of 1: {ROUNDED}, {NORM}"),
        ({"num_processes": 2}, (False, True), f"with 2 processes instead of 1: {ROUNDED}, {DROPOUT}"),
        ({"num_processes": 2}, (True, True), f"with 2 processes instead of 1: {ROUNDED}, {NORM}, {DROPOUT}"),
        ({"cpu_threads": 1}, (True, True), f"with 1 CPU thread instead of 4: {ROUNDED}"),
        (
            {"device": "cuda", "cpu_threads": 0, "precision": "bf16"},
            (True, True),
            f"on cuda instead of cpu, in bf16 instead of float32: {ROUNDED}, {DROPOUT}",
        ),
        (
            {"torch": "2.14.1", "torchvision": "0.29.1"},
            (True, True),
            f"with torch 2.14.1 instead of 2.13.0, with torchvision 0.29.1 instead of 0.28.0: {ROUNDED}",
        ),
    ],
)
def test_a_changed_environment_is_reported_in_one_line(
    change: dict[str, Any], traits: tuple[bool, bool], line: str | None
) -> None:
    told = describe_change(THEN.as_record(), replace(THEN, **change), has_batch_norm=traits[0], has_dropout=traits[1])
    assert told == (None if line is None else f"going on {line}")


def test_unknown_parts_of_an_environment_are_not_reported() -> None:
    assert describe_change({"num_processes": 1}, THEN, has_batch_norm=True, has_dropout=True) is None


@pytest.mark.parametrize(
    ("model", "norm", "dropout"),
    [
        (nn.Linear(1, 1), False, False),
        (nn.Sequential(nn.BatchNorm2d(1)), True, False),
        (nn.Sequential(nn.Dropout(0.5)), False, True),
        (nn.Sequential(nn.Dropout(0.0)), False, False),
        (models.convnext_tiny(stochastic_depth_prob=0.1), False, True),
    ],
)
def test_what_depends_on_the_number_of_processes_is_seen(model: nn.Module, norm: bool, dropout: bool) -> None:
    assert (has_batch_norm(model), has_dropout(model)) == (norm, dropout)


def test_the_commit_is_that_of_the_folder_whatever_repository_a_shell_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("git"):
        pytest.skip("needs git")
    for name in ("mine", "others"):
        (tmp_path / name).mkdir()
        made = f"git init -q && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m {name}"
        subprocess.run(made, shell=True, check=True, cwd=tmp_path / name)
    monkeypatch.chdir(tmp_path / "mine")
    before = environment._git("rev-parse", "HEAD")
    assert before is not None
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "others/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "others"))
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert environment._git("rev-parse", "HEAD") == before
    assert environment._git("status", "--porcelain", "--untracked-files=no") == ""
