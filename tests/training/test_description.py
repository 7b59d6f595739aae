"""What a run says of itself: its environment, its model and its first images."""

import json
import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from accel_trainer.config import Job
from accel_trainer.config.diff import Changes
from accel_trainer.core.installed import version_of
from accel_trainer.data import partial_decode
from accel_trainer.data.native import library
from accel_trainer.data.open import open_images
from accel_trainer.data.source_reader import SourceReader
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.meta_model import MAX_LINES, model_summary
from accel_trainer.training.runtime.environment import PACKAGES, record_attempt

# -- environment ---------------------------------------------------------------------------------------------


def attempt(
    run: RunFolder, num_processes: int = 1, changes: Changes | None = None, *, reads_encoded: bool = True
) -> str:
    return record_attempt(
        run,
        job_name="a job",
        device=torch.device("cpu"),
        num_processes=num_processes,
        loader_threads=3,
        reads_encoded=reads_encoded,
        parameters=17,
        changes=changes or {},
    )


def test_every_attempt_is_added_and_the_run_keeps_its_id(run: RunFolder) -> None:
    ids = {attempt(run, num_processes) for num_processes in (1, 2, 4)}
    environment = json.loads(run.environment.read_text())
    assert ids == {environment["run_id"]}
    assert (environment["job"], environment["parameters"]) == ("a job", 17)
    assert [a["num_processes"] for a in environment["attempts"]] == [1, 2, 4]
    last = environment["attempts"][-1]
    assert torch.__version__.startswith(last["packages"]["torch"])
    assert last["packages"]["accel-train"]
    assert last["device"] == "cpu"
    assert last["loader_threads"] == 3
    assert last["started"]
    assert attempt(RunFolder(run.params)) not in ids


def test_an_environment_that_cannot_be_read_is_begun_anew(run: RunFolder) -> None:
    run.environment.write_text('{"run_id": "x", ')
    attempt(run)
    assert len(json.loads(run.environment.read_text())["attempts"]) == 1


def test_an_attempt_says_whether_its_images_are_loaded_by_the_kernel(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "state", lambda: "not compiled")
    monkeypatch.setattr(partial_decode, "state", lambda: "no libjpeg-turbo")
    attempt(run)
    (last,) = json.loads(run.environment.read_text())["attempts"]
    assert (last["image_kernel"], last["partial_jpegs"]) == ("not compiled", "no libjpeg-turbo")


def test_parts_of_jpegs_are_not_tried_where_no_image_is_encoded(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_decode, "find", pytest.fail)
    partial_decode._found.cache_clear()
    attempt(run, reads_encoded=False)
    (last,) = json.loads(run.environment.read_text())["attempts"]
    assert last["partial_jpegs"] is None
    assert (
        SourceReader(open_images(Job(architecture="small_cnn", dataset="digits")).train, replace_corrupt=True).decoder
        is None
    )


def test_versions_are_those_that_python_finds() -> None:
    for package in PACKAGES:
        try:
            expected = version(package)
        except PackageNotFoundError:
            with pytest.raises(PackageNotFoundError):
                version_of(package)
        else:
            assert version_of(package) == expected


def test_what_has_changed_in_the_job_is_recorded(run: RunFolder) -> None:
    attempt(run)
    attempt(run, changes={"num_epochs": (2, 4)})
    first, second = json.loads(run.environment.read_text())["attempts"]
    assert "changes" not in first
    assert second["changes"] == {"num_epochs": [2, 4]}


def test_no_environment_variable_is_recorded_with_a_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "MARKED_VARIABLE"):
        monkeypatch.setenv(name, "a marked value")
    attempt(run)
    assert "a marked value" not in run.environment.read_text()
    assert "MARKED" not in run.environment.read_text()


def git(*words: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()


def test_the_state_of_the_code_is_recorded(run: RunFolder, own_environment: Path) -> None:
    def recorded() -> tuple[str | None, bool]:
        attempt(run)
        last = json.loads(run.environment.read_text())["attempts"][-1]
        assert last["working_folder"] == os.path.realpath(own_environment)
        return last["git_commit"], last["git_changes"]

    assert recorded() == (None, False)
    git("init")
    Path("code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-m", "one")
    assert recorded() == (git("rev-parse", "HEAD"), False)
    Path("code.py").write_text("2")
    assert recorded() == (git("rev-parse", "HEAD"), True)


# -- the model -------------------------------------------------------------------------------------------------


def total_in(summary: str) -> int:
    (total,) = re.findall(r"^  ([\d,]+) parameters", summary, re.MULTILINE)
    return int(total.replace(",", ""))


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "vit_b_32"])
def test_the_total_of_a_summary_is_that_of_all_parameters(name: str) -> None:
    with torch.device("meta"):
        model = models.get_model(name)
    summary = model_summary(model, 1000, 224)
    assert total_in(summary) == models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert summary.splitlines()[0] == f"{type(model).__name__}: 224x224 pixels to 1000 classes"


def test_the_parts_of_a_summary_add_up() -> None:
    model = models.resnet18(num_classes=10)
    summary = model_summary(model, 10, 32)
    parts = [int(count.replace(",", "")) for count in re.findall(r"^  \w+ +\w+ +([\d,]+)$", summary, re.MULTILINE)]
    assert len(parts) == len(list(model.children()))
    assert sum(parts) == total_in(summary)


def test_frozen_parameters_are_not_counted_as_trained() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    model[0].requires_grad_(False)
    assert model_summary(model, 5, 32).endswith("  41 parameters, 25 of them trained")


def test_a_long_model_is_cut_short() -> None:
    summary = model_summary(nn.Sequential(*(nn.Linear(1, 1) for _ in range(MAX_LINES + 5))), 1, 32)
    assert "  ... and 5 more" in summary
    assert total_in(summary) == 2 * (MAX_LINES + 5)
    assert len(summary.splitlines()) == MAX_LINES + 3


def test_a_model_without_parts_has_a_summary() -> None:
    assert total_in(model_summary(nn.Linear(3, 4), 4, 32)) == 16
