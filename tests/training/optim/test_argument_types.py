"""Arguments of optimizers and schedulers are of the types that torch means: it checks few of them."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.training.optim.lr_schedule import make_schedule
from accel_trainer.training.optim.optimizer import OPTIMIZERS, make_optimizer

MakeJob = Callable[..., Job]


def built(job: Job) -> Any:
    optimizer = make_optimizer(job, nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False)))
    make_schedule(job, optimizer, 10)
    return optimizer


@pytest.mark.parametrize(
    ("optimizer", "args", "said"),
    [
        ("AdamW", {"amsgrad": "false"}, "AdamW: amsgrad is 'false', and not true or false"),
        ("SGD", {"nesterov": "true"}, "SGD: nesterov is 'true', and not true or false"),
        ("SGD", {"maximize": 1}, "SGD: maximize is 1, and not true or false"),
        ("SGD", {"foreach": "no"}, "SGD: foreach is 'no', and not true or false"),
        ("SGD", {"fused": 0}, "SGD: fused is 0, and not true or false"),
        ("SGD", {"momentum": "0.9"}, "SGD: momentum is '0.9', and not a number"),
        ("SGD", {"momentum": True}, "SGD: momentum is True, and not a number"),
        ("SGD", {"weight_decay": [1e-4]}, "SGD: weight_decay is [0.0001], and not a number"),
        ("SGD", {"lr": [0.1]}, "SGD: lr is [0.1], and not a number"),
        ("SGD", {"lr": True}, "SGD: lr is True, and not a number"),
        ("AdamW", {"betas": [0.9, 0.99, 0.999]}, "AdamW: betas is [0.9, 0.99, 0.999], and not a list of 2 numbers"),
        ("AdamW", {"betas": ["0.9", 0.99]}, "AdamW: betas is ['0.9', 0.99], and not a list of 2 numbers"),
        ("AdamW", {"betas": 0.9}, "AdamW: betas is 0.9, and not a list of 2 numbers"),
        ("AdamW", {"eps": "1e-8"}, "AdamW: eps is '1e-8', and not a number"),
        ("Rprop", {"etas": [0.5]}, "Rprop: etas is [0.5], and not a list of 2 numbers"),
    ],
)
def test_a_wrong_type_of_an_optimizers_argument_is_refused(
    make_job: MakeJob, optimizer: str, args: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        built(make_job(optimizer=optimizer, optimizer_args={"lr": 0.1, **args}))
    assert str(caught.value) == f"optimizer_args: {said}"


@pytest.mark.parametrize(
    ("scheduler", "args", "said"),
    [
        ("StepLR", {"step_size": 2.5}, "StepLR: step_size is 2.5, and not a whole number"),
        ("StepLR", {"step_size": "3"}, "StepLR: step_size is '3', and not a whole number"),
        ("StepLR", {"step_size": 3, "gamma": True}, "StepLR: gamma is True, and not a number"),
        ("MultiStepLR", {"milestones": ["3"]}, "MultiStepLR: milestones is ['3'], and not a list of whole numbers"),
        ("OneCycleLR", {"max_lr": 1, "three_phase": "no"}, "OneCycleLR: three_phase is 'no', and not true or false"),
        ("OneCycleLR", {"max_lr": "1"}, "OneCycleLR: max_lr is '1', and not a number, or a list of them"),
        (
            "CyclicLR",
            {"base_lr": 0.1, "max_lr": 1, "cycle_momentum": "false"},
            "CyclicLR: cycle_momentum is 'false', and not true or false",
        ),
    ],
)
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_wrong_type_of_a_schedulers_argument_is_refused(
    make_job: MakeJob, scheduler: str, args: dict[str, Any], said: str, unit: str
) -> None:
    with pytest.raises(UserError) as caught:
        built(make_job(schedule_by=unit, scheduler=scheduler, scheduler_args=args))
    assert str(caught.value) == f"scheduler_args: {said}"
    warmup = make_job(warmup_scheduler=scheduler, warmup_scheduler_args={**args, "total_iters": 3})
    with pytest.raises(UserError) as caught:
        built(warmup)
    assert str(caught.value) == f"warmup_scheduler_args: {said}"


def test_whole_numbers_may_be_written_with_a_point_and_lists_become_tuples(make_job: MakeJob) -> None:
    built(make_job(scheduler="StepLR", scheduler_args={"step_size": 3.0}))
    optimizer = built(make_job(optimizer="AdamW", optimizer_args={"betas": [0.5, 1 / 2], "foreach": None}))
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.5)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_torchs_own_defaults_of_every_optimizer_are_of_their_types(make_job: MakeJob, name: str) -> None:
    defaults = built(make_job(optimizer=name, optimizer_args={})).defaults
    accepted = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    accepted = {key: value for key, value in accepted.items() if key != "decoupled_weight_decay" or name != "AdamW"}
    again = built(make_job(optimizer=name, optimizer_args=accepted))
    assert again.defaults == defaults


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": "LBFGS"}, "optimizer: 'LBFGS' cannot be used here: it evaluates the loss several times"),
        ({"optimizer": "SparseAdam"}, "optimizer: 'SparseAdam' cannot be used here: it takes sparse gradients only"),
        ({"scheduler": "LambdaLR"}, "scheduler: 'LambdaLR' cannot be used here: it takes a function"),
        ({"scheduler": "ChainedScheduler"}, "scheduler: 'ChainedScheduler' cannot be used here: it takes other"),
        ({"warmup_scheduler": "SequentialLR"}, "warmup_scheduler: 'SequentialLR' cannot be used here: it takes other"),
        ({"warmup_scheduler": "ReduceLROnPlateau"}, "warmup_scheduler: 'ReduceLROnPlateau' cannot be used here: it w"),
    ],
)
def test_what_a_job_file_cannot_express_is_refused_with_the_reason(
    make_job: MakeJob, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        built(make_job(**given))
    assert str(caught.value).startswith(said)


def test_muon_says_which_parameters_it_does_not_take(make_job: MakeJob) -> None:
    job = make_job(optimizer="Muon", optimizer_args={})
    with pytest.raises(UserError, match="optimizer_args: Muon: Muon only supports 2D parameters"):
        make_optimizer(job, nn.Linear(3, 4))
