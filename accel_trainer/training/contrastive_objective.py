"""Contrastive training: views that belong together, among all views of a batch on all processes."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from accel_trainer.data.loader import Batch
from accel_trainer.training.contrastive import ContrastiveLoss, ContrastiveSums, embedding_rows
from accel_trainer.training.gather import gather_rows, own_rank
from accel_trainer.training.metrics import Judged, pack, percent
from accel_trainer.training.outputs import Cycles, by_cycle


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
        return self

    def judge(self, output: Any, batch: Batch, *, is_shared: bool) -> Judged:
        """output: embeddings of the batch's views, on the device; see outputs.by_cycle for their shapes."""
        embeddings = by_cycle(output)
        labels = self._labels(batch.labels).to(embeddings.device, non_blocking=True)
        ids = self._ids(gather_rows(labels) if is_shared else labels)
        of_cycles = {cycle: self._sums(embeddings[:, cycle], ids, is_shared=is_shared) for cycle in self.cycles.of}
        total = torch.stack([sums.total for sums in of_cycles.values()]).mean()
        anchors = self._loss.count(self._ids(self._labels(batch.global_labels)), self._num_views)
        reported = of_cycles[self.cycles.reported]
        return Judged(total / anchors, pack(embeddings.device, total, reported.counted, reported.hits))

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
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
        assert isinstance(labels, Tensor), "a contrastive job mixes no labels"
        return labels
