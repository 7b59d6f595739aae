"""What a run was trained with: versions, hardware, the state of the code. No environment variables: they hold
secrets."""

import json
import os
import platform
import secrets
import socket
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from accel_trainer.config.diff import Changes
from accel_trainer.core.files import write_atomic
from accel_trainer.run.folder import RunFolder

PACKAGES = (
    "accel-train",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "datasets",
    "safetensors",
    "numpy",
    "pillow",
    "wandb",
)


def record_attempt(
    run: RunFolder,
    *,
    job_name: str,
    device: torch.device,
    num_processes: int,
    loader_threads: int,
    parameters: int,
    changes: Changes,
) -> str:
    """Add this attempt to environment.json; the run's id, which stays the same over all attempts.

    changes: what the job of the attempt before had otherwise, recorded as {key: [then, now]}.
    """
    known = run.read_environment()
    run_id = str(known.get("run_id") or secrets.token_hex(6))
    attempt = _attempt(device, num_processes, loader_threads)
    if changes:
        attempt["changes"] = dict(changes)
    attempts = [*known.get("attempts", []), attempt]
    content = {"job": job_name, "run_id": run_id, "parameters": parameters, "attempts": attempts}
    write_atomic(run.environment, json.dumps(content, indent=2) + "\n")
    return run_id


def _attempt(device: torch.device, num_processes: int, loader_threads: int) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "num_processes": num_processes,
        "loader_threads": loader_threads,
        "cores": os.cpu_count(),
        # The number of threads changes the last bits of sums on a CPU.
        "threads": torch.get_num_threads(),
        "working_folder": os.getcwd(),  # noqa: PTH109 - a record, as the system has it
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    """What git says of the working folder, or None where there is no repository or no git."""
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
