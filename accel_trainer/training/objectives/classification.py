"""Classification: losses of torch.nn that are exact whatever the number of processes, and accuracies."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.core.construct import construct
from accel_trainer.core.errors import UserError
from accel_trainer.core.spans import Phase, span
from accel_trainer.data.augment.mixing import Labels, MixedLabels, one_hot, repeat_each
from accel_trainer.data.loader import Batch
from accel_trainer.training.objectives.base import (
    BatchResult,
    Cycles,
    auxiliary_logits,
    float_vector,
    percent,
    top_hits,
)

# What a loss takes as target: the class's index, or a number for each class.
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
# These take log-probabilities, which models do not give; of those that do, log_softmax changes nothing.
LOG_PROBABILITIES = ("NLLLoss", "KLDivLoss")
CLASSIFICATION_LOSSES: dict[str, type[nn.Module]] = {**INDEX_TARGETS, **ONE_HOT_TARGETS, **SIGNED_TARGETS}


class ClassificationObjective:
    """A classification loss of torch.nn, as a sum over some images and a normalizer for the whole batch.

    The loss of a global batch is `sum(loss_sum(part)) / normalizer(all labels)`. Every process knows the labels of the
    whole batch, so each computes its own part of the true mean, class weights and `ignore_index` included,
    and adding up the parts gives the one-process loss and gradient.

    Of mixtures of two images, the losses that take a class index are the mixture of those of both labels (for
    cross-entropy that is the loss of the soft target); the others take a number for each class: the soft target.

    Of several cycles, the loss is the mean of those that are trained; of several heads, the mean of all, and their
    mean logits are what accuracies are of. Accuracies of every cycle are scores too: acc1_cycle0, acc1_cycle1, ...
    """

    def __init__(
        self,
        criterion: str,
        args: Mapping[str, Any],
        num_classes: int,
        cycles: Cycles = Cycles(),  # noqa: B008
    ) -> None:
        self.name = criterion
        self.num_classes = num_classes
        self.cycles = cycles
        of_cycles = [f"acc1_cycle{cycle}" for cycle in range(cycles.count)] if cycles.count > 1 else []
        self.score_names = ("acc1", "acc5", *of_cycles)
        # Losses, what they are divided by, images, hits at 5, hits at 1 of each cycle.
        self.num_sums = 4 + cycles.count
        if criterion == "BCELoss":
            raise UserError("criterion: BCELoss takes probabilities, and models give logits; use BCEWithLogitsLoss")
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
        # Where the labels are that are counted; those of the loss go to the device.
        self._host_weight = getattr(self._loss, "weight", None)
        self._probe()

    def _class_weights(self, name: str, weights: Any) -> Tensor:
        are_numbers = isinstance(weights, list) and all(type(weight) in (int, float) for weight in weights)
        if not are_numbers or len(weights) != self.num_classes:
            raise UserError(f"criterion_args.{name}: give a list of {self.num_classes} numbers, one for each class")
        return torch.tensor(weights, dtype=torch.float32)

    def _probe(self) -> None:
        """Find arguments that the loss accepts but fails with, before the first batch does."""
        try:
            labels = torch.zeros(2, dtype=torch.int64)
            logits = torch.full((2, self.cycles.count, 1, self.num_classes), 0.5)
            loss = self.loss_sum(logits, labels) / self.normalizer(labels)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"criterion_args: {self.name}: {error}") from error
        if loss.shape != ():
            raise UserError(f"criterion: {self.name} gives no single number for a batch")

    def to(self, device: torch.device) -> "ClassificationObjective":
        """Move the class weights to a device."""
        self._loss = self._loss.to(device)
        return self

    def trained(self, output: Any) -> list[Tensor]:
        """The logits of the cycles that are trained, and those of auxiliary heads."""
        return [self.cycles.select(self.cycles.of(output)), *(logits for _, logits in auxiliary_logits(output))]

    def compute(self, output: Any, batch: Batch, *, is_shared: bool) -> BatchResult:
        """The loss and sums of a batch. output: logits on the device; see `by_cycle` for their shapes."""
        logits = self.cycles.of(output)
        labels = batch.labels.to(logits.device, non_blocking=True)
        total = self.loss_sum(output, labels)
        with span(Phase.METRICS):
            hits1, hits5 = top_hits(logits.detach().mean(2), labels)
            sums = float_vector(
                logits.device, total, self.count(batch.labels), len(labels), hits5[self.cycles.reported], hits1
            )
        return BatchResult(total / self.normalizer(batch.global_labels), sums)

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """The mean loss, and the accuracies of `score_names` in percent; NaN without images."""
        loss, divisor, images, hits5, *hits1 = sums
        of_cycles = [percent(hits, images) for hits in hits1]
        values = (of_cycles[self.cycles.reported], percent(hits5, images), *of_cycles)
        return {
            "loss": loss / divisor if divisor else float("nan"),
            **dict(zip(self.score_names, values, strict=False)),  # of a single cycle the accuracy has no second name
        }

    def loss_sum(self, output: Any, labels: Labels) -> Tensor:
        """Sum of the losses of some images: a float32 scalar.

        output: logits (n, classes), (n, cycles, classes) or (n, cycles, heads, classes), or a named tuple with
        auxiliary logits; labels: int64 (n,), or mixed.
        """
        trained = self.cycles.select(self.cycles.of(output)).flatten(1, 2)
        each = trained.shape[1]
        total = self._losses(trained.flatten(0, 1), repeat_each(labels, each)).sum() / each
        for weight, logits in auxiliary_logits(output):
            total = total + weight * self._losses(logits, labels).sum()
        return total

    def normalizer(self, labels: Labels) -> Tensor | int:
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
        """What each label, on the host, counts, float32 (n,): 1, or its class's weight; 0 where it is ignored."""
        counted = labels != getattr(self._loss, "ignore_index", -100)
        weight = self._host_weight
        if weight is None or self.name == "MultiMarginLoss":
            return counted.to(torch.float32)
        return torch.where(counted, weight[labels.clamp_min(0)], 0.0)

    def _losses(self, logits: Tensor, labels: Labels) -> Tensor:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.name in LOG_PROBABILITIES:
            logits = F.log_softmax(logits, dim=-1)
        if self.name in INDEX_TARGETS:
            if isinstance(labels, MixedLabels):
                return _mixture(labels, lambda some: self._loss(logits, some))
            losses: Tensor = self._loss(logits, labels)
        else:
            targets = one_hot(labels, self.num_classes).to(logits.dtype)
            losses = self._loss(logits, 2 * targets - 1 if self.name in SIGNED_TARGETS else targets)
        return losses


def _mixture(labels: MixedLabels, number_of: Callable[[Tensor], Tensor]) -> Tensor:
    """A number for each mixture: those of its two labels, each by its weight."""
    return labels.weight * number_of(labels.first) + (1 - labels.weight) * number_of(labels.second)
