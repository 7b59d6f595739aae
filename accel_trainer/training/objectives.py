"""What a model is trained for: losses that are exact whatever the number of processes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.data.mixing import Labels, MixedLabels, one_hot
from accel_trainer.errors import UserError
from accel_trainer.training.construct import construct
from accel_trainer.zoo.registry import auxiliary_logits, main_logits

# What a loss wants as target: the class's index, or a number for each class.
INDEX_TARGETS = {k.__name__: k for k in (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)}
ONE_HOT_TARGETS = {
    k.__name__: k
    for k in (
        nn.BCEWithLogitsLoss,
        nn.MSELoss,
        nn.L1Loss,
        nn.SmoothL1Loss,
        nn.HuberLoss,
        nn.MultiLabelSoftMarginLoss,
        nn.KLDivLoss,
    )
}
SIGNED_TARGETS = {k.__name__: k for k in (nn.SoftMarginLoss,)}
# These want log-probabilities, which models do not give; of those that do, log_softmax changes nothing.
LOG_PROBABILITIES = ("NLLLoss", "KLDivLoss")
CLASSIFICATION_LOSSES: dict[str, type[nn.Module]] = {**INDEX_TARGETS, **ONE_HOT_TARGETS, **SIGNED_TARGETS}


class ClassificationObjective:
    """A classification loss of torch.nn, as a sum over some images and a divisor for the whole batch.

    The loss of a global batch is `sum(total(part)) / divisor(all labels)`. Every process knows the labels of the
    whole batch, so each computes its own share of the true mean, class weights and `ignore_index` included,
    and adding up the shares gives the one-process loss and gradient.

    Of mixtures of two images, the losses that want a class are the mixture of those of both labels (for
    cross-entropy that is the loss of the soft target); the others want a number for each class: the soft target.
    """

    def __init__(self, criterion: str, args: Mapping[str, Any], num_classes: int) -> None:
        self.name = criterion
        self.num_classes = num_classes
        if criterion == "BCELoss":
            raise UserError("criterion: BCELoss wants probabilities, and models give logits; use BCEWithLogitsLoss")
        args = dict(args)
        reduction = args.pop("reduction", "mean")
        self._reduction = reduction
        allowed = ("mean", "sum", "batchmean") if criterion == "KLDivLoss" else ("mean", "sum")
        if reduction not in allowed:
            raise UserError(
                f"criterion_args.reduction: {reduction!r} is not allowed; it is one of {', '.join(allowed)}"
            )
        for old in ("size_average", "reduce"):
            if old in args:
                raise UserError(f"criterion_args.{old}: use reduction")
        for name in ("weight", "pos_weight"):
            if name in args:
                args[name] = self._class_weights(name, args[name])
        kind = CLASSIFICATION_LOSSES.get(criterion)
        per_element = {"reduction": "none"} if kind and "reduction" in inspect.signature(kind).parameters else {}
        self._loss = construct("criterion", CLASSIFICATION_LOSSES, criterion, {**args, **per_element})
        self._probe()

    def _class_weights(self, name: str, weights: Any) -> Tensor:
        are_numbers = isinstance(weights, list) and all(type(weight) in (int, float) for weight in weights)
        if not are_numbers or len(weights) != self.num_classes:
            raise UserError(f"criterion_args.{name}: give a list of {self.num_classes} numbers, one for each class")
        return torch.tensor(weights, dtype=torch.float32)

    def _probe(self) -> None:
        """Find arguments that the loss takes but cannot work with before the first batch does."""
        try:
            labels = torch.zeros(2, dtype=torch.int64)
            loss = self.total(torch.full((2, self.num_classes), 0.5), labels) / self.divisor(labels)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"criterion_args: {self.name}: {error}") from error
        if loss.shape != ():
            raise UserError(f"criterion: {self.name} gives no single number for a batch")

    def to(self, device: torch.device) -> "ClassificationObjective":
        self._loss = self._loss.to(device)
        return self

    def total(self, output: Any, labels: Labels) -> Tensor:
        """Sum of the losses of some images: a float32 scalar.

        output: logits (n, classes) or a named tuple with auxiliary logits; labels: int64 (n,), or mixed.
        """
        total = self._losses(main_logits(output), labels).sum()
        for weight, logits in auxiliary_logits(output):
            total = total + weight * self._losses(logits, labels).sum()
        return total

    def divisor(self, labels: Labels) -> Tensor | int:
        """What the sum over the images of a global batch is divided by to be the loss that is trained."""
        return 1 if self._reduction == "sum" else self.count(labels)

    def count(self, labels: Labels) -> Tensor | int:
        """What the sum over any images is divided by to be their mean loss: the number that is reported."""
        if self._reduction == "batchmean":
            return len(labels)
        if self.name in INDEX_TARGETS:
            if isinstance(labels, MixedLabels):
                return _mixture(labels, self._weights).sum()
            return self._weights(labels).sum()
        per_image = 1 if self.name == "MultiLabelSoftMarginLoss" else self.num_classes
        return len(labels) * per_image

    def _weights(self, labels: Tensor) -> Tensor:
        """What each label counts, float32 (n,): 1, or its class's weight; 0 where it is ignored."""
        counted = labels != getattr(self._loss, "ignore_index", -100)
        weight = getattr(self._loss, "weight", None)
        if weight is None or self.name == "MultiMarginLoss":
            return counted.to(torch.float32)
        return torch.where(counted, weight.to(labels.device)[labels.clamp_min(0)], 0.0)

    def _losses(self, logits: Tensor, labels: Labels) -> Tensor:
        logits = logits.float()
        if self.name in LOG_PROBABILITIES:
            logits = F.log_softmax(logits, dim=-1)
        if self.name in INDEX_TARGETS:
            if isinstance(labels, MixedLabels):
                return _mixture(labels, lambda some: self._loss(logits, some))
            return self._loss(logits, labels)
        targets = one_hot(labels, self.num_classes).to(logits.dtype)
        return self._loss(logits, 2 * targets - 1 if self.name in SIGNED_TARGETS else targets)


def _mixture(labels: MixedLabels, number_of: Callable[[Tensor], Tensor]) -> Tensor:
    """A number for each mixture: those of its two labels, each by its share."""
    return labels.share * number_of(labels.first) + (1 - labels.share) * number_of(labels.second)
