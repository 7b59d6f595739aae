"""What a process computes with."""

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from accel_trainer.training.hardware import make_accelerator


def test_float32_is_float32_and_kernels_are_not_chosen_by_time(make_job, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.benchmark = cudnn.allow_tf32 = matmul.allow_tf32 = True
    try:
        make_accelerator(make_job(), run)
        assert [cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32] == [False] * 3
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
