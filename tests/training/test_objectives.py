"""Losses are torch's own, and stay so when a batch is cut into parts."""

from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.errors import UserError
from accel_trainer.training.objectives import (
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
def test_the_loss_and_gradient_of_all_parts_are_those_of_torch_for_the_whole(
    criterion: str, args: dict[str, Any], num_parts: int
) -> None:
    objective = ClassificationObjective(criterion, args, CLASSES)
    output, labels = batch(criterion)
    expected = torchs_own(criterion, args, output, labels)
    (expected_gradient,) = torch.autograd.grad(expected, output)
    parts = zip(output.chunk(num_parts), labels.chunk(num_parts), strict=True)
    total = sum(objective.total(*part) / objective.divisor(labels) for part in parts)
    (gradient,) = torch.autograd.grad(total, output)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


@cases
def test_divisors_of_parts_add_up_to_that_of_the_whole(criterion: str, args: dict[str, Any]) -> None:
    """So that an evaluation may add up batches."""
    objective = ClassificationObjective(criterion, {**args, "reduction": "mean"}, CLASSES)
    _, labels = batch(criterion)
    parts = sum(float(objective.divisor(part)) for part in labels.split(3))
    assert parts == pytest.approx(float(objective.divisor(labels)))


def test_auxiliary_heads_count_as_in_the_papers() -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES)
    (logits, labels), other, another = batch(""), torch.randn(8, 5), torch.randn(8, 5)
    inception = namedtuple("InceptionOutputs", ["logits", "aux_logits"])
    googlenet = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
    loss = nn.CrossEntropyLoss(reduction="sum")
    main, first, second = (loss(output, labels) for output in (logits, other, another))
    torch.testing.assert_close(objective.total(inception(logits, other), labels), main + 0.4 * first)
    torch.testing.assert_close(objective.total(inception(logits, None), labels), main)
    torch.testing.assert_close(
        objective.total(googlenet(logits, another, other), labels), main + 0.3 * first + 0.3 * second
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_is_computed_in_full_precision(dtype: torch.dtype) -> None:
    objective = ClassificationObjective("CrossEntropyLoss", {}, CLASSES)
    logits, labels = batch("")
    low = logits.detach().to(dtype)
    total = objective.total(low, labels)
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
def test_a_loss_that_cannot_be_made_is_told(criterion: str, args: dict[str, Any], said: str) -> None:
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
    total = sum(objective.total(*part) for part in parts)
    count = sum(objective.count(part) for _, part in parts)
    assert (total / count).item() == pytest.approx(expected.item())


def test_probabilities_are_not_what_models_give() -> None:
    with pytest.raises(UserError, match="use BCEWithLogitsLoss"):
        ClassificationObjective("BCELoss", {}, CLASSES)
