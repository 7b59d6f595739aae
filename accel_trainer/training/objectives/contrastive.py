"""Contrastive losses: SimCLR and SupCon."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from accel_trainer.config.parameters import CONTRASTIVE
from accel_trainer.core.construct import construct
from accel_trainer.data.loader import Batch
from accel_trainer.training.objectives.base import BatchResult, Cycles, float_vector, percent
from accel_trainer.training.runtime.ranks import gather_rows, own_rank

CONTRAST_MODES = ("all", "one")


# -- losses -----------------------------------------------------------------------------------------------------------
class AnchorScores(NamedTuple):
    """For each of n anchors: its loss, float (n,); whether it has a positive, bool (n,); whether the most similar
    other row is one, bool (n,). Without a positive the loss is 0 and means nothing."""

    losses: Tensor
    has_positive: Tensor
    hits: Tensor


def contrastive_losses(
    anchors: Tensor,
    candidates: Tensor,
    anchor_ids: Tensor,
    candidate_ids: Tensor,
    first: int,
    *,
    temperature: float,
    stride: int = 1,
) -> AnchorScores:
    """Minus the mean, over an anchor's positives, of the log softmax of its similarities to all other rows.

    anchors: (n, d), the rows first, first + stride, ... of the candidates (m, d), of any length: they are normalized
    here. ids: int64 (n,) and (m,); equal ids are positives, the anchor itself is neither positive nor negative.

    With one positive this is NT-Xent (Chen et al. 2020), with several L_out of Khosla et al. 2020. Computed in float32,
    or in float64 of such embeddings, under autocast too; in memory of n * m numbers.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, candidates = (F.normalize(embedding_rows(rows), dim=1) for rows in (anchors, candidates))
        logits = (anchors / temperature) @ candidates.T
    own = first + stride * torch.arange(len(anchors), device=anchors.device)
    is_self = own[:, None] == torch.arange(len(candidates), device=anchors.device)
    logits = logits.masked_fill(is_self, -torch.inf)
    is_positive = (anchor_ids[:, None] == candidate_ids) & ~is_self
    num_positives = is_positive.sum(1)
    mean_positive = logits.where(is_positive, 0.0).sum(1) / num_positives.clamp_min(1)
    counted = num_positives > 0
    losses = (logits.logsumexp(1) - mean_positive).where(counted, 0.0)
    most_similar = logits.detach().argmax(1, keepdim=True)
    return AnchorScores(losses, counted, is_positive.gather(1, most_similar).squeeze(1))


def embedding_rows(output: Tensor) -> Tensor:
    """What a model gives for n images, (n, ...), as embeddings (n, d) of float32, or float64 as they are."""
    rows = output.flatten(1)
    return rows if rows.dtype == torch.float64 else rows.float()


class ContrastiveSums(NamedTuple):
    """Sums over anchors: of their losses, a float32 scalar with a gradient (float64 of float64 embeddings); how many
    have a positive and so are counted, int64; for how many of these the most similar other row is one, int64."""

    loss_sum: Tensor
    num_anchors: Tensor
    num_hits: Tensor


@dataclass(frozen=True)
class _Arguments:
    """What criterion_args may say; ValueError otherwise."""

    temperature: float = 0.07
    base_temperature: float | None = None
    contrast_mode: str = "all"

    def __post_init__(self) -> None:
        _check_above_zero("temperature", self.temperature)
        if self.base_temperature is not None:
            _check_above_zero("base_temperature", self.base_temperature)
        if self.contrast_mode not in CONTRAST_MODES:
            raise ValueError(f"contrast_mode: {self.contrast_mode!r} is not one of {', '.join(CONTRAST_MODES)}")


def _check_above_zero(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"{name}: {value!r} is not a number above 0")


class ContrastiveLoss:
    """SimCLRLoss or SupConLoss, as a sum over some anchors and a normalizer for the batch.

    The loss of a global batch is the sum of `loss_sum` over all processes, divided by `count` of all ids. Rows are
    views, those of an image one after the other. For SimCLRLoss the other views of an image are its positives, for
    SupConLoss all other views of its class; everything else is negative.

    args: temperature (0.07); base_temperature (the temperature), by which the loss is divided after being multiplied by
    the temperature, as in the code of Khosla et al.; contrast_mode: "all", or "one": only the first view of each image
    is an anchor. Raises UserError for anything else.
    """

    def __init__(self, criterion: str, args: Mapping[str, Any]) -> None:
        arguments = construct("criterion", dict.fromkeys(CONTRASTIVE, _Arguments), criterion, args)
        self.name = criterion
        self.temperature = float(arguments.temperature)
        self.factor = self.temperature / float(arguments.base_temperature or arguments.temperature)
        self.first_views_only = arguments.contrast_mode == "one"

    def ids(self, labels: Tensor, views: int) -> Tensor:
        """What rows have in common with their positives, int64 (n,): the number of their image, or their label.

        labels: int64 (n,), of all rows that are compared, those of all processes: images are numbered through.
        """
        if self.name == "SupConLoss":
            return labels
        return torch.arange(len(labels), device=labels.device) // views

    def __call__(
        self, embeddings: Tensor, ids: Tensor, all_embeddings: Tensor, all_ids: Tensor, *, first: int, views: int
    ) -> ContrastiveSums:
        """Sums over the anchors among these embeddings (n, ...), the rows from `first` on of all embeddings (m, ...).
        The views of a single image have nothing to be told apart from: none of them counts.

        ids: int64 (n,) and (m,), see `ids`; views: of each image. Only gradients of `all_embeddings` that flow back to
        where they came from make a gradient of the whole batch: see `gather_rows`.
        """
        stride = self._stride(views)
        if len(all_ids) <= views:
            nothing = torch.zeros((), dtype=torch.int64, device=embeddings.device)
            return ContrastiveSums(0.0 * embedding_rows(embeddings).sum(), nothing, nothing)
        scores = contrastive_losses(
            embedding_rows(embeddings[::stride]),
            embedding_rows(all_embeddings),
            ids[::stride],
            all_ids,
            first,
            temperature=self.temperature,
            stride=stride,
        )
        return ContrastiveSums(self.factor * scores.losses.sum(), scores.has_positive.sum(), scores.hits.sum())

    def count(self, all_ids: Tensor, views: int) -> Tensor:
        """How many anchors of a whole batch have a positive, an int64 scalar: `num_anchors` of all processes."""
        if len(all_ids) <= views:
            return all_ids.new_zeros(())
        anchors = all_ids[:: self._stride(views)].contiguous()
        ordered = all_ids.sort().values
        equal = torch.searchsorted(ordered, anchors, right=True) - torch.searchsorted(ordered, anchors)
        return (equal > 1).sum()

    def _stride(self, views: int) -> int:
        """The distance in rows from an anchor to the next."""
        return views if self.first_views_only else 1


class ContrastiveObjective:
    """SimCLRLoss or SupConLoss of embeddings: what the model gives, of all its heads.

    Each process has the losses of its own views as anchors; their positives and negatives are those of the micro-batch
    on all processes, and the gradient reaches the process they came from. Of several cycles, the loss is the mean of
    those that are trained. contrastive_acc: how many anchors have a positive as the most similar other view.
    """

    score_names: tuple[str, ...] = ("contrastive_acc",)
    num_sums = 3  # losses, anchors, hits

    def __init__(self, criterion: str, args: Mapping[str, Any], num_views: int, cycles: Cycles) -> None:
        self.cycles = cycles
        self._loss = ContrastiveLoss(criterion, args)
        self._num_views = num_views

    def to(self, device: torch.device) -> Self:
        """It has no tensors to move."""
        return self

    def trained(self, output: Any) -> list[Tensor]:
        """The embeddings of the cycles that are trained; those of auxiliary heads are not."""
        return [self.cycles.select(self.cycles.of(output))]

    def compute(self, output: Any, batch: Batch, *, is_shared: bool) -> BatchResult:
        """The loss and sums of a batch. output: embeddings of its views on the device, see `by_cycle`."""
        embeddings = self.cycles.of(output)
        labels = self._labels(batch.labels).to(embeddings.device, non_blocking=True)
        ids = self._ids(gather_rows(labels) if is_shared else labels)
        of_cycles = {cycle: self._sums(embeddings[:, cycle], ids, is_shared=is_shared) for cycle in self.cycles.indices}
        total = torch.stack([sums.loss_sum for sums in of_cycles.values()]).mean()
        anchors = self._loss.count(self._ids(self._labels(batch.global_labels)), self._num_views)
        reported = of_cycles[self.cycles.reported]
        return BatchResult(
            total / anchors.clamp_min(1),
            float_vector(embeddings.device, total, reported.num_anchors, reported.num_hits),
        )

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """The mean loss, and the contrastive accuracy in percent; NaN without anchors."""
        loss, anchors, hits = sums
        return {"loss": loss / anchors if anchors else float("nan"), "contrastive_acc": percent(hits, anchors)}

    def _sums(self, embeddings: Tensor, ids: Tensor, *, is_shared: bool) -> ContrastiveSums:
        """ids: of the embeddings of all processes that share the batch."""
        rows = embedding_rows(embeddings)
        all_rows, first = (gather_rows(rows), own_rank() * len(rows)) if is_shared else (rows, 0)
        own_ids = ids[first : first + len(rows)]
        return self._loss(rows, own_ids, all_rows, ids, first=first, views=self._num_views)

    def _ids(self, labels: Tensor) -> Tensor:
        return self._loss.ids(labels, self._num_views)

    @staticmethod
    def _labels(labels: Any) -> Tensor:
        if not isinstance(labels, Tensor):
            raise TypeError("a contrastive loss takes no mixed labels")
        return labels
