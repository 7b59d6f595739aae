import numpy as np
import pytest

from accel_trainer.core.errors import UserError
from accel_trainer.data.batch_plan import BatchPlan, TrainBatchPlanner, batch_sizes, evaluation_batches, whole_batches

NUM_IMAGES, BATCH_SIZE = 103, 16


def sampling(world_size: int = 1, accumulation: int = 1, seed: int = 0) -> TrainBatchPlanner:
    return TrainBatchPlanner(NUM_IMAGES, BATCH_SIZE, accumulation, world_size, seed)


def by_rank(plans_of: TrainBatchPlanner, epoch: int = 1, first_step: int = 0) -> list[list[BatchPlan]]:
    ranks = range(plans_of.world_size)
    return [list(plans_of.micro_batches(epoch, rank, first_step)) for rank in ranks]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_global_batches_do_not_depend_on_processes_and_accumulation(world_size: int, accumulation: int) -> None:
    alone = list(sampling().micro_batches(epoch=3, rank=0))
    ranks = by_rank(sampling(world_size, accumulation), epoch=3)
    assert {len(plans) for plans in ranks} == {accumulation * len(alone)}
    for step, expected in enumerate(alone):
        micro_batches = list(zip(*ranks, strict=True))[step * accumulation : (step + 1) * accumulation]
        parts = [plan for micro_batch in micro_batches for plan in micro_batch]
        assert {plan.step for plan in parts} == {step}
        assert {len(plan.indices) for plan in parts} == {BATCH_SIZE // world_size // accumulation}
        np.testing.assert_array_equal(np.concatenate([plan.indices for plan in parts]), expected.indices)
        assert all(
            (plan.indices == expected.indices[plan.start : plan.start + len(plan.indices)]).all() for plan in parts
        )
        for plan in parts:
            np.testing.assert_array_equal(plan.global_indices, expected.indices)


def test_an_epoch_has_every_image_at_most_once_and_full_batches_only() -> None:
    plans = list(sampling().micro_batches(epoch=1, rank=0))
    seen = np.concatenate([plan.indices for plan in plans])
    assert sampling().steps_per_epoch == len(plans) == NUM_IMAGES // BATCH_SIZE
    assert len(set(seen.tolist())) == len(seen) == len(plans) * BATCH_SIZE
    assert set(seen.tolist()) <= set(range(NUM_IMAGES))


@pytest.mark.parametrize("other", [{"epoch": 2}, {"seed": 1}])
def test_another_epoch_or_seed_has_another_order(other: dict[str, int]) -> None:
    first = next(sampling().micro_batches(1, 0)).indices.tolist()
    assert next(sampling(seed=other.get("seed", 0)).micro_batches(other.get("epoch", 1), 0)).indices.tolist() != first


@pytest.mark.parametrize("step", range(7))
@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 2)])
def test_an_epoch_that_is_resumed_goes_on_where_it_was(step: int, world_size: int, accumulation: int) -> None:
    whole = by_rank(sampling(world_size, accumulation))
    rest = by_rank(sampling(world_size, accumulation), first_step=step)
    for plans, tail in zip(whole, rest, strict=True):
        expected = plans[step * accumulation :]
        assert [plan.step for plan in tail] == [plan.step for plan in expected]
        for plan, other in zip(tail, expected, strict=True):
            np.testing.assert_array_equal(plan.indices, other.indices)


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulation", "said"),
    [
        (10, 4, 1, "batch_size: 10 cannot be divided by 4 processes; use 8 or 12"),
        (10, 2, 2, "batch_size: 10 cannot be divided by 2 processes x 2 accumulation steps; use 8 or 12"),
        (3, 8, 1, "batch_size: 3 cannot be divided by 8 processes; use 8"),
        (1, 1, 2, "batch_size: 1 cannot be divided by 2 accumulation steps; use 2"),
        (104, 1, 1, "batch_size: 104 is more than the 103 training images; use at most 103"),
        (256, 4, 2, "batch_size: 256 is more than the 103 training images; use at most 96"),
    ],
)
def test_an_impossible_batch_size_is_reported_with_the_nearest_possible_ones(
    batch_size: int, world_size: int, accumulation: int, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        TrainBatchPlanner(NUM_IMAGES, batch_size, accumulation, world_size, seed=0)
    assert str(caught.value) == said


def test_views_count_in_the_batch_size() -> None:
    one, two = sampling(), TrainBatchPlanner(NUM_IMAGES, 2 * BATCH_SIZE, 1, 1, seed=0, num_views=2)
    assert (two.images_per_step, two.images_per_forward, two.steps_per_epoch) == (16, 16, one.steps_per_epoch)
    assert two.examples_per_epoch == 2 * one.examples_per_epoch
    for plan, other in zip(one.micro_batches(1, 0), two.micro_batches(1, 0), strict=True):
        np.testing.assert_array_equal(plan.indices, other.indices)


@pytest.mark.parametrize(
    ("batch_size", "said"),
    [
        (18, "batch_size: 18 cannot be divided by 2 views x 2 processes x 2 accumulation steps; use 16 or 24"),
        (208, "batch_size: 208 is more than the 103 training images in 2 views each; use at most 200"),
    ],
)
def test_messages_about_the_batch_size_count_views_too(batch_size: int, said: str) -> None:
    with pytest.raises(UserError) as caught:
        TrainBatchPlanner(NUM_IMAGES, batch_size, accumulation=2, world_size=2, seed=0, num_views=2)
    assert str(caught.value) == said


def test_too_few_images_for_the_processes_are_reported_without_impossible_sizes() -> None:
    with pytest.raises(UserError) as caught:
        TrainBatchPlanner(num_images=3, batch_size=8, accumulation=1, world_size=8, seed=0)
    assert "use at most 0" not in str(caught.value)


@pytest.mark.parametrize("num_images", [0, 1, 7, 16, 17, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 5, 200])
def test_evaluation_has_every_image_exactly_once(num_images: int, world_size: int, batch_size: int) -> None:
    ranks = [list(evaluation_batches(num_images, batch_size, rank, world_size)) for rank in range(world_size)]
    plans = [plan for rank in ranks for plan in rank]
    assert sorted(index for plan in plans for index in plan.indices.tolist()) == list(range(num_images))
    assert all(1 <= len(plan.indices) <= batch_size for plan in plans)
    assert all(plan.global_indices is plan.indices for plan in plans)
    loads = [sum(len(plan.indices) for plan in rank) for rank in ranks]
    assert max(loads) - min(loads) <= 1


@pytest.mark.parametrize("num_images", [1, 15, 16, 17, 103])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_whole_batches_are_the_same_ones_whoever_has_them(num_images: int, world_size: int) -> None:
    """Every image once; dealt in turn; only the last may be smaller."""
    alone = list(whole_batches(num_images, 16, 0, 1, seed=5))
    ranks = [list(whole_batches(num_images, 16, rank, world_size, seed=5)) for rank in range(world_size)]
    for rank, plans in enumerate(ranks):
        assert [plan.step for plan in plans] == [plan.step for plan in alone][rank::world_size]
        for plan, expected in zip(plans, alone[rank::world_size], strict=True):
            np.testing.assert_array_equal(plan.indices, expected.indices)
            np.testing.assert_array_equal(plan.global_indices, expected.indices)
    sizes = [len(plan.indices) for plan in alone]
    assert sizes == [16] * (num_images // 16) + [num_images % 16] * (num_images % 16 > 0)
    assert sorted(np.concatenate([plan.indices for plan in alone]).tolist()) == list(range(num_images))


@pytest.mark.parametrize(("num_images", "sizes"), [(1, [1]), (16, [16]), (17, [17]), (18, [16, 2]), (33, [16, 17])])
def test_no_image_is_left_alone_where_images_are_compared(num_images: int, sizes: list[int]) -> None:
    plans = list(whole_batches(num_images, 16, 0, 1, seed=5, least=2))
    assert [len(plan.indices) for plan in plans] == sizes
    assert sorted(np.concatenate([plan.indices for plan in plans])) == list(range(num_images))


def test_batches_are_in_an_order_that_follows_from_the_seed() -> None:
    def order(seed: int) -> list[int]:
        return np.concatenate([plan.indices for plan in whole_batches(103, 16, 0, 1, seed)]).tolist()

    assert order(0) == order(0)
    assert len({tuple(order(0)), tuple(order(1)), tuple(range(103))}) == 3


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ((103, 1, 1, 1), [2, 4, 8, 16, 32, 64]),
        ((64, 1, 1, 1), [2, 4, 8, 16, 32, 64]),
        ((103, 2, 3, 2), [24, 48, 96, 192]),
        ((103, 1, 60, 1), [60]),
        ((103, 1, 200, 1), [200]),  # which TrainSampling refuses
    ],
)
def test_offered_batch_sizes_are_divisible_and_fit_the_training_set(
    given: tuple[int, int, int, int], sizes: list[int]
) -> None:
    assert batch_sizes(*given) == sizes
    num_images, num_views, world_size, accumulation = given
    for size in sizes if sizes[-1] <= num_images * num_views else []:
        assert TrainBatchPlanner(num_images, size, accumulation, world_size, 0, num_views).steps_per_epoch >= 1
