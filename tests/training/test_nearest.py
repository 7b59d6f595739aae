"""The nearest neighbors of a bank that comes in pieces, against scikit-learn's, and what they take of memory."""

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny_models
import torch
from shares import SIZE, make_evaluator, make_images
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from accel_trainer.training import knn, nearest
from accel_trainer.training.build import make_objective
from accel_trainer.training.nearest import Nearest, count_hits, nearest_of, piece_rows


def nearest_in(bank: Tensor, queries: Tensor, k: int, piece: int) -> Nearest:
    found = Nearest(queries, k)
    for start in range(0, len(bank), piece):
        rows = bank[start : start + piece]
        found.add(rows, torch.arange(start, start + len(rows)))
    return found


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Pixels as features, and labels."""
    bundled = load_digits()
    return torch.from_numpy(bundled.data), torch.from_numpy(bundled.target).long()


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (200, 0.07), (200, 1.0), (5000, 0.01)])
def test_nearest_neighbors_classify_as_scikit_learns_do(
    digits: tuple[Tensor, Tensor], k: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = digits
    bank, bank_labels, features, labels = features[:1000], labels[:1000], features[1000:], labels[1000:]

    def weights(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.exp((1 - distances) / temperature)

    k = min(k, 1000)
    reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    expected = (reference.fit(bank, bank_labels).predict(features) == labels.numpy()).sum()
    for piece, block in ((1000, 2**24), (1000, 10_000), (64, 2**24), (333, 1)):
        monkeypatch.setattr(nearest, "MAX_BLOCK", block)
        found = nearest_in(bank, features, k, piece)
        hits = count_hits(
            found.similarities, bank_labels[found.numbers], labels, temperature=temperature, num_classes=10
        )
        assert hits.dtype == torch.int64
        assert hits.item() == expected


def test_nearer_neighbors_have_more_weight_however_small_the_temperature() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    bank_labels = torch.tensor([1, 0, 0])
    found = nearest_in(bank, torch.tensor([[2.0, 0.0]]), 3, piece=2)
    for temperature, winner in ((1.0, 0), (0.1, 1), (0.0001, 1)):
        hits = count_hits(
            found.similarities, bank_labels[found.numbers], torch.tensor([winner]),
            temperature=temperature, num_classes=2,
        )  # fmt: skip
        assert hits == 1


@pytest.mark.parametrize("piece", [1, 7, 50, 400])
def test_of_equally_near_rows_the_first_count_however_they_are_cut(piece: int) -> None:
    """Integers, whose similarities have no rounding: many are the same. Also where ranks have every third of them."""
    generator = torch.Generator().manual_seed(1)
    kinds = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0]])
    bank, queries = (kinds[torch.randint(4, (count,), generator=generator)] for count in (400, 30))
    expected = (queries @ bank.T).sort(dim=1, descending=True, stable=True)
    for k in (1, 20, 150):
        found = nearest_in(bank, queries, k, piece)
        assert torch.equal(found.similarities, expected.values[:, :k])
        assert torch.equal(found.numbers, expected.indices[:, :k])
        ranks = [Nearest(queries, k) for _ in range(3)]
        for rank, part in enumerate(ranks):
            part.add(bank[rank::3], torch.arange(rank, 400, 3))
        similarities, numbers = nearest_of(
            torch.cat([part.similarities for part in ranks], 1), torch.cat([part.numbers for part in ranks], 1), k
        )
        assert torch.equal(numbers, expected.indices[:, :k])
        assert torch.equal(similarities, expected.values[:, :k])


def test_fewer_rows_than_neighbors_leave_room() -> None:
    found = nearest_in(torch.eye(3), torch.eye(3)[:1], 5, piece=3)
    assert found.numbers.tolist() == [[0, 1, 2, -1, -1]]
    assert found.similarities.tolist() == [[1, 0, 0, -math.inf, -math.inf]]


# -- memory -----------------------------------------------------------------------------------------------------------


class Memory(TorchDispatchMode):
    """Bytes of the largest tensor that was made, and of all new ones that were there at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.most = self.now = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = op(*args, **(kwargs or {}))
        if not op.is_view and not op._schema.is_mutable:
            for tensor in made if isinstance(made, tuple | list) else [made]:
                if isinstance(tensor, Tensor):
                    self._note(tensor)
        return made

    def _note(self, tensor: Tensor) -> None:
        size = tensor.untyped_storage().nbytes()
        self.largest = max(self.largest, size)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._forget, size).atexit = False

    def _forget(self, size: int) -> None:
        self.now -= size


def memory_of(act: Callable[[], object]) -> Memory:
    with Memory() as memory:
        act()
    return memory


def test_a_piece_takes_no_more_for_a_larger_bank() -> None:
    """200,000 rows of 64 features: all similarities of 1,000 queries would be 800 MB."""
    bank, queries = torch.randn(200_000, 64), torch.randn(1000, 64)
    memory = memory_of(lambda: nearest_in(bank, queries, 20, piece_rows(64)))
    assert memory.largest <= 4 * nearest.MAX_BLOCK
    assert memory.most <= 4 * (nearest.MAX_BLOCK + nearest.MAX_PIECE) + 2**25
    assert piece_rows(2048) * 2048 <= nearest.MAX_PIECE


@pytest.mark.parametrize("is_collapsed", [False, True])
def test_no_more_of_the_training_images_is_held_than_a_piece(
    monkeypatch: pytest.MonkeyPatch, is_collapsed: bool
) -> None:
    """Of ten times as many images the whole test takes the same memory, unless the piece is as large as they are."""
    _, own = make_images({"class_subset": None, "batch_size": 32}, 1)
    job_of_all, model = make_images({"batch_size": 32}, 1)[0], tiny_models.Pixels(10, SIZE)
    evaluator = make_evaluator(make_objective(job_of_all, 10, 1, cycle_axis=1), 0, 1)
    if is_collapsed:  # every similarity is the same
        same = torch.ones_like
        monkeypatch.setattr(knn.FeatureHook, "take", lambda self: same(vars(self)["_features"]))
    counts = (134, 1340)

    def growth(rows: int) -> int:
        monkeypatch.setattr(knn, "piece_rows", lambda num_features: rows)
        few, many = (most_of(replace(own.knn, bank=replace(own.knn.bank, num_images=count))) for count in counts)
        return many - few

    def most_of(test: knn.KnnTest) -> int:
        queries = test.queries(model, evaluator, lambda: False)
        return memory_of(lambda: test.hits(model, queries, evaluator, lambda: False)).most

    features = (counts[1] - counts[0]) * 3 * SIZE**2 * 4
    assert abs(growth(64)) < features / 10
    assert growth(2000) > features
