"""Devices, as a fake nvidia-smi and a fake torch tell of them; and what a container leaves of a machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from launch.fake_driver import FAILING, HANGING, HEALTHY, FakeDriver

from accel_trainer.doctor import hardware
from accel_trainer.doctor.findings import Grade
from accel_trainer.launch import command, nvidia
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.nvidia import Found, Gpu, answer_of_driver

CPU = Machine((), has_mps=False, cores=2)
TWO = Machine((Gpu("0", "A100", "40 GiB"), Gpu("1", "A100", "40 GiB")), has_mps=False, cores=2)
MAC = Machine((), has_mps=True, cores=2)
TOLD = {"cuda": "13.0", "hip": None, "gpus": [], "architectures": [], "mps": False, "warnings": []}
A100 = {"name": "A100", "capability": [8, 0]}


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """None of the library: nvidia-smi answers alone."""
    answer_of_driver.cache_clear()
    yield FakeDriver(tmp_path / "root", monkeypatch, tmp_path)
    answer_of_driver.cache_clear()


# -- GPUs -------------------------------------------------------------------------------------------------------------


def test_the_driver_is_asked_in_an_environment_that_is_made(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.smi('echo "0, GPU-a, $LC_ALL $RANK$GIT_DIR, 40960 MiB, 0 MiB"')
    for name in ("LC_ALL", "RANK", "GIT_DIR"):
        monkeypatch.setenv(name, "wrong")
    assert hardware.gpus().message == "0: C (40960 MiB)"


def test_a_machine_without_gpus_is_good(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.sys, "platform", "linux")
    finding = hardware.gpus()
    assert finding.grade is Grade.OK
    assert finding.message == "none of NVIDIA's; jobs are trained on the CPU"


def test_gpus_are_named_as_the_queue_counts_them(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.smi(HEALTHY)
    assert hardware.gpus().message == "0: NVIDIA A100 (32768 MiB), 1: NVIDIA A100 (32768 MiB)"
    answer_of_driver.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f6b")
    finding = hardware.gpus()
    assert finding.grade is Grade.OK
    assert finding.message == "1: NVIDIA A100 (32768 MiB); chosen from 2 by CUDA_VISIBLE_DEVICES='GPU-8f6b'"
    answer_of_driver.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = hardware.gpus()
    assert finding.grade is Grade.WARNING
    assert "none of 2: CUDA_VISIBLE_DEVICES='' hides them" in finding.message


@pytest.mark.parametrize(
    ("script", "said"), [(FAILING, "NVIDIA-SMI has failed"), ("exit 3", "exit code 3"), (HANGING, "no answer within")]
)
def test_an_nvidia_smi_that_fails_or_hangs_is_a_problem(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(nvidia, "LIMIT_S", 0.7)
    driver.nodes()
    driver.smi(script)
    finding = hardware.gpus()
    assert finding.grade is Grade.PROBLEM
    assert finding.message.startswith(f"GPUs that are there cannot be used: nvidia-smi: {said}")
    assert finding.fix is not None
    assert "repair the driver" in finding.fix


def test_a_gpu_that_is_lost_is_a_warning(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu("1", "A100", "40 GiB")
    monkeypatch.setattr(hardware, "answer_of_driver", lambda: Found((gpu,), broken=("GPU 0: GPU is lost",)))
    monkeypatch.setattr(hardware, "this_machine", lambda: Machine((gpu,), False, 2))
    assert hardware.gpus().message == "1: A100 (40 GiB); GPU 0: GPU is lost"
    assert hardware.gpus().grade is Grade.WARNING


@pytest.mark.parametrize(
    ("machine", "changes", "driver", "grade", "said"),
    [
        (CPU, {}, None, Grade.OK, "torch sees none either"),
        (TWO, {"gpus": [A100] * 2, "architectures": ["sm_80"]}, "13.0", Grade.OK, "sees all 2, and was built for CUDA"),
        (TWO, {"cuda": None}, "13.0", Grade.PROBLEM, "torch sees 0 of 2: it was built without CUDA"),
        (TWO, {}, "12.4", Grade.PROBLEM, "built for CUDA 13.0, and the driver supports 12.4"),
        (TWO, {"warnings": ["CUDA unknown error"]}, "13.0", Grade.PROBLEM, "torch sees 0 of 2: CUDA unknown error"),
        (TWO, {"gpus": [A100]}, None, Grade.PROBLEM, "torch sees 1 of 2"),
        (CPU, {"gpus": [A100], "cuda": None, "hip": "6.3"}, None, Grade.WARNING, "torch sees 1, run-queue counts 0"),
        (
            TWO,
            {"gpus": [A100] * 2, "architectures": ["sm_90"]},
            "13.0",
            Grade.PROBLEM,
            "was not built for A100 (sm_80)",
        ),
        (MAC, {"cuda": None, "mps": True}, None, Grade.OK, "torch sees this Mac's GPU"),
        (MAC, {"cuda": None}, None, Grade.PROBLEM, "torch cannot use this Mac's GPU"),
    ],
)
def test_torch_must_see_what_the_queue_counts(
    machine: Machine, changes: dict[str, Any], driver: str | None, grade: Grade, said: str
) -> None:
    finding = hardware.torch_gpus(machine, {**TOLD, **changes}, driver)
    assert finding.grade is grade
    assert said in finding.message
    assert (finding.fix is None) == (grade is Grade.OK)


@pytest.mark.parametrize(
    ("capability", "architectures", "fits"),
    [
        ([8, 6], ["sm_80", "sm_90"], True),  # machine code runs on later ones of its major version
        ([8, 0], ["sm_86"], False),
        ([12, 0], ["sm_90"], False),
        ([12, 0], ["sm_90", "compute_90"], True),  # intermediate code on all later ones
        ([12, 0], ["sm_120"], True),
        ([9, 0], ["sm_90a"], True),
        ([9, 4], ["gfx942"], True),
    ],
)
def test_which_code_runs_on_which_gpu(capability: list[int], architectures: list[str], fits: bool) -> None:
    gpu = {"name": "G", "capability": capability}
    one = Machine((Gpu("0", "G", "1 GiB"),), has_mps=False, cores=1)
    finding = hardware.torch_gpus(one, {**TOLD, "gpus": [gpu], "architectures": architectures}, None)
    assert (finding.grade is Grade.OK) == fits


# -- what a container leaves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "usable", "said"), [(None, 4, None), (8.0, 4, "a quota of 8.0"), (1.5, 1, "a quota of 1.5")]
)
def test_a_container_with_less_time_than_cores_is_reported(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int, said: str | None
) -> None:
    monkeypatch.setattr(hardware, "cpu_quota", lambda: quota)
    monkeypatch.setattr(hardware, "usable_cores", lambda: usable)
    finding = hardware.cores()
    assert finding.grade is Grade.OK
    assert finding.message.startswith(f"{usable} of ")
    assert ("quota" in finding.message) == (said is not None)
    assert said is None or said in finding.message


def test_a_quota_of_less_than_one_core_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(hardware, "usable_cores", lambda: 1)
    assert hardware.cores().grade is Grade.WARNING
    assert "but a quota of 0.5" in hardware.cores().message


def test_little_memory_is_a_warning_also_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 10**9, available=60 * 10**9))
    monkeypatch.setattr(hardware, "available_memory", lambda: 60 * 10**9)
    monkeypatch.setattr(hardware, "memory_limit", lambda: None)
    assert hardware.memory().message == "60.0 of 64.0 GB free"
    monkeypatch.setattr(hardware, "memory_limit", lambda: 8 * 10**9)
    monkeypatch.setattr(hardware, "available_memory", lambda: 7 * 10**9)
    assert hardware.memory().message == "7.0 of 8.0 GB free (the container's limit)"
    monkeypatch.setattr(hardware, "available_memory", lambda: 10**9)
    assert hardware.memory().grade is Grade.WARNING


def test_shared_memory_matters_with_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SimpleNamespace(f_blocks=64, f_bavail=64, f_frsize=2**20)
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    assert hardware.shared_memory(CPU).grade is Grade.OK
    finding = hardware.shared_memory(TWO)
    assert finding.grade is Grade.WARNING
    assert finding.fix is not None
    assert "--shm-size" in finding.fix
    small.f_blocks = small.f_bavail = 4096
    assert hardware.shared_memory(TWO).grade is Grade.OK
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path / "none")
    assert "there is no /dev/shm" in hardware.shared_memory(TWO).message
