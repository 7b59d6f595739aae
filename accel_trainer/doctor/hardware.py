"""Hardware: the GPUs that the queue counts and those that torch sees, cores, memory, shared memory.

The checks of GPUs were tried with recorded output of nvidia-smi and torch, not on one.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accel_trainer.core.limits import available_memory, cpu_quota, memory_limit
from accel_trainer.core.processes import usable_cores
from accel_trainer.doctor.findings import Finding, ok, problem, warning
from accel_trainer.launch.machine import Machine, this_machine
from accel_trainer.launch.nvidia import HINT, answer_of_driver
from accel_trainer.launch.visible import VISIBLE_VARIABLE

GIGABYTE = 10**9
# What a trainer of one process uses before its first image: torch, its libraries, a model.
TRAINER_MEMORY = 3 * GIGABYTE
# What NCCL may take of shared memory for each GPU; a container has 64 MB by default.
SHARED_MEMORY_PER_GPU = 10**8
SHARED_MEMORY = Path("/dev/shm")


def gpus() -> Finding:
    """The GPUs that a runner of the queue uses by default."""
    visible, machine = os.environ.get(VISIBLE_VARIABLE), this_machine()
    if machine.unusable is not None and not machine.gpus:
        return problem(machine.unusable.message, machine.unusable.hint)
    found = answer_of_driver()
    if not found.gpus:
        return ok("Apple's, by MPS" if machine.has_mps else "none of NVIDIA's; jobs are trained on the CPU")
    names = ", ".join(map(str, machine.gpus)) or "none"
    if found.broken:
        return warning(f"{names}; {'; '.join(found.broken)}", HINT)
    if visible is None:
        return ok(names)
    if not machine.gpus:
        return warning(
            f"none of {len(found.gpus)}: {VISIBLE_VARIABLE}={visible!r} hides them", "unset it, or name GPUs that exist"
        )
    return ok(f"{names}; chosen from {len(found.gpus)} by {VISIBLE_VARIABLE}={visible!r}")


def torch_gpus(machine: Machine, torch_report: Mapping[str, Any], driver: str | None) -> Finding:
    """Whether torch sees the GPUs that the queue counts, and was built for them.

    torch_report: the answer of `workers/probe_torch`; driver: the newest CUDA version that the driver supports.
    """
    of_queue, of_torch = len(machine.gpus), len(torch_report["gpus"])
    if of_torch < of_queue:
        summary = f"torch sees {of_torch} of {of_queue}"
        if torch_report["cuda"] is None:
            return problem(
                f"{summary}: it was built without CUDA",
                "install torch for CUDA: https://pytorch.org/get-started/locally",
            )
        if driver is not None and _major(torch_report["cuda"]) > _major(driver):
            return problem(
                f"{summary}: it was built for CUDA {torch_report['cuda']}, and the driver supports {driver}",
                f"update the driver, or install torch for CUDA {driver}: https://pytorch.org/get-started/locally",
            )
        reason = f": {torch_report['warnings'][-1]}" if torch_report["warnings"] else ""
        return problem(f"{summary}{reason}", "make `python -c 'import torch; torch.zeros(1).cuda()'` work")
    if of_torch > of_queue:
        return warning(
            f"torch sees {of_torch}, run-queue counts {of_queue} and takes no more (it asks NVIDIA's driver)",
            "give the runner a `config` from accelerate_configs/",
        )
    if unfit := [
        gpu for gpu in torch_report["gpus"] if not _is_built_for(gpu["capability"], torch_report["architectures"])
    ]:
        return problem(
            f"torch was not built for {unfit[0]['name']} (sm_{''.join(map(str, unfit[0]['capability']))})",
            "install a build that was: https://pytorch.org/get-started/locally",
        )
    if machine.has_mps and not torch_report["mps"]:
        return problem("torch cannot use this Mac's GPU (MPS)", "update macOS, or install torch for arm64")
    if of_torch == 0:
        return ok("torch sees this Mac's GPU" if torch_report["mps"] else "torch sees none either")
    built_for = f"CUDA {torch_report['cuda']}" if torch_report["cuda"] else f"ROCm {torch_report['hip']}"
    return ok(f"torch sees {'it' if of_torch == 1 else f'all {of_torch}'}, and was built for {built_for}")


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _is_built_for(capability: list[int], architectures: list[str]) -> bool:
    """Whether code of one of the architectures runs on a GPU: machine code (sm_80) on later ones of its major version,
    intermediate code (compute_80) on all later ones."""
    if not any(re.match(r"(sm|compute)_\d+", name) for name in architectures):
        return True  # another vendor's, with other names
    for name in architectures:
        if found := re.match(r"(sm|compute)_(\d+)(\d)", name):
            major, minor = int(found[2]), int(found[3])
            is_earlier = [major, minor] <= capability
            if is_earlier and (found[1] == "compute" or major == capability[0]):
                return True
    return False


def cores() -> Finding:
    """Cores that this process may use; with a quota that is no whole number of them, threads wait for each other."""
    usable, total = usable_cores(), os.cpu_count() or 1
    summary = f"{usable} of {total}"
    quota = cpu_quota()
    if quota is not None and quota < usable:
        return warning(
            f"{summary}, but a quota of {quota:.1f} (the container's limit)",
            "give the container its own cores (docker run --cpuset-cpus) instead of a quota (--cpus)",
        )
    return ok(summary if quota is None else f"{summary} (a quota of {quota:.1f}, the container's limit)")


def memory() -> Finding:
    """Free memory of the machine, or of the container where that has less."""
    import psutil

    total, free, of_container = psutil.virtual_memory().total, available_memory(), ""
    if (limit := memory_limit()) is not None and limit < total:
        total, of_container = limit, " (the container's limit)"
    summary = f"{free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB free{of_container}"
    if free < TRAINER_MEMORY:
        return warning(f"{summary}; a trainer may need more", "end other processes, or give the container more")
    return ok(summary)


def shared_memory(machine: Machine) -> Finding:
    """Free space in /dev/shm, which NCCL uses between GPUs; loaders here are threads and need none."""
    try:
        about = os.statvfs(SHARED_MEMORY)
    except OSError:
        return ok("there is no /dev/shm; nothing here needs one")
    size, free = about.f_blocks * about.f_frsize, about.f_bavail * about.f_frsize
    summary = f"{free / GIGABYTE:.1f} of {size / GIGABYTE:.1f} GB of /dev/shm free"
    if len(machine.gpus) > 1 and free < SHARED_MEMORY_PER_GPU * len(machine.gpus):
        return warning(
            f"{summary}, little for {len(machine.gpus)} GPUs that train together",
            "remove files there; in a container, docker run --shm-size=2g",
        )
    return ok(summary)
