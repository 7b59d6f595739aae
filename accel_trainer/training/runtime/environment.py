"""What a run is trained in, and what of that has changed."""

import os
import platform
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from accel_trainer.config.diff import Changes
from accel_trainer.core.child_environment import names_set_aside, numeric_variables, tool_environment
from accel_trainer.core.installed import version_of
from accel_trainer.data import partial_decode
from accel_trainer.data.native import library
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_environment, write_environment
from accel_trainer.training.runtime.wait_policy import wait_policy


@dataclass(frozen=True)
class Environment:
    """Of one attempt. `cpu_threads` are torch's own, in each process, where they compute; else 0."""

    num_processes: int
    loader_threads: int
    device: str
    cpu_threads: int
    precision: str
    torch: str
    torchvision: str

    def as_record(self) -> dict[str, Any]:
        """As JSON has it, in a saved state."""
        return asdict(self)


def this_environment(accelerator: Accelerator, loader_threads: int) -> Environment:
    """What this process trains in."""
    device = accelerator.device.type
    return Environment(
        num_processes=accelerator.num_processes,
        loader_threads=loader_threads,
        device=device,
        # Their number changes the last bits of sums on a CPU.
        cpu_threads=torch.get_num_threads() if device == "cpu" else 0,
        precision={"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision),
        torch=version_of("torch"),
        torchvision=version_of("torchvision"),
    )


def describe_change(
    then: Mapping[str, Any], now: Environment, *, has_batch_norm: bool, has_dropout: bool
) -> str | None:
    """One line about resuming in another environment than the one that saved a state; None where nothing changed.

    then: what is known of that environment.
    """
    phrases = {
        "num_processes": _counted("process", "processes"),
        "loader_threads": _counted("loader thread", "loader threads"),
        "device": lambda old, new: f"on {new} instead of {old}",
        "cpu_threads": _counted("CPU thread", "CPU threads"),
        "precision": lambda old, new: f"in {new} instead of {old}",
        "torch": lambda old, new: f"with torch {new} instead of {old}",
        "torchvision": lambda old, new: f"with torchvision {new} instead of {old}",
    }
    record = now.as_record()
    changed = {key for key in phrases if then.get(key, record[key]) != record[key]}
    if "device" in changed:
        changed.discard("cpu_threads")
    if not changed:
        return None
    changes = ", ".join(phrases[key](then[key], record[key]) for key in phrases if key in changed)
    return f"going on {changes}: {_consequence(changed, has_batch_norm=has_batch_norm, has_dropout=has_dropout)}"


def _counted(one: str, several: str) -> Any:
    def phrase(old: int, new: int) -> str:
        return f"with {new} {one if new == 1 else several} instead of {old}"

    return phrase


def _consequence(changed: set[str], *, has_batch_norm: bool, has_dropout: bool) -> str:
    if changed == {"loader_threads"}:
        return "the same training, bit for bit"
    others = ["sums are rounded differently"]
    if "num_processes" in changed and has_batch_norm:
        others.append("BatchNorm has the statistics of other parts of a batch")
    if has_dropout and not changed.isdisjoint({"num_processes", "device"}):
        others.append("dropout draws are others")
    return f"the same images, augmentations and batches; {', '.join(others)}"


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has BatchNorm layers, whose statistics depend on the number of processes."""
    return any("BatchNorm" in type(module).__name__ for module in model.modules())


def has_dropout(model: nn.Module) -> bool:
    """Whether a model has dropout, or anything else that draws while it trains, by its name."""
    names = ("Dropout", "StochasticDepth", "DropPath", "DropBlock")
    drawing = (module for module in model.modules() if any(name in type(module).__name__ for name in names))
    return any(getattr(module, "p", 1) != 0 for module in drawing)


# Weights & Biases takes 64 characters.
MAX_NAME_IN_ID = 54

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
    reads_encoded: bool,
    parameters: int,
    changes: Changes,
) -> str:
    """Add this attempt to environment.json; the run's id, which stays the same over all attempts.

    reads_encoded: whether images may be stored as JPEGs; changes: what the job of the attempt before had otherwise,
    recorded as {key: [then, now]}.
    """
    known = read_environment(run)
    run_id = str(known.get("run_id") or _new_id(job_name))
    attempt = _attempt(device, num_processes, loader_threads, reads_encoded=reads_encoded)
    if changes:
        attempt["changes"] = dict(changes)
    attempts = [*known.get("attempts", []), attempt]
    content = {"job": job_name, "run_id": run_id, "parameters": parameters, "attempts": attempts}
    write_environment(run, content)
    return run_id


def _new_id(job_name: str) -> str:
    """A name for trackers and the folders that they make, which no other run has: digits-resnet18-3f2a1b07."""
    return f"{re.sub(r'[^0-9A-Za-z_-]+', '-', job_name)[:MAX_NAME_IN_ID].strip('-')}-{secrets.token_hex(4)}".lstrip("-")


def _attempt(device: torch.device, num_processes: int, loader_threads: int, *, reads_encoded: bool) -> dict[str, Any]:
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
        # `compiled`, or why it is not used: the same bits, more slowly.
        "image_kernel": library.state(),
        # Where there are none it is not tried.
        "partial_jpegs": partial_decode.state() if reads_encoded else None,
        "cores": os.cpu_count(),
        # The number of threads changes the last bits of sums on a CPU.
        "threads": torch.get_num_threads(),
        "wait_policy": wait_policy(),
        # So do the instructions of the processor that its kernels are made for.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "variables": numeric_variables(),
        "variables_set_aside": names_set_aside(),
        "working_folder": os.getcwd(),  # noqa: PTH109 - a record, as the system has it
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _version(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git answers of the working folder, or None where there is no repository or no git."""
    try:
        answer = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=True, env=tool_environment()
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
