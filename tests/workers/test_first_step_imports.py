"""What a training imports before its first step: each module makes it come later."""

import os
import subprocess
import sys
from pathlib import Path

from helpers import write_job

# Tools of others that only some jobs need, or only what comes after the first step.
UNWANTED = {
    "wandb", "timm", "datasets", "huggingface_hub", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn",
    "transformers", "tensorboard", "typer", "rich", "onnx",
}  # fmt: skip
# What trains nothing, and what only other data need.
UNWANTED_OF_OURS = {
    "api", "cli", "doctor", "evaluation", "profiling", "queue", "report", "config.schema", "config.sweep",
    "config.migration.migrate", "data.native.build", "data.occluders.shapes", "data.occluders.synthetic",
    "data.pack.writer", "data.sources.hugging_face", "launch.attempt", "launch.command",
}  # fmt: skip
# As the launcher does it, which becomes the trainer.
CODE = """
import os, runpy, sys

def step(*_, **__):
    print(*sys.modules, file=sys.stderr, flush=True)
    os._exit(0)

from accelerate.commands import launch
from accel_trainer.training.step import TrainingStep
TrainingStep.__call__ = step
sys.argv[1:] = ["job.json", "--name=job"]
runpy.run_module("accel_trainer.workers.train", run_name="__main__", alter_sys=True)
"""


def test_nothing_is_imported_before_the_first_step_that_it_does_not_need(tmp_path: Path) -> None:
    write_job(tmp_path / "job.json", model_dir="run")
    ended = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("sys builtins ")]
    assert len(lines) == 1, ended.stderr
    modules = set(lines[0].split())
    assert {"torch", "accel_trainer.training.loop"} <= modules
    unwanted = UNWANTED | {f"accel_trainer.{name}" for name in UNWANTED_OF_OURS}
    assert {name for name in unwanted if name in modules} == set()
