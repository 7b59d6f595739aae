"""Real trainings that diverge or run out of memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_job
from PIL import Image

from accel_trainer.config import read_job
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found
from accel_trainer.run.status import RunState, read_status
from accel_trainer.training.build import training_data

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {"architecture": "tiny_models:Pixels", "image_size": 8, "architecture_args": {"image_size": 8}}


def write_images(folder: Path, black: int) -> None:
    """Eighty images of two classes, one of the training images black."""
    drawn = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    drawn[black] = 0
    for number, pixels in enumerate(drawn):
        split, label = ("train", number // 32) if number < 64 else ("val", number % 2)
        target = folder / split / f"class{label}" / f"{number:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target)


def test_a_diverged_step_names_the_images_of_all_processes(server, tmp_path):
    """One black image, on one of two processes: the other learns of it a step later."""
    write_images(tmp_path / "data", black=37)
    given = {**TINY, "architecture": "tiny_models:AfraidOfTheDark", "batch_size": 8, "gradient_accumulation": 2}
    file = write_job(
        tmp_path / "job.json", **given, dataset="data", data_root=str(tmp_path), model_dir=str(tmp_path / "run")
    )
    assert server.attempt(file, "token", tmp_path / "log", processes=2) == [1, 1], (tmp_path / "log").read_text()
    status = read_status(RunFolder(tmp_path / "run"))
    assert status.state is RunState.DIVERGED
    sampling = training_data(read_job(file), 1).sampling
    batches = [plan.global_indices.tolist() for plan in sampling.micro_batches(1, 0)][::2]
    (step,) = (step for step, samples in enumerate(batches) if 37 in samples)
    assert (status.diverged.step, status.diverged.epoch) == (step + 1, 1)
    assert list(status.diverged.samples) == batches[step]
    assert f"at step {step + 1} (epoch 1, learning rate 0.0003, training images {batches[step][0]}, " in status.error


@pytest.mark.usefixtures("tiny_models", "unplotted")
def test_after_one_process_ran_out_of_memory_the_next_attempt_takes_less(cli, tmp_path):
    """Of 512 images in each of two processes, where one can take 300. On a CPU what fits is not tried."""
    given = {**TINY, "architecture": "tiny_models:HungrySecond", "batch_size": "auto", "num_epochs": 1}
    given["architecture_args"] = {"image_size": 8, "most": 300}
    write_job(Path("job.json"), **given, model_dir=str(tmp_path / "run"))
    run = RunFolder(tmp_path / "run")
    assert cli("train", "job.json", "--num-processes", "2").returncode == 1
    status = read_status(run)
    assert status.error.startswith(
        "rank-1: out of memory at step 1 (epoch 1) with batch_size 1024 (CUDA out of memory."
    )
    assert status.error.endswith("512 would fit; the next attempt takes no more")
    assert (status.state, status.fitting_batch_size) == (RunState.OUT_OF_MEMORY, 512)
    again = cli("train", "job.json", "--num-processes", "2")
    assert again.returncode == 0, again.stdout
    assert read_found(run) == {"auto": 512}
    assert "batch_size: 512 (1024 did not fit into memory in an earlier attempt)" in run.log.read_text()
