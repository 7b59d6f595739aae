"""What a step reaches of a model, against what a real backward pass leaves without a gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from accel_trainer.config import Job
from accel_trainer.training.build import make_objective
from accel_trainer.training.meta_model import cycle_axis, cycles_of, make_model
from accel_trainer.training.meta_step import StepReach, reach_of_step

MakeJob = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("tiny_models")

SIMCLR: dict[str, Any] = {
    "criterion": "SimCLRLoss",
    "num_views": 2,
    "transform_type": "contrastive",
    "primary_metric": "contrastive_acc",
}
ALL_CYCLES: dict[str, Any] = {
    "architecture": "cornet_rt",
    "architecture_args": {"features": [32] * 4, "num_cycles": 4, "return_cycles": "all"},
}
NOTHING = StepReach(has_unused=False, moves_buffers=False)
# What users have written may do otherwise in another step.
OF_USERS = StepReach(has_unused=False, moves_buffers=True)
UNUSED = StepReach(has_unused=True, moves_buffers=False)


def reach(job: Job, num_processes: int = 2) -> StepReach:
    model = make_model(job, 10)
    objective = make_objective(job, 10, cycles_of(job, model, 10), cycle_axis(model))
    found = reach_of_step(job, model, objective, num_processes)
    assert all(parameter.grad is None for parameter in model.parameters())
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"architecture": "shufflenet_v2_x0_5"}, NOTHING),
        ({"architecture": "swin_t", "image_size": 32}, NOTHING),  # has buffers, which stay
        (ALL_CYCLES, NOTHING),
        ({**ALL_CYCLES, "loss_cycle": "uniform"}, NOTHING),
        ({"architecture": "googlenet", "image_size": 64}, NOTHING),
        ({"architecture": "googlenet", "image_size": 64, **SIMCLR, "architecture_args": {"num_classes": 8}}, UNUSED),
        ({"architecture": "tiny_models:NormAndDropout"}, OF_USERS),
        ({"architecture": "tiny_models:Unused"}, StepReach(has_unused=True, moves_buffers=True)),
        ({"architecture": "tiny_models:LayerDrop"}, StepReach(has_unused=True, moves_buffers=True)),
        ({"architecture": "tiny_models:Freezes"}, OF_USERS),
        ({"architecture": "tiny_models:SaysThatItFreezes"}, StepReach(has_unused=True, moves_buffers=True)),
    ],
    ids=lambda given: None if isinstance(given, StepReach) else f"{given['architecture']} {given.get('criterion', '')}",
)
def test_what_a_step_reaches_is_found_without_values(
    make_job: MakeJob, given: dict[str, Any], expected: StepReach
) -> None:
    job = make_job(**given)
    assert reach(job) == expected
    assert reach(job, num_processes=1) == NOTHING


@pytest.mark.parametrize("num_auxiliary", [0, 2])
def test_the_unused_parameters_are_those_that_torch_gives_no_gradient(make_job: MakeJob, num_auxiliary: int) -> None:
    contrastive = {**SIMCLR, "architecture_args": {"num_classes": 8}}
    job = make_job(architecture="googlenet", image_size=64, **({} if num_auxiliary else contrastive))
    model = make_model(job, 10)
    objective = make_objective(job, 10, 1, 1)
    output = model(torch.randn(2, 3, 64, 64))
    sum(part.sum() for part in objective.trained(output)).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert bool(without) == reach(job).has_unused == (not num_auxiliary)
    assert all(name.startswith("aux") for name in without)
