import numpy as np
import pytest
from scipy import stats

from accel_trainer.core import keyed_random

KEY = keyed_random.key(7, "test")
# With fixed keys a test of chance gives the same verdict every time; this is where it would be "no chance".
UNLIKELY = 1e-4


@pytest.mark.parametrize("other", [(7, "crop", 2), (8, "crop", 1), (7, "order", 1), ("7", "crop", 1), (7, "crop")])
def test_every_part_of_a_key_matters(other: tuple[int | str, ...]) -> None:
    assert keyed_random.key(*other) != keyed_random.key(7, "crop", 1)
    assert keyed_random.key(7, "crop", 1) == keyed_random.key(7, "crop", 1)


def test_random_keys_are_64_bits_wide_each() -> None:
    keys = [keyed_random.key(i) for i in range(200)]
    assert len(set(keys)) == 200
    assert all(0 <= key < 2**64 for key in keys)
    assert max(keys) > 2**63


def test_the_mixing_function_of_keys_is_splitmix64() -> None:
    """The first three outputs for seed 1234567, as published with the reference implementation."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [(1234567 + n * 0x9E3779B97F4A7C15) % 2**64 for n in (1, 2, 3)]
    with np.errstate(over="ignore"):
        assert keyed_random.splitmix64(np.array(states, dtype=np.uint64)).tolist() == published


def test_the_same_key_gives_the_same_numbers() -> None:
    first, again = (keyed_random.uniforms(KEY, [3, 1, 4], 5) for _ in range(2))
    assert first.dtype == np.float64
    assert first.shape == (3, 5)
    np.testing.assert_array_equal(first, again)


def test_another_key_gives_other_random_numbers() -> None:
    one, other = (keyed_random.uniforms(key, range(100), 3) for key in (KEY, KEY + 1))
    assert not np.isin(one, other).any()


def test_the_numbers_of_an_index_do_not_depend_on_the_other_indices() -> None:
    together = keyed_random.uniforms(KEY, range(1000), 4)
    np.testing.assert_array_equal(together[[5, 999, 0]], keyed_random.uniforms(KEY, np.array([5, 999, 0]), 4))
    np.testing.assert_array_equal(together[:, :2], keyed_random.uniforms(KEY, range(1000), 2))


def test_no_indices_give_an_empty_array_of_numbers() -> None:
    assert keyed_random.uniforms(KEY, [], 4).shape == (0, 4)


@pytest.mark.parametrize("indices", [range(20_000), range(10**9, 10**9 + 20_000), range(0, 20_000 * 256, 256)])
def test_numbers_are_uniform_and_independent_of_their_neighbours(indices: range) -> None:
    numbers = keyed_random.uniforms(KEY, indices, 2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > UNLIKELY
    for one, other in ((numbers[:, 0], numbers[:, 1]), (numbers[:-1, 0], numbers[1:, 0])):
        cells = np.histogram2d(one, other, bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(cells.ravel()).pvalue > UNLIKELY


def test_neighboring_keys_give_independent_random_numbers() -> None:
    one, other = (keyed_random.uniforms(keyed_random.key(0, "crop", epoch), range(20_000), 1)[:, 0] for epoch in (1, 2))
    cells = np.histogram2d(one, other, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(cells.ravel()).pvalue > UNLIKELY


@pytest.mark.parametrize("length", [0, 1, 2, 1347])
def test_a_permutation_has_every_index_once(length: int) -> None:
    assert sorted(keyed_random.permutation(KEY, length).tolist()) == list(range(length))


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = [tuple(keyed_random.permutation(keyed_random.key(0, "order", epoch), 50).tolist()) for epoch in range(20)]
    assert len(set(orders)) == 20


def test_all_orders_of_a_permutation_are_equally_likely() -> None:
    orders = [tuple(keyed_random.permutation(keyed_random.key(0, "order", i), 4).tolist()) for i in range(6000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_keys_and_orders_stay_the_same_for_ever() -> None:
    """A run that is resumed with a later version sees its images in the order it began with."""
    assert keyed_random.key(0, "order", 1) == 10499744812722044419
    assert keyed_random.permutation(keyed_random.key(0, "order", 1), 10).tolist() == [1, 6, 2, 9, 5, 0, 4, 3, 8, 7]
