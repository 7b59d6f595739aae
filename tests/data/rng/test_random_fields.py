"""A field is noise without structure, and a function of its key."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from accel_trainer.core import keyed_random
from accel_trainer.data.rng.random_fields import normal_box, normal_field, uniform_field

UNLIKELY = 1e-4
GOLDEN = 0x9E3779B9
FIELDS = pytest.mark.parametrize("field", [uniform_field, normal_field])
ODD_KEYS = np.array(
    [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 0x80000000_80000000, 0x01234567_89ABCDEF], dtype=np.uint64
)


def keys(count: int, name: str = "fields") -> npt.NDArray[np.uint64]:
    return keyed_random.random_bits(keyed_random.key(name), range(count), 1)[:, 0]


def splitmix(key: int) -> int:
    """The finaliser of SplitMix64, in plain integers."""
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    key = (key ^ key >> 27) * 0x94D049BB133111EB % 2**64
    return key ^ key >> 31


def lowbias32(key: int, count: int) -> npt.NDArray[np.uint32]:
    """Wellons' hash of a counter in C's arithmetic: the lower half of the mixed key starts it."""
    key = splitmix(key)
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint32) * np.uint32(GOLDEN) + np.uint32(key & 0xFFFFFFFF)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= np.uint32(key >> 32)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    return x


# -- the hash ---------------------------------------------------------------------------------------------------


def test_a_uniform_field_has_the_upper_24_bits_of_the_hash() -> None:
    some = np.concatenate([ODD_KEYS, keys(20)])
    fields = uniform_field(some, (3, 17, 11)).numpy()
    assert fields.dtype == np.float32
    for key, field in zip(some.tolist(), fields, strict=True):
        upper = (lowbias32(key, 3 * 17 * 11) >> np.uint32(8)).astype(np.float32)
        expected = (upper + np.float32(0.5)) * np.float32(2.0**-24)
        np.testing.assert_array_equal(field.ravel(), expected)


def test_the_hash_in_plain_integers_is_the_same() -> None:
    """Python's integers have no 32 bits that overflow, nor a sign that is shifted in."""
    given, count = 0xFEDCBA98_76543210, 50
    key, expected = splitmix(given), []
    for counter in range(count):
        x = (counter * GOLDEN + key) % 2**32
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x ^= key >> 32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        expected.append(x ^ x >> 16)
    assert lowbias32(given, count).tolist() == expected


def test_a_normal_field_is_box_and_mullers_of_a_uniform_one() -> None:
    some = np.concatenate([ODD_KEYS, keys(20)])
    uniform = uniform_field(some, (2, 60)).to(torch.float64).numpy()
    radius, angle = np.sqrt(-2 * np.log(uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    field = normal_field(some, (4, 30))
    assert field.dtype == torch.float32
    np.testing.assert_allclose(field.reshape(len(some), -1).numpy(), expected, rtol=0, atol=5e-6)


# -- moments and distributions ----------------------------------------------------------------------------------

# Mean, variance and fourth central moment, and the eighth for the error of the fourth.
MOMENTS = {uniform_field: (1 / 2, 1 / 12, 1 / 80, 1 / 2304), normal_field: (0.0, 1.0, 3.0, 105.0)}
NUM_KEYS, SHAPE = 200, (3, 24, 24)
COUNT = NUM_KEYS * math.prod(SHAPE)


@FIELDS
def test_moments_are_those_of_the_distribution(field: Any) -> None:
    mean, variance, fourth, eighth = MOMENTS[field]
    numbers = field(keys(NUM_KEYS), SHAPE).to(torch.float64).numpy()
    off = numbers - mean
    assert abs(off.mean()) < 4 * math.sqrt(variance / COUNT)
    assert abs((off**2).mean() - variance) < 4 * math.sqrt((fourth - variance**2) / COUNT)
    assert abs((off**3).mean()) < 4 * math.sqrt(15 * variance**3 / COUNT)
    assert abs((off**4).mean() - fourth) < 4 * math.sqrt((eighth - fourth**2) / COUNT)
    # Also every field by itself: the sum of their squared errors is chi-squared.
    errors = off.reshape(NUM_KEYS, -1).mean(1) / math.sqrt(variance / math.prod(SHAPE))
    assert stats.kstest(errors, "norm").pvalue > UNLIKELY


@FIELDS
def test_neighboring_numbers_of_a_field_are_independent(field: Any) -> None:
    mean, variance, *_ = MOMENTS[field]
    numbers = (field(keys(NUM_KEYS), SHAPE).to(torch.float64).numpy() - mean) / math.sqrt(variance)
    flat = numbers.reshape(NUM_KEYS, -1)
    half = flat.shape[1] // 2  # where the second of a pair of normal numbers is
    neighbours = {
        "across": numbers[..., 1:] * numbers[..., :-1],
        "down": numbers[..., 1:, :] * numbers[..., :-1, :],
        "channels": numbers[:, 1:] * numbers[:, :-1],
        "fields": numbers[1:] * numbers[:-1],
        "pairs": flat[:, :half] * flat[:, half:],
        "squares": ((flat**2)[:, 1:] - 1) * ((flat**2)[:, :-1] - 1),
        "squares of pairs": ((flat**2)[:, :half] - 1) * ((flat**2)[:, half:] - 1),
    }
    for name, products in neighbours.items():
        assert abs(products.mean()) < 4 * products.std() / math.sqrt(products.size), name


@pytest.mark.parametrize(("field", "distribution"), [(uniform_field, "uniform"), (normal_field, "norm")])
def test_numbers_of_a_field_have_the_distribution(field: Any, distribution: str) -> None:
    together = field(keys(30), SHAPE).ravel().to(torch.float64).numpy()
    assert stats.kstest(together, distribution).pvalue > UNLIKELY
    pvalues = [stats.kstest(one, distribution).pvalue for one in field(keys(60), (500,)).to(torch.float64).numpy()]
    assert stats.kstest(pvalues, "uniform").pvalue > UNLIKELY


def test_uniform_numbers_are_above_0_and_up_to_1_and_normal_ones_finite() -> None:
    uniform, normal = (field(keys(60), (3, 64, 64)) for field in (uniform_field, normal_field))
    assert 0 < uniform.min() < 1e-5
    assert 1 - 1e-5 < uniform.max() <= 1
    assert torch.isfinite(normal).all()
    assert 4 < normal.max() < 5.9
    assert -5.9 < normal.min() < -4


def test_the_least_and_the_greatest_hash_make_finite_normal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for hashed in (0, -1):
        with monkeypatch.context() as patch:
            patch.setattr(
                "accel_trainer.data.rng.random_fields._hashes",
                lambda given, count, device, hashed=hashed: torch.full((1, count), hashed, dtype=torch.int32),
            )
            assert 0 < uniform_field(keys(1), (2,)).max() <= 1
            assert normal_field(keys(1), (5,)).abs().max() < 5.9


# -- keys -------------------------------------------------------------------------------------------------------


@FIELDS
def test_a_key_gives_the_same_field_whatever_else_is_in_the_batch(field: Any) -> None:
    some = keys(9)
    together = field(some, (3, 7, 5))
    for position in (0, 4, 8):
        assert torch.equal(field(some[position : position + 1], (3, 7, 5))[0], together[position])
    assert torch.equal(field(some[::-1], (3, 7, 5)), together.flip(0))
    assert torch.equal(field(np.repeat(some[:1], 3), (3, 7, 5)), together[:1].expand(3, -1, -1, -1))


def test_keys_are_left_as_they_are() -> None:
    some, before = keys(9), keys(9)
    normal_field(some, (5, 5))
    uniform_field(some, (5, 5))
    np.testing.assert_array_equal(some, before)


@FIELDS
def test_random_fields_leave_global_generators_alone_everywhere(field: Any) -> None:
    before = torch.get_rng_state()
    field(keys(3), (4, 4))
    assert torch.equal(torch.get_rng_state(), before)


def greatest_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """The largest absolute correlation of two fields under any circular shift, in standard deviations of chance."""
    spectra = [np.fft.rfft((x - x.mean()) / x.std()) for x in (first, second)]
    products = np.fft.irfft(spectra[0] * spectra[1].conj(), len(first))
    return float(np.abs(products).max() / math.sqrt(len(first)))


START = 0x0F1E2D3C_4B5A6978
APART = {
    "lower half": [(START, START ^ 1 << bit) for bit in range(32)],
    "lower half, by one": [(START, START + more) for more in range(1, 20)],
    "upper half, by random bits": [
        (START, START ^ other << 32) for other in keyed_random.random_bits(1, range(30), 1)[:, 0].tolist() if other
    ],
    "both, the lower by multiples of the constant": [
        (START, ((START >> 32) ^ other % 2**32) << 32 | (START + shift * GOLDEN) % 2**32)
        for shift, other in zip(range(-10, 10), keyed_random.random_bits(2, range(20), 1)[:, 0].tolist(), strict=True)
    ],
    "random": list(zip(keys(20).tolist(), keys(20, "others").tolist(), strict=True)),
}


@pytest.mark.parametrize("pairs", APART.values(), ids=APART)
@FIELDS
def test_keys_that_are_nearly_the_same_give_fields_that_have_nothing_in_common(field: Any, pairs: Any) -> None:
    for pair in pairs:
        first, second = field(np.array([key % 2**64 for key in pair], dtype=np.uint64), (6000,)).to(torch.float64)
        # Of 6000 shifts the largest is 4 standard deviations; 6.5 are never seen, and a shifted copy has 77.
        assert greatest_correlation(first.numpy(), second.numpy()) < 6.5, [hex(key) for key in pair]


@FIELDS
def test_keys_that_differ_in_an_upper_bit_give_unrelated_fields(field: Any) -> None:
    for bit in range(32, 64):
        first, second = field(np.array([START, START ^ 1 << bit], dtype=np.uint64), (6000,)).to(torch.float64)
        assert greatest_correlation(first.numpy(), second.numpy()) < 6.5, bit


def test_keys_with_the_same_upper_half_do_not_give_shifted_copies() -> None:
    shifted = START >> 32 << 32 | (START + 3 * GOLDEN) % 2**32
    first, second = uniform_field(np.array([START, shifted], dtype=np.uint64), (6000,)).to(torch.float64)
    assert greatest_correlation(first.numpy(), second.numpy()) < 6.5


@pytest.mark.parametrize(
    "others", [[START ^ 1 << bit for bit in range(32, 64)], [START + (more << 32) for more in range(1, 20)]]
)
def test_keys_with_close_upper_halves_give_unrelated_fields_too(others: list[int]) -> None:
    first, *rest = uniform_field(np.array([START, *others], dtype=np.uint64), (6000,)).to(torch.float64).numpy()
    assert max(greatest_correlation(first, other) for other in rest) < 6.5


def test_two_keys_of_one_upper_half_give_no_shifted_copies_of_one_field() -> None:
    lower = [(START + shift * GOLDEN) % 2**32 for shift in range(5)]
    first, *rest = uniform_field(np.array([START >> 32 << 32 | low for low in lower], dtype=np.uint64), (6000,))
    for shift, other in enumerate(rest, start=1):
        assert not torch.equal(first[shift:], other[:-shift])


# -- sizes ------------------------------------------------------------------------------------------------------


@FIELDS
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (1, 1, 1), (3, 1, 1), (3, 3, 3), (3, 5, 7), (3, 4, 4), ()])
def test_fields_have_the_shape_that_is_asked_for_also_with_an_odd_count(field: Any, shape: tuple[int, ...]) -> None:
    some = field(keys(5), shape)
    assert some.shape == (5, *shape)
    assert torch.isfinite(some).all()
    assert len(some.unique()) == some.numel()


@FIELDS
def test_no_keys_give_no_random_fields_at_all(field: Any) -> None:
    assert field(keys(0), (3, 4, 4)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 2, 3), (3, 7, 5), (3, 24, 24), (1, 5, 3), (4, 9, 2)])
def test_the_numbers_of_a_box_are_those_of_the_whole_field(shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    rng = np.random.default_rng(0)
    for key in keys(40):
        top, bottom = np.sort(rng.choice(height + 1, 2, replace=False)).tolist()
        left, right = np.sort(rng.choice(width + 1, 2, replace=False)).tolist()
        whole = normal_field(key[None], shape)[0]
        box = normal_box(key[None], shape, (top, bottom, left, right))
        assert torch.equal(box, whole[:, top:bottom, left:right])
