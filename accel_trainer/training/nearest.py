"""The nearest rows of a bank that is seen in pieces, so that it is never held."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from accel_trainer.training.objectives.contrastive import embedding_rows

# Similarities that are calculated at once, and numbers in a piece of the bank: 64 MB each in float32.
MAX_BLOCK = 2**24
MAX_PIECE = 2**24
MAX_PIECE_ROWS = 2**16


def piece_rows(num_features: int) -> int:
    """How many rows of so many features a piece of the bank has."""
    return max(1, min(MAX_PIECE_ROWS, MAX_PIECE // max(1, num_features)))


class Nearest:
    """For each query its k nearest rows so far, by cosine similarity; of equally near ones those of lower numbers, in
    whatever pieces and order they come.

    similarities: (n, k), descending, -inf where there are less than k rows; numbers: those of the rows, int64 (n, k),
    -1 where there are none.
    """

    def __init__(self, queries: Tensor, k: int) -> None:
        """queries: (n, d) of any dtype; computed with in float32, or float64 as they are."""
        self._queries = F.normalize(embedding_rows(queries), dim=1)
        self.k = k
        self.similarities = self._queries.new_full((len(queries), k), -math.inf)
        self.numbers = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)

    def add(self, rows: Tensor, numbers: Tensor) -> None:
        """A piece of the bank: (m, d), and the number of each row, int64 (m,), ascending. It takes a few times
        MAX_BLOCK numbers of memory."""
        rows = F.normalize(embedding_rows(rows), dim=1)
        size = max(1, MAX_BLOCK // max(1, len(rows)))
        for start in range(0, len(self._queries), size):
            part = slice(start, start + size)
            similarities = self._queries[part] @ rows.T
            columns = _largest(similarities, self.k)
            self.similarities[part], self.numbers[part] = nearest_of(
                torch.cat([self.similarities[part], similarities.gather(1, columns)], 1),
                torch.cat([self.numbers[part], numbers[columns]], 1),
                self.k,
            )


def nearest_of(similarities: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest similarities of each row, (n, m), in descending order, and their numbers, int64 (n, m); of equal
    ones those with lower numbers."""
    numbers, by_number = numbers.sort(dim=1)
    best = similarities.gather(1, by_number).sort(dim=1, descending=True, stable=True)
    return best.values[:, :k], numbers.gather(1, best.indices[:, :k])


def _largest(values: Tensor, k: int) -> Tensor:
    """The columns of the k largest values of each row, in any order; of equal values the first."""
    num_columns = values.shape[1]
    if num_columns <= k:
        return torch.arange(num_columns, device=values.device).expand(len(values), -1)
    found = values.topk(k + 1, dim=1)  # which of equal values it takes is not defined
    columns, last = found.indices[:, :k], found.values[:, k - 1 : k]
    tied = (last[:, 0] == found.values[:, k]).nonzero()[:, 0]
    if len(tied):
        columns[tied] = _first_of_equals(values[tied], last[tied], k)
    return columns


def _first_of_equals(values: Tensor, last: Tensor, k: int) -> Tensor:
    """Columns of what is above the last value that counts, and the first of those that equal it: k in each row."""
    num_columns = values.shape[1]
    places = torch.arange(num_columns, 0, -1, device=values.device)
    places = torch.where(values == last, places, 0).masked_fill_(values > last, num_columns + 1)
    return places.topk(k, dim=1).indices


def count_hits(
    similarities: Tensor,
    neighbor_labels: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    num_classes: int,
    chunk: int = 1024,
) -> Tensor:
    """How many of n queries are classified right by their k nearest neighbors, an int64 scalar.

    similarities: (n, k), the largest first; neighbor_labels: int64 (n, k); labels: of the queries, int64 (n,). A
    neighbor votes for its class with exp(cosine similarity / temperature), as in Wu et al. 2018, which has k = 200 and
    temperature 0.07.
    """
    hits = torch.zeros((), dtype=torch.int64, device=similarities.device)
    for values, classes, right in zip(
        similarities.split(chunk), neighbor_labels.split(chunk), labels.split(chunk), strict=True
    ):
        hits += (votes(values, classes, temperature=temperature, num_classes=num_classes).argmax(1) == right).sum()
    return hits


def votes(similarities: Tensor, neighbor_labels: Tensor, *, temperature: float | None, num_classes: int) -> Tensor:
    """What the neighbors of n queries vote for each class, (n, num_classes); arguments as of `count_hits`. Without a
    temperature each has one vote."""
    # Relative to the nearest: the same class wins, and no temperature is too small for exp.
    weights = torch.ones_like(similarities)
    if temperature is not None:
        weights = ((similarities - similarities[:, :1]) / temperature).exp()
    return weights.new_zeros(len(similarities), num_classes).scatter_add_(1, neighbor_labels, weights)
