"""How well a representation tells classes apart: nearest neighbours of the validation among the training images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.data.loader import Batch
from accel_trainer.training.contrastive import nearest_neighbours_hits, representation
from accel_trainer.training.evaluation import EvaluationSet, Evaluator
from accel_trainer.training.gather import gather_rows
from accel_trainer.training.metrics import pack, percent

TEMPERATURE = 0.07


@dataclass(frozen=True)
class NeighbourTest:
    """The weighted k-nearest-neighbour classifier of Wu et al. 2018, on what goes into the model's head.

    bank, val: training and validation images, each in one view, without augmentation.
    """

    bank: EvaluationSet
    val: EvaluationSet
    num_classes: int
    num_neighbours: int

    def own_bank(self, model: nn.Module, evaluator: Evaluator, is_stopped: Callable[[], bool]) -> tuple[Tensor, Tensor]:
        """This process's share of the training images: features, float32 (n, d), and labels, int64 (n,).

        Not all of them, or none, if it is stopped.
        """
        parts = list(self._features(model, self.bank, evaluator, is_stopped))
        if not parts:
            return torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
        features, labels = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(labels)

    def hits(
        self, model: nn.Module, own: tuple[Tensor, Tensor], evaluator: Evaluator, is_stopped: Callable[[], bool]
    ) -> Tensor:
        """Of this process's validation images, how many are classified right, and how many there are: (2,).

        All ranks call it, with their shares of the training images.
        """
        bank, bank_labels = _of_all_ranks(*own, evaluator)
        device = bank.device
        sums = pack(device, 0, 0)
        for features, labels in self._features(model, self.val, evaluator, is_stopped):
            right = nearest_neighbours_hits(
                features, labels, bank, bank_labels,
                k=self.num_neighbours, temperature=TEMPERATURE, num_classes=self.num_classes,
            )  # fmt: skip
            sums += pack(device, right, len(labels))
        return sums

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        hits, images = sums
        return {"knn": percent(hits, images)}

    def _features(
        self, model: nn.Module, on: EvaluationSet, evaluator: Evaluator, is_stopped: Callable[[], bool]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # A model that was compiled before would run past what is to record its features.
        with torch.compiler.set_stance("force_eager"), representation(model) as recorded:
            for batch, _ in evaluator.forward(model, on, is_stopped):
                yield recorded.take(), _labels(batch, evaluator)


def _labels(batch: Batch, evaluator: Evaluator) -> Tensor:
    assert isinstance(batch.labels, Tensor), "only training mixes labels"
    return batch.labels.to(evaluator.accelerator.device)


def _of_all_ranks(features: Tensor, labels: Tensor, evaluator: Evaluator) -> tuple[Tensor, Tensor]:
    """The rows of all ranks, which hold every n-th image, in the order of the images: the same on any number of
    ranks. Ranks may have one row less than others."""
    accelerator = evaluator.accelerator
    world_size = accelerator.num_processes
    if world_size == 1:
        return features, labels
    counts = gather_rows(torch.tensor([len(labels)], device=labels.device))
    missing = int(counts.max()) - len(labels)
    of_all = gather_rows(F.pad(features, (0, 0, 0, missing))), gather_rows(F.pad(labels, (0, missing), value=-1))
    in_order = [rows.unflatten(0, (world_size, -1)).transpose(0, 1).flatten(0, 1) for rows in of_all]
    is_there = in_order[1] >= 0
    return in_order[0][is_there], in_order[1][is_there]
