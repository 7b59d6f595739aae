"""Learning rates by step are those of torch's schedulers, stepped after each optimizer step, whatever is skipped,
accumulated or restarted between."""

import inspect
import io
from collections.abc import Callable, Container, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from accel_trainer.config import Job
from accel_trainer.core.errors import InvalidJob, UserError
from accel_trainer.training.optim.lr_schedule import SCHEDULERS, LRSchedule, make_schedule
from accel_trainer.training.optim.optimizer import learning_rate, make_optimizer

MakeJob = Callable[..., Job]
Values = list[tuple[float, float]]

EPOCHS, PER_EPOCH = 4, 6
STEPS = EPOCHS * PER_EPOCH
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [3, 10, 10], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 5}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 9}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("PolynomialLR", {"total_iters": 15, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": STEPS, "eta_min": 1e-4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4, "T_mult": 2}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": STEPS}),
    ("OneCycleLR", {"max_lr": 0.1, "epochs": EPOCHS, "steps_per_epoch": PER_EPOCH, "three_phase": True}),
]
# A warm-up, with its length where its scheduler does not take one.
WARMUPS: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("LinearLR", {"start_factor": 0.01, "total_iters": 8}),
    ("LinearLR", {}),
    ("ConstantLR", {"factor": 0.1, "total_iters": 1}),
    ("ExponentialLR", {"gamma": 1.1, "total_iters": PER_EPOCH}),
    ("LinearLR", {"start_factor": 0.01, "total_iters": STEPS + 10}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "total_iters": 9}),
]
# Each schedule after one of them, and each of them before some.
PAIRS = [(*schedule, *WARMUPS[number % len(WARMUPS)]) for number, schedule in enumerate(SCHEDULES)]
SKIPPED = [0, 1, 5, 6, 12, 22]
NEVER: Container[int] = range(0)
ALWAYS: Container[int] = range(STEPS)


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False))


def take_step(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def values_of(optimizer: torch.optim.Optimizer) -> Values:
    """What schedulers change, in each group."""
    return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]


def by_step(make_job: MakeJob, **given: Any) -> Job:
    sgd = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
    return make_job(**{"num_epochs": EPOCHS, "schedule_by": "step", "optimizer_args": sgd, **given})


def with_warmup(warmup: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"warmup_scheduler": warmup, "warmup_scheduler_args": args} if warmup else {}


def after_warmup(args: dict[str, Any], warmup: str, warmup_args: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a scheduler, with a cycle that is what the warm-up leaves."""
    length = warmup_args.get("total_iters", 5) if warmup else 0
    if "max_lr" not in args or "base_lr" in args or length >= STEPS:
        return args
    kept = {key: value for key, value in args.items() if key not in ("epochs", "steps_per_epoch")}
    return {**kept, "total_steps": STEPS - length}


def made(job: Job) -> tuple[torch.optim.Optimizer, LRSchedule]:
    optimizer = make_optimizer(job, small_model())
    return optimizer, make_schedule(job, optimizer, PER_EPOCH)


def our_values(job: Job, restarts: Container[int] = NEVER, skipped: Container[int] = NEVER) -> Values:
    """Those of each optimizer step, of a run as the loop does it, that is restarted after some steps through what a
    state is stored as, and of which a loss scaler skips some."""
    optimizer, schedule = made(job)
    seen: Values = []
    for number in range(STEPS):
        if number and number % PER_EPOCH == 0:
            schedule.step(50.0)
        schedule.before_step()
        seen += values_of(optimizer)
        if number not in skipped:
            take_step(optimizer)
        schedule.after_step(is_taken=number not in skipped)
        if number in restarts:
            stored = io.BytesIO()
            torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, stored)
            stored.seek(0)
            saved = torch.load(stored, weights_only=True)
            optimizer, schedule = made(job)
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
    return seen


def torch_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(small_model().parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def torch_scheduler(
    optimizer: torch.optim.Optimizer, name: str, args: dict[str, Any], warmup: str = "", warmup_args: Any = None
) -> lr_scheduler.LRScheduler:
    main = getattr(lr_scheduler, name)
    if not warmup:
        return main(optimizer, **args)
    length, warmup_args = warmup_args.get("total_iters", 5), dict(warmup_args)
    if "total_iters" not in inspect.signature(getattr(lr_scheduler, warmup)).parameters:
        del warmup_args["total_iters"]
    first = getattr(lr_scheduler, warmup)(optimizer, **warmup_args)
    return lr_scheduler.SequentialLR(optimizer, [first, main(optimizer, **args)], [length])


def torch_values(
    optimizer: torch.optim.Optimizer, scheduler: lr_scheduler.LRScheduler, skipped: Container[int] = NEVER
) -> Values:
    """As PyTorch documents it, and Accelerate where a step is skipped."""
    seen: Values = []
    for number in range(STEPS):
        seen += values_of(optimizer)
        if number not in skipped:
            take_step(optimizer)
            scheduler.step()
    return seen


def test_every_scheduler_of_torch_that_counts_is_tried_by_step() -> None:
    assert {name for name, _ in SCHEDULES} == set(SCHEDULERS) - {"ReduceLROnPlateau"}


skipping = pytest.mark.parametrize("skipped", [[], SKIPPED], ids=["all taken", "some skipped"])


@pytest.mark.parametrize(("name", "args"), SCHEDULES)
@pytest.mark.parametrize(("warmup", "warmup_args"), WARMUPS)
@skipping
def test_rates_and_momentum_of_each_step_equal_torchs(
    make_job: MakeJob, name: str, args: dict[str, Any], warmup: str, warmup_args: dict[str, Any], skipped: list[int]
) -> None:
    args = after_warmup(args, warmup, warmup_args)
    job = by_step(make_job, scheduler=name, scheduler_args=args, **with_warmup(warmup, warmup_args))
    optimizer = torch_optimizer()
    theirs = torch_values(optimizer, torch_scheduler(optimizer, name, args, warmup, warmup_args), skipped)
    assert len({rate for rate, _ in theirs}) > 1
    assert our_values(job, NEVER, skipped) == theirs


@pytest.mark.parametrize(("name", "args", "warmup", "warmup_args"), PAIRS)
@skipping
def test_a_restart_after_any_step_changes_no_rate_or_momentum(
    make_job: MakeJob, name: str, args: dict[str, Any], warmup: str, warmup_args: dict[str, Any], skipped: list[int]
) -> None:
    args = after_warmup(args, warmup, warmup_args)
    job = by_step(make_job, scheduler=name, scheduler_args=args, **with_warmup(warmup, warmup_args))
    assert our_values(job, ALWAYS, skipped) == our_values(job, NEVER, skipped)


@pytest.mark.parametrize("anneal_epochs", [0, 1, 2])
@pytest.mark.parametrize("start", [1, 2, EPOCHS])
def test_swas_rate_counts_epochs_and_follows_on_a_schedule_by_step(
    make_job: MakeJob, start: int, anneal_epochs: int
) -> None:
    swa = {"swa_lr": 0.03, "anneal_epochs": anneal_epochs}
    given = {"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.9}}
    job = by_step(make_job, **given, **with_warmup("LinearLR", {"total_iters": 4}), swa={"start": start, **swa})
    optimizer = torch_optimizer()
    args = ("ExponentialLR", {"gamma": 0.9}, "LinearLR", {"total_iters": 4})
    theirs = torch_values(optimizer, torch_scheduler(optimizer, *args))[: start * PER_EPOCH]
    optimizer = torch_optimizer()
    for group in optimizer.param_groups:
        group["lr"], group["initial_lr"] = theirs[-1][0], 0.05
    swa_scheduler = SWALR(optimizer, **swa)
    for epoch in range(start, EPOCHS):
        if anneal_epochs or epoch > start:
            take_step(optimizer)
            swa_scheduler.step()
        theirs += values_of(optimizer) * PER_EPOCH
    for restarts in (NEVER, ALWAYS):
        rates = [rate for rate, _ in our_values(job, restarts)]
        assert rates == pytest.approx([rate for rate, _ in theirs], rel=1e-12)


@pytest.mark.parametrize(("name", "args"), SCHEDULES)
def test_by_step_too_every_layer_keeps_its_share_of_the_rate(
    make_job: MakeJob, name: str, args: dict[str, Any]
) -> None:
    args = after_warmup({**args, "eta_min": 0} if "eta_min" in args else args, *WARMUPS[1])
    given = {"scheduler": name, "scheduler_args": args, **with_warmup(*WARMUPS[1])}
    full = [rate for rate, _ in our_values(by_step(make_job, **given))]
    seen = [rate for rate, _ in our_values(by_step(make_job, **given, layer_decay=0.25), ALWAYS)]
    assert seen[1::2] == pytest.approx(full, rel=1e-9)
    assert seen[::2] == pytest.approx([0.25 * rate for rate in full], rel=1e-9)


@pytest.mark.parametrize(("name", "args"), SCHEDULES)
def test_steps_that_are_replayed_lead_to_the_rate_of_that_step(
    make_job: MakeJob, name: str, args: dict[str, Any]
) -> None:
    args = after_warmup(args, *WARMUPS[2])
    job = by_step(make_job, scheduler=name, scheduler_args=args, **with_warmup(*WARMUPS[2]))
    expected = [rate for rate, _ in our_values(job)]
    for number in range(STEPS):
        optimizer, schedule = made(job)
        schedule.replay_steps(number)
        schedule.before_step()
        assert learning_rate(optimizer) == expected[number]


@pytest.mark.filterwarnings("error")
def test_no_warning_about_the_order_of_steps_by_step(make_job: MakeJob) -> None:
    job = by_step(make_job, scheduler="StepLR", scheduler_args={"step_size": 5}, **with_warmup(*WARMUPS[1]))
    our_values(job, ALWAYS)
    our_values(job, skipped=[0, 1, 8, 9])


def test_after_the_last_step_the_rate_is_that_of_the_last_step(make_job: MakeJob) -> None:
    """What performance.csv says of an epoch, and what a training that is profiled for longer goes on with."""
    job = by_step(make_job, scheduler="OneCycleLR", scheduler_args={"max_lr": 0.1})
    optimizer, schedule = made(job)
    for _ in range(STEPS + 5):
        schedule.before_step()
        take_step(optimizer)
        schedule.after_step(is_taken=True)
    assert learning_rate(optimizer) == pytest.approx(0.1 / 25 / 1e4)


# -- one cycle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("warmup", [{}, with_warmup("LinearLR", {"total_iters": 3})], ids=["", "warm-up"])
def test_one_cycle_is_as_long_as_the_training_where_it_does_not_say(
    make_job: MakeJob, unit: str, warmup: dict[str, Any]
) -> None:
    """`epochs` and `steps_per_epoch`, where one of them is given, are those of torch's documentation."""
    job = {"schedule_by": unit, "scheduler": "OneCycleLR", **warmup}
    length, per_epoch = (STEPS, PER_EPOCH) if unit == "step" else (EPOCHS, 1)
    rest = length - (3 if warmup else 0)
    whole = [{"total_steps": length}, {"epochs": EPOCHS}, {"steps_per_epoch": per_epoch}]
    whole += [{"epochs": EPOCHS, "steps_per_epoch": per_epoch}]
    for given in ({}, {"total_steps": rest}, {"total_steps": None}, *([] if warmup else whole)):
        _, schedule = made(by_step(make_job, **job, scheduler_args={"max_lr": 0.1, **given}))
        state = schedule.state_dict()
        state = state["scheduler"] if unit == "step" else state
        state = state["_schedulers"][1] if warmup else state
        assert state["total_steps"] == rest, given
    for given in whole if warmup else []:
        with pytest.raises(UserError, match=f"a cycle of {length} steps, but .* has {rest}.*without the warm-up"):
            made(by_step(make_job, **job, scheduler_args={"max_lr": 0.1, **given}))


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("total", [STEPS, STEPS - 3, STEPS - 4])
def test_beside_a_warmup_one_cycle_is_refused_where_torchs_is_cut_off_or_fails(
    make_job: MakeJob, unit: str, total: int
) -> None:
    """By torch itself: the cycle comes down to its end in the last step, is cut off, or has no rates for the end."""
    args = {"max_lr": 0.1, "total_steps": total}
    optimizer = torch_optimizer()
    scheduler = torch_scheduler(optimizer, "OneCycleLR", args, "LinearLR", {"total_iters": 3})
    try:
        is_whole = torch_values(optimizer, scheduler)[-1][0] == pytest.approx(0.1 / 25 / 1e4)
    except ValueError:  # "Tried to step 21 times"
        is_whole = False
    assert is_whole == (total == STEPS - 3)
    epochs = {"num_epochs": STEPS} if unit == "epoch" else {}
    job = by_step(
        make_job,
        schedule_by=unit,
        scheduler="OneCycleLR",
        scheduler_args=args,
        **epochs,
        **with_warmup("LinearLR", {"total_iters": 3}),
    )
    if is_whole:
        made(job)
        return
    with pytest.raises(UserError, match=r"^scheduler_args: OneCycleLR: a cycle of"):
        made(job)


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize(
    "args",
    [
        {"total_steps": 1000},
        {"epochs": 10, "steps_per_epoch": 100},
        {"epochs": EPOCHS, "steps_per_epoch": 500},
        {"epochs": 90},
        {"total_steps": STEPS + 1},
        {"total_steps": EPOCHS - 1},
        {"total_steps": 0},
        {"total_steps": "24"},
    ],
)
def test_one_cycle_of_another_length_than_the_training_is_refused(
    make_job: MakeJob, unit: str, args: dict[str, Any]
) -> None:
    job = by_step(make_job, schedule_by=unit, scheduler="OneCycleLR", scheduler_args={"max_lr": 0.1, **args})
    with pytest.raises(UserError, match=r"^scheduler_args: OneCycleLR: "):
        made(job)


def test_by_epoch_a_step_count_of_the_documentation_is_refused_with_the_way_out(make_job: MakeJob) -> None:
    args = {"max_lr": 0.1, "epochs": EPOCHS, "steps_per_epoch": PER_EPOCH}
    job = by_step(make_job, schedule_by="epoch", scheduler="OneCycleLR", scheduler_args=args)
    with pytest.raises(UserError, match=r'a cycle of 24 steps, but stepped by epoch it has 4.*schedule_by to "step"'):
        made(job)


def test_a_warmup_by_one_cycle_is_as_long_as_the_cycle(make_job: MakeJob) -> None:
    steps = {"scheduler": "StepLR", "scheduler_args": {"step_size": 99}}
    with pytest.raises(UserError, match=r"^warmup_scheduler_args: OneCycleLR: a cycle of 5 steps, for a warm-up of 8"):
        made(by_step(make_job, **steps, **with_warmup("OneCycleLR", {"max_lr": 1, "total_steps": 5, "total_iters": 8})))
    whole = our_values(by_step(make_job, **steps, **with_warmup("OneCycleLR", {"max_lr": 1, "total_iters": 8})))
    # As in torch's SequentialLR: the rate that OneCycleLR begins with is then the optimizer's own.
    assert [rate for rate, _ in whole[7:9]] == pytest.approx([1 / 25 / 1e4, 1 / 25])


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_a_cycle_cannot_become_longer_in_the_middle(make_job: MakeJob, unit: str) -> None:
    given = {"schedule_by": unit, "scheduler": "OneCycleLR", "scheduler_args": {"max_lr": 0.1}}
    for more in ({}, with_warmup("LinearLR", {"total_iters": 2})):
        _, schedule = made(by_step(make_job, **given, **more))
        _, longer = made(by_step(make_job, **given, **more, num_epochs=EPOCHS + 1))
        with pytest.raises(UserError, match=r"^num_epochs: the run has a OneCycleLR of"):
            longer.load_state_dict(schedule.state_dict())


def test_where_the_steps_of_an_epoch_are_not_known_no_length_is_refused(make_job: MakeJob) -> None:
    for args in ({}, {"total_steps": 5000}):
        job = by_step(make_job, scheduler="OneCycleLR", scheduler_args={"max_lr": 0.1, **args})
        make_schedule(job, make_optimizer(job, small_model()))


# -- what is refused --------------------------------------------------------------------------------------------------


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        made(job)
    return str(caught.value)


def test_a_plateau_by_step_is_refused_when_the_file_is_read(make_job: MakeJob) -> None:
    with pytest.raises((InvalidJob, ValueError), match="there is one after each epoch only"):
        by_step(make_job, scheduler="ReduceLROnPlateau", scheduler_args={})
    with pytest.raises((InvalidJob, ValueError), match="schedule_by"):
        by_step(make_job, schedule_by="batch")


def test_by_step_the_default_schedule_of_epochs_is_not_assumed(make_job: MakeJob) -> None:
    assert by_step(make_job).scheduler_args == {}
    assert refusal(by_step(make_job)).startswith("scheduler_args: StepLR needs step_size")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 0}}, "scheduler_args: CosineAnnealingLR: "),
        ({"scheduler_args": {"step_size": 0}}, "scheduler_args: StepLR: "),
        (
            {"scheduler_args": {"step_size": 5}, **with_warmup("CosineAnnealingLR", {"T_max": 0, "total_iters": 9})},
            "warmup_scheduler_args: CosineAnnealingLR: ",
        ),
        (
            {"scheduler_args": {"step_size": 5}, **with_warmup("LinearLR", {"total_iters": 0})},
            "warmup_scheduler_args.total_iters: 0 is not a number of steps, 1 or more",
        ),
        (
            {"scheduler_args": {"step_size": 5}, **with_warmup("ExponentialLR", {"gamma": 2})},
            "warmup_scheduler_args: ExponentialLR needs total_iters here: the number of steps to warm up",
        ),
        (
            {"scheduler": "CyclicLR", "scheduler_args": {"base_lr": 0.1, "max_lr": 1}, "optimizer": "Adagrad"},
            "scheduler_args: CyclicLR: optimizer must support momentum or beta1 with `cycle_momentum`",
        ),
    ],
)
def test_what_would_fail_in_a_step_is_found_before(make_job: MakeJob, given: dict[str, Any], said: str) -> None:
    if "optimizer" in given:
        given = {**given, "optimizer_args": {"lr": 0.1}}
    assert refusal(by_step(make_job, **given)).startswith(said)


def test_one_cycle_and_cyclic_rates_go_with_an_optimizer_without_momentum(make_job: MakeJob) -> None:
    for name, args in (("OneCycleLR", {"max_lr": 0.1}), ("CyclicLR", {"base_lr": 0.1, "max_lr": 1})):
        args = {**args, "cycle_momentum": False}
        job = by_step(make_job, optimizer="Adagrad", optimizer_args={"lr": 0.1}, scheduler=name, scheduler_args=args)
        optimizer, schedule = made(job)
        for _ in range(2):
            schedule.before_step()
            take_step(optimizer)
            schedule.after_step(is_taken=True)


def test_lists_of_rates_are_one_for_each_parameter_group(make_job: MakeJob) -> None:
    """Of parameters with and without weight decay; without a list all have the same."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    args = {"max_lr": [0.1, 0.2]}
    job = by_step(make_job, decay_norm_and_bias=False, scheduler="OneCycleLR", scheduler_args=args)
    optimizer = make_optimizer(job, model)
    make_schedule(job, optimizer, PER_EPOCH)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 / 25, 0.2 / 25])
    with pytest.raises(UserError, match="scheduler_args: OneCycleLR: max_lr must have the same length"):
        made(by_step(make_job, scheduler="OneCycleLR", scheduler_args=args))


def steps_in_pairs(values: Values) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    return pairwise(values)


def test_rates_by_step_move_within_an_epoch_and_by_epoch_do_not(make_job: MakeJob) -> None:
    given = {"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.9}}
    moves = [one != other for one, other in steps_in_pairs(our_values(by_step(make_job, **given)))]
    assert all(moves)
    of_epochs = our_values(by_step(make_job, **given, schedule_by="epoch"))
    moves = [one != other for one, other in steps_in_pairs(of_epochs)]
    assert [number for number, moved in enumerate(moves, start=1) if moved] == [6, 12, 18]
