"""The code of a run on Weights & Biases, where a job wants it there: wandb's own page of a run's code shows it."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.config import Job
from accel_trainer.core.child_environment import tool_environment
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.model_source import ModelSource
from accel_trainer.zoo import registry

if TYPE_CHECKING:
    import wandb

MAX_DIFF = 2**20
GIT_S = 10


def log_code(run: "wandb.Run", job: Job, folder: RunFolder, id_: str) -> None:
    """Log the files of a model of the user's own, what differs from the last commit, and the job, by wandb's
    `log_code`. What is larger than MAX_DIFF is no change of code, and left out."""
    with tempfile.TemporaryDirectory(prefix="accel-train-code-") as name:
        place = Path(name)
        if registry.is_users_own(job.architecture):
            for path_inside, file in ModelSource(job.architecture).files.items():
                target = place / path_inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        if 0 < len(diff := _uncommitted()) <= MAX_DIFF:
            (place / "diff.patch").write_bytes(diff)
        if folder.config.is_file():
            shutil.copyfile(folder.config, place / folder.config.name)
        run.log_code(str(place), name=f"{id_}-code", include_fn=lambda path: True)


def _uncommitted() -> bytes:
    """What differs from the last commit of the working folder, in files that git knows; nothing without git."""
    try:
        command = ["git", "diff", "HEAD", "--no-color", "--no-ext-diff"]
        return subprocess.run(
            command, capture_output=True, timeout=GIT_S, check=True, env=tool_environment(), stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return b""
