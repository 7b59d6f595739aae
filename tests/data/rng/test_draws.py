"""Numbers drawn for images follow from what they are for, and from nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from accel_trainer.core import keyed_random
from accel_trainer.data.rng.draws import Draws, Numbers, Parameters, choose

UNLIKELY = 1e-4
LARGEST = 1 - 2**-53
SHARED = [(False, False), (True, False), (False, True), (True, True)]
EVERY_SHARING = pytest.mark.parametrize(("view_dependence", "batch_dependence"), SHARED)


def draws(*indices: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 5, "indices": np.array(indices), "num_views": 2, **others})


# -- rows -------------------------------------------------------------------------------------------------------


def test_a_row_is_the_hash_of_seed_purpose_epoch_view_and_image() -> None:
    words = draws(7, 2, 9).random_bits("colour", 3)
    assert words.dtype == np.uint64
    assert words.shape == (6, 3)
    for row, (image, view) in enumerate([(7, 0), (7, 1), (2, 0), (2, 1), (9, 0), (9, 1)]):
        expected = keyed_random.random_bits(keyed_random.key(3, "colour", 1, view), [image], 3)
        np.testing.assert_array_equal(words[row : row + 1], expected)


@pytest.mark.parametrize("num_views", [1, 2, 3])
@EVERY_SHARING
def test_a_row_does_not_depend_on_the_other_images_nor_on_their_order(
    num_views: int, view_dependence: bool, batch_dependence: bool
) -> None:
    sharing = {
        "num_views": num_views,
        "view_dependence": view_dependence,
        "batch_dependence": batch_dependence,
    }
    batch = draws(4, 0, 11, 6, **sharing).random_bits("colour", 2).reshape(4, num_views, 2)
    turned = draws(6, 11, 0, 4, **sharing).random_bits("colour", 2).reshape(4, num_views, 2)
    np.testing.assert_array_equal(turned, batch[::-1])
    for position, image in enumerate((4, 0, 11, 6)):
        np.testing.assert_array_equal(draws(image, **sharing).random_bits("colour", 2), batch[position])


def test_more_views_or_more_numbers_leave_the_first_ones_as_they_are() -> None:
    few = draws(4, 8, num_views=2).uniforms("colour", 2).reshape(2, 2, 2)
    many = draws(4, 8, num_views=5).uniforms("colour", 6).reshape(2, 5, 6)
    np.testing.assert_array_equal(many[:, :2, :2], few)


def test_the_batch_number_matters_only_where_a_batch_shares_its_numbers() -> None:
    np.testing.assert_array_equal(draws(1, 2).random_bits("colour", 2), draws(1, 2, step=6).random_bits("colour", 2))
    shared = [draws(1, 2, step=step, batch_dependence=True).random_bits("colour", 2) for step in (5, 6)]
    assert not np.isin(*shared).any()


@EVERY_SHARING
@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 2}, {"purpose": "grey"}])
def test_another_seed_epoch_or_purpose_draws_something_else(
    other: dict[str, Any], view_dependence: bool, batch_dependence: bool
) -> None:
    ours = draws(*range(20), view_dependence=view_dependence, batch_dependence=batch_dependence)
    purpose = other.get("purpose", "colour")
    theirs = replace(ours, **{name: value for name, value in other.items() if name != "purpose"})
    assert not np.isin(ours.random_bits("colour", 3), theirs.random_bits(purpose, 3)).any()


def test_with_view_dependence_all_views_of_an_image_have_the_same_numbers() -> None:
    numbers = draws(*range(20), num_views=3, view_dependence=True).random_bits("colour", 4).reshape(20, 3, 4)
    assert (numbers == numbers[:, :1]).all()
    assert len(np.unique(numbers[:, 0])) == 20 * 4


def test_without_it_every_view_has_numbers_of_its_own() -> None:
    assert len(np.unique(draws(*range(20), num_views=3).random_bits("colour", 4))) == 20 * 3 * 4


@pytest.mark.parametrize("view_dependence", [False, True])
def test_with_batch_dependence_all_images_have_the_same_numbers(view_dependence: bool) -> None:
    ours = draws(*range(20), num_views=3, batch_dependence=True, view_dependence=view_dependence)
    numbers = ours.random_bits("colour", 4).reshape(20, 3, 4)
    assert (numbers == numbers[:1]).all()
    assert len(np.unique(numbers[0])) == (4 if view_dependence else 3 * 4)


def test_shared_numbers_of_a_batch_differ_from_those_of_its_images() -> None:
    shared, own = draws(5, 6, step=5, batch_dependence=True), draws(5, 6, step=5)
    assert not np.isin(shared.random_bits("colour", 4), own.random_bits("colour", 4)).any()


def test_views_and_length_are_those_of_the_rows() -> None:
    ours = draws(4, 9, num_views=3)
    assert len(ours) == 6
    assert ours.views.tolist() == [0, 1, 2, 0, 1, 2]


@EVERY_SHARING
def test_no_images_give_no_random_numbers_at_all(view_dependence: bool, batch_dependence: bool) -> None:
    nothing = replace(
        draws(1, view_dependence=view_dependence, batch_dependence=batch_dependence),
        indices=np.array([], dtype=np.int64),
    )
    assert nothing.random_bits("colour", 4).shape == (0, 4)
    assert nothing.keys("colour").shape == (0,)
    assert len(nothing) == 0


# -- numbers ----------------------------------------------------------------------------------------------------


@EVERY_SHARING
def test_numbers_are_arrays_of_their_own_that_may_be_written(view_dependence: bool, batch_dependence: bool) -> None:
    ours = draws(*range(4), view_dependence=view_dependence, batch_dependence=batch_dependence)
    of_kinds: list[Callable[[], npt.NDArray[Any]]] = [
        lambda: ours.random_bits("colour", 3),
        lambda: ours.uniforms("colour", 3),
        lambda: ours.keys("colour"),
    ]
    for make in of_kinds:
        numbers, expected = make(), make()
        assert numbers.flags.writeable
        numbers[0] = 0
        np.testing.assert_array_equal(numbers[1:], expected[1:])
        np.testing.assert_array_equal(make(), expected)


def test_uniforms_are_the_53_upper_bits_of_words() -> None:
    words, numbers = draws(*range(50)).random_bits("colour", 4), draws(*range(50)).uniforms("colour", 4)
    assert [[(word >> 11) / 2**53 for word in row] for row in words.tolist()] == numbers.tolist()


@pytest.mark.parametrize("num_views", [1, 4])
def test_numbers_of_an_epoch_are_uniform_and_independent(num_views: int) -> None:
    numbers = draws(*range(5000), num_views=num_views).uniforms("colour", 2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > UNLIKELY
        assert stats.pearsonr(column[1:], column[:-1]).pvalue > UNLIKELY
    assert stats.pearsonr(*numbers.T).pvalue > UNLIKELY


def test_keys_of_images_are_64_bits_each() -> None:
    keys = draws(*range(1000)).keys("colour")
    assert keys.dtype == np.uint64
    assert len(np.unique(keys)) == 2000
    share = np.array([(keys >> np.uint64(bit)) & np.uint64(1) for bit in range(64)]).mean(axis=1)
    assert np.abs(share - 0.5).max() < 4.5 * 0.5 / np.sqrt(2000)


@EVERY_SHARING
def test_a_number_of_the_whole_batch_depends_on_its_step_only(view_dependence: bool, batch_dependence: bool) -> None:
    ours = draws(1, 2, 3)
    sharing = {"view_dependence": view_dependence, "batch_dependence": batch_dependence}
    number = ours.for_whole_batch("mixing")
    assert isinstance(number, float)
    assert number == draws(9, num_views=1, **sharing).for_whole_batch("mixing")
    others = [draws(1, 2, 3, **{name: 77}).for_whole_batch("mixing") for name in ("seed", "epoch", "step")]
    assert len({number, ours.for_whole_batch("erase"), *others}) == 5


def test_numbers_for_whole_batches_are_uniform() -> None:
    numbers = [draws(0, step=step).for_whole_batch("mixing") for step in range(2000)]
    assert stats.kstest(numbers, "uniform").pvalue > UNLIKELY


# -- parameters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Some(Parameters):
    sizes: Numbers
    boxes: npt.NDArray[np.int64]


@pytest.mark.parametrize(
    "rows", [slice(1, 3), slice(0, 0), slice(None, None, 2), np.array([3, 0, 0]), np.array([], int)]
)
def test_a_part_of_parameters_has_that_part_of_every_array(rows: Any) -> None:
    whole = Some(np.arange(4) / 7, np.arange(8).reshape(4, 2))
    part = whole[rows]
    assert type(part) is Some
    np.testing.assert_array_equal(part.sizes, whole.sizes[rows])
    np.testing.assert_array_equal(part.boxes, whole.boxes[rows])


# -- choosing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "number", "expected"),
    [
        ([0.2, 0.3], 0.0, 0),
        ([0.2, 0.3], np.nextafter(0.2, 0), 0),
        ([0.2, 0.3], 0.2, 1),
        ([0.2, 0.3], np.nextafter(0.5, 0), 1),
        ([0.2, 0.3], 0.5, -1),
        ([0.2, 0.3], LARGEST, -1),
        ([1.0], 0.0, 0),
        ([1.0], LARGEST, 0),
        ([0.0], 0.0, -1),
        ([0.0, 1.0], 0.0, 1),
        ([0.0, 0.5], 0.0, 1),
        ([1.0, 0.0], LARGEST, 0),
        ([0.5, 0.0, 0.5], 0.5, 2),
        ([0.1] * 10, 0.0, 0),
        ([0.1] * 10, LARGEST, 9),
        ([1 / 49] * 49, LARGEST, 48),
        ([0.3, 0.3, 0.4 + 1e-12], LARGEST, 2),
        ([0.999], LARGEST, -1),
        ([0.1] * 9, LARGEST, -1),
    ],
)
def test_what_is_chosen_at_the_edges(weights: list[float], number: float, expected: int) -> None:
    assert choose(np.array([number]), weights).tolist() == [expected]


def test_a_weight_of_zero_is_not_chosen_even_where_a_sum_is_rounded() -> None:
    assert choose(np.array([LARGEST]), [*[0.1] * 10, 0.0]).tolist() == [9]


@pytest.mark.parametrize("shape", [(), (7,), (3, 2), (0,)])
def test_choices_have_the_shape_of_the_numbers(shape: tuple[int, ...]) -> None:
    assert choose(np.zeros(shape), [0.5, 0.5]).shape == shape


@pytest.mark.parametrize("weights", [[0.2, 0.3, 0.1], [0.25] * 4, [0.0, 0.6, 0.4], [0.05]])
def test_things_are_chosen_with_frequencies_equal_to_their_weights(weights: list[float]) -> None:
    chosen = choose(draws(*range(20_000), num_views=1).uniforms("choice", 1)[:, 0], weights)
    expected = np.array([*weights, 1 - sum(weights)])
    counts = np.array([*((chosen == thing).sum() for thing in range(len(weights))), (chosen == -1).sum()])
    possible = expected > 1e-9
    assert counts.sum() == 20_000
    assert (counts[~possible] == 0).all()
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], 20_000 * expected[possible]).pvalue > UNLIKELY
