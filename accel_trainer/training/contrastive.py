"""Contrastive learning: its losses, and how good a representation is without any training of a classifier."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.config.parameters import CONTRASTIVE
from accel_trainer.core.construct import construct
from accel_trainer.core.errors import UserError

CONTRAST_MODES = ("all", "one")

# -- losses -----------------------------------------------------------------------------------------------------------


class AnchorScores(NamedTuple):
    """For each of n anchors: its loss, float (n,); whether it has a positive, bool (n,); whether the most similar
    other row is one, bool (n,). Without a positive the loss is 0 and means nothing."""

    losses: Tensor
    counted: Tensor
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

    anchors: (n, d), the rows first, first + stride, ... of the candidates (m, d), of any length: they are normalised
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

    total: Tensor
    counted: Tensor
    hits: Tensor


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
    """SimCLRLoss or SupConLoss, as a sum over some anchors and a divisor for the whole batch.

    The loss of a global batch is the sum of `total` over all processes, divided by `count` of all ids. Rows are views,
    those of an image one after the other. For SimCLRLoss the other views of an image are its positives, for SupConLoss
    all other views of its class; everything else is negative.

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

        ids: int64 (n,) and (m,), see `ids`; views: of each image. Only gradients of `all_embeddings` that flow back to
        where they came from make a gradient of the whole batch: see `gather_rows`.
        """
        stride = self._stride(views)
        scores = contrastive_losses(
            embedding_rows(embeddings[::stride]),
            embedding_rows(all_embeddings),
            ids[::stride],
            all_ids,
            first,
            temperature=self.temperature,
            stride=stride,
        )
        return ContrastiveSums(self.factor * scores.losses.sum(), scores.counted.sum(), scores.hits.sum())

    def count(self, all_ids: Tensor, views: int) -> Tensor:
        """How many anchors of a whole batch have a positive, an int64 scalar: `counted` of all processes."""
        anchors = all_ids[:: self._stride(views)].contiguous()
        ordered = all_ids.sort().values
        equal = torch.searchsorted(ordered, anchors, right=True) - torch.searchsorted(ordered, anchors)
        return (equal > 1).sum()

    def _stride(self, views: int) -> int:
        """From an anchor to the next."""
        return views if self.first_views_only else 1


# -- nearest neighbours -----------------------------------------------------------------------------------------------


@torch.no_grad()
def nearest_neighbours_hits(
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
    """How many of n features are classified right by their k nearest neighbours in the bank, an int64 scalar.

    features: (n, d) with labels int64 (n,); bank: (m, d) with labels int64 (m,), m of at least 1, of which all are
    neighbours if k is larger. A neighbour votes for its class with exp(cosine similarity / temperature), as in Wu et
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


class Recorder:
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
def representation(model: nn.Module) -> Iterator[Recorder]:
    """Records what goes into the model's head, as long as the context lasts.

    The head is the first linear or convolutional layer of the child `decoder`, as the zoo's models have it, else the
    last such layer of the model, in the order in which they are defined: torchvision's output layer. What has positions
    (SqueezeNet, S3D) is averaged over them. Where a model calls its head several times, the last call counts.

    model: the plain one, neither compiled nor wrapped for several processes. UserError if it has no such layer.
    """
    layer = _head(model)
    channels_first = not isinstance(layer, nn.Linear)
    recorder = Recorder()
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
