"""What a training imports before its second step: each module makes the first come later, and takes memory."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from helpers import write_job

from accel_trainer.config import read_job
from accel_trainer.launch.command import LaunchOptions, plan_launch
from accel_trainer.launch.machine import this_machine

# Tools of others that only some jobs need, or only what comes after the first step; and of torch what compiles, what
# computes with symbols and what shards.
UNWANTED = {
    "wandb", "timm", "datasets", "huggingface_hub", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn",
    "transformers", "tensorboard", "typer", "rich", "onnx", "sympy.core", "mpmath", "torch._inductor",
    "torch._dynamo.eval_frame", "torch.distributed.tensor", "torch.distributed.fsdp",
}  # fmt: skip
# What trains nothing, and what only other data need.
UNWANTED_OF_OURS = {
    "api", "cli", "doctor", "evaluation", "profiling", "queue", "report", "config.schema", "config.sweep",
    "config.migration.migrate", "data.native.build", "data.occluders.shapes", "data.occluders.synthetic",
    "data.pack.writer", "data.sources.hugging_face", "launch.attempt", "launch.command",
}  # fmt: skip
# The model of a job, which ends its trainer in its second step.
MODEL = """
import os, sys
from torch import nn, is_grad_enabled
from torchvision.models import resnet18

class Model(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.model, self.steps = resnet18(num_classes=num_classes), 0

    def forward(self, images):
        self.steps += self.training and is_grad_enabled() and not images.is_meta
        if self.steps == 2:
            print(*sys.modules, file=sys.stderr, flush=True)
            os._exit(0)
        return self.model(images)
"""


@pytest.fixture(scope="module")
def in_second_step(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a launched trainer has imported then."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "second_step.py").write_text(MODEL)
    model = {"architecture": "second_step:Model", "architecture_args": {}, "image_size": 32}
    write_job(folder / "job.json", model_dir=str(folder / "run"), **model)
    job = read_job(folder / "job.json")
    launch = plan_launch(job, LaunchOptions(cpu=True), this_machine(cpu=True), ["job.json", "--name=job"])
    allowed = {"PYTHONPATH": str(folder), "ACCEL_TRAIN_ALLOW_IMPORTS": "second_step"}
    return modules_of(launch.argv, folder, {**launch.environment, **allowed})


def modules_of(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> set[str]:
    """The modules that a process lists on its standard error."""
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("sys builtins ")]
    assert len(lines) == 1, ended.stdout + ended.stderr
    return set(lines[0].split())


def test_nothing_is_imported_before_the_second_step_that_it_does_not_need(in_second_step: set[str]) -> None:
    assert {"torch", "accel_trainer.training.loop"} <= in_second_step
    unwanted = UNWANTED | {f"accel_trainer.{name}" for name in UNWANTED_OF_OURS}
    assert {name for name in unwanted if name in in_second_step} == set()


def test_a_prewarmed_trainer_has_imported_all_libraries(in_second_step: set[str], tmp_path: Path) -> None:
    code = (
        "import sys; from accel_trainer.workers import train; train._preload([]); print(*sys.modules, file=sys.stderr)"
    )
    left = in_second_step - modules_of([sys.executable, "-c", code], tmp_path, {})
    libraries = {"torch", "torchvision", "numpy", "PIL", "psutil", "safetensors", "yaml"}
    assert {name for name in left if name.partition(".")[0] in libraries} == set()
