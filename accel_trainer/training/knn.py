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
from accel_trainer.training.nearest import Nearest, count_hits, nearest_of, piece_rows
from accel_trainer.training.objectives.base import float_vector, percent
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

    def queries(self, model: nn.Module, evaluator: Evaluator, is_stopped: Callable[[], bool]) -> tuple[Tensor, Tensor]:
        """This process's part of the validation images: features, float32 (n, d), and labels, int64 (n,).

        Not all of them, or none, if it is stopped.
        """
        parts = list(self._features(model, self.val, evaluator, is_stopped))
        if not parts:
            device = evaluator.accelerator.device
            return torch.empty(0, 0, device=device), torch.empty(0, dtype=torch.int64, device=device)
        features, labels = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(labels)

    def hits(
        self, model: nn.Module, own: tuple[Tensor, Tensor], evaluator: Evaluator, is_stopped: Callable[[], bool]
    ) -> Tensor:
        """Of this process's validation images, how many are classified right, and how many there are: (2,).

        All ranks call it, with their parts of the validation images; what they come to is of use if none was stopped.
        Each rank looks at its part of the training images, forward pass by forward pass, for the nearest of all
        validation images: of these all features are held on every rank, of the training images a piece.
        """
        features, labels = own
        accelerator = evaluator.accelerator
        nearest = Nearest(
            _gather_queries(features, accelerator.num_processes), min(self.num_neighbors, self.bank.num_images)
        )
        for rows, numbers in self._pieces(model, evaluator, is_stopped):
            nearest.add(rows, numbers)
        similarities, numbers = _merge(nearest, accelerator.process_index, accelerator.num_processes)
        bank_labels = torch.from_numpy(self.bank.reader.source.labels).to(features.device)
        right = count_hits(
            similarities[: len(labels)], bank_labels[numbers[: len(labels)]], labels,
            temperature=TEMPERATURE, num_classes=self.num_classes,
        )  # fmt: skip
        return float_vector(features.device, right, len(labels))

    def _pieces(
        self, model: nn.Module, evaluator: Evaluator, is_stopped: Callable[[], bool]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's training images, in their order: features (m, d), and the number of each image, int64 (m,)."""
        rank, world_size = evaluator.accelerator.process_index, evaluator.accelerator.num_processes
        held: list[Tensor] = []
        start = 0
        for features, _ in self._features(model, self.bank, evaluator, is_stopped):
            held.append(features)
            if (count := sum(map(len, held))) >= piece_rows(features.shape[1]):
                yield torch.cat(held), _numbers(start, count, rank, world_size, features.device)
                held.clear()
                start += count
        if held:
            rows = torch.cat(held)
            yield rows, _numbers(start, len(rows), rank, world_size, rows.device)

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


def _numbers(start: int, count: int, rank: int, world_size: int, device: torch.device) -> Tensor:
    """Which images a rank has, that has every n-th: from its `start`-th on. None is left out, for a corrupt one gives
    way to another of its class."""
    return torch.arange(start, start + count, device=device) * world_size + rank


def _gather_queries(features: Tensor, world_size: int) -> Tensor:
    """The rows of all ranks, rank 0's first; of each as many as of the one that has most, filled up with zeros."""
    if world_size == 1:
        return features
    shape = torch.tensor([features.shape], device=features.device)
    most, num_features = gather_rows(shape).amax(0).tolist()
    if not len(features):  # it does not know how many features there are
        features = features.new_zeros(0, num_features)
    return gather_rows(F.pad(features, (0, 0, 0, most - len(features))))


def _merge(nearest: Nearest, rank: int, world_size: int) -> tuple[Tensor, Tensor]:
    """The nearest of what all ranks have seen, for a rank's own queries: similarities and numbers, (n, k)."""
    if world_size == 1:
        return nearest.similarities, nearest.numbers
    own = nearest.similarities, nearest.numbers
    for owner, of_owner in enumerate(
        zip(nearest.similarities.chunk(world_size), nearest.numbers.chunk(world_size), strict=True)
    ):
        of_all = [gather_rows(rows).unflatten(0, (world_size, -1)).transpose(0, 1).flatten(1) for rows in of_owner]
        if owner == rank:
            own = nearest_of(of_all[0], of_all[1], nearest.k)
    return own


def knn_test(job: ResolvedJob, train: ImageDataset, val: ImageDataset, world_size: int) -> KnnTest:
    """The test of a job. train, val: data sets of the same classes; world_size: number of processes."""
    return KnnTest(
        bank=evaluation_set(job, train, evaluation_views(job), world_size, replace_corrupt=True),
        val=evaluation_set(job, val, evaluation_views(job), world_size),
        num_classes=len(train.classes),
        num_neighbors=job.knn_neighbours,
    )


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
