"""Learning rates over epochs are torch's own, and go on after a restart as if nothing had happened."""

import inspect
import io
from collections.abc import Callable, Container
from typing import Any

import pytest
import torch
from loops import trainer_state
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.optim.lr_schedule import SCHEDULERS, make_schedule
from accel_trainer.training.optim.optimizer import OPTIMIZERS, learning_rate, make_optimizer, rate_for_batch
from accel_trainer.training.state.checkpoint import Progress, StateStore, TrainState

EPOCHS = 20
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [3, 10, 10], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 5}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 6}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("PolynomialLR", {"total_iters": 15, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": EPOCHS, "eta_min": 1e-4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4, "T_mult": 2}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": EPOCHS}),
    ("OneCycleLR", {"max_lr": 0.1, "anneal_strategy": "linear", "total_steps": EPOCHS}),
    ("ReduceLROnPlateau", {"patience": 2, "factor": 0.5}),
]
CYCLE = {"base_lr": 0.001, "max_lr": 0.05, "step_size_up": 4}
# A warm-up, with its length where its scheduler does not take one.
WARMUPS: list[tuple[str, dict[str, Any]]] = [
    ("LinearLR", {"start_factor": 0.01, "total_iters": 4}),
    ("LinearLR", {}),
    ("ConstantLR", {"factor": 0.1, "total_iters": 3}),
    ("ConstantLR", {"factor": 0.1, "total_iters": 1}),
    ("LinearLR", {"start_factor": 0.01, "total_iters": EPOCHS + 10}),
    ("ExponentialLR", {"gamma": 1.1, "total_iters": 5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "total_iters": 4}),
    ("CyclicLR", {**CYCLE, "total_iters": 4}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 6, "total_iters": 6}),
]
# Each schedule after two of the warm-ups, and each of them before some: the state of a pair is that of each by itself.
PAIRS = [(*SCHEDULES[n], *WARMUPS[(n + shift) % len(WARMUPS)]) for n in range(len(SCHEDULES)) for shift in (0, 4)]
schedules = pytest.mark.parametrize(("name", "args"), SCHEDULES)
warmups = pytest.mark.parametrize(("warmup", "warmup_args"), WARMUPS)
MakeJob = Callable[..., Job]
Values = list[dict[str, float]]
# Epochs after which a run is restarted.
NEVER = range(0)
ONCE = range(7, 8)
ALWAYS = range(EPOCHS)


def after_warmup(args: dict[str, Any], warmup_args: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a scheduler, with a cycle that is what the warm-up leaves."""
    if "total_steps" not in args or (length := warmup_args.get("total_iters", 5)) >= EPOCHS:
        return args
    return {**args, "total_steps": EPOCHS - length}


def metric(epoch: int) -> float:
    """An accuracy that improves, stays, then gets worse."""
    return [50.0, 60, 70, 70, 70, 70, 70, 60, 60, 71][epoch % 10]


def small_model() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def train_step(optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def through_the_disk(run: RunFolder, trainer: dict[str, Any]) -> dict[str, Any]:
    """What the restricted unpickler gives back of a state."""
    StateStore(run).save(TrainState(Progress(), {"w": torch.zeros(1)}, trainer_state(**trainer), 1))
    state = StateStore(run).newest()
    assert state is not None
    return state.trainer.as_record()


def test_every_scheduler_of_torch_is_tried_here() -> None:
    assert {name for name, _ in SCHEDULES} == set(SCHEDULERS)


def values_of(optimizer: torch.optim.Optimizer) -> Values:
    """What schedulers change."""
    return [{key: group[key] for key in ("lr", "momentum")} for group in optimizer.param_groups]


def our_values(job: Job, restarts: Container[int] = NEVER) -> Values:
    """Those of each epoch, of a run as the loop does it that is restarted after some; a restart goes through what a
    state is stored as."""
    optimizer = make_optimizer(job, small_model())
    schedule = make_schedule(job, optimizer)
    seen = []
    for epoch in range(1, job.num_epochs + 1):
        if epoch > 1:
            schedule.step(metric(epoch - 1))
        seen += values_of(optimizer)
        train_step(optimizer, epoch)
        if epoch in restarts:
            stored = io.BytesIO()
            torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, stored)
            stored.seek(0)
            saved = torch.load(stored, weights_only=True)
            optimizer = make_optimizer(job, small_model())
            schedule = make_schedule(job, optimizer)
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
    return seen


def assert_same(ours: Values, theirs: Values) -> None:
    """To the bit, in each epoch."""
    assert ours == theirs
    assert len({value["lr"] for value in theirs}) > 1


def torch_scheduler(optimizer: torch.optim.Optimizer, name: str, args: dict[str, Any]) -> Any:
    if name == "ReduceLROnPlateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, **{"mode": "max", **args})
    return getattr(lr_scheduler, name)(optimizer, **args)


def torch_step(scheduler: Any, epoch: int) -> None:
    """As PyTorch documents it: a plateau is told the metric of the epoch that is over."""
    is_plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    scheduler.step(*([metric(epoch)] if is_plateau else []))


def torch_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(small_model().parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def torch_values(optimizer: torch.optim.Optimizer, scheduler: Any, epochs: range = range(1, EPOCHS + 1)) -> Values:
    seen = []
    for epoch in epochs:
        seen += values_of(optimizer)
        train_step(optimizer, epoch)
        if epoch < epochs[-1]:
            torch_step(scheduler, epoch)
    return seen


def torch_warmup_values(name: str, args: dict[str, Any], warmup: str, warmup_args: dict[str, Any]) -> Values:
    """With SequentialLR; and what it means for a plateau, one after the other."""
    length = warmup_args.get("total_iters", 5)
    if "total_iters" not in inspect.signature(getattr(lr_scheduler, warmup)).parameters:
        warmup_args = {key: value for key, value in warmup_args.items() if key != "total_iters"}
    optimizer = torch_optimizer()
    first = torch_scheduler(optimizer, warmup, warmup_args)
    if name != "ReduceLROnPlateau":
        second = torch_scheduler(optimizer, name, args)
        return torch_values(optimizer, lr_scheduler.SequentialLR(optimizer, [first, second], milestones=[length]))
    last = min(length, EPOCHS)
    seen = torch_values(optimizer, first, range(1, last + 1))
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["initial_lr"]
    return seen + torch_values(optimizer, torch_scheduler(optimizer, name, args), range(last + 1, EPOCHS + 1))


@schedules
def test_rates_and_momentum_equal_those_of_torch_whenever_a_run_restarts(
    make_job: MakeJob, name: str, args: dict[str, Any]
) -> None:
    job = make_job(num_epochs=EPOCHS, scheduler=name, scheduler_args=args)
    optimizer = torch_optimizer()
    theirs = torch_values(optimizer, torch_scheduler(optimizer, name, args))
    for restarts in (NEVER, ONCE, ALWAYS):
        assert_same(our_values(job, restarts), theirs)


def with_warmup(name: str, args: dict[str, Any], warmup: str, warmup_args: dict[str, Any]) -> dict[str, Any]:
    warmed = {"warmup_scheduler": warmup, "warmup_scheduler_args": warmup_args}
    return {"num_epochs": EPOCHS, "scheduler": name, "scheduler_args": after_warmup(args, warmup_args), **warmed}


@schedules
@warmups
@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler")  # the reference's, where OneCycleLR has ended
def test_a_warmup_equals_the_sequential_schedule_of_torch(
    make_job: MakeJob, name: str, args: dict[str, Any], warmup: str, warmup_args: dict[str, Any]
) -> None:
    job = make_job(**with_warmup(name, args, warmup, warmup_args))
    assert_same(our_values(job), torch_warmup_values(name, after_warmup(args, warmup_args), warmup, warmup_args))


@pytest.mark.parametrize(("name", "args", "warmup", "warmup_args"), PAIRS)
def test_a_restart_after_any_epoch_changes_nothing_of_a_warmup_and_what_follows(
    make_job: MakeJob, name: str, args: dict[str, Any], warmup: str, warmup_args: dict[str, Any]
) -> None:
    job = make_job(**with_warmup(name, args, warmup, warmup_args))
    assert_same(our_values(job, ALWAYS), our_values(job))


def test_a_linear_warmup_rises_to_the_optimizers_own_rate(make_job: MakeJob) -> None:
    warmup = {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"start_factor": 0.2, "total_iters": 4}}
    expected = [0.01, 0.02, 0.03, 0.04, 0.05, 0.05, 0.025, 0.025]
    steps = {"scheduler": "StepLR", "scheduler_args": {"step_size": 2, "gamma": 0.5}}
    assert [v["lr"] for v in our_values(make_job(num_epochs=8, **warmup, **steps))] == pytest.approx(expected)


def test_a_plateau_does_not_count_the_metrics_of_the_warmup(make_job: MakeJob) -> None:
    job = make_job(
        num_epochs=9,
        scheduler="ReduceLROnPlateau",
        scheduler_args={"patience": 0, "factor": 0.5},
        warmup_scheduler="ConstantLR",
        warmup_scheduler_args={"factor": 0.1, "total_iters": 3},
    )
    optimizer = make_optimizer(job, small_model())
    schedule = make_schedule(job, optimizer)
    rates = [learning_rate(optimizer)]
    for value in (90.0, 10, 10, 20, 30, 30, 40, 40):
        schedule.step(value)
        rates.append(learning_rate(optimizer))
    assert rates == pytest.approx([0.005, 0.005, 0.005, 0.05, 0.05, 0.05, 0.025, 0.025, 0.0125])


def torch_swa_values(main: Any, optimizer: torch.optim.Optimizer, start: int, swa: dict[str, Any]) -> Values:
    """The loop of the documentation of torch.optim.swa_utils, in which epochs count from 0 and the first that is
    averaged is swa_start + 1. Made early, SWALR with anneal_epochs=0 would set its rate at once."""
    swa_start = start - 2
    scheduler = SWALR(optimizer, **swa) if swa["anneal_epochs"] else None
    seen = []
    for i in range(EPOCHS):
        seen += values_of(optimizer)
        train_step(optimizer, i + 1)
        if i == EPOCHS - 1:
            break
        if i > swa_start and scheduler is None:
            scheduler = SWALR(optimizer, **swa)
        elif i > swa_start:
            scheduler.step()
        else:
            torch_step(main, i + 1)
    return seen


@pytest.mark.parametrize("anneal_epochs", [0, 1, 4, 30])
@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("CosineAnnealingLR", {"T_max": EPOCHS}),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": EPOCHS}),
        ("ReduceLROnPlateau", {"patience": 1, "factor": 0.5}),
    ],
)
def test_the_swa_rate_equals_that_of_torch_whenever_a_run_restarts(
    make_job: MakeJob, name: str, args: dict[str, Any], anneal_strategy: str, anneal_epochs: int
) -> None:
    swa = {"swa_lr": 0.03, "anneal_epochs": anneal_epochs, "anneal_strategy": anneal_strategy}
    for start in (1, 8, EPOCHS):
        job = make_job(num_epochs=EPOCHS, scheduler=name, scheduler_args=args, swa={"start": start, **swa})
        optimizer = torch_optimizer()
        theirs = torch_swa_values(torch_scheduler(optimizer, name, args), optimizer, start, swa)
        for restarts in (NEVER, ALWAYS if start == 8 else ONCE):
            assert_same(our_values(job, restarts), theirs)


def test_swas_rate_first_moves_in_the_epoch_after_the_first_that_is_averaged(make_job: MakeJob) -> None:
    steps = {"scheduler": "StepLR", "scheduler_args": {"step_size": 1, "gamma": 0.8}}
    swa = {"start": 3, "swa_lr": 0.012, "anneal_epochs": 2, "anneal_strategy": "linear"}
    rates = [value["lr"] for value in our_values(make_job(num_epochs=6, **steps, swa=swa))]
    assert rates == pytest.approx([0.05, 0.04, 0.032, 0.022, 0.012, 0.012])


def test_without_a_rate_of_its_own_swa_leaves_the_schedule_as_it_is(make_job: MakeJob) -> None:
    steps = {"num_epochs": EPOCHS, "scheduler_args": {"step_size": 2}}
    assert our_values(make_job(**steps, swa={"start": 3})) == our_values(make_job(**steps))


def test_swas_rate_may_follow_on_a_warmup(make_job: MakeJob) -> None:
    job = make_job(
        num_epochs=9,
        scheduler="ReduceLROnPlateau",
        warmup_scheduler="LinearLR",
        warmup_scheduler_args={"start_factor": 0.5, "total_iters": 2},
        swa={"start": 6, "swa_lr": 0.01, "anneal_epochs": 0},
    )
    expected = [0.025, 0.0375, *[0.05] * 4, *[0.01] * 3]
    for restarts in (NEVER, ONCE, ALWAYS):
        rates = [value["lr"] for value in our_values(job, restarts)]
        assert rates == pytest.approx(expected)


def test_the_state_of_swas_rate_is_plain_with_every_version_of_torch(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("state_dict", "load_state_dict"):  # as SWALR had them before it had its own
        monkeypatch.setattr(SWALR, name, getattr(lr_scheduler.LRScheduler, name))
    job = make_job(num_epochs=9, swa={"start": 3, "swa_lr": 0.01})
    assert our_values(job, ONCE) == our_values(job)


@pytest.mark.filterwarnings("error")
def test_a_restarted_run_gives_no_warning_about_the_order_of_steps(make_job: MakeJob) -> None:
    warmup = {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"total_iters": 2}}
    job = make_job(num_epochs=8, **warmup, swa={"start": 5, "swa_lr": 0.01})
    our_values(job, ALWAYS)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_restarted_optimizer_goes_on_to_the_bit(make_job: MakeJob, run: RunFolder, name: str) -> None:
    job = make_job(optimizer=name, optimizer_args={"lr": 0.01, **({"momentum": 0.9} if name == "SGD" else {})})
    ours, restarted = small_model(), small_model()
    optimizer, again = make_optimizer(job, ours), make_optimizer(job, restarted)
    for step in range(3):
        train_step(optimizer, step)
    saved = through_the_disk(run, {"optimizer": optimizer.state_dict()})
    restarted.load_state_dict(ours.state_dict())
    again.load_state_dict(saved["optimizer"])
    for step in range(3, 6):
        train_step(optimizer, step)
        train_step(again, step)
    for parameter, other in zip(ours.parameters(), restarted.parameters(), strict=True):
        assert torch.equal(parameter, other)


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"primary_metric": "acc1"}, "max"),
        ({"primary_metric": "acc5"}, "max"),
        ({"primary_metric": "CrossEntropyLoss"}, "min"),
        ({"primary_metric": "acc1", "scheduler_args": {"mode": "min"}}, "min"),
    ],
)
def test_the_plateau_looks_in_the_direction_of_the_primary_metric(
    make_job: MakeJob, given: dict[str, Any], mode: str
) -> None:
    job = make_job(scheduler="ReduceLROnPlateau", **{"scheduler_args": {}, **given})
    schedule = make_schedule(job, make_optimizer(job, small_model()))
    assert schedule.state_dict()["mode"] == mode


def test_a_plateau_lowers_the_rate_only_when_the_metric_stops_improving(make_job: MakeJob) -> None:
    job = make_job(scheduler="ReduceLROnPlateau", scheduler_args={"patience": 0, "factor": 0.5})
    optimizer = make_optimizer(job, small_model())
    schedule = make_schedule(job, optimizer)
    rates = []
    for value in (10.0, 20.0, 30.0, 30.0, 29.0):
        schedule.step(value)
        rates.append(learning_rate(optimizer) / 0.05)
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.25])


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        make_schedule(job, make_optimizer(job, small_model()))
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": "Adamw"}, "optimizer: 'Adamw' cannot be used here; did you mean 'AdamW'"),
        ({"optimizer": "LBFGS"}, "optimizer: 'LBFGS' cannot be used here"),
        ({"optimizer": "SparseAdam"}, "optimizer: 'SparseAdam' cannot be used here"),
        ({"optimizer": "Optimizer"}, "optimizer: 'Optimizer' cannot be used here"),
        (
            {"optimizer_args": {"lr": 0.1, "momentun": 0.9}},
            "optimizer_args.momentun: SGD takes no such argument; did you",
        ),
        ({"optimizer_args": {"params": []}}, "optimizer_args.params: SGD takes no such argument"),
        ({"optimizer_args": {"lr": -1}}, "optimizer_args: SGD: Invalid learning rate: -1"),
        ({"optimizer_args": {"lr": 0.1, "momentum": "x"}}, "optimizer_args: SGD: "),
        ({"optimizer": "AdamW", "optimizer_args": {"betas": [0.9]}}, "optimizer_args: AdamW: "),
        ({"optimizer": "AdamW", "optimizer_args": {"betas": {}}}, "optimizer_args: AdamW: "),
        ({"scheduler": "StepsLR"}, "scheduler: 'StepsLR' cannot be used here; did you mean 'StepLR'"),
        ({"scheduler": "LambdaLR"}, "scheduler: 'LambdaLR' cannot be used here"),
        ({"scheduler": "MultiplicativeLR"}, "scheduler: 'MultiplicativeLR' cannot be used here"),
        ({"scheduler": "SequentialLR"}, "scheduler: 'SequentialLR' cannot be used here"),
        ({"scheduler": "LRScheduler"}, "scheduler: 'LRScheduler' cannot be used here"),
        ({"scheduler": "CosineAnnealingLR"}, "scheduler_args: CosineAnnealingLR needs T_max"),
        (
            {"scheduler_args": {"step": 3}},
            "scheduler_args.step: StepLR takes no such argument; did you mean 'step_size'",
        ),
        ({"scheduler": "ReduceLROnPlateau", "scheduler_args": {"factor": 2}}, "scheduler_args: ReduceLROnPlateau: "),
        ({"scheduler": "MultiStepLR", "scheduler_args": {"milestones": 30}}, "scheduler_args: MultiStepLR: "),
        (
            {"scheduler": "CyclicLR", "scheduler_args": {"base_lr": 0.1, "max_lr": 1, "step_size_up": 0}},
            "scheduler_args: CyclicLR: ",
        ),
        *(
            ({"scheduler_args": {"step_size": 1, "last_epoch": 5}, **more}, "scheduler_args.last_epoch: a schedule")
            for more in ({}, {"warmup_scheduler": "LinearLR"})
        ),
        ({"warmup_scheduler": "LinerLR"}, "warmup_scheduler: 'LinerLR' cannot be used here; did you mean 'LinearLR'"),
        ({"warmup_scheduler": "ReduceLROnPlateau"}, "warmup_scheduler: 'ReduceLROnPlateau' cannot be used here"),
        ({"warmup_scheduler": "SequentialLR"}, "warmup_scheduler: 'SequentialLR' cannot be used here"),
        ({"warmup_scheduler": "ChainedScheduler"}, "warmup_scheduler: 'ChainedScheduler' cannot be used here"),
        (
            {"warmup_scheduler": "ExponentialLR", "warmup_scheduler_args": {"gamma": 2}},
            "warmup_scheduler_args: ExponentialLR needs total_iters here",
        ),
        (
            {"warmup_scheduler": "ExponentialLR", "warmup_scheduler_args": {"total_iters": 2}},
            "warmup_scheduler_args: ExponentialLR needs gamma",
        ),
        (
            {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"start_facto": 0.1}},
            "warmup_scheduler_args.start_facto: LinearLR takes no such argument; did you mean 'start_factor'",
        ),
        (
            {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"start_factor": 0}},
            "warmup_scheduler_args: LinearLR: ",
        ),
        *(
            (
                {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"total_iters": number}},
                f"warmup_scheduler_args.total_iters: {number!r} is not a number of epochs, 1 or more",
            )
            for number in (0, -1, 2.5, True, "5")
        ),
        ({"optimizer": "Rprop", "decay_norm_and_bias": False}, "decay_norm_and_bias: Rprop has no weight decay"),
    ],
)
def test_a_wrong_name_or_argument_is_reported(make_job: MakeJob, given: dict[str, Any], said: str) -> None:
    assert refusal(make_job(**given)).startswith(said)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("StepLR", {"step_size": 0}),
        ("StepLR", {"step_size": "7"}),
        ("ExponentialLR", {"gamma": "0.9"}),
        ("CosineAnnealingLR", {"T_max": 0}),
        ("ReduceLROnPlateau", {"patience": "2"}),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": EPOCHS - 2}),
    ],
)
def test_a_schedule_that_fails_in_a_later_epoch_is_reported_before_training(
    make_job: MakeJob, name: str, args: dict[str, Any]
) -> None:
    assert refusal(make_job(num_epochs=EPOCHS, scheduler=name, scheduler_args=args)).startswith("scheduler_args: ")


def test_a_failing_schedule_is_reported_as_the_warmup_or_what_follows(make_job: MakeJob) -> None:
    ends_early = {"max_lr": 0.1, "total_steps": 4}
    warmup = {"warmup_scheduler": "OneCycleLR", "warmup_scheduler_args": {**ends_early, "total_iters": 8}}
    assert refusal(make_job(num_epochs=EPOCHS, **warmup)).startswith("warmup_scheduler_args: OneCycleLR: Tried to step")
    main = {"scheduler": "OneCycleLR", "scheduler_args": ends_early, "warmup_scheduler": "LinearLR"}
    assert refusal(make_job(num_epochs=EPOCHS, **main)).startswith("scheduler_args: OneCycleLR: Tried to step")
    make_schedule(job := make_job(num_epochs=9, **main), make_optimizer(job, small_model()))


@schedules
def test_every_layer_keeps_its_share_of_the_rate_in_every_epoch(
    make_job: MakeJob, name: str, args: dict[str, Any]
) -> None:
    if "eta_min" in args:
        args = {**args, "eta_min": 0}
    given = {"num_epochs": EPOCHS, "scheduler": name, "scheduler_args": args}
    exact = {}
    if name == "ReduceLROnPlateau":
        # The steps of these rates are smaller than the least one that a plateau makes where it is not told otherwise.
        given["optimizer_args"] = {"lr": 1e-8, "momentum": 0.9}
        given["scheduler_args"] = {**args, "min_lr": 3e-9}
        exact = {"scheduler_args": {**given["scheduler_args"], "eps": 0}}
    warmup = {"warmup_scheduler": "CyclicLR", "warmup_scheduler_args": {**CYCLE, "total_iters": 3}}
    swa = {"swa": {"start": 13, "swa_lr": 0.02}}
    for more in ({}, warmup, swa, {**warmup, **swa}):
        if name == "OneCycleLR":
            given["scheduler_args"] = {**args, "total_steps": EPOCHS - (3 if "warmup_scheduler" in more else 0)}
        full = [value["lr"] for value in our_values(make_job(**{**given, **exact, **more}))]
        for restarts in (NEVER, ALWAYS) if len(more) > 2 else (NEVER,):
            seen = [value["lr"] for value in our_values(make_job(**given, **more, layer_decay=0.25), restarts)]
            low, high = seen[::2], seen[1::2]
            assert high == pytest.approx(full, rel=1e-9)
            assert low == pytest.approx([0.25 * rate for rate in full], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("CosineAnnealingLR", {"T_max": 10, "eta_min": 1e-4}, "scheduler_args.eta_min: would be the same for all"),
        ("CosineAnnealingWarmRestarts", {"T_0": 10, "eta_min": 1e-4}, "scheduler_args.eta_min: would be the same"),
        ("ReduceLROnPlateau", {"eps": 1e-8}, "scheduler_args.eps: would be the same for all layers"),
        ("OneCycleLR", {"max_lr": [0.1, 0.2], "total_steps": 99}, "scheduler_args.max_lr: with layer_decay it is one"),
    ],
)
def test_a_schedule_that_would_not_keep_the_shares_is_refused(
    make_job: MakeJob, name: str, args: dict[str, Any], said: str
) -> None:
    job = {"num_epochs": 9, "scheduler": name, "scheduler_args": args}
    assert refusal(make_job(**job, layer_decay=0.9)).startswith(said)
    if name != "OneCycleLR":
        make_schedule(whole := make_job(**job, layer_decay=1.0), make_optimizer(whole, small_model()))


def test_the_learning_rate_is_full_also_with_a_frozen_output_layer(make_job: MakeJob) -> None:
    job = make_job(layer_decay=0.25)
    assert learning_rate(make_optimizer(job, small_model())) == 0.05
    model = small_model()
    model[-1].requires_grad_(False)
    optimizer = make_optimizer(job, model)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0125]
    assert learning_rate(optimizer) == 0.05


def test_epochs_without_a_metric_are_skipped_and_do_not_count_for_a_plateau(make_job: MakeJob) -> None:
    job = make_job(num_epochs=60, scheduler="ReduceLROnPlateau", scheduler_args={"patience": 3})
    optimizer = make_optimizer(job, small_model())
    make_schedule(job, optimizer).skip(50)
    assert learning_rate(optimizer) == 0.05

    job = make_job(num_epochs=60, scheduler="StepLR", scheduler_args={"step_size": 20, "gamma": 0.1})
    optimizer = make_optimizer(job, small_model())
    train_step(optimizer, 0)
    make_schedule(job, optimizer).skip(50)
    assert learning_rate(optimizer) == pytest.approx(0.05 * 0.1**2)


def test_skipped_epochs_count_for_the_warmup_and_for_swas_rate(make_job: MakeJob) -> None:
    job = make_job(
        num_epochs=12,
        scheduler="ReduceLROnPlateau",
        scheduler_args={},
        warmup_scheduler="LinearLR",
        warmup_scheduler_args={"start_factor": 0.2, "total_iters": 4},
        swa={"start": 8, "swa_lr": 0.01, "anneal_epochs": 2, "anneal_strategy": "linear"},
    )
    expected = [value["lr"] for value in our_values(job)]
    for epochs in range(12):
        optimizer = make_optimizer(job, small_model())
        schedule = make_schedule(job, optimizer)
        schedule.skip(epochs)
        assert learning_rate(optimizer) == expected[epochs]
        if epochs < 11:
            schedule.step(metric(epochs))
            assert learning_rate(optimizer) == expected[epochs + 1]


def test_the_rates_that_words_stand_for() -> None:
    assert rate_for_batch("batch_linear", 256) == 8
    assert rate_for_batch("batch_linear", 8) == 0.25
    assert rate_for_batch("batch_nonlinear", 32) == 1 / 128
    assert rate_for_batch("batch_nonlinear", 512) == 1 / 32
    with pytest.raises(ValueError, match="LRfinder"):
        rate_for_batch("LRfinder", 256)
