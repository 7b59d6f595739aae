"""Real trainings that something happens to."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, write_job
from PIL import Image

from accel_trainer.config import read_job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found
from accel_trainer.run.status import RunState, read_status
from accel_trainer.training.build import training_data

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {"architecture": "tiny_models:Pixels", "image_size": 8, "architecture_args": {"image_size": 8}}


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of tests/tiny_models.py are a package that the user allows."""
    monkeypatch.setenv(ALLOW_VARIABLE, "tiny_models")
    known = [str(REPOSITORY / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, known)))


def write_images(folder: Path, black: int) -> None:
    """Eighty images of two classes, one of the training images black."""
    drawn = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    drawn[black] = 0
    for number, pixels in enumerate(drawn):
        split, label = ("train", number // 32) if number < 64 else ("val", number % 2)
        target = folder / split / f"class{label}" / f"{number:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target)


@pytest.mark.usefixtures("tiny_models")
def test_the_images_of_a_step_are_those_of_all_processes(cli, tmp_path):
    """One black image, on one of two processes: the other learns of it a step later."""
    write_images(tmp_path / "data", black=37)
    given = {**TINY, "architecture": "tiny_models:AfraidOfTheDark", "batch_size": 8, "gradient_accumulation": 2}
    file = write_job(
        Path("job.json"), **given, dataset="data", data_root=str(tmp_path), model_dir=str(tmp_path / "run")
    )
    result = cli("train", "job.json", "--num-processes", "2")
    assert result.returncode == 1, result.stdout
    said = read_status(RunFolder(tmp_path / "run"))
    assert said.state is RunState.DIVERGED
    sampling = training_data(read_job(file), 1).sampling
    batches = [plan.global_indices.tolist() for plan in sampling.micro_batches(1, 0)][::2]
    (step,) = (step for step, samples in enumerate(batches) if 37 in samples)
    assert (said.diverged.step, said.diverged.epoch) == (step + 1, 1)
    assert list(said.diverged.samples) == batches[step]
    assert f"at step {step + 1} (epoch 1, learning rate 0.0003, training images {batches[step][0]}, " in result.stdout


@pytest.mark.usefixtures("tiny_models")
def test_a_process_of_several_that_is_out_of_memory_has_less_to_do_in_the_next_attempt(cli, tmp_path):
    """Of 512 images in each of two processes, where one can take 300. On a CPU what fits is not tried."""
    given = {**TINY, "architecture": "tiny_models:HungrySecond", "batch_size": "auto", "num_epochs": 1}
    given["architecture_args"] = {"image_size": 8, "most": 300}
    write_job(Path("job.json"), **given, model_dir=str(tmp_path / "run"))
    run = RunFolder(tmp_path / "run")
    assert cli("train", "job.json", "--num-processes", "2").returncode == 1
    said = read_status(run)
    assert said.error.startswith("rank-1: out of memory at step 1 (epoch 1) with batch_size 1024 (CUDA out of memory.")
    assert said.error.endswith("512 would fit; the next attempt takes no more")
    assert (said.state, said.fitting_batch_size) == (RunState.OUT_OF_MEMORY, 512)
    again = cli("train", "job.json", "--num-processes", "2")
    assert again.returncode == 0, again.stdout
    assert read_found(run) == {"auto": 512}
    assert "batch_size: 512 (1024 did not fit into memory in an earlier attempt)" in run.log.read_text()
