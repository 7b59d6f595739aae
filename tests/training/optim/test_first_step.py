"""Arguments that torch takes, and refuses in the first step, are found before a training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.training.optim.first_step import check_first_step, refuse_gpu_arguments
from accel_trainer.training.optim.optimizer import OPTIMIZERS, make_optimizer

MakeJob = Callable[..., Job]
WITH_CAPTURABLE = ("Adadelta", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop")


def look(job: Job, model: nn.Module) -> None:
    resolved = job.with_placeholders(16)
    make_optimizer(resolved, model)
    check_first_step(resolved, model.parameters())


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(3, 2, bias=False, device="meta")


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_that_a_job_may_name_steps_by_default(make_job: MakeJob, name: str, model: nn.Module) -> None:
    look(make_job(optimizer=name, optimizer_args={}), model)


@pytest.mark.parametrize(
    ("args", "key"),
    [
        ({"lr": 0.1, "differentiable": True}, "optimizer_args.differentiable: SGD cannot take a step with it"),
        ({"differentiable": True, "momentum": 0.9}, "optimizer_args.differentiable: SGD cannot take a step with it"),
    ],
)
def test_the_argument_is_named_that_no_step_can_be_taken_with(
    make_job: MakeJob, args: dict[str, Any], key: str, model: nn.Module
) -> None:
    with pytest.raises(UserError) as raised:
        look(make_job(optimizer="SGD", optimizer_args=args), model)
    (line,) = raised.value.problems
    assert line.startswith(key)
    assert line.endswith("operation; remove it")


@pytest.mark.parametrize("flag", ["fused", "foreach", "maximize"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_what_torch_has_kernels_of_is_taken(make_job: MakeJob, name: str, flag: str, model: nn.Module) -> None:
    look(make_job(optimizer=name, optimizer_args={flag: True}), model)


def test_every_kind_of_parameter_of_the_model_is_tried(make_job: MakeJob, model: nn.Module) -> None:
    job = make_job(optimizer="Adam", optimizer_args={"fused": True})
    model.register_parameter("phases", nn.Parameter(torch.zeros(2, dtype=torch.complex64, device="meta")))
    with pytest.raises(UserError, match=r"^optimizer_args\.fused: Adam "):
        look(job, model)


@pytest.mark.parametrize("name", WITH_CAPTURABLE)
def test_capturable_is_refused_on_the_cpu_alone(make_job: MakeJob, name: str, model: nn.Module) -> None:
    job = make_job(optimizer=name, optimizer_args={"capturable": True})
    look(job, model)
    resolved = job.with_placeholders(16)
    refuse_gpu_arguments(resolved, torch.device("cuda"))
    with pytest.raises(UserError, match=rf"^optimizer_args\.capturable: {name} takes it on a GPU only"):
        refuse_gpu_arguments(resolved, torch.device("cpu"))


def test_these_are_the_optimizers_with_capturable() -> None:
    own = [name for name, kind in OPTIMIZERS.items() if "capturable" in kind.__init__.__annotations__]
    assert sorted(own) == sorted(WITH_CAPTURABLE)
