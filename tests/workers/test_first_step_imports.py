"""What a training imports before its second step: each module makes the first come later, and takes memory."""

import os
import subprocess
from pathlib import Path

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


def test_nothing_is_imported_before_the_second_step_that_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "second_step.py").write_text(MODEL)
    model = {"architecture": "second_step:Model", "architecture_args": {}, "image_size": 32}
    write_job(tmp_path / "job.json", model_dir=str(tmp_path / "run"), **model)
    job = read_job(tmp_path / "job.json")
    launch = plan_launch(job, LaunchOptions(cpu=True), this_machine(cpu=True), ["job.json", "--name=job"])
    ended = subprocess.run(
        launch.argv,
        cwd=tmp_path,
        env={
            **os.environ,
            **launch.environment,
            "PYTHONPATH": str(tmp_path),
            "ACCEL_TRAIN_ALLOW_IMPORTS": "second_step",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("sys builtins ")]
    assert len(lines) == 1, ended.stdout + ended.stderr
    modules = set(lines[0].split())
    assert {"torch", "accel_trainer.training.loop"} <= modules
    unwanted = UNWANTED | {f"accel_trainer.{name}" for name in UNWANTED_OF_OURS}
    assert {name for name in unwanted if name in modules} == set()
