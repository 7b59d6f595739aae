"""The kernel's random numbers are those of NumPy, and take one call whatever is drawn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from accel_trainer.core import keyed_random
from accel_trainer.data.native import library
from accel_trainer.data.native.draws import random_numbers
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.rng.draws import Draws

INDICES = np.array([0, 7, 7, 1, 2**40 + 3, 1_281_166])


def of(use: Kernel | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_loaded", lambda: (use, "for a test"))


@pytest.mark.parametrize("view_dependence", [False, True])
@pytest.mark.parametrize("batch_dependence", [False, True])
@pytest.mark.parametrize(("num_views", "indices"), [(1, INDICES), (3, INDICES), (2, INDICES[::2]), (2, INDICES[:0])])
def test_numbers_have_the_bits_of_numpy_in_one_call(
    compiled: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    num_views: int,
    indices: Any,
    view_dependence: bool,
    batch_dependence: bool,
) -> None:
    draws = Draws(2**63 - 1, 5, 3, indices, num_views, view_dependence, batch_dependence)
    asked: list[Callable[[], Any]] = [
        lambda: draws.random_bits("anything", 4),
        lambda: draws.uniforms("anything", 23),
        lambda: draws.keys("anything"),
    ]
    of(None, monkeypatch)
    expected = [ask() for ask in asked]
    calls: list[int] = []
    draw = compiled.random
    monkeypatch.setattr(compiled, "random", lambda *given: (calls.append(1), draw(*given))[1])
    of(compiled, monkeypatch)
    for ask, numbers in zip(asked, expected, strict=True):
        calls.clear()
        found = ask()
        assert found.dtype == numbers.dtype
        assert np.array_equal(found, numbers)
        assert found.shape == numbers.shape
        assert len(calls) == 1
        found[:] = 0  # an array of its own


def test_keys_are_those_of_their_views(compiled: Kernel) -> None:
    keys = [0, 1, 2**64 - 1]
    found = random_numbers(compiled, keys, INDICES, 5, are_uniform=False).reshape(len(INDICES), 3, 5)
    for view, key in enumerate(keys):
        assert np.array_equal(found[:, view], keyed_random.random_bits(key, INDICES, 5))
