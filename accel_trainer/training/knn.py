"""How well a representation separates classes: nearest neighbors among the training images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.config import ResolvedJob
from accel_trainer.core.errors import UserError
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.loader import Batch
from accel_trainer.data.pipeline import evaluation_views
from accel_trainer.training.objectives.base import float_vector, percent
from accel_trainer.training.objectives.contrastive import embedding_rows
from accel_trainer.training.runtime.ranks import gather_rows
from accel_trainer.training.validation import EvaluationSet, Evaluator, evaluation_set

TEMPERATURE = 0.07


@dataclass(frozen=True)
class KnnTest:
    """The weighted k-nearest-neighbor classifier of Wu et al. 2018, on what goes into the model's head.

    bank, val: training and validation images, each in one view, without augmentation.
    """

    bank: EvaluationSet
    val: EvaluationSet
    num_classes: int
    num_neighbors: int

    def local_bank(
        self, model: nn.Module, evaluator: Evaluator, is_stopped: Callable[[], bool]
    ) -> tuple[Tensor, Tensor]:
        """This process's part of the training images: features, float32 (n, d), and labels, int64 (n,).

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

        All ranks call it, with their parts of the training images.
        """
        bank, bank_labels = _gather_features(*own, evaluator)
        device = bank.device
        sums = float_vector(device, 0, 0)
        for features, labels in self._features(model, self.val, evaluator, is_stopped):
            right = knn_hits(
                features, labels, bank, bank_labels,
                k=self.num_neighbors, temperature=TEMPERATURE, num_classes=self.num_classes,
            )  # fmt: skip
            sums += float_vector(device, right, len(labels))
        return sums

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """{"knn": accuracy in percent}, of the sums of `hits`; NaN without images."""
        hits, images = sums
        return {"knn": percent(hits, images)}

    def _features(
        self, model: nn.Module, on: EvaluationSet, evaluator: Evaluator, is_stopped: Callable[[], bool]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # A model that was compiled before would run past what is to record its features.
        with torch.compiler.set_stance("force_eager"), capture_representation(model) as recorded:
            for batch, _ in evaluator.forward(model, on, is_stopped):
                yield recorded.take(), _labels(batch, evaluator)


def _labels(batch: Batch, evaluator: Evaluator) -> Tensor:
    if not isinstance(batch.labels, Tensor):
        raise TypeError("only training mixes labels")
    return batch.labels.to(evaluator.accelerator.device)


def _gather_features(features: Tensor, labels: Tensor, evaluator: Evaluator) -> tuple[Tensor, Tensor]:
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


def knn_test(job: ResolvedJob, train: ImageDataset, val: ImageDataset, world_size: int) -> KnnTest:
    """The test of a job. train, val: data sets of the same classes; world_size: number of processes."""
    return KnnTest(
        bank=evaluation_set(job, train, evaluation_views(job), world_size, replace_corrupt=True),
        val=evaluation_set(job, val, evaluation_views(job), world_size),
        num_classes=len(train.classes),
        num_neighbors=job.knn_neighbours,
    )


# -- nearest neighbors ------------------------------------------------------------------------------------------------
@torch.no_grad()
def knn_hits(
    features: Tensor,
    labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
    chunk: int = 1024,
) -> Tensor:
    """How many of n features are classified right by their k nearest neighbors in the bank, an int64 scalar.

    features: (n, d) with labels int64 (n,); bank: (m, d) with labels int64 (m,), m of at least 1, of which all are
    neighbors if k is larger. A neighbor votes for its class with exp(cosine similarity / temperature), as in Wu et
    al. 2018, which has k = 200 and temperature 0.07. `chunk` features at a time: chunk * (m + num_classes) numbers.
    """
    bank = F.normalize(embedding_rows(bank), dim=1)
    hits = torch.zeros((), dtype=torch.int64, device=features.device)
    for some, their_labels in zip(features.split(chunk), labels.split(chunk), strict=True):
        similarities = F.normalize(embedding_rows(some), dim=1) @ bank.T
        nearest = similarities.topk(min(k, len(bank)), dim=1)
        # Relative to the nearest: the same class wins, and no temperature is too small for exp.
        weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(some), num_classes).scatter_add_(1, bank_labels[nearest.indices], weights)
        hits += (votes.argmax(1) == their_labels).sum()
    return hits


# -- representations --------------------------------------------------------------------------------------------------
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class FeatureHook:
    """Holds what went into a model's head in its last forward pass."""

    def __init__(self) -> None:
        self._features: Tensor | None = None

    def record(self, inputs: Tensor, *, channels_first: bool) -> None:
        """inputs: (batch, features, *positions) of a convolution, (batch, *positions, features) of a linear layer."""
        if inputs.ndim > 2:
            inputs = (inputs.flatten(2) if channels_first else inputs.flatten(1, -2).mT).float().mean(2)
        self._features = inputs.detach().float()

    def take(self) -> Tensor:
        """The representation of the last batch, float32 (batch, features), which is then forgotten."""
        if self._features is None:
            raise RuntimeError("the model's head has not been called since its input was last taken")
        features, self._features = self._features, None
        return features


@contextmanager
def capture_representation(model: nn.Module) -> Iterator[FeatureHook]:
    """Records what goes into the model's head, as long as the context lasts.

    The head is the first linear or convolutional layer of the child `decoder`, as the zoo's models have it, else the
    last such layer of the model, in the order in which they are defined: torchvision's output layer. What has positions
    (SqueezeNet, S3D) is averaged over them. Where a model calls its head several times, the last call counts.

    model: the plain one, neither compiled nor wrapped for several processes. UserError if it has no such layer.
    """
    layer = _head(model)
    channels_first = not isinstance(layer, nn.Linear)
    recorder = FeatureHook()
    hook = layer.register_forward_pre_hook(lambda _, inputs: recorder.record(inputs[0], channels_first=channels_first))
    try:
        yield recorder
    finally:
        hook.remove()


def _head(model: nn.Module) -> nn.Module:
    decoder = dict(model.named_children()).get("decoder")
    part = model if decoder is None else decoder
    layers = [module for module in part.modules() if isinstance(module, _LAYERS)]
    if not layers:
        where = "model" if decoder is None else "decoder"
        raise UserError(
            f"architecture: the {where} has no linear layer or convolution, whose input would be the representation; "
            "name the part of the model that gives its output `decoder`"
        )
    return layers[-1] if decoder is None else layers[0]
