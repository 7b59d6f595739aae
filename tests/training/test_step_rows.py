"""What is told of single steps: means over all images since the row before, each once, whatever happens to the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import TINY, assert_same, outcome, records, taken_up, train, train_until

from accel_trainer.training.histograms import HistogramSchedule, histograms_of
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.state.step_rows import StepRow

MakeLoop = Callable[..., TrainingLoop]
pytestmark = pytest.mark.usefixtures("tiny_models")
# Of two classes of digits: two steps of 128 images in an epoch.
STEPS_PER_EPOCH = 2


def rows_of(loop: TrainingLoop) -> list[StepRow]:
    history = loop.step.step_log.history()
    assert history is not None
    return history.rows


def test_a_row_is_the_mean_over_the_steps_since_the_one_before(make_loop: MakeLoop, tmp_path: Path) -> None:
    single = train(make_loop(tmp_path / "single", **TINY, num_epochs=3, log_every_steps=1))
    rows = rows_of(single)
    assert [row.step for row in rows] == [1, 2, 3, 4, 5, 6]
    epochs = [record for record in records(single) if record["split"] == "train"]
    for number, epoch in enumerate(epochs):
        of_epoch = rows[STEPS_PER_EPOCH * number :][:STEPS_PER_EPOCH]
        for score in ("loss", "acc1"):
            assert np.mean([row.scores[score] for row in of_epoch]) == pytest.approx(epoch[score], rel=1e-12)
        assert {row.lr for row in of_epoch} == {epoch["lr"]}
    across = rows_of(train(make_loop(tmp_path / "across", **TINY, num_epochs=3, log_every_steps=3)))
    assert [row.step for row in across] == [3, 6]
    for row, part in zip(across, (rows[:3], rows[3:]), strict=True):
        assert row.scores["loss"] == pytest.approx(np.mean([one.scores["loss"] for one in part]), rel=1e-12)


@pytest.mark.parametrize("every", [1, 3])
def test_rows_after_a_stop_anywhere_are_those_of_a_run_without_and_nothing_else_changes(
    make_loop: MakeLoop, tmp_path: Path, every: int
) -> None:
    plain = train(make_loop(tmp_path / "plain", **TINY))
    whole = train(make_loop(tmp_path / "whole", **TINY, log_every_steps=every))
    assert_same(outcome(plain), outcome(whole))
    for look in range(1, 5):
        folder = tmp_path / f"stopped-{look}"
        if train_until(make_loop(folder, **TINY, log_every_steps=every), look):
            break
        resumed = train(taken_up(make_loop(folder, **TINY, log_every_steps=every)))
        assert rows_of(resumed) == rows_of(whole)
        assert_same(outcome(resumed), outcome(whole))
    assert look > 2


def test_a_state_of_a_run_without_rows_is_as_before(make_loop: MakeLoop, tmp_path: Path) -> None:
    loop = train(make_loop(tmp_path, **TINY))
    assert loop.step.step_log.history() is None
    state = loop.states.newest()
    assert state is not None
    assert "steps" not in state.progress.as_record()


@pytest.mark.parametrize(("when", "steps"), [("epoch", [2, 4]), (3, [3])])
def test_histograms_are_of_the_steps_that_are_wanted_and_change_no_bit(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: Any, steps: list[int]
) -> None:
    wandb = {"mode": "disabled", "histograms": when}
    loop = make_loop(tmp_path / "with", **{**TINY, "trackers": ["wandb"], "wandb": wandb})
    taken = dict[int, Any]()
    take = loop._take_histograms

    def note() -> None:
        take()
        if loop._histograms:
            taken[loop.progress.global_step + 1] = loop._histograms

    monkeypatch.setattr(loop, "_take_histograms", note)
    train(loop)
    assert_same(outcome(loop), outcome(train(make_loop(tmp_path / "without", **TINY))))
    assert list(taken) == steps
    names = {name for name, parameter in loop.plain_model.named_parameters() if parameter.requires_grad}
    for histograms in taken.values():
        assert histograms.keys() == {f"{kind}/{name}" for kind in ("parameters", "gradients") for name in names}


def test_a_histogram_has_all_values_that_are_finite() -> None:
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    model.weight.grad = torch.tensor([[2.0, 4.0, torch.nan], [torch.inf, 6.0, 8.0]])
    found = histograms_of(model, gradient_scale=2.0)
    assert found.keys() == {"parameters/weight", "gradients/weight"}
    counts, edges = found["gradients/weight"]
    assert (counts.sum(), edges[0], edges[-1], len(counts)) == (4, 1.0, 4.0, 64)
    expected, _ = np.histogram(model.weight.detach().numpy().astype(np.float64), bins=64)
    assert np.array_equal(found["parameters/weight"][0], expected)


def test_a_job_without_histograms_has_none_due() -> None:
    assert not any(HistogramSchedule(None).is_due(step, step, 2) for step in range(1, 5))
