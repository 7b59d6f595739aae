"""Nested values by where they are."""

from typing import Any

import pytest

from accel_trainer.core.text import canonical, flatten, format_value, shortest_suffixes


def test_nested_objects_become_one_object_of_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None, "g": {}}) == {
        "a.b.c": 1,
        "a.d": [1, {"e": 2}],
        "f": None,
    }


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["optimizer_args.lr", "seed"], ["lr", "seed"]),
        (["Blur.probs", "Noise.probs", "Noise.ssnrs"], ["Blur.probs", "Noise.probs", "ssnrs"]),
        (["a.b.c", "x.b.c", "c"], ["a.b.c", "x.b.c", "c"]),
        (["a.b.c", "d.c"], ["b.c", "d.c"]),
        (["seed", "seed"], ["seed", "seed"]),
        ([], []),
    ],
)
def test_flat_keys_are_shortened_to_suffixes_that_stay_distinct(keys: list[str], expected: list[str]) -> None:
    assert [shortest_suffixes(keys)[key] for key in keys] == expected
    assert len(set(shortest_suffixes(keys).values())) == len(set(keys))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (1, 1.0, True),
        ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}, True),
        (0.1, 1e-1, True),
        (1, True, False),
        (0, False, False),
        (1, "1", False),
        (None, "null", False),
        ([1], 1, False),
    ],
)
def test_what_means_the_same_has_the_same_text(one: Any, other: Any, is_same: bool) -> None:
    assert (canonical(one) == canonical(other)) is is_same


def test_a_person_reads_text_without_quotes_and_all_else_as_json() -> None:
    assert list(map(format_value, ["é", True, None, 1e-5, [1, "a"]])) == ["é", "true", "null", "1e-05", '[1, "a"]']
