"""Losses are torch's own, and stay so when a batch is cut into parts."""

from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.data.augment.mixing import Labels, MixedLabels
from accel_trainer.data.loader import Batch
from accel_trainer.data.views import Inputs
from accel_trainer.training.objectives.base import Cycles
from accel_trainer.training.objectives.classification import (
    CLASSIFICATION_LOSSES,
    INDEX_TARGETS,
    SIGNED_TARGETS,
    ClassificationObjective,
)

CLASSES, IMAGES = 5, 8
WEIGHT = [0.5, 1.0, 2.0, 0.25, 3.0]
# Losses that want log-probabilities get those of the logits.
LOG_PROBABILITIES = ("NLLLoss", "KLDivLoss")
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in CLASSIFICATION_LOSSES),
    *((name, {"reduction": "sum"}) for name in CLASSIFICATION_LOSSES),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}),
    ("CrossEntropyLoss", {"weight": WEIGHT}),
    ("CrossEntropyLoss", {"ignore_index": 2}),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1, "ignore_index": 2}),
    ("CrossEntropyLoss", {"weight": WEIGHT, "reduction": "sum"}),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 2}),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": WEIGHT}),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT[::-1]}),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}),
    ("SmoothL1Loss", {"beta": 0.5}),
    ("HuberLoss", {"delta": 0.5}),
    ("KLDivLoss", {"reduction": "batchmean"}),
]
cases = pytest.mark.parametrize(("criterion", "args"), CASES, ids=lambda value: str(value))


def batch(criterion: str) -> tuple[Tensor, Tensor]:
    """What a model would give for eight images, and their labels, each class among them."""
    logits = torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(0))
    return logits.requires_grad_(), torch.tensor([0, 2, 1, 4, 2, 3, 0, 1])


def torchs_own(criterion: str, args: dict[str, Any], output: Tensor, labels: Tensor) -> Tensor:
    tensors = {name: torch.tensor(args[name]) for name in ("weight", "pos_weight") if name in args}
    loss = getattr(nn, criterion)(**{**args, **tensors})
    output = output.log_softmax(1) if criterion in LOG_PROBABILITIES else output
    if criterion in INDEX_TARGETS:
        return loss(output, labels)
    one_hot = F.one_hot(labels, CLASSES).float()
    return loss(output, 2 * one_hot - 1 if criterion in SIGNED_TARGETS else one_hot)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.filterwarnings("ignore:.*batchmean.*:UserWarning")
@pytest.mark.parametrize("num_parts", [1, 2, 4])
@cases
def test_parts_of_a_batch_have_the_loss_and_gradient_of_torch(
    criterion: str, args: dict[str, Any], num_parts: int
) -> None:
    objective = ClassificationObjective(criterion, args, CLASSES)
    output, labels = batch(criterion)
    expected = torchs_own(criterion, args, output, labels)
    (expected_gradient,) = torch.autograd.grad(expected, output)
    parts = zip(output.chunk(num_parts), labels.chunk(num_parts), strict=True)
    total = sum(objective.loss_sum(*part) / objective.normalizer(labels) for part in parts)
    (gradient,) = torch.autograd.grad(total, output)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


@cases
def test_divisors_of_parts_add_up_to_that_of_the_whole(criterion: str, args: dict[str, Any]) -> None:
    """So that an evaluation may add up batches."""
    objective = ClassificationObjective(criterion, {**args, "reduction": "mean"}, CLASSES)
    _, labels = batch(criterion)
    parts = sum(float(objective.normalizer(part)) for part in labels.split(3))
    assert parts == pytest.approx(float(objective.normalizer(labels)))


def test_auxiliary_heads_count_as_in_the_papers() -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES)
    (logits, labels), other, another = batch(""), torch.randn(8, 5), torch.randn(8, 5)
    inception = namedtuple("InceptionOutputs", ["logits", "aux_logits"])
    googlenet = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
    loss = nn.CrossEntropyLoss(reduction="sum")
    main, first, second = (loss(output, labels) for output in (logits, other, another))
    torch.testing.assert_close(objective.loss_sum(inception(logits, other), labels), main + 0.4 * first)
    torch.testing.assert_close(objective.loss_sum(inception(logits, None), labels), main)
    torch.testing.assert_close(
        objective.loss_sum(googlenet(logits, another, other), labels), main + 0.3 * first + 0.3 * second
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_is_computed_in_full_precision(dtype: torch.dtype) -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES)
    logits, labels = batch("")
    low = logits.detach().to(dtype)
    total = objective.loss_sum(low, labels)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, nn.CrossEntropyLoss(reduction="sum")(low.float(), labels))


@pytest.mark.parametrize(
    ("criterion", "args", "said"),
    [
        ("CrossEntropy", {}, "criterion: 'CrossEntropy' cannot be used here; did you mean 'CrossEntropyLoss'?"),
        ("Conv2d", {}, "criterion: 'Conv2d' cannot be used here"),
        ("CTCLoss", {}, "criterion: 'CTCLoss' cannot be used here"),
        ("TripletMarginLoss", {}, "criterion: 'TripletMarginLoss' cannot be used here"),
        ("CrossEntropyLoss", {"smoothing": 0.1}, "criterion_args.smoothing: CrossEntropyLoss takes no such argument"),
        ("CrossEntropyLoss", {"temperature": 1}, "it takes weight"),
        ("CrossEntropyLoss", {"reduction": "none"}, "criterion_args.reduction: 'none' is not allowed"),
        ("CrossEntropyLoss", {"reduction": "batchmean"}, "criterion_args.reduction: 'batchmean' is not allowed"),
        ("CrossEntropyLoss", {"size_average": False}, "criterion_args.size_average: use reduction"),
        ("CrossEntropyLoss", {"label_smoothing": 2}, "criterion_args: CrossEntropyLoss: label_smoothing must be"),
        ("CrossEntropyLoss", {"label_smoothing": "a"}, "criterion_args: CrossEntropyLoss: "),
        ("CrossEntropyLoss", {"weight": [1, 2]}, "criterion_args.weight: give a list of 5 numbers"),
        ("CrossEntropyLoss", {"weight": 2}, "criterion_args.weight: give a list of 5 numbers"),
        ("CrossEntropyLoss", {"weight": list("abcde")}, "criterion_args.weight: give a list of 5 numbers"),
        ("CrossEntropyLoss", {"weight": [[1]] * 5}, "criterion_args"),
        ("BCEWithLogitsLoss", {"pos_weight": [1, None, 1, 1, 1]}, "criterion_args.pos_weight: give a list of 5"),
        ("MultiMarginLoss", {"p": 3}, "criterion_args: MultiMarginLoss: "),
        ("HuberLoss", {"delta": -1}, "criterion_args: HuberLoss: "),
    ],
)
def test_a_loss_that_cannot_be_constructed_is_reported(criterion: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        ClassificationObjective(criterion, args, CLASSES)
    assert said in str(caught.value)


def test_the_arguments_of_a_job_are_not_changed() -> None:
    args = {"weight": list(WEIGHT), "reduction": "sum"}
    ClassificationObjective("CrossEntropyLoss", args, CLASSES)
    assert args == {"weight": WEIGHT, "reduction": "sum"}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_mean_loss_that_is_reported_does_not_depend_on_the_parts(reduction: str) -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {"weight": WEIGHT, "reduction": reduction}, CLASSES)
    logits, labels = batch("")
    expected = nn.CrossEntropyLoss(torch.tensor(WEIGHT))(logits, labels)
    parts = list(zip(logits.split(3), labels.split(3), strict=True))
    total = sum(objective.loss_sum(*part) for part in parts)
    count = sum(objective.count(part) for _, part in parts)
    assert (total / count).item() == pytest.approx(expected.item())


def test_probabilities_are_not_what_models_give() -> None:
    with pytest.raises(UserError, match="use BCEWithLogitsLoss"):
        ClassificationObjective("BCELoss", {}, CLASSES)


# -- mixtures of two images ---------------------------------------------------------------------------------------

QUARTERS = torch.tensor([4, 3, 2, 1, 0, 3, 2, 1])


def mixtures(quarters: Tensor = QUARTERS) -> MixedLabels:
    """Every image with the one before it, by shares in quarters."""
    _, labels = batch("")
    return MixedLabels(labels, labels.roll(1), quarters / 4)


def soft_targets(labels: MixedLabels) -> Tensor:
    targets = torch.zeros(len(labels), CLASSES)
    for row, (first, second, share) in enumerate(zip(labels.first, labels.second, labels.weight, strict=True)):
        targets[row, first] += share
        targets[row, second] += 1 - share
    return targets


def torchs_own_of_mixtures(criterion: str, args: dict[str, Any], output: Tensor, labels: MixedLabels) -> Tensor:
    """Where a loss wants a class, an image of 3/4 of one is three images of that and one of the other."""
    if criterion not in INDEX_TARGETS:
        tensors = {name: torch.tensor(args[name]) for name in ("weight", "pos_weight") if name in args}
        targets = soft_targets(labels)
        output = output.log_softmax(1) if criterion in LOG_PROBABILITIES else output
        return getattr(nn, criterion)(**{**args, **tensors})(
            output, 2 * targets - 1 if criterion in SIGNED_TARGETS else targets
        )
    four = torch.arange(4)
    each = torch.where(four < QUARTERS[:, None], labels.first[:, None], labels.second[:, None])
    loss = torchs_own(criterion, args, output.repeat_interleave(4, 0), each.flatten())
    return loss / 4 if args.get("reduction") == "sum" else loss


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.filterwarnings("ignore:.*batchmean.*:UserWarning")
@pytest.mark.parametrize("num_parts", [1, 4])
@cases
def test_parts_of_mixed_batches_have_the_loss_and_gradient_of_torch(
    criterion: str, args: dict[str, Any], num_parts: int
) -> None:
    objective = ClassificationObjective(criterion, args, CLASSES)
    (output, _), labels = batch(criterion), mixtures()
    expected = torchs_own_of_mixtures(criterion, args, output, labels)
    (expected_gradient,) = torch.autograd.grad(expected, output)
    each = IMAGES // num_parts
    parts = [(output[start : start + each], labels[start : start + each]) for start in range(0, IMAGES, each)]
    total = sum(objective.loss_sum(*part) / objective.normalizer(labels) for part in parts)
    (gradient,) = torch.autograd.grad(total, output)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_cross_entropy_of_mixtures_is_that_of_their_soft_targets(smoothing: float, reduction: str) -> None:
    args = {"label_smoothing": smoothing, "reduction": reduction}
    objective = ClassificationObjective("CrossEntropyLoss", args, CLASSES)
    (output, _), labels = batch(""), mixtures(torch.rand(IMAGES, generator=torch.Generator().manual_seed(1)) * 4)
    loss = objective.loss_sum(output, labels) / objective.normalizer(labels)
    torch.testing.assert_close(loss, F.cross_entropy(output, soft_targets(labels), **args), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_count_in_the_cross_entropy_of_mixtures_as_in_soft_targets(smoothing: float) -> None:
    """As a sum: torch's mean over soft targets leaves the weights out of what it divides by."""
    args = {"weight": WEIGHT, "label_smoothing": smoothing}
    objective = ClassificationObjective("CrossEntropyLoss", args, CLASSES)
    (output, _), labels = batch(""), mixtures()
    targets, weight = soft_targets(labels), torch.tensor(WEIGHT)
    expected = F.cross_entropy(output, targets, weight=weight, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(objective.loss_sum(output, labels), expected)
    assert float(objective.normalizer(labels)) == pytest.approx(float((targets * weight).sum()))


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@cases
def test_images_that_are_all_themselves_have_the_loss_of_their_own_labels(criterion: str, args: dict[str, Any]) -> None:
    objective = ClassificationObjective(criterion, args, CLASSES)
    output, labels = batch(criterion)
    unmixed = MixedLabels(labels, labels.roll(1), torch.ones(IMAGES))
    torch.testing.assert_close(
        objective.loss_sum(output, unmixed), objective.loss_sum(output, labels), rtol=1e-6, atol=1e-6
    )
    for divisor in (objective.normalizer, objective.count):
        assert float(divisor(unmixed)) == pytest.approx(float(divisor(labels)))


@cases
def test_divisors_of_parts_of_mixtures_add_up_to_that_of_the_whole(criterion: str, args: dict[str, Any]) -> None:
    objective = ClassificationObjective(criterion, {**args, "reduction": "mean"}, CLASSES)
    labels = mixtures()
    parts = sum(float(objective.normalizer(labels[start : start + 3])) for start in range(0, IMAGES, 3))
    assert parts == pytest.approx(float(objective.normalizer(labels)))


def test_auxiliary_heads_are_shown_the_mixtures_too() -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES)
    (logits, _), other, labels = batch(""), torch.randn(8, 5), mixtures()
    inception = namedtuple("InceptionOutputs", ["logits", "aux_logits"])
    main, first = (F.cross_entropy(output, soft_targets(labels), reduction="sum") for output in (logits, other))
    torch.testing.assert_close(objective.loss_sum(inception(logits, other), labels), main + 0.4 * first)


# -- cycles and heads ---------------------------------------------------------------------------------------------

CYCLES, HEADS = 3, 2


def outputs_of_cycles(*, heads: int | None = None) -> tuple[Tensor, Tensor]:
    """Logits (images, cycles, classes), or (images, cycles, heads, classes), and labels."""
    shape = (IMAGES, CYCLES, CLASSES) if heads is None else (IMAGES, CYCLES, heads, CLASSES)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    return logits.requires_grad_(), batch("")[1]


def judged(objective: ClassificationObjective, output: Tensor, labels: Labels) -> tuple[Tensor, dict[str, float]]:
    found = objective.compute(output, Batch(Inputs(torch.empty(0)), labels, labels, 0), is_shared=True)
    assert found.sums.shape == (objective.num_sums,)
    return found.loss, objective.scores(found.sums.tolist())


@pytest.mark.parametrize(
    ("loss_cycle", "trained"), [(None, [2]), (-1, [2]), (0, [0]), (1, [1]), ("uniform", [0, 1, 2])]
)
@pytest.mark.parametrize("heads", [None, 1, HEADS])
@pytest.mark.parametrize("criterion", ["CrossEntropyLoss", "BCEWithLogitsLoss"])
def test_the_loss_is_the_mean_over_trained_cycles_and_heads(
    loss_cycle: Any, trained: list[int], heads: int | None, criterion: str
) -> None:
    objective = ClassificationObjective(criterion, {}, CLASSES, Cycles.choose(CYCLES, loss_cycle))
    output, labels = outputs_of_cycles(heads=heads)
    expected = torch.stack(
        [
            torchs_own(criterion, {}, of_head, labels)
            for cycle in trained
            for of_head in (output[:, cycle].unbind(1) if heads else [output[:, cycle]])
        ]
    ).mean()
    share, scores = judged(objective, output, labels)
    torch.testing.assert_close(share, expected)
    assert scores["loss"] == pytest.approx(expected.item())
    gradients = (torch.autograd.grad(loss, output, retain_graph=True)[0] for loss in (share, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("loss_cycle", "trained"), [(None, [2]), (0, [0]), ("uniform", [0, 1, 2])])
def test_heads_on_the_last_axis_are_chosen_as_cycles_are(loss_cycle: Any, trained: list[int]) -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES, Cycles.choose(CYCLES, loss_cycle, axis=2))
    output, labels = outputs_of_cycles()
    heads_last = output.detach().movedim(1, 2).requires_grad_()
    share, scores = judged(objective, heads_last, labels)
    torch.testing.assert_close(share, torch.stack([F.cross_entropy(output[:, t], labels) for t in trained]).mean())
    best = output[:, trained[-1]].argmax(1)
    assert scores["acc1"] == pytest.approx(100 * (best == labels).float().mean().item())
    (gradient,) = torch.autograd.grad(share, heads_last)
    assert gradient.any(1).any(0).nonzero().flatten().tolist() == trained


@pytest.mark.parametrize("mixed", [False, True])
def test_accuracy_is_that_of_the_chosen_cycle_and_of_every_other_one(mixed: bool) -> None:
    output, labels = outputs_of_cycles()
    given = mixtures() if mixed else labels
    of_cycles = []
    for cycle in range(CYCLES):
        single = ClassificationObjective("CrossEntropyLoss", {}, CLASSES)
        of_cycles.append(judged(single, output[:, cycle], given)[1])
        assert list(of_cycles[-1]) == ["loss", "acc1", "acc5"]
    for loss_cycle, reported in ((1, 1), (0, 0), (None, 2), ("uniform", 2)):
        objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES, Cycles.choose(CYCLES, loss_cycle))
        _, scores = judged(objective, output, given)
        assert (scores["acc1"], scores["acc5"]) == (of_cycles[reported]["acc1"], of_cycles[reported]["acc5"])
        assert [scores[f"acc1_cycle{cycle}"] for cycle in range(CYCLES)] == [s["acc1"] for s in of_cycles]
    assert len({s["acc1"] for s in of_cycles}) > 1


def test_the_accuracy_of_several_heads_is_that_of_their_mean_logits() -> None:
    output, labels = outputs_of_cycles(heads=HEADS)
    objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES, Cycles.choose(CYCLES, 0))
    mean = (output[:, 0, 0] + output[:, 0, 1]) / 2
    assert judged(objective, output, labels)[1]["acc1"] == 100 * (mean.argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize(("number", "cycle"), [(1, 1), (1, -2), (5, 5), (5, -6)])
def test_a_cycle_that_the_model_does_not_give_is_refused(number: int, cycle: int) -> None:
    with pytest.raises(UserError, match=f"loss_cycle: {cycle}, but the model gives"):
        Cycles.choose(number, cycle)
