"""What a person types after --set, and the combinations that come of it."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from helpers import said_by

from accel_trainer.config.sweep.axes import MAX_JOBS, Axis, Range, grid, parse_axes, random_search
from accel_trainer.core.errors import UserError


def values(text: str) -> list[Any]:
    (axis,) = parse_axes([f"key={text}"])
    assert isinstance(axis.values, tuple)
    return list(axis.values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1,1e-3,2", [0.1, 0.001, 2]),
        ("true,false,null", [True, False, None]),
        ("1,true,0,false", [1, True, 0, False]),
        ("SGD, AdamW ,LRfinder", ["SGD", "AdamW", "LRfinder"]),
        ('"1","true","a,b"', ["1", "true", "a,b"]),
        (r'"a\",b",c', ['a",b', "c"]),
        (r'"a\\",c', ["a\\", "c"]),
        ("[1,2],[3],[]", [[1, 2], [3], []]),
        ('{"alpha": 0.5, "b": [1,2]},null', [{"alpha": 0.5, "b": [1, 2]}, None]),
        ('["]",","]', [["]", ","]]),
        ('""', [""]),
        ("none,contrastive-no-blur", ["none", "contrastive-no-blur"]),
        ("timm:convnext_tiny,my_lab.models:Net,hf:a/b", ["timm:convnext_tiny", "my_lab.models:Net", "hf:a/b"]),
        ("~/runs/a=b,/x y", ["~/runs/a=b", "/x y"]),
        ("None-such,Truest", ["None-such", "Truest"]),
        ("2024-01-05", ["2024-01-05"]),
    ],
)
def test_values_are_json_where_they_can_be_and_else_text(text: str, expected: list[Any]) -> None:
    found = values(text)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a value is empty"),
        ("0.1,,0.2", "a value is empty"),
        ("0.1,", "a value is empty"),
        ("[1,2", "a bracket has no partner"),
        ("1],2", "a bracket has no partner"),
        ('"a', "a quote has no partner"),
        ("[a,b]", "single quotes keep the double ones"),  # what a shell leaves of ["a","b"]
        ("{alpha:0.5}", "single quotes keep the double ones"),
        ("'a'", "single quotes keep the double ones"),
        ("True,False", "in JSON it is true"),  # the text "False" would be true for most of torch
        ("FALSE", "in JSON it is false"),
        ("None", "in JSON it is null"),
        (".1", "in JSON it is 0.1"),
        ("+1", "in JSON it is 1.0"),
        ("1_000", "in JSON it is 1000.0"),
        ("nan", "is no number in JSON"),
        ("inf", "is no number in JSON"),
        ("NaN", "NaN is not a number in JSON"),
        ("-Infinity", "-Infinity is not a number in JSON"),
        ("1e999", "too large"),
        ('{"a":1,"a":2}', "a: given twice"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ('"\\ud800"', "half a character"),
        ("\udcff", "is not text"),
        ("0,1,0", "0: given twice; keep one"),
        ("1,1.0", "1.0: given twice; keep one"),
        ("a,a", "a: given twice; keep one"),
    ],
)
def test_a_probable_mistake_in_an_axis_is_reported(text: str, said: str) -> None:
    line = said_by(parse_axes, [f"optimizer_args.x={text}"])
    assert line.startswith(("optimizer_args.x: ", "optimizer_args.x.a: "))
    assert said in line


@pytest.mark.parametrize("word", ["seed", "", "=1", "a..b=1", ".a=1", "a.=1"])
def test_a_setting_has_a_key_and_values(word: str) -> None:
    assert "it is KEY=VALUE,VALUE" in said_by(parse_axes, [word])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1", "seed=2"], "seed: given twice; list all values in one: seed=VALUE,VALUE"),
        (['a={"b":1}', "a.b=1"], "a.b: is a part of a, which is set too"),
        (["a.b=1", 'a={"b":1}'], "a.b: is a part of a, which is set too"),
    ],
)
def test_a_parameter_may_be_set_only_once(words: list[str], said: str) -> None:
    assert said in said_by(parse_axes, words)


def test_a_key_that_begins_like_another_is_another() -> None:
    assert [axis.key for axis in parse_axes(["optimizer=SGD", "optimizer_args.lr=1"])] == [
        "optimizer",
        "optimizer_args.lr",
    ]


def test_all_mistakes_of_the_axes_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        parse_axes(["seed", "lr=.1", "amp=True", "num_epochs=1"])
    assert len(caught.value.problems) == 3


# -- grids -------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_the_last_axis_fastest() -> None:
    assert grid(parse_axes(["a=1,2", "b=x,y,z"])) == [{"a": a, "b": b} for a in (1, 2) for b in "xyz"]


def test_a_grid_takes_no_ranges_of_values() -> None:
    assert said_by(grid, parse_axes(["a=1", "b.lr=log:1e-4:1e-1"])) == (
        "b.lr: log:0.0001:0.1 is a range to draw from; give the number of draws with `random`"
    )


def test_a_grid_by_mistake_is_refused_before_it_is_made() -> None:
    digits = ",".join(map(str, range(10)))
    axes = parse_axes([f"{key}={digits}" for key in "abcdefghijklmnop"])
    assert "10,000,000,000,000,000 combinations, and a sweep may have 1,000 jobs" in said_by(grid, axes)
    assert len(grid(axes[:3])) == MAX_JOBS


# -- draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log:1e-4:1e-1", Range("log", 1e-4, 1e-1)),
        ("uniform:-1:1", Range("uniform", -1, 1)),
        ("int:1:10", Range("int", 1, 10)),
    ],
)
def test_a_range_is_recognized_by_its_first_word(text: str, expected: Range) -> None:
    assert parse_axes([f"key={text}"]) == [Axis("key", expected)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("log:0:1", "only positive numbers have a logarithm"),
        ("log:-1:1", "only positive numbers have a logarithm"),
        ("uniform:1:1", "the smaller one first"),
        ("uniform:2:1", "the smaller one first"),
        ("uniform:-1e308:1e308", "two finite numbers"),
        ("uniform:0:1e999", "two finite numbers"),
        ("int:1:1e3", "takes two whole numbers"),
        ("int:0.5:3", "takes two whole numbers"),
        ("uniform:1.2.3:4", "takes two numbers"),
        ("loguniform:1e-4:1e-1", "ranges are uniform:LOW:HIGH, log:LOW:HIGH, int:LOW:HIGH"),
        ("log:1e-4:1e-1,0.5", "a range stands alone"),
    ],
)
def test_an_impossible_range_is_reported_with_its_reason(text: str, said: str) -> None:
    line = said_by(parse_axes, [f"key={text}"])
    assert line.startswith("key: ")
    assert said in line


def drawn(words: Sequence[str], number: int, seed: int = 0) -> list[dict[str, Any]]:
    return [dict(settings) for settings in random_search(parse_axes(words), number, seed)]


MIXED = ("lr=log:1e-4:1e-1", "drop=uniform:0:0.5", "depth=int:2:5", "opt=SGD,AdamW")


def test_the_same_seed_draws_the_same_and_more_draws_begin_alike() -> None:
    assert drawn(MIXED, 20) == drawn(MIXED, 20)
    assert drawn(MIXED, 50)[:20] == drawn(MIXED, 20)
    assert drawn(MIXED, 20, seed=1) != drawn(MIXED, 20)


def test_the_draws_are_the_same_in_every_version() -> None:
    """A sweep that is made again later must not become another one."""
    assert drawn(MIXED, 2) == [
        {"lr": 0.03414, "drop": 0.37898, "depth": 3, "opt": "SGD"},
        {"lr": 0.0034184, "drop": 0.20247, "depth": 5, "opt": "SGD"},
    ]


def test_draws_are_inside_their_ranges_and_have_the_named_distribution() -> None:
    found = drawn(MIXED, 1000)
    rates, drops = [s["lr"] for s in found], [s["drop"] for s in found]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert all(0 <= drop <= 0.5 for drop in drops)
    decades = Counter(math.floor(math.log10(rate)) for rate in rates)
    assert all(280 < decades[decade] < 390 for decade in (-4, -3, -2))
    assert 0.23 < sum(drops) / 1000 < 0.27
    depths = Counter(s["depth"] for s in found)
    assert depths.keys() == {2, 3, 4, 5}
    assert all(200 < count < 300 for count in depths.values())
    assert {type(depth) for depth in depths} == {int}


def test_numbers_are_short_but_fill_narrow_ranges_too() -> None:
    for text in ("uniform:1000:1001", "uniform:-1:-0.9999", "log:1:1.001", "uniform:1:1.9"):
        found = [s["x"] for s in drawn([f"x={text}"], 1000)]
        assert len(set(found)) == 1000
    assert all(len(json.dumps(s["x"])) <= 11 for s in drawn(["x=log:1e-6:1"], 1000))


def test_what_has_an_end_is_drawn_without_repetition() -> None:
    words = ("a=1,2,3", "b=int:0:9", "c=x,y")
    everything = {json.dumps(settings) for settings in drawn(words, 60)}
    assert len(everything) == 60
    for number in (1, 30, 59):
        some = [json.dumps(settings) for settings in drawn(words, number, seed=3)]
        assert len(set(some)) == len(some) == number
        assert set(some) <= everything


def test_of_more_than_there_are_all_are_drawn() -> None:
    assert drawn(["a=1,2", "b=x,y"], 5) == [{"a": a, "b": b} for a in (1, 2) for b in "xy"]
    # Between two neighbours there is no number.
    assert sorted(s["x"] for s in drawn(["x=uniform:1:1.0000000000000002"], 10)) == [1, 1.0000000000000002]


def test_a_draw_of_too_many_is_refused() -> None:
    assert "may have 1,000 jobs" in said_by(random_search, parse_axes(["a=uniform:0:1"]), MAX_JOBS + 1, 0)
