import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import _auto_augment

from accel_trainer.data.augment.policies import (
    AUGMIX_BINS,
    COLOR_OPERATIONS,
    POLICIES,
    AugMix,
    Mixture,
    Operations,
    RandAugment,
    TrivialAugment,
)
from accel_trainer.data.rng.draws import Draws

PAIRS: list[tuple[Any, Any]] = [
    (RandAugment(), v2.RandAugment()),
    (TrivialAugment(), v2.TrivialAugmentWide()),
    (AugMix(), v2.AugMix()),
]
EVERY_POLICY = pytest.mark.parametrize("policy", [ours for ours, _ in PAIRS], ids=POLICIES)
EVERY_PAIR = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=POLICIES)
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (37, 50), (64, 41)]
UNLIKELY = 1e-4


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A noisy picture in the memory layout that decoding gives; each channel has a range of its own."""
    pixels = np.random.default_rng(seed).integers([0, 20, 90], [256, 140, 200], (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def draws(count: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 0, "indices": np.arange(count), **others})


def one_operation(number: int, magnitude_bin: int, sign: int) -> Operations:
    return Operations(*(np.array([[value]]) for value in (number, magnitude_bin, sign)))


def same_draws(first: Operations, second: Operations) -> bool:
    return all(np.array_equal(getattr(first, field.name), getattr(second, field.name)) for field in fields(first))


# -- operations -------------------------------------------------------------------------------------------------


@EVERY_PAIR
def test_operations_of_the_policies_equal_those_of_torchvision(ours: Any, theirs: Any) -> None:
    expected = {name: signed for name, (_, signed) in theirs._AUGMENTATION_SPACE.items()}
    assert {name: operation.signed for name, operation in ours.operations.items()} == expected


@EVERY_PAIR
def test_every_operation_of_every_magnitude_gives_the_pixels_that_torchvision_gives(ours: Any, theirs: Any) -> None:
    apply = TrivialAugment.apply if isinstance(ours, AugMix) else type(ours).apply
    bins = [0, 1, 2, 9] if isinstance(ours, AugMix) else [0, 1, 9, 15, 30]
    for (height, width), (number, name), which_bin in product(SHAPES, enumerate(ours.operations), bins):
        image = picture(height, width)
        magnitudes, signed = theirs._AUGMENTATION_SPACE[name]
        magnitudes = magnitudes(ours.num_bins, height, width)
        magnitude = 0.0 if magnitudes is None else float(magnitudes[which_bin])
        for sign in (1, -1):
            expected = theirs._apply_image_or_video_transform(
                image, name, sign * magnitude if signed else magnitude, theirs.interpolation, theirs._fill
            )
            altered = apply(ours, image, one_operation(number, which_bin, sign))
            assert altered.dtype == torch.uint8
            assert torch.equal(altered, expected), (name, which_bin, sign, height, width)


@EVERY_PAIR
def test_magnitudes_are_torchvisions_for_images_of_any_size(ours: Any, theirs: Any) -> None:
    for name, size in product(("TranslateX", "TranslateY"), (*range(1, 260, 3), 331, 512, 1000)):
        height, width = (size, 77) if name == "TranslateY" else (77, size)
        expected = theirs._AUGMENTATION_SPACE[name][0](ours.num_bins, height, width).tolist()
        # Every third: among them the first, the last and the middle one, which are the likeliest whole pixels.
        for which_bin in range(0, ours.num_bins, 3):
            found = ours.operations[name].magnitude(which_bin, ours.num_bins, (3, height, width))
            assert found == expected[which_bin], (name, size, which_bin)


@pytest.mark.parametrize("num_bins", [2, 3, 9, 17, 33, 101])
def test_magnitudes_are_torchvisions_for_any_number_of_bins(num_bins: int) -> None:
    for ours, theirs in ((RandAugment(1, 0, num_bins), PAIRS[0][1]), (TrivialAugment(num_bins), PAIRS[1][1])):
        for name, operation in ours.operations.items():
            expected = theirs._AUGMENTATION_SPACE[name][0](num_bins, 50, 60)
            found = [operation.magnitude(which_bin, num_bins, (3, 50, 60)) for which_bin in range(num_bins)]
            if name == "Posterize":
                found = [round(bits) for bits in found]
            assert expected is None or found == expected.tolist(), name


# -- whole policies ---------------------------------------------------------------------------------------------


class Scripted:
    """What torchvision's module takes for torch: its random numbers are those of a drawn row."""

    def __init__(self, names: Iterable[str], chains: list[list[tuple[int, int, int]]]) -> None:
        self.names = list(names)
        self.depths = [len(chain) for chain in chains]
        self.operations = [operation for chain in chains for operation in chain]
        self.magnitude_bin, self.sign = 0, 1

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def operation(self, space: dict[str, Any]) -> tuple[str, Any]:
        number, self.magnitude_bin, self.sign = self.operations.pop(0)
        return self.names[number], space[self.names[number]]

    def randint(self, *limits: int, **others: Any) -> torch.Tensor:
        return torch.tensor([self.depths.pop(0)] if "low" in others else self.magnitude_bin)

    def rand(self, size: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(0.75 if self.sign > 0 else 0.25)


def torchvisions(monkeypatch: pytest.MonkeyPatch, ours: Any, theirs: Any, image: torch.Tensor, drawn: Any) -> Any:
    """What torchvision's class makes of an image when it draws what is in the row `drawn`."""
    columns = np.stack([drawn.operation[0], drawn.magnitude_bin[0], drawn.sign[0]], axis=-1).tolist()
    chains = [columns]
    if isinstance(drawn, Mixture):
        chains = [chain[:depth] for chain, depth in zip(columns, drawn.depth[0], strict=True)]
        own, *weights = drawn.weights[0].tolist()
        samples = [torch.tensor([[own, 1.0]]), torch.tensor([weights])]
        monkeypatch.setattr(theirs, "_sample_dirichlet", lambda _: samples.pop(0))
    script = Scripted(ours.operations, chains)
    monkeypatch.setattr(_auto_augment, "torch", script)
    monkeypatch.setattr(theirs, "_get_random_item", script.operation)
    expected = theirs(image)
    assert not script.operations
    return expected


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        *PAIRS,
        (RandAugment(3, 17, 20), v2.RandAugment(3, 17, 20)),
        (TrivialAugment(9), v2.TrivialAugmentWide(9)),
        (AugMix(10, 2, 2, all_ops=False), v2.AugMix(10, 2, 2, all_ops=False)),
        (AugMix(1, 1), v2.AugMix(1, 1)),
    ],
)
def test_with_the_same_draws_torchvisions_class_gives_the_same_image(
    monkeypatch: pytest.MonkeyPatch, ours: Any, theirs: Any
) -> None:
    drawn = ours.draw(draws(40))
    changed = 0
    for row in range(40):
        image = picture(*SHAPES[row % len(SHAPES)], seed=row)
        altered = ours.apply(image, drawn[row : row + 1])
        assert torch.equal(altered, torchvisions(monkeypatch, ours, theirs, image, drawn[row : row + 1]))
        assert altered.dtype == torch.uint8
        assert altered.shape == image.shape
        changed += not torch.equal(altered, image)
    assert changed > 10


def test_augmix_without_all_operations_leaves_the_colours_out() -> None:
    assert AugMix().operations.keys() - AugMix(all_ops=False).operations.keys() == set(COLOR_OPERATIONS)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: RandAugment(num_ops=0), "num_ops is 0"),
        (lambda: RandAugment(magnitude=31), "magnitude is 31"),
        (lambda: RandAugment(magnitude=-1), "magnitude is -1"),
        (lambda: RandAugment(magnitude=0, num_magnitude_bins=1), "num_magnitude_bins is 1"),
        (lambda: TrivialAugment(num_magnitude_bins=1), "num_magnitude_bins is 1"),
        (lambda: AugMix(severity=0), "severity is 0"),
        (lambda: AugMix(severity=11), "severity is 11"),
        (lambda: AugMix(mixture_width=0), "mixture_width is 0"),
    ],
)
def test_impossible_arguments_of_a_policy_are_refused(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


# -- distributions ----------------------------------------------------------------------------------------------

MANY = 20_000


def equally_likely(drawn: np.ndarray, values: Iterable[int]) -> bool:
    """Whether each of the values, and no other, is as frequent as the rest, in every column."""
    values = list(values)
    columns = drawn.reshape(len(drawn), -1).T
    assert np.isin(columns, values).all()
    counts = np.array([[(column == value).sum() for value in values] for column in columns])
    return bool((stats.chisquare(counts, axis=1).pvalue > UNLIKELY).all())


def independent(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(stats.chi2_contingency(stats.contingency.crosstab(first, second).count).pvalue > UNLIKELY)


@pytest.mark.parametrize(
    ("policy", "bins"),
    [(RandAugment(), [9]), (TrivialAugment(), range(31)), (AugMix(), range(3)), (AugMix(10), range(AUGMIX_BINS))],
)
def test_operations_magnitudes_and_signs_are_equally_likely_and_independent(policy: Any, bins: Iterable[int]) -> None:
    drawn = policy.draw(draws(MANY))
    assert equally_likely(drawn.operation, range(len(policy.operations)))
    assert equally_likely(drawn.sign, [-1, 1])
    operation, magnitude_bin, sign = (
        values.reshape(MANY, -1) for values in (drawn.operation, drawn.magnitude_bin, drawn.sign)
    )
    assert independent(operation[:, 0], sign[:, 0])
    if operation.shape[1] > 1:
        assert independent(operation[:, 0], operation[:, -1])
        assert independent(sign[:, 0], sign[:, -1])
    if list(bins) == [9]:
        assert (magnitude_bin == 9).all()
    else:
        assert equally_likely(magnitude_bin, bins)
        assert independent(operation[:, 0], magnitude_bin[:, 0])
        assert independent(magnitude_bin[:, 0], sign[:, 0])


def test_an_augmix_chain_has_the_requested_or_one_to_three_operations() -> None:
    assert equally_likely(AugMix().draw(draws(MANY)).depth, [1, 2, 3])
    fixed = AugMix(chain_depth=5).draw(draws(4))
    assert (fixed.depth == 5).all()
    assert fixed.operation.shape == (4, 3, 5)


@pytest.mark.parametrize("width", [1, 3, 4])
def test_augmix_weights_add_up_to_one_and_follow_beta_and_dirichlet(width: int) -> None:
    weights = AugMix(mixture_width=width).draw(draws(MANY)).weights
    assert weights.shape == (MANY, 1 + width)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)
    own, shares = weights[:, 0], weights[:, 1:] / (1 - weights[:, :1])
    assert stats.kstest(own, "uniform").pvalue > UNLIKELY
    for share in shares.T if width > 1 else ():
        # Each share of a Dirichlet(1, ..., 1) is Beta(1, width - 1).
        assert stats.kstest(share, stats.beta(1, width - 1).cdf).pvalue > UNLIKELY
        assert abs(stats.spearmanr(own, share).statistic) < 0.03
    if width > 1:
        assert np.corrcoef(shares[:, 0], shares[:, 1])[0, 1] == pytest.approx(-1 / (width - 1), abs=0.03)


def test_augmix_weights_depths_and_operations_are_independent() -> None:
    drawn = AugMix().draw(draws(MANY))
    columns = [
        (drawn.weights[:, 0] * 5).astype(int),
        (drawn.weights[:, 1] / (1 - drawn.weights[:, 0]) * 4).astype(int),
        *drawn.depth.T,
        drawn.operation[:, 0, 0],
        drawn.operation[:, 1, 0],
    ]
    for first, second in combinations(columns, 2):
        assert independent(first, second)


# -- the contract of randomness ---------------------------------------------------------------------------------


@EVERY_POLICY
def test_the_operations_on_an_image_are_independent_of_its_batch(policy: Any) -> None:
    batch = policy.draw(draws(0, indices=np.array([5, 6, 7]), num_views=2))
    alone = policy.draw(draws(0, indices=np.array([6]), num_views=2))
    assert same_draws(batch[2:4], alone)
    assert not same_draws(batch[0:2], alone)
    assert not same_draws(alone[0:1], alone[1:2])


@EVERY_POLICY
@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 2}])
def test_another_seed_or_epoch_draws_something_else(policy: Any, other: dict[str, int]) -> None:
    assert same_draws(policy.draw(draws(9)), policy.draw(draws(9)))
    assert not same_draws(policy.draw(draws(9)), policy.draw(draws(9, **other)))


@EVERY_POLICY
def test_no_images_give_no_draws_of_policies(policy: Any) -> None:
    drawn = policy.draw(draws(0))
    assert all(len(getattr(drawn, field.name)) == 0 for field in fields(drawn))


@EVERY_POLICY
def test_the_policies_leave_global_random_generators_alone(policy: Any) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    drawn = policy.draw(draws(60))
    for row in range(60):
        policy.apply(picture(9, 8), drawn[row : row + 1])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]


@EVERY_POLICY
@pytest.mark.parametrize("contiguous", [False, True])
def test_an_image_is_left_as_it_is(policy: Any, contiguous: bool) -> None:
    image = picture(23, 31).contiguous() if contiguous else picture(23, 31)
    original, drawn = image.clone(), policy.draw(draws(100))
    for row in range(100):
        policy.apply(image, drawn[row : row + 1])
        assert torch.equal(image, original)


@EVERY_POLICY
def test_several_threads_at_once_make_the_same_images_as_one(policy: Any) -> None:
    drawn, images = policy.draw(draws(80)), [picture(40, 48, seed) for seed in range(80)]

    def altered(row: int) -> torch.Tensor:
        return policy.apply(images[row], drawn[row : row + 1])

    expected = [altered(row) for row in range(80)]
    with ThreadPoolExecutor(8) as threads:
        for found in (list(threads.map(altered, range(80))) for _ in range(2)):
            assert all(map(torch.equal, found, expected))
