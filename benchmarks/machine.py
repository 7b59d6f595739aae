"""The machine that a benchmark runs on, and the versions of what is compared."""

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

NOT_INSTALLED = "not installed"
# Of the cores, when a benchmark begins: others' work, which shares them with what is measured.
BUSY_SHARE = 0.25


@dataclass(frozen=True)
class Machine:
    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    load: float
    """Processes that were running or waited for a core, on average of the minute before."""

    @property
    def is_busy(self) -> bool:
        return self.load > BUSY_SHARE * self.cores


def this_machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / 1e9,
        system=_system(),
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    if sys.platform != "linux":
        return platform.platform()
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = "Linux"
    return f"{name}, kernel {platform.release()}"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of each package by its name in the registry; NOT_INSTALLED where it is not."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = NOT_INSTALLED
    return found
