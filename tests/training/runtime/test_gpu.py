"""A process that was launched for a GPU, in a world in which torch sees none."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from accel_trainer.config import Job
from accel_trainer.core.launched import GPU_VARIABLE, TOKEN_VARIABLE
from accel_trainer.core.outage import MachineFailure
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, read_status
from accel_trainer.training.runtime.gpu import refuse_missing_gpu
from accel_trainer.training.session import train

OLD = "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver"


def seen(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: number)


def fails(message: str) -> Callable[[], None]:
    def init() -> None:
        raise RuntimeError(f"{message}\nmore")

    return init


@pytest.mark.parametrize(
    ("variables", "number", "told"),
    [
        ({}, 0, None),
        ({GPU_VARIABLE: "1"}, 1, None),
        ({GPU_VARIABLE: "1", "LOCAL_WORLD_SIZE": "2"}, 2, None),
        ({GPU_VARIABLE: "1"}, 0, f"launched for a GPU, and torch sees none: {OLD}; make `python -c "),
        ({GPU_VARIABLE: "1", "LOCAL_WORLD_SIZE": "2"}, 1, "launched for 2 GPUs, and torch sees 1: another program's"),
    ],
)
def test_who_was_launched_for_a_gpu_trains_on_nothing_else(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], number: int, told: str | None
) -> None:
    monkeypatch.delenv(GPU_VARIABLE, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen(monkeypatch, number)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", fails(OLD))
    if told is None:
        refuse_missing_gpu()
        return
    with pytest.raises(MachineFailure) as failure:
        refuse_missing_gpu()
    assert str(failure.value).startswith(told)


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GPU_VARIABLE, "1")
    seen(monkeypatch, 0)
    for name in ("cuda", "hip", "xpu"):
        monkeypatch.setattr(torch.version, name, None)
    with pytest.raises(MachineFailure, match=f"torch {torch.__version__[:4]}.* was built without CUDA"):
        refuse_missing_gpu()


def test_a_run_without_its_gpu_is_the_machines_failure_and_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv(GPU_VARIABLE, "1")
    monkeypatch.setenv(TOKEN_VARIABLE, "of a launch elsewhere")
    seen(monkeypatch, 0)
    run = RunFolder(tmp_path / "run")
    run.create()
    job = Job(architecture="small_cnn", dataset="digits", model_dir=str(run.path), name="a")
    result = train(job, run, StopRequest())
    assert result.state is RunState.MACHINE_FAILED
    assert "torch sees none" in (result.reason or "")
    status = read_status(run)
    assert status is not None
    assert (status.state, status.error) == (RunState.MACHINE_FAILED, result.reason)
    assert not run.has_run
