import math

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import nn

from accel_trainer.data.augment.mixing import Labels, MixedLabels
from accel_trainer.data.loader import Batch
from accel_trainer.data.views import Inputs
from accel_trainer.training.objectives.base import Meter, float_vector, top_hits
from accel_trainer.training.objectives.classification import ClassificationObjective

CPU = torch.device("cpu")


def sums_of(logits: torch.Tensor, labels: Labels, parts: list[slice]) -> tuple[ClassificationObjective, torch.Tensor]:
    objective = ClassificationObjective("CrossEntropyLoss", {}, logits.shape[1])
    meter = Meter(CPU, objective.num_sums)
    for part in parts:
        batch = Batch(Inputs(torch.empty(0)), labels[part], labels[part], 0)
        meter.add(objective.compute(logits[part], batch, is_shared=False).sums)
    return objective, meter.sums


def metered(logits: torch.Tensor, labels: Labels, batch_size: int) -> dict[str, float]:
    parts = [slice(start, start + batch_size) for start in range(0, len(logits), batch_size)]
    objective, sums = sums_of(logits, labels, parts)
    return objective.scores(sums.tolist())


def some(num_classes: int, count: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(count, num_classes, generator=generator)
    return logits, torch.randint(num_classes, (count,), generator=generator)


@pytest.mark.parametrize("num_classes", [6, 10, 100])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_accuracies_are_those_of_scikit_learn(num_classes: int, batch_size: int) -> None:
    logits, labels = some(num_classes)
    scores = metered(logits, labels, batch_size)
    for k, ours in ((1, scores["acc1"]), (5, scores["acc5"])):
        theirs = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(num_classes))
        assert ours == pytest.approx(100 * theirs)
    assert scores["loss"] == pytest.approx(nn.CrossEntropyLoss()(logits, labels).item())


@pytest.mark.parametrize("num_classes", [1, 2, 4, 5])
def test_with_five_classes_or_fewer_the_top_five_accuracy_is_full(num_classes: int) -> None:
    logits, labels = some(num_classes)
    scores = metered(logits, labels, batch_size=9)
    assert scores["acc5"] == 100
    assert scores["acc1"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())


def test_hits_equal_those_that_are_counted_by_hand() -> None:
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0]] * 4)
    hits1, hits5 = top_hits(logits, torch.tensor([0, 1, 4, 5]))
    assert (int(hits1), int(hits5)) == (1, 3)


def test_sums_of_processes_add_up_to_the_scores_of_all() -> None:
    logits, labels = some(10)
    of_ranks = [sums_of(logits, labels, [slice(rank, None, 2)]) for rank in range(2)]
    (objective, one), (_, other) = of_ranks
    together = objective.scores((one + other).tolist())
    assert together == pytest.approx(metered(logits, labels, 100))


def test_small_losses_are_not_lost_beside_large_sums() -> None:
    meter = Meter(CPU, 1)
    meter.sums[0] = 2**30  # where float32 has steps of 128
    for _ in range(1000):
        meter.add(float_vector(CPU, torch.tensor(0.5)))
    assert float(meter.sums[0]) == 2**30 + 500


def test_without_any_images_all_scores_are_nan() -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {}, 10)
    assert all(math.isnan(score) for score in objective.scores([0.0] * objective.num_sums).values())


def test_a_meter_that_is_reset_starts_anew() -> None:
    meter = Meter(CPU, 2)
    meter.add(float_vector(CPU, float("nan"), 1))
    meter.reset()
    assert meter.sums.tolist() == [0, 0]


def test_hits_of_every_cycle_are_counted_at_once() -> None:
    logits, labels = some(10)
    cycles = torch.stack([logits, -logits], dim=1)
    hits1, hits5 = top_hits(cycles, labels)
    for cycle, alone in enumerate((logits, -logits)):
        assert (hits1[cycle], hits5[cycle]) == top_hits(alone, labels)


# -- mixtures of two images ---------------------------------------------------------------------------------------


def some_mixtures(num_classes: int, count: int = 100) -> tuple[torch.Tensor, MixedLabels]:
    logits, first = some(num_classes, count)
    generator = torch.Generator().manual_seed(1)
    second, share = torch.randint(num_classes, (count,), generator=generator), torch.rand(count, generator=generator)
    return logits, MixedLabels(first, second, share)


@pytest.mark.parametrize("num_classes", [2, 6, 10, 100])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_mixtures_count_by_their_shares_as_weights_do_in_scikit_learn(num_classes: int, batch_size: int) -> None:
    logits, labels = some_mixtures(num_classes)
    scores = metered(logits, labels, batch_size)
    twice = torch.cat([labels.first, labels.second]).numpy()
    weights = torch.cat([labels.weight, 1 - labels.weight]).numpy()
    scored = logits.repeat(2, 1).numpy()
    for k, ours in ((1, scores["acc1"]), (5, scores["acc5"])):
        if num_classes == 2:  # of which scikit-learn wants one score
            theirs = (weights * (scored.argmax(1) == twice)).sum() / 100 if k == 1 else 1.0
        else:
            theirs = top_k_accuracy_score(twice, scored, k=k, sample_weight=weights, labels=range(num_classes))
        assert ours == pytest.approx(100 * theirs, rel=1e-5)


def test_hits_of_mixtures_are_counted_by_hand() -> None:
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0]] * 4)
    first, second = torch.tensor([0, 1, 5, 3]), torch.tensor([1, 0, 0, 3])
    hits1, hits5 = top_hits(logits, MixedLabels(first, second, torch.tensor([0.25, 0.25, 0.875, 0.5])))
    assert (float(hits1), float(hits5)) == (0.25 + 0.75 + 0.125, 1 + 1 + 0.125 + 1)


def test_a_mixture_of_two_images_of_one_class_is_one_hit() -> None:
    logits, labels = some(10)
    alike = MixedLabels(labels, labels, torch.rand(100, generator=torch.Generator().manual_seed(1)))
    for mixed, plain in zip(top_hits(logits, alike), top_hits(logits, labels), strict=True):
        assert float(mixed) == pytest.approx(float(plain))


def test_without_the_other_image_a_mixture_counts_as_the_image() -> None:
    logits, labels = some(10)
    for share, mixed in ((1.0, (labels, labels.flip(0))), (0.0, (labels.flip(0), labels))):
        hits = top_hits(logits, MixedLabels(*mixed, torch.full((100,), share)))
        assert [float(hit) for hit in hits] == [float(hit) for hit in top_hits(logits, labels)]
