"""Numbers that are found before training: a batch size that fits, a learning rate."""

import csv
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from ranks import run_two_ranks
from safetensors.torch import load_file

from accel_trainer.config import Job, read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.loader import Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found
from accel_trainer.run.status import RunState
from accel_trainer.training.build import Components, build
from accel_trainer.training.check import JobChecker
from accel_trainer.training.meta_model import activation_bytes
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.runtime.accelerator import make_accelerator
from accel_trainer.training.session import SessionOptions, train
from accel_trainer.training.tune import batch_size, resolve
from accel_trainer.training.tune import lr_finder as finder
from accel_trainer.training.tune.batch_size import (
    DeviceMemory,
    MemoryTrial,
    bytes_beside_a_trial,
    estimate_footprint,
    largest_fitting,
)
from accel_trainer.training.tune.lr_finder import RangeTestPoint, steepest_step

MakeJob = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("sessions_in_caplog")


@pytest.fixture(autouse=True)
def fresh_accelerate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture
def make_job(make_job: MakeJob) -> MakeJob:
    def make(**given: Any) -> Job:
        few = {
            "architecture": "small_cnn",
            "architecture_args": {} if "architecture" in given else {"features": [8, 8, 8]},
            "class_subset": [0, 1],
            "batch_size": 32,
            "num_epochs": 1,
            "num_workers": 0,
            "image_size": 16,
        }
        return make_job(**{**few, **given})

    return make


def train_in(path: Path, job: Job, stop: StopRequest | None = None) -> TrainingResult:
    run = RunFolder(path)
    run.create()
    result = train(job, run, stop or StopRequest(), SessionOptions(submission="first"))
    result.check()
    return result


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(path).weights(1))


def lr(value: float | str) -> dict[str, Any]:
    return {"lr": value, "momentum": 0.9, "weight_decay": 0}


# Steps that are the gradient, and nothing else.
PLAIN = {"lr": 1e-7, "momentum": 0, "weight_decay": 0}


# -- the whole ---------------------------------------------------------------------------------------------------


def test_a_run_with_found_numbers_has_the_bits_of_explicit_ones(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "memory_check", lambda *_: lambda size: size <= 32)
    generator = torch.get_rng_state()
    words = make_job(batch_size="auto", optimizer_args=lr("LRfinder"), gradient_accumulation=2)
    assert train_in(tmp_path / "words", words) == TrainingResult(RunState.FINISHED)
    found = read_found(RunFolder(tmp_path / "words"))
    assert found["auto"] == 32
    assert 1e-6 < found["LRfinder"] < 10
    numbers = words.with_found(found)
    torch.set_rng_state(generator)
    assert train_in(tmp_path / "numbers", numbers) == TrainingResult(RunState.FINISHED)
    one, other = weights(tmp_path / "words"), weights(tmp_path / "numbers")
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    of_words, of_numbers = (load_file(RunFolder(tmp_path / n).weights(0)) for n in ("words", "numbers"))
    assert all(torch.equal(value, of_numbers[name]) for name, value in of_words.items())


def test_the_search_for_a_batch_size_beats_with_each_trial(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[bool] = []
    beats_before: list[int] = []

    def fits(size: int) -> bool:
        beats_before.append(len(beats))
        return size <= 32

    monkeypatch.setattr(resolve, "memory_check", lambda *_: fits)
    monkeypatch.setattr(resolve.Reporter, "heartbeat", lambda self: beats.append(True))
    train_in(tmp_path / "run", make_job(batch_size="auto", optimizer_args=PLAIN))
    assert len(beats_before) > 2
    assert beats_before == list(range(len(beats_before)))


def test_numbers_are_found_once_and_config_json_is_a_job_that_has_them(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = make_job(optimizer_args=lr("batch_nonlinear"))
    train_in(tmp_path / "run", job)
    run = RunFolder(tmp_path / "run")
    assert read_job(run.config).optimizer_args == lr(2**-7)
    assert "optimizer_args.lr: 0.0078125 (batch_nonlinear of batch_size 32)" in caplog.messages

    def again(*_: Any) -> float:
        raise AssertionError("found again")

    monkeypatch.setattr(resolve, "rate_for_batch", again)
    later = job.model_copy(update={"num_epochs": 2})
    assert train_in(run.path, later) == TrainingResult(RunState.FINISHED)
    assert "batch_nonlinear is 0.0078125, as found when the run began" in caplog.messages
    assert json.loads(run.config.read_text())["optimizer_args"] == lr(2**-7)
    with pytest.raises(AssertionError, match="found again"):
        train_in(run.path, job.model_copy(update={"checkpoint": -1}))


@pytest.mark.parametrize(
    ("now", "differ"),
    [
        ({}, []),
        ({"batch_size": 64}, []),
        ({"optimizer_args": lr(0.5)}, []),
        ({"batch_size": 32}, ["batch_size"]),
        ({"optimizer_args": lr(0.4)}, ["optimizer_args"]),
        ({"optimizer_args": lr("batch_linear")}, ["optimizer_args"]),
        ({"optimizer_args": {**lr("LRfinder"), "momentum": 0.8}}, ["optimizer_args"]),
        ({"batch_size": 32, "optimizer_args": lr("batch_linear"), "seed": 1}, ["batch_size", "optimizer_args", "seed"]),
    ],
)
def test_a_rule_and_its_number_are_the_same_job_but_no_others(
    make_job: MakeJob, now: dict[str, Any], differ: list[str]
) -> None:
    words = {"batch_size": "auto", "optimizer_args": lr("LRfinder")}
    found = {"auto": 64, "LRfinder": 0.5}
    config = make_job(**words).with_found(found).completed()
    assert list(make_job(**{**words, **now}).incompatible_diff(config, found)) == differ
    assert "batch_size" in make_job(**words).incompatible_diff(config)  # nothing is known to have been found


@pytest.mark.parametrize(
    ("then", "now", "found", "rate"),
    [
        ("batch_linear", {"batch_size": 64}, {"batch_linear": 2.0}, 2.0),
        (
            "batch_linear",
            {"optimizer_args": lr("batch_nonlinear")},
            {"batch_linear": 1.0, "batch_nonlinear": 2**-7},
            2**-7,
        ),
        ("batch_linear", {"optimizer_args": lr(0.5)}, {"batch_linear": 1.0}, 0.5),
        ("batch_linear", {"seed": 1}, {"batch_linear": 1.0}, 1.0),
        (0.5, {"optimizer_args": lr("batch_linear")}, {"batch_linear": 1.0}, 1.0),
    ],
)
def test_a_job_that_has_changed_has_the_numbers_of_its_own_words(
    make_job: MakeJob, tmp_path: Path, then: float | str, now: dict[str, Any], found: dict[str, float], rate: float
) -> None:
    job, run = make_job(optimizer_args=lr(then)), RunFolder(tmp_path / "run")
    train_in(run.path, job)
    given = {"optimizer_args": lr(then), "num_epochs": 2, "allow_changes": True, **now}
    assert train_in(run.path, make_job(**given)) == TrainingResult(RunState.FINISHED)
    assert read_found(run) == found
    config = json.loads(run.config.read_text())
    assert config["optimizer_args"] == lr(rate)
    with run.performance.open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["split"] == "train"]
    assert rates[1] == pytest.approx(rate)
    assert not make_job(**{**given, "allow_changes": False}).incompatible_diff(config, read_found(run))


def test_a_number_in_config_json_that_was_not_found_is_another_job(make_job: MakeJob) -> None:
    job = make_job(batch_size="auto")
    config = job.with_found({"auto": 32}).completed()
    assert job.incompatible_diff(config, {"auto": 64}) == {"batch_size": (32, 64)}


@pytest.mark.parametrize("given", [{"batch_size": "auto"}, {"optimizer_args": lr("LRfinder")}])
def test_a_stop_while_numbers_are_looked_for_leaves_no_run(
    make_job: MakeJob, tmp_path: Path, given: dict[str, Any]
) -> None:
    stop = StopRequest()
    stop.signal = 15
    assert train_in(tmp_path / "run", make_job(**given), stop) == TrainingResult(RunState.PREEMPTED)
    run = RunFolder(tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} <= {"params", "status.json"}
    assert not list(run.params.iterdir())


def test_what_an_attempt_without_a_run_has_found_is_forgotten(make_job: MakeJob, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    for path in (run.found, run.lr_finder, run.lr_finder_plot):
        path.write_text('{"batch_linear": 7}')
    train_in(run.path, make_job(optimizer_args=lr("batch_linear")))
    assert read_found(run) == {"batch_linear": 1.0}
    assert not run.lr_finder.exists()
    assert not run.lr_finder_plot.exists()


@pytest.mark.parametrize("architecture", ["small_cnn", "shufflenet_v2_x0_5"])
def test_a_job_with_words_is_checked_on_paper(make_job: MakeJob, architecture: str) -> None:
    job = make_job(architecture=architecture, batch_size="auto", optimizer="AdamW", optimizer_args={"lr": "LRfinder"})
    assert JobChecker()(job, world_size=2).steps_per_epoch is None
    with pytest.raises(UserError, match="too few"):
        JobChecker()(job, world_size=1000)


TWO_RANKS = """
import os
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
from pathlib import Path
from accel_trainer.config import Job
from accel_trainer.data.loader import Loader
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found
from accel_trainer.run.status import RunState, Status
from accel_trainer.training.tune import resolve
from accel_trainer.training.build import build
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.runtime.accelerator import make_accelerator

args = {"lr": "LRfinder", "momentum": 0, "weight_decay": 0}
few = {"architecture": "small_cnn", "dataset": "digits", "image_size": 8, "class_subset": [0, 1], "trackers": []}
job = Job.model_validate({**few, "batch_size": "auto", "optimizer_args": args})
resolve.memory_check = lambda *_: lambda size: size <= (64 if rank == 0 else 32)
run, stop = RunFolder(Path(folder) / "run"), StopRequest()
run.create()
accelerator = make_accelerator(job, run)
with Loader(0) as loader:
    reporter = Reporter(run, Status(state=RunState.STARTING), writes=rank == 0)
    resolver = resolve.Resolver(run, accelerator, loader, stop, reporter, lambda job: build(job, 2))
    numbers = resolver(job)
    assert numbers.batch_size == 32
    told = [None, None]
    dist.all_gather_object(told, numbers.completed())
    assert told[0] == told[1]
    assert rank or read_found(run) == {"auto": 32, "LRfinder": numbers.optimizer_args["lr"]}
    if rank == 1:
        stop.signal = 15
    try:
        resolver(job)
    except Stopped:
        pass
    else:
        raise AssertionError("not stopped")
"""


def test_ranks_agree_on_the_numbers_and_on_a_stop(tmp_path: Path) -> None:
    run_two_ranks(TWO_RANKS, tmp_path)


# -- the learning rate -------------------------------------------------------------------------------------------


def curve(losses: list[float]) -> list[RangeTestPoint]:
    return [RangeTestPoint(10 ** (number / 10 - 6), loss, loss) for number, loss in enumerate(losses)]


def steepest_rate(tried: list[RangeTestPoint]) -> float | None:
    step = steepest_step(np.array([point.smoothed for point in tried]), np.log([point.rate for point in tried]))
    return None if step is None else tried[step].rate


def test_the_found_rate_is_where_the_loss_falls_steepest() -> None:
    """A logistic curve is steepest in its middle; after a leap a fall that is steeper still follows."""
    numbers = torch.arange(45.0)
    falling = (2 - torch.sigmoid((numbers - 30) / 3)).tolist()
    assert steepest_rate(curve(falling)) == pytest.approx(1e-3, rel=0.01)
    assert steepest_rate(curve([*falling, 4.0, 3.9, 2.5])) == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("losses", [[], [1.0] * 30, [1 + 0.1 * n for n in range(30)], [1.0, 0.5]])
def test_a_loss_that_does_not_fall_has_no_rate(losses: list[float]) -> None:
    assert steepest_rate(curve(losses)) is None


def test_the_running_mean_is_that_of_an_average_without_bias() -> None:
    losses, expected, mean = [3.0, 1.0, 2.0, 5.0], [], 0.0
    for number, loss in enumerate(losses, start=1):  # as in Adam
        mean = finder.SMOOTHING * mean + (1 - finder.SMOOTHING) * loss
        expected.append(mean / (1 - finder.SMOOTHING**number))
    tried: list[RangeTestPoint] = []
    for loss in losses:
        tried.append(RangeTestPoint(0.1, loss, finder._smoothed(loss, tried)))
    assert [point.smoothed for point in tried] == pytest.approx(expected)


def explode(parts: Components, after: int, loss: float) -> None:
    """Make the loss of all batches after the first ones another."""
    judge, calls = parts.objective.compute, itertools.count()

    def exploding(*args: Any, **kwargs: Any) -> Any:
        judged = judge(*args, **kwargs)
        return judged if next(calls) < after else replace(judged, loss=judged.loss * 0 + loss)

    parts.objective.compute = exploding  # type: ignore[method-assign]


def tried_rates(job: Job, run: RunFolder, parts: Components) -> list[RangeTestPoint]:
    with Loader(0) as loader:
        return finder.range_test(job, parts, make_accelerator(job, run), loader, StopRequest(), lambda *_: None)


def test_the_range_test_trains_as_torch_does_at_rising_rates(make_job: MakeJob, run: RunFolder) -> None:
    """Against a loop of plain torch, over several epochs of two steps."""
    job = make_job(optimizer_args=PLAIN, batch_size=128, image_size=16)
    parts = build(job, 1)
    explode(parts, after=30, loss=math.nan)
    generator = torch.get_rng_state()
    tried = tried_rates(job, run, parts)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [point.rate for point in tried] == pytest.approx(
        torch.logspace(-7, 1, 100, dtype=torch.float64)[:30].tolist()
    )
    parts = build(job, 1)
    plans = itertools.chain.from_iterable(parts.sampling.micro_batches(epoch, 0) for epoch in itertools.count(1))
    parameters = list(parts.model.train().parameters())
    for point, plan in zip(tried, plans, strict=False):
        batch = parts.train_reader(plan)
        loss = torch.nn.functional.cross_entropy(parts.model(batch.inputs.on("cpu")), batch.labels)
        assert point.loss == pytest.approx(loss.item(), rel=1e-4)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter -= point.rate * gradient


@pytest.mark.parametrize("loss", [math.nan, math.inf, 100.0])
def test_the_test_ends_where_the_loss_explodes(make_job: MakeJob, run: RunFolder, loss: float) -> None:
    job = make_job(optimizer_args=PLAIN, image_size=8)
    parts = build(job, 1)
    explode(parts, after=20, loss=loss)
    assert len(tried_rates(job, run, parts)) == (21 if math.isfinite(loss) else 20)


def test_layers_have_their_shares_of_the_tried_rate(make_job: MakeJob, run: RunFolder) -> None:
    job = make_job(optimizer_args=PLAIN, layer_decay=0.5, image_size=8)
    parts = build(job, 1)
    explode(parts, after=3, loss=1e3)
    tried = tried_rates(job, run, parts)
    rates = [group["lr"] for group in parts.optimizer.param_groups]
    assert len(rates) > 2
    assert rates == pytest.approx([tried[-1].rate * 0.5**n for n in reversed(range(len(rates)))])


def test_the_range_test_is_stored_and_drawn_and_may_find_nothing(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = curve([1.0] * 30)
    monkeypatch.setattr(resolve, "range_test", lambda *_: points)
    with pytest.raises(UserError, match=r"^optimizer_args\.lr: LRfinder has seen no fall .*; give a number instead$"):
        train_in(tmp_path / "run", make_job(optimizer_args=lr("LRfinder")))
    run = RunFolder(tmp_path / "run")
    with run.lr_finder.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in rows] == pytest.approx([point.rate for point in points])
    assert run.lr_finder_plot.read_bytes().startswith(b"\x89PNG")
    assert not run.has_run


# -- the batch size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "found"), [(1, None), (2, 2), (7, 4), (8, 8), (1000, 16)])
def test_the_largest_size_that_fits_is_found_without_needless_trials(limit: int, found: int | None) -> None:
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    assert largest_fitting([2, 4, 8, 16], fits) == found
    assert len([size for size in tried if size > limit]) <= 1


def test_what_layers_keep_is_counted_once_and_in_bytes(make_job: MakeJob) -> None:
    """Of a linear layer, a ReLU and a linear layer: the input, the ReLU's output (kept twice), no more."""
    job = make_job(image_size=4)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 7), torch.nn.ReLU(), torch.nn.Linear(7, 2)
    )  # fmt: skip
    two, five = (activation_bytes(job, model, number) for number in (2, 5))
    assert five - two == 3 * 4 * (48 + 7)


def test_memory_of_a_job_counts_weights_gradients_states_and_activations(make_job: MakeJob) -> None:
    job = make_job(
        architecture="squeezenet1_1", image_size=32, optimizer="Adam", optimizer_args={}, ema=0.9, num_views=2
    )
    parts = build(job, 1)
    weights = 4 * sum(parameter.numel() for parameter in parts.model.parameters())
    steps = 4 * len(list(parts.model.parameters()))  # Adam counts them for each
    footprint = estimate_footprint(job, parts)
    assert footprint.fixed == 5 * weights + steps
    assert footprint.bytes_for(3) - footprint.bytes_for(1) == 2 * footprint.per_image
    one_view = make_job(architecture="squeezenet1_1", image_size=32)
    assert footprint.per_image == 2 * estimate_footprint(one_view, build(one_view, 1)).per_image


def test_on_a_cpu_the_batch_may_take_half_of_the_memory(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = make_job(batch_size="auto", num_views=2, gradient_accumulation=2)
    on_paper = job.with_placeholders(8)
    footprint = estimate_footprint(on_paper, build(on_paper, 1))
    monkeypatch.setattr(batch_size, "available_memory", lambda: 2 * footprint.bytes_for(8) + 2)
    train_in(tmp_path / "run", job)
    assert read_found(RunFolder(tmp_path / "run")) == {"auto": 32}
    assert "batch_size: 32 (64 do not fit into memory)" in caplog.messages


def test_a_machine_without_memory_is_reported(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "memory_check", lambda *_: lambda size: False)
    with pytest.raises(UserError, match="batch_size: not even 2 fit into memory"):
        train_in(tmp_path / "run", make_job(batch_size="auto"))


def test_a_trial_takes_steps_and_distinguishes_memory_from_other_errors(make_job: MakeJob, run: RunFolder) -> None:
    job = make_job(num_views=2, gradient_accumulation=2, batch_size=32)
    parts, seen = build(job, 1), []

    def forward(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(args[0]))
        if len(args[0]) > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if len(args[0]) == 6:
            raise RuntimeError("another error")

    parts.model.register_forward_pre_hook(forward)
    trial = MemoryTrial(job, parts, make_accelerator(job, run))
    assert trial(4)
    assert seen == [8] * 4
    assert not trial(5)
    with pytest.raises(RuntimeError, match="another error"):
        trial(3)


@pytest.mark.parametrize(
    ("given", "num_processes", "copies", "gradients"),
    [({}, 1, 0, 0), ({"ema": 0.9}, 1, 1, 0), ({"ema": 0.9, "swa": {"start": 1}}, 1, 2, 0), ({"ema": 0.9}, 2, 1, 1)],
    ids=str,
)
def test_averages_and_buckets_are_counted_beside_a_trial(
    make_job: MakeJob, given: dict[str, Any], num_processes: int, copies: int, gradients: int
) -> None:
    job = make_job(**given)
    parts = build(job, 1)
    trained = sum(parameter.nbytes for parameter in parts.model.parameters())
    weights = trained + sum(buffer.nbytes for buffer in parts.model.buffers())
    assert weights > trained > 0
    assert bytes_beside_a_trial(job, parts, num_processes) == copies * weights + gradients * trained


@pytest.mark.parametrize("others", [0, 600])
def test_a_size_that_leaves_no_reserve_on_the_device_does_not_fit(
    make_job: MakeJob, run: RunFolder, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """A device of 1000 units, of which others use some; an image takes one, and the average stands beside it."""
    job = make_job(ema=0.9)
    parts = build(job, 1)
    unit = bytes_beside_a_trial(job, parts, 1) // 20
    peak = [10**9 * unit]  # of something before

    def forward(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        peak[0] = max(peak[0], len(args[0]) * unit)

    parts.model.register_forward_pre_hook(forward)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((1000 - others - 30) * unit, 1000 * unit))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * unit)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0))
    trial = MemoryTrial(job, parts, make_accelerator(job, run), DeviceMemory(torch.device("cpu")))
    most = (1000 - others) * 9 // 10 - 20
    assert trial(most - 1)
    assert not trial(most + 1)
