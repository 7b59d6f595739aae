"""Averages of weights are torch's own and closed forms, and the model that is trained knows nothing of them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from loops import TINY, records, train
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from accel_trainer.data.batch_plan import evaluation_batches
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.optim.averaging import Averages, update_batch_norm

MakeLoop = Callable[..., TrainingLoop]
Weights = dict[str, Tensor]

pytestmark = pytest.mark.usefixtures("tiny_models")

EPOCHS = 4
# Without dropout, whose draws nobody else would repeat.
SWA: dict[str, Any] = {
    **TINY,
    "architecture_args": {"dropout": 0.0},
    "num_epochs": EPOCHS,
    "save_interval": 1,
    "swa": {"start": 2},
}


def rows_of(loop: TrainingLoop, split: str) -> list[dict[str, Any]]:
    return [row for row in records(loop) if row["split"] == split]


def trained_weights(loop: TrainingLoop) -> Weights:
    return {name: value.clone() for name, value in train(loop).plain_model.state_dict().items()}


def last_epochs_inputs(loop: TrainingLoop) -> Iterator[Tensor]:
    for plan in loop.parts.sampling.micro_batches(loop.job.num_epochs, 0):
        yield loop.parts.train_reader(plan).inputs.on("cpu")


# -- SWA ------------------------------------------------------------------------------------------------------------


def test_swa_weights_are_the_mean_of_epochs_with_statistics_as_in_torch(make_loop: MakeLoop, tmp_path: Path) -> None:
    loop = train(make_loop(tmp_path / "run", **SWA))
    swa = load_file(loop.run.swa_weights)
    ends = [load_file(loop.run.weights(epoch)) for epoch in (2, 3, 4)]
    model = loop.plain_model  # to be loaded with the snapshots
    model.load_state_dict(ends[0])
    torchs = AveragedModel(model)
    for end in ends:
        model.load_state_dict(end)
        torchs.update_parameters(model)
    for name, parameter in torchs.module.named_parameters():
        mean = sum(end[name].double() for end in ends) / 3
        torch.testing.assert_close(swa[name].double(), mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(swa[name], parameter.detach(), rtol=0, atol=1e-7)
    assert not torch.allclose(swa["decoder.weight"], ends[-1]["decoder.weight"], atol=1e-3)
    update_bn(last_epochs_inputs(loop), torchs)
    buffers = dict(torchs.module.named_buffers())
    assert any("running_var" in name for name in buffers)
    for name, buffer in buffers.items():
        torch.testing.assert_close(swa[name], buffer, rtol=1e-5, atol=1e-6)
    assert swa.keys() == ends[0].keys()


def test_swa_is_evaluated_after_the_last_epoch_and_loads_into_torchvision(make_loop: MakeLoop, tmp_path: Path) -> None:
    job = {"architecture": "shufflenet_v2_x0_5", "batch_size": 128, "num_epochs": 2, "swa": {"start": 1}}
    loop = train(make_loop(tmp_path / "run", **job))
    (row,) = rows_of(loop, "val_swa")
    assert row["epoch"] == 2
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=2)
    model.load_state_dict(load_file(loop.run.swa_weights))
    model.eval()
    hits = 0
    for plan in evaluation_batches(loop.parts.val.num_images, 50, 0, 1):
        batch = loop.parts.val.reader(plan)
        with torch.inference_mode():
            hits += int((model(batch.inputs.on("cpu")).argmax(1) == batch.labels).sum())
    assert row["acc1"] == pytest.approx(100 * hits / loop.parts.val.num_images)


def test_statistics_of_frozen_modules_are_not_renewed_and_momenta_stay() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, momentum=0.3)))
    for norm in (model[0], model[1][1]):
        norm.running_mean = torch.rand(3)
        norm.num_batches_tracked += 7
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [torch.randn(8, 3) + k for k in range(3)]
    with torch.no_grad():
        renewed = update_batch_norm(model, batches, frozen=["0"])
        in_between = [model[1][0](model[0](x)) for x in batches]
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("1.1."))
    mean = torch.stack([x.mean(0) for x in in_between]).mean(0)
    variance = torch.stack([x.var(0) for x in in_between]).mean(0)
    torch.testing.assert_close(after["1.1.running_mean"], mean)
    torch.testing.assert_close(after["1.1.running_var"], variance)
    assert [t.data_ptr() for t in renewed] == [after[f"1.1.running_{k}"].data_ptr() for k in ("mean", "var")]
    assert (model[0].momentum, model[1][1].momentum) == (0.1, 0.3)


def test_a_model_without_statistics_looks_at_no_batch() -> None:
    def no_batch() -> Iterator[Tensor]:
        raise AssertionError("looked at a batch")
        yield

    model = nn.Sequential(nn.Linear(3, 3), nn.GroupNorm(1, 3), nn.BatchNorm1d(3, track_running_stats=False))
    assert update_batch_norm(model, no_batch()) == []
    assert update_batch_norm(nn.Sequential(nn.BatchNorm1d(3)), no_batch(), frozen=["0"]) == []


def test_the_average_after_the_last_epoch_does_not_take_it_in(make_loop: MakeLoop, tmp_path: Path) -> None:
    """It may be asked for again, by a run that is killed before the epoch is final."""
    loop = make_loop(tmp_path / "run", **SWA)
    model = loop.plain_model
    averages = Averages(model, ema_decay=None, swa_start=SWA["swa"]["start"])
    for epoch in (1, 2, 3):
        nn.init.constant_(model.decoder.bias, epoch)
        averages.after_epoch(epoch, model)
    nn.init.constant_(model.decoder.bias, 7)
    for _ in range(2):
        averaged = averages.swa_after(4, model)
        assert averaged is not None
        torch.testing.assert_close(averaged.get_parameter("decoder.bias").detach(), torch.full((2,), (2 + 3 + 7) / 3))
    assert averages.swa_after(1, model) is None


# -- EMA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.9, 0.3])
def test_the_moving_average_is_that_of_every_step_from_the_first_on(
    make_loop: MakeLoop, tmp_path: Path, decay: float
) -> None:
    loop = make_loop(tmp_path / "run", **{**TINY, "ema": decay})
    snapshots: list[Weights] = []
    in_files: list[Weights] = []
    after_step, end_epoch = loop.averages.after_step, loop._end_epoch

    def recorded(model: nn.Module) -> None:
        snapshots.append({name: value.clone() for name, value in model.state_dict().items()})
        after_step(model)
        if len(snapshots) == 1:
            assert loop.averages.ema is not None
            assert all(torch.equal(value, snapshots[0][name]) for name, value in loop.averages.ema.state_dict().items())

    def then_read(*args: Any, **keywords: Any) -> None:
        end_epoch(*args, **keywords)
        loop.saver.wait()
        in_files.append(load_file(loop.run.ema_weights))

    loop.averages.after_step, loop._end_epoch = recorded, then_read  # type: ignore[method-assign]
    train(loop)
    steps = loop.parts.sampling.steps_per_epoch
    assert len(snapshots) == 2 * steps
    average = {name: value.double() for name, value in snapshots[0].items() if value.is_floating_point()}
    for step, snapshot in enumerate(snapshots, start=1):
        if step > 1:
            average = {name: decay * value + (1 - decay) * snapshot[name] for name, value in average.items()}
        if step % steps == 0:
            written = in_files[step // steps - 1]
            assert written.keys() == snapshot.keys()
            for name, value in average.items():
                torch.testing.assert_close(written[name].double(), value, rtol=1e-6, atol=1e-6)
    assert [row["epoch"] for row in rows_of(loop, "val_ema")] == [1, 2]


def test_rows_of_the_moving_average_are_what_its_weights_score(make_loop: MakeLoop, tmp_path: Path) -> None:
    loop = train(make_loop(tmp_path / "run", **{**TINY, "ema": 0.9}))
    row, own = rows_of(loop, "val_ema")[-1], rows_of(loop, "val")[-1]
    assert row["loss"] != own["loss"]
    loop.plain_model.load_state_dict(load_file(loop.run.ema_weights))
    measured = loop.validation.row(2, "val", loop.plain_model, loop.parts.val, loop).scores
    assert (row["loss"], row["acc1"]) == (measured["loss"], measured["acc1"])


# -- both -------------------------------------------------------------------------------------------------------------


def test_the_model_that_is_trained_is_the_same_with_and_without_averages(make_loop: MakeLoop, tmp_path: Path) -> None:
    plain = trained_weights(make_loop(tmp_path / "plain", **TINY))
    averages: list[dict[str, Any]] = [{"ema": 0.9}, {"swa": {"start": 1}}, {"ema": 0.5, "swa": {"start": 2}}]
    for number, given in enumerate(averages):
        averaged = trained_weights(make_loop(tmp_path / str(number), **{**TINY, **given}))
        assert all(torch.equal(value, plain[name]) for name, value in averaged.items())
        assert averaged.keys() == plain.keys()
