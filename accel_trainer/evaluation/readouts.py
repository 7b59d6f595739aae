"""Readouts of frozen features that torch computes: a linear layer trained by SGD, and nearest neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.core.keyed_random import key, permutation
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.representations.logistic import Logistic
from accel_trainer.representations.rows import Rows
from accel_trainer.training.nearest import Nearest, piece_rows, votes

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]
READOUTS = ("logistic", "sgd", "knn")
# Of rows that are in memory at once.
BLOCK_BYTES = 2**27
# Of training images that are read once for all epochs.
HELD_BYTES = 2**31


class Readout(Protocol):
    """What classifies images by their features."""

    @property
    def name(self) -> str:
        """With what decides the numbers; of the metric."""

    def check(self, num_images: int, num_values: int) -> None:
        """Before anything is computed, of training images. Raises UserError where it cannot learn from these."""

    def probabilities(
        self, train: Rows, labels: Labels, test: Rows, num_classes: int
    ) -> tuple[Probabilities, list[str]]:
        """Of each test image and class, (n, num_classes), learned from training images (m, values) with labels (m,);
        and what is to be said of it."""


def readouts_of(
    names: Sequence[str],
    *,
    costs: Sequence[float] = (1.0,),
    neighbors: Sequence[int] = (20,),
    temperature: float | None = 0.07,
    lr: float = 1.0,
    epochs: int = 100,
) -> list[Readout]:
    """By their names, logistic, sgd and knn: of the latter one for each number of neighbors. Raises UserError."""
    found = list[Readout]()
    for name in names:
        match name:
            case "logistic":
                found.append(Logistic(tuple(costs)))
            case "sgd":
                found.append(Sgd(lr, epochs))
            case "knn":
                found += [Knn(k, temperature) for k in neighbors]
            case _:
                near = did_you_mean(name, READOUTS) or f"; there are: {listed(READOUTS)}"
                raise UserError(f"{name!r} is no readout{near}", option="readout")
    return found


@dataclass(frozen=True)
class Sgd:
    """A linear layer as solo-learn's linear evaluation trains it: cross-entropy, SGD with momentum 0.9 and without
    weight decay, batches of 256, 100 epochs, the learning rate lr, a tenth of it from epoch 60 on, a hundredth from
    80 on. Its script for SimCLR has lr 1.0. Here features are frozen, those of the evaluation's crop, and the rows of a
    batch are read when they are needed. seed: of the first weights, and of the order."""

    lr: float = 1.0
    epochs: int = 100
    weight_decay: float = 0.0
    momentum: float = 0.9
    batch_size: int = 256
    seed: int = 0
    device: str = field(default="cpu", compare=False)

    @property
    def name(self) -> str:
        """With the rate, and epochs where they are others than solo-learn's."""
        return f"sgd_lr{self.lr:g}" + ("" if self.epochs == 100 else f"_e{self.epochs}")

    def check(self, num_images: int, num_values: int) -> None:
        """As of `Readout`: of any number."""

    @property
    def milestones(self) -> list[int]:
        """Epochs before which the learning rate becomes a tenth: 60 and 80 of 100."""
        return [round(0.6 * self.epochs), round(0.8 * self.epochs)]

    def probabilities(
        self, train: Rows, labels: Labels, test: Rows, num_classes: int
    ) -> tuple[Probabilities, list[str]]:
        """As of `Readout`."""
        is_small = 4 * train.shape[0] * train.shape[1] <= HELD_BYTES
        layer = self.trained(train[0 : train.shape[0]] if is_small else train, labels, num_classes)
        found = np.empty((test.shape[0], num_classes), np.float32)
        step = max(1, BLOCK_BYTES // max(1, 4 * test.shape[1]))
        with torch.inference_mode():
            for start in range(0, len(found), step):
                logits = layer(_tensor(test[start : start + step], layer))
                found[start : start + step] = logits.softmax(1).cpu().numpy()
        return found, [] if np.isfinite(found).all() else ["the training has diverged: take a lower `lr`"]

    def trained(self, train: Rows, labels: Labels, num_classes: int) -> nn.Linear:
        """The layer after the last epoch."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layer = nn.Linear(train.shape[1], num_classes).to(self.device)
        rate = self.lr * self.batch_size / 256
        optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=self.momentum, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, self.milestones)
        for epoch in range(self.epochs):
            order = permutation(key(self.seed, "probe order", epoch), train.shape[0])
            for start in range(0, len(order), self.batch_size):
                chosen = np.sort(order[start : start + self.batch_size])
                loss = F.cross_entropy(layer(_tensor(gathered(train, chosen), layer)), _labels(labels[chosen], layer))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
        return layer


@dataclass(frozen=True)
class Knn:
    """The k nearest training images by cosine similarity vote for their class: each with 1, or with a temperature with
    exp(similarity / temperature) (Wu et al. 2018, which has k = 200 and 0.07). In float64: where all images evoke
    nearly the same, float32 would not tell them apart."""

    k: int = 20
    temperature: float | None = 0.07

    @property
    def name(self) -> str:
        """With k and the temperature."""
        return f"knn_k{self.k}" + ("" if self.temperature is None else f"_t{self.temperature:g}")

    def check(self, num_images: int, num_values: int) -> None:
        """As of `Readout`. Raises UserError for fewer images than neighbors."""
        if num_images < self.k:
            raise UserError(f"there are no {self.k} neighbors among {num_images} training images", option="k")

    def probabilities(
        self, train: Rows, labels: Labels, test: Rows, num_classes: int
    ) -> tuple[Probabilities, list[str]]:
        """As of `Readout`: parts of the votes."""
        found = np.empty((test.shape[0], num_classes), np.float32)
        of_class = torch.from_numpy(labels)
        values = max(1, 8 * test.shape[1])
        step = max(1, BLOCK_BYTES // values)
        for start in range(0, len(found), step):
            nearest = Nearest(torch.from_numpy(np.asarray(test[start : start + step], np.float64)), self.k)
            size = piece_rows(train.shape[1])
            for begin in range(0, train.shape[0], size):
                rows = torch.from_numpy(np.asarray(train[begin : begin + size], np.float64))
                nearest.add(rows, torch.arange(begin, begin + len(rows)))
            part = votes(
                nearest.similarities, of_class[nearest.numbers], temperature=self.temperature, num_classes=num_classes
            )
            found[start : start + step] = (part / part.sum(1, keepdim=True)).numpy()
        return found, []


def gathered(rows: Rows, indices: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of ascending indices, (n, values)."""
    if isinstance(rows, np.ndarray):
        return rows[indices]
    return np.concatenate([rows[index : index + 1] for index in indices.tolist()])


def _tensor(rows: Any, layer: nn.Linear) -> Tensor:
    return torch.from_numpy(np.asarray(rows, np.float32)).to(layer.weight.device)


def _labels(labels: Labels, layer: nn.Linear) -> Tensor:
    return torch.from_numpy(labels).to(layer.weight.device)
